package monitor

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"

	"github.com/mobileops/mobileops/internal/netlink"
	"golang.org/x/sys/unix"
)

// Route says where packets to a network go.
type Route struct {
	Destination netip.Prefix `json:"destination"` // "0.0.0.0/0" and "::/0": the default
	Default     bool         `json:"default,omitempty"`
	Type        string       `json:"type"` // "unicast", "local", "blackhole", "unreachable", …
	Hops        []Hop        `json:"hops,omitempty"`
	Source      string       `json:"source,omitempty"` // address that this host takes for itself
	Metric      uint32       `json:"metric,omitempty"`
	Table       uint32       `json:"table"`      // 254: main, 255: local
	TableName   string       `json:"table_name"` // "main", "local", "default", or the number
	Protocol    string       `json:"protocol"`   // who made it: "kernel", "static", "dhcp", "bird", …
}

// Hop is one way that a route leads.
type Hop struct {
	Gateway   string `json:"gateway,omitempty"`
	Interface string `json:"interface,omitempty"`
}

const routeCloned = 0x200 // RTM_F_CLONED: a cached route

// readRoutes reads every table of both families: default routes first, those of
// the main table before others.
func readRoutes(l *links) ([]Route, error) {
	c, err := netlink.Dial(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	list := []Route{}
	err = each(c, "routes", unix.RTM_GETROUTE, make([]byte, unix.SizeofRtMsg), unix.SizeofRtMsg, func(h []byte, attrs []netlink.Attr) {
		if r, ok := parseRoute(h, attrs, l); ok {
			list = append(list, r)
		}
	})
	rank := func(r *Route) int {
		switch {
		case r.Default && r.Table == unix.RT_TABLE_MAIN:
			return 0
		case r.Default:
			return 1
		case r.Table == unix.RT_TABLE_MAIN:
			return 2
		case r.Table == unix.RT_TABLE_LOCAL:
			return 4
		}
		return 3
	}
	slices.SortStableFunc(list, func(a, b Route) int {
		return cmp.Or(cmp.Compare(rank(&a), rank(&b)), cmp.Compare(a.Table, b.Table),
			a.Destination.Addr().Compare(b.Destination.Addr()), cmp.Compare(a.Destination.Bits(), b.Destination.Bits()), cmp.Compare(a.Metric, b.Metric))
	})
	return list, err
}

// parseRoute reads struct rtmsg and its attributes.
func parseRoute(h []byte, attrs []netlink.Attr, l *links) (r Route, ok bool) {
	family, bits := h[0], int(h[1])
	if binary.NativeEndian.Uint32(h[8:])&routeCloned != 0 || family != unix.AF_INET && family != unix.AF_INET6 {
		return r, false
	}
	r = Route{Table: uint32(h[4]), Protocol: netlink.RouteProtocol(h[5]), Type: netlink.RouteType(h[7]), Default: bits == 0 && h[7] == unix.RTN_UNICAST}
	dst := netip.IPv4Unspecified()
	if family == unix.AF_INET6 {
		dst = netip.IPv6Unspecified()
	}
	var hop Hop
	for n := range attrs {
		switch a := &attrs[n]; a.Type {
		case unix.RTA_DST:
			if d, ok := netip.AddrFromSlice(a.Value); ok {
				dst = d
			}
		case unix.RTA_OIF:
			hop.Interface = l.name(a.Uint32())
		case unix.RTA_GATEWAY:
			hop.Gateway = netlink.AddressText(a.Value)
		case unix.RTA_VIA:
			if len(a.Value) > 2 {
				hop.Gateway = netlink.AddressText(a.Value[2:])
			}
		case unix.RTA_PREFSRC:
			r.Source = netlink.AddressText(a.Value)
		case unix.RTA_PRIORITY:
			r.Metric = a.Uint32()
		case unix.RTA_TABLE:
			r.Table = a.Uint32()
		case unix.RTA_MULTIPATH:
			r.Hops = parseHops(a.Value, l)
		}
	}
	if bits > dst.BitLen() {
		return r, false
	}
	r.Destination, r.TableName = netip.PrefixFrom(dst, bits), tableName(r.Table)
	if hop != (Hop{}) && len(r.Hops) == 0 {
		r.Hops = []Hop{hop}
	}
	return r, true
}

// parseHops reads the ways of a route that has several.
func parseHops(b []byte, l *links) (hops []Hop) {
	for index, attrs := range netlink.Nexthops(b) {
		hop := Hop{Interface: l.name(index)}
		for _, a := range attrs {
			switch {
			case a.Type == unix.RTA_GATEWAY:
				hop.Gateway = netlink.AddressText(a.Value)
			case a.Type == unix.RTA_VIA && len(a.Value) > 2:
				hop.Gateway = netlink.AddressText(a.Value[2:])
			}
		}
		hops = append(hops, hop)
	}
	return hops
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
