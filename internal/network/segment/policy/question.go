package policy

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/network/addresses"
	"github.com/mobileops/mobileops/internal/network/segment"
	"github.com/mobileops/mobileops/internal/spelling"
)

// Party is one of those that a question is about.
type Party struct {
	Name  string // a workload, "host", "internet" or an address
	Place Place

	machine *machine // nil: no workload of the layout
}

// Answer is what the rules do with a connection from one party to another, by
// one family of addresses.
type Answer struct {
	From, To Party
	Traffic  segment.Traffic
	Decision Decision
}

// maxAnswers of one question are given: who asks for more wants to see the
// flows.
const maxAnswers = 10000

// ParseTarget reads whom a connection goes to, and by what: "db:5432",
// "app=db:53/udp", "[fd00:60::7]:443", "db:icmp". TCP is meant unless said.
func ParseTarget(s string) (name string, t segment.Traffic, err error) {
	i := strings.LastIndexByte(s, ':')
	if inside, ok := strings.CutPrefix(s, "["); ok {
		name, _, ok = strings.Cut(inside, "]")
		if !ok || i != len(name)+2 {
			return "", t, failure.Errorf(failure.Usage, "%q: write [fd00:60::7]:443", s)
		}
	} else if i < 0 || strings.Count(s, ":") > 1 {
		return "", t, failure.Errorf(failure.Usage, "%q does not say by what: write db:5432, db:53/udp, db:icmp or [fd00:60::7]:443", s)
	} else {
		name = s[:i]
	}
	what := s[i+1:]
	if _, err := strconv.ParseUint(what, 10, 16); err == nil {
		what += "/tcp"
	}
	t, err = segment.ParseTraffic(what)
	switch {
	case err != nil:
		return "", t, failure.Wrap(failure.Usage, err)
	case t.Protocol == segment.ProtocolAny, t.Protocol != segment.ProtocolICMP && t.First == 0, t.First != t.Last:
		return "", t, failure.Errorf(failure.Usage, "%q: a connection has one port: write 443, 53/udp or icmp", what)
	}
	return name, t, nil
}

// Ask says what the rules do with connections from everybody that one name
// stands for to everybody that another one does. A name is that of a workload or
// a zone, a selector such as app=web, an address, "host" or "internet".
func (p *Policy) Ask(from, to string, t segment.Traffic) (list []Answer, err error) {
	sources, err := p.parties(from)
	if err != nil {
		return nil, err
	}
	targets, err := p.parties(to)
	if err != nil {
		return nil, err
	}
	for _, a := range sources {
		for _, b := range targets {
			if a.machine != nil && a.machine == b.machine || a.Place.Address.IsValid() && b.Place.Address.IsValid() && a.Place.Address.Is4() != b.Place.Address.Is4() {
				continue
			}
			for _, pair := range p.concrete(a, b) {
				if len(list) == maxAnswers {
					return nil, failure.Errorf(failure.Usage, "from %s to %s there are more than %d connections: name fewer workloads", from, to, maxAnswers)
				}
				list = append(list, Answer{pair[0], pair[1], t, p.Decide(Packet{pair[0].Place, pair[1].Place, t})})
			}
		}
	}
	if len(list) == 0 {
		return nil, failure.Errorf(failure.Usage, "there is no connection from %s to %s: they have no family of addresses in common, or are the same", from, to)
	}
	return list, nil
}

// concrete gives this host and the internet, which have no address of their own
// yet, one that fits the other side, of each family.
func (p *Policy) concrete(a, b Party) (list [][2]Party) {
	for _, six := range families() {
		x, y := p.addressed(a, b, six), p.addressed(b, a, six)
		if x.Place.Address.IsValid() && y.Place.Address.IsValid() && x.Place.Address.Is6() == six && y.Place.Address.Is6() == six {
			list = append(list, [2]Party{x, y})
		}
	}
	return list
}

func (p *Policy) addressed(a, other Party, six bool) Party {
	if a.Place.Address.IsValid() {
		return a
	}
	switch {
	case a.Place.Host:
		if z := p.zone(other.Place.Zone); z != nil {
			for _, g := range z.gateways {
				if g.Is6() == six {
					a.Place.Address = g
				}
			}
		}
	case a.Place.Zone != "":
		a.Place.Address = p.unused(p.zone(a.Place.Zone), six)
	default:
		a.Place.Address = p.elsewhere(six)
	}
	return a
}

// elsewhere is an address of the internet that no flow speaks of.
func (p *Policy) elsewhere(six bool) netip.Addr {
	candidates := []string{"192.0.2.1", "198.51.100.1", "203.0.113.1", "8.8.8.8", "1.1.1.1", "9.9.9.9"}
	if six {
		candidates = []string{"2001:db8::1", "2001:db8:ffff::1", "2600::1", "2a00::1"}
	}
	for _, c := range candidates {
		a := netip.MustParseAddr(c)
		named := slices.ContainsFunc(p.ends, func(e *end) bool { return e.kind == outside && e.prefix.Bits() > 0 && e.prefix.Contains(a) })
		if !named && !addresses.Find(p.internal, a) && p.Locate(a).Zone == "" {
			return a
		}
	}
	return netip.Addr{}
}

// unused is an address of a zone that is nobody's that the layout knows.
func (p *Policy) unused(z *zone, six bool) netip.Addr {
	for _, s := range z.Subnets {
		if s.Prefix.Addr().Is6() != six {
			continue
		}
		for a := addresses.Of(s.Prefix).Last.Prev(); s.Prefix.Contains(a); a = a.Prev() {
			if a != s.Gateway && !slices.ContainsFunc(p.machines, func(m *machine) bool { return slices.Contains(m.addresses, a) }) {
				return a
			}
		}
	}
	return netip.Addr{}
}

// Here makes questions ones about the host that it is called on: each of its
// addresses is host, not only the gateways of zones.
func (p *Policy) Here() (err error) {
	p.own, err = hostAddresses()
	return err
}

// parties are those that a name stands for.
func (p *Policy) parties(name string) ([]Party, error) {
	switch name {
	case "host":
		return []Party{{Name: name, Place: Place{Host: true}}}, nil
	case "internet":
		return []Party{{Name: name}}, nil
	}
	if a, err := netip.ParseAddr(name); err == nil && a.Zone() == "" {
		party := Party{Name: name, Place: p.Locate(a.Unmap())}
		if !party.Place.Host && p.own[party.Place.Address] {
			party.Place = Place{Host: true, Address: party.Place.Address}
		}
		for _, m := range p.machines {
			if slices.Contains(m.addresses, a) {
				party.Name, party.machine = m.Name, m
			}
		}
		return []Party{party}, nil
	}
	if m := p.machine(name); m != nil {
		return m.parties(), nil
	}
	if p.zone(name) != nil {
		name = "zone=" + name
	}
	e, err := segment.ParseEndpoint(name)
	if err != nil || !e.Selector() {
		return nil, p.unknown(name)
	}
	var list []Party
	for _, m := range p.machines {
		if e.Selects(&m.Workload) {
			list = append(list, m.parties()...)
		}
	}
	if len(list) == 0 && e.Whole() && p.zone(e.Zone) != nil {
		list = append(list, Party{Name: "zone=" + e.Zone, Place: Place{Zone: e.Zone}})
	}
	if len(list) == 0 {
		return nil, failure.Errorf(failure.Usage, "no workload is %s", name)
	}
	return list, nil
}

func (p *Policy) machine(name string) *machine {
	for _, m := range p.machines {
		if m.Name == name {
			return m
		}
	}
	return nil
}

// parties is a workload by each address that is its own; one without a known
// address is as anybody in its zone.
func (m *machine) parties() (list []Party) {
	for _, a := range m.Addr {
		list = append(list, Party{m.Name, Place{Zone: m.zone.Name, Address: a}, m})
	}
	if len(list) == 0 {
		list = append(list, Party{m.Name, Place{Zone: m.zone.Name}, m})
	}
	return list
}

func (p *Policy) unknown(name string) error {
	var known []string
	for _, m := range p.machines {
		known = append(known, m.Name)
	}
	for _, z := range p.zones {
		known = append(known, z.Name)
	}
	hint := ""
	if near := spelling.Nearest(name, known); near != "" {
		hint = fmt.Sprintf("; did you mean %q?", near)
	}
	return failure.Errorf(failure.Usage, "%q is no workload, zone, selector such as app=web, or address, and neither host nor internet%s", name, hint)
}
