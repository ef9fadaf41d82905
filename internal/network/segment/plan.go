package segment

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/mobileops/mobileops/internal/failure"
	vnl "github.com/vishvananda/netlink"
)

// Plan is what there is to do, in the order in which it is done.
type Plan struct {
	Documents []*Document // that are to be in force
	Layout    *Layout     // what they come to
	Notes     []string    // what the operator should know, a sentence each
	Missing   []Absent    // workloads and uplinks that cannot be attached yet

	steps []step
	next  record // once it is done
}

// Absent is what cannot be attached yet.
type Absent struct {
	Document string // that asks for it
	Text     string // what it is, and why
}

// String returns what it is, and why it cannot be attached.
func (a Absent) String() string { return a.Text }

// absent remembers what cannot be attached yet.
func (p *planner) absent(document, format string, args ...any) {
	p.Missing = append(p.Missing, Absent{document, fmt.Sprintf(format, args...)})
}

// step is one thing to do. A step without text is a detail of the one before.
type step struct {
	Change
	do func() error
}

// Changes returns what the plan does, nothing when everything is as wanted.
func (p *Plan) Changes() []Change {
	var list []Change
	for _, s := range p.steps {
		if s.Text != "" {
			list = append(list, s.Change)
		}
	}
	return list
}

// planner compares a host with a layout.
type planner struct {
	*Plan
	host  *host
	rec   *record         // what is ours
	gone  map[string]bool // interfaces that an earlier step removes
	known map[string]bool // workloads that were in force before
	kinds []string        // of interfaces that are to be made
	seed  []byte
	old   bool                          // the kernel forwards IPv6 everywhere or nowhere
	ofEnd map[*Endpoint]map[string]bool // see zonesOf
}

// plan compares what is there with what documents come to. It changes nothing.
func (e *Engine) plan(ctx context.Context, s *saved, docs []*Document) (*Plan, error) {
	h, err := readHost()
	if err != nil {
		return nil, err
	}
	l, err := Arrange(docs, Given{Seed: s.Seed, Before: s.Layout, MTU: func(name string) int {
		if l := h.byName[name]; l != nil {
			return l.mtu
		}
		return 0
	}})
	if err != nil {
		return nil, err
	}
	p := &planner{
		Plan: &Plan{Documents: docs, Layout: l, next: record{Boot: s.Record.Boot, NetNS: s.Record.NetNS}},
		host: h, rec: &s.Record, gone: map[string]bool{}, known: map[string]bool{}, seed: s.Seed,
		ofEnd: map[*Endpoint]map[string]bool{},
	}
	if s.Layout != nil {
		for i := range s.Layout.Ports {
			p.known[s.Layout.Ports[i].Name] = true
		}
	}
	single, err := readSysctl("ipv6/conf/all/force_forwarding")
	if err != nil {
		return nil, err
	}
	p.old = single == "" || e.old
	if err := p.conflicts(); err != nil {
		return nil, err
	}
	ends, err := p.ends(ctx)
	if err != nil {
		return nil, err
	}
	defer ends.close()

	if err := p.opened(); err != nil {
		return nil, err
	}
	p.remove(ends)
	if err := p.rules(ctx, e.Firewall); err != nil {
		return nil, err
	}
	for i := range l.Zones {
		if err := errors.Join(p.bridge(&l.Zones[i]), p.uplink(&l.Zones[i])); err != nil {
			return nil, err
		}
	}
	for i := range l.Ports {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if err := p.port(&l.Ports[i], ends[l.Ports[i].Name]); err != nil {
			return nil, err
		}
	}
	if err := p.forwarding(); err != nil {
		return nil, err
	}
	p.restoreSysctls()
	p.notes(ctx)
	return p.Plan, missingKind(p.kinds)
}

// add plans a step. One that belongs to something new is a detail of it.
func (p *planner) add(detail bool, sign byte, text string, do func() error) {
	if detail {
		text = ""
	}
	p.steps = append(p.steps, step{Change{sign, text}, do})
}

// existing returns an interface that is there and stays.
func (p *planner) existing(name string) *link {
	if p.gone[name] {
		return nil
	}
	return p.host.byName[name]
}

// found returns what was made, by whatever name, if it is there and stays.
func (p *planner) found(m *madeLink) *link {
	if l := p.existing(m.Name); l != nil && m.is(l) {
		return l
	}
	for _, l := range p.host.links {
		if m.is(l) && !p.gone[l.name] {
			return l
		}
	}
	return nil
}

// ours returns the interface of ours with a name, nil when it is to be made.
// One that is somebody else's is refused.
func (p *planner) ours(name, what string) (*link, error) {
	l := p.existing(name)
	if l == nil || p.rec.owns(l) {
		return l, nil
	}
	return nil, failure.Errorf(failure.Busy, "%s would be called %s, but there is an interface of that name, and mobileops did not make it (look at it: ip -d link show %s; remove it, or choose another name)", what, name, name)
}

// conflicts refuses subnets that this host reaches in another way already, and
// interfaces that somebody else made.
func (p *planner) conflicts() error {
	own := map[int]bool{}
	for _, l := range p.host.links {
		own[l.index] = p.rec.owns(l)
	}
	name := func(index int) string {
		if l := p.host.indexed(index); l != nil {
			return l.name
		}
		return "nowhere"
	}
	for i := range p.Layout.Zones {
		z := &p.Layout.Zones[i]
		for _, s := range z.Subnets {
			for _, a := range p.host.addresses {
				if !own[a.index] && a.prefix.Masked().Overlaps(s.Prefix) {
					return failure.Errorf(failure.Busy, "the subnet %s of the zone %q overlaps with the address %s of %s: choose another subnet", s.Prefix, z.Name, a.prefix, name(a.index))
				}
			}
			for _, r := range p.host.routes {
				if r.unicast && !own[r.index] && !isDefault(r.to) && r.to.Overlaps(s.Prefix) {
					return failure.Errorf(failure.Busy, "the subnet %s of the zone %q overlaps with the route to %s by %s: choose another subnet", s.Prefix, z.Name, r.to, name(r.index))
				}
			}
		}
	}
	return nil
}

// isDefault reports whether a route is for everything, or for so much that it
// says the same, as those of tunnels do: 0.0.0.0/1, 2000::/3.
func isDefault(p netip.Prefix) bool {
	return p.Bits() <= 1 || p.Addr().Is6() && p.Bits() <= 3
}

// rules plans the change of rules, which comes after the links that go and
// before those that come.
func (p *planner) rules(ctx context.Context, fw Firewall) error {
	if fw == nil {
		return nil
	}
	if len(p.Layout.Zones) == 0 {
		digest, err := fw.Digest(ctx)
		if err != nil {
			return err
		}
		if digest != "" {
			p.add(false, '-', "rules of the segments", func() error { return fw.Remove(ctx) })
		}
		return nil
	}
	changes, err := fw.Plan(ctx, p.Layout)
	if err != nil {
		return err
	}
	for i, c := range changes {
		do := func() error { return nil }
		if i == 0 {
			do = func() error { return fw.Apply(ctx, p.Layout) } // all of them at once
		}
		p.add(false, c.Sign, c.Text, do)
	}
	return nil
}

// remove plans the end of what is ours and not wanted any more, and of what
// cannot be changed into what is wanted.
func (p *planner) remove(ends ends) {
	wanted := map[string]string{} // device → the kind it must have; "" stays whatever it is
	for i := range p.Layout.Zones {
		z := &p.Layout.Zones[i]
		wanted[z.Bridge] = "bridge"
		switch {
		case z.VXLAN != nil:
			wanted[z.Uplink] = "vxlan"
		case z.VLAN != nil:
			wanted[z.Uplink] = "vlan"
		}
	}
	bridges := map[string]string{} // interface that joins → bridge
	for i := range p.Layout.Ports {
		switch t := &p.Layout.Ports[i]; {
		case t.Attach.Interface != "":
			bridges[t.Device] = t.Bridge
		case t.Attach.Tap:
			wanted[t.Device] = "tun"
		case ends[t.Name] != nil && ends[t.Name].fits(p, t):
			wanted[t.Device] = "veth"
		}
	}
	for _, j := range p.rec.Joined {
		if l := p.existing(j.Name); l != nil && l.index == j.Index && bridges[j.Name] != j.Bridge {
			p.leave(&j, l)
		}
	}
	// Ports go before the bridges, and tunnels with them.
	var doomed []*link
	for _, last := range []bool{false, true} {
		for _, m := range p.rec.Links {
			l := p.found(&m)
			if l == nil || (m.Kind == "bridge") != last || m.Name == l.name && wanted[m.Name] == l.kind && p.suits(l) {
				continue
			}
			p.gone[l.name] = true
			doomed = append(doomed, l)
		}
	}
	for i, l := range doomed {
		do := func() error { return nil }
		if i == 0 {
			do = func() error { return deleteLinks(doomed, p.host.unusedGroup()) } // all of them at once
		}
		p.add(false, '-', fmt.Sprintf("%s %s", l.describe(), l.name), do)
	}
	for _, a := range p.rec.Addresses {
		l := p.existing(a.Device)
		if l != nil && p.rec.owns(l) && p.host.has(l.index, a.Prefix) && !p.gateway(a) {
			p.add(false, '-', fmt.Sprintf("address %s of %s", a.Prefix, a.Device), func() error { return changeAddress(vnl.AddrDel, a.Device, a.Prefix) })
		}
	}
}

// gateway reports whether an address is wanted.
func (p *planner) gateway(a madeAddress) bool {
	return slices.ContainsFunc(p.Layout.Zones, func(z ZoneLayout) bool {
		return z.Bridge == a.Device && slices.ContainsFunc(z.Subnets, func(s Subnet) bool {
			return s.Gateway == a.Prefix.Addr() && s.Prefix.Bits() == a.Prefix.Bits()
		})
	})
}

// suits reports whether a tunnel or VLAN is as its zone wants it in what cannot
// be changed later. Everything else suits.
func (p *planner) suits(l *link) bool {
	for i := range p.Layout.Zones {
		z := &p.Layout.Zones[i]
		if z.Uplink != l.name {
			continue
		}
		switch {
		case z.VXLAN != nil:
			want := vxlanOptions{z.VXLAN.ID, z.VXLAN.Port, z.VXLAN.Group, z.VXLAN.Local, true}
			return l.vxlan == want && p.parentIs(l, z.VXLAN.Device)
		case z.VLAN != nil:
			return l.vlan == z.VLAN.ID && p.parentIs(l, z.VLAN.Parent)
		}
	}
	return true
}

func (p *planner) parentIs(l *link, name string) bool {
	if name == "" {
		return l.parent == 0
	}
	below := p.host.byName[name]
	return below != nil && below.index == l.parent
}

// describe is what people call an interface of its kind.
func (l *link) describe() string {
	switch {
	case l.kind == "tun":
		return "tap"
	case l.kind == "veth":
		return "port"
	case l.kind == "vlan":
		return "VLAN"
	case l.kind == "vxlan":
		return "VXLAN"
	}
	return l.kind
}

// notes are what the operator should know of this host.
func (p *planner) notes(ctx context.Context) {
	if len(p.Layout.Zones) > 0 {
		p.Notes = append(p.Notes, inTheWay(ctx)...)
	}
	for i := range p.Layout.Zones {
		z := &p.Layout.Zones[i]
		if z.NAT != nil && z.NAT.Out != "" && p.host.byName[z.NAT.Out] == nil {
			p.Notes = append(p.Notes, fmt.Sprintf("the zone %s leaves through %s, which is not there yet", z.Name, z.NAT.Out))
		}
	}
	slices.SortFunc(p.Missing, func(a, b Absent) int { return strings.Compare(a.Text, b.Text) })
}

// alias is how an interface says that it is ours, and what it is for.
func alias(parts ...string) string { return aliasPrefix + strings.Join(parts, " ") }
