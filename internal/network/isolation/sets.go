package isolation

import (
	"net/netip"
	"slices"
	"time"

	"github.com/mobileops/mobileops/internal/network/addresses"
	"github.com/mobileops/mobileops/internal/network/nft"
)

// Flow is an established connection, as seen from this host.
type Flow struct {
	Proto         uint8
	Local, Remote netip.AddrPort
}

// sets are those of one table: each table has its own. Sets that would be empty
// are not made, and rules about them neither.
type sets struct {
	armed              nft.Set
	peer4, peer6       *nft.Set // addresses that everything is allowed to
	service4, service6 *nft.Set // address, protocol, port
	kept4, kept6       *nft.Set // address, protocol, port there, port here
	part4, part6       *nft.Set // addresses of services: later fragments name no port
	dynamic4, dynamic6 *nft.Set // names of interfaces with addresses that run out
	// On netdev alone.
	neighbor4, neighbor6 *nft.Set // who may be resolved
	groups6              *nft.Set // their solicited-node multicast addresses (RFC 4291, 2.7.1)
	routers6             *nft.Set // who may advertise routes
}

// wholeRange is the element of the set "armed": every protocol.
func wholeRange(timeout time.Duration) nft.Element {
	return nft.Element{Key: nft.Key(nft.Ether(0)), End: nft.Key(nft.Ether(0xffff)), Timeout: timeout}
}

func armedSet(t nft.Table) nft.Set {
	return nft.Set{Table: t, Name: "armed", Key: []nft.Type{nft.EtherType}, Flags: nft.Interval | nft.Timeout, Comment: "what is in it is cut"}
}

// setMaker adds sets with elements to a batch.
type setMaker struct {
	b *nft.Batch
	t nft.Table
}

func (m setMaker) make(name, comment string, flags nft.SetFlags, elements []nft.Element, key ...nft.Type) *nft.Set {
	if len(elements) == 0 {
		return nil
	}
	s := nft.Set{Table: m.t, Name: name, Key: key, Flags: flags, Comment: comment}
	m.b.AddSet(s)
	m.b.AddElements(s, len(elements), func(i int) nft.Element { return elements[i] })
	return &s
}

func (m setMaker) ranges(name, comment string, typ nft.Type, list []addresses.Range) *nft.Set {
	elements := make([]nft.Element, len(list))
	for i, r := range list {
		elements[i] = nft.AddrRange(r.First, r.Last, 0)
	}
	return m.make(name, comment, nft.Interval, elements, typ)
}

func (m setMaker) armed(timeout time.Duration) nft.Set {
	s := armedSet(m.t)
	m.b.AddSet(s)
	m.b.AddElements(s, 1, func(int) nft.Element { return wholeRange(timeout) })
	return s
}

// addSets makes the sets that inet and netdev have alike.
func (p *plan) addSets(b *nft.Batch, t nft.Table) *sets {
	m := setMaker{b, t}
	s := &sets{armed: m.armed(p.Confirm)}
	v4, v6 := merged(p.Allow, false)
	s.peer4 = m.ranges("peer4", "may talk with this host", nft.IPv4Addr, v4)
	s.peer6 = m.ranges("peer6", "may talk with this host", nft.IPv6Addr, v6)

	var service4, service6 []nft.Element
	var parts []addresses.Range
	for _, peer := range p.services() {
		r := addresses.Of(peer.Prefix)
		e := nft.Element{
			Key: nft.Key(nft.Addr(r.First), nft.Proto(peer.Proto), nft.Num16(peer.First)),
			End: nft.Key(nft.Addr(r.Last), nft.Proto(peer.Proto), nft.Num16(peer.Last)),
		}
		if r.First.Is4() {
			service4, parts = append(service4, e), append(parts, r)
		} else {
			service6, parts = append(service6, e), append(parts, r)
		}
	}
	const services = "address and port of a service of either side"
	s.service4 = m.make("service4", services, nft.Interval, service4, nft.IPv4Addr, nft.INetProto, nft.Service)
	s.service6 = m.make("service6", services, nft.Interval, service6, nft.IPv6Addr, nft.INetProto, nft.Service)

	var kept4, kept6 []nft.Element
	for _, f := range p.kept {
		e := nft.Element{Key: nft.Key(nft.Addr(f.Remote.Addr()), nft.Proto(f.Proto), nft.Num16(f.Remote.Port()), nft.Num16(f.Local.Port()))}
		if f.Remote.Addr().Is4() {
			kept4, parts = append(kept4, e), append(parts, addresses.Range{First: f.Remote.Addr(), Last: f.Remote.Addr()})
		} else {
			kept6, parts = append(kept6, e), append(parts, addresses.Range{First: f.Remote.Addr(), Last: f.Remote.Addr()})
		}
	}
	const kept = "connections of before: address and port there, port here"
	s.kept4 = m.make("kept4", kept, 0, kept4, nft.IPv4Addr, nft.INetProto, nft.Service, nft.Service)
	s.kept6 = m.make("kept6", kept, 0, kept6, nft.IPv6Addr, nft.INetProto, nft.Service, nft.Service)

	var dynamic4, dynamic6 []nft.Element
	if !p.Strict {
		for _, name := range p.around.Dynamic4 {
			dynamic4 = append(dynamic4, nft.One(nft.Interface(name), 0))
		}
		for _, name := range p.around.Dynamic6 {
			dynamic6 = append(dynamic6, nft.One(nft.Interface(name), 0))
		}
	}
	s.dynamic4 = m.make("dynamic4", "addresses here run out", 0, dynamic4, nft.IfName)
	s.dynamic6 = m.make("dynamic6", "addresses here run out", 0, dynamic6, nft.IfName)
	if t.Family == nft.NetDev {
		parts4, parts6 := addresses.Split(addresses.Merge(parts))
		s.part4 = m.ranges("part4", "later fragments name no port", nft.IPv4Addr, parts4)
		s.part6 = m.ranges("part6", "later fragments name no port", nft.IPv6Addr, parts6)
		p.addNeighbors(m, s)
	}
	return s
}

// addNeighbors makes the sets of who may be resolved on the link.
func (p *plan) addNeighbors(m setMaker, s *sets) {
	v4, v6 := merged(p.Allow, true)
	single := func(list []netip.Addr) (out []addresses.Range) {
		for _, a := range list {
			out = append(out, addresses.Range{First: a, Last: a})
		}
		return out
	}
	more4, more6 := addresses.Split(addresses.Merge(append(single(p.around.Gateways), single(p.around.Own)...)))
	for _, f := range p.kept {
		r := addresses.Range{First: f.Remote.Addr(), Last: f.Remote.Addr()}
		if r.First.Is4() {
			more4 = append(more4, r)
		} else {
			more6 = append(more6, r)
		}
	}
	v4, v6 = append(append([]addresses.Range{}, v4...), more4...), append(append([]addresses.Range{}, v6...), more6...)
	s.neighbor4 = m.ranges("neighbor4", "gateways, peers and this host", nft.IPv4Addr, addresses.Merge(v4))
	s.neighbor6 = m.ranges("neighbor6", "gateways, peers and this host", nft.IPv6Addr, addresses.Merge(v6))
	var groups []addresses.Range
	for _, r := range v6 {
		groups = append(groups, solicitedNode(r))
	}
	s.groups6 = m.ranges("groups6", "where they are asked for", nft.IPv6Addr, addresses.Merge(groups))
	if !p.Strict {
		_, routers := addresses.Split(addresses.Merge(single(p.around.Routers)))
		s.routers6 = m.ranges("routers6", "may advertise routes", nft.IPv6Addr, routers)
	}
}

// solicitedNode returns the solicited-node multicast addresses of a range: 24
// bits of them are those of the address.
func solicitedNode(r addresses.Range) addresses.Range {
	first, last := r.First.As16(), r.Last.As16()
	group := [16]byte{0xff, 0x02, 11: 1, 12: 0xff}
	lo, hi := group, group
	if [13]byte(first[:13]) == [13]byte(last[:13]) {
		copy(lo[13:], first[13:])
		copy(hi[13:], last[13:])
	} else {
		hi[13], hi[14], hi[15] = 0xff, 0xff, 0xff
	}
	return addresses.Range{First: netip.AddrFrom16(lo), Last: netip.AddrFrom16(hi)}
}

// services are the peers that only a service is allowed with, cut so that no two
// overlap: elements of a set may not.
func (p *plan) services() []Peer {
	return disjoint(slices.DeleteFunc(slices.Clone(p.Allow), func(peer Peer) bool { return peer.First == 0 }))
}
