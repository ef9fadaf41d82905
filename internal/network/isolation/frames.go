package isolation

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/mobileops/mobileops/internal/network/addresses"
	"github.com/mobileops/mobileops/internal/network/nft"
	"golang.org/x/sys/unix"
)

// framed writes the table netdev. Each interface has two base chains, which go
// to chains that all interfaces share.
func (p *plan) framed(b *nft.Batch) {
	s := p.addSets(b, netdev)
	cut := func(chain, what string, w way) {
		b.AddRule(netdev, chain, "cut: frames "+w.String()+", "+what, nft.In(s.armed, nft.Protocol), nft.Count(), nft.Drop())
	}
	own := func(w way) func(...nft.Expr) []nft.Expr {
		return func(exprs ...nft.Expr) []nft.Expr {
			if p.around.vrf { // addresses in the tables of VRFs are not known as local
				return exprs
			}
			return append([]nft.Expr{nft.Is(w.side().own, nft.Local())}, exprs...)
		}
	}
	for _, w := range []way{arriving, leaving} {
		v4, v6, arp := w.String()+"_v4", w.String()+"_v6", w.String()+"_arp"

		b.AddChain(netdev, v4, nil)
		add := w.adder(b, netdev, v4)
		p.peers(add, s, w, own(w), []uint8{4})
		if s.part4 != nil {
			add(own(w)(nft.LaterFragment(), nft.In(*s.part4, w.side().theirs4))...)
		}
		p.leases(add, s, w, []uint8{4})
		p.errors(add, w, []uint8{4})
		cut(v4, "IPv4", w)

		b.AddChain(netdev, v6, nil)
		add = w.adder(b, netdev, v6)
		p.peers(add, s, w, own(w), []uint8{6})
		if s.part6 != nil {
			add(own(w)(nft.LaterFragment6(), nft.In(*s.part6, w.side().theirs6))...)
		}
		p.leases(add, s, w, []uint8{6})
		p.errors(add, w, []uint8{6})
		p.discovery(add, s, w)
		p.routing(add, s, w)
		cut(v6, "IPv6", w)

		b.AddChain(netdev, arp, nil)
		if s.neighbor4 != nil {
			asked := nft.ARPSaddrIP
			if w == leaving {
				asked = nft.ARPDaddrIP
			}
			w.adder(b, netdev, arp)(nft.ShorterThan(longestARP+1), nft.In(*s.neighbor4, asked))
		}
		cut(arp, "ARP", w)

		// What the header says counts where there is one: who sends raw frames
		// can tell the kernel of another protocol than the one in the frame.
		ether := "ether_" + w.String()
		b.AddChain(netdev, ether, nil)
		for _, k := range []struct {
			typ   uint16
			chain string
		}{{unix.ETH_P_IP, v4}, {unix.ETH_P_IPV6, v6}, {unix.ETH_P_ARP, arp}} {
			b.AddRule(netdev, ether, "", nft.Is(nft.EtherTypeOf, nft.Ether(k.typ)), nft.Goto(k.chain))
		}
		control := nft.AtRate(mostControl, time.Second, 2*mostControl)
		w.adder(b, netdev, ether)(nft.ShorterThan(longestControl), nft.ToSwitch(), control)
		w.adder(b, netdev, ether)(nft.ToSwitch(), nft.Is(nft.EtherTypeOf, nft.Ether(unix.ETH_P_PAE)), control)
		cut(ether, "other protocols", w)

		// Behind a tag, the kernel's word for the protocol has to do.
		tagged := "tagged_" + w.String()
		b.AddChain(netdev, tagged, nil)
		b.AddRule(netdev, tagged, "", nft.Is(nft.EtherTypeOf, nft.Ether(unix.ETH_P_8021Q)), nft.Is(nft.Protocol, nft.Ether(unix.ETH_P_IP)), nft.Version(4), nft.Goto(v4))
		b.AddRule(netdev, tagged, "", nft.Is(nft.EtherTypeOf, nft.Ether(unix.ETH_P_8021Q)), nft.Is(nft.Protocol, nft.Ether(unix.ETH_P_IPV6)), nft.Version(6), nft.Goto(v6))
		b.AddRule(netdev, tagged, "", nft.Is(nft.EtherTypeOf, nft.Ether(unix.ETH_P_8021Q)), nft.Is(nft.Protocol, nft.Ether(unix.ETH_P_ARP)), nft.Goto(arp))
		b.AddRule(netdev, tagged, "", nft.Goto(ether))

		// Interfaces without Ethernet: tunnels, PPP.
		bare := "bare_" + w.String()
		b.AddChain(netdev, bare, nil)
		b.AddRule(netdev, bare, "", nft.Is(nft.Protocol, nft.Ether(unix.ETH_P_IP)), nft.Version(4), nft.Goto(v4))
		b.AddRule(netdev, bare, "", nft.Is(nft.Protocol, nft.Ether(unix.ETH_P_IPV6)), nft.Version(6), nft.Goto(v6))
		cut(bare, "without Ethernet", w)
	}
	for _, i := range p.around.sealed() {
		seal(b, i)
	}
}

// seal gives an interface its chains.
func seal(b *nft.Batch, i Interface) {
	for _, w := range []way{arriving, leaving} {
		hook, to := "ingress", "bare_"
		if w == leaving {
			hook = "egress"
		}
		switch {
		case i.Ethernet && i.Tagged:
			to = "tagged_"
		case i.Ethernet:
			to = "ether_"
		}
		chain := chainOf(hook, i.Index)
		b.AddChain(netdev, chain, &nft.Hook{At: hook, Priority: earlyPriority, Devices: []string{i.Name}})
		if i.Ethernet && w == arriving && !i.serves {
			// A macvlan child in a container could take the host's address and
			// talk with its peers: what is for its MAC address ends here.
			b.AddRule(netdev, chain, "cut: frames arriving, for others", nft.Is(nft.PacketKind, nft.OtherHost()), nft.In(armedSet(netdev), nft.Protocol), nft.Count(), nft.Drop())
		}
		b.AddRule(netdev, chain, "", nft.Goto(to+w.String()))
	}
}

// chainOf names the chain of an interface at a hook.
func chainOf(hook string, index int32) string { return fmt.Sprintf("%s_%d", hook, index) }

// discovery accepts neighbour discovery (RFC 4861) with gateways and peers. Hop
// limit 255 says that no router has passed it on. Neighbours ask from their
// link-local addresses, too, which nobody needs to know before.
func (p *plan) discovery(add func(...nft.Expr), s *sets, w way) {
	near := append(noLonger(longestNeighbor), nft.Is(nft.IPv6HopLimit, nft.Num8(255)))
	rule := func(typ uint8, who nft.Expr) {
		add(append(append([]nft.Expr{who}, near...), nft.Is(nft.ICMPv6Type, nft.Num8(typ)))...)
	}
	if w == arriving {
		for _, typ := range []uint8{neighborSolicit, neighborAdvert} {
			if s.neighbor6 != nil {
				rule(typ, nft.In(*s.neighbor6, nft.IPv6Saddr))
			}
			rule(typ, nft.Within(nft.IPv6Saddr, linkLocal))
		}
		return
	}
	if s.neighbor6 != nil {
		rule(neighborSolicit, nft.In(*s.neighbor6, nft.IPv6Daddr))
		rule(neighborAdvert, nft.In(*s.neighbor6, nft.IPv6Daddr))
		rule(neighborSolicit, nft.In(*s.groups6, nft.IPv6Daddr))
	}
	rule(neighborAdvert, nft.Within(nft.IPv6Daddr, linkLocal))
	rule(neighborAdvert, nft.Is(nft.IPv6Daddr, nft.Addr(netip.MustParseAddr("ff02::1"))))
}

// prefixes cuts a range into prefixes.
func prefixes(r addresses.Range) (list []netip.Prefix) {
	for first := r.First; first.IsValid() && first.Compare(r.Last) <= 0; {
		bits := first.BitLen()
		for bits > 0 {
			wider := netip.PrefixFrom(first, bits-1)
			if wider.Masked().Addr() != first || r.Last.Less(addresses.Of(wider).Last) {
				break
			}
			bits--
		}
		p := netip.PrefixFrom(first, bits)
		list = append(list, p)
		first = addresses.Of(p).Last.Next()
	}
	return list
}
