package dhcp

import (
	"encoding/binary"
	"net/netip"
)

// The part of DHCPv6 (RFC 8415) that a server of one link needs: messages of
// clients, options by their numbers. What is in options that are not asked for
// is not looked at.
const (
	serverPort6 = 547
	clientPort6 = 546

	solicit6   = 1
	advertise6 = 2
	request6   = 3
	confirm6   = 4
	renew6     = 5
	rebind6    = 6
	reply6     = 7
	release6   = 8
	decline6   = 9
	inform6    = 11

	optClientID  = 1
	optServerID  = 2
	optIANA      = 3
	optIATA      = 4
	optIAAddr    = 5
	optRequested = 6
	optStatus    = 13
	optRapid     = 14
	optDNS6      = 23
	optSearch6   = 24
	optRefresh   = 32
	optFQDN6     = 39
	optNTP6      = 56

	statusSuccess   = 0
	statusNoAddrs   = 2
	statusNoBinding = 3
	statusNotOnLink = 4

	maxOptions6 = 64
	maxIAs      = 4   // of one client in one message
	maxDUID     = 130 // RFC 8415, 11.1
)

// option6 is an option of DHCPv6.
type option6 struct {
	code  uint16
	value []byte
}

// message6 is a message of DHCPv6 without a relay.
type message6 struct {
	kind    byte
	xid     [3]byte
	options []option6
}

// parseMessage6 reads a message of a client. The values lie in b.
func parseMessage6(b []byte) (*message6, error) {
	if len(b) < 4 {
		return nil, &PacketError{len(b), "too short"}
	}
	m := &message6{kind: b[0], xid: [3]byte(b[1:4])}
	switch m.kind {
	case solicit6, request6, confirm6, renew6, rebind6, release6, decline6, inform6:
	default:
		return nil, &PacketError{0, "no message of a client"}
	}
	var err error
	m.options, err = parseOptions6(b[4:], 4)
	if err != nil {
		return nil, err
	}
	if id := m.get(optClientID); len(id) > maxDUID || id == nil && m.kind != inform6 || id != nil && len(id) < 3 {
		return nil, &PacketError{4, "no client identifier in order"}
	}
	return m, nil
}

func parseOptions6(b []byte, at int) ([]option6, error) {
	var list []option6
	for len(b) > 0 {
		if len(b) < 4 || int(binary.BigEndian.Uint16(b[2:])) > len(b)-4 {
			return nil, &PacketError{at, "an option that does not end"}
		}
		if len(list) == maxOptions6 {
			return nil, &PacketError{at, "too many options"}
		}
		n := 4 + int(binary.BigEndian.Uint16(b[2:]))
		list = append(list, option6{binary.BigEndian.Uint16(b), b[4:n:n]})
		b, at = b[n:], at+n
	}
	return list, nil
}

// get returns the value of the first option of a number, nil when there is none.
func (m *message6) get(code uint16) []byte {
	for _, o := range m.options {
		if o.code == code {
			return o.value
		}
	}
	return nil
}

func (m *message6) has(code uint16) bool {
	for _, o := range m.options {
		if o.code == code {
			return true
		}
	}
	return false
}

// asks reports whether the client wants an option.
func (m *message6) asks(code uint16) bool {
	for b := m.get(optRequested); len(b) >= 2; b = b[2:] {
		if binary.BigEndian.Uint16(b) == code {
			return true
		}
	}
	return false
}

// association is an IA_NA: an interface of the client, and addresses that it
// has or would like to have.
type association struct {
	id        [4]byte
	addresses []netip.Addr
}

// associations returns the IA_NAs of a message that are in order.
func (m *message6) associations() []association {
	var list []association
	for _, o := range m.options {
		if o.code != optIANA || len(o.value) < 12 || len(list) == maxIAs {
			continue
		}
		ia := association{id: [4]byte(o.value)}
		inner, err := parseOptions6(o.value[12:], 0)
		if err != nil {
			continue
		}
		for _, in := range inner {
			if in.code == optIAAddr && len(in.value) >= 24 && len(ia.addresses) < maxIAs {
				ia.addresses = append(ia.addresses, netip.AddrFrom16([16]byte(in.value)))
			}
		}
		list = append(list, ia)
	}
	return list
}

// name is the first label of the name that the client calls itself (RFC 4704).
func (m *message6) name() string {
	b := m.get(optFQDN6)
	if len(b) < 3 || b[1] == 0 || int(b[1]) > 63 || 2+int(b[1]) > len(b) {
		return ""
	}
	return cleanName(string(b[2 : 2+int(b[1])]))
}

func appendOption6(b []byte, code uint16, value []byte) []byte {
	b = binary.BigEndian.AppendUint16(b, code)
	b = binary.BigEndian.AppendUint16(b, uint16(len(value)))
	return append(b, value...)
}

func appendStatus6(b []byte, status uint16, text string) []byte {
	return appendOption6(b, optStatus, append(binary.BigEndian.AppendUint16(nil, status), text...))
}

// parseUDP6 takes an IPv6 packet apart that is a datagram for a port, without
// extension headers.
func parseUDP6(b []byte, port uint16, sums bool) (src, dst netip.Addr, payload []byte, err error) {
	if len(b) < 48 || b[0]>>4 != 6 || b[6] != 17 {
		return src, dst, nil, &PacketError{0, "no datagram of IPv6"}
	}
	n := int(binary.BigEndian.Uint16(b[4:]))
	if n < 8 || n > len(b)-40 {
		return src, dst, nil, &PacketError{4, "lengths do not fit"}
	}
	udp := b[40 : 40+n]
	if int(binary.BigEndian.Uint16(udp[4:])) != n || binary.BigEndian.Uint16(udp[2:]) != port {
		return src, dst, nil, &PacketError{42, "another port, or lengths do not fit"}
	}
	if sums && checksum(udp, pseudo(b[8:40], n)) != 0 {
		return src, dst, nil, &PacketError{46, "the checksum does not fit"}
	}
	return netip.AddrFrom16([16]byte(b[8:])), netip.AddrFrom16([16]byte(b[24:])), udp[8:], nil
}

// appendUDP6 appends an IPv6 packet with a datagram.
func appendUDP6(b []byte, src, dst netip.AddrPort, payload []byte) []byte {
	at := len(b)
	b = append(b, make([]byte, 48)...)
	b = append(b, payload...)
	p := b[at:]
	p[0] = 0x60
	n := len(p) - 40
	binary.BigEndian.PutUint16(p[4:], uint16(n))
	p[6], p[7] = 17, 64
	s, d := src.Addr().As16(), dst.Addr().As16()
	copy(p[8:], s[:])
	copy(p[24:], d[:])
	udp := p[40:]
	binary.BigEndian.PutUint16(udp, src.Port())
	binary.BigEndian.PutUint16(udp[2:], dst.Port())
	binary.BigEndian.PutUint16(udp[4:], uint16(n))
	sum := checksum(udp, pseudo(p[8:40], n))
	if sum == 0 {
		sum = 0xffff
	}
	binary.BigEndian.PutUint16(udp[6:], sum)
	return b
}
