// Package rawtar writes tar archives byte by byte, as no proper program would:
// tests make with it what whoever reads archives must refuse.
package rawtar

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"strings"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// BlockBytes is the unit of tar.
const BlockBytes = 512

// Hello is the content of File.
const Hello = "hello, world\n"

// Entry is a header as a test wants it, whatever a proper program would write.
type Entry struct {
	Name, Link string
	Type       byte // '0' when 0, unless Old
	Old        bool // type NUL
	Mode       int64
	Body       string
	Size       string // the field, in place of the length of Body
	ModTime    string
	Magic      string // "ustar\x0000" when ""
	Prefix     string
	Patch      map[int]string // bytes that take the place of others
	BadSum     bool
}

// Bytes returns the header, the content and its padding.
func (e Entry) Bytes() []byte {
	var b [BlockBytes]byte
	copy(b[0:100], e.Name)
	if e.Mode == 0 {
		e.Mode = 0o644
	}
	copy(b[100:108], fmt.Sprintf("%07o\x00", e.Mode))
	copy(b[108:116], "0001750\x00")
	copy(b[116:124], "0001750\x00")
	size := e.Size
	if size == "" {
		size = fmt.Sprintf("%011o\x00", len(e.Body))
	}
	copy(b[124:136], size)
	mtime := e.ModTime
	if mtime == "" {
		mtime = fmt.Sprintf("%011o\x00", 1_700_000_000)
	}
	copy(b[136:148], mtime)
	b[156] = e.Type
	if e.Type == 0 && !e.Old {
		b[156] = '0'
	}
	copy(b[157:257], e.Link)
	magic := e.Magic
	if magic == "" {
		magic = "ustar\x0000"
	}
	copy(b[257:265], magic)
	copy(b[345:500], e.Prefix)
	for at, s := range e.Patch {
		copy(b[at:], s)
	}
	sum := sumOf(b[:])
	if e.BadSum {
		sum++
	}
	copy(b[148:156], fmt.Sprintf("%06o\x00 ", sum))
	return append(append(b[:], e.Body...), make([]byte, -len(e.Body)&(BlockBytes-1))...)
}

// sumOf adds the bytes of a block, of which the sum itself counts as spaces.
func sumOf(block []byte) int64 {
	sum := int64(8 * ' ')
	for i, c := range block {
		if i < 148 || i >= 156 {
			sum += int64(c)
		}
	}
	return sum
}

// File is a file with the content Hello.
func File(name string) Entry { return Entry{Name: name, Body: Hello} }

// Dir is a directory.
func Dir(name string) Entry { return Entry{Name: name, Type: '5', Mode: 0o755} }

// Symlink is a symbolic link.
func Symlink(name, target string) Entry {
	return Entry{Name: name, Type: '2', Link: target, Mode: 0o777}
}

// OldGNU makes an entry one of the old GNU format.
func OldGNU(e Entry) Entry {
	e.Magic = "ustar  \x00"
	return e
}

// Base256 is a field of a size as GNU tar writes large ones.
func Base256(n uint64) string {
	return "\x80\x00\x00\x00" + string(binary.BigEndian.AppendUint64(nil, n))
}

// With changes an entry.
func With(e Entry, f func(*Entry)) Entry {
	f(&e)
	return e
}

// Moded gives an entry a mode.
func Moded(mode int64) func(*Entry) { return func(e *Entry) { e.Mode = mode } }

// Pax is an extended header with records: keys and values in turn.
func Pax(records ...string) Entry { return PaxOf('x', records...) }

// PaxOf is an extended header of a type, 'x' or 'g'.
func PaxOf(typ byte, records ...string) Entry {
	var b strings.Builder
	for i := 0; i+1 < len(records); i += 2 {
		b.WriteString(paxRecord(records[i], records[i+1]))
	}
	return Entry{Name: "PaxHeaders/x", Type: typ, Body: b.String()}
}

func paxRecord(key, value string) string {
	rest := fmt.Sprintf(" %s=%s\n", key, value)
	for n := len(rest) + 1; ; n++ {
		if s := fmt.Sprint(n) + rest; len(s) == n {
			return s
		}
	}
}

// Archive writes an archive with its end.
func Archive(entries ...Entry) []byte {
	var b []byte
	for _, e := range entries {
		b = append(b, e.Bytes()...)
	}
	return append(b, make([]byte, 2*BlockBytes)...)
}

// Gzip packs an archive.
func Gzip(data []byte) []byte {
	var b bytes.Buffer
	return packed(&b, gzip.NewWriter(&b), data)
}

// Zstd packs an archive.
func Zstd(data []byte, opts ...zstd.EOption) []byte {
	var b bytes.Buffer
	z, err := zstd.NewWriter(&b, opts...)
	if err != nil { // an option is wrong: a mistake of the test
		panic(err)
	}
	return packed(&b, z, data)
}

// packed writes to memory, which does not fail.
func packed(b *bytes.Buffer, z io.WriteCloser, data []byte) []byte {
	_, err := z.Write(data)
	if err == nil {
		err = z.Close()
	}
	if err != nil {
		panic(err)
	}
	return b.Bytes()
}

// FixSums gives every block that could be a header the sum that it should have,
// in a copy: fuzzers do not find sums.
func FixSums(data []byte) []byte {
	data = bytes.Clone(data)
	for b := data; len(b) >= BlockBytes; b = b[BlockBytes:] {
		if string(b[257:262]) != "ustar" {
			continue
		}
		sum := sumOf(b[:BlockBytes])
		for i := range 6 {
			b[148+i] = '0' + byte(sum>>(3*(5-i))&7)
		}
		b[154], b[155] = 0, ' '
	}
	return data
}
