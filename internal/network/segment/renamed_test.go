package segment

import (
	"testing"

	"github.com/mobileops/mobileops/internal/network/lab"
)

// TestWhatWasRenamedIsStillOurs: what mobileops made goes when it is taken back,
// and is put right when it is not, whatever somebody has called it since.
func TestWhatWasRenamedIsStillOurs(t *testing.T) {
	t.Parallel()
	n := lab.New(t)
	m := newMachine(t, n.Host("host"))
	web := n.Host("web")
	doc := parse(t, "lab", workloads(devZone+"\n  prod: {subnets: [10.61.0.0/24]}", web)+"\n  vm: {zone: prod, tap: true}\n")
	before := everythingOf(t, m.Host)
	for _, by := range []string{
		"ip link set mo-dev down; ip link set mo-dev name theirs",
		"ip link set mo-dev alias 'uplink of floor 3'",
		"ip link set mo-p-vm name tap3; ip link set tap3 alias ''",
		"ip link set mo-dev name x; ip link set mo-prod name mo-dev; ip link set x name mo-prod",
	} {
		m.apply(doc)
		m.sh(by)
		m.apply()
		same(t, by, before, everythingOf(t, m.Host))

		m.apply(doc)
		m.sh(by)
		m.apply(doc)
		if list, err := m.plan(Request{}); err != nil || len(list) > 0 {
			t.Errorf("%s: %v, still to do: %v", by, err, list)
		}
		ping(t, web, "10.60.0.1")
		m.apply()
		same(t, by, before, everythingOf(t, m.Host))
		if t.Failed() {
			return
		}
	}
	// What others make by the name of what is gone is theirs.
	m.apply(doc)
	m.sh("ip link del mo-prod; ip link add mo-prod type bridge")
	m.apply()
	m.sh("ip link del mo-prod")
	same(t, "another bridge", before, everythingOf(t, m.Host))
}
