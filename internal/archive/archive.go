// Package archive reads and writes tar archives, packed with zstd or gzip, that
// come from outside: packages of updates and of plugins. It says what is in an
// archive and proves that all of it arrived; it makes no file, and knows
// nothing of signatures or of what one kind of package demands (Rules).
//
// An archive is read before anybody has vouched for it, or by programs that
// must not depend on anybody's word. So the reader is stricter than tar(1):
//
//   - Memory is bounded whatever an archive claims: windows, headers and the
//     number of entries have limits (Limits), and unpacking stops when more
//     comes out than an archive of that size can sensibly hold.
//   - What two programs could understand differently is refused: two headers
//     that give one entry a name, names that differ by case alone, a stream
//     of several members, bytes after the end.
//   - No entry can lie or point outside of the tree, through no chain of
//     symbolic links: ".." stands only at the beginning of a target, and
//     nothing lies beneath a link.
//   - io.EOF is said only when the archive's end, the packing's end and its
//     checksum have been seen, and every byte of the input was read.
//
// Every refusal is an *Error with a stable Code; docs/formats/package.md has
// the codes and the limits.
//
// Sources: POSIX.1-2017 pax (ustar and pax formats), tar(5) of libarchive and
// the manual of GNU tar (GNU formats), RFC 1952 (gzip), RFC 8878 (zstd).
package archive

import (
	"io"
	"time"
)

// Limits bound what a reader accepts. A limit that is 0 is the default.
type Limits struct {
	Entries       int    // files, directories, links, and directories that are only implied by a name
	TotalBytes    int64  // sum of the sizes of all files
	FileBytes     int64  // size of one file
	PathBytes     int    // length of a name, and of a link's target
	NameBytes     int    // length of one part of a name between slashes
	Depth         int    // parts of a name
	HeaderBytes   int    // pax records and long names of one entry
	ManifestBytes int    // size of the manifest, which whoever reads one holds it against
	Ratio         int64  // bytes unpacked for each byte packed
	RatioFrom     int64  // bytes unpacked before the ratio is looked at
	WindowBytes   uint64 // of zstd: unpacking takes that much memory and 16 MiB more; gzip takes 32 KiB
}

// DefaultLimits are generous for software and small enough for any host.
func DefaultLimits() Limits {
	return Limits{
		Entries:       250_000,
		TotalBytes:    16 << 30,
		FileBytes:     8 << 30,
		PathBytes:     1024,
		NameBytes:     255,
		Depth:         64,
		HeaderBytes:   64 << 10,
		ManifestBytes: 256 << 10,
		Ratio:         400,
		RatioFrom:     64 << 20,
		WindowBytes:   16 << 20,
	}
}

// OrDefaults takes the default for each limit that is not positive.
func (l Limits) OrDefaults() Limits {
	d := DefaultLimits()
	if l.Entries <= 0 {
		l.Entries = d.Entries
	}
	if l.TotalBytes <= 0 {
		l.TotalBytes = d.TotalBytes
	}
	if l.FileBytes <= 0 {
		l.FileBytes = d.FileBytes
	}
	if l.PathBytes <= 0 {
		l.PathBytes = d.PathBytes
	}
	if l.NameBytes <= 0 {
		l.NameBytes = d.NameBytes
	}
	if l.Depth <= 0 {
		l.Depth = d.Depth
	}
	if l.HeaderBytes <= 0 {
		l.HeaderBytes = d.HeaderBytes
	}
	if l.ManifestBytes <= 0 {
		l.ManifestBytes = d.ManifestBytes
	}
	if l.Ratio <= 0 {
		l.Ratio = d.Ratio
	}
	if l.RatioFrom <= 0 {
		l.RatioFrom = d.RatioFrom
	}
	if l.WindowBytes == 0 {
		l.WindowBytes = d.WindowBytes
	}
	return l
}

// Kind is what an entry is. There are no others: hard links, devices, sockets
// and pipes are refused.
type Kind uint8

// The kinds of entries.
const (
	File Kind = iota + 1
	Dir
	Symlink
)

// String names the kind: "file", "directory", "symlink".
func (k Kind) String() string {
	switch k {
	case File:
		return "file"
	case Dir:
		return "directory"
	case Symlink:
		return "symlink"
	}
	return "unknown"
}

// Entry is one thing in an archive. Directories that are only implied by the
// names of others have none. Who owned it where the archive was made is not
// told: files belong to whoever unpacks it.
type Entry struct {
	// Name is relative, clean and separated by slashes. It is valid UTF-8
	// without control characters.
	Name string
	Kind Kind
	// Mode are the permission bits, and those of setuid and setgid (04000,
	// 02000) when Rules.Admit set them. It is 0777 for links.
	Mode uint32
	// Size is the length of Body; 0 for all but files.
	Size int64
	// Link is the target of a symbolic link as it is written in the archive:
	// relative, and within the tree.
	Link string
	// ModTime is the time of the last change, between 1970 and 9999.
	ModTime time.Time
	// Body is the content of a file, nil for others. It is valid until the
	// next header is asked for, and implements io.WriterTo, which copies
	// nothing. Its errors are those of Reader. What is not read of it is
	// skipped.
	Body io.Reader
}

// Rules are what one kind of package demands beside what every archive must be.
// What is nil demands nothing.
type Rules struct {
	// Admit is asked about an entry whose name is sound and clashes with no
	// other, before the target of a link is looked at and before there is a
	// Body. mode are all 12 bits of its mode, 0 for links; e.Mode has the
	// lowest nine and may be changed. Without Admit whatever has a setuid or
	// setgid bit is refused; with it, that is for Admit to do.
	Admit func(e *Entry, mode uint32) *Problem
	// Link is asked about a link within the tree. resolved is the clean name
	// to which its target leads, "" for the top of the tree.
	Link func(e *Entry, resolved string) *Problem
	// Advice says what the operator does about a code; "" is the usual advice.
	Advice func(Code) string
}
