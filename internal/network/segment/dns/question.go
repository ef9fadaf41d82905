package dns

import (
	"encoding/binary"
	"fmt"
)

// PacketError is why a message was not understood.
type PacketError struct {
	Offset int // bytes from its beginning
	Reason string
}

// Error implements error.
func (e *PacketError) Error() string { return fmt.Sprintf("byte %d: %s", e.Offset, e.Reason) }

const (
	headerSize = 12

	flagResponse  = 1 << 15
	flagTruncated = 1 << 9
	flagRecurse   = 1 << 8
	flagAuthentic = 1 << 5
	flagUnchecked = 1 << 4

	typeOPT = 41
)

// question is what a message asks, as far as it must be known to find the answer
// in the cache.
type question struct {
	id    uint16
	flags uint16
	end   int    // of the question in the message, bytes
	name  []byte // as on the wire, in small letters
	typ   uint16
	class uint16

	edns    bool
	size    int // bytes that the client takes by UDP
	do      bool
	version byte
}

func (q *question) opcode() int { return int(q.flags >> 11 & 15) }

// key is what answers are remembered under.
func (q *question) key(buf []byte) []byte {
	b := append(buf[:0], q.name...)
	flags := byte(0)
	if q.do {
		flags |= 1
	}
	if q.flags&flagUnchecked != 0 {
		flags |= 2
	}
	return append(b, byte(q.typ>>8), byte(q.typ), byte(q.class>>8), byte(q.class), flags)
}

// parseQuestion reads a message of a client: one question, without compression,
// and perhaps an OPT record. The name is put into buf. When the error is nil or
// offset 12 was reached, id and flags are set.
func parseQuestion(b []byte, buf []byte) (q question, err error) {
	if len(b) < headerSize {
		return q, &PacketError{len(b), "too short"}
	}
	be := binary.BigEndian
	q.id, q.flags, q.size = be.Uint16(b), be.Uint16(b[2:]), 512
	if q.flags&flagResponse != 0 {
		return q, &PacketError{2, "a response"}
	}
	if be.Uint16(b[4:]) != 1 || be.Uint16(b[6:]) != 0 || be.Uint16(b[8:]) != 0 || be.Uint16(b[10:]) > 2 {
		return q, &PacketError{4, "not one question alone"}
	}
	at := headerSize
	name := buf[:0]
	for {
		if at >= len(b) {
			return q, &PacketError{at, "the name does not end"}
		}
		n := int(b[at])
		if n == 0 {
			name = append(name, 0)
			at++
			break
		}
		if n > 63 || at+1+n > len(b) || len(name)+n+2 > 255 {
			return q, &PacketError{at, "a label that is too long, or compressed"}
		}
		name = append(name, byte(n))
		for _, ch := range b[at+1 : at+1+n] {
			if ch >= 'A' && ch <= 'Z' {
				ch += 'a' - 'A'
			}
			name = append(name, ch)
		}
		at += 1 + n
	}
	if at+4 > len(b) {
		return q, &PacketError{at, "the question does not end"}
	}
	q.name, q.typ, q.class, q.end = name, be.Uint16(b[at:]), be.Uint16(b[at+2:]), at+4
	at += 4
	for range be.Uint16(b[10:]) {
		// The root, type, class, TTL, length. Other owners than the root belong
		// to signatures of transactions, of which there are none here.
		if at+11 > len(b) || b[at] != 0 || at+11+int(be.Uint16(b[at+9:])) > len(b) {
			return q, &PacketError{at, "a record that does not end"}
		}
		if be.Uint16(b[at+1:]) == typeOPT {
			if q.edns {
				return q, &PacketError{at, "two OPT records"}
			}
			q.edns, q.size = true, max(512, int(be.Uint16(b[at+3:])))
			q.version, q.do = b[at+6], b[at+7]&0x80 != 0
		}
		at += 11 + int(be.Uint16(b[at+9:]))
	}
	return q, nil
}

// text is the name as text, with the last dot; "" when it has bytes that no host
// name has.
func (q *question) text() string {
	b := make([]byte, 0, len(q.name))
	for at := 0; at < len(q.name) && q.name[at] != 0; {
		n := int(q.name[at])
		for _, ch := range q.name[at+1 : at+1+n] {
			if ch <= ' ' || ch >= 0x7f || ch == '.' || ch == '\\' || ch == '"' || ch == '(' || ch == ')' || ch == ';' || ch == '@' || ch == '$' {
				return ""
			}
			b = append(b, ch)
		}
		b = append(b, '.')
		at += 1 + n
	}
	if len(b) == 0 {
		return "."
	}
	return string(b)
}

// appendError appends an answer without records: the question, when it could be
// read, and a code.
func appendError(b, request []byte, q *question, rcode int, flags uint16) []byte {
	be := binary.BigEndian
	at := len(b)
	b = be.AppendUint16(b, q.id)
	b = be.AppendUint16(b, flagResponse|q.flags&0x7800|q.flags&(flagRecurse|flagUnchecked)|0x80|flags|uint16(rcode&15))
	b = append(b, 0, 0, 0, 0, 0, 0, 0, 0)
	if q.end > 0 {
		b[at+5] = 1
		b = append(b, request[headerSize:q.end]...)
	}
	return appendOPT(b, at, q, rcode)
}

// appendOPT appends an OPT record when the client sent one, to the message that
// begins at a place in b.
func appendOPT(b []byte, at int, q *question, rcode int) []byte {
	if !q.edns {
		return b
	}
	flags := byte(0)
	if q.do {
		flags = 0x80
	}
	b = append(b, 0, 0, typeOPT, ednsSize>>8, ednsSize&255, byte(rcode>>4), 0, flags, 0, 0, 0)
	n := binary.BigEndian.Uint16(b[at+10:])
	binary.BigEndian.PutUint16(b[at+10:], n+1)
	return b
}

// skipName returns the place after a name, which may end in a pointer.
func skipName(b []byte, at int) (int, error) {
	for range 128 {
		if at >= len(b) {
			break
		}
		switch n := int(b[at]); {
		case n == 0:
			return at + 1, nil
		case n >= 0xc0:
			if at+2 > len(b) {
				return 0, &PacketError{at, "a pointer that does not end"}
			}
			return at + 2, nil
		case n > 63:
			return 0, &PacketError{at, "a label of unknown kind"}
		default:
			at += 1 + n
		}
	}
	return 0, &PacketError{at, "a name that does not end"}
}

// ttlPlaces returns where in a message the TTLs of its records are.
func ttlPlaces(b []byte, end int) ([]uint16, error) {
	be := binary.BigEndian
	if len(b) < headerSize || end > len(b) {
		return nil, &PacketError{len(b), "too short"}
	}
	n := int(be.Uint16(b[6:])) + int(be.Uint16(b[8:])) + int(be.Uint16(b[10:]))
	at := end
	var list []uint16
	for range n {
		next, err := skipName(b, at)
		if err != nil {
			return nil, err
		}
		if next+10 > len(b) || next+10+int(be.Uint16(b[next+8:])) > len(b) {
			return nil, &PacketError{next, "a record that does not end"}
		}
		if be.Uint16(b[next:]) != typeOPT {
			list = append(list, uint16(next+4))
		}
		at = next + 10 + int(be.Uint16(b[next+8:]))
	}
	return list, nil
}
