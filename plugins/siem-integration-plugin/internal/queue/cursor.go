package queue

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"
)

// Position is a place in the queue: before the record with the number Seq.
type Position struct {
	Seq uint64
	// Where the record is, as far as that is known; checked at use.
	segment uint64
	offset  int64
}

// Entry is a record that was read.
type Entry struct {
	Seq  uint64
	ID   []byte
	Raw  []byte
	At   Position // before it
	Next Position // after it
}

// Cursor is how far a destination came. What was committed is what it has for
// sure; reading goes on ahead of that. One goroutine may read while another
// commits.
type Cursor struct {
	q *Queue
	f *os.File

	note *note // under q.mu

	r reader // of the goroutine that reads

	// Under q.mu.
	at         Position
	corrupt    uint64
	generation uint64
	dirty      bool
}

// The file of a cursor has two slots of slotSize bytes, written in turns, so
// that a write that was cut short leaves the other one: cursorMagic, the number
// of the write, the three numbers of the position, CRC-32C.
const (
	cursorMagic = "MOQCUR1\n"
	slotSize    = 64
)

// Cursor returns the cursor of a destination that was named to Open.
func (q *Queue) Cursor(name string) *Cursor { return q.cursors[name] }

// openCursor opens the cursor of a destination. One that has none starts at
// the end of the queue. One whose file is damaged starts at its beginning,
// since sending twice is better than not sending.
func (q *Queue) openCursor(name string) error {
	path := filepath.Join(q.dir, "cursors", name)
	c := &Cursor{q: q, at: Position{Seq: q.next}}
	_, err := os.Stat(path)
	fresh := errors.Is(err, os.ErrNotExist)
	if c.f, err = os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600); err != nil {
		return fmt.Errorf("open queue: %w", err)
	}
	if c.note, err = openNote(notePath(q.dir, name)); err != nil {
		c.f.Close()
		return err
	}
	if !fresh {
		c.at = Position{Seq: q.segments[0].first}
		c.load()
	}
	if c.at.Seq > q.next { // the end of the queue was lost; what is left of it was delivered
		c.at = Position{Seq: q.next}
	}
	c.r = reader{q: q, at: c.at, buf: make([]byte, 256<<10), c: c}
	if err = c.write(); err == nil {
		if err = c.sync(); err == nil {
			err = syncDir(filepath.Dir(path))
		}
	}
	if err != nil {
		c.f.Close()
		c.note.f.Close()
		return fmt.Errorf("open queue: %w", err)
	}
	q.cursors[name] = c
	return nil
}

// forget removes the cursors and notes of destinations that are not among keep, so that
// they hold no segment back.
func (q *Queue) forget(keep []string) error {
	entries, err := os.ReadDir(filepath.Join(q.dir, "cursors"))
	if err != nil {
		return fmt.Errorf("open queue: %w", err)
	}
	for _, e := range entries {
		if slices.Contains(keep, strings.TrimSuffix(e.Name(), noteSuffix)) {
			continue
		}
		if err := os.Remove(filepath.Join(q.dir, "cursors", e.Name())); err != nil {
			return fmt.Errorf("open queue: %w", err)
		}
	}
	return nil
}

// load takes the newer slot that is whole.
func (c *Cursor) load() {
	var b [2 * slotSize]byte
	n, _ := c.f.ReadAt(b[:], 0)
	for _, slot := range [][]byte{b[:slotSize], b[slotSize:]} {
		if n == 0 || string(slot[:8]) != cursorMagic || crc32.Checksum(slot[:40], castagnoli()) != binary.LittleEndian.Uint32(slot[40:]) {
			continue
		}
		if g := binary.LittleEndian.Uint64(slot[8:]); g > c.generation {
			c.generation = g
			c.at = Position{
				Seq:     binary.LittleEndian.Uint64(slot[16:]),
				segment: binary.LittleEndian.Uint64(slot[24:]),
				offset:  int64(binary.LittleEndian.Uint64(slot[32:])),
			}
		}
	}
}

func (c *Cursor) write() error {
	c.generation++
	b := append(make([]byte, 0, slotSize), cursorMagic...)
	for _, v := range []uint64{c.generation, c.at.Seq, c.at.segment, uint64(c.at.offset)} {
		b = binary.LittleEndian.AppendUint64(b, v)
	}
	b = binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli()))
	_, err := c.f.WriteAt(b[:slotSize], int64(c.generation%2)*slotSize)
	c.dirty = true
	return err
}

func (c *Cursor) sync() error {
	if !c.dirty {
		return nil
	}
	c.dirty = false
	return fdatasync(c.f)
}

// At returns what was committed.
func (c *Cursor) At() Position {
	c.q.mu.Lock()
	defer c.q.mu.Unlock()
	return c.at
}

// Commit says that the destination has everything before p. It is written
// down at once, and survives the end of the process; a power cut may take what
// came after the last Sync.
func (c *Cursor) Commit(p Position) error {
	q := c.q
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return ErrClosed
	}
	if p.Seq <= c.at.Seq {
		return nil
	}
	before := c.at
	c.at = p
	if err := c.write(); err != nil {
		return fmt.Errorf("queue: %w", err)
	}
	if len(q.segments) > 1 && before.Seq < q.segments[1].first && p.Seq >= q.segments[1].first {
		if err := q.reclaim(); err != nil {
			return err
		}
		q.wake()
	}
	return nil
}

// Sync makes all cursors survive a power cut.
func (q *Queue) Sync() error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return ErrClosed
	}
	var err error
	for _, c := range q.cursors {
		err = errors.Join(err, c.sync(), c.note.sync())
	}
	return err
}

// Rewind lets reading go on where the last Commit was.
func (c *Cursor) Rewind() { c.r.at = c.At() }

// Read appends up to max records to dst and waits until there is one. The
// entries are valid until the next call.
func (c *Cursor) Read(ctx context.Context, dst []Entry, max int) ([]Entry, error) {
	for {
		c.q.mu.Lock()
		ch, closed := c.q.changed, c.q.closed
		c.q.mu.Unlock()
		if closed {
			return dst, ErrClosed
		}
		got, err := c.r.read(dst, max)
		if err != nil || len(got) > len(dst) {
			return got, err
		}
		select {
		case <-ch:
		case <-ctx.Done():
			return dst, ctx.Err()
		}
	}
}

// TryRead is Read, but does not wait.
func (c *Cursor) TryRead(dst []Entry, max int) ([]Entry, error) { return c.r.read(dst, max) }

// reader reads records from a position on.
type reader struct {
	q   *Queue
	c   *Cursor // whose corrupt records are counted, or nil
	at  Position
	buf []byte
}

// read appends to dst the records of one piece of a segment: at most max, none
// when the reader is at the end. Damaged records are skipped.
func (r *reader) read(dst []Entry, max int) ([]Entry, error) {
	for {
		f, end, last := r.locate()
		if f == nil {
			return dst, nil
		}
		if r.at.offset >= end {
			r.skipTo(last) // the next segment, or what is not readable at the end
			continue
		}
		n, err := f.ReadAt(r.buf[:min(int64(len(r.buf)), end-r.at.offset)], r.at.offset)
		if n == 0 {
			return dst, fmt.Errorf("queue: read %s: %w", f.Name(), err)
		}
		got := len(dst)
		used := 0
		for used < n && len(dst)-got < max {
			e, size, state := parseRecord(r.buf[used:n])
			if state == recordPart && r.at.offset+int64(n-used) < end {
				if used > 0 {
					break
				}
				r.buf = make([]byte, 2*len(r.buf))
				break
			}
			if state != recordWhole {
				step := 1 + nextMagic(r.buf[used+1:n])
				used += step
				r.at.offset += int64(step)
				continue
			}
			used += size
			before := r.at.offset
			r.at.offset += int64(size)
			if e.Seq < r.at.Seq {
				continue // looked for from the beginning of the segment
			}
			r.lost(e.Seq - r.at.Seq)
			e.At = Position{Seq: e.Seq, segment: r.at.segment, offset: before}
			r.at.Seq = e.Seq + 1
			e.Next = r.at
			dst = append(dst, e)
		}
		if len(dst) > got {
			return dst, nil
		}
	}
}

// locate finds the segment of the position, and its end. It returns no file
// when there is nothing to read. last is the number of the first record after
// the segment.
func (r *reader) locate() (f *os.File, end int64, last uint64) {
	q := r.q
	q.mu.Lock()
	defer q.mu.Unlock()
	if r.at.Seq >= q.next || len(q.segments) == 0 {
		return nil, 0, 0
	}
	i := sort.Search(len(q.segments), func(i int) bool { return q.segments[i].first > r.at.Seq }) - 1
	if i < 0 {
		i = 0
		r.lostLocked(q.segments[0].first - r.at.Seq)
		r.at = Position{Seq: q.segments[0].first}
	}
	s := q.segments[i]
	if r.at.segment != s.first || r.at.offset < headerSize || r.at.offset > s.end {
		r.at.segment, r.at.offset = s.first, headerSize
	}
	last = q.next
	if i+1 < len(q.segments) {
		last = q.segments[i+1].first
	}
	return s.f, s.end, last
}

// skipTo goes on with record number seq, and counts those before it as lost.
func (r *reader) skipTo(seq uint64) {
	r.lost(seq - r.at.Seq)
	r.at = Position{Seq: seq}
}

func (r *reader) lost(n uint64) {
	if n == 0 || r.c == nil {
		return
	}
	r.q.mu.Lock()
	defer r.q.mu.Unlock()
	r.lostLocked(n)
}

func (r *reader) lostLocked(n uint64) {
	if r.c != nil {
		r.c.corrupt += n
	}
}
