// Package filehash walks file trees and hashes their content with BLAKE3, as
// fast as the machine allows and without trusting what it walks.
//
// A walk works on directory handles only: every name is opened relative to the
// directory that listed it, symbolic links are never followed, and devices,
// FIFOs and sockets are never read. A tree that is changed by somebody else,
// even a hostile somebody, while it is walked can make entries vanish or
// unstable, but it cannot lead the walk astray.
//
//	err := filehash.Walk(ctx, "/usr", filehash.Options{}, func(b *filehash.Batch) error {
//		for i := range b.Entries {
//			e := &b.Entries[i]
//			if e.Content == filehash.Hashed {
//				fmt.Printf("%x  %s/%s\n", e.Sum, b.Dir, e.Name)
//			}
//		}
//		return nil
//	})
//
// # Order
//
// Batches arrive one at a time and in one fixed order, whatever the number of
// workers: the entries of a directory sorted bytewise by name, then the
// directories below it, one after the other in the same order. That is the
// order of CompareKeys. Memory is bounded by the number of workers and the
// largest single directory, not by the size of the tree.
//
// # Content
//
// Sum is plain BLAKE3 (the BLAKE3 paper, https://github.com/BLAKE3-team/BLAKE3-specs),
// equal to what b3sum prints. Files are read to their end, not to the size
// that stat gave; afterwards they are statted again, and a file that changed
// in between is read again and finally reported as Unstable.
package filehash

import (
	"bytes"
	"fmt"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/mobileops/mobileops/pkg/filehash/internal/blake3tree"
	"golang.org/x/sys/unix"
)

// Sum is a BLAKE3 digest of 256 bits.
type Sum [32]byte

// String returns the digest as 64 hexadecimal digits.
func (s Sum) String() string { return fmt.Sprintf("%x", s[:]) }

// Time is a file time as the kernel keeps it: it reaches further than the
// nanoseconds of an int64 do.
type Time struct {
	Sec  int64  // since 1970-01-01 00:00:00 UTC
	Nsec uint32 // 0 to 999,999,999
}

// Time returns t as a time.Time.
func (t Time) Time() time.Time { return time.Unix(t.Sec, int64(t.Nsec)) }

// Info is what statx(2) tells of a file.
type Info struct {
	Mode  uint32 // type and permissions as in st_mode
	UID   uint32
	GID   uint32
	Links uint32 // hard links
	Dev   uint64 // as unix.Mkdev
	Rdev  uint64 // device that a device node stands for
	Ino   uint64
	Size  int64 // bytes
	Mtime Time
	Ctime Time
	Btime Time   // zero where the filesystem keeps none
	Flags uint32 // STATX_ATTR_IMMUTABLE and STATX_ATTR_APPEND, where supported
}

// Type returns the file type bits of Mode, such as unix.S_IFREG.
func (i *Info) Type() uint32 { return i.Mode & unix.S_IFMT }

// Xattr is one extended attribute.
type Xattr struct {
	Name  string
	Value []byte
}

// Content says what is known of the content of an entry.
type Content uint8

// The states of content.
const (
	NoContent  Content = iota // not a regular file, or its content was not wanted
	Hashed                    // read to its end, and the file did not change meanwhile
	Known                     // neither content nor extended attributes were read: Options.Prior vouched for them
	Unreadable                // could not be opened or read; see Entry.Err
	Unstable                  // changed while it was read, at every attempt
)

// Entry is one name in a directory.
type Entry struct {
	Name   []byte
	Info   Info
	Sum    Sum    // BLAKE3 of the content when Content is Hashed or Known
	Prefix Sum    // BLAKE3 of the first PriorAnswer.Prefix bytes, when that was asked for
	Target []byte // of a symbolic link
	Xattrs []Xattr
	Err    error // why it is Unreadable, or why its attributes could not be read
	Tag    any   // what Selector.Select gave
	Content
	// Mountpoint is set on a directory that lies on another filesystem and
	// is therefore not descended into.
	Mountpoint bool
}

// Batch is some entries of one directory, in order. It and what it refers to
// are valid only until the callback returns.
type Batch struct {
	Dir     []byte // path of the directory below the walk's root, "/"-rooted: "/", "/usr/bin"; empty for the root itself
	Entries []Entry
	Err     error // the directory could not be opened or listed to its end
}

// CompareKeys orders entries as a walk reports them: first by directory, parent
// before child and component by component, then by name.
func CompareKeys(dirA, nameA, dirB, nameB []byte) int {
	if c := CompareDirs(dirA, dirB); c != 0 {
		return c
	}
	return bytes.Compare(nameA, nameB)
}

// CompareDirs orders directory paths as a walk visits them: component by
// component, a parent before what is below it.
func CompareDirs(a, b []byte) int {
	if bytes.Equal(a, b) { // mostly, and much faster than the loop
		return 0
	}
	n := min(len(a), len(b))
	for i := range n {
		if a[i] == b[i] {
			continue
		}
		if a[i] == '/' { // ends a component, so it sorts before any longer one
			return -1
		}
		if b[i] == '/' {
			return 1
		}
		return int(a[i]) - int(b[i])
	}
	if len(a) == 1 && len(b) > 1 { // "/" is the parent of "/x"
		return -1
	}
	return len(a) - len(b)
}

// Want says what a walk should find out about an entry.
type Want uint8

// What can be wanted. Attributes of statx and the target of a link come with
// WantEntry.
const (
	WantEntry   Want = 1 << iota // report the entry
	WantContent                  // hash it, if it is a regular file
	WantXattrs                   // read its extended attributes
	WantPrior                    // ask Options.Prior before reading it
	WantGrowing                  // it may grow while it is read: hash what is there
	OnlyRegular                  // report it only if it is listed as a regular file; anything else is not even statted
)

// Selector decides what a walk visits. Selectors are used by several
// goroutines at once.
type Selector interface {
	// Select says what is wanted of an entry, and gives a tag that comes
	// back with it.
	Select(name []byte) (Want, any)
	// Enter returns the selector of a directory below; it must not keep name.
	// A nil selector means that nothing in it is wanted.
	Enter(name []byte) Selector
	// Names returns the only names that matter in this directory, sorted,
	// when they are few and known. Then the directory is not listed, and
	// what is below may lie on other filesystems.
	Names() ([]string, bool)
}

// RootSelector is a Selector that may want the root of the walk itself. It is
// reported first, in a batch of its own with an empty Dir, under the name "/".
type RootSelector interface {
	Selector
	SelectRoot() (Want, any)
}

// PriorAnswer is what is known of a file before it is read.
type PriorAnswer struct {
	Known  bool  // Sum is its content's digest: do not read it, nor its attributes
	Sum    Sum   // when Known
	Prefix int64 // also give the digest of the first so many bytes; 0: not wanted
}

// Prior knows files from before. It is called with names in walk order, by one
// goroutine, for what has content or extended attributes that would be read.
type Prior interface {
	Lookup(dir, name []byte, info *Info) PriorAnswer
}

// Counters count while a walk runs. They may be read at any time.
type Counters struct {
	Files  atomic.Int64 // entries finished
	Bytes  atomic.Int64 // bytes read
	Hashed atomic.Int64 // regular files read
	Known  atomic.Int64 // regular files whose content was vouched for
}

// Options say how to walk. The zero value hashes everything on one filesystem.
type Options struct {
	Select      Selector     // nil: everything, with content
	NewPrior    func() Prior // makes one Prior for each worker; nil: none
	CrossDevice bool         // descend into other filesystems
	Jobs        int          // workers; 0: chosen by storage, see Concurrency
	IOLimit     int64        // bytes read a second, all workers together; 0: unlimited
	Counters    *Counters    // may be nil
}

// everything is the selector of the zero Options.
type everything struct{}

func (everything) Select([]byte) (Want, any) { return WantEntry | WantContent, nil }
func (everything) Enter([]byte) Selector     { return everything{} }
func (everything) Names() ([]string, bool)   { return nil, false }

// cores is the number of workers for work that the processor limits.
func cores() int { return max(1, runtime.GOMAXPROCS(0)) }

// SumBytes returns the BLAKE3 digest of p.
func SumBytes(p []byte) Sum { return blake3tree.Sum256(p) }
