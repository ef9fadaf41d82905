package isolation

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/mobileops/mobileops/internal/network/nft"
	"golang.org/x/sys/unix"
)

// plan is what isolation comes to on a host.
type plan struct {
	Options
	around *surroundings
	kept   []Flow
	note   string // comment of the tables
}

// Sizes in bytes that bound what could be hidden in what stays possible.
const (
	longestARP       = 64  // an ARP packet, padded to the least frame
	longestNeighbor  = 48  // a solicitation with link-layer address and nonce (RFC 3971)
	longestSolicit   = 16  // a router solicitation with link-layer address
	longestListening = 200 // a multicast listener report of some groups
	longestControl   = 300 // LACP, STP; 802.1X with certificates is longer
	mostControl      = 50  // of those a second
	mostErrors       = 256 // rules for path MTU errors: every packet that is cut comes by all of them
	ipv6Header       = 40
	frameHeader      = 18 // Ethernet with a tag
)

// noLonger bounds IPv6 packets by what their header says of its payload, and by
// what there is: behind the end of the packet, a frame has room for more.
func noLonger(payload int) []nft.Expr {
	return []nft.Expr{nft.AtMost(nft.IPv6Length, nft.Num16(uint16(payload))), nft.ShorterThan(uint32(frameHeader + ipv6Header + payload + 1))}
}

// Types of ICMPv6 (RFC 4443, 4861, 2710, 3810).
const (
	tooBig             = 2
	listenerQuery      = 130
	listenerReport     = 131
	listenerDone       = 132
	routerSolicit      = 133
	routerAdvert       = 134
	neighborSolicit    = 135
	neighborAdvert     = 136
	listenerReport2    = 143
	unreachable        = 3 // ICMP (RFC 792)
	fragmentationNeeds = 4
)

var (
	linkLocal = netip.MustParsePrefix("fe80::/10")
	allNodes  = netip.MustParsePrefix("ff02::/16")
)

// batch writes all of isolation as one transaction. It fails with unix.EEXIST
// when there are tables, unless they are to be replaced.
func (p *plan) batch(b *nft.Batch) {
	var flags nft.TableFlags
	if p.Owned {
		flags = nft.Owner | nft.Persist
	}
	for _, t := range tables() {
		if p.Replace {
			b.DestroyTable(t)
			b.AddTable(t, flags, p.note)
		} else {
			b.CreateTable(t, flags, p.note)
		}
	}
	p.routed(b)
	p.framed(b)
	p.bridged(b)
}

// routed writes the table inet.
func (p *plan) routed(b *nft.Batch) {
	s := p.addSets(b, inet)
	cut := func(chain, comment string) {
		b.AddRule(inet, chain, comment, nft.In(s.armed, nft.Protocol), nft.Count(), nft.Drop())
	}
	b.AddChain(inet, "arriving", &nft.Hook{At: "prerouting", Priority: inetPriority})
	b.AddRule(inet, "arriving", "", nft.Is(nft.InName, nft.Interface("lo")), nft.Accept())
	b.AddChain(inet, "leaving", &nft.Hook{At: "output", Priority: inetPriority})
	b.AddRule(inet, "leaving", "", nft.Is(nft.OutName, nft.Interface("lo")), nft.Accept())
	for _, w := range []way{arriving, leaving} {
		add := w.adder(b, inet, w.String())
		p.peers(add, s, w, func(exprs ...nft.Expr) []nft.Expr { return exprs }, []uint8{4, 6})
		p.leases(add, s, w, []uint8{4, 6})
		p.errors(add, w, []uint8{4, 6})
		// Who may ask for whom is looked at on netdev.
		for _, typ := range []uint8{neighborSolicit, neighborAdvert} {
			add(append(noLonger(longestNeighbor), nft.Is(nft.IPv6HopLimit, nft.Num8(255)), nft.Is(nft.ICMPv6Type, nft.Num8(typ)))...)
		}
		p.routing(add, s, w)
		cut(w.String(), "cut: "+w.String())
	}
	b.AddChain(inet, "passing", &nft.Hook{At: "forward", Priority: inetPriority})
	cut("passing", "cut: passing through")
}

// way is a direction, as seen from this host.
type way bool

const (
	arriving way = false
	leaving  way = true
)

func (w way) String() string {
	if w == leaving {
		return "leaving"
	}
	return "arriving"
}

// side are the fields of a packet that passes in one direction: the address of
// the other side, the ports there and here, the interface, and what the routing
// table says of the address on this host's side.
type side struct {
	theirs4, theirs6, theirPort, ourPort, name, own nft.Field
}

func (w way) side() side {
	if w == leaving {
		return side{nft.IPv4Daddr, nft.IPv6Daddr, nft.Dport, nft.Sport, nft.OutName, nft.SourceKind}
	}
	return side{nft.IPv4Saddr, nft.IPv6Saddr, nft.Sport, nft.Dport, nft.InName, nft.DestinationKind}
}

// adder returns what adds a rule that accepts to a chain.
func (w way) adder(b *nft.Batch, t nft.Table, chain string) func(...nft.Expr) {
	return func(exprs ...nft.Expr) { b.AddRule(t, chain, "", append(exprs, nft.Accept())...) }
}

// peers accepts traffic with peers. The service of a peer with a port is asked
// for at that port, of either side; what comes from that port must be an answer,
// or the port of the sender would open all of ours.
func (p *plan) peers(add func(...nft.Expr), s *sets, w way, own func(...nft.Expr) []nft.Expr, versions []uint8) {
	tracked := s.armed.Table.Family == nft.INet
	for _, v := range versions {
		theirs, peer, service, kept := w.side().theirs4, s.peer4, s.service4, s.kept4
		if v == 6 {
			theirs, peer, service, kept = w.side().theirs6, s.peer6, s.service6, s.kept6
		}
		if peer != nil {
			add(own(nft.In(*peer, theirs))...)
		}
		if service != nil {
			asked, answered := w.side().ourPort, w.side().theirPort
			if w == leaving {
				asked, answered = answered, asked
			}
			add(own(nft.In(*service, theirs, nft.L4Proto, asked))...)
			// An answer of TCP has ACK, RST or both; of UDP connection tracking
			// knows, where there is one.
			add(own(nft.TCPStarts(true), nft.In(*service, theirs, nft.L4Proto, answered))...)
			if tracked {
				add(own(nft.State(nft.Established), nft.In(*service, theirs, nft.L4Proto, answered))...)
			} else {
				add(own(nft.Is(nft.L4Proto, nft.Proto(unix.IPPROTO_UDP)), nft.In(*service, theirs, nft.L4Proto, answered))...)
			}
		}
		if kept != nil {
			add(own(nft.In(*kept, theirs, nft.L4Proto, w.side().theirPort, w.side().ourPort))...)
		}
	}
}

// leases accepts renewal of addresses (RFC 2131, RFC 8415) where there are any
// that run out.
func (p *plan) leases(add func(...nft.Expr), s *sets, w way, versions []uint8) {
	rule := func(set *nft.Set, from, to uint16, where ...nft.Expr) {
		exprs := append([]nft.Expr{nft.In(*set, w.side().name)}, where...)
		add(append(exprs, nft.Is(nft.UDPSport, nft.Num16(from)), nft.Is(nft.UDPDport, nft.Num16(to)))...)
	}
	for _, v := range versions {
		switch {
		case v == 4 && s.dynamic4 == nil, v == 6 && s.dynamic6 == nil:
		case v == 4 && w == arriving:
			rule(s.dynamic4, 67, 68)
		case v == 4:
			// To the broadcast address, which a server or its relay hears. Renewal
			// by unicast may be refused: clients then ask this way, in time.
			rule(s.dynamic4, 68, 67, nft.Is(nft.IPv4Daddr, nft.Addr(netip.AddrFrom4([4]byte{255, 255, 255, 255}))))
		case w == arriving:
			rule(s.dynamic6, 547, 546, nft.Within(nft.IPv6Saddr, linkLocal))
		default:
			rule(s.dynamic6, 546, 547, nft.Is(nft.IPv6Daddr, nft.Addr(netip.MustParseAddr("ff02::1:2"))))
		}
	}
}

// errors accepts that a router on the way says that packets to a peer are too
// large for it (RFC 1191, RFC 8201): the error holds the beginning of such a
// packet. No set can be asked for an address in there, so with very many peers,
// or with everybody, any such error is accepted.
func (p *plan) errors(add func(...nft.Expr), w way, versions []uint8) {
	if w == leaving {
		return
	}
	const inner = 8 // bytes of ICMP before the packet it is about
	v4, v6 := merged(p.Allow, true)
	for _, v := range versions {
		ranges, at := v4, inner+16
		kind := []nft.Expr{nft.Is(nft.ICMPType, nft.Num8(unreachable)), nft.Is(nft.ICMPCode, nft.Num8(fragmentationNeeds))}
		if v == 6 {
			ranges, at = v6, inner+24
			kind = []nft.Expr{nft.Is(nft.ICMPv6Type, nft.Num8(tooBig))}
		}
		var about []netip.Prefix
		for _, r := range ranges {
			about = append(about, prefixes(r)...)
		}
		if len(about) > mostErrors || len(about) == 1 && about[0].Bits() == 0 {
			add(kind...)
			continue
		}
		for _, prefix := range about {
			add(append(slices.Clone(kind), nft.WithinTransport(at, prefix))...)
		}
	}
}

// routing accepts advertisements of known routers, and what a switch asks about
// multicast groups so that neighbour discovery reaches this host (RFC 3810).
func (p *plan) routing(add func(...nft.Expr), s *sets, w way) {
	link := nft.Within(nft.IPv6Saddr, linkLocal)
	once := nft.Is(nft.IPv6HopLimit, nft.Num8(1))
	if w == arriving {
		if s.routers6 != nil {
			add(nft.In(*s.routers6, nft.IPv6Saddr), nft.Is(nft.IPv6HopLimit, nft.Num8(255)), nft.Is(nft.ICMPv6Type, nft.Num8(routerAdvert)))
		} else if s.armed.Table.Family == nft.INet && len(p.around.Routers) > 0 && !p.Strict {
			add(link, nft.Is(nft.IPv6HopLimit, nft.Num8(255)), nft.Is(nft.ICMPv6Type, nft.Num8(routerAdvert)))
		}
		add(append(noLonger(longestListening), link, once, nft.Is(nft.ICMPv6Type, nft.Num8(listenerQuery)))...)
		return
	}
	if len(p.around.Routers) > 0 && !p.Strict {
		// Only to the link: to any other address, routers would carry it away.
		add(append(noLonger(longestSolicit), nft.Within(nft.IPv6Daddr, allNodes), nft.Is(nft.IPv6HopLimit, nft.Num8(255)), nft.Is(nft.ICMPv6Type, nft.Num8(routerSolicit)))...)
	}
	for _, typ := range []uint8{listenerReport, listenerDone, listenerReport2} {
		add(append(noLonger(longestListening), nft.Within(nft.IPv6Daddr, allNodes), once, nft.Is(nft.ICMPv6Type, nft.Num8(typ)))...)
	}
}

// bridged writes the table bridge.
func (p *plan) bridged(b *nft.Batch) {
	armed := setMaker{b, bridge}.armed(p.Confirm)
	b.AddChain(bridge, "passing", &nft.Hook{At: "forward", Priority: earlyPriority})
	b.AddRule(bridge, "passing", "cut: from port to port", nft.In(armed, nft.Protocol), nft.Count(), nft.Drop())
}

// comment says who isolates, and when.
func comment(by string, now time.Time) string {
	return fmt.Sprintf("by %s at %s", by, now.UTC().Format(time.RFC3339))
}

// localTime is what comment wrote into the tables, with the time as clocks here
// show it.
func localTime(comment string) string {
	if i := strings.LastIndex(comment, " at "); i >= 0 {
		if t, err := time.Parse(time.RFC3339, comment[i+len(" at "):]); err == nil {
			return comment[:i] + " at " + t.Local().Format(time.DateTime)
		}
	}
	return comment
}
