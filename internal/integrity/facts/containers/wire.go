package containers

import (
	"encoding/binary"
	"fmt"
)

// field is one field of a message of protocol buffers: of the wire format, see
// protobuf.dev/programming-guides/encoding, as much as reading strings,
// messages and numbers takes.
type field struct {
	number int
	value  []byte // of a string, bytes or message
	varint uint64 // of a number
}

// fields takes a message apart. The values lie in b.
func fields(b []byte) ([]field, error) {
	var list []field
	whole := len(b)
	bad := func(what string) error {
		return fmt.Errorf("protocol buffers: byte %d: %s", whole-len(b), what)
	}
	for len(b) > 0 {
		tag, n := binary.Uvarint(b)
		if n <= 0 || tag>>3 == 0 || tag>>3 > 1<<29-1 {
			return nil, bad("no tag")
		}
		b = b[n:]
		f := field{number: int(tag >> 3)}
		switch tag & 7 {
		case 0:
			if f.varint, n = binary.Uvarint(b); n <= 0 {
				return nil, bad("no number")
			}
			b = b[n:]
		case 1, 5: // fixed numbers of 8 and 4 bytes
			size := 8
			if tag&7 == 5 {
				size = 4
			}
			if len(b) < size {
				return nil, bad("a number is cut off")
			}
			b = b[size:]
		case 2:
			size, n := binary.Uvarint(b)
			if n <= 0 || size > uint64(len(b)-n) {
				return nil, bad("a length beyond the end")
			}
			f.value, b = b[n:n+int(size)], b[n+int(size):]
		default:
			return nil, bad("an unknown type")
		}
		list = append(list, f)
	}
	return list, nil
}

// message reads the fields of a message by their numbers. Of a field that comes
// several times, each is called with each.
func message(b []byte, each func(number int, value []byte) error) error {
	list, err := fields(b)
	for i := 0; i < len(list) && err == nil; i++ {
		err = each(list[i].number, list[i].value)
	}
	return err
}

// entry reads an entry of a map from text to text.
func entry(b []byte) (key, value string, err error) {
	err = message(b, func(number int, v []byte) error {
		switch number {
		case 1:
			key = string(v)
		case 2:
			value = string(v)
		}
		return nil
	})
	return key, value, err
}
