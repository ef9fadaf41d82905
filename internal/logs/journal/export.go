package journal

import (
	"bytes"
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
	dst = append(e.Boot.append(append(dst, bootField...)), '\n')
	e.each(func(data []byte) error {
		// The boot in the entry itself is the one that counts.
		if len(data) >= len(bootField) && data[0] == '_' && string(data[:len(bootField)]) == bootField {
			return nil
		}
		eq := bytes.IndexByte(data[:min(len(data), maxName+1)], '=')
		if eq <= 0 || !validName(data[:eq]) {
			e.set.problem(e.f.bad(e.offset, "entry with a field whose name is not valid: %.80q", data))
			return nil
		}
		dst = appendField(dst, data, eq)
		return nil
	})
	return dst
}

// appendField appends "FIELD=value" and a newline; or, when the value is not
// plain text of one line, the name, a newline, the length of the value as 64
// bits and the value.
func appendField(dst, data []byte, eq int) []byte {
	if !printable(data) {
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
