package lab

import (
	"encoding/binary"
	"net"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"
)

// Ethernet is a frame.
func Ethernet(to, from net.HardwareAddr, protocol uint16, payload []byte) []byte {
	return slices.Concat(to, from, be16(protocol), payload)
}

// VLAN puts a tag (IEEE 802.1Q) into a frame.
func VLAN(id uint16, frame []byte) []byte {
	return slices.Concat(frame[:12], be16(unix.ETH_P_8021Q), be16(id), frame[12:])
}

// Broadcast is the address of every NIC.
var Broadcast = net.HardwareAddr{255, 255, 255, 255, 255, 255}

// Datagram is a packet, IPv4 or IPv6, with UDP in it.
func Datagram(from, to netip.AddrPort, payload []byte) []byte {
	udp := slices.Concat(be16(from.Port()), be16(to.Port()), be16(uint16(8+len(payload))), be16(0), payload)
	return Packet(from.Addr(), to.Addr(), unix.IPPROTO_UDP, 64, udp)
}

// Packet is a packet, IPv4 or IPv6 by its addresses. The checksum of what is
// inside is put in where that is UDP or ICMPv6, and limit is its time to live,
// or hop limit.
func Packet(from, to netip.Addr, protocol byte, limit byte, payload []byte) []byte {
	payload = slices.Clone(payload)
	pseudo := slices.Concat(from.AsSlice(), to.AsSlice(), be16(0), be16(uint16(len(payload))), []byte{0, 0, 0, protocol}, payload)
	switch protocol {
	case unix.IPPROTO_UDP:
		binary.BigEndian.PutUint16(payload[6:], Checksum(pseudo))
	case unix.IPPROTO_ICMPV6:
		binary.BigEndian.PutUint16(payload[2:], Checksum(pseudo))
	}
	if from.Is6() {
		return slices.Concat([]byte{0x60, 0, 0, 0}, be16(uint16(len(payload))), []byte{protocol, limit}, from.AsSlice(), to.AsSlice(), payload)
	}
	head := slices.Concat([]byte{0x45, 0}, be16(uint16(20+len(payload))), []byte{0, 0, 0x40, 0, limit, protocol, 0, 0}, from.AsSlice(), to.AsSlice())
	binary.BigEndian.PutUint16(head[10:], Checksum(head))
	return append(head, payload...)
}

// Operations of ARP (RFC 826).
const (
	ARPRequest = 1
	ARPReply   = 2
)

// ARP is the payload of a frame of unix.ETH_P_ARP. What follows it, in padding,
// is nobody's business.
func ARP(operation uint16, senderMAC net.HardwareAddr, sender netip.Addr, targetMAC net.HardwareAddr, target netip.Addr) []byte {
	return slices.Concat([]byte{0, 1, 8, 0, 6, 4}, be16(operation), senderMAC, sender.AsSlice(), targetMAC, target.AsSlice())
}

// Types of neighbour discovery (RFC 4861).
const (
	RouterSolicitation    = 133
	RouterAdvertisement   = 134
	NeighborSolicitation  = 135
	NeighborAdvertisement = 136
)

// NeighborSolicit asks for the link-layer address of target. A limit other
// than 255 means that it has come through a router, and it must be refused.
func NeighborSolicit(from, to, target netip.Addr, mac net.HardwareAddr, limit byte) []byte {
	return Packet(from, to, unix.IPPROTO_ICMPV6, limit, slices.Concat([]byte{NeighborSolicitation, 0, 0, 0, 0, 0, 0, 0}, target.AsSlice(), []byte{1, 1}, mac))
}

// NeighborAdvert says, as a solicited answer that overrides what was known,
// that target is at mac.
func NeighborAdvert(from, to, target netip.Addr, mac net.HardwareAddr, limit byte) []byte {
	return Packet(from, to, unix.IPPROTO_ICMPV6, limit, slices.Concat([]byte{NeighborAdvertisement, 0, 0, 0, 0x60, 0, 0, 0}, target.AsSlice(), []byte{2, 1}, mac))
}

// RouterAdvert says that its sender is a default router for some seconds, and
// that addresses of a prefix of 64 bits are to be had for half an hour.
func RouterAdvert(from netip.Addr, mac net.HardwareAddr, prefix netip.Addr, seconds uint16) []byte {
	const lifetime = 1800
	return Packet(from, netip.MustParseAddr("ff02::1"), unix.IPPROTO_ICMPV6, 255, slices.Concat(
		[]byte{RouterAdvertisement, 0, 0, 0, 64, 0}, be16(seconds), make([]byte, 8),
		[]byte{1, 1}, mac,
		[]byte{3, 4, 64, 0xc0}, be32(lifetime), be32(lifetime), make([]byte, 4), prefix.AsSlice()))
}

// LinkLocal is the address that a NIC makes of its own (EUI-64).
func LinkLocal(mac net.HardwareAddr) netip.Addr {
	return netip.AddrFrom16([16]byte{0xfe, 0x80, 8: mac[0] ^ 2, 9: mac[1], 10: mac[2], 11: 0xff, 12: 0xfe, 13: mac[3], 14: mac[4], 15: mac[5]})
}

func be16(v uint16) []byte { return binary.BigEndian.AppendUint16(nil, v) }

func be32(v uint32) []byte { return binary.BigEndian.AppendUint32(nil, v) }
