package dhcp

import (
	"encoding/binary"
	"fmt"
	"net/netip"
)

const (
	serverPort  = 67
	clientPort  = 68
	maxDatagram = 1500 - 28 // bytes of a request that are looked at
)

// PacketError is why a packet was not understood.
type PacketError struct {
	Offset int // bytes from its beginning
	Reason string
}

// Error implements error.
func (e *PacketError) Error() string { return fmt.Sprintf("byte %d: %s", e.Offset, e.Reason) }

// parseUDP takes an IPv4 packet apart that is a datagram for a port, whole and
// not a fragment. Sums tells whether checksums are filled in: the kernel leaves
// that to the hardware, which a packet between virtual interfaces never meets.
func parseUDP(b []byte, port uint16, sums bool) (src, dst netip.AddrPort, payload []byte, err error) {
	fail := func(at int, reason string) (netip.AddrPort, netip.AddrPort, []byte, error) {
		return src, dst, nil, &PacketError{at, reason}
	}
	if len(b) < 20 || b[0]>>4 != 4 {
		return fail(0, "no IPv4 header")
	}
	head := int(b[0]&15) * 4
	total := int(binary.BigEndian.Uint16(b[2:]))
	switch {
	case head < 20 || total < head+8 || total > len(b):
		return fail(2, "lengths do not fit")
	case checksum(b[:head], 0) != 0:
		return fail(10, "the checksum of the header does not fit")
	case binary.BigEndian.Uint16(b[6:])&0x3fff != 0:
		return fail(6, "a fragment")
	case b[9] != 17:
		return fail(9, "not UDP")
	}
	udp := b[head:total]
	n := int(binary.BigEndian.Uint16(udp[4:]))
	if n < 8 || n > len(udp) {
		return fail(head+4, "the length of the datagram does not fit")
	}
	udp = udp[:n]
	if got := binary.BigEndian.Uint16(udp[2:]); got != port {
		return fail(head+2, "another port")
	}
	if sums && (udp[6] != 0 || udp[7] != 0) && checksum(udp, pseudo(b[12:20], n)) != 0 {
		return fail(head+6, "the checksum does not fit")
	}
	src = netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[12:])), binary.BigEndian.Uint16(udp))
	dst = netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[16:])), port)
	return src, dst, udp[8:], nil
}

// pseudo is the sum of the pseudo header of a datagram: both addresses, the
// protocol and the length.
func pseudo(addrs []byte, n int) uint32 {
	sum := uint32(17) + uint32(n)
	for i := 0; i+1 < len(addrs); i += 2 {
		sum += uint32(addrs[i])<<8 | uint32(addrs[i+1])
	}
	return sum
}

// checksum is that of RFC 1071 over b; 0 when b contains a right one.
func checksum(b []byte, sum uint32) uint16 {
	for ; len(b) >= 2; b = b[2:] {
		sum += uint32(b[0])<<8 | uint32(b[1])
	}
	if len(b) == 1 {
		sum += uint32(b[0]) << 8
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// appendUDP appends an IPv4 packet with a datagram.
func appendUDP(b []byte, src, dst netip.AddrPort, payload []byte) []byte {
	at := len(b)
	b = append(b, make([]byte, 28)...)
	b = append(b, payload...)
	p := b[at:]
	p[0] = 0x45
	p[1] = 0x10 // low delay, as DHCP servers do
	binary.BigEndian.PutUint16(p[2:], uint16(len(p)))
	p[8], p[9] = 64, 17
	s, d := src.Addr().As4(), dst.Addr().As4()
	copy(p[12:], s[:])
	copy(p[16:], d[:])
	binary.BigEndian.PutUint16(p[10:], checksum(p[:20], 0))
	udp := p[20:]
	binary.BigEndian.PutUint16(udp, src.Port())
	binary.BigEndian.PutUint16(udp[2:], dst.Port())
	binary.BigEndian.PutUint16(udp[4:], uint16(len(udp)))
	sum := checksum(udp, pseudo(p[12:20], len(udp)))
	if sum == 0 {
		sum = 0xffff
	}
	binary.BigEndian.PutUint16(udp[6:], sum)
	return b
}

const arpSize = 28

// appendProbe appends an ARP probe (RFC 5227): it asks who has an address
// without saying that the asker had any.
func appendProbe(b []byte, own MAC, target netip.Addr) []byte {
	b = append(b, 0, 1, 8, 0, 6, 4, 0, 1)
	b = append(b, own[:]...)
	b = append(b, 0, 0, 0, 0)
	b = append(b, 0, 0, 0, 0, 0, 0)
	a := target.As4()
	return append(b, a[:]...)
}

// parseARP returns who says to have which address, in a request or an answer.
func parseARP(b []byte) (mac MAC, addr netip.Addr, err error) {
	if len(b) < arpSize {
		return mac, addr, &PacketError{len(b), "too short for ARP"}
	}
	if [6]byte(b) != [6]byte{0, 1, 8, 0, 6, 4} || b[6] != 0 || b[7] != 1 && b[7] != 2 {
		return mac, addr, &PacketError{0, "not ARP for IPv4 on Ethernet"}
	}
	return MAC(b[8:14]), netip.AddrFrom4([4]byte(b[14:18])), nil
}
