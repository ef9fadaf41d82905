package netstate

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"

	"github.com/mobileops/mobileops/internal/finding"
	"github.com/mobileops/mobileops/internal/integrity/facts"
	"github.com/mobileops/mobileops/internal/netlink"
	"golang.org/x/sys/unix"
)

// routeList asks for a list of rtnetlink(7).
func routeList(what string, message uint16, head int, each func(head []byte, attrs []netlink.Attr)) error {
	c, err := netlink.Dial(unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer c.Close()
	list, err := c.Dump(message, make([]byte, head))
	if err != nil {
		return fmt.Errorf("list of %s: %w", what, err)
	}
	for _, m := range list {
		h, attrs, err := netlink.After(m, head)
		if err != nil {
			return fmt.Errorf("list of %s: %w", what, err)
		}
		each(h, attrs)
	}
	return nil
}

// routes tells where packets go. Those that the kernel makes itself follow from
// addresses, and those of routing daemons change all day.
func routes(g *gathering) {
	err := routeList("routes", unix.RTM_GETROUTE, unix.SizeofRtMsg, func(h []byte, attrs []netlink.Attr) {
		if key, f, ok := route(h, attrs, g.names); ok {
			g.add("routes", "route", key, f)
		}
	})
	if err != nil {
		g.drop("routes")
	}
	g.told("routes", err, "")
}

const routeCloned = 0x200 // RTM_F_CLONED: a cached route

// route makes a fact of struct rtmsg and its attributes.
func route(h []byte, attrs []netlink.Attr, names interfaceNames) (key string, f facts.Fact, ok bool) {
	family, bits, protocol, scope, kind := h[0], h[1], h[5], h[6], h[7]
	table := uint32(h[4])
	flags := binary.NativeEndian.Uint32(h[8:])
	if flags&routeCloned != 0 || protocol == unix.RTPROT_KERNEL || protocol == unix.RTPROT_REDIRECT ||
		family != unix.AF_INET && family != unix.AF_INET6 {
		return "", f, false
	}
	if name := learnedBy(protocol); name != "" {
		return "learned/" + name, facts.Fact{Severity: finding.Medium, Attributes: map[string]string{"protocol": name}}, true
	}
	dst, metric, tos := netip.IPv4Unspecified(), uint32(0), h[3]
	if family == unix.AF_INET6 {
		dst = netip.IPv6Unspecified()
	}
	attr := map[string]string{"gateway": facts.None, "interface": facts.None, "source": facts.None,
		"protocol": protocolName(protocol), "type": netlink.RouteType(kind), "other": facts.None}
	if scope == unix.RT_SCOPE_LINK {
		attr["type"] += " on link"
	}
	var other []byte
	from := ""
	for _, a := range attrs {
		switch a.Type {
		case unix.RTA_DST:
			if d, ok := netip.AddrFromSlice(a.Value); ok {
				dst = d
			}
		case unix.RTA_SRC:
			if s, ok := netip.AddrFromSlice(a.Value); ok {
				from = fmt.Sprintf(",from=%s/%d", s, h[2])
			}
		case unix.RTA_OIF:
			attr["interface"] = names.of(a.Uint32())
		case unix.RTA_GATEWAY:
			attr["gateway"] = netlink.AddressText(a.Value)
		case unix.RTA_VIA:
			if len(a.Value) > 2 {
				attr["gateway"] = netlink.AddressText(a.Value[2:])
			}
		case unix.RTA_PREFSRC:
			attr["source"] = netlink.AddressText(a.Value)
		case unix.RTA_PRIORITY:
			metric = a.Uint32()
		case unix.RTA_TABLE:
			table = a.Uint32()
		case unix.RTA_MULTIPATH:
			attr["gateway"], attr["interface"] = nexthops(a.Value, names)
		case unix.RTA_CACHEINFO, unix.RTA_PREF, unix.RTA_EXPIRES, unix.RTA_TTL_PROPAGATE, unix.RTA_IIF:
		default: // encapsulation, metrics, nexthop objects: seen, not spelled out
			other = put(other, a.Type, a.Value)
		}
	}
	if other != nil {
		attr["other"] = digest(other)
	}
	key = netip.PrefixFrom(dst, int(bits)).String() + from
	if table != unix.RT_TABLE_MAIN {
		key += fmt.Sprintf(",table=%d", table)
	}
	if metric != 0 && !(family == unix.AF_INET6 && metric == 1024) { // 1024 is what IPv6 takes when none is given
		key += fmt.Sprintf(",metric=%d", metric)
	}
	if tos != 0 {
		key += fmt.Sprintf(",tos=%d", tos)
	}
	f = facts.Fact{Severity: finding.Medium, Attributes: attr}
	if bits == 0 {
		f.Severity = finding.High
	}
	return key, f, true
}

// nexthops reads the ways of a route that has several.
func nexthops(b []byte, names interfaceNames) (gateways, interfaces string) {
	var via, dev []string
	for index, attrs := range netlink.Nexthops(b) {
		dev = append(dev, names.of(index))
		for _, a := range attrs {
			if a.Type == unix.RTA_GATEWAY {
				via = append(via, netlink.AddressText(a.Value))
			}
		}
	}
	return facts.Join(via), facts.Join(dev)
}

// learnedBy names a routing daemon that keeps its routes up to date by itself.
func learnedBy(protocol byte) string {
	switch protocol {
	case unix.RTPROT_GATED, unix.RTPROT_ZEBRA, unix.RTPROT_BIRD, unix.RTPROT_BABEL, unix.RTPROT_BGP, unix.RTPROT_ISIS,
		unix.RTPROT_OSPF, unix.RTPROT_RIP, unix.RTPROT_EIGRP:
		return netlink.RouteProtocol(protocol)
	}
	return ""
}

// protocolName is a word of baselines, which have to go on saying the same.
func protocolName(p byte) string {
	if p == unix.RTPROT_RA {
		return "router advertisement"
	}
	return netlink.RouteProtocol(p)
}

// rules tells of the policy of ip-rule(8): which packets ask which table.
func rules(g *gathering) {
	err := routeList("rules", unix.RTM_GETRULE, unix.SizeofRtMsg, func(h []byte, attrs []netlink.Attr) {
		if h[0] != unix.AF_INET && h[0] != unix.AF_INET6 {
			return // of multicast routing
		}
		key, text := rule(h, attrs)
		g.add("rules", "rule", key, facts.Fact{Severity: finding.High, Attributes: map[string]string{"rule": text}})
	})
	if err != nil {
		g.drop("rules")
	}
	g.told("rules", err, "")
}

// rule writes struct fib_rule_hdr and its attributes much as ip rule does.
func rule(h []byte, attrs []netlink.Attr) (key, text string) {
	from, to, priority, table := "from all", "", uint32(0), uint32(h[4])
	var words []string
	var other []byte
	for _, a := range attrs {
		switch a.Type {
		case unix.FRA_SRC:
			from = fmt.Sprintf("from %s/%d", netlink.AddressText(a.Value), h[2])
		case unix.FRA_DST:
			to = fmt.Sprintf(" to %s/%d", netlink.AddressText(a.Value), h[1])
		case unix.FRA_PRIORITY:
			priority = a.Uint32()
		case unix.FRA_TABLE:
			table = a.Uint32()
		case unix.FRA_IIFNAME:
			words = append(words, "iif "+facts.Text(a.Text()))
		case unix.FRA_OIFNAME:
			words = append(words, "oif "+facts.Text(a.Text()))
		case unix.FRA_FWMARK:
			words = append(words, fmt.Sprintf("fwmark %#x", a.Uint32()))
		case unix.FRA_FWMASK:
			if a.Uint32() != 0xffffffff {
				words = append(words, fmt.Sprintf("mask %#x", a.Uint32()))
			}
		case unix.FRA_SUPPRESS_PREFIXLEN, unix.FRA_SUPPRESS_IFGROUP:
			if a.Uint32() != 0xffffffff {
				other = put(other, a.Type, a.Value)
			}
		case unix.FRA_PROTOCOL, unix.FRA_PAD:
		default:
			other = put(other, a.Type, a.Value)
		}
	}
	if h[3] != 0 {
		words = append(words, fmt.Sprintf("tos %d", h[3]))
	}
	if binary.NativeEndian.Uint32(h[8:])&unix.FIB_RULE_INVERT != 0 {
		words = append(words, "not")
	}
	if other != nil {
		words = append(words, "other "+digest(other))
	}
	action := fmt.Sprintf("action %d", h[7])
	if h[7] == unix.FR_ACT_TO_TBL {
		action = "lookup " + tableName(table)
	}
	text = strings.Join(append(append([]string{from + to}, words...), action), " ")
	family := "inet"
	if h[0] == unix.AF_INET6 {
		family = "inet6"
	}
	return fmt.Sprintf("%s/%d", family, priority), text
}

func tableName(n uint32) string {
	switch n {
	case unix.RT_TABLE_MAIN:
		return "main"
	case unix.RT_TABLE_LOCAL:
		return "local"
	case unix.RT_TABLE_DEFAULT:
		return "default"
	}
	return fmt.Sprint(n)
}
