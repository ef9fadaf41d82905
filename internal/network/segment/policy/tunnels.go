package policy

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/mobileops/mobileops/internal/network/nft"
	"github.com/mobileops/mobileops/internal/network/segment"
	"golang.org/x/sys/unix"
)

// commentTunnels is that of the rules which keep workloads out of tunnels.
const commentTunnels = "forward: to tunnels of zones"

// remotes are the other hosts of tunnels, by the UDP port. Whatever comes to them
// there with the address of this host is taken for a frame of a zone (RFC 7348),
// so no workload may send it: with NAT it would have that address.
func (p *Policy) remotes() (ports []uint16, hosts map[uint16][]netip.Addr) {
	hosts = map[uint16][]netip.Addr{}
	for _, z := range p.zones {
		if z.VXLAN == nil {
			continue
		}
		if hosts[z.VXLAN.Port] == nil {
			ports = append(ports, z.VXLAN.Port)
		}
		hosts[z.VXLAN.Port] = append(hosts[z.VXLAN.Port], z.VXLAN.Remotes...)
	}
	return ports, hosts
}

// tunnels drops what zones send into tunnels.
func (t *tables) tunnels(chain string, ours nft.Set) {
	ports, hosts := t.policy.remotes()
	for _, port := range ports {
		for _, six := range families() {
			if slices.ContainsFunc(hosts[port], func(a netip.Addr) bool { return a.Is6() == six }) {
				to := t.list(t.inet, fmt.Sprintf("tunnels_%d_%s", port, family(six)), six, hosts[port])
				t.drop(t.inet, chain, commentTunnels, nft.In(ours, nft.InName), nft.NotIn(ours, nft.OutName),
					nft.Is(nft.L4Proto, nft.Proto(unix.IPPROTO_UDP)), nft.Is(nft.Dport, nft.Num16(port)), nft.In(to, daddr(six)))
			}
		}
	}
}

// tunnelled reports whether a packet that leaves the zones would be taken for one
// of a tunnel.
func (p *Policy) tunnelled(q Packet) bool {
	_, hosts := p.remotes()
	return q.Traffic.Protocol == segment.ProtocolUDP && slices.Contains(hosts[q.Traffic.First], q.To.Address)
}
