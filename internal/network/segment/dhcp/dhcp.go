// Package dhcp gives addresses to those that ask on one interface, the bridge
// of a zone: DHCPv4, router advertisements, and DHCPv6 where there is a range
// for it. A Server serves one interface; nothing it does leaves that interface.
//
// What is heard comes from whoever hangs on the zone, so it is taken for
// hostile. Frames are read by a packet socket, because only the frame tells who
// sent it: a request whose chaddr is not the source address of its frame is
// ignored, and the bridge (FDB) tells through which port that source is
// reached. So one machine acts for itself alone, and one port can neither take
// the whole pool nor more than its share of the server's time.
//
// Leases are kept in a file that is only ever appended to (docs/formats/
// leases.md). An address is acknowledged after the record of it is on the disk,
// several at once with one sync: no crash makes the server forget an address
// that somebody has. Before an address that nobody holds is offered, it is
// asked for by ARP (RFC 5227); ICMP would ask no more than that, and is often
// filtered. An address that is given up stays remembered, so that the same
// client gets it again, and is given to another only when no fresh one is left:
// that which ended first goes first.
//
// IPv6: without a range the network is advertised for autoconfiguration
// (SLAAC), with name servers in the advertisement and in stateless DHCPv6. That
// is what dnsmasq does for the bridges of Incus, and the only thing that every
// guest understands: Android has no DHCPv6 at all. With a range the M flag is
// set too, and addresses are given out by DHCPv6 as well.
//
// Sources: RFC 2131 (DHCP), RFC 2132 (options), RFC 3396 (long options), RFC
// 3442 (classless routes), RFC 4702 (names of clients), RFC 5227 (address
// conflicts), RFC 6842 (client identifier in replies), RFC 4861 (neighbour
// discovery), RFC 8106 (name servers in advertisements), RFC 8415 (DHCPv6), RFC
// 9096 (lifetimes), packet(7).
package dhcp

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
)

// Config is what a Server serves. New checks it.
type Config struct {
	Interface string // the bridge

	// Gateway is the address of this host in the zone and the length of its
	// network. Without one there is no DHCPv4.
	Gateway netip.Prefix
	Pool    Range // what is given out; the gateway and reserved addresses are left out by themselves

	// Gateway6 are the addresses of this host in the IPv6 networks of the zone.
	// Networks of another length than 64 bits cannot be autoconfigured.
	Gateway6  []netip.Prefix
	Pool6     Range // within one of them: given out by DHCPv6
	Advertise bool  // router advertisements

	Reservations []Reservation
	Exclude      []netip.Addr // somebody has them without DHCP
	Names        []string     // that clients may not call themselves, beside those of reservations

	Lease time.Duration // one hour when 0
	Options

	File string // of the leases; its directory exists

	Limits
}

// Options are what replies say beside the address.
type Options struct {
	Router     bool         // the gateway is the way out of the zone
	DNS        []netip.Addr // name servers, of both families
	Domain     string       // without the last dot
	Search     []string     // domains
	NTP        []netip.Addr // of both families
	MTU        int          // bytes; 0: nothing is said
	Routes     []Route      // beside the default route; IPv4 alone
	NextServer netip.Addr   // where the boot file is
	Bootfile   string
	Raw        map[uint8][]byte // further options of DHCPv4
}

// Route is a route that a lease carries (RFC 3442).
type Route struct {
	To  netip.Prefix
	Via netip.Addr
}

// Limits keep clients from taking more than their share. Zero values stand for
// the defaults, negative ones for no limit.
type Limits struct {
	PerMAC  int // addresses for one MAC address of each family, under several client identifiers; 4
	PerPort int // addresses of each family for one port of the bridge; a quarter of the pool
	Rate    int // messages a second from one MAC address or port, after a burst of four times as many; 20

	// Probe is how long an ARP answer is waited for before an address is
	// offered; 300 ms.
	Probe time.Duration
}

const (
	offerTime   = 60 * time.Second // an offered address is kept for its client
	declineTime = 10 * time.Minute // one that somebody else uses is not given out
	maxPool     = 1 << 16          // addresses
	maxRoutes   = 24
	minLease    = 2 * time.Minute
	maxLease    = 30 * 24 * time.Hour
)

// Range is a span of addresses of one family, both ends included. The zero
// value is none.
type Range struct{ First, Last netip.Addr }

// Contains reports whether an address is in the range.
func (r Range) Contains(a netip.Addr) bool {
	return r.First.IsValid() && a.BitLen() == r.First.BitLen() && !a.Less(r.First) && !r.Last.Less(a)
}

// size is how many addresses a range has, at most maxPool+1.
func (r Range) size() int {
	if !r.First.IsValid() {
		return 0
	}
	a, b := r.First.As16(), r.Last.As16()
	var n int64
	for i := range a {
		n = n<<8 + int64(b[i]) - int64(a[i])
		if n > 1<<40 { // cannot become small again
			return maxPool + 1
		}
	}
	return int(min(n, maxPool)) + 1
}

// at returns the address n after the first one.
func (r Range) at(n int) netip.Addr {
	b := r.First.As16()
	for i := 15; i >= 0 && n > 0; i-- {
		n += int(b[i])
		b[i] = byte(n)
		n >>= 8
	}
	a := netip.AddrFrom16(b)
	if r.First.Is4() {
		a = a.Unmap()
	}
	return a
}

// index is the place of an address in the range.
func (r Range) index(a netip.Addr) int { return Range{r.First, a}.size() - 1 }

// Reservation is an address that belongs to one MAC address.
type Reservation struct {
	MAC       MAC
	Addresses []netip.Addr // at most one of each family
	Name      string       // under which DNS knows it; "" for none
}

// MAC is an address of IEEE 802.
type MAC [6]byte

// String returns the address with colons.
func (m MAC) String() string { return net.HardwareAddr(m[:]).String() }

// unicast reports whether a single station can have this address.
func (m MAC) unicast() bool { return m[0]&1 == 0 && m != MAC{} }

func (c *Config) defaults() {
	set := func(p *int, n int) {
		switch {
		case *p == 0:
			*p = n
		case *p < 0:
			*p = 1 << 30
		}
	}
	if c.Lease == 0 {
		c.Lease = time.Hour
	}
	set(&c.PerMAC, 4)
	if c.PerPort < 0 {
		c.PerPort = 1 << 30
	}
	set(&c.Rate, 20)
	if c.Probe == 0 {
		c.Probe = 300 * time.Millisecond
	}
}

// check refuses what cannot be served.
func (c *Config) check() error {
	bad := func(format string, args ...any) error {
		return failure.Errorf(failure.Usage, "DHCP on "+c.Interface+": "+format, args...)
	}
	if c.Interface == "" || len(c.Interface) > 15 {
		return bad("%q is no name of an interface", c.Interface)
	}
	if c.Pool.First.IsValid() {
		switch {
		case !c.Gateway.IsValid() || !c.Gateway.Addr().Is4():
			return bad("a pool needs an IPv4 address of this host in the zone")
		case !c.Pool.First.Is4() || !c.Pool.Last.Is4() || c.Pool.Last.Less(c.Pool.First):
			return bad("%s-%s is no range of IPv4 addresses", c.Pool.First, c.Pool.Last)
		case !c.Gateway.Masked().Contains(c.Pool.First) || !c.Gateway.Masked().Contains(c.Pool.Last):
			return bad("%s-%s is not within %s", c.Pool.First, c.Pool.Last, c.Gateway.Masked())
		case c.Pool.size() > maxPool:
			return bad("a pool has at most %d addresses", maxPool)
		}
	}
	if c.Pool6.First.IsValid() {
		within := func(p netip.Prefix) bool {
			return p.Masked().Contains(c.Pool6.First) && p.Masked().Contains(c.Pool6.Last)
		}
		if !c.Pool6.First.Is6() || !c.Pool6.Last.Is6() || c.Pool6.Last.Less(c.Pool6.First) || !slices.ContainsFunc(c.Gateway6, within) {
			return bad("%s-%s is no range within an IPv6 network of the zone", c.Pool6.First, c.Pool6.Last)
		}
	}
	if c.Lease < minLease || c.Lease > maxLease {
		return bad("a lease of %s: 2 minutes to 30 days", c.Lease)
	}
	if len(c.Routes) > maxRoutes {
		return bad("%d routes: at most %d", len(c.Routes), maxRoutes)
	}
	for _, r := range c.Routes {
		if !r.To.IsValid() || !r.To.Addr().Is4() || !r.Via.Is4() {
			return bad("a route to %s by %s: IPv4 alone", r.To, r.Via)
		}
	}
	if c.MTU < 0 || c.MTU > 65535 || c.MTU > 0 && c.MTU < 576 {
		return bad("an MTU of %d", c.MTU)
	}
	return c.checkReserved(bad)
}

func (c *Config) checkReserved(bad func(string, ...any) error) error {
	taken := map[netip.Addr]string{}
	for _, r := range c.Reservations {
		if !r.MAC.unicast() {
			return bad("an address is reserved for %s, which is no single station", r.MAC)
		}
		if r.Name != "" && cleanName(r.Name) != r.Name {
			return bad("%q is no name of a host: small letters, digits and dashes", r.Name)
		}
		for _, a := range r.Addresses {
			if by, ok := taken[a]; ok {
				return bad("%s is reserved for %s and for %s", a, by, r.MAC)
			}
			if a == c.Gateway.Addr() || slices.ContainsFunc(c.Gateway6, func(p netip.Prefix) bool { return p.Addr() == a }) {
				return bad("%s is reserved for %s, and is the address of this host", a, r.MAC)
			}
			if a.Is4() && !c.Gateway.Masked().Contains(a) {
				return bad("%s is reserved for %s, and not within %s", a, r.MAC, c.Gateway.Masked())
			}
			taken[a] = r.MAC.String()
		}
	}
	return nil
}

// cleanName makes of what a client calls itself a label of DNS (RFC 1123): what
// comes before the first dot, in small letters; "" when it is none.
func cleanName(s string) string {
	b := make([]byte, 0, 63)
	for i := range len(s) {
		ch := s[i]
		switch {
		case ch == '.' || ch == 0 && i == len(s)-1:
			// a domain follows, or the zero byte that some clients send
		case ch >= 'A' && ch <= 'Z':
			b = append(b, ch+'a'-'A')
			continue
		case ch >= 'a' && ch <= 'z' || ch >= '0' && ch <= '9' || ch == '-' && len(b) > 0:
			b = append(b, ch)
			continue
		default:
			return ""
		}
		break
	}
	if len(b) == 0 || len(b) > 63 || b[len(b)-1] == '-' {
		return ""
	}
	return string(b)
}

// String returns the range as it is written.
func (r Range) String() string { return fmt.Sprintf("%s-%s", r.First, r.Last) }
