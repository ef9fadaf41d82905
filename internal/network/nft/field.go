package nft

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// Type is the type of what a set holds or a field has.
type Type struct {
	Name      string // in nft(8)
	id        uint32 // in nft's user data: enum datatypes
	size      int    // bytes
	hostOrder bool   // a number in this machine's byte order
}

// Types of keys of sets.
var (
	IPv4Addr  = Type{"ipv4_addr", 7, 4, false}
	IPv6Addr  = Type{"ipv6_addr", 8, 16, false}
	EtherAddr = Type{"ether_addr", 9, 6, false}
	EtherType = Type{"ether_type", 10, 2, false}
	INetProto = Type{"inet_proto", 12, 1, false}
	Service   = Type{"inet_service", 13, 2, false} // a port
	Mark      = Type{"mark", 19, 4, true}
	UID       = Type{"uid", 24, 4, true}
	IfName    = Type{"ifname", 41, 16, true}
	CgroupV2  = Type{"cgroupsv2", 46, 8, true} // the inode of the directory in the cgroup file system
	integer   = Type{"integer", 4, 0, false}
)

// Size is the length of a value in bytes.
func (t Type) Size() int { return t.size }

// source is where a field is loaded from.
type source uint8

const (
	fromPayload source = iota
	fromMeta
	fromConntrack
	fromFIB
	fromSocket
)

// layer is what must be known of a packet before a field of it means anything.
type layer uint8

const (
	anyPacket layer = iota
	ofEthernet
	ofIPv4
	ofIPv6
	ofARP
	ofTCP
	ofUDP
	ofICMP
	ofICMPv6
)

// Field is something of a packet that rules look at. A field of a protocol
// matches packets of that protocol alone.
type Field struct {
	text   string
	typ    Type
	size   int // bytes, when it isn't that of the type
	of     layer
	from   source
	base   uint32 // of the payload, or the key of meta and ct
	offset uint32 // in the payload, in bytes; the level of a cgroup
}

func (f *Field) bytes() int {
	if f.size != 0 {
		return f.size
	}
	return f.typ.size
}

// Headers of packets.
const (
	link      = unix.NFT_PAYLOAD_LL_HEADER
	network   = unix.NFT_PAYLOAD_NETWORK_HEADER
	transport = unix.NFT_PAYLOAD_TRANSPORT_HEADER
)

// Fields of packets, by the names that nft(8) gives them.
var (
	// The type in the Ethernet header itself, which Protocol need not be: a
	// program that sends raw frames says what it likes. nft's own "ether type"
	// would look at the input interface, which a chain at egress has none of.
	EtherTypeOf     = Field{text: "@ll,96,16", typ: EtherType, base: link, offset: 12}
	EtherSaddr      = Field{text: "ether saddr", typ: EtherAddr, of: ofEthernet, base: link, offset: 6} // nowhere at egress: see above
	EtherDaddr      = Field{text: "ether daddr", typ: EtherAddr, of: ofEthernet, base: link, offset: 0}
	FrameType       = Field{text: "ether type", typ: EtherType, of: ofEthernet, base: link, offset: 12} // EtherTypeOf where there is an input interface
	ARPSaddrEther   = Field{text: "arp saddr ether", typ: EtherAddr, of: ofARP, base: network, offset: 8}
	ARPOp           = Field{text: "arp operation", typ: integer, size: 2, of: ofARP, base: network, offset: 6}
	ARPSaddrIP      = Field{text: "arp saddr ip", typ: IPv4Addr, of: ofARP, base: network, offset: 14}
	ARPDaddrIP      = Field{text: "arp daddr ip", typ: IPv4Addr, of: ofARP, base: network, offset: 24}
	IPv4Saddr       = Field{text: "ip saddr", typ: IPv4Addr, of: ofIPv4, base: network, offset: 12}
	IPv4Daddr       = Field{text: "ip daddr", typ: IPv4Addr, of: ofIPv4, base: network, offset: 16}
	IPv4FragOff     = Field{text: "ip frag-off", typ: integer, size: 2, of: ofIPv4, base: network, offset: 6}
	IPv6Saddr       = Field{text: "ip6 saddr", typ: IPv6Addr, of: ofIPv6, base: network, offset: 8}
	IPv6Daddr       = Field{text: "ip6 daddr", typ: IPv6Addr, of: ofIPv6, base: network, offset: 24}
	IPv6Length      = Field{text: "ip6 length", typ: integer, size: 2, of: ofIPv6, base: network, offset: 4}
	IPv6NextHeader  = Field{text: "ip6 nexthdr", typ: INetProto, of: ofIPv6, base: network, offset: 6}
	IPv6HopLimit    = Field{text: "ip6 hoplimit", typ: integer, size: 1, of: ofIPv6, base: network, offset: 7}
	ICMPType        = Field{text: "icmp type", typ: integer, size: 1, of: ofICMP, base: transport, offset: 0}
	ICMPCode        = Field{text: "icmp code", typ: integer, size: 1, of: ofICMP, base: transport, offset: 1}
	ICMPv6Type      = Field{text: "icmpv6 type", typ: integer, size: 1, of: ofICMPv6, base: transport, offset: 0}
	ICMPv6Code      = Field{text: "icmpv6 code", typ: integer, size: 1, of: ofICMPv6, base: transport, offset: 1}
	TCPSport        = Field{text: "tcp sport", typ: Service, of: ofTCP, base: transport, offset: 0}
	TCPDport        = Field{text: "tcp dport", typ: Service, of: ofTCP, base: transport, offset: 2}
	TCPFlags        = Field{text: "tcp flags", typ: integer, size: 1, of: ofTCP, base: transport, offset: 13}
	UDPSport        = Field{text: "udp sport", typ: Service, of: ofUDP, base: transport, offset: 0}
	UDPDport        = Field{text: "udp dport", typ: Service, of: ofUDP, base: transport, offset: 2}
	Sport           = Field{text: "th sport", typ: Service, base: transport, offset: 0} // of TCP, UDP and others: look at L4Proto, too
	Dport           = Field{text: "th dport", typ: Service, base: transport, offset: 2}
	NFProto         = Field{text: "meta nfproto", typ: Type{"nf_proto", 2, 1, false}, from: fromMeta, base: unix.NFT_META_NFPROTO}
	L4Proto         = Field{text: "meta l4proto", typ: INetProto, from: fromMeta, base: unix.NFT_META_L4PROTO}
	Protocol        = Field{text: "meta protocol", typ: EtherType, from: fromMeta, base: unix.NFT_META_PROTOCOL}
	Length          = Field{text: "meta length", typ: integer, size: 4, from: fromMeta, base: unix.NFT_META_LEN} // bytes
	MetaMark        = Field{text: "meta mark", typ: Mark, from: fromMeta, base: unix.NFT_META_MARK}
	SocketUID       = Field{text: "meta skuid", typ: UID, from: fromMeta, base: unix.NFT_META_SKUID}
	inType          = Field{text: "meta iiftype", typ: integer, size: 2, from: fromMeta, base: unix.NFT_META_IIFTYPE}
	InName          = Field{text: "iifname", typ: IfName, from: fromMeta, base: unix.NFT_META_IIFNAME}
	OutName         = Field{text: "oifname", typ: IfName, from: fromMeta, base: unix.NFT_META_OIFNAME}
	PacketKind      = Field{text: "meta pkttype", typ: integer, size: 1, from: fromMeta, base: unix.NFT_META_PKTTYPE}
	ConntrackState  = Field{text: "ct state", typ: integer, size: 4, from: fromConntrack, base: unix.NFT_CT_STATE}
	ConntrackStatus = Field{text: "ct status", typ: integer, size: 4, from: fromConntrack, base: unix.NFT_CT_STATUS}
	ConntrackMark   = Field{text: "ct mark", typ: Mark, from: fromConntrack, base: unix.NFT_CT_MARK}
	// What the routing table says of an address: see Local.
	SourceKind      = Field{text: "fib saddr type", typ: integer, size: 4, from: fromFIB, base: unix.NFTA_FIB_F_SADDR}
	DestinationKind = Field{text: "fib daddr type", typ: integer, size: 4, from: fromFIB, base: unix.NFTA_FIB_F_DADDR}
)

// SocketCgroup is the cgroup, of version 2, of the socket a packet belongs to:
// that at the given level below the root.
func SocketCgroup(level int) Field {
	return Field{text: "socket cgroupv2 level " + itoa(level), typ: CgroupV2, from: fromSocket, offset: uint32(level)}
}

// load writes the expressions that put the field into a register, after those
// that make sure of its protocol.
func (f *Field) load(r *rule, reg uint32) {
	switch f.from {
	case fromPayload:
		f.loadPart(r, reg, f.bytes())
	case fromMeta:
		r.expr("meta", func(b *Batch) { b.u32(unix.NFTA_META_KEY, f.base); b.u32(unix.NFTA_META_DREG, reg) })
	case fromConntrack:
		r.expr("ct", func(b *Batch) { b.u32(unix.NFTA_CT_KEY, f.base); b.u32(unix.NFTA_CT_DREG, reg) })
	case fromFIB:
		r.expr("fib", func(b *Batch) {
			b.u32(unix.NFTA_FIB_FLAGS, f.base)
			b.u32(unix.NFTA_FIB_RESULT, unix.NFT_FIB_RESULT_ADDRTYPE)
			b.u32(unix.NFTA_FIB_DREG, reg)
		})
	case fromSocket:
		const key, dreg, level, cgroup = 1, 2, 3, 3 // NFTA_SOCKET_*, NFT_SOCKET_CGROUPV2
		r.expr("socket", func(b *Batch) { b.u32(key, cgroup); b.u32(dreg, reg); b.u32(level, f.offset) })
	}
}

// loadPart loads the first bytes of a field of the payload.
func (f *Field) loadPart(r *rule, reg uint32, size int) {
	r.expr("payload", func(b *Batch) {
		b.u32(unix.NFTA_PAYLOAD_DREG, reg)
		b.u32(unix.NFTA_PAYLOAD_BASE, f.base)
		b.u32(unix.NFTA_PAYLOAD_OFFSET, f.offset)
		b.u32(unix.NFTA_PAYLOAD_LEN, uint32(size))
	})
}

// rule is a rule that is being written: what is known of packets that came as
// far as the current expression.
type rule struct {
	b      *Batch
	family Family
	ether  bool   // from an Ethernet interface
	l3     uint16 // the Ethernet type, 0: any
	l4     uint8  // 0: any
}

func (r *rule) expr(name string, write func(b *Batch)) {
	elem := r.b.nest(unix.NFTA_LIST_ELEM)
	r.b.string(unix.NFTA_EXPR_NAME, name)
	data := r.b.nest(unix.NFTA_EXPR_DATA)
	write(r.b)
	r.b.close(data)
	r.b.close(elem)
}

func (r *rule) compare(op, reg uint32, value []byte) {
	r.expr("cmp", func(b *Batch) {
		b.u32(unix.NFTA_CMP_SREG, reg)
		b.u32(unix.NFTA_CMP_OP, op)
		data := b.nest(unix.NFTA_CMP_DATA)
		b.bytes(unix.NFTA_DATA_VALUE, value)
		b.close(data)
	})
}

// need makes sure that packets which go on are of the protocol, as nft does.
func (r *rule) need(of layer) {
	switch of {
	case ofEthernet:
		if r.family != Bridge && !r.ether {
			r.ether = true
			inType.load(r, reg1)
			r.compare(unix.NFT_CMP_EQ, reg1, binary.NativeEndian.AppendUint16(nil, unix.ARPHRD_ETHER))
		}
	case ofIPv4:
		r.needNetwork(unix.ETH_P_IP)
	case ofIPv6:
		r.needNetwork(unix.ETH_P_IPV6)
	case ofARP:
		r.needVersion(unix.ETH_P_ARP)
	case ofTCP:
		r.needTransport(unix.IPPROTO_TCP)
	case ofUDP:
		r.needTransport(unix.IPPROTO_UDP)
	case ofICMP:
		r.needVersion(unix.ETH_P_IP)
		r.needTransport(unix.IPPROTO_ICMP)
	case ofICMPv6:
		r.needVersion(unix.ETH_P_IPV6)
		r.needTransport(unix.IPPROTO_ICMPV6)
	}
}

func (r *rule) needNetwork(ether uint16) {
	if r.l3 == ether {
		return
	}
	r.l3 = ether
	switch {
	case r.family == INet && ether != unix.ETH_P_ARP:
		proto := byte(unix.NFPROTO_IPV4)
		if ether == unix.ETH_P_IPV6 {
			proto = unix.NFPROTO_IPV6
		}
		NFProto.load(r, reg1)
		r.compare(unix.NFT_CMP_EQ, reg1, []byte{proto})
	case r.family == NetDev || r.family == Bridge:
		Protocol.load(r, reg1)
		r.compare(unix.NFT_CMP_EQ, reg1, binary.BigEndian.AppendUint16(nil, ether))
	case r.family == IPv4 && ether != unix.ETH_P_IP, r.family == IPv6 && ether != unix.ETH_P_IPV6, r.family == ARP && ether != unix.ETH_P_ARP, r.family == INet:
		r.b.fail("a table of family %v sees no packets of Ethernet type %#x", r.family, ether)
	}
}

// needVersion is needNetwork for what nft looks up in the Ethernet header of a
// bridge.
func (r *rule) needVersion(ether uint16) {
	if r.family != Bridge || r.l3 == ether {
		r.needNetwork(ether)
		return
	}
	r.l3 = ether
	EtherTypeOf.load(r, reg1)
	r.compare(unix.NFT_CMP_EQ, reg1, binary.BigEndian.AppendUint16(nil, ether))
}

func (r *rule) needTransport(proto uint8) {
	if r.l4 == proto {
		return
	}
	r.l4 = proto
	L4Proto.load(r, reg1)
	r.compare(unix.NFT_CMP_EQ, reg1, []byte{proto})
}
