package journal

import (
	"bytes"
	"math"
	"strconv"
	"unicode/utf8"
)

// Export is a variant of the export format
// (https://systemd.io/JOURNAL_EXPORT_FORMATS).
type Export uint8

const (
	// ExportClassic is what journalctl prints before systemd 254.
	ExportClassic Export = iota
	// ExportSeqnum has also __SEQNUM and __SEQNUM_ID, as from systemd 254 on.
	ExportSeqnum
)

// AppendExport appends the entry as "journalctl -o export" prints it, with the
// empty line at its end. Fields that cannot be read are reported and left out.
func (e *Entry) AppendExport(dst []byte, variant Export) ([]byte, error) {
	err := guard(e.set.files, func() error {
		dst = append(e.appendAddress(dst, variant), '\n')
		dst = e.appendFields(dst)
		return nil
	})
	if err != nil {
		e.set.problem(err)
	}
	return append(dst, '\n'), err
}

// appendAddress appends the address lines, without the newline of the last.
func (e *Entry) appendAddress(dst []byte, variant Export) []byte {
	dst = e.AppendCursor(append(dst, addressCursor...))
	dst = strconv.AppendUint(append(dst, addressRealtime...), e.Realtime, 10)
	dst = strconv.AppendUint(append(dst, addressMonotonic...), e.Monotonic, 10)
	if variant == ExportSeqnum {
		dst = strconv.AppendUint(append(dst, addressSeqnum...), e.Seqnum, 10)
		dst = e.SeqnumID.append(append(dst, addressSeqnumID...))
	}
	return dst
}

// The address lines, in their order.
const (
	addressCursor    = "__CURSOR="
	addressRealtime  = "\n__REALTIME_TIMESTAMP="
	addressMonotonic = "\n__MONOTONIC_TIMESTAMP="
	addressSeqnum    = "\n__SEQNUM="
	addressSeqnumID  = "\n__SEQNUM_ID="

	bootField = "_BOOT_ID="
)

// appendFields appends _BOOT_ID and all other fields, each with a newline. The
// caller has a guard.
func (e *Entry) appendFields(dst []byte) []byte {
	dst = append(append(dst, bootField...), e.set.boot.of(&e.Boot)...)
	dst = append(dst, '\n')
	known, salt := e.set.knownLines(), le.Uint64(e.f.id[:])
	e.items(func(offset, hash uint64) error {
		k := &known[(offset>>3^salt)*0x9e3779b97f4a7c15>>(64-knownBits)]
		if k.offset != offset || k.hash != hash || k.f != e.f {
			l, value := e.line(offset, hash)
			if value == nil {
				return nil
			}
			if !l.plain || e.f.m[offset+1] != 0 || len(value) > math.MaxInt32 {
				dst = appendField(dst, value, l.name, l.plain)
				return nil
			}
			*k = l
		}
		// Most fields of most entries are those of an entry before.
		if end := k.start + uint64(k.size); end <= uint64(len(e.f.m)) {
			dst = append(dst, e.f.m[k.start:end]...)
			dst = append(dst, '\n')
		}
		return nil
	})
	return dst
}

// line is what is known of the line that a data object becomes.
type line struct {
	f      *file
	offset uint64 // of the data object
	hash   uint64 // that it was looked up with
	start  uint64 // of the value in the file
	size   uint32 // of the value
	name   uint8  // length of the name of the field
	plain  bool   // printed as "FIELD=value"
}

// knownBits is the binary logarithm of how many lines are remembered.
const knownBits = 12

// knownLines are lines that were printed lately, by a hash of file and offset.
func (s *Set) knownLines() *[1 << knownBits]line {
	if s.known == nil {
		s.known = new([1 << knownBits]line)
	}
	return s.known
}

// line returns what the data object at an offset becomes, and its value; nil
// when that is nothing. What cannot be read is reported.
func (e *Entry) line(offset, hash uint64) (l line, value []byte) {
	value = e.value(offset, hash)
	// The boot in the entry itself is the one that counts.
	if value == nil || bytes.HasPrefix(value, []byte(bootField)) {
		return line{}, nil
	}
	eq := bytes.IndexByte(value[:min(len(value), maxName+1)], '=')
	if eq <= 0 || !validName(value[:eq]) {
		e.set.problem(e.f.bad(e.offset, "entry with a field whose name is not valid: %.80q", value))
		return line{}, nil
	}
	return line{
		f: e.f, offset: offset, hash: hash, start: offset + e.f.payload, size: uint32(len(value)),
		name: uint8(eq), plain: printable(value),
	}, value
}

// appendField appends "FIELD=value" and a newline; or, when the value is not
// plain text of one line, the name, a newline, the length of the value as 64
// bits and the value.
func appendField(dst, data []byte, name uint8, plain bool) []byte {
	eq := int(name)
	if !plain {
		dst = append(append(dst, data[:eq]...), '\n')
		dst = le.AppendUint64(dst, uint64(len(data)-eq-1))
		data = data[eq+1:]
	}
	return append(append(dst, data...), '\n')
}

// maxName is the greatest length of the name of a field.
const maxName = 64

// validName reports whether a field may have this name.
func validName(name []byte) bool {
	if len(name) == 0 || len(name) > maxName || '0' <= name[0] && name[0] <= '9' {
		return false
	}
	for _, c := range name {
		if (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '_' {
			return false
		}
	}
	return true
}

// printable reports whether journalctl prints the bytes as text: valid UTF-8
// without control characters other than tabs, and without noncharacters.
func printable(p []byte) bool {
	const ones, highs = 0x0101010101010101, 0x8080808080808080
	for len(p) >= 8 {
		w := le.Uint64(p)
		del := w ^ 0x7f*ones
		n := 8
		// Any byte below 0x20, of 0x7f, or above?
		if ((w-0x20*ones)&^w|w|(del-ones)&^del)&highs != 0 {
			if n = printableRunes(p, 8); n < 0 {
				return false
			}
		}
		p = p[n:]
	}
	return printableRunes(p, len(p)) >= 0
}

// printableRunes looks at the runes that begin in the first n bytes of p. It
// returns where the next one begins, or -1.
func printableRunes(p []byte, n int) int {
	i := 0
	for i < n {
		c := p[i]
		if c < utf8.RuneSelf {
			if c < ' ' && c != '\t' || c == 0x7f {
				return -1
			}
			i++
			continue
		}
		r, size := utf8.DecodeRune(p[i:])
		if r == utf8.RuneError && size <= 1 || r < 0xa0 || 0xfdd0 <= r && r <= 0xfdef || r&0xfffe == 0xfffe {
			return -1
		}
		i += size
	}
	return i
}
