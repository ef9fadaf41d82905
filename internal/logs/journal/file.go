package journal

import (
	"encoding/binary"
	"fmt"
	"io/fs"
	"math"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

var le = binary.LittleEndian

// file is a mapped journal file. What its methods return lies in the mapping.
type file struct {
	path     string
	os       *os.File
	dev, ino uint64

	m   []byte   // what can be read of the mapping
	all []byte   // the mapping
	old [][]byte // mappings that were replaced, until nothing points into them

	compact, keyed bool
	id, seqnumID   ID
	first          uint64 // offset of the first object
	payload        uint64 // where the value begins in a data object
	entries        chain

	report  func(error)
	scratch []array // of gather
	gone    bool    // no longer in its directory
}

// openFile maps a file and checks its header. A file that is shorter than its
// header says is opened, and reported.
func openFile(path string, report func(error)) (*file, error) {
	// Without O_NONBLOCK a named pipe of that name would hold us up for ever.
	h, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	f := &file{path: path, os: h, report: report}
	if err := f.open(); err != nil {
		f.close()
		return nil, err
	}
	return f, nil
}

func (f *file) open() error {
	st, err := f.os.Stat()
	if err != nil {
		return err
	}
	if !st.Mode().IsRegular() {
		return &fs.PathError{Op: "open", Path: f.path, Err: fmt.Errorf("not a regular file")}
	}
	if sys, ok := st.Sys().(*syscall.Stat_t); ok {
		f.dev, f.ino = uint64(sys.Dev), uint64(sys.Ino)
	}
	if err := f.mapSize(st.Size()); err != nil {
		return err
	}
	return guard([]*file{f}, f.readHeader)
}

// mapSize maps the first size bytes of the file, and keeps what was mapped
// before until release.
func (f *file) mapSize(size int64) error {
	if size < headerMin {
		return f.bad(0, "shorter than a header: %d bytes", size)
	}
	if size > math.MaxInt {
		return &fs.PathError{Op: "mmap", Path: f.path, Err: fmt.Errorf("%d bytes are more than this machine can address", size)}
	}
	m, err := unix.Mmap(int(f.os.Fd()), 0, int(size), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return &fs.PathError{Op: "mmap", Path: f.path, Err: err}
	}
	if f.all != nil {
		f.old = append(f.old, f.all)
	}
	f.m, f.all = m, m
	return nil
}

func (f *file) readHeader() error {
	if string(f.m[:len(signature)]) != signature {
		return f.bad(0, "not a journal: no signature")
	}
	incompatible := le.Uint32(f.m[headerIncompatible:])
	if unknown := incompatible &^ incompatibleKnown; unknown != 0 {
		return &UnsupportedError{File: f.path, Flags: unknown}
	}
	f.compact = incompatible&incompatibleSmall != 0
	f.keyed = incompatible&incompatibleKeyed != 0
	copy(f.id[:], f.m[headerFileID:])
	copy(f.seqnumID[:], f.m[headerSeqnumID:])
	if f.payload = dataRegular; f.compact {
		f.payload = dataCompact
	}
	f.first = le.Uint64(f.m[headerSize:])
	if f.first < headerMin || f.first%8 != 0 || f.first > uint64(len(f.m)) {
		return f.bad(headerSize, "impossible size of header: %d bytes", f.first)
	}
	arena := le.Uint64(f.m[headerArenaSize:])
	short := func() bool { return arena > uint64(len(f.m))-f.first }
	if short() && !(f.grow() && !short()) {
		// Everything that is still there is read nevertheless.
		f.report(f.bad(uint64(len(f.m)), "the file ends before its %d bytes of objects do", arena))
	}
	f.entries = chain{f: f}
	return nil
}

// close unmaps and closes the file.
func (f *file) close() {
	f.release()
	if f.all != nil {
		unix.Munmap(f.all)
		f.all, f.m = nil, nil
	}
	f.os.Close()
}

// release unmaps what was replaced. Nothing points there any more.
func (f *file) release() {
	for _, m := range f.old {
		unix.Munmap(m)
	}
	f.old = f.old[:0]
}

// grow maps what was added to the file, and reports whether that was anything.
func (f *file) grow() bool {
	var st unix.Stat_t
	if unix.Fstat(int(f.os.Fd()), &st) != nil || st.Size <= int64(len(f.all)) {
		return false
	}
	return f.mapSize(st.Size) == nil
}

// shrink forgets what is no longer in the file, and returns what is left of it.
func (f *file) shrink() uint64 {
	var st unix.Stat_t
	if unix.Fstat(int(f.os.Fd()), &st) == nil && st.Size < int64(len(f.m)) {
		f.m = f.m[:max(st.Size, 0)]
	}
	return uint64(len(f.m))
}

// bad is the error for damage at an offset.
func (f *file) bad(offset uint64, format string, args ...any) error {
	return &CorruptError{File: f.path, Offset: offset, What: fmt.Sprintf(format, args...)}
}

// counter reads a number of the header that a writer may be changing. On
// machines of 32 bits the halves are read one after the other.
func (f *file) counter(at int) uint64 {
	if len(f.m) < headerMin {
		return 0
	}
	for range 8 {
		n := le.Uint64(f.m[at:])
		if math.MaxInt > math.MaxInt32 || n == le.Uint64(f.m[at:]) {
			return n
		}
	}
	return 0
}

// writing reports whether the file is being written, or its writer died.
func (f *file) writing() bool { return len(f.m) >= headerMin && f.m[headerState] == stateOnline }

// object returns the object at an offset when it is of a type (0: of any).
func (f *file) object(offset uint64, want byte) ([]byte, error) {
	if offset%8 != 0 || offset < f.first {
		return nil, f.bad(offset, "no object can be here")
	}
	size := uint64(len(f.m))
	if offset > size || size-offset < objectHeader {
		if !f.grow() || uint64(len(f.m))-objectHeader < offset {
			return nil, f.bad(offset, "the file ends before the object")
		}
		size = uint64(len(f.m))
	}
	o := f.m[offset:]
	kind, n := o[0], le.Uint64(o[objectSize:])
	switch {
	case kind == 0 || int(kind) >= len(minSizes):
		return nil, f.bad(offset, "object of unknown type %d", kind)
	case want != 0 && kind != want:
		return nil, f.bad(offset, "%s where there should be %s", typeNames[kind], typeNames[want])
	case n < minSizes[kind]:
		return nil, f.bad(offset, "%s of only %d bytes", typeNames[kind], n)
	case n > size-offset:
		if !f.grow() || n > uint64(len(f.m))-offset {
			return nil, f.bad(offset, "%s of %d bytes goes beyond the end of the file", typeNames[kind], n)
		}
		o = f.m[offset:]
	}
	return o[:n:n], nil
}

// entry returns the ENTRY object at an offset.
func (f *file) entry(offset uint64) ([]byte, error) {
	o, err := f.object(offset, typeEntry)
	if err != nil {
		return nil, err
	}
	item := uint64(16)
	if f.compact {
		item = 4
	}
	switch n := uint64(len(o)) - entryItems; {
	case n%item != 0 || n == 0:
		return nil, f.bad(offset, "entry with %d bytes of items", n)
	case le.Uint64(o[entrySeqnum:]) == 0:
		return nil, f.bad(offset, "entry without sequence number")
	case le.Uint64(o[entryRealtime:])-1 >= maxTime:
		return nil, f.bad(offset, "entry with the impossible time %d", le.Uint64(o[entryRealtime:]))
	case le.Uint64(o[entryMonotonic:]) > maxTime:
		return nil, f.bad(offset, "entry with the impossible monotonic time %d", le.Uint64(o[entryMonotonic:]))
	}
	return o, nil
}

// data returns the DATA object at an offset.
func (f *file) data(offset uint64) ([]byte, error) {
	o, err := f.object(offset, typeData)
	if err != nil {
		return nil, err
	}
	if uint64(len(o)) <= f.payload {
		return nil, f.bad(offset, "data object without a value")
	}
	return o, nil
}

// next returns the offset of the object after o, which is at offset.
func next(offset uint64, o []byte) uint64 { return offset + (uint64(len(o))+7)&^7 }
