package policy

import (
	"net/netip"
	"testing"

	"github.com/mobileops/mobileops/internal/network/lab"
	"github.com/mobileops/mobileops/internal/network/segment"
)

// TestNoWorkloadSpeaksIntoATunnel sends to the other host of a tunnel from a zone
// that may reach everything and leaves with the address of this host.
func TestNoWorkloadSpeaksIntoATunnel(t *testing.T) {
	t.Parallel()
	const head = `
zones:
  dev: {subnets: [10.60.0.0/24, "fd00:60::/64"], nat: true, egress: [0.0.0.0/0, "::/0"]}
  test: {subnets: [10.61.0.0/24], gateways: none, vxlan: {id: 61, remotes: [`
	const tail = `]}}
workloads:
  web: {zone: dev, namespace: web}
`
	s := build(t, arrange(t, head+"192.0.2.1"+tail))
	web, out := s.machines["web"], s.outside
	l := arrange(t, head+out.IPv4().String()+tail)
	l.Zones[1].VXLAN.Remotes = append(l.Zones[1].VXLAN.Remotes, out.IPv6()) // as of another zone
	denied := []*lab.Probe{web.UDP(out, out.IPv4(), 4789), web.UDP(out, out.IPv6(), 4789)}
	allowed := []*lab.Probe{web.UDP(out, out.IPv4(), 4790), web.UDP(out, out.IPv6(), 4790), web.TCP(out, out.IPv4(), 4789)}
	lab.Open(t, append(denied, allowed...)...)
	s.apply(l)
	lab.Open(t, allowed...)
	lab.Blocked(t, denied...)
	p, err := Compile(l)
	if err != nil {
		t.Fatal(err)
	}
	for _, to := range []netip.Addr{out.IPv4(), out.IPv6()} {
		for port, want := range map[uint16]bool{4789: false, 4790: true} {
			list, err := p.Ask("web", to.String(), segment.Traffic{Protocol: segment.ProtocolUDP, First: port, Last: port})
			if err != nil || len(list) != 1 || list[0].Decision.Allowed != want {
				t.Errorf("to %s port %d: %+v, %v", to, port, list, err)
			}
		}
	}
	if s.counted(commentTunnels) == 0 {
		t.Error("nothing was counted")
	}
}
