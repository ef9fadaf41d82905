package powercut

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// Kind is what a request asked of the disk.
type Kind uint32

const (
	// Write is data for a place.
	Write Kind = iota + 1
	// Zero is a range that reads as zero from then on.
	Zero
	// Flush makes everything before it stay.
	Flush
	// Marked is a mark: nothing that was asked of the disk.
	Marked
)

func (k Kind) String() string {
	switch k {
	case Write:
		return "write"
	case Zero:
		return "zero"
	case Flush:
		return "flush"
	case Marked:
		return "mark"
	}
	return fmt.Sprintf("Kind(%d)", uint32(k))
}

// Position is a moment: how many entries of the log lie before it.
type Position int

// Entry is one entry of the log.
type Entry struct {
	Kind   Kind
	At     Position // its place in the log, from 0
	Offset int64    // in bytes, on the disk
	Length int64    // in bytes
	Name   string   // of a mark

	data int64 // where the log has what was written
}

const (
	// recordHeader is: magic and kind (4 bytes each), offset, length (8 each).
	recordHeader = 24
	recordMagic  = 0x54554350
	// maxLog bounds the memory that a log takes.
	maxLog = 512 << 20
)

// log is a file in memory to which the server appends and from which the test
// reads. The test sees whole records only.
type log struct {
	file *os.File
	end  int64 // where the next record goes, or the next unread one is

	mu      sync.Mutex // for entries, of the reader
	entries []Entry
}

func newLog() (*log, error) {
	f, err := memory("powercut-log", 0)
	return &log{file: f}, err
}

// append writes a record. Its first recordHeader bytes are for the header; what
// was written follows.
func (l *log) append(kind Kind, offset, length int64, record []byte) error {
	if l.end+int64(len(record)) > maxLog {
		return fmt.Errorf("more than %d bytes were written to the disk: too much to remember", maxLog)
	}
	order.PutUint32(record, recordMagic)
	order.PutUint32(record[4:], uint32(kind))
	order.PutUint64(record[8:], uint64(offset))
	order.PutUint64(record[16:], uint64(length))
	if _, err := l.file.WriteAt(record, l.end); err != nil {
		return err
	}
	l.end += int64(len(record))
	return nil
}

// all reads what has been appended so far.
func (l *log) all() ([]Entry, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	info, err := l.file.Stat()
	if err != nil {
		return nil, err
	}
	header := make([]byte, recordHeader)
	for l.end+recordHeader <= info.Size() {
		if _, err := l.file.ReadAt(header, l.end); err != nil {
			return nil, err
		}
		if order.Uint32(header) != recordMagic {
			return nil, fmt.Errorf("the log has no record at %d", l.end)
		}
		e := Entry{
			Kind: Kind(order.Uint32(header[4:])), At: Position(len(l.entries)),
			Offset: int64(order.Uint64(header[8:])), Length: int64(order.Uint64(header[16:])),
			data: l.end + recordHeader,
		}
		end := e.data
		if e.Kind == Write || e.Kind == Marked {
			end += e.Length
		}
		if end > info.Size() {
			break // being written
		}
		if e.Kind == Marked {
			name := make([]byte, e.Length)
			if _, err := l.file.ReadAt(name, e.data); err != nil {
				return nil, err
			}
			e.Name, e.Length = string(name), 0
		}
		l.entries = append(l.entries, e)
		l.end = end
	}
	return l.entries, nil
}

// apply does to a disk what part of a write did: length bytes from skip on.
func (l *log) apply(disk *os.File, e Entry, skip, length int64) error {
	switch {
	case skip < 0 || length < 0 || skip+length > e.Length:
		return fmt.Errorf("%d bytes from %d of a write of %d", length, skip, e.Length)
	case length == 0:
		return nil
	case e.Kind == Zero:
		return punch(disk, e.Offset+skip, length)
	}
	_, err := io.Copy(io.NewOffsetWriter(disk, e.Offset+skip), io.NewSectionReader(l.file, e.data+skip, length))
	return err
}

// Log returns what the disk was asked for so far.
func (d *Device) Log() []Entry {
	d.t.Helper()
	entries, err := d.log.all()
	must(d.t, err)
	return entries
}

// Now is the position behind everything that the disk was asked for so far.
func (d *Device) Now() Position { d.t.Helper(); return Position(len(d.Log())) }

// Reached returns the names of the marks before a position, oldest first: what
// the program had reported when the power was cut there.
func (d *Device) Reached(at Position) (names []string) {
	d.t.Helper()
	for _, e := range d.Log()[:at] {
		if e.Kind == Marked {
			names = append(names, e.Name)
		}
	}
	return names
}

// memory makes a file that takes no disk, of size zero bytes. It goes away with
// its last descriptor.
func memory(name string, size int64) (*os.File, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("memfd_create: %w", err)
	}
	f := os.NewFile(uintptr(fd), name)
	if err := f.Truncate(size); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// punch makes a range of a file in memory zero.
func punch(f *os.File, offset, length int64) error {
	return unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, offset, length)
}

// sparse copies a file in memory. What is zero takes no memory in the copy.
func sparse(from *os.File, size int64) (*os.File, error) {
	to, err := memory("powercut-copy", size)
	if err != nil {
		return nil, err
	}
	const page = 4096
	buf := make([]byte, 64*page)
	fd := int(from.Fd())
	for at := int64(0); at < size; {
		data, err := unix.Seek(fd, at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			break // nothing but zero behind this
		}
		hole := size
		if err == nil {
			hole, err = unix.Seek(fd, data, unix.SEEK_HOLE)
		}
		if err != nil {
			to.Close()
			return nil, err
		}
		for at = data; at < hole; {
			n, err := from.ReadAt(buf[:min(int64(len(buf)), hole-at)], at)
			if n == 0 {
				to.Close()
				return nil, err
			}
			for i := 0; i < n; i += page {
				part := buf[i:min(n, i+page)]
				if isZero(part) {
					continue
				}
				if _, err := to.WriteAt(part, at+int64(i)); err != nil {
					to.Close()
					return nil, err
				}
			}
			at += int64(n)
		}
	}
	return to, nil
}

// zeroes is what an unused page holds.
var zeroes [4096]byte

func isZero(b []byte) bool { return string(b) == string(zeroes[:len(b)]) }
