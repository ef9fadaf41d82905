package policy

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/mobileops/mobileops/internal/network/addresses"
	"github.com/mobileops/mobileops/internal/network/segment"
)

// Place is where one end of a connection is.
type Place struct {
	Host    bool       // this host itself
	Zone    string     // the zone; "" is outside of all zones
	Address netip.Addr // which it has there
}

// Packet is the first packet of a connection.
type Packet struct {
	From, To Place
	Traffic  segment.Traffic // a protocol, with one port where it has any
}

// Decision is what the rules do with a packet, and why.
type Decision struct {
	Allowed  bool   `json:"allowed"`
	Rule     string `json:"rule"`               // what decides, in words
	Document string `json:"document,omitempty"` // of a flow: where it stands
	Line     int    `json:"line,omitempty"`

	// Chain and Comment are the rule that decides in the kernel, where it is
	// counted.
	Chain   string `json:"chain"`
	Comment string `json:"comment"`
}

// Locate says where an address is: that of a zone, of this host as its gateway,
// or of neither.
func (p *Policy) Locate(a netip.Addr) Place {
	for _, z := range p.zones {
		for _, s := range z.Subnets {
			if s.Gateway == a {
				return Place{Host: true, Zone: z.Name, Address: a}
			}
			if s.Prefix.Contains(a) {
				return Place{Zone: z.Name, Address: a}
			}
		}
	}
	return Place{Address: a}
}

// Decide says what the rules do with the first packet of a connection. They
// have nothing to say about packets that are of no zone.
func (p *Policy) Decide(q Packet) Decision {
	from, to := p.zone(q.From.Zone), p.zone(q.To.Zone)
	switch {
	case q.From.Host && (q.To.Host || to == nil), q.To.Host && from == nil, from == nil && to == nil:
		return Decision{Allowed: true, Rule: "no zone has to do with it"}
	case q.To.Host:
		return p.toHost(q, from)
	case q.From.Host:
		return p.fromHost(q, to)
	case from == to && !from.routes(q.From.Address):
		if from.open {
			return Decision{Allowed: true, Rule: "the zone " + from.Name + " is open to itself", Chain: chainWithin(from), Comment: "open"}
		}
		return Decision{Rule: "no flow opens the zone to itself", Chain: chainWithin(from), Comment: "deny within " + from.Name}
	}
	return p.forwarded(q, from, to)
}

func (p *Policy) zone(name string) *zone {
	for _, z := range p.zones {
		if z.Name == name {
			return z
		}
	}
	return nil
}

// routes reports whether packets of the family of an address go through this
// host within the zone.
func (z *zone) routes(a netip.Addr) bool { return a.Is4() && z.has4 || a.Is6() && z.has6 }

// sources are the ends that a sender is part of, in the order in which the rules
// look at them.
func (p *Policy) sources(from *zone, a netip.Addr) (list []*end) {
	if from == nil {
		for _, e := range p.ends {
			if e.kind == outside && e.prefix.Contains(a) || e.kind == internet && !addresses.Find(p.internal, a) {
				list = append(list, e)
			}
		}
		return list
	}
	for _, e := range p.ends {
		if e.kind == chosen && e.has(from, a) {
			list = append(list, e)
		}
	}
	for _, e := range p.ends {
		if e.zone == from && (e.kind == whole || e.kind == part && e.prefix.Contains(a)) {
			list = append(list, e)
		}
	}
	return list
}

// has reports whether an end of workloads has one with an address in a zone.
func (e *end) has(z *zone, a netip.Addr) bool {
	return slices.ContainsFunc(e.machines, func(m *machine) bool { return m.zone == z && slices.Contains(m.addresses, a) })
}

// reaches reports whether the end is where a forwarded packet goes to.
func (p *Policy) reaches(e *end, to *zone, a netip.Addr) bool {
	switch e.kind {
	case chosen:
		return to != nil && e.has(to, a)
	case whole:
		return to == e.zone
	case part:
		return to == e.zone && e.prefix.Contains(a)
	case outside:
		return to == nil && e.prefix.Contains(a)
	case internet:
		return to == nil && !addresses.Find(p.internal, a)
	}
	return false
}

func (p *Policy) forwarded(q Packet, from, to *zone) Decision {
	if from != nil && to == nil && p.tunnelled(q) {
		return Decision{Rule: "it would be taken for a frame of a zone's tunnel", Chain: "forwarding", Comment: commentTunnels}
	}
	for _, e := range p.sources(from, q.From.Address) {
		for _, f := range p.begins[e] {
			if p.reaches(f.to, to, q.To.Address) {
				if d, ok := f.decide(q.Traffic); ok {
					return d
				}
			}
		}
	}
	if from != nil && to == nil {
		if d, ok := p.egress(from, q); ok {
			return d
		}
	}
	a, b := outsideName, outsideName
	if from != nil {
		a = from.Name
	}
	if to != nil {
		b = to.Name
	}
	if from != nil && to != nil && from != to && !p.pairs() {
		a, b = otherName, otherName
	}
	return denied(a, b)
}

// decide says whether traffic is that of the flow.
func (f *flow) decide(t segment.Traffic) (Decision, bool) {
	for _, have := range f.traffic {
		if covers(have, t) {
			return Decision{Allowed: true, Rule: "the flow " + f.Flow.String(), Document: f.Document, Line: f.Line, Chain: f.chain(), Comment: f.comment(have)}, true
		}
	}
	return Decision{}, false
}

// covers reports whether traffic that is allowed includes that of a packet.
func covers(have, t segment.Traffic) bool {
	switch {
	case have.Protocol == segment.ProtocolAny:
		return true
	case have.Protocol != t.Protocol:
		return false
	}
	return have.First == 0 || have.First <= t.First && t.First <= have.Last
}

func (p *Policy) egress(z *zone, q Packet) (Decision, bool) {
	allowed := func(comment string) (Decision, bool) {
		return Decision{Allowed: true, Rule: comment, Document: z.Document, Chain: chainEgress(z), Comment: comment}, true
	}
	switch z.Egress.Mode {
	case segment.EgressInternet:
		if !addresses.Find(p.internal, q.To.Address) {
			return allowed(z.egressComment("internet"))
		}
	case segment.EgressList:
		for _, g := range z.egressGroups() {
			if covers(g.traffic, q.Traffic) && addresses.Find(g.to, q.To.Address) {
				return allowed(z.egressComment(g.traffic.String()))
			}
		}
	}
	return Decision{}, false
}

// targets are networks that egress reaches by the same traffic.
type targets struct {
	traffic segment.Traffic
	to      []addresses.Range // merged
}

// egressGroups are the targets of a list, those of the same traffic together.
func (z *zone) egressGroups() (list []targets) {
	for _, t := range z.Egress.Allow {
		i := slices.IndexFunc(list, func(g targets) bool { return g.traffic == t.Traffic })
		if i < 0 {
			i, list = len(list), append(list, targets{traffic: t.Traffic})
		}
		list[i].to = append(list[i].to, addresses.Of(t.Prefix))
	}
	for i := range list {
		list[i].to = addresses.Merge(list[i].to)
	}
	return list
}

func (z *zone) egressComment(what string) string {
	return fmt.Sprintf("egress of zone %s: %s", z.Name, what)
}

func (p *Policy) toHost(q Packet, from *zone) Decision {
	for _, s := range from.services() {
		if s.covers(q) {
			return Decision{Allowed: true, Rule: s.comment, Document: from.Document, Chain: chainServices(from), Comment: s.comment}
		}
	}
	for _, e := range p.sources(from, q.From.Address) {
		for _, f := range p.flows {
			if f.from == e && f.to.kind == thisHost {
				if d, ok := f.decide(q.Traffic); ok {
					return d
				}
			}
		}
	}
	return denied(from.Name, hostName)
}

func (p *Policy) fromHost(q Packet, to *zone) Decision {
	for _, f := range p.flows {
		if f.from.kind == thisHost && p.reaches(f.to, to, q.To.Address) {
			if d, ok := f.decide(q.Traffic); ok {
				return d
			}
		}
	}
	return denied(hostName, to.Name)
}

// Names of what is no zone. No zone can have one with a sign in it.
const (
	hostName    = "_host"
	outsideName = "_outside"
	otherName   = "_other"
)

// maxPairs of zones have denials of their own. With more zones than that makes,
// those between two zones share one.
const maxPairs = 1024

func (p *Policy) pairs() bool { return len(p.zones)*len(p.zones) <= maxPairs }

func denied(from, to string) Decision {
	return Decision{Rule: "no flow allows it: default deny", Chain: chainDeny(from, to), Comment: denyComment(from, to)}
}
