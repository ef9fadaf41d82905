package policy

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/mobileops/mobileops/internal/network/addresses"
	"github.com/mobileops/mobileops/internal/network/nft"
	"github.com/mobileops/mobileops/internal/network/segment"
	"golang.org/x/sys/unix"
)

// Priorities of our chains: before connection tracking, before the filters of
// others, after the addresses were translated on the way in and before they are
// on the way out.
const (
	priorityRaw    = -300
	priorityFilter = -20
	priorityNAT    = 100
)

// routed writes the table of family inet: what is forwarded, what comes in to
// this host, and what goes out from it.
func (t *tables) routed() {
	p := t.policy
	var bridges []string
	for _, z := range p.zones {
		bridges = append(bridges, z.Bridge)
	}
	ours := t.devices(t.inet, "bridges", bridges)
	for _, six := range families() {
		t.ranges(t.inet, "internal"+family(six), six, p.internal)
	}
	for _, f := range p.flows {
		t.AddChain(t.inet, f.chain(), nil)
		for _, traffic := range f.traffic {
			for _, match := range matches(traffic) {
				if f.Log {
					t.rule(t.inet, f.chain(), append(slices.Clone(match), nft.Log(fmt.Sprintf("mobileops allow line %d ", f.Line)))...)
				}
				t.accept(t.inet, f.chain(), f.comment(traffic), match...)
			}
		}
	}
	t.denials()
	t.groups()
	t.beside()
	t.forward(ours)
	t.input(ours)
	t.output(ours)
	t.leaving(ours)
}

// address matches packets of which a field has an address of the workloads of an
// end; not ok when they have none of the family.
func (t *tables) address(table nft.Table, e *end, six bool, field nft.Field) (match nft.Expr, ok bool) {
	list := e.addresses(six)
	if len(list) < 2 {
		if len(list) == 0 {
			return match, false
		}
		return nft.Is(field, nft.Addr(list[0])), true
	}
	name := fmt.Sprintf("end_%d_%s", e.id, family(six))
	s, made := t.sets[table.String()+" "+name]
	if !made {
		s = t.list(table, name, six, list)
	}
	return nft.In(s, field), true
}

// addresses are those of the workloads of an end, of one family.
func (e *end) addresses(six bool) (list []netip.Addr) {
	for _, m := range e.machines {
		for _, a := range m.addresses {
			if a.Is6() == six {
				list = append(list, a)
			}
		}
	}
	return list
}

// base makes a chain that lets what is of no zone, and what is known, pass.
func (t *tables) base(name, at string, foreign ...nft.Expr) {
	t.AddChain(t.inet, name, &nft.Hook{At: at, Priority: priorityFilter})
	t.rule(t.inet, name, append(foreign, nft.Accept())...)
	t.accept(t.inet, name, at+": established", nft.State(nft.Established))
}

// errors lets routers, this host and others outside say that a packet did not
// arrive. Workloads may not: anybody could say that of the connections of
// others. What is related otherwise is there by a helper that somebody has set
// up, and not by a flow.
func (t *tables) errors(name, at string, from ...nft.Expr) {
	for _, proto := range []uint8{unix.IPPROTO_ICMP, unix.IPPROTO_ICMPV6} {
		t.accept(t.inet, name, at+": errors", append(slices.Clone(from), nft.State(nft.Related), nft.Is(nft.L4Proto, nft.Proto(proto)))...)
	}
}

// beside keeps a host that passes packets on for the sake of zones from doing it
// for its other networks, too: it was no router between them before.
func (t *tables) beside() {
	l := t.policy.layout
	if len(l.Opened) == 0 || len(l.Beside) == 0 {
		return
	}
	const chain = "beside"
	opened, others := t.devices(t.inet, "opened", l.Opened), t.devices(t.inet, "beside", l.Beside)
	t.AddChain(t.inet, chain, &nft.Hook{At: "forward", Priority: priorityFilter - 1})
	t.drop(t.inet, chain, "forward: this host is no router", nft.In(opened, nft.InName), nft.In(others, nft.OutName))
}

// groups drops packets in frames to the groups that bridges have for themselves
// (IEEE 802.1Q, table 8-1). A bridge gives those to the host without its rules,
// and as if they came in by the port, which is no bridge of a zone.
func (t *tables) groups() {
	const chain = "from_ports"
	var ports []string
	for _, z := range t.policy.zones {
		if z.Uplink != "" {
			ports = append(ports, z.Uplink)
		}
	}
	for _, m := range t.policy.machines {
		ports = append(ports, m.Device)
	}
	const groups = 16
	own := t.devices(t.inet, "ports", ports)
	list := t.set(t.inet, "groups", 0, []nft.Type{nft.EtherAddr}, groups, func(i int) nft.Element {
		return nft.One(mac(segment.MAC{0x01, 0x80, 0xc2, 0, 0, byte(i)}), 0)
	})
	t.AddChain(t.inet, chain, &nft.Hook{At: "prerouting", Priority: priorityRaw})
	t.drop(t.inet, chain, "frames for switches", nft.In(own, nft.InName), nft.In(list, nft.EtherDaddr))
}

func (t *tables) forward(ours nft.Set) {
	const chain = "forwarding"
	t.base(chain, "forward", nft.NotIn(ours, nft.InName), nft.NotIn(ours, nft.OutName))
	t.errors(chain, "forward", nft.NotIn(ours, nft.InName))
	// With br_netfilter, frames from port to port come here, too. Those of
	// routers never have this limit left.
	for _, typ := range []uint8{neighborSolicitation, neighborAdvertisement} {
		t.rule(t.inet, chain, nft.In(ours, nft.InName), nft.Is(nft.IPv6HopLimit, nft.Num8(255)), nft.Is(nft.ICMPv6Type, nft.Num8(typ)), nft.Accept())
	}
	t.drop(t.inet, chain, "forward: neighbour discovery", nft.Between(nft.ICMPv6Type, nft.Num8(routerSolicitation), nft.Num8(redirect6)))
	t.drop(t.inet, chain, "forward: of no connection", nft.State(nft.Invalid|nft.Related))
	t.tunnels(chain, ours)
	t.dispatch(chain, "", func(f *flow) bool { return f.from.kind != thisHost && f.to.kind != thisHost })
	if pairs := t.pairs(); len(pairs) > 0 {
		deny := t.set(t.inet, "deny", 0, []nft.Type{nft.IfName, nft.IfName}, len(pairs), func(i int) nft.Element {
			return nft.Element{Key: nft.Key(nft.Interface(pairs[i][0].Bridge), nft.Interface(pairs[i][1].Bridge)), Verdict: nft.GoTo(chainDeny(pairs[i][0].Name, pairs[i][1].Name))}
		})
		t.rule(t.inet, chain, nft.By(deny, nft.InName, nft.OutName))
		t.rule(t.inet, chain, nft.In(ours, nft.InName), nft.In(ours, nft.OutName), nft.Goto(chainDeny(otherName, otherName)))
		t.rule(t.inet, chain, nft.By(t.byZone("deny_out", func(z *zone) string { return chainDeny(z.Name, outsideName) }), nft.InName))
		t.rule(t.inet, chain, nft.By(t.byZone("deny_in", func(z *zone) string { return chainDeny(outsideName, z.Name) }), nft.OutName))
	}
	t.drop(t.inet, chain, "forward: rest")
}

// byZone makes a map from the bridge of each zone to a chain.
func (t *tables) byZone(name string, chain func(z *zone) string) nft.Set {
	list := t.policy.zones
	return t.set(t.inet, name, 0, []nft.Type{nft.IfName}, len(list), func(i int) nft.Element {
		return nft.Element{Key: nft.Key(nft.Interface(list[i].Bridge)), Verdict: nft.GoTo(chain(list[i]))}
	})
}

// pairs are the pairs of zones between which denials are counted and logged by
// themselves.
func (t *tables) pairs() (list [][2]*zone) {
	zones := t.policy.zones
	for _, a := range zones {
		for _, b := range zones {
			if a == b || t.policy.pairs() {
				list = append(list, [2]*zone{a, b})
			}
		}
	}
	return list
}

// denials make the chains in which packets end.
func (t *tables) denials() {
	deny := func(from, to string) {
		t.refuse(t.inet, chainDeny(from, to), "mobileops "+denyComment(from, to)+" ", denyComment(from, to))
	}
	for _, pair := range t.pairs() {
		deny(pair[0].Name, pair[1].Name)
	}
	deny(otherName, otherName)
	for _, z := range t.policy.zones {
		deny(z.Name, outsideName)
		deny(outsideName, z.Name)
		deny(z.Name, hostName)
		deny(hostName, z.Name)
	}
}

// dispatch leads a packet to the flows that begin where it comes from. Prefix
// tells the chains of flows to this host from those of the others.
func (t *tables) dispatch(chain, prefix string, wanted func(f *flow) bool) {
	p := t.policy
	flows := map[*end][]*flow{}
	for _, f := range p.flows {
		if wanted(f) {
			flows[f.from] = append(flows[f.from], f)
		}
	}
	for _, e := range p.ends {
		if len(flows[e]) > 0 && e.kind != thisHost {
			name := fmt.Sprintf("%sfrom_%d", prefix, e.id)
			t.AddChain(t.inet, name, nil)
			t.begin(name, flows[e])
		}
	}
	t.classes(chain, prefix, flows)
	for _, z := range p.zones {
		name := prefix + "zone_" + z.Name
		t.AddChain(t.inet, name, nil)
		for _, e := range p.ends {
			jump := nft.Jump(fmt.Sprintf("%sfrom_%d", prefix, e.id))
			switch {
			case len(flows[e]) == 0 || e.zone != z:
			case e.kind == whole:
				t.rule(t.inet, name, jump)
			case e.kind == part:
				t.rule(t.inet, name, nft.Within(saddr(e.prefix.Addr().Is6()), e.prefix), jump)
			}
		}
		if prefix == "" {
			t.egress(name, z)
		}
	}
	zones := t.set(t.inet, prefix+"zones", 0, []nft.Type{nft.IfName}, len(p.zones), func(i int) nft.Element {
		return nft.Element{Key: nft.Key(nft.Interface(p.zones[i].Bridge)), Verdict: nft.JumpTo(prefix + "zone_" + p.zones[i].Name)}
	})
	if len(p.zones) > 0 {
		t.rule(t.inet, chain, nft.By(zones, nft.InName))
	}
	if prefix != "" {
		return
	}
	ours := t.named(t.inet, "bridges")
	for _, e := range p.ends {
		if len(flows[e]) > 0 {
			for _, match := range t.outer(e, true) {
				t.rule(t.inet, chain, append(append([]nft.Expr{nft.NotIn(ours, nft.InName)}, match...), nft.Jump(fmt.Sprintf("from_%d", e.id)))...)
			}
		}
	}
}

// outer are the ways to say that the source, or the destination, is an end
// outside of the zones; none for other ends.
func (t *tables) outer(e *end, source bool) [][]nft.Expr {
	field := daddr
	if source {
		field = saddr
	}
	switch e.kind {
	case outside:
		if six := e.prefix.Addr().Is6(); e.prefix.Bits() == 0 {
			return [][]nft.Expr{{nft.Is(nft.NFProto, nft.IPVersion(six))}}
		} else {
			return [][]nft.Expr{{nft.Within(field(six), e.prefix)}}
		}
	case internet:
		var list [][]nft.Expr
		for _, six := range families() {
			list = append(list, []nft.Expr{nft.NotIn(t.named(t.inet, "internal"+family(six)), field(six))})
		}
		return list
	}
	return nil
}

// reaching leads a packet to a flow when it goes to where the flow does.
func (t *tables) reaching(chain string, f *flow) {
	ours := t.named(t.inet, "bridges")
	jump := nft.Jump(f.chain())
	switch e := f.to; e.kind {
	case thisHost:
		t.rule(t.inet, chain, jump)
	case whole:
		t.rule(t.inet, chain, nft.Is(nft.OutName, nft.Interface(e.zone.Bridge)), jump)
	case part:
		t.rule(t.inet, chain, nft.Is(nft.OutName, nft.Interface(e.zone.Bridge)), nft.Within(daddr(e.prefix.Addr().Is6()), e.prefix), jump)
	case chosen:
		for _, six := range families() {
			if match, ok := t.address(t.inet, e, six, daddr(six)); ok {
				t.rule(t.inet, chain, match, jump)
			}
		}
	default:
		for _, match := range t.outer(e, false) {
			t.rule(t.inet, chain, append(append([]nft.Expr{nft.NotIn(ours, nft.OutName)}, match...), jump)...)
		}
	}
}

// classes makes the maps from an address to the flows of its workload. Workloads
// that the same ends have share a chain.
func (t *tables) classes(chain, prefix string, flows map[*end][]*flow) {
	p := t.policy
	member := map[*machine][]string{}
	for _, e := range p.ends {
		if e.kind == chosen && len(flows[e]) > 0 {
			for _, m := range e.machines {
				member[m] = append(member[m], fmt.Sprintf("%sfrom_%d", prefix, e.id))
			}
		}
	}
	classes := map[string]string{}
	var elements [2][]nft.Element
	for _, m := range p.machines {
		if len(member[m]) == 0 || len(m.addresses) == 0 {
			continue
		}
		key := strings.Join(member[m], " ")
		name, known := classes[key]
		if !known {
			name = fmt.Sprintf("%sclass_%d", prefix, len(classes))
			classes[key] = name
			t.AddChain(t.inet, name, nil)
			for _, from := range member[m] {
				t.rule(t.inet, name, nft.Jump(from))
			}
		}
		for _, a := range m.addresses {
			i := 0
			if a.Is6() {
				i = 1
			}
			elements[i] = append(elements[i], nft.Element{Key: nft.Key(nft.Interface(m.zone.Bridge), nft.Addr(a)), Verdict: nft.JumpTo(name)})
		}
	}
	for i, six := range families() {
		if list := elements[i]; len(list) > 0 {
			from := t.set(t.inet, prefix+"sources"+family(six), 0, []nft.Type{nft.IfName, addrType(six)}, len(list), func(i int) nft.Element { return list[i] })
			t.rule(t.inet, chain, nft.By(from, nft.InName, saddr(six)))
		}
	}
}

// egress writes what every workload of a zone may reach outside.
func (t *tables) egress(chain string, z *zone) {
	groups, mode := z.egressGroups(), z.Egress.Mode
	if mode != "internet" && (mode != "list" || len(groups) == 0) {
		return
	}
	ours := t.named(t.inet, "bridges")
	t.AddChain(t.inet, chainEgress(z), nil)
	t.rule(t.inet, chain, nft.NotIn(ours, nft.OutName), nft.Jump(chainEgress(z)))
	if mode == "internet" {
		for _, six := range families() {
			t.accept(t.inet, chainEgress(z), z.egressComment("internet"), nft.NotIn(t.named(t.inet, "internal"+family(six)), daddr(six)))
		}
		return
	}
	for i, g := range groups {
		v4, v6 := addresses.Split(g.to)
		for _, six := range families() {
			if list := [2][]addresses.Range{v4, v6}; !six && len(list[0]) == 0 || six && len(list[1]) == 0 {
				continue
			}
			to := t.ranges(t.inet, fmt.Sprintf("%s_%d_%s", chainEgress(z), i, family(six)), six, g.to)
			for _, match := range matches(g.traffic) {
				t.accept(t.inet, chainEgress(z), z.egressComment(g.traffic.String()), append([]nft.Expr{nft.In(to, daddr(six))}, match...)...)
			}
		}
	}
}

// input writes what workloads may ask this host for.
func (t *tables) input(ours nft.Set) {
	const chain = "incoming"
	p := t.policy
	t.base(chain, "input", nft.NotIn(ours, nft.InName))
	t.neighbours(chain, neighborSolicitation, neighborAdvertisement, routerSolicitation)
	for _, typ := range []uint8{listenerReport, listenerDone, listenerReport2} {
		t.rule(t.inet, chain, nft.Is(nft.ICMPv6Type, nft.Num8(typ)), nft.Accept())
	}
	t.drop(t.inet, chain, "input: of no connection", nft.State(nft.Invalid|nft.Related))
	for _, z := range p.zones {
		t.AddChain(t.inet, chainServices(z), nil)
		for _, s := range z.services() {
			s.rules(t, chainServices(z))
		}
	}
	services := t.set(t.inet, "services", 0, []nft.Type{nft.IfName}, len(p.zones), func(i int) nft.Element {
		return nft.Element{Key: nft.Key(nft.Interface(p.zones[i].Bridge)), Verdict: nft.JumpTo(chainServices(p.zones[i]))}
	})
	if len(p.zones) > 0 {
		t.rule(t.inet, chain, nft.By(services, nft.InName))
	}
	t.dispatch(chain, "host_", func(f *flow) bool { return f.to.kind == thisHost })
	// What is for everybody and nobody asked for is noise: nobody wants it logged.
	t.drop(t.inet, chain, "input: broadcast", nft.Is(nft.PacketKind, nft.Num8(unix.PACKET_BROADCAST)))
	t.drop(t.inet, chain, "input: multicast", nft.Is(nft.PacketKind, nft.Num8(unix.PACKET_MULTICAST)))
	if len(p.zones) > 0 {
		t.rule(t.inet, chain, nft.By(t.byZone("deny_host", func(z *zone) string { return chainDeny(z.Name, hostName) }), nft.InName))
	}
	t.drop(t.inet, chain, "input: rest")
}

// neighbours accepts neighbour discovery, which no router has passed on.
func (t *tables) neighbours(chain string, types ...uint8) {
	for _, typ := range types {
		t.rule(t.inet, chain, nft.Is(nft.IPv6HopLimit, nft.Num8(255)), nft.Is(nft.ICMPv6Type, nft.Num8(typ)), nft.Accept())
	}
}

// output writes what this host may send to workloads by itself.
func (t *tables) output(ours nft.Set) {
	const chain = "outgoing"
	p := t.policy
	// A packet that goes back to where it came from makes the kernel say that
	// there is a shorter way. There is none.
	t.AddChain(t.inet, "redirects", &nft.Hook{At: "output", Priority: priorityFilter - 1})
	for _, typ := range []struct {
		field nft.Field
		typ   uint8
	}{{nft.ICMPType, redirect}, {nft.ICMPv6Type, redirect6}} {
		t.rule(t.inet, "redirects", nft.In(ours, nft.OutName), nft.Is(typ.field, nft.Num8(typ.typ)), nft.Drop())
	}
	t.base(chain, "output", nft.NotIn(ours, nft.OutName))
	t.errors(chain, "output")
	t.neighbours(chain, neighborSolicitation, neighborAdvertisement, routerAdvertisement)
	for _, typ := range []uint8{listenerQuery, listenerReport, listenerDone, listenerReport2} {
		t.rule(t.inet, chain, nft.Is(nft.ICMPv6Type, nft.Num8(typ)), nft.Accept())
	}
	t.rule(t.inet, chain, nft.Is(nft.L4Proto, nft.Proto(unix.IPPROTO_IGMP)), nft.Accept())
	for _, z := range p.zones {
		if z.DHCP == nil {
			continue
		}
		out := nft.Is(nft.OutName, nft.Interface(z.Bridge))
		t.rule(t.inet, chain, out, nft.Is(nft.UDPSport, nft.Num16(portDHCPServer)), nft.Is(nft.UDPDport, nft.Num16(portDHCPClient)), nft.Accept())
		t.rule(t.inet, chain, out, nft.Is(nft.UDPSport, nft.Num16(portDHCPv6Server)), nft.Is(nft.UDPDport, nft.Num16(portDHCPv6Client)), nft.Accept())
	}
	for _, f := range p.flows {
		if f.from.kind == thisHost {
			t.reaching(chain, f)
		}
	}
	for _, group := range []string{"224.0.0.0/4", "255.255.255.255/32", "ff00::/8"} {
		to := netip.MustParsePrefix(group)
		t.drop(t.inet, chain, "output: for everybody", nft.Within(daddr(to.Addr().Is6()), to))
	}
	if len(p.zones) > 0 {
		t.rule(t.inet, chain, nft.By(t.byZone("deny_from", func(z *zone) string { return chainDeny(hostName, z.Name) }), nft.OutName))
	}
	t.drop(t.inet, chain, "output: rest")
}

// leaving gives packets that leave the zones an address of this host.
func (t *tables) leaving(ours nft.Set) {
	const chain = "leaving"
	t.AddChain(t.inet, chain, &nft.Hook{Type: "nat", At: "postrouting", Priority: priorityNAT})
	byOut := map[string][]addresses.Range{}
	var order []string
	for _, z := range t.policy.zones {
		if z.NAT == nil {
			continue
		}
		if _, known := byOut[z.NAT.Out]; !known {
			order = append(order, z.NAT.Out)
		}
		for _, s := range z.Subnets {
			byOut[z.NAT.Out] = append(byOut[z.NAT.Out], addresses.Of(s.Prefix))
		}
	}
	for i, out := range order {
		merged := addresses.Merge(byOut[out])
		for _, six := range families() {
			if v4, v6 := addresses.Split(merged); !six && len(v4) == 0 || six && len(v6) == 0 {
				continue
			}
			from := t.ranges(t.inet, fmt.Sprintf("nat_%d_%s", i, family(six)), six, merged)
			match := []nft.Expr{nft.In(ours, nft.InName), nft.NotIn(ours, nft.OutName), nft.In(from, saddr(six))}
			if out != "" {
				match = append(match, nft.Is(nft.OutName, nft.Interface(out)))
			}
			comment := "NAT by " + out
			if out == "" {
				comment = "NAT"
			}
			t.AddRule(t.inet, chain, comment, append(match, t.count(t.inet, comment), nft.Masquerade())...)
		}
	}
}
