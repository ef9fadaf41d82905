package policy

import (
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/mobileops/mobileops/internal/network/nft"
	"golang.org/x/sys/unix"
)

// priorityBridge is that of our chains in bridges: before everything but the
// isolation of the host.
const priorityBridge = -300

// Chains of the bridge table in which frames end.
const (
	chainForged = "forged" // from somebody else than they say
	chainRogue  = "rogue"  // from a server or router that is none
)

// bridged writes the table of family bridge.
func (t *tables) bridged() {
	t.refuse(t.bridge, chainForged, "mobileops deny forged ", "forged sender")
	t.refuse(t.bridge, chainRogue, "mobileops deny rogue ", "rogue server or router")
	t.members()
	for _, z := range t.policy.zones {
		t.route(z)
	}
	t.arriving()
	t.within()
}

// members makes the sets of ports, and of what each may say it is.
func (t *tables) members() {
	p := t.policy
	var ports, fixed, fixed4, fixed6, uplinks, mute []string
	var macs, known []nft.Element // of ports, and of the whole host
	var all []netip.Addr
	pins := map[bool][]nft.Element{}
	var groups, own, links []nft.Element // of IPv6
	for _, z := range p.zones {
		if z.Uplink != "" {
			ports, uplinks = append(ports, z.Uplink), append(uplinks, z.Uplink)
		}
		all = append(all, z.gateways...)
		if !z.MAC.IsZero() {
			known = append(known, nft.One(mac(z.MAC), 0))
			links = append(links, nft.One(nft.Addr(eui64(linkLocal(), z.MAC)), 0))
		}
	}
	for _, m := range p.machines {
		name := nft.Interface(m.Device)
		ports = append(ports, m.Device)
		if !m.zone.STP {
			mute = append(mute, m.Device)
		}
		if !m.MAC.IsZero() {
			fixed = append(fixed, m.Device)
			macs, known = append(macs, nft.Element{Key: nft.Key(name, mac(m.MAC))}), append(known, nft.One(mac(m.MAC), 0))
			local := eui64(linkLocal(), m.MAC)
			own, links = append(own, nft.Element{Key: nft.Key(name, nft.Addr(local))}), append(links, nft.One(nft.Addr(local), 0))
		}
		if m.fixed4 {
			fixed4 = append(fixed4, m.Device)
		}
		if m.fixed6 {
			fixed6 = append(fixed6, m.Device)
		}
		for _, a := range m.addresses {
			all = append(all, a)
			pins[a.Is6()] = append(pins[a.Is6()], nft.Element{Key: nft.Key(name, nft.Addr(a))})
			if a.Is6() {
				groups = append(groups, nft.Element{Key: nft.Key(name, nft.Addr(a))})
				if g := solicited(a); !slices.ContainsFunc(m.addresses, func(o netip.Addr) bool { return o != a && o.Is6() && o.Less(a) && solicited(o) == g }) {
					groups = append(groups, nft.Element{Key: nft.Key(name, nft.Addr(g))})
				}
			}
		}
	}
	t.devices(t.bridge, "ports", ports)
	t.devices(t.bridge, "fixed", fixed)
	t.devices(t.bridge, "fixed4", fixed4)
	t.devices(t.bridge, "fixed6", fixed6)
	t.devices(t.bridge, "uplinks", uplinks)
	t.devices(t.bridge, "mute", mute)
	elements := func(name string, key []nft.Type, list []nft.Element) {
		t.set(t.bridge, name, 0, key, len(list), func(i int) nft.Element { return list[i] })
	}
	elements("macs", []nft.Type{nft.IfName, nft.EtherAddr}, macs)
	elements("known_macs", []nft.Type{nft.EtherAddr}, known)
	elements("pins4", []nft.Type{nft.IfName, nft.IPv4Addr}, pins[false])
	elements("pins6", []nft.Type{nft.IfName, nft.IPv6Addr}, pins[true])
	elements("groups6", []nft.Type{nft.IfName, nft.IPv6Addr}, groups)
	elements("links6", []nft.Type{nft.IfName, nft.IPv6Addr}, own)
	elements("known_links6", []nft.Type{nft.IPv6Addr}, links)
	for _, six := range families() {
		t.list(t.bridge, "known"+family(six), six, all)
	}
	types := []uint16{unix.ETH_P_IP, unix.ETH_P_IPV6, unix.ETH_P_ARP}
	t.set(t.bridge, "types", 0, []nft.Type{nft.EtherType}, len(types), func(i int) nft.Element { return nft.One(nft.Ether(types[i]), 0) })
}

// solicited is the group that those with an address listen to (RFC 4291).
func solicited(a netip.Addr) netip.Addr {
	g, b := netip.MustParseAddr("ff02::1:ff00:0").As16(), a.As16()
	copy(g[13:], b[13:])
	return netip.AddrFrom16(g)
}

func (t *tables) in(name string, fields ...nft.Field) nft.Expr {
	return nft.In(t.named(t.bridge, name), fields...)
}

func (t *tables) notIn(name string, fields ...nft.Field) nft.Expr {
	return nft.NotIn(t.named(t.bridge, name), fields...)
}

// pinned sends what a port says of itself, which isn't so, away: ports of the
// set fixed have what is in pins, and others have nothing that is known to be
// somebody's.
func (t *tables) pinned(chain, fixed, pins, known string, field nft.Field) {
	t.rule(t.bridge, chain, t.in(fixed, nft.InName), t.notIn(pins, nft.InName, field), nft.Goto(chainForged))
	t.rule(t.bridge, chain, t.notIn(fixed, nft.InName), t.in(known, field), nft.Goto(chainForged))
}

// arriving writes what a port may send.
func (t *tables) arriving() {
	const chain = "arriving"
	arp, four, six := nft.Is(nft.FrameType, nft.Ether(unix.ETH_P_ARP)), nft.Is(nft.FrameType, nft.Ether(unix.ETH_P_IP)), nft.Is(nft.FrameType, nft.Ether(unix.ETH_P_IPV6))
	rule := func(chain string, exprs ...nft.Expr) { t.rule(t.bridge, chain, exprs...) }
	for _, name := range []string{"arp_from", "arp_said", "from4", "from6", "from_nowhere6", "from_link6"} {
		t.AddChain(t.bridge, name, nil)
	}
	t.targets()
	t.AddChain(t.bridge, chain, &nft.Hook{At: "prerouting", Priority: priorityBridge})
	rule(chain, t.notIn("ports", nft.InName), nft.Accept())
	t.drop(t.bridge, chain, "frames other than IP and ARP", t.notIn("types", nft.FrameType))
	t.uplinks(chain)
	t.pinned(chain, "fixed", "macs", "known_macs", nft.EtherSaddr)
	rule(chain, arp, nft.Goto("arp_from"))
	rule(chain, four, nft.Goto("from4"))
	rule(chain, six, nft.Goto("from6"))

	rule("arp_from", nft.ARPForIPv4(), nft.Goto("arp_said"))
	rule("arp_from", nft.Goto(chainForged))
	t.pinned("arp_said", "fixed", "macs", "known_macs", nft.ARPSaddrEther)
	rule("arp_said", nft.Is(nft.ARPSaddrIP, nft.Addr(netip.IPv4Unspecified())), nft.Accept()) // is that mine? (RFC 5227)
	t.pinned("arp_said", "fixed4", "pins4", "known4", nft.ARPSaddrIP)

	rule("from4", nft.Is(nft.UDPSport, nft.Num16(portDHCPServer)), nft.Goto(chainRogue))
	rule("from4", nft.Is(nft.IPv4Saddr, nft.Addr(netip.IPv4Unspecified())), nft.Is(nft.UDPSport, nft.Num16(portDHCPClient)), nft.Is(nft.UDPDport, nft.Num16(portDHCPServer)), nft.Accept())
	t.pinned("from4", "fixed4", "pins4", "known4", nft.IPv4Saddr)

	for _, typ := range []uint8{routerAdvertisement, redirect6} {
		rule("from6", nft.Is(nft.ICMPv6Type, nft.Num8(typ)), nft.Goto(chainRogue))
	}
	rule("from6", nft.Is(nft.UDPSport, nft.Num16(portDHCPv6Server)), nft.Goto(chainRogue))
	t.claims("from6", neighborAdvertisement)
	rule("from6", nft.Is(nft.IPv6Saddr, nft.Addr(netip.IPv6Unspecified())), nft.Goto("from_nowhere6"))
	rule("from6", nft.Within(nft.IPv6Saddr, linkLocal()), nft.Goto("from_link6"))
	t.pinned("from6", "fixed6", "pins6", "known6", nft.IPv6Saddr)
	for _, typ := range []uint8{neighborSolicitation, neighborAdvertisement} {
		rule("from6", nft.Is(nft.IPv6HopLimit, nft.Num8(255)), nft.Is(nft.ICMPv6Type, nft.Num8(typ)), nft.Accept())
	}

	t.claims("from_nowhere6", neighborSolicitation)
	for _, typ := range []uint8{neighborSolicitation, routerSolicitation, listenerReport, listenerReport2} {
		rule("from_nowhere6", nft.Is(nft.ICMPv6Type, nft.Num8(typ)), nft.Accept())
	}
	rule("from_nowhere6", nft.Goto(chainForged))
	rule("from_link6", t.in("known_links6", nft.IPv6Saddr), t.notIn("links6", nft.InName, nft.IPv6Saddr), nft.Goto(chainForged))
	rule("from_link6", nft.Accept())

	ways := t.ways("ways", func(m *machine) string { return chainRoute(m.zone) })
	if len(t.policy.machines) > 0 {
		rule("from4", nft.By(ways, nft.InName))
		rule("from6", nft.By(ways, nft.InName))
	}

	t.AddChain(t.bridge, "for_switch", &nft.Hook{At: "input", Priority: priorityBridge})
	t.drop(t.bridge, "for_switch", "frames for switches", t.in("mute", nft.InName), t.notIn("types", nft.FrameType))
}

// ways makes a map from the port of each workload to a chain.
func (t *tables) ways(name string, chain func(m *machine) string) nft.Set {
	list := t.policy.machines
	return t.set(t.bridge, name, 0, []nft.Type{nft.IfName}, len(list), func(i int) nft.Element {
		return nft.Element{Key: nft.Key(nft.Interface(list[i].Device)), Verdict: nft.GoTo(chain(list[i]))}
	})
}

func chainRoute(z *zone) string { return "route_" + z.Name }

// route gives packets of a zone to this host.
func (t *tables) route(z *zone) {
	chain := chainRoute(z)
	t.AddChain(t.bridge, chain, nil)
	for _, six := range families() {
		var list []netip.Prefix
		for _, s := range z.Subnets {
			if s.Prefix.Addr().Is6() == six {
				list = append(list, s.Prefix)
			}
		}
		if len(z.Subnets) == 0 {
			continue // nothing is known of who is in it
		}
		// Ports whose address is not known have one of the zone.
		typ := nft.Is(nft.FrameType, etherOf(six))
		inside := fmt.Sprintf("inside_%s_%s", z.Name, family(six))
		t.AddChain(t.bridge, inside, nil)
		for _, p := range list {
			t.rule(t.bridge, inside, nft.Within(saddr(six), p), nft.Return())
		}
		t.rule(t.bridge, inside, nft.Goto(chainForged))
		t.rule(t.bridge, chain, typ, nft.Jump(inside))
	}
	t.redirect(chain, z)
}

func etherOf(six bool) nft.Value {
	if six {
		return nft.Ether(unix.ETH_P_IPV6)
	}
	return nft.Ether(unix.ETH_P_IP)
}

// redirect gives what is for another port to this host, where it is an address.
func (t *tables) redirect(chain string, z *zone) {
	for _, six := range families() {
		if six && !z.has6 || !six && !z.has4 {
			continue
		}
		t.rule(t.bridge, chain, nft.Is(nft.FrameType, etherOf(six)), nft.Is(nft.PacketKind, nft.Num8(unix.PACKET_OTHERHOST)),
			nft.SetEtherDaddr(net.HardwareAddr(z.MAC[:])), nft.SetForHost(), nft.Accept())
	}
	t.rule(t.bridge, chain, nft.Accept())
}

// targets writes what neighbour discovery of each port may say that it has. What
// is asked for cannot be looked up together with a port, so each has a chain.
func (t *tables) targets() {
	for _, z := range t.policy.zones {
		// Of a link-local address that isn't made of a MAC address nobody knows
		// whose it is.
		for _, name := range []string{"targets_link_" + z.Name, "targets_" + z.Name} {
			t.AddChain(t.bridge, name, nil)
			for _, a := range t.known6(z, name == "targets_"+z.Name) {
				t.rule(t.bridge, name, target(a), nft.Goto(chainForged))
			}
			if name == "targets_link_"+z.Name {
				t.rule(t.bridge, name, nft.Is(nft.L4Proto, nft.Proto(unix.IPPROTO_ICMPV6)), nft.WithinTransport(8, linkLocal()), nft.Return())
				t.rule(t.bridge, name, nft.Goto(chainForged))
			}
		}
	}
	for i, m := range t.policy.machines {
		chain := chainTarget(i)
		t.AddChain(t.bridge, chain, nil)
		own := slices.DeleteFunc(slices.Clone(m.addresses), netip.Addr.Is4)
		if !m.MAC.IsZero() {
			own = append(own, eui64(linkLocal(), m.MAC))
		}
		for _, a := range own {
			t.rule(t.bridge, chain, target(a), nft.Return())
		}
		if !m.fixed6 {
			// Anything that is nobody else's.
			t.rule(t.bridge, chain, nft.Goto("targets_"+m.zone.Name))
			continue
		}
		if m.Attach.Namespaced() {
			t.rule(t.bridge, chain, nft.Goto(chainForged))
			continue
		}
		t.rule(t.bridge, chain, nft.Goto("targets_link_"+m.zone.Name))
	}
	claims := func(i int) nft.Element {
		return nft.Element{Key: nft.Key(nft.Interface(t.policy.machines[i].Device)), Verdict: nft.JumpTo(chainTarget(i))}
	}
	t.set(t.bridge, "claims", 0, []nft.Type{nft.IfName}, len(t.policy.machines), claims)
}

func chainTarget(i int) string { return fmt.Sprintf("target_%d", i) }

// target matches what neighbour discovery says that somebody has.
func target(a netip.Addr) nft.Expr { return nft.WithinTransport(8, netip.PrefixFrom(a, 128)) }

// known6 are addresses of IPv6 in a zone, or the link-local ones alone, that are
// known to be somebody's. Ports that could claim others' are few, so the chain
// is only written where there is one.
func (t *tables) known6(z *zone, all bool) (list []netip.Addr) {
	loose := func(m *machine) bool {
		return m.zone == z && !m.Attach.Namespaced() && (all == !m.fixed6)
	}
	if !slices.ContainsFunc(t.policy.machines, loose) && (z.Uplink == "" || !all) {
		return nil
	}
	if all {
		for _, a := range z.gateways {
			if a.Is6() {
				list = append(list, a)
			}
		}
	}
	if !z.MAC.IsZero() {
		list = append(list, eui64(linkLocal(), z.MAC))
	}
	for _, m := range t.policy.machines {
		if m.zone != z {
			continue
		}
		if !m.MAC.IsZero() {
			list = append(list, eui64(linkLocal(), m.MAC))
		}
		for _, a := range m.addresses {
			if all && a.Is6() {
				list = append(list, a)
			}
		}
	}
	return list
}

// claims looks at the target of one type of neighbour discovery.
func (t *tables) claims(chain string, typ uint8) {
	if len(t.policy.machines) > 0 {
		t.rule(t.bridge, chain, nft.Is(nft.ICMPv6Type, nft.Num8(typ)), nft.By(t.named(t.bridge, "claims"), nft.InName))
	}
}

// uplinks writes what may come from other hosts: nothing in the name of one of
// this host.
func (t *tables) uplinks(chain string) {
	var zones []*zone
	for _, z := range t.policy.zones {
		if z.Uplink != "" {
			zones = append(zones, z)
		}
	}
	if len(zones) == 0 {
		return
	}
	rule := func(chain string, exprs ...nft.Expr) { t.rule(t.bridge, chain, exprs...) }
	t.AddChain(t.bridge, "from_uplink", nil)
	rule(chain, t.in("uplinks", nft.InName), nft.Goto("from_uplink"))
	rule("from_uplink", t.in("known_macs", nft.EtherSaddr), nft.Goto(chainForged))
	rule("from_uplink", t.in("known4", nft.ARPSaddrIP), nft.Goto(chainForged))
	rule("from_uplink", t.in("known4", nft.IPv4Saddr), nft.Goto(chainForged))
	rule("from_uplink", t.in("known6", nft.IPv6Saddr), nft.Goto(chainForged))
	rule("from_uplink", t.in("known_links6", nft.IPv6Saddr), nft.Goto(chainForged))
	for _, z := range zones {
		name := "uplink_" + z.Name
		t.AddChain(t.bridge, name, nil)
		if z.has6 {
			for _, typ := range []uint8{routerAdvertisement, redirect6} {
				rule(name, nft.Is(nft.ICMPv6Type, nft.Num8(typ)), nft.Goto(chainRogue))
			}
		}
		if z.DHCP != nil {
			rule(name, nft.Is(nft.UDPSport, nft.Num16(portDHCPServer)), nft.Goto(chainRogue))
			rule(name, nft.Is(nft.UDPSport, nft.Num16(portDHCPv6Server)), nft.Goto(chainRogue))
		}
		rule(name, nft.Is(nft.ICMPv6Type, nft.Num8(neighborAdvertisement)), nft.Jump("targets_"+z.Name))
		for _, typ := range []uint8{neighborSolicitation, neighborAdvertisement} {
			rule(name, nft.Is(nft.ICMPv6Type, nft.Num8(typ)), nft.Accept())
		}
		rule(name, nft.Within(nft.IPv6Saddr, linkLocal()), nft.Accept())
		t.redirect(name, z)
	}
	ways := t.set(t.bridge, "uplink_ways", 0, []nft.Type{nft.IfName}, len(zones), func(i int) nft.Element {
		return nft.Element{Key: nft.Key(nft.Interface(zones[i].Uplink)), Verdict: nft.GoTo("uplink_" + zones[i].Name)}
	})
	rule("from_uplink", nft.By(ways, nft.InName))
}
