package segment

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/bits"
)

// stamp is what is known of the values of a column without unpacking it.
type stamp struct {
	min, max int       // lengths, in bytes
	run      int       // the longest run of bytes without one of _ - . #, in bytes
	bytes    [2]uint64 // which bytes of ASCII occur; bit 127 stands for all others too
	dots     int       // the most dots in a run of digits and dots
	address  bool      // all are IPv4 addresses in dotted decimal
	// odd says that a run of digits and dots has three dots or more and is no
	// address. Without that, the addresses within values are in the filter.
	odd bool
}

// column holds the values of one place of a template, in the order of its
// records, each followed by a newline. A value has no newline within. When all
// are addresses, each is packed into its four bytes instead.
type column struct {
	stamp
	count int
	data  []byte
}

// packed returns the bytes that are kept of the column, and how they are packed.
func (c *column) packed() (data []byte, flag uint32) {
	if !c.address {
		if data := c.dictionary(); data != nil {
			return data, flagDictionary
		}
		return c.data, 0
	}
	out := c.data[:0] // an address takes at least eight bytes as text
	for rest := c.data; len(rest) > 0; {
		n := bytes.IndexByte(rest, '\n')
		a := packAddress(rest[:n])
		out = append(out, a[:]...)
		rest = rest[n+1:]
	}
	return out, flagAddress
}

// dictionary returns the distinct values of the column and which of them each
// value is, or nil where that is not worth it: the number and the length of the
// distinct values, these, each followed by a newline, and the numbers.
func (c *column) dictionary() []byte {
	const sample = 256
	if c.count < sample/2 || c.max < 3 {
		return nil
	}
	known := make(map[string]uint16, sample)
	values := make([]byte, 8, 1<<12)
	numbers := make([]byte, 0, 2*c.count)
	seen := 0
	for rest := c.data; len(rest) > 0; seen++ {
		n := bytes.IndexByte(rest, '\n')
		id, old := known[string(rest[:n])]
		if !old {
			if len(known) == 1<<16 || seen <= sample && len(known) > sample/2 || len(known) > c.count/4+sample/2 {
				return nil
			}
			id = uint16(len(known))
			known[string(rest[:n])] = id
			values = append(values, rest[:n+1]...)
		}
		numbers = binary.LittleEndian.AppendUint16(numbers, id)
		rest = rest[n+1:]
	}
	if len(known) <= 1<<8 {
		for i := range c.count {
			numbers[i] = numbers[2*i]
		}
		numbers = numbers[:c.count]
	}
	binary.LittleEndian.PutUint32(values, uint32(len(known)))
	binary.LittleEndian.PutUint32(values[4:], uint32(len(values)-8))
	return append(values, numbers...)
}

// packAddress returns the bytes of an address.
func packAddress(v []byte) (a [4]byte) {
	i := 0
	for _, b := range v {
		if b == '.' {
			i++
		} else {
			a[i] = a[i]*10 + b - '0'
		}
	}
	return a
}

// appendAddress appends an address as text.
func appendAddress(dst []byte, a []byte) []byte {
	for i, b := range a[:4] {
		if i > 0 {
			dst = append(dst, '.')
		}
		if b >= 100 {
			dst = append(dst, '0'+b/100)
		}
		if b >= 10 {
			dst = append(dst, '0'+b/10%10)
		}
		dst = append(dst, '0'+b%10)
	}
	return dst
}

// add adds a value, and reports whether it may have an address within.
func (c *column) add(v []byte) bool {
	if len(c.data) == 0 {
		c.min, c.address = len(v), true
	}
	c.min, c.max = min(c.min, len(v)), max(c.max, len(v))
	lo, hi, run, longest, dots, most := c.bytes[0], c.bytes[1], 0, c.run, 0, 0
	for _, b := range v {
		switch classes[b] {
		case digit:
			run++
		case joint:
			if run = 0; b == '.' {
				dots++
				most = max(most, dots)
			} else {
				dots = 0
			}
		default:
			run++
			dots = 0
		}
		longest = max(longest, run)
		switch {
		case b < 64:
			lo |= 1 << b
		case b < 0x7f:
			hi |= 1 << (b & 63)
		default:
			hi |= 1 << 63
		}
	}
	c.bytes, c.run = [2]uint64{lo, hi}, longest
	c.count++
	c.address = c.address && isAddress(v)
	c.dots = max(c.dots, most)
	c.data = append(append(c.data, v...), '\n')
	return most >= 3
}

// has says whether values may have every byte of text, in either case if fold,
// and runs like those of text.
func (s *stamp) has(text []byte, fold bool) bool {
	run, dots := 0, 0
	for _, b := range text {
		switch classes[b] {
		case digit:
			run++
		case joint:
			if run = 0; b == '.' {
				dots++
			} else {
				dots = 0
			}
		default:
			run++
			dots = 0
		}
		if run > s.run || dots > s.dots {
			return false
		}
		if b >= 0x7f {
			b = 0x7f
		}
		if s.bytes[b>>6]&(1<<(b&63)) != 0 {
			continue
		}
		if b -= 'a' - 'A'; !fold || b < 'A' || b > 'Z' || s.bytes[b>>6]&(1<<(b&63)) == 0 {
			return false
		}
	}
	return true
}

// join makes the stamp one that holds of other values, too.
func (s *stamp) join(o *stamp) {
	s.max, s.run, s.dots = max(s.max, o.max), max(s.run, o.run), max(s.dots, o.dots)
	s.bytes[0] |= o.bytes[0]
	s.bytes[1] |= o.bytes[1]
}

// kind groups columns whose values resemble each other.
func (s *stamp) kind() int {
	const digits = 0x03ff << '0'
	switch {
	case s.address:
		return 1
	case s.bytes[0]&^digits == 0 && s.bytes[1] == 0:
		return 0
	case s.bytes[0]&^(digits|1<<'-') == 0 && s.bytes[1]&^(0x3f<<('a'-64)) == 0:
		return 2
	}
	return 3
}

// within calls fn with the addresses that are part of a value, and reports
// whether all its runs of digits and dots with at least three dots are such.
func within(v []byte, fn func(address []byte)) (all bool) {
	all = true
	for i := 0; i < len(v); {
		if classes[v[i]] != digit && v[i] != '.' {
			i++
			continue
		}
		from := i
		for i < len(v) && (classes[v[i]] == digit || v[i] == '.') {
			i++
		}
		run := bytes.Trim(v[from:i], ".")
		switch {
		case bytes.Count(v[from:i], []byte{'.'}) < 3:
		case isAddress(run):
			fn(run)
		default:
			all = false
		}
	}
	return all
}

// isAddress says whether v is an IPv4 address of four decimal numbers without
// leading zeros.
func isAddress(v []byte) bool {
	if len(v) < 7 || len(v) > 15 {
		return false
	}
	dots, n, digits := 0, 0, 0
	for _, b := range v {
		switch {
		case b == '.':
			if digits == 0 {
				return false
			}
			dots++
			n, digits = 0, 0
		case b >= '0' && b <= '9':
			if digits > 0 && n == 0 {
				return false
			}
			digits++
			if n = n*10 + int(b-'0'); n > 255 {
				return false
			}
		default:
			return false
		}
	}
	return dots == 3 && digits > 0
}

// relation is how a value and a text must relate.
type relation uint8

const (
	equal relation = iota
	begins
	ends
	contains
)

// maxAlternatives bounds how many values are looked up in a filter instead of
// unpacking a column.
const maxAlternatives = 64

// alternatives calls fn with the values that a column can have which relate to
// text as asked: text itself, or with one more byte before or after it. It ends
// when fn returns true. ok is false if there are too many.
func (s *stamp) alternatives(rel relation, text []byte, fn func([]byte) bool) (found, ok bool) {
	room := s.max - len(text)
	if room < 0 || (rel == equal || room == 0) && len(text) < s.min {
		return false, true
	}
	if rel == equal || room == 0 {
		return fn(text), true
	}
	if room > 1 || s.bytes[1]>>63 != 0 || 2*(bits.OnesCount64(s.bytes[0])+bits.OnesCount64(s.bytes[1])) > maxAlternatives {
		return false, false
	}
	if len(text) >= s.min && fn(text) {
		return true, true
	}
	longer := make([]byte, len(text)+1)
	for b := range byte(0x7f) {
		if s.bytes[b>>6]&(1<<(b&63)) == 0 {
			continue
		}
		if rel != begins {
			longer[0] = b
			copy(longer[1:], text)
			if fn(longer) {
				return true, true
			}
		}
		if rel != ends {
			longer[len(text)] = b
			copy(longer, text)
			if fn(longer) {
				return true, true
			}
		}
	}
	return false, true
}

// addressesAround returns the addresses that an address is part of: 10.0.0.2
// is part of 110.0.0.25. ok is false if there are too many.
func addressesAround(rel relation, text []byte) (list [][]byte, ok bool) {
	more := func(can bool, whole func(x []byte) []byte) [][]byte {
		kept := [][]byte{nil}
		for n := range 110 {
			x := fmt.Appendf(nil, "%02d", n)
			if n >= 100 {
				x = x[2:]
			}
			if can && isAddress(whole(x)) {
				kept = append(kept, x)
			}
		}
		return kept
	}
	before := more(rel != begins, func(x []byte) []byte { return append(bytes.Clone(x), text...) })
	after := more(rel != ends, func(x []byte) []byte { return append(bytes.Clone(text), x...) })
	if len(before)*len(after) > maxAlternatives {
		return nil, false
	}
	for _, b := range before {
		for _, a := range after {
			list = append(list, append(append(bytes.Clone(b), text...), a...))
		}
	}
	return list, true
}
