package segment

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// leaves reports whether packets of a zone are passed on by this host: out of
// it, or to another workload, also one of the same zone, since rules that know
// answers see only what is routed (see package policy).
func (p *planner) leaves(z *ZoneLayout) bool {
	if z.Egress.Mode != EgressNone && z.Egress.Mode != "" {
		return true
	}
	for i := range p.Layout.Flows {
		f := &p.Layout.Flows[i]
		if !f.From.Host && !f.To.Host && (p.zonesOf(&f.From)[z.Name] || p.zonesOf(&f.To)[z.Name]) {
			return true
		}
	}
	return false
}

// zonesOf are the zones with something that an endpoint stands for. What is
// outside of all zones has the name "".
func (p *planner) zonesOf(e *Endpoint) map[string]bool {
	if in, known := p.ofEnd[e]; known {
		return in
	}
	in := map[string]bool{}
	p.ofEnd[e] = in
	switch {
	case e.Whole():
		in[e.Zone] = true
	case !e.Selector():
		in[p.zoneAround(e.Prefix)] = true
	}
	for i := range p.Layout.Ports {
		if t := &p.Layout.Ports[i]; e.Selects(&t.Workload) {
			in[t.Zone] = true
		}
	}
	return in
}

// zoneAround is the zone that a network lies in, "" when it lies in none: then it
// is one outside of the zones.
func (p *planner) zoneAround(n netip.Prefix) string {
	for i := range p.Layout.Zones {
		for _, s := range p.Layout.Zones[i].Subnets {
			if n.IsValid() && s.Prefix.Bits() <= n.Bits() && s.Prefix.Contains(n.Addr()) {
				return p.Layout.Zones[i].Name
			}
		}
	}
	return ""
}

// forwarding plans the switches that let packets through this host, beside
// those of our own bridges. The kernel asks the interface by which a packet
// comes in, so it is enough to turn it on there and at the interfaces by which
// answers come back: ip_forward, which turns every interface of the host into
// a router's, stays as it is. IPv6 can do the same since Linux 6.17
// (force_forwarding); before, only everything or nothing.
func (p *planner) forwarding() error {
	for _, v4 := range []bool{true, false} {
		devices := p.outside(v4)
		if len(devices) == 0 {
			continue
		}
		if !v4 && p.old {
			if err := p.forwardAll6(); err != nil {
				return err
			}
			continue
		}
		for _, name := range devices {
			path := "ipv4/conf/" + name + "/forwarding"
			if !v4 {
				path = "ipv6/conf/" + name + "/force_forwarding"
			}
			if err := p.outer(path, "1"); err != nil {
				return err
			}
		}
	}
	return nil
}

// opened finds the interfaces at which forwarding is, or will be, on because of
// zones alone.
func (p *planner) opened() error {
	var opened []string
	for _, v4 := range []bool{true, false} {
		all, each, family := "ipv4/ip_forward", "forwarding", "ipv4"
		if !v4 {
			all, each, family = "ipv6/conf/all/forwarding", "force_forwarding", "ipv6"
		}
		if have, err := readSysctl(all); err != nil {
			return err
		} else if have != "0" && p.rec.sysctl(all) == nil {
			continue // somebody wants a router
		}
		for _, name := range p.outside(v4) {
			path := family + "/conf/" + name + "/" + each
			have, err := readSysctl(path)
			if err != nil {
				return err
			}
			if (have != "1" || p.rec.sysctl(path) != nil || !v4 && p.old) && !slices.Contains(opened, name) {
				opened = append(opened, name)
			}
		}
	}
	if len(opened) == 0 {
		return nil
	}
	var beside []string
	for _, a := range p.host.addresses {
		l := p.host.indexed(a.index)
		if l != nil && l.name != "lo" && !p.rec.owns(l) && !a.prefix.Addr().IsLinkLocalUnicast() && !slices.Contains(beside, l.name) {
			beside = append(beside, l.name)
		}
	}
	if !slices.Equal(beside, opened) || len(beside) > 1 { // with one network there is nothing to pass on
		slices.Sort(opened)
		slices.Sort(beside)
		p.Layout.Opened, p.Layout.Beside = opened, beside
	}
	return nil
}

// forwardAll6 turns IPv6 forwarding on for the whole host. A host that forwards
// stops to listen to the advertisements by which it may have its own address
// and route, unless it is told not to. The one switch sets those of all
// interfaces: what was different is remembered, and our own bridges get theirs
// back at once.
func (p *planner) forwardAll6() error {
	const all = "ipv6/conf/all/forwarding"
	for _, l := range p.host.links {
		path := "ipv6/conf/" + l.name + "/accept_ra"
		have, err := readSysctl(path)
		if err != nil {
			return err
		}
		if have == "1" && !p.rec.owns(l) || p.rec.sysctl(path) != nil {
			if err := p.outer(path, "2"); err != nil {
				return err
			}
		}
	}
	if err := p.outer(all, "1"); err != nil || p.next.sysctl(all) == nil {
		return err
	}
	for _, l := range p.host.links {
		path := "ipv6/conf/" + l.name + "/forwarding"
		before := p.rec.sysctl(path)
		if p.rec.sysctl(all) == nil && !p.rec.owns(l) {
			if have, err := readSysctl(path); err != nil {
				return err
			} else if have == "1" {
				before = &madeSysctl{Path: path, Before: "1", Set: "1"}
			}
		}
		if before != nil {
			p.next.Sysctls = append(p.next.Sysctls, *before)
		}
	}
	for i := range p.Layout.Zones {
		z := &p.Layout.Zones[i]
		for _, s := range z.sysctls(p.leaves(z)) {
			if s.path == "ipv6/conf/"+z.Bridge+"/forwarding" {
				p.add(true, '~', "", func() error { return setSysctl(s) })
			}
		}
	}
	return nil
}

// outside are the interfaces by which packets of zones leave this host.
func (p *planner) outside(v4 bool) []string {
	var list []string
	add := func(name string) {
		l := p.host.byName[name]
		if l == nil || p.rec.owns(l) || l.name == "lo" {
			return
		}
		for _, have := range list {
			if have == name {
				return
			}
		}
		list = append(list, name)
	}
	for i := range p.Layout.Zones {
		z := &p.Layout.Zones[i]
		family := false
		for _, s := range z.Subnets {
			family = family || s.Gateway.IsValid() && s.Prefix.Addr().Is4() == v4
		}
		if !family || !p.leaves(z) {
			continue
		}
		for _, to := range p.destinations(z, v4) {
			if z.NAT != nil && z.NAT.Out != "" {
				add(z.NAT.Out)
				continue
			}
			add(p.way(to))
		}
	}
	return list
}

// destinations are the networks outside of all zones that a zone may talk to.
func (p *planner) destinations(z *ZoneLayout, v4 bool) (list []netip.Prefix) {
	all := everything(netip.IPv6Unspecified())
	if v4 {
		all = everything(netip.IPv4Unspecified())
	}
	add := func(n netip.Prefix) {
		if n.Addr().Is4() == v4 {
			list = append(list, n)
		}
	}
	switch z.Egress.Mode {
	case EgressInternet:
		add(all)
	case EgressList:
		for _, t := range z.Egress.Allow {
			add(t.Prefix)
		}
	}
	for i := range p.Layout.Flows {
		f := &p.Layout.Flows[i]
		for _, pair := range [][2]*Endpoint{{&f.From, &f.To}, {&f.To, &f.From}} {
			switch {
			case !p.zonesOf(pair[0])[z.Name]:
			case pair[1].Internet:
				add(all)
			case pair[1].Prefix.IsValid():
				add(pair[1].Prefix)
			}
		}
	}
	return list
}

// way is the interface by which this host reaches a network, "" when it does
// not. Of two routes the narrower one, then the one with the lower metric.
func (p *planner) way(to netip.Prefix) string {
	var best *route
	for i := range p.host.routes {
		r := &p.host.routes[i]
		if !r.unicast || r.to.Addr().Is4() != to.Addr().Is4() || r.to.Bits() > to.Bits() || !r.to.Contains(to.Addr()) {
			continue
		}
		if best == nil || r.to.Bits() > best.to.Bits() || r.to.Bits() == best.to.Bits() && r.metric < best.metric {
			best = r
		}
	}
	if best == nil {
		return ""
	}
	if l := p.host.indexed(best.index); l != nil {
		return l.name
	}
	return ""
}

// outer plans a switch that is not one of our own interfaces'. One that is as
// wanted already, and was not made so by us, is none of our business.
func (p *planner) outer(path, want string) error {
	for _, s := range p.next.Sysctls {
		if s.Path == path {
			return nil
		}
	}
	have, err := readSysctl(path)
	if err != nil || have == "" {
		return err
	}
	before := p.rec.sysctl(path)
	if have == want && (before == nil || p.router(before)) {
		return nil
	}
	entry := madeSysctl{Path: path, Before: have, Set: want, Router: isRouter()}
	if before != nil {
		entry.Before, entry.Router = before.Before, before.Router
	}
	p.next.Sysctls = append(p.next.Sysctls, entry)
	if have != want {
		p.add(false, '~', fmt.Sprintf("net/%s: %s -> %s", path, have, want), func() error { return setSysctl(sysctl{path, want}) })
	}
	return nil
}

// router reports whether somebody has made a router for IPv4 of this host since
// a switch was set: that it is one is then none of our business.
func (p *planner) router(s *madeSysctl) bool {
	return strings.HasPrefix(s.Path, "ipv4/conf/") && strings.HasSuffix(s.Path, "/forwarding") && !s.Router && isRouter()
}

func isRouter() bool {
	all, err := readSysctl("ipv4/ip_forward")
	return err == nil && all == "1"
}

// restoreSysctls plans that switches are as they were before. One that somebody
// else has set since stays as it is. One that was never to change is set again
// after another one may have changed it too (see forwardAll6).
func (p *planner) restoreSysctls() {
	for _, s := range p.rec.Sysctls {
		if p.next.sysctl(s.Path) != nil {
			continue
		}
		back := sysctl{s.Path, s.Before}
		if p.router(&s) {
			continue
		}
		if s.Before == s.Set {
			p.add(true, '~', "", func() error { return setSysctl(back) })
		} else if have, err := readSysctl(s.Path); err == nil && have == s.Set {
			p.add(false, '~', fmt.Sprintf("net/%s: %s -> %s, as before", s.Path, have, s.Before), func() error { return setSysctl(back) })
		}
	}
}
