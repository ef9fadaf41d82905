package nft

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Value is what a field can be compared with.
type Value struct {
	text string // "": that of the address in data
	data []byte
}

// String writes the value as nft(8) does.
func (v Value) String() string {
	if v.text == "" {
		a, _ := netip.AddrFromSlice(v.data)
		return a.String()
	}
	return v.text
}

// Num8, Num16 and Num32 are numbers of that many bits, in network byte order.
func Num8(v uint8) Value { return Value{itoa(int(v)), []byte{v}} }

// Num16 is a number of 16 bits in network byte order, such as a port.
func Num16(v uint16) Value {
	return Value{itoa(int(v)), binary.BigEndian.AppendUint16(nil, v)}
}

// Host32 is a number of 32 bits in this machine's byte order: a mark, a user
// or a length.
func Host32(v uint32) Value {
	return Value{strconv.FormatUint(uint64(v), 10), binary.NativeEndian.AppendUint32(nil, v)}
}

// Cgroup is a control group of version 2: its path below the mount, by which
// nft(8) names it, and the inode of its directory, by which the kernel does.
func Cgroup(path string, inode uint64) Value {
	return Value{strconv.Quote(strings.TrimPrefix(path, "/")), binary.NativeEndian.AppendUint64(nil, inode)}
}

// Addr is an address of IPv4 or IPv6.
func Addr(a netip.Addr) Value { return Value{data: a.Unmap().AsSlice()} }

// MAC is an Ethernet address.
func MAC(a net.HardwareAddr) Value { return Value{a.String(), a} }

// Ether is an Ethernet type, such as unix.ETH_P_IP.
func Ether(typ uint16) Value {
	text := fmt.Sprintf("%#04x", typ)
	switch typ {
	case unix.ETH_P_IP:
		text = "ip"
	case unix.ETH_P_IPV6:
		text = "ip6"
	case unix.ETH_P_ARP:
		text = "arp"
	case unix.ETH_P_8021Q:
		text = "8021q"
	}
	return Value{text, binary.BigEndian.AppendUint16(nil, typ)}
}

// Proto is a protocol above IP, such as unix.IPPROTO_TCP.
func Proto(p uint8) Value {
	text := itoa(int(p))
	switch p {
	case unix.IPPROTO_TCP:
		text = "tcp"
	case unix.IPPROTO_UDP:
		text = "udp"
	case unix.IPPROTO_ICMP:
		text = "icmp"
	case unix.IPPROTO_ICMPV6:
		text = "ipv6-icmp"
	}
	return Value{text, []byte{p}}
}

// IPVersion is what NFProto is for packets of IPv4, or of IPv6.
func IPVersion(six bool) Value {
	if six {
		return Value{"ipv6", []byte{unix.NFPROTO_IPV6}}
	}
	return Value{"ipv4", []byte{unix.NFPROTO_IPV4}}
}

// Interface is the name of an interface; a * at its end stands for anything.
func Interface(name string) Value {
	if prefix, ok := strings.CutSuffix(name, "*"); ok {
		return Value{strconv.Quote(name), []byte(prefix)}
	}
	data := make([]byte, unix.IFNAMSIZ)
	copy(data, name)
	return Value{strconv.Quote(name), data}
}

// OtherHost is the kind of packets to somebody else's MAC address: of PacketKind.
func OtherHost() Value { return Value{text: "other", data: []byte{unix.PACKET_OTHERHOST}} }

// Local is the kind of an address of this host: Is(DestinationKind, Local()).
func Local() Value {
	return Value{"local", binary.NativeEndian.AppendUint32(nil, unix.RTN_LOCAL)}
}
