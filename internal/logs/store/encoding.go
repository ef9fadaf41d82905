package store

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/mobileops/mobileops/internal/logs/event"
)

// FormatError says where bytes are not what their format demands.
type FormatError struct {
	What   string // "write-ahead log", "catalogue", …
	Offset int64  // of the first byte that does not fit, from the beginning of what was decoded
	Reason string
}

func (e *FormatError) Error() string {
	return fmt.Sprintf("%s: at byte %d: %s", e.What, e.Offset, e.Reason)
}

// Limits of what is decoded. Lengths are bounded by the bytes that are there as
// well, so that no number in a file makes the program ask for more memory.
const (
	maxName   = 64 << 10 // bytes of a source, a key, a reason
	maxCursor = 1 << 20  // bytes of a cursor
)

// appendBytes appends a length and bytes.
func appendBytes[T ~string | ~[]byte](b []byte, s T) []byte {
	b = binary.AppendUvarint(b, uint64(len(s)))
	return append(b, s...)
}

func appendOrigin(b []byte, o event.Origin) []byte {
	b = appendBytes(b, o.Source)
	b = appendBytes(b, o.Format)
	return appendBytes(b, o.Host)
}

// decoder reads what the append functions wrote. After the first mistake it
// returns zero values; err then says where it was.
type decoder struct {
	what string
	b    []byte
	off  int
	err  error
}

func (d *decoder) fail(reason string) {
	if d.err == nil {
		d.err = &FormatError{What: d.what, Offset: int64(d.off), Reason: reason}
	}
}

// rest is the number of bytes that are left.
func (d *decoder) rest() int { return len(d.b) - d.off }

func (d *decoder) uvarint() uint64 {
	if d.err != nil {
		return 0
	}
	v, n := binary.Uvarint(d.b[d.off:])
	if n <= 0 {
		d.fail("no number")
		return 0
	}
	d.off += n
	return v
}

func (d *decoder) varint() int64 {
	v := d.uvarint()
	return int64(v>>1) ^ -int64(v&1)
}

// nonNegative reads a number that is a count or a size.
func (d *decoder) nonNegative() int64 {
	v := d.uvarint()
	if int64(v) < 0 {
		d.fail("a number that is too large")
		return 0
	}
	return int64(v)
}

// count reads how many items of at least size bytes follow.
func (d *decoder) count(size int) int {
	v := d.uvarint()
	if v > uint64(d.rest()/size) {
		d.fail("a count of more than there is")
		return 0
	}
	return int(v)
}

func (d *decoder) byte() byte {
	if d.err != nil {
		return 0
	}
	if d.rest() < 1 {
		d.fail("it ends too early")
		return 0
	}
	d.off++
	return d.b[d.off-1]
}

// take returns the next n bytes, which belong to the decoded bytes.
func (d *decoder) take(n int) []byte {
	if d.err != nil {
		return nil
	}
	if n < 0 || n > d.rest() {
		d.fail("it ends too early")
		return nil
	}
	d.off += n
	return d.b[d.off-n : d.off : d.off]
}

// bytes reads a length of at most limit, and as many bytes.
func (d *decoder) bytes(limit int) []byte {
	n := d.uvarint()
	if n > uint64(limit) {
		d.fail("longer than allowed")
		return nil
	}
	return d.take(int(n))
}

func (d *decoder) string() string { return string(d.bytes(maxName)) }

func (d *decoder) hash() (h Hash) {
	copy(h[:], d.take(len(h)))
	return h
}

func (d *decoder) origin() event.Origin {
	return event.Origin{Source: d.string(), Format: d.string(), Host: d.string()}
}

// end checks that nothing is left.
func (d *decoder) end() error {
	if d.err == nil && d.rest() > 0 {
		d.fail("bytes after the end")
	}
	return d.err
}

// isFormat tells whether err is about the bytes of a file, not about reading.
func isFormat(err error) bool {
	var f *FormatError
	return errors.As(err, &f)
}
