package nft

import (
	"net"
	"strings"

	"golang.org/x/sys/unix"
)

// Verdict is what an element of a map does with the packets that it fits.
type Verdict struct {
	text  string // "": none
	code  int32
	chain string
}

// JumpTo goes on in a chain, and comes back from its end.
func JumpTo(chain string) Verdict { return Verdict{"jump " + chain, unix.NFT_JUMP, chain} }

// GoTo goes on in a chain, and from its end to where the chain with the map was
// jumped to from.
func GoTo(chain string) Verdict { return Verdict{"goto " + chain, unix.NFT_GOTO, chain} }

// By does what the map has for the fields, put together. It matches nothing when
// they are not in the map.
func By(s Set, fields ...Field) Expr {
	words := make([]string, len(fields))
	for i := range fields {
		words[i] = fields[i].text
	}
	return Expr{strings.Join(words, " . ") + " vmap @" + s.Name, func(r *rule) {
		if !s.Verdicts {
			r.b.fail("set %s has no verdicts", s.Name)
		}
		first, ok := r.concatenate(&s, fields)
		if !ok {
			return
		}
		r.expr("lookup", func(b *Batch) {
			b.string(unix.NFTA_LOOKUP_SET, s.Name)
			b.u32(unix.NFTA_LOOKUP_SREG, first)
			b.u32(unix.NFTA_LOOKUP_DREG, unix.NFT_REG_VERDICT)
		})
	}}
}

// verdict writes what an element does.
func (b *Batch) verdict(v *Verdict) {
	data := b.nest(unix.NFTA_SET_ELEM_DATA)
	at := b.nest(unix.NFTA_DATA_VERDICT)
	b.u32(unix.NFTA_VERDICT_CODE, uint32(v.code))
	b.string(unix.NFTA_VERDICT_CHAIN, v.chain)
	b.close(at)
	b.close(data)
}

// ARPForIPv4 matches frames whose ARP is of Ethernet and IPv4: only then do its
// addresses stand where ARPSaddrEther, ARPSaddrIP and ARPDaddrIP look for them.
func ARPForIPv4() Expr {
	return Expr{"arp htype 1 arp ptype ip arp hlen 6 arp plen 4", func(r *rule) {
		r.need(ofARP)
		for _, part := range []struct {
			offset uint32
			value  []byte
		}{{0, []byte{0, 1, 8, 0}}, {4, []byte{6, 4}}} {
			f := Field{base: network, offset: part.offset, size: len(part.value)}
			f.load(r, reg1)
			r.compare(unix.NFT_CMP_EQ, reg1, part.value)
		}
	}}
}

// SetEtherDaddr sends a frame, in a chain at prerouting of a bridge, to another
// address.
func SetEtherDaddr(to net.HardwareAddr) Expr {
	return Expr{"ether daddr set " + to.String(), func(r *rule) {
		r.need(ofEthernet)
		r.immediate(reg1, to)
		r.expr("payload", func(b *Batch) {
			b.u32(unix.NFTA_PAYLOAD_SREG, reg1)
			b.u32(unix.NFTA_PAYLOAD_BASE, link)
			b.u32(unix.NFTA_PAYLOAD_OFFSET, 0)
			b.u32(unix.NFTA_PAYLOAD_LEN, 6)
			b.u32(unix.NFTA_PAYLOAD_CSUM_TYPE, unix.NFT_PAYLOAD_CSUM_NONE)
		})
	}}
}

// SetForHost makes a frame one for this host, which it was not when it came.
func SetForHost() Expr {
	return Expr{"meta pkttype set host", func(r *rule) {
		r.immediate(reg1, []byte{unix.PACKET_HOST})
		r.expr("meta", func(b *Batch) {
			b.u32(unix.NFTA_META_KEY, unix.NFT_META_PKTTYPE)
			b.u32(unix.NFTA_META_SREG, reg1)
		})
	}}
}
