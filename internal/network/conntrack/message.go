package conntrack

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/mobileops/mobileops/internal/netlink"
	"golang.org/x/sys/unix"
)

// Messages and attributes of linux/netfilter/nfnetlink_conntrack.h.
const (
	headSize  = 4 // struct nfgenmsg
	msgNew    = 0
	msgGet    = 1
	msgDelete = 2

	attrOrig       = 1
	attrReply      = 2
	attrStatus     = 3
	attrProtoInfo  = 4
	attrTimeout    = 7
	attrMark       = 8
	attrOrigCount  = 9
	attrReplyCount = 10
	attrID         = 12
	attrZone       = 18
	attrTimestamp  = 20

	tupleIP    = 1
	tupleProto = 2
	ipSrc4     = 1
	ipDst4     = 2
	ipSrc6     = 3
	ipDst6     = 4
	protoNum   = 1
	protoSrc   = 2
	protoDst   = 3
	icmpID     = 4
	icmpType   = 5
	icmpCode   = 6
	icmp6ID    = 7
	icmp6Type  = 8
	icmp6Code  = 9

	infoTCP      = 1
	infoTCPState = 1

	countPackets   = 1
	countBytes     = 2
	timestampStart = 1
)

func message(m int) uint16 { return uint16(unix.NFNL_SUBSYS_CTNETLINK<<8 | m) }

// errTuple is of an entry without one of its two directions.
var errTuple = errors.New("a connection without its addresses")

// parse reads an entry: struct nfgenmsg and the attributes.
func parse(m []byte) (Connection, error) {
	head, attrs, err := netlink.After(m, headSize)
	if err != nil {
		return Connection{}, err
	}
	c := Connection{Family: head[0]}
	both := 0
	for i := range attrs {
		a := &attrs[i]
		switch a.Type {
		case attrOrig:
			c.Orig, err = parseTuple(a.Value)
			c.tuple = a.Value
			both |= 1
		case attrReply:
			c.Reply, err = parseTuple(a.Value)
			both |= 2
		case attrStatus:
			c.Status = Status(a.Big32())
		case attrProtoInfo:
			c.TCPState, err = parseTCPState(a.Value)
		case attrTimeout:
			c.Timeout = time.Duration(a.Big32()) * time.Second
		case attrMark:
			c.Mark = a.Big32()
		case attrOrigCount:
			c.OrigCount, err = parseCounter(a.Value)
			c.Counted = true
		case attrReplyCount:
			c.ReplyCount, err = parseCounter(a.Value)
		case attrID:
			c.ID = a.Big32()
		case attrZone:
			if len(a.Value) >= 2 {
				c.Zone, c.zone = binary.BigEndian.Uint16(a.Value), a.Value
			}
		case attrTimestamp:
			c.Started, err = parseStart(a.Value)
		}
		if err != nil {
			return Connection{}, err
		}
	}
	if both != 3 {
		return Connection{}, errTuple
	}
	return c, nil
}

func parseTuple(b []byte) (t Tuple, err error) {
	parts, err := netlink.Attributes(b)
	if err != nil {
		return t, err
	}
	var src, dst netip.Addr
	var sport, dport uint16
	for _, p := range parts {
		if p.Type != tupleIP && p.Type != tupleProto {
			continue
		}
		attrs, err := netlink.Attributes(p.Value)
		if err != nil {
			return t, err
		}
		for _, a := range attrs {
			if p.Type == tupleIP {
				addr, ok := netip.AddrFromSlice(a.Value)
				switch a.Type {
				case ipSrc4, ipSrc6:
					src = addr
				case ipDst4, ipDst6:
					dst = addr
				default:
					continue
				}
				if !ok {
					return t, fmt.Errorf("an address of %d bytes", len(a.Value))
				}
				continue
			}
			switch {
			case len(a.Value) == 0:
			case a.Type == protoNum:
				t.Proto = a.Value[0]
			case (a.Type == protoSrc || a.Type == icmpID || a.Type == icmp6ID) && len(a.Value) >= 2:
				sport = binary.BigEndian.Uint16(a.Value)
			case a.Type == protoDst && len(a.Value) >= 2:
				dport = binary.BigEndian.Uint16(a.Value)
			case a.Type == icmpType || a.Type == icmp6Type:
				t.ICMPType = a.Value[0]
			case a.Type == icmpCode || a.Type == icmp6Code:
				t.ICMPCode = a.Value[0]
			}
		}
	}
	if !src.IsValid() || !dst.IsValid() {
		return t, errTuple
	}
	t.Src, t.Dst = netip.AddrPortFrom(src, sport), netip.AddrPortFrom(dst, dport)
	return t, nil
}

// nested returns the value of an attribute within an attribute.
func nested(b []byte, types ...uint16) ([]byte, error) {
	for _, t := range types {
		attrs, err := netlink.Attributes(b)
		if err != nil {
			return nil, err
		}
		b = nil
		for _, a := range attrs {
			if a.Type == t {
				b = a.Value
			}
		}
	}
	return b, nil
}

func parseTCPState(b []byte) (TCPState, error) {
	v, err := nested(b, infoTCP, infoTCPState)
	if len(v) == 0 {
		return 0, err
	}
	return TCPState(v[0]), err
}

func parseCounter(b []byte) (c Counter, err error) {
	attrs, err := netlink.Attributes(b)
	for _, a := range attrs {
		if len(a.Value) < 8 {
			continue
		}
		switch a.Type {
		case countPackets:
			c.Packets = binary.BigEndian.Uint64(a.Value)
		case countBytes:
			c.Bytes = binary.BigEndian.Uint64(a.Value)
		}
	}
	return c, err
}

func parseStart(b []byte) (time.Time, error) {
	v, err := nested(b, timestampStart)
	if len(v) < 8 {
		return time.Time{}, err
	}
	return time.Unix(0, int64(binary.BigEndian.Uint64(v))), err
}

// deleteRequest names exactly this entry. A request without a tuple would make
// the kernel forget all connections; parse gives none without.
func deleteRequest(c *Connection) []byte {
	b := []byte{c.Family, 0, 0, 0}
	b = netlink.Put(b, attrOrig|unix.NLA_F_NESTED, c.tuple)
	if c.zone != nil {
		b = netlink.Put(b, attrZone, c.zone)
	}
	return netlink.Put(b, attrID, binary.BigEndian.AppendUint32(nil, c.ID))
}
