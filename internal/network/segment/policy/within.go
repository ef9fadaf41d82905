package policy

import (
	"fmt"

	"github.com/mobileops/mobileops/internal/network/nft"
	"golang.org/x/sys/unix"
)

// within writes what passes from port to port of a bridge: the ARP and the
// neighbour discovery of workloads that have a flow in common.
func (t *tables) within() {
	const chain = "between"
	p := t.policy
	for _, z := range p.zones {
		t.zoneWithin(z)
	}
	t.AddChain(t.bridge, chain, &nft.Hook{At: "forward", Priority: priorityBridge})
	t.rule(t.bridge, chain, t.notIn("ports", nft.InName), t.notIn("ports", nft.OutName), nft.Accept())
	t.drop(t.bridge, chain, "frames from a port of no zone", t.notIn("ports", nft.InName))
	t.drop(t.bridge, chain, "frames to a port of no zone", t.notIn("ports", nft.OutName))
	type way struct {
		port string
		zone *zone
	}
	var ways []way
	for _, m := range p.machines {
		ways = append(ways, way{m.Device, m.zone})
	}
	for _, z := range p.zones {
		if z.Uplink != "" {
			ways = append(ways, way{z.Uplink, z})
		}
	}
	if len(ways) > 0 {
		zones := t.set(t.bridge, "zones", 0, []nft.Type{nft.IfName}, len(ways), func(i int) nft.Element {
			return nft.Element{Key: nft.Key(nft.Interface(ways[i].port)), Verdict: nft.GoTo(chainWithin(ways[i].zone))}
		})
		t.rule(t.bridge, chain, nft.By(zones, nft.InName))
	}
	t.drop(t.bridge, chain, "between: rest")
}

// zoneWithin writes what passes within one zone.
func (t *tables) zoneWithin(z *zone) {
	chain, arp, nd, deny := chainWithin(z), "arp_"+z.Name, "neighbours_"+z.Name, chainDeny(z.Name, z.Name)
	t.refuse(t.bridge, deny, "mobileops "+denyComment(z.Name, z.Name)+" ", "deny within "+z.Name)
	for _, name := range []string{arp, nd, chain} {
		t.AddChain(t.bridge, name, nil)
	}
	t.neighbourARP(arp, z)
	t.neighbourND(nd, z)

	t.rule(t.bridge, chain, nft.Is(nft.FrameType, nft.Ether(unix.ETH_P_ARP)), nft.Goto(arp))
	for _, typ := range []uint8{neighborSolicitation, neighborAdvertisement} {
		t.rule(t.bridge, chain, nft.Is(nft.IPv6HopLimit, nft.Num8(255)), nft.Is(nft.ICMPv6Type, nft.Num8(typ)), nft.Goto(nd))
	}
	for _, six := range families() {
		if z.open && (six && !z.has6 || !six && !z.has4) {
			t.accept(t.bridge, chain, "open", nft.Is(nft.FrameType, etherOf(six)))
		}
	}
	t.drop(t.bridge, chain, "broadcast within "+z.Name, nft.Is(nft.PacketKind, nft.Num8(unix.PACKET_BROADCAST)))
	t.drop(t.bridge, chain, "multicast within "+z.Name, nft.Is(nft.PacketKind, nft.Num8(unix.PACKET_MULTICAST)))
	t.rule(t.bridge, chain, nft.Goto(deny))
}

// neighbourARP lets those who have a flow in common find each other. Other hosts
// see to their own workloads, but this host's gateway is not theirs.
func (t *tables) neighbourARP(chain string, z *zone) {
	rule := func(exprs ...nft.Expr) { t.rule(t.bridge, chain, exprs...) }
	if z.Uplink != "" {
		for _, a := range z.gateways {
			if a.Is4() {
				rule(t.in("uplinks", nft.OutName), nft.Is(nft.ARPDaddrIP, nft.Addr(a)), nft.Drop())
			}
		}
		rule(t.in("uplinks", nft.OutName), nft.Accept())
	}
	// What asks for somebody else comes to every port.
	rule(t.in("fixed4", nft.OutName), t.notIn("pins4", nft.OutName, nft.ARPDaddrIP), nft.Drop())
	rule(t.notIn("fixed4", nft.OutName), t.in("known4", nft.ARPDaddrIP), nft.Drop())
	if z.Uplink != "" {
		rule(t.in("uplinks", nft.InName), nft.Accept())
	}
	t.inCommon(z, func(from, to *end) {
		source, ok := t.speaker(from, false)
		if !ok {
			return
		}
		match := source
		switch to.kind {
		case chosen:
			match = append(match, t.port(to))
		case part:
			if to.prefix.Addr().Is6() {
				return
			}
			match = append(match, nft.Within(nft.ARPDaddrIP, to.prefix))
		}
		rule(append(match, nft.Accept())...)
	})
	t.rule(t.bridge, chain, nft.Goto(chainDeny(z.Name, z.Name)))
}

func (t *tables) neighbourND(chain string, z *zone) {
	rule := func(exprs ...nft.Expr) { t.rule(t.bridge, chain, exprs...) }
	if z.Uplink != "" {
		for _, a := range z.gateways {
			if a.Is6() {
				rule(t.in("uplinks", nft.OutName), target(a), nft.Drop())
			}
		}
		rule(t.in("uplinks", nft.OutName), nft.Accept())
	}
	rule(t.in("fixed6", nft.OutName), t.notIn("groups6", nft.OutName, nft.IPv6Daddr), nft.Drop())
	if z.Uplink != "" {
		rule(t.in("uplinks", nft.InName), nft.Accept())
	}
	t.inCommon(z, func(from, to *end) {
		match, ok := t.speaker(from, true)
		if !ok {
			return
		}
		if to.kind == chosen {
			match = append(match, t.port(to))
		}
		rule(append(match, nft.Accept())...)
	})
	t.drop(t.bridge, chain, "multicast within "+z.Name, nft.NotIn(t.named(t.bridge, "fixed6"), nft.OutName), nft.Is(nft.PacketKind, nft.Num8(unix.PACKET_MULTICAST)))
	t.rule(t.bridge, chain, nft.Goto(chainDeny(z.Name, z.Name)))
}

// speaker matches frames whose sender is one of an end; not ok when none is of
// the family.
func (t *tables) speaker(e *end, six bool) (match []nft.Expr, ok bool) {
	field := nft.ARPSaddrIP
	if six {
		field = nft.IPv6Saddr
	}
	switch e.kind {
	case whole:
		return nil, true
	case part:
		if e.prefix.Addr().Is6() != six {
			return nil, false
		}
		return []nft.Expr{nft.Within(field, e.prefix)}, true
	}
	one, ok := t.address(t.bridge, e, six, field)
	return []nft.Expr{one}, ok
}

// port matches frames to a port of one of an end's workloads.
func (t *tables) port(e *end) nft.Expr {
	if len(e.machines) == 1 {
		return nft.Is(nft.OutName, nft.Interface(e.machines[0].Device))
	}
	name := fmt.Sprintf("end_%d", e.id)
	s, made := t.sets[t.bridge.String()+" "+name]
	if !made {
		var devices []string
		for _, m := range e.machines {
			devices = append(devices, m.Device)
		}
		s = t.devices(t.bridge, name, devices)
	}
	return nft.In(s, nft.OutName)
}

// inCommon calls f with the ends of each flow within a zone, in both directions
// and each pair once.
func (t *tables) inCommon(z *zone, f func(from, to *end)) {
	done := map[[2]*end]bool{}
	for _, flow := range t.policy.flows {
		if !apart(flow.from, flow.to, z) {
			continue
		}
		for _, pair := range [][2]*end{{flow.from, flow.to}, {flow.to, flow.from}} {
			if !done[pair] {
				done[pair] = true
				f(pair[0], pair[1])
			}
		}
	}
}
