package nft

import "golang.org/x/sys/unix"

// LaterFragment6 matches IPv6 packets that are no first fragment, where the
// fragment header (RFC 8200, 4.5) is the first one behind that of the packet: no
// host puts another before it that a router does not need.
func LaterFragment6() Expr {
	const headerSize, offsetOf, offsetMask = 40, 2, 0xfff8
	return Expr{"ip6 nexthdr 44 @nh,336,16 & 0xfff8 != 0", func(r *rule) {
		r.need(ofIPv6)
		IPv6NextHeader.load(r, reg1)
		r.compare(unix.NFT_CMP_EQ, reg1, []byte{unix.IPPROTO_FRAGMENT})
		offset := Field{typ: integer, size: 2, of: ofIPv6, base: network, offset: headerSize + offsetOf}
		offset.load(r, reg1)
		r.mask([]byte{offsetMask >> 8, offsetMask & 0xff})
		r.compare(unix.NFT_CMP_NEQ, reg1, []byte{0, 0})
	}}
}
