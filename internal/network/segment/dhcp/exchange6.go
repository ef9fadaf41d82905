package dhcp

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"net"
	"net/netip"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

var allServers = netip.MustParseAddr("ff02::1:2")

func (s *Server) start6(ctx context.Context, ifi *net.Interface) (loop func() error, stop func(), err error) {
	held, err := holdPort(ctx, "udp6", ifi.Name, serverPort6)
	if err != nil {
		return nil, nil, err
	}
	raw, err := held.(*net.UDPConn).SyscallConn()
	if err == nil {
		err = joinGroup(raw, allServers, ifi.Index)
	}
	if err != nil {
		held.Close()
		return nil, nil, err
	}
	p, err := listenPackets(ifi.Index, unix.ETH_P_IPV6, filter6)
	if err != nil {
		held.Close()
		return nil, nil, err
	}
	s.pack6 = p
	stop = func() { p.close(); held.Close() }
	return func() error { return s.serve(p, s.handle6) }, stop, nil
}

func joinGroup(c syscall.RawConn, group netip.Addr, ifindex int) error {
	var serr error
	err := c.Control(func(fd uintptr) {
		serr = unix.SetsockoptIPv6Mreq(int(fd), unix.IPPROTO_IPV6, unix.IPV6_JOIN_GROUP, &unix.IPv6Mreq{Multiaddr: group.As16(), Interface: uint32(ifindex)})
	})
	return errors.Join(err, serr)
}

// duid is the server's identifier: its link-layer address (RFC 8415, 11.4).
func (s *Server) duid() []byte { return append([]byte{0, 3, 0, 1}, s.own[:]...) }

// linkLocal is an address of the interface from which replies come. The client
// does not look at it; one of this form the kernel makes of the MAC address.
func (s *Server) linkLocal() netip.Addr {
	m := s.own
	return netip.AddrFrom16([16]byte{0xfe, 0x80, 8: m[0] ^ 2, m[1], m[2], 0xff, 0xfe, m[3], m[4], m[5]})
}

// handle6 answers one packet. The caller holds mu.
func (s *Server) handle6(p packet, now time.Time) (answer, bool) {
	port, ok := s.allowed(p.from, now)
	if !ok {
		return answer{}, false
	}
	src, dst, payload, err := parseUDP6(p.data, serverPort6, p.sums)
	if err != nil {
		s.counters.Malformed++
		return answer{}, false
	}
	m, err := parseMessage6(payload)
	if err != nil {
		s.counters.Malformed++
		return answer{}, false
	}
	s.counters.Received++
	if !src.IsLinkLocalUnicast() || dst != allServers {
		return answer{}, false // RFC 8415, 18.4: multicast, from the link
	}
	server := m.get(optServerID)
	switch m.kind {
	case solicit6, confirm6, rebind6:
		if m.has(optServerID) {
			return answer{}, false
		}
	case request6, renew6, release6, decline6:
		if string(server) != string(s.duid()) {
			return answer{}, false
		}
	case inform6:
		if m.has(optServerID) && string(server) != string(s.duid()) || m.has(optIANA) || m.has(optIATA) {
			return answer{}, false
		}
	}
	s.v6.expire(now)
	x := &exchange6{Server: s, m: m, now: now, request: request{mac: p.from, port: port}}
	x.name = s.nameFor(x.mac, m.name(), now)
	body, ok := x.reply()
	if !ok {
		return answer{}, false
	}
	return answer{p.from, appendUDP6(nil, netip.AddrPortFrom(s.linkLocal(), serverPort6), netip.AddrPortFrom(src, clientPort6), body)}, true
}

// exchange6 is a message of DHCPv6 that is being answered (RFC 8415, 18.3).
type exchange6 struct {
	*Server
	request
	m   *message6
	now time.Time
}

// managed reports whether addresses are given out at all.
func (x *exchange6) managed() bool { return x.cfg.Pool6.First.IsValid() || len(x.v6.reserved) > 0 }

func (x *exchange6) reply() ([]byte, bool) {
	kind := byte(reply6)
	if x.m.kind == solicit6 && !x.m.has(optRapid) {
		kind = advertise6
	}
	if x.m.kind != inform6 && !x.managed() {
		return nil, false
	}
	b := append([]byte{kind}, x.m.xid[:]...)
	if id := x.m.get(optClientID); id != nil {
		b = appendOption6(b, optClientID, id)
	}
	b = appendOption6(b, optServerID, x.duid())
	switch x.m.kind {
	case solicit6:
		if kind == reply6 {
			b = appendOption6(b, optRapid, nil)
		}
		var given int
		b, given = x.assign(b, kind == reply6)
		if given == 0 {
			if kind == reply6 {
				return nil, false
			}
			// RFC 8415, 18.3.9: nothing but why.
			b = append([]byte{kind}, x.m.xid[:]...)
			b = appendOption6(b, optClientID, x.m.get(optClientID))
			b = appendOption6(b, optServerID, x.duid())
			return appendStatus6(b, statusNoAddrs, "no address is free"), true
		}
	case request6, renew6, rebind6:
		b, _ = x.assign(b, true)
	case confirm6:
		return x.confirm(b)
	case release6, decline6:
		x.giveUp()
		return appendStatus6(b, statusSuccess, ""), true
	}
	if kind == advertise6 {
		x.counters.Offers++
	} else {
		x.counters.Acks++
	}
	return x.configuration(b), true
}

// configuration appends what the client needs beside addresses.
func (x *exchange6) configuration(b []byte) []byte {
	join := func(list []netip.Addr) (b []byte) {
		for _, a := range list {
			if a.Is6() && len(b) < 4*16 {
				b = append(b, a.AsSlice()...)
			}
		}
		return b
	}
	if dns := join(x.cfg.DNS); len(dns) > 0 && x.m.asks(optDNS6) {
		b = appendOption6(b, optDNS6, dns)
	}
	if list := searchList(&x.cfg); len(list) > 0 && x.m.asks(optSearch6) {
		b = appendOption6(b, optSearch6, list)
	}
	if ntp := join(x.cfg.NTP); len(ntp) > 0 && x.m.asks(optNTP6) {
		var value []byte
		for ; len(ntp) >= 16; ntp = ntp[16:] {
			value = appendOption6(value, 1, ntp[:16])
		}
		b = appendOption6(b, optNTP6, value)
	}
	if x.m.kind == inform6 && x.m.asks(optRefresh) {
		b = appendOption6(b, optRefresh, binary.BigEndian.AppendUint32(nil, uint32(max(x.cfg.Lease, 10*time.Minute)/time.Second)))
	}
	return b
}

// key names the client's interface.
func (x *exchange6) key(ia association) string {
	return hex.EncodeToString(x.m.get(optClientID)) + "/" + hex.EncodeToString(ia.id[:])
}

// assign appends an IA_NA for each that the client has, with an address where
// there is one for it.
func (x *exchange6) assign(b []byte, bind bool) ([]byte, int) {
	given := 0
	for _, ia := range x.m.associations() {
		x.client = x.key(ia)
		x.wish = netip.Addr{}
		if len(ia.addresses) > 0 {
			x.wish = ia.addresses[0]
		}
		mine := x.v6.byClient[x.client]
		value := append([]byte{}, ia.id[:]...)
		value = binary.BigEndian.AppendUint32(value, uint32(x.cfg.Lease/2/time.Second))
		value = binary.BigEndian.AppendUint32(value, uint32(x.cfg.Lease*7/8/time.Second))
		addr, status := x.address(mine)
		if !addr.IsValid() {
			if x.m.kind == rebind6 && mine == nil && !slices.ContainsFunc(ia.addresses, x.offLink) {
				continue // of another server, perhaps
			}
			clear(value[4:])
			for _, a := range ia.addresses { // take them away
				value = appendAddress6(value, a, 0)
			}
			text := map[uint16]string{statusNoAddrs: "no address is free", statusNoBinding: "there is no such lease"}[status]
			b = appendOption6(b, optIANA, appendStatus6(value, status, text))
			continue
		}
		given++
		if bind {
			x.bound(x.v6.hold(addr, &x.request, Bound, x.now, x.now.Add(x.cfg.Lease)))
		} else if l := x.v6.byAddr[addr]; l == nil || !l.active(x.now) || l.Client != x.client {
			x.v6.hold(addr, &x.request, Offered, x.now, x.now.Add(offerTime))
		}
		value = appendAddress6(value, addr, x.cfg.Lease)
		for _, a := range ia.addresses {
			if a != addr {
				value = appendAddress6(value, a, 0)
			}
		}
		b = appendOption6(b, optIANA, value)
	}
	return b, given
}

// address decides which address an association has, or why it has none.
func (x *exchange6) address(mine *Lease) (netip.Addr, uint16) {
	if x.m.kind == renew6 || x.m.kind == rebind6 {
		// One that was forgotten is given again when it is free.
		if !x.wish.IsValid() || !x.v6.available(x.wish, &x.request) || mine == nil && !x.v6.within(&x.request) {
			return netip.Addr{}, statusNoBinding
		}
		return x.wish, statusSuccess
	}
	addr, _, err := x.v6.choose(&x.request, x.now)
	switch {
	case errors.Is(err, errExhausted):
		x.counters.Exhausted++
		return netip.Addr{}, statusNoAddrs
	case err != nil:
		x.counters.Limited++
		return netip.Addr{}, statusNoAddrs
	}
	return addr, statusSuccess
}

func appendAddress6(b []byte, a netip.Addr, lease time.Duration) []byte {
	v := a.AsSlice()
	v = binary.BigEndian.AppendUint32(v, uint32(lease/time.Second))
	v = binary.BigEndian.AppendUint32(v, uint32(lease/time.Second))
	return appendOption6(b, optIAAddr, v)
}

// offLink reports whether an address is of no network of the zone.
func (x *exchange6) offLink(a netip.Addr) bool {
	return !slices.ContainsFunc(x.cfg.Gateway6, func(p netip.Prefix) bool { return p.Masked().Contains(a) })
}

// confirm tells a client that has moved whether its addresses still fit.
func (x *exchange6) confirm(b []byte) ([]byte, bool) {
	n := 0
	for _, ia := range x.m.associations() {
		for _, a := range ia.addresses {
			n++
			if x.offLink(a) {
				x.counters.Naks++
				return appendStatus6(b, statusNotOnLink, "of another link"), true
			}
		}
	}
	x.counters.Acks++
	return appendStatus6(b, statusSuccess, ""), n > 0
}

// giveUp ends leases that the client releases, or that it found to be taken.
func (x *exchange6) giveUp() {
	for _, ia := range x.m.associations() {
		for _, a := range ia.addresses {
			l := x.v6.byAddr[a]
			if l == nil || l.Client != x.key(ia) || l.MAC != x.mac || !l.active(x.now) {
				continue
			}
			if x.m.kind == release6 {
				x.counters.Releases++
				x.v6.release(l, x.now)
				continue
			}
			x.counters.Declines++
			x.v6.decline(a, x.mac, x.port, x.now)
			x.notice("DHCP on %s: %s says that somebody else uses %s", x.cfg.Interface, x.mac, a)
		}
	}
}
