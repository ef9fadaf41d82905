package segment

import (
	"strings"
	"testing"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/network/lab"
)

// TestAWorkloadCannotKeepOthersFromBeingRepaired lets the root of one workload put
// something else where its interface belongs.
func TestAWorkloadCannotKeepOthersFromBeingRepaired(t *testing.T) {
	t.Parallel()
	for _, hostile := range []string{
		"ip link del eth0; ip link add eth0 type veth peer name x",
		"ip link del eth0; ip link add eth0 type bridge",
		"ip link set eth0 name eth9; ip link add eth0 type veth peer name x",
	} {
		n := lab.New(t)
		m := newMachine(t, n.Host("host"))
		web, eve := n.Host("web"), n.Host("eve")
		const zone = `dev: {subnets: [10.60.0.0/24]}`
		m.apply(parse(t, "lab", workloads(zone, web, eve)))
		sh(t, eve, hostile)
		sh(t, web, "ip link del eth0")
		for range 2 {
			list, err := m.tryApply(Request{})
			if err != nil || !strings.HasPrefix(list[len(list)-1], "eve: it has made an interface eth0") {
				t.Errorf("%s: %v, %v", hostile, list, err)
			}
			ping(t, web, "10.60.0.1")
		}
		sh(t, eve, "ip link del eth0")
		m.apply(parse(t, "lab", workloads(zone, web, eve)))
		ping(t, eve, "10.60.0.1")
		// Who comes with an interface of that name is told.
		m.apply()
		sh(t, eve, "ip link add eth0 type bridge")
		if _, err := m.tryApply(Request{Put: []*Document{parse(t, "lab", workloads(zone, web, eve))}}); failure.KindOf(err) != failure.Busy {
			t.Errorf("%s: a new workload with an interface: %v", hostile, err)
		}
	}
}
