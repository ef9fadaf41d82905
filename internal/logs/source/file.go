package source

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"
	"time"

	"github.com/mobileops/mobileops/internal/logs/event"
	"golang.org/x/sys/unix"
)

// file is one file that is read, or was: a content with a beginning, wherever
// it is now.
type file struct {
	c   *Collector
	key string
	meter

	mu      sync.Mutex // held while it is read and while its identity is looked at
	cur     fileCursor
	spec    *spec // nil: it was not found yet
	origin  event.Origin
	rotated bool
	f       *os.File // nil: not open
	head    []byte   // what cur.Head is of; nil: not read by this process
	tail    []byte   // what cur.Tail is of
	un      *unpacker
	rest    []byte // uncompressed, behind cur.Offset
	reader  framer
	settled bool      // the format
	links   uint32    // names of the open file; 0: it was deleted
	seen    info      // the file when it was looked at last
	same    time.Time // since when it has this size
	goal    int64     // Once reads up to here
	failed  info      // what could not be read; it is not tried again until it changes
	due     time.Time // when what is left will be taken as it is; zero: nothing is left
}

func (t *file) packed() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.cur.Packed != ""
}

// turn reads on, at most some hundred KiB, and reports whether there is more.
func (t *file) turn() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.spec == nil || t.cur.Detached || t.cur.Gone != 0 && t.f == nil {
		return false
	}
	if err := t.open(); err != nil {
		if errors.Is(err, errMoved) {
			t.c.lookAgain()
		} else {
			t.trouble(err.Error())
		}
		return false
	}
	size := t.cur.Size
	more, err := t.read()
	switch {
	case errors.Is(err, errChanged):
		t.cur.Size = size // what was known of the old content
		t.detach()
		t.c.lookAgain()
		return false
	case err != nil:
		t.failed = t.seen
		t.trouble(err.Error())
		t.close()
		return false
	}
	t.trouble("")
	if !more && (t.cur.Packed != "" || !t.c.following && t.due.IsZero() || t.c.open.Load() > maxOpen) {
		t.close()
	}
	return more
}

var (
	errMoved   = errors.New("the file is elsewhere")
	errChanged = errors.New("the file has another content")
)

// open opens the file if it is not open. t.mu is held.
func (t *file) open() error {
	if t.f != nil {
		return nil
	}
	f, st, err := t.c.tree.openRegular(t.cur.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return errMoved
	}
	if err != nil {
		return err
	}
	if st.dev != t.cur.Dev || st.ino != t.cur.Ino {
		f.Close()
		return errMoved
	}
	t.hold(f)
	return nil
}

// hold takes over an open file. t.mu is held.
func (t *file) hold(f *os.File) {
	t.close()
	t.f, t.links = f, 1
	t.c.opened(t)
}

// close closes what is open. t.mu is held.
func (t *file) close() {
	if t.un != nil {
		t.un.close()
		t.un, t.rest = nil, nil
	}
	if t.f != nil {
		t.f.Close()
		t.f = nil
		t.c.closed(t)
	}
}

// note keeps what is known of the file from outside. t.mu is held.
func (t *file) note(st *info) {
	if st.size != t.seen.size || t.same.IsZero() {
		t.same = t.c.now()
	}
	t.seen, t.links = *st, st.links
	t.cur.Size, t.cur.Mod = st.size, st.mod
	t.behind(t.cur.Packed != "", t.cur.Done, st.size-t.cur.Offset, st.size, st.mod)
}

// quiet is how long nothing was written. t.mu is held.
func (t *file) quiet() time.Duration {
	now := t.c.now()
	if q := now.Sub(time.Unix(0, t.seen.mod)); q >= 0 {
		return q
	}
	return now.Sub(t.same) // the clock of the file system is ahead
}

// patience is how long a last line waits for its newline. t.mu is held.
func (t *file) patience() time.Duration {
	if t.rotated || t.links == 0 {
		return t.c.opts.Idle / 5 // its writer may not have noticed yet
	}
	return t.c.opts.Idle
}

// read takes records off the open file. t.mu is held.
func (t *file) read() (more bool, err error) {
	st, err := statFile(t.f)
	if err != nil {
		return false, err
	}
	if t.cur.Packed != "" {
		t.note(st)
		return t.readPacked()
	}
	if st.size < t.cur.Offset {
		return false, errChanged
	}
	for limit := int64(turnBytes); ; {
		want := min(limit, st.size-t.cur.Offset)
		if want == 0 {
			if err := t.verify(); err != nil {
				return false, err
			}
			t.note(st)
			t.due = time.Time{}
			return false, nil
		}
		buf := make([]byte, want)
		n, err := readFull(t.f, buf, t.cur.Offset)
		if err != nil {
			return false, err
		}
		buf = buf[:n]
		if st, err = statFile(t.f); err != nil {
			return false, err
		}
		// What was read counts if the file is still the one that it was before.
		if st.size < t.cur.Offset+int64(n) {
			return false, errChanged
		}
		if err := t.verify(); err != nil {
			return false, err
		}
		t.note(st)
		if n > 0 && buf[0] == 0 && t.spec.Kind == Files {
			moved, err := t.skipHole(st.size)
			if err != nil || !moved {
				return false, err
			}
			continue
		}
		whole := buf
		if t.spec.Kind == Files {
			buf = beforeHole(buf)
		}
		end := len(buf) == len(whole) && t.cur.Offset+int64(n) >= st.size
		final := end && t.spec.Kind == Files && t.quiet() >= t.patience()
		taken := t.take(buf, final)
		if taken == 0 && (len(buf) < len(whole) || limit == largeTurn && int64(n) == limit) {
			taken = t.take(buf, true)
		}
		switch {
		case taken > 0:
			t.due = time.Time{}
			if end && t.cur.Offset < st.size {
				t.due = t.c.now().Add(t.patience() - t.quiet())
			}
			return !end && t.cur.Offset < t.goal, nil
		case end:
			t.due = t.c.now().Add(t.patience() - t.quiet())
			return false, nil
		}
		limit = largeTurn
	}
}

// largeTurn is what is read when a record is longer than turnBytes.
const largeTurn = 2*maxRecord + turnBytes

// verify compares the beginning of the file and what is before the position
// with what they were. t.mu is held.
func (t *file) verify() error {
	buf := make([]byte, 2*printBytes)
	head, err := beginning(t.f, buf)
	if err != nil {
		return err
	}
	tail := buf[printBytes : printBytes+t.cur.Tail.Len]
	n, err := readFull(t.f, tail, t.cur.Offset-int64(len(tail)))
	if err != nil {
		return err
	}
	if t.head == nil {
		if !t.cur.Head.of(head) || n < len(tail) || !t.cur.Tail.of(tail) {
			return errChanged
		}
	} else if !bytes.HasPrefix(head, t.head) || !bytes.Equal(tail[:n], t.tail) {
		return errChanged
	}
	if t.head == nil || len(head) > len(t.head) {
		t.head = head
		t.cur.Head = fingerprintOf(head)
	}
	t.tail = append(t.tail[:0], tail...)
	return nil
}

// skipHole goes to the first byte that is not NUL. It stays when there is none
// yet: the writer may fill the space later. t.mu is held.
func (t *file) skipHole(size int64) (moved bool, err error) {
	at := t.cur.Offset
	buf := make([]byte, turnBytes)
	for at < size {
		if data, err := unix.Seek(int(t.f.Fd()), at, unix.SEEK_DATA); err == nil && data > at {
			at = data
		} else if errors.Is(err, unix.ENXIO) {
			break // a hole up to the end
		}
		n, err := readFull(t.f, buf[:min(turnBytes, size-at)], at)
		if err != nil || n == 0 {
			return false, err
		}
		if k := len(buf[:n]) - len(bytes.TrimLeft(buf[:n], "\x00")); k < n {
			at += int64(k)
			tail := make([]byte, min(at, printBytes))
			if n, err := readFull(t.f, tail, at-int64(len(tail))); err != nil || n < len(tail) {
				return false, errors.Join(err, errChanged)
			}
			t.cur.Offset, t.cur.Tail, t.tail, t.cur.Cut = at, fingerprintOf(tail), tail, false
			return true, nil
		}
		at += int64(n)
	}
	t.due = time.Time{}
	t.behind(false, false, 0, size, t.seen.mod)
	return false, nil
}

// take makes records of the bytes at the position and hands them on. It
// returns how many bytes it took. t.mu is held.
func (t *file) take(data []byte, final bool) int {
	skip := 0
	if t.cur.Cut && len(data) > 0 && data[0] == '\n' {
		skip = 1 // it ends a line that was taken without it
	}
	if err := t.prepare(data[skip:]); err != nil {
		t.trouble(err.Error())
		return 0
	}
	recs, n := t.reader.Next(make([]event.Record, 0, len(data)/typicalRecord+1), data[skip:], final)
	if n += skip; n == 0 {
		return 0
	}
	t.cur.Copy = false
	t.cur.Cut = n > skip && data[n-1] != '\n'
	t.tail = tailOf(t.tail, data[:n])
	t.cur.Marks = addMarks(t.cur.Marks, t.cur.Offset, data[:n], t.tail)
	t.cur.Offset += int64(n)
	t.cur.Tail = fingerprintOf(t.tail)
	t.cur.State = t.reader.State()
	if t.cur.Since != 0 {
		recs = since(recs, t.cur.Since)
		if t.cur.Offset >= t.seen.size && t.cur.Packed == "" || t.cur.Done {
			t.cur.Since = 0 // everything that was there has been read once
		}
	}
	t.behind(t.cur.Packed != "", t.cur.Done, t.seen.size-t.cur.Offset, t.seen.size, t.seen.mod)
	t.c.out.add(&t.meter, n, Batch{Key: t.key, Origin: t.origin, Records: recs, Cursor: t.cur.encode()})
	return n
}

// typicalRecord is the length in bytes of a record of most logs.
const typicalRecord = 100

// since leaves out the records with an older time of their own.
func since(recs []event.Record, t int64) []event.Record {
	kept := recs[:0]
	for _, r := range recs {
		if r.Time >= t || r.Clock == event.ClockNone {
			kept = append(kept, r)
		}
	}
	return kept
}

// beforeHole returns what is before NULs at the beginning of a record.
func beforeHole(b []byte) []byte {
	if bytes.IndexByte(b, 0) < 0 {
		return b
	}
	if i := bytes.Index(b, []byte("\n\x00")); i >= 0 {
		return b[:i+1]
	}
	return b
}

// settleBytes is how much of a file is looked at until its format is settled.
const settleBytes = 64 << 10

// prepare finds the format and makes its reader. t.mu is held.
func (t *file) prepare(sample []byte) error {
	if t.reader != nil && t.settled {
		t.reader.SetModTime(time.Unix(0, t.seen.mod))
		return nil
	}
	name := t.spec.Format
	if t.spec.Kind == Utmp {
		name = utmpFormat
	}
	if name == "" && (t.cur.Format == "" || t.cur.Format == plain && t.cur.Offset < settleBytes) {
		stem, _ := Stem(t.cur.Path)
		name = t.c.formats.detect(stem, sample)
	}
	if name == "" {
		name = t.cur.Format
	}
	if name == "" {
		name = plain
	}
	t.settled = t.spec.Format != "" || name == utmpFormat || t.cur.Offset+int64(len(sample)) >= settleBytes
	if t.reader != nil && name == t.cur.Format {
		return nil
	}
	state := t.cur.State
	if name != t.cur.Format {
		state = nil
	}
	r, err := t.c.formats.reader(name, t.spec.Zone, time.Unix(0, t.seen.mod), state)
	if err != nil {
		return err
	}
	t.reader, t.cur.Format, t.origin.Format = r, name, name
	t.formatted(name)
	return nil
}

// readPacked takes records off a compressed file. t.mu is held.
func (t *file) readPacked() (more bool, err error) {
	if t.un == nil {
		if t.cur.Done {
			return false, nil
		}
		if t.un, err = unpack(t.f, t.cur.Packed); err == nil {
			var tail []byte
			tail, err = t.un.skip(t.cur.Offset)
			if err == nil && !t.cur.Tail.of(tail[len(tail)-min(t.cur.Tail.Len, len(tail)):]) {
				return false, errChanged
			}
			t.tail = tail
		}
		if err != nil {
			return false, t.unfinished(err)
		}
	}
	for limit := turnBytes; ; {
		buf := make([]byte, limit)
		n := copy(buf, t.rest)
		for n < limit && err == nil {
			var m int
			m, err = t.un.Read(buf[n:])
			n += m
		}
		if k := n - len(bytes.TrimLeft(buf[:n], "\x00")); k > 0 {
			t.cur.Offset += int64(k)
			t.tail = tailOf(t.tail, buf[:k])
			t.cur.Tail = fingerprintOf(t.tail)
			if buf, n = buf[k:], n-k; n == 0 && err == nil {
				t.rest = nil
				continue
			}
		}
		end := err == io.EOF
		data := beforeHole(buf[:n])
		holed := len(data) < n
		t.cur.Done = end && !holed
		taken := t.take(data, end || holed)
		if taken == 0 && limit == largeTurn && n == len(buf) {
			taken = t.take(data, true)
		}
		t.rest = append([]byte(nil), buf[taken:n]...)
		switch {
		case holed:
			return true, nil
		case end:
			t.cur.Since = 0
			t.behind(true, true, 0, t.seen.size, t.seen.mod)
			t.keep()
			return false, nil
		case err != nil:
			return false, t.unfinished(err)
		case taken > 0:
			return true, nil
		}
		limit = largeTurn
	}
}

// unfinished is the error for a compressed file that has no end yet, which is
// none while it is written. t.mu is held.
func (t *file) unfinished(err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) {
		if t.quiet() < copyStable {
			t.close()
			return nil
		}
		return errors.New("the compressed file has no end: what is there was read")
	}
	return fmt.Errorf("the compressed file is damaged behind byte %d of its content: %w", t.cur.Offset, err)
}

// keep hands on the cursor without records. t.mu is held.
func (t *file) keep() {
	t.c.out.add(&t.meter, 0, Batch{Key: t.key, Origin: t.origin, Cursor: t.cur.encode()})
}

// detach notes that the inode holds something else now. What was not read may
// be found in a copy. t.mu is held.
func (t *file) detach() {
	t.close()
	t.cur.Detached, t.due = true, time.Time{}
	t.keep()
}
