package netlink

import (
	"bytes"
	"encoding/binary"
	"fmt"
)

// Attr is one attribute of a message.
type Attr struct {
	Type  uint16 // without the flags for nested and for byte order
	Value []byte
}

// typeMask takes NLA_F_NESTED and NLA_F_NET_BYTEORDER off a type.
const typeMask = 0x3fff

// Attributes takes b apart, which holds attributes and nothing else. The values
// lie in b.
func Attributes(b []byte) ([]Attr, error) {
	var list []Attr
	for off := 0; off < len(b); {
		if len(b)-off < 4 {
			return nil, fmt.Errorf("netlink: byte %d: %d bytes where an attribute should begin", off, len(b)-off)
		}
		size := int(binary.NativeEndian.Uint16(b[off:]))
		if size < 4 || size > len(b)-off {
			return nil, fmt.Errorf("netlink: byte %d: an attribute of %d bytes in %d", off, size, len(b)-off)
		}
		list = append(list, Attr{binary.NativeEndian.Uint16(b[off+2:]) & typeMask, b[off+4 : off+size]})
		off += min(align(size), len(b)-off)
	}
	return list, nil
}

// After returns the attributes that follow a fixed head of n bytes, and the
// head.
func After(b []byte, n int) (head []byte, list []Attr, err error) {
	if len(b) < n {
		return nil, nil, fmt.Errorf("netlink: a message of %d bytes, and its head alone has %d", len(b), n)
	}
	list, err = Attributes(b[min(align(n), len(b)):])
	return b[:n], list, err
}

// Put appends an attribute.
func Put(b []byte, typ uint16, value []byte) []byte {
	b = binary.NativeEndian.AppendUint16(b, uint16(4+len(value)))
	b = binary.NativeEndian.AppendUint16(b, typ)
	b = append(b, value...)
	return append(b, make([]byte, align(len(value))-len(value))...)
}

// Text is the value of a string, without the zero byte at its end.
func (a *Attr) Text() string { return string(bytes.TrimRight(a.Value, "\x00")) }

// Uint32 is the value of a number of this machine's byte order; 0 when it is
// shorter.
func (a *Attr) Uint32() uint32 {
	if len(a.Value) < 4 {
		return 0
	}
	return binary.NativeEndian.Uint32(a.Value)
}

// Big32 is the value of a number of network byte order; 0 when it is shorter.
func (a *Attr) Big32() uint32 {
	if len(a.Value) < 4 {
		return 0
	}
	return binary.BigEndian.Uint32(a.Value)
}
