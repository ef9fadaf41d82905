package netlink

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"iter"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Nexthops yields the ways of RTA_MULTIPATH, which is a list of struct rtnexthop:
// the index of the interface and the attributes of each. See rtnetlink(7).
func Nexthops(b []byte) iter.Seq2[uint32, []Attr] {
	return func(yield func(uint32, []Attr) bool) {
		for len(b) >= unix.SizeofRtNexthop {
			size := int(binary.NativeEndian.Uint16(b))
			if size < unix.SizeofRtNexthop || size > len(b) {
				return
			}
			attrs, _ := Attributes(b[unix.SizeofRtNexthop:size]) // those before a damaged one
			if !yield(binary.NativeEndian.Uint32(b[4:]), attrs) {
				return
			}
			b = b[min(align(size), len(b)):]
		}
	}
}

// AddressText is an address of an attribute in its usual form, or its bytes when it
// is of no family of IP.
func AddressText(b []byte) string {
	if a, ok := netip.AddrFromSlice(b); ok {
		return a.String()
	}
	return hex.EncodeToString(b)
}

// RouteType names an RTN_ constant as ip-route(8) does, but for "unspecified".
func RouteType(kind byte) string {
	names := [...]string{"unspecified", "unicast", "local", "broadcast", "anycast", "multicast", "blackhole", "unreachable", "prohibit", "throw", "nat"}
	if int(kind) < len(names) {
		return names[kind]
	}
	return fmt.Sprint(kind)
}

// RouteProtocol names who made a route as /usr/share/iproute2/rt_protos does, or
// returns the number.
func RouteProtocol(p byte) string {
	switch p {
	case unix.RTPROT_REDIRECT:
		return "redirect"
	case unix.RTPROT_KERNEL:
		return "kernel"
	case unix.RTPROT_BOOT:
		return "boot"
	case unix.RTPROT_STATIC:
		return "static"
	case unix.RTPROT_GATED:
		return "gated"
	case unix.RTPROT_RA:
		return "ra"
	case unix.RTPROT_DHCP:
		return "dhcp"
	case unix.RTPROT_ZEBRA:
		return "zebra"
	case unix.RTPROT_BIRD:
		return "bird"
	case unix.RTPROT_BABEL:
		return "babel"
	case unix.RTPROT_BGP:
		return "bgp"
	case unix.RTPROT_ISIS:
		return "isis"
	case unix.RTPROT_OSPF:
		return "ospf"
	case unix.RTPROT_RIP:
		return "rip"
	case unix.RTPROT_EIGRP:
		return "eigrp"
	}
	return fmt.Sprint(p)
}
