package nft

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

func itoa(n int) string { return strconv.Itoa(n) }

// Registers of the nf_tables machine: reg1 holds 16 bytes; the keys of sets with
// several fields are put together in those of 4 bytes.
const (
	reg1   = unix.NFT_REG_1
	reg32  = unix.NFT_REG32_00
	maxKey = 64 // bytes: NFT_REG32_COUNT * 4
)

// Verdicts of linux/netfilter.h.
const (
	nfDrop   = 0
	nfAccept = 1
)

// Expr is a part of a rule: a match or a statement. Parts are looked at from
// left to right, until one doesn't match.
type Expr struct {
	text  string
	write func(r *rule)
}

// Is matches packets whose field has the value.
func Is(f Field, v Value) Expr { return compare(f, v, unix.NFT_CMP_EQ, "") }

// IsNot matches packets whose field has another value.
func IsNot(f Field, v Value) Expr { return compare(f, v, unix.NFT_CMP_NEQ, "!= ") }

// AtMost matches packets whose field, of network byte order, is not above the
// value.
func AtMost(f Field, v Value) Expr { return compare(f, v, unix.NFT_CMP_LTE, "<= ") }

func compare(f Field, v Value, op uint32, sign string) Expr {
	text := v.String()
	if strings.HasPrefix(f.text, "@") {
		text = fmt.Sprintf("0x%x", v.data)
	}
	return Expr{f.text + " " + sign + text, func(r *rule) {
		if op == unix.NFT_CMP_LTE && f.from == fromMeta { // compared byte by byte, from the left
			r.b.fail("%s is not in network byte order", f.text)
		}
		r.need(f.of)
		f.load(r, reg1)
		r.compare(op, reg1, v.data)
		if op != unix.NFT_CMP_EQ {
			return
		}
		switch f.base { // what the rest of the rule knows by now
		case unix.NFT_META_L4PROTO:
			if f.from == fromMeta {
				r.l4 = v.data[0]
			}
		case unix.NFT_META_PROTOCOL:
			if f.from == fromMeta {
				r.l3 = binary.BigEndian.Uint16(v.data)
			}
		}
	}}
}

// ShorterThan matches packets of less than n bytes, as the hook counts them.
func ShorterThan(n uint32) Expr {
	return Expr{"meta length < " + itoa(int(n)), func(r *rule) {
		Length.load(r, reg1)
		// Compared as bytes, so in network byte order.
		r.expr("byteorder", func(b *Batch) {
			b.u32(unix.NFTA_BYTEORDER_SREG, reg1)
			b.u32(unix.NFTA_BYTEORDER_DREG, reg1)
			b.u32(unix.NFTA_BYTEORDER_OP, unix.NFT_BYTEORDER_HTON)
			b.u32(unix.NFTA_BYTEORDER_LEN, 4)
			b.u32(unix.NFTA_BYTEORDER_SIZE, 4)
		})
		r.compare(unix.NFT_CMP_LT, reg1, binary.BigEndian.AppendUint32(nil, n))
	}}
}

// Between matches packets whose field, of network byte order, lies between two
// values, which belong to the range.
func Between(f Field, from, to Value) Expr {
	return Expr{f.text + " " + from.String() + "-" + to.String(), func(r *rule) {
		r.need(f.of)
		f.load(r, reg1)
		r.compare(unix.NFT_CMP_GTE, reg1, from.data)
		r.compare(unix.NFT_CMP_LTE, reg1, to.data)
	}}
}

// Within matches packets whose address lies in the prefix.
func Within(f Field, p netip.Prefix) Expr {
	p = p.Masked()
	return Expr{f.text + " " + p.String(), func(r *rule) {
		r.need(f.of)
		addr := p.Addr().AsSlice()
		switch {
		case len(addr) != f.bytes():
			r.b.fail("%s is not %s", p, f.typ.Name)
		case p.Bits()%8 == 0 && p.Bits() > 0:
			f.loadPart(r, reg1, p.Bits()/8)
			r.compare(unix.NFT_CMP_EQ, reg1, addr[:p.Bits()/8])
		default:
			mask := net.CIDRMask(p.Bits(), len(addr)*8)
			f.load(r, reg1)
			r.mask(mask)
			r.compare(unix.NFT_CMP_EQ, reg1, addr)
		}
	}}
}

// WithinTransport matches packets that have, at an offset of so many bytes in the
// transport header, an address within the prefix: that of the packet that an
// ICMP error is about. Say before of which protocol the packet is; the prefix
// has at least one bit.
func WithinTransport(offset int, p netip.Prefix) Expr {
	p = p.Masked()
	addr, bits := p.Addr().AsSlice(), p.Bits()
	size := (bits + 7) / 8
	f := Field{base: transport, offset: uint32(offset), size: size}
	if bits%8 == 0 {
		return Expr{fmt.Sprintf("@th,%d,%d 0x%x", offset*8, bits, addr[:size]), func(r *rule) {
			f.load(r, reg1)
			r.compare(unix.NFT_CMP_EQ, reg1, addr[:size])
		}}
	}
	mask := net.CIDRMask(bits, len(addr)*8)[:size]
	return Expr{fmt.Sprintf("@th,%d,%d & 0x%x == 0x%x", offset*8, size*8, []byte(mask), addr[:size]), func(r *rule) {
		f.load(r, reg1)
		r.mask(mask)
		r.compare(unix.NFT_CMP_EQ, reg1, addr[:size])
	}}
}

func (r *rule) mask(mask []byte) {
	r.expr("bitwise", func(b *Batch) {
		b.u32(unix.NFTA_BITWISE_SREG, reg1)
		b.u32(unix.NFTA_BITWISE_DREG, reg1)
		b.u32(unix.NFTA_BITWISE_LEN, uint32(len(mask)))
		at := b.nest(unix.NFTA_BITWISE_MASK)
		b.bytes(unix.NFTA_DATA_VALUE, mask)
		b.close(at)
		at = b.nest(unix.NFTA_BITWISE_XOR)
		b.bytes(unix.NFTA_DATA_VALUE, make([]byte, len(mask)))
		b.close(at)
	})
}

// TCPStarts matches the first packet of a TCP connection: SYN without ACK.
// Negated, it matches all other TCP packets.
func TCPStarts(not bool) Expr {
	const syn, ack = 2, 16
	op, sign := uint32(unix.NFT_CMP_EQ), "=="
	if not {
		op, sign = unix.NFT_CMP_NEQ, "!="
	}
	return Expr{"tcp flags & (syn | ack) " + sign + " syn", func(r *rule) {
		r.need(ofTCP)
		TCPFlags.load(r, reg1)
		r.mask([]byte{syn | ack})
		r.compare(op, reg1, []byte{syn})
	}}
}

// Version matches packets whose first byte says that they are of that version of
// IP, 4 or 6, whatever else claims it.
func Version(v uint8) Expr {
	f, text := IPv4FragOff, "ip version 4"
	if v == 6 {
		f, text = IPv6Length, "ip6 version 6"
	}
	f.offset, f.size = 0, 1
	return Expr{text, func(r *rule) {
		r.need(f.of)
		f.load(r, reg1)
		r.mask([]byte{0xf0})
		r.compare(unix.NFT_CMP_EQ, reg1, []byte{v << 4})
	}}
}

// ToSwitch matches frames to the sixteen groups that a switch does not pass on
// (IEEE 802.1D, table 7-10): LACP, STP, 802.1X.
func ToSwitch() Expr {
	const text = "@ll,0,48 & 0xfffffffffff0 == 0x0180c2000000"
	return Expr{text, func(r *rule) {
		EtherDaddr.load(r, reg1)
		r.mask([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xf0})
		r.compare(unix.NFT_CMP_EQ, reg1, []byte{1, 0x80, 0xc2, 0, 0, 0})
	}}
}

// LaterFragment matches IPv4 packets that are no first fragment.
func LaterFragment() Expr {
	return Expr{"ip frag-off & 0x1fff != 0", func(r *rule) {
		r.need(ofIPv4)
		IPv4FragOff.load(r, reg1)
		r.mask([]byte{0x1f, 0xff})
		r.compare(unix.NFT_CMP_NEQ, reg1, []byte{0, 0})
	}}
}

// ConnState are states of a connection, as bits of ConntrackState.
type ConnState uint32

// States of connections; several can be added.
const (
	Invalid     ConnState = 1
	Established ConnState = 2
	Related     ConnState = 4
	NewConn     ConnState = 8
	Untracked   ConnState = 64
)

// State matches packets of connections in one of the states.
func State(s ConnState) Expr {
	var words []string
	for _, w := range []struct {
		s    ConnState
		text string
	}{{Invalid, "invalid"}, {Established, "established"}, {Related, "related"}, {NewConn, "new"}, {Untracked, "untracked"}} {
		if s&w.s != 0 {
			words = append(words, w.text)
		}
	}
	return anyBit(ConntrackState, uint32(s), strings.Join(words, ","))
}

// Translated matches packets of connections whose destination was changed by
// DNAT: what was published on purpose.
func Translated() Expr { return anyBit(ConntrackStatus, 0x20, "dnat") }

func anyBit(f Field, bits uint32, text string) Expr {
	return Expr{f.text + " " + text, func(r *rule) {
		f.load(r, reg1)
		r.mask(binary.NativeEndian.AppendUint32(nil, bits))
		r.compare(unix.NFT_CMP_NEQ, reg1, make([]byte, 4))
	}}
}

// In matches packets whose fields, put together, are in the set, whose key has
// the same types.
func In(s Set, fields ...Field) Expr { return lookup(s, fields, false) }

// NotIn matches packets whose fields are not in the set.
func NotIn(s Set, fields ...Field) Expr { return lookup(s, fields, true) }

func lookup(s Set, fields []Field, not bool) Expr {
	words := make([]string, len(fields))
	for i := range fields {
		words[i] = fields[i].text
	}
	sign := ""
	if not {
		sign = "!= "
	}
	return Expr{strings.Join(words, " . ") + " " + sign + "@" + s.Name, func(r *rule) {
		first, ok := r.concatenate(&s, fields)
		if !ok {
			return
		}
		r.expr("lookup", func(b *Batch) {
			b.string(unix.NFTA_LOOKUP_SET, s.Name)
			b.u32(unix.NFTA_LOOKUP_SREG, first)
			if not {
				b.u32(unix.NFTA_LOOKUP_FLAGS, unix.NFT_LOOKUP_F_INV)
			}
		})
	}}
}

// concatenate loads the fields of a key of the set, side by side, and returns
// the first register.
func (r *rule) concatenate(s *Set, fields []Field) (first uint32, ok bool) {
	if len(fields) != len(s.Key) {
		r.b.fail("set %s has %d fields, not %d", s.Name, len(s.Key), len(fields))
		return 0, false
	}
	for i := range fields {
		r.need(fields[i].of)
	}
	reg, first := uint32(reg1), uint32(reg1)
	if len(fields) > 1 {
		reg, first = reg32, reg32
	}
	for i := range fields {
		fields[i].load(r, reg)
		reg += uint32(fields[i].bytes()+3) / 4
	}
	return first, true
}

// Count counts packets and bytes that come as far as this.
func Count() Expr {
	return Expr{"counter", func(r *rule) { r.expr("counter", func(*Batch) {}) }}
}

// CountFrom is Count that goes on from what another rule had counted, which
// this one takes the place of.
func CountFrom(packets, size uint64) Expr {
	return Expr{fmt.Sprintf("counter packets %d bytes %d", packets, size), func(r *rule) {
		r.expr("counter", func(b *Batch) {
			b.u64(unix.NFTA_COUNTER_BYTES, size)
			b.u64(unix.NFTA_COUNTER_PACKETS, packets)
		})
	}}
}

// Log writes packets to the kernel's log, with the prefix in front.
func Log(prefix string) Expr {
	return Expr{"log prefix " + strconv.Quote(prefix), func(r *rule) {
		r.expr("log", func(b *Batch) { b.string(unix.NFTA_LOG_PREFIX, prefix) })
	}}
}

// LogGroup hands packets to whoever listens to that group of nfnetlink_log.
func LogGroup(group uint16, prefix string) Expr {
	return Expr{fmt.Sprintf("log prefix %q group %d", prefix, group), func(r *rule) {
		r.expr("log", func(b *Batch) {
			b.bytes(unix.NFTA_LOG_GROUP, binary.BigEndian.AppendUint16(nil, group))
			b.string(unix.NFTA_LOG_PREFIX, prefix)
		})
	}}
}

// AtRate matches as long as packets come at no more than n each span, a second,
// minute, hour or day; burst more may come at once.
func AtRate(n uint64, span time.Duration, burst uint32) Expr {
	unit := map[time.Duration]string{time.Second: "second", time.Minute: "minute", time.Hour: "hour", 24 * time.Hour: "day"}[span]
	return Expr{fmt.Sprintf("limit rate %d/%s burst %d packets", n, unit, burst), func(r *rule) {
		if unit == "" {
			r.b.fail("a rate is given for a second, minute, hour or day")
		}
		r.expr("limit", func(b *Batch) {
			b.u64(unix.NFTA_LIMIT_RATE, n)
			b.u64(unix.NFTA_LIMIT_UNIT, uint64(span/time.Second))
			b.u32(unix.NFTA_LIMIT_BURST, burst)
			b.u32(unix.NFTA_LIMIT_TYPE, unix.NFT_LIMIT_PKTS)
			b.u32(unix.NFTA_LIMIT_FLAGS, 0)
		})
	}}
}

// SetMark sets the mark of a packet.
func SetMark(v uint32) Expr {
	return Expr{fmt.Sprintf("meta mark set %#x", v), func(r *rule) {
		r.immediate(reg1, binary.NativeEndian.AppendUint32(nil, v))
		r.expr("meta", func(b *Batch) { b.u32(unix.NFTA_META_KEY, unix.NFT_META_MARK); b.u32(unix.NFTA_META_SREG, reg1) })
	}}
}

// Masquerade gives packets that leave, in a chain of type nat at postrouting,
// the address of the interface they leave by.
func Masquerade() Expr {
	return Expr{"masquerade", func(r *rule) { r.expr("masq", func(*Batch) {}) }}
}

// DNAT sends packets to another address, and port unless that is 0.
func DNAT(to netip.AddrPort) Expr {
	addr, family := to.Addr().Unmap(), uint32(unix.NFPROTO_IPV4)
	word := "ip"
	if addr.Is6() {
		family, word = unix.NFPROTO_IPV6, "ip6"
	}
	text := "dnat " + word + " to " + addr.String()
	if to.Port() != 0 {
		text = "dnat " + word + " to " + netip.AddrPortFrom(addr, to.Port()).String()
	}
	return Expr{text, func(r *rule) {
		r.immediate(reg1, addr.AsSlice())
		if to.Port() != 0 {
			r.immediate(unix.NFT_REG_2, binary.BigEndian.AppendUint16(nil, to.Port()))
		}
		r.expr("nat", func(b *Batch) {
			b.u32(unix.NFTA_NAT_TYPE, unix.NFT_NAT_DNAT)
			b.u32(unix.NFTA_NAT_FAMILY, family)
			b.u32(unix.NFTA_NAT_REG_ADDR_MIN, reg1)
			if to.Port() != 0 {
				b.u32(unix.NFTA_NAT_REG_PROTO_MIN, unix.NFT_REG_2)
			}
		})
	}}
}

func (r *rule) immediate(reg uint32, data []byte) {
	r.expr("immediate", func(b *Batch) {
		b.u32(unix.NFTA_IMMEDIATE_DREG, reg)
		at := b.nest(unix.NFTA_IMMEDIATE_DATA)
		b.bytes(unix.NFTA_DATA_VALUE, data)
		b.close(at)
	})
}

// Accept lets the packet pass this chain's hook; other base chains still see it.
func Accept() Expr { return verdict("accept", nfAccept, "") }

// Drop ends the packet, finally.
func Drop() Expr { return verdict("drop", nfDrop, "") }

// Return goes back to the chain that jumped here, or applies the policy.
func Return() Expr { return verdict("return", unix.NFT_RETURN, "") }

// Jump goes on in another chain of the table, and comes back from its end.
func Jump(chain string) Expr { return verdict("jump "+chain, unix.NFT_JUMP, chain) }

// Goto goes on in another chain, and from its end to where this chain was
// jumped to from.
func Goto(chain string) Expr { return verdict("goto "+chain, unix.NFT_GOTO, chain) }

func verdict(text string, code int32, chain string) Expr {
	return Expr{text, func(r *rule) {
		r.expr("immediate", func(b *Batch) {
			b.u32(unix.NFTA_IMMEDIATE_DREG, unix.NFT_REG_VERDICT)
			data := b.nest(unix.NFTA_IMMEDIATE_DATA)
			v := b.nest(unix.NFTA_DATA_VERDICT)
			b.u32(unix.NFTA_VERDICT_CODE, uint32(code))
			if chain != "" {
				b.string(unix.NFTA_VERDICT_CHAIN, chain)
			}
			b.close(v)
			b.close(data)
		})
	}}
}

// Reject answers: a TCP connection is reset, others get "administratively
// prohibited".
func Reject() Expr {
	return Expr{"reject with icmpx admin-prohibited", func(r *rule) {
		const typ, code, icmpx, prohibited = 1, 2, 2, 3 // NFTA_REJECT_*, NFT_REJECT_ICMPX_*
		r.expr("reject", func(b *Batch) { b.u32(typ, icmpx); b.bytes(code, []byte{prohibited}) })
	}}
}
