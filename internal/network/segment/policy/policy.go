// Package policy enforces what a layout of zones and workloads allows: nothing,
// but for flows, the egress of zones, and the services that this host has for
// them. It is the Firewall of package segment.
//
// Compile makes a Policy of a layout. A Policy is put into force as two tables
// of nf_tables, both called mobileops_segments, by one transaction that
// takes the place of the one before; and it answers for itself: Decide says of
// any packet what the rules do with it, and which one decides.
//
// The table of family bridge sees every frame that a port sends. Frames that
// claim to be from somebody else are dropped: MAC address, sender of ARP, source
// and the target of neighbour discovery are those of the workload (RFC 826,
// RFC 4861, RFC 6105, RFC 7039), as are frames of other types than IP and ARP,
// tagged ones included. No packet goes from port to port: the kernel tracks no
// connections there. What a workload sends to a neighbour is given to this host
// instead, as ebtables' redirect does it, and is routed back to the bridge. So
// the table of family inet sees everything that goes from one workload to
// another, in one zone or in two, and knows which packets are answers. Only ARP
// and neighbour discovery pass from port to port, between workloads that have a
// flow in common. A zone in which this host has no address cannot be routed:
// its workloads talk to each other freely, by a flow from the whole zone to
// itself, or not at all.
//
// Sets and maps keep the way of a packet short. The source of a new connection
// is looked up once, in a map that leads to the flows from there; workloads
// that the same flows begin at share a chain. Each flow has a chain of its own,
// in which its traffic is counted.
//
// Invariants:
//
//   - without a flow, a service or egress, nothing new passes; what comes later in
//     an allowed connection passes by connection tracking alone, without helpers;
//   - packets that have nothing to do with a bridge of a zone are accepted by the
//     first rule of each chain, and tables of others stay as they are;
//   - Decide and the rules are made of the same values in the same order.
//
// Sources: nft(8), ebtables(8), the kernel's net/bridge/br_input.c and
// Documentation/networking/bridge.rst, RFC 1918, RFC 4193, RFC 4890.
package policy

import (
	"net/netip"
	"slices"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/network/addresses"
	"github.com/mobileops/mobileops/internal/network/segment"
)

// Policy is what a layout allows.
type Policy struct {
	layout   *segment.Layout
	zones    []*zone
	machines []*machine
	ends     []*end // of flows, each once
	flows    []*flow
	begins   map[*end][]*flow    // flows that are forwarded, by where they begin, in the order of sequence
	internal []addresses.Range   // where egress to the internet does not reach
	own      map[netip.Addr]bool // of this host, beside its gateways, when Here has looked
}

// zone is a part of the network with what the rules want to know of it.
type zone struct {
	*segment.ZoneLayout
	gateways   []netip.Addr
	has4, has6 bool // this host has an address in it
	open       bool // everything passes within it
}

// machine is a workload.
type machine struct {
	*segment.Port
	zone *zone
	// addresses are those that it may send from, and by which flows know it.
	addresses []netip.Addr
	// fixed4 and fixed6 say that it has no others.
	fixed4, fixed6 bool
}

// kind is what an end of a flow is.
type kind uint8

const (
	thisHost kind = iota
	internet      // everything outside of zones and internal networks
	outside       // a network outside of the zones
	part          // a network within a subnet of a zone
	whole         // a zone
	chosen        // workloads
)

// end is one side of flows.
type end struct {
	id       int
	kind     kind
	endpoint segment.Endpoint
	prefix   netip.Prefix // of outside and part
	zone     *zone        // of part and whole
	machines []*machine   // of chosen
}

// flow is traffic that is allowed.
type flow struct {
	*segment.Flow
	index    int
	from, to *end
	traffic  []segment.Traffic // at least one
}

// Compile makes the policy of a layout. Its errors are of kind failure.Usage.
func Compile(l *segment.Layout) (*Policy, error) {
	p := &Policy{layout: l, begins: map[*end][]*flow{}}
	byName := map[string]*zone{}
	for i := range l.Zones {
		z := &zone{ZoneLayout: &l.Zones[i]}
		for _, s := range z.Subnets {
			if s.Gateway.IsValid() {
				z.gateways = append(z.gateways, s.Gateway)
				z.has4, z.has6 = z.has4 || s.Gateway.Is4(), z.has6 || s.Gateway.Is6()
			}
		}
		p.zones = append(p.zones, z)
		byName[z.Name] = z
	}
	for i := range l.Ports {
		z := byName[l.Ports[i].Zone]
		if z == nil {
			return nil, failure.Errorf(failure.Usage, "the workload %q is in the zone %q, which is not there", l.Ports[i].Name, l.Ports[i].Zone)
		}
		p.machines = append(p.machines, newMachine(&l.Ports[i], z))
	}
	var ranges []addresses.Range
	// All of what carries an address of IPv4 in it is in a network that nobody
	// has (RFC 4291), and sets cannot hold such addresses.
	reserved := []netip.Prefix{netip.MustParsePrefix("::/64")}
	for _, n := range slices.Concat(reserved, segment.InternalNetworks(), l.Internal) {
		ranges = append(ranges, addresses.Of(n))
		if n.Addr().Is4() {
			ranges = append(ranges, addresses.Of(translated(n)))
		}
	}
	p.internal = addresses.Merge(ranges)
	byText := map[string]*end{}
	for i := range l.Flows {
		f := &flow{Flow: &l.Flows[i], index: i, traffic: l.Flows[i].Traffic}
		f.from, f.to = p.end(&f.Flow.From, byText, byName), p.end(&f.Flow.To, byText, byName)
		if len(f.traffic) == 0 {
			f.traffic = []segment.Traffic{{}}
		}
		p.flows = append(p.flows, f)
		if f.from.kind != thisHost && f.to.kind != thisHost {
			p.begins[f.from] = append(p.begins[f.from], f)
		}
	}
	for e, flows := range p.begins {
		byAddress, byZone, rest := sequence(flows)
		p.begins[e] = slices.Concat(byAddress, byZone, rest)
	}
	return p, p.withoutHost()
}

func newMachine(port *segment.Port, z *zone) *machine {
	m := &machine{Port: port, zone: z, addresses: slices.Clone(port.Addr)}
	namespaced := port.Attach.Namespaced()
	has4 := slices.ContainsFunc(m.Addr, netip.Addr.Is4)
	has6 := slices.ContainsFunc(m.Addr, netip.Addr.Is6)
	m.fixed4, m.fixed6 = has4 || namespaced, has6 || namespaced
	// Who listens to our advertisements makes itself an address of its MAC
	// address (RFC 4862), beside the one that it is given.
	if has6 && !namespaced && z.DHCP != nil && z.DHCP.RA && !m.MAC.IsZero() {
		for _, s := range z.Subnets {
			if s.Gateway.Is6() && s.Prefix.Bits() == 64 {
				if a := eui64(s.Prefix, m.MAC); !slices.Contains(m.addresses, a) {
					m.addresses = append(m.addresses, a)
				}
			}
		}
	}
	return m
}

// translated is where a network of IPv4 is to be reached by IPv6, with a gateway
// that translates (RFC 6052). Whatever that lets through is reached by its
// network, not by ours.
func translated(n netip.Prefix) netip.Prefix {
	b, v4 := netip.MustParseAddr("64:ff9b::").As16(), n.Masked().Addr().As4()
	copy(b[12:], v4[:])
	return netip.PrefixFrom(netip.AddrFrom16(b), 96+n.Bits())
}

// linkLocal is where interfaces have an address by themselves.
func linkLocal() netip.Prefix { return netip.MustParsePrefix("fe80::/64") }

// eui64 is the address within a network of 64 bits that an interface makes of
// its MAC address (RFC 4291, appendix A).
func eui64(p netip.Prefix, m segment.MAC) netip.Addr {
	b := p.Masked().Addr().As16()
	copy(b[8:], []byte{m[0] ^ 2, m[1], m[2], 0xff, 0xfe, m[3], m[4], m[5]})
	return netip.AddrFrom16(b)
}

// end returns the end that an endpoint is, the same one for the same endpoint.
func (p *Policy) end(e *segment.Endpoint, known map[string]*end, zones map[string]*zone) *end {
	text := e.String()
	if have := known[text]; have != nil {
		return have
	}
	out := &end{id: len(p.ends), endpoint: *e}
	switch {
	case e.Host:
		out.kind = thisHost
	case e.Internet:
		out.kind = internet
	case e.Prefix.IsValid():
		out.kind, out.prefix = outside, e.Prefix
		for _, z := range p.zones {
			for _, s := range z.Subnets {
				if s.Prefix.Bits() <= e.Prefix.Bits() && s.Prefix.Contains(e.Prefix.Addr()) {
					out.kind, out.zone = part, z
				}
			}
		}
	case e.Whole():
		out.kind, out.zone = whole, zones[e.Zone]
	default:
		out.kind = chosen
		for _, m := range p.machines {
			if e.Selects(&m.Workload) {
				out.machines = append(out.machines, m)
			}
		}
	}
	p.ends = append(p.ends, out)
	known[text] = out
	return out
}

// within reports whether some of an end is in a zone.
func (e *end) within(z *zone) bool {
	if e.kind == chosen {
		return slices.ContainsFunc(e.machines, func(m *machine) bool { return m.zone == z })
	}
	return e.zone == z
}

// apart reports whether the end has, in a zone, a workload that is not the only
// one of another end: whether a flow between them is one within the zone.
func apart(a, b *end, z *zone) bool {
	if !a.within(z) || !b.within(z) {
		return false
	}
	if a.kind != chosen || b.kind != chosen {
		return true
	}
	for _, m := range a.machines {
		if m.zone == z && slices.ContainsFunc(b.machines, func(o *machine) bool { return o != m && o.zone == z }) {
			return true
		}
	}
	return false
}

// withoutHost opens zones in which this host routes nothing and everything is
// allowed, and refuses what could not be enforced in them.
func (p *Policy) withoutHost() error {
	for _, f := range p.flows {
		if z := f.from.zone; f.from.kind == whole && f.to.kind == whole && f.to.zone == z && slices.Contains(f.traffic, segment.Traffic{}) {
			z.open = true
		}
	}
	for _, z := range p.zones {
		routed := true
		for _, s := range z.Subnets {
			routed = routed && s.Gateway.IsValid()
		}
		if z.open || routed && len(z.Subnets) > 0 {
			continue
		}
		for _, f := range p.flows {
			if apart(f.from, f.to, z) {
				return failure.Errorf(failure.Usage, "the flow of line %d, %s, is one within the zone %q, in which this host has no address and can't tell answers from what is new: give its subnets gateways, or allow everything in it with a flow from zone=%s to zone=%s",
					f.Line, f.Flow, z.Name, z.Name, z.Name)
			}
		}
	}
	return nil
}
