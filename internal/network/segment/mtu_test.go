package segment

import (
	"testing"

	"github.com/mobileops/mobileops/internal/network/lab"
)

// TestAPortDoesNotChangeTheMTUOfItsBridge joins a NIC with a smaller one.
func TestAPortDoesNotChangeTheMTUOfItsBridge(t *testing.T) {
	t.Parallel()
	m := newMachine(t, lab.New(t).Host("host"))
	m.sh("ip link add nic0 mtu 1400 type veth peer name nic1 mtu 1400")
	m.apply(parse(t, "lab", `
version: 1
zones: {dev: {subnets: [10.60.0.0/24]}}
workloads: {nic: {zone: dev, interface: nic0}}
`))
	if list, err := m.plan(Request{}); err != nil || len(list) > 0 {
		t.Errorf("after it was applied, this is to be done: %v %v", list, err)
	}
}
