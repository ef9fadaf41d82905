package dns

import (
	"net/netip"
	"strconv"
	"strings"
	"sync"
)

// special are domains that mean something on this host or this network alone,
// or nothing at all (RFC 6761, 6762, 7686, 8375, 9476, and "internal", which
// ICANN keeps free): no server outside is to be bothered with them, nor told.
var special = []string{"localhost", "local", "invalid", "test", "onion", "home.arpa", "internal", "alt", "intranet", "lan", "private", "corp", "home", "resolver.arpa"}

// localReverse are networks whose reverse zones are local (RFC 6303, RFC 7793).
var localReverse = sync.OnceValue(func() []netip.Prefix {
	var list []netip.Prefix
	for _, s := range []string{
		"0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.2.0/24", "192.168.0.0/16",
		"198.51.100.0/24", "203.0.113.0/24", "255.255.255.255/32",
		"::/128", "::1/128", "fd00::/8", "fe80::/10", "2001:db8::/32",
	} {
		list = append(list, netip.MustParsePrefix(s))
	}
	return list
})

// rebindable are the networks that an answer from outside has no reason to
// point into.
var rebindable = sync.OnceValue(func() []netip.Prefix {
	var list []netip.Prefix
	for _, s := range []string{
		"0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16", "198.18.0.0/15",
		"224.0.0.0/4", "240.0.0.0/4", "::/127", "fc00::/7", "fe80::/10", "fec0::/10", "ff00::/8",
	} {
		list = append(list, netip.MustParsePrefix(s))
	}
	return list
})

var (
	nat64  = netip.MustParsePrefix("64:ff9b::/96")
	sixTo4 = netip.MustParsePrefix("2002::/16")
	compat = netip.MustParsePrefix("::/96")
)

// private reports whether an address is inside, also when it is written in one
// of the forms by which an IPv6 address carries one of IPv4.
func private(a netip.Addr) bool {
	a = a.Unmap()
	b := a.As16()
	switch {
	case a.Is4():
	case nat64.Contains(a), compat.Contains(a) && a != netip.IPv6Unspecified() && b[15] > 1:
		return private(netip.AddrFrom4([4]byte(b[12:])))
	case sixTo4.Contains(a):
		return private(netip.AddrFrom4([4]byte(b[2:])))
	}
	return containsAddr(rebindable(), a)
}

func containsAddr(list []netip.Prefix, a netip.Addr) bool {
	for _, p := range list {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// reverseAddr returns the network that a name of in-addr.arpa or ip6.arpa stands
// for: an address, or the beginning of one.
func reverseAddr(name string) (netip.Prefix, bool) {
	if rest, ok := strings.CutSuffix(name, ".in-addr.arpa."); ok {
		labels := strings.Split(rest, ".")
		if len(labels) > 4 {
			return netip.Prefix{}, false
		}
		var b [4]byte
		for i, l := range labels {
			n, err := strconv.ParseUint(l, 10, 8)
			if err != nil || l != strconv.FormatUint(n, 10) {
				return netip.Prefix{}, false
			}
			b[len(labels)-1-i] = byte(n)
		}
		return netip.PrefixFrom(netip.AddrFrom4(b), 8*len(labels)), true
	}
	if rest, ok := strings.CutSuffix(name, ".ip6.arpa."); ok {
		labels := strings.Split(rest, ".")
		if len(labels) > 32 {
			return netip.Prefix{}, false
		}
		var b [16]byte
		for i, l := range labels {
			n, err := strconv.ParseUint(l, 16, 4)
			if err != nil || len(l) != 1 {
				return netip.Prefix{}, false
			}
			at := len(labels) - 1 - i
			b[at/2] |= byte(n) << (4 * (1 - at%2))
		}
		return netip.PrefixFrom(netip.AddrFrom16(b), 4*len(labels)), true
	}
	return netip.Prefix{}, false
}

// localPTR reports whether a reverse name is of a network that nobody outside
// can know about, or of one of the zone's.
func localPTR(p netip.Prefix, zone []netip.Prefix) bool {
	for _, list := range [][]netip.Prefix{localReverse(), zone} {
		for _, l := range list {
			if l.Addr().BitLen() == p.Addr().BitLen() && l.Bits() <= p.Bits() && l.Contains(p.Addr()) {
				return true
			}
		}
	}
	return false
}
