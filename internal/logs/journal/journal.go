// Package journal reads the journal files of systemd, without systemd.
//
// The format is https://systemd.io/JOURNAL_FILE_FORMAT: a header, then objects
// one after the other, each at a multiple of eight bytes. An ENTRY names the
// DATA objects that are its fields; each distinct "FIELD=value" is stored once.
// Entries are listed in order by chains of ENTRY ARRAY objects: one chain for
// the file, and one for each DATA object with the entries that have it. A hash
// table leads from a value to its DATA object. That is why a search costs
// little here: it looks once at each distinct value, and follows the chains.
//
// All variants are read: regular and compact files, values compressed with XZ,
// LZ4 or ZSTD, keyed hashes, sealed files (the tags are passed over, not
// verified), archived files, files of users and of remote hosts, and files that
// are being written.
//
// # Reading
//
//	set, err := journal.Open(journal.Options{Report: report}, "/var/log/journal")
//	defer set.Close()
//	for {
//		e, err := set.Next()       // in the order of journalctl
//		if err == io.EOF { break } // no more for now; Next may be called again
//		buf, err = e.AppendExport(buf[:0], journal.ExportClassic)
//	}
//
// SeekTime, SeekCursor and Restore say where Next goes on; Match leaves out
// entries; Wait waits for new ones; Position is what a collector keeps to go on
// exactly where it was, also after files were rotated. Search finds entries by
// words, values and time much faster than Next can. An Entry is valid until the
// next call of Next, or until the function that Search called returns.
//
// Entry.Record makes the record that the store of logs keeps: Text is the part
// of it that words are looked for in, Parse reads it again, and Fill sets the
// fields of an event.
//
// # Damage
//
// Files are mapped, and everything in them is checked before it is believed. A
// file that is damaged is read as far as possible: what is wrong is given to
// Options.Report as a *CorruptError with file and offset, the damaged part is left
// out, and reading goes on. A caller that reports whether a result is complete
// must therefore look at what was reported (Set.Damaged). Files can be cut while
// they are read: memory that vanishes under the reader is reported as damage as
// well, for everything that this package does and in the functions that it
// calls with bytes of a mapped file.
//
// A Set and its entries are for one goroutine at a time.
package journal

import (
	"encoding/hex"
	"fmt"

	"github.com/mobileops/mobileops/internal/failure"
)

// Kinds of trouble with a file, for errors.Is. Both leave a result incomplete.
var (
	// ErrDamaged is wrapped by every *CorruptError.
	ErrDamaged = failure.New(failure.Incomplete, "the journal is damaged")
	// ErrUnsupported is wrapped by every *UnsupportedError.
	ErrUnsupported = failure.New(failure.Incomplete, "the journal needs a newer reader")
)

// CorruptError says where a file is damaged and how.
type CorruptError struct {
	File   string // path
	Offset uint64 // in bytes, of the object or field that is wrong
	What   string // what is wrong, such as "entry array that leads back"
}

func (e *CorruptError) Error() string {
	return fmt.Sprintf("%s: damaged at offset %d: %s", e.File, e.Offset, e.What)
}

// Unwrap returns ErrDamaged.
func (e *CorruptError) Unwrap() error { return ErrDamaged }

// UnsupportedError says that a file uses what this package does not know.
type UnsupportedError struct {
	File  string
	Flags uint32 // the bits of incompatible_flags that are not known
}

func (e *UnsupportedError) Error() string {
	return fmt.Sprintf("%s: uses features that this version cannot read: incompatible flags %#x", e.File, e.Flags)
}

// Unwrap returns ErrUnsupported.
func (e *UnsupportedError) Unwrap() error { return ErrUnsupported }

// ID is a 128-bit identifier: of a machine, a boot, a file, or a source of
// sequence numbers.
type ID [16]byte

// String returns the 32 hexadecimal digits of the identifier.
func (id ID) String() string { return string(id.append(nil)) }

func (id *ID) append(dst []byte) []byte { return hex.AppendEncode(dst, id[:]) }

// idText remembers the digits of an identifier that is asked for again and again.
type idText struct {
	id   ID
	text []byte
}

// of returns the digits of an identifier.
func (t *idText) of(id *ID) []byte {
	if t.text == nil || t.id != *id {
		t.id, t.text = *id, id.append(t.text[:0])
	}
	return t.text
}

// parseID reads 32 hexadecimal digits.
func parseID(s string) (id ID, ok bool) {
	if len(s) != 32 {
		return id, false
	}
	for i := range 32 {
		var v byte
		switch c := s[i]; {
		case '0' <= c && c <= '9':
			v = c - '0'
		case 'a' <= c && c <= 'f':
			v = c - 'a' + 10
		case 'A' <= c && c <= 'F':
			v = c - 'A' + 10
		default:
			return id, false
		}
		id[i/2] = id[i/2]<<4 | v
	}
	return id, true
}

// Options say how journals are read. The zero value does.
type Options struct {
	// Report is called for everything that could not be read: *CorruptError,
	// *UnsupportedError, or that of the system. It may be nil: Set.Damaged and
	// Set.Problems tell the same.
	Report func(error)
	// KeepAll hands out also those entries that journalctl leaves out when
	// files disagree about the order. Equal entries are handed out once either
	// way. A collector wants it.
	KeepAll bool
	// Namespaces includes the directories of journal namespaces
	// (<machine-id>.<namespace>), which journalctl leaves out by default.
	Namespaces bool
	// MaxField is the greatest size in bytes of a field that is decompressed;
	// 0 is 64 MiB. systemd allows 768 MiB.
	MaxField int
}
