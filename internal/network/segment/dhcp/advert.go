package dhcp

import (
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mobileops/mobileops/internal/network/segment/rate"
)

// Times of router advertisements: RFC 4861, 6.2.1, with the lifetimes of RFC
// 9096, 3.1, after which a host that missed a change of the prefix recovers.
const (
	minAdvert         = 200 * time.Second
	maxAdvert         = 600 * time.Second
	routerLifetime    = 3 * maxAdvert
	preferredLifetime = routerLifetime
	validLifetime     = 48 * routerLifetime
	firstAdverts      = 3
	firstInterval     = 16 * time.Second
)

var (
	allNodes   = netip.MustParseAddr("ff02::1")
	allRouters = netip.MustParseAddr("ff02::2")
)

// appendAdvert appends a router advertisement (RFC 4861, 4.2; RFC 8106). The
// kernel fills in its checksum.
func appendAdvert(b []byte, c *Config, own MAC) []byte {
	be := binary.BigEndian
	flags := byte(0x40) // other configuration by DHCPv6
	if c.Pool6.First.IsValid() {
		flags |= 0x80 // and addresses
	}
	lifetime := routerLifetime
	if !c.Router {
		lifetime = 0 // a host on the link, and no way out
	}
	b = append(b, 134, 0, 0, 0, 64, flags)
	b = be.AppendUint16(b, uint16(lifetime/time.Second))
	b = append(b, 0, 0, 0, 0, 0, 0, 0, 0) // reachable and retransmission time: unspecified
	b = append(b, 1, 1)                   // source link-layer address
	b = append(b, own[:]...)
	if c.MTU >= 1280 {
		b = append(b, 5, 1, 0, 0)
		b = be.AppendUint32(b, uint32(c.MTU))
	}
	for _, p := range c.Gateway6 {
		prefix := byte(0x80) // on link
		if p.Bits() == 64 {
			prefix |= 0x40 // hosts make addresses in it
		}
		b = append(b, 3, 4, byte(p.Bits()), prefix)
		b = be.AppendUint32(b, uint32(validLifetime/time.Second))
		b = be.AppendUint32(b, uint32(preferredLifetime/time.Second))
		b = append(b, 0, 0, 0, 0)
		a := p.Masked().Addr().As16()
		b = append(b, a[:]...)
	}
	var servers []byte
	for _, a := range c.DNS {
		if a.Is6() && len(servers) < 3*16 {
			servers = append(servers, a.AsSlice()...)
		}
	}
	if len(servers) > 0 {
		b = append(b, 25, byte(1+len(servers)/8), 0, 0)
		b = be.AppendUint32(b, uint32(routerLifetime/time.Second))
		b = append(b, servers...)
	}
	if names := searchList(c); len(names) > 0 {
		for len(names)%8 != 0 {
			names = append(names, 0)
		}
		b = append(b, 31, byte(1+len(names)/8), 0, 0)
		b = be.AppendUint32(b, uint32(routerLifetime/time.Second))
		b = append(b, names...)
	}
	return b
}

// searchList is the domains in the form of DNS, without compression.
func searchList(c *Config) []byte {
	list := c.Search
	if len(list) == 0 && c.Domain != "" {
		list = []string{c.Domain}
	}
	var b []byte
	for _, name := range list {
		at := len(b)
		for label := range splitLabels(name) {
			b = append(append(b, byte(len(label))), label...)
		}
		if b = append(b, 0); len(b) > 256 {
			return b[:at]
		}
	}
	return b
}

func splitLabels(name string) func(func(string) bool) {
	return func(yield func(string) bool) {
		for at := 0; at < len(name); {
			end := at
			for end < len(name) && name[end] != '.' {
				end++
			}
			if n := end - at; n > 0 && n < 64 && !yield(name[at:end]) {
				return
			}
			at = end + 1
		}
	}
}

// parseSolicit reports whether a message is a router solicitation in order (RFC
// 4861, 6.1.1), of which the kernel has looked at the checksum.
func parseSolicit(b []byte, hops int, from netip.Addr) error {
	switch {
	case hops != 255:
		return &PacketError{0, "it came through a router"}
	case len(b) < 8:
		return &PacketError{len(b), "too short"}
	case b[0] != 133 || b[1] != 0:
		return &PacketError{0, "no router solicitation"}
	}
	for at := 8; at < len(b); {
		if at+2 > len(b) || b[at+1] == 0 || at+8*int(b[at+1]) > len(b) {
			return &PacketError{at, "an option that does not end"}
		}
		if b[at] == 1 && from.IsUnspecified() {
			return &PacketError{at, "a link-layer address without an address"}
		}
		at += 8 * int(b[at+1])
	}
	return nil
}

// startAdvertising answers solicitations and advertises from time to time.
func (s *Server) startAdvertising(ctx context.Context, ifi *net.Interface) (loop func() error, stop func(), err error) {
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_ICMPV6)
	if err != nil {
		return nil, nil, sockError("open a socket for router advertisements", err)
	}
	var filter unix.ICMPv6Filter
	for i := range filter.Data {
		filter.Data[i] = ^uint32(0) // block
	}
	filter.Data[133/32] &^= 1 << (133 % 32)
	set := func(level, option, value int) { err = errors.Join(err, unix.SetsockoptInt(fd, level, option, value)) }
	err = errors.Join(unix.SetsockoptICMPv6Filter(fd, unix.IPPROTO_ICMPV6, unix.ICMPV6_FILTER, &filter),
		unix.SetsockoptString(fd, unix.SOL_SOCKET, unix.SO_BINDTODEVICE, ifi.Name),
		unix.SetsockoptIPv6Mreq(fd, unix.IPPROTO_IPV6, unix.IPV6_JOIN_GROUP, &unix.IPv6Mreq{Multiaddr: allRouters.As16(), Interface: uint32(ifi.Index)}))
	set(unix.IPPROTO_IPV6, unix.IPV6_RECVHOPLIMIT, 1)
	set(unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_HOPS, 255)
	set(unix.IPPROTO_IPV6, unix.IPV6_UNICAST_HOPS, 255)
	set(unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_IF, ifi.Index)
	set(unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_LOOP, 0)
	if err != nil {
		unix.Close(fd)
		return nil, nil, sockError("a socket for router advertisements", err)
	}
	p, err := newRawSocket(fd, ifi.Index)
	if err != nil {
		return nil, nil, err
	}
	go s.advertise(ctx, p)
	return func() error { return s.answerSolicits(p) }, p.close, nil
}

// advertise sends to everybody: three times soon, and then between 200 and 600
// seconds after the last one.
func (s *Server) advertise(ctx context.Context, p *rawSocket) {
	for n := 0; ; n++ {
		wait := minAdvert + rand.N(maxAdvert-minAdvert)
		if n < firstAdverts {
			wait = firstInterval
		}
		if err := p.send(allNodes, appendAdvert(nil, &s.cfg, s.linkAddress())); err != nil {
			// The bridge has no link-local address until something is plugged in.
			wait = time.Second
		} else {
			s.countAdvert()
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}

// linkAddress is the link-layer address of the interface as it is now.
func (s *Server) linkAddress() MAC {
	if ifi, err := net.InterfaceByName(s.cfg.Interface); err == nil && len(ifi.HardwareAddr) == 6 {
		return MAC(ifi.HardwareAddr)
	}
	return s.own
}

func (s *Server) countAdvert() {
	s.mu.Lock()
	s.counters.Adverts++
	s.mu.Unlock()
}

// answerSolicits answers each who asks, and those without an address with one
// advertisement for all of them every three seconds (RFC 4861, 6.2.6).
func (s *Server) answerSolicits(p *rawSocket) error {
	each := rate.New[netip.Addr](1, 3, 1024)
	everyone := rate.New[bool](1.0/3, 1, 1)
	buf := make([]byte, 1500)
	for {
		b, from, hops, err := p.receive(buf)
		if err != nil {
			return err
		}
		now := s.now()
		if perr := parseSolicit(b, hops, from); perr != nil {
			s.mu.Lock()
			s.counters.Malformed++
			s.mu.Unlock()
			continue
		}
		to := from
		if !from.IsLinkLocalUnicast() {
			to = allNodes
			if !everyone.Allow(true, now) {
				continue
			}
		} else if !each.Allow(from, now) {
			continue
		}
		if p.send(to, appendAdvert(nil, &s.cfg, s.linkAddress())) == nil {
			s.countAdvert()
		}
	}
}
