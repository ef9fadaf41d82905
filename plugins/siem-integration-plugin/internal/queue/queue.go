// Package queue keeps events on disk until every destination has them.
//
// The queue is a sequence of records, numbered from 1. It lies in segment
// files, which are only ever appended to. Each destination reads it at its own
// speed and writes down how far it came (Cursor). A segment that all have
// passed is removed. What is in the queue was fsynced before Append returned,
// so that the sender may forget it; many events share one fsync.
//
// The files of a queue directory:
//
//	00000000000000000001.seg   records from number 1 on (segment.go)
//	cursors/NAME               how far a destination came (cursor.go)
//	cursors/NAME.note          what it has to remember beside that (note.go)
//	window                     ids of records whose segments are gone (window.go)
//
// A sender that was not told about an Append sends the same events again. The
// queue knows the ids of the last records and leaves such doubles out.
//
// A crash can leave half a record at the end: it was never acknowledged, and is
// cut off. A record whose checksum is wrong anywhere else is skipped and
// counted; what follows it is still found. When the queue is as large as it may
// be, Append says ErrFull: nothing is thrown away, the sender has to wait.
package queue

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
)

// Errors of a queue.
var (
	ErrFull   = errors.New("the queue is as large as it may be")
	ErrClosed = errors.New("the queue is closed")
	ErrBusy   = errors.New("another process has the queue open")
)

// Limits. A segment is the unit in which room is given back.
const (
	MaxRecord      = 2 << 20 // bytes of an event; a line of the protocol has at most half of it
	MaxID          = 512     // bytes of an id
	largestSegment = 64 << 20
	WindowSize     = 8192 // ids that are remembered; the host sends at most two batches again
)

// Record is an event to be queued.
type Record struct {
	ID  string // unique and stable; at most MaxID bytes
	Raw []byte // the event, as it will be given back; at most MaxRecord bytes
}

// Queue is an open queue. Its methods may be called by many goroutines.
type Queue struct {
	dir     string
	lock    *os.File
	maxSize int64

	appending sync.Mutex // one Append at a time; the fsync happens without mu
	buf       []byte

	mu       sync.Mutex
	segments []*segment // in order; the last one is written to
	next     uint64     // number of the next record
	seen     *window
	cursors  map[string]*Cursor
	changed  chan struct{} // closed and made anew when there is more to read, or more room
	closed   bool
	cut      int64  // bytes of a torn end that Open cut off
	doubles  uint64 // events left out because they were here already
}

// Open opens the queue in dir, which is made when it is missing, for the
// destinations that are named; what others still had to get is forgotten. It
// keeps at most maxSize bytes of segments. Only one process may have it open:
// a second one gets an error that wraps ErrBusy.
func Open(dir string, maxSize int64, destinations []string) (_ *Queue, err error) {
	if err := os.MkdirAll(filepath.Join(dir, "cursors"), 0o700); err != nil {
		return nil, fmt.Errorf("open queue: %w", err)
	}
	q := &Queue{dir: dir, maxSize: maxSize, next: 1, cursors: map[string]*Cursor{}, changed: make(chan struct{})}
	if q.lock, err = lock(dir); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			q.closeFiles()
		}
	}()
	if q.seen, err = readWindow(dir); err != nil {
		return nil, err
	}
	if q.segments, err = listSegments(dir); err != nil {
		return nil, err
	}
	if n := len(q.segments); n > 0 {
		if q.next, q.cut, err = q.segments[n-1].recover(); err != nil {
			return nil, err
		}
	} else if err = q.rotate(q.seen.next); err != nil {
		return nil, err
	}
	if err = q.remember(); err != nil {
		return nil, err
	}
	if err = q.forget(destinations); err != nil {
		return nil, err
	}
	for _, name := range destinations {
		if err = q.openCursor(name); err != nil {
			return nil, err
		}
	}
	return q, nil
}

// remember takes the ids of the last records into the window.
func (q *Queue) remember() error {
	var start uint64 = 1
	if q.next > WindowSize {
		start = q.next - WindowSize
	}
	at := Position{Seq: start}
	r := reader{q: q, at: at, buf: make([]byte, 1<<20)}
	for r.at.Seq < q.next {
		got, err := r.read(nil, 1024)
		if err != nil {
			return err
		}
		for i := range got {
			q.seen.add(string(got[i].ID))
		}
	}
	return nil
}

// Append adds records that are not in the queue yet, in order, and returns
// when they are on the disk. It returns how many it added. With ErrFull none
// was added; the same call can be made again when Changed says so.
func (q *Queue) Append(records []Record) (int, error) {
	q.appending.Lock()
	defer q.appending.Unlock()
	q.mu.Lock()
	if q.closed {
		q.mu.Unlock()
		return 0, ErrClosed
	}
	next, doubles := q.next, uint64(0)
	fresh := make([]string, 0, len(records))
	var batch map[string]bool // only when one batch could have doubles in itself
	if len(records) > 1 {
		batch = make(map[string]bool, len(records))
	}
	q.buf = q.buf[:0]
	for i := range records {
		r := &records[i]
		if len(r.ID) > MaxID || len(r.Raw) > MaxRecord {
			q.mu.Unlock()
			return 0, fmt.Errorf("event %.80q: %d bytes of id and %d of content are more than the queue takes", r.ID, len(r.ID), len(r.Raw))
		}
		if q.seen.has(r.ID) || batch[r.ID] {
			doubles++
			continue
		}
		if batch != nil {
			batch[r.ID] = true
		}
		q.buf = appendRecord(q.buf, next, r.ID, r.Raw)
		fresh = append(fresh, r.ID)
		next++
	}
	if len(fresh) == 0 {
		q.doubles += doubles
		q.mu.Unlock()
		return 0, nil
	}
	seg, err := q.room(int64(len(q.buf)))
	q.mu.Unlock()
	if err != nil {
		return 0, err
	}
	if err := seg.append(q.buf); err != nil {
		return 0, err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	seg.end += int64(len(q.buf))
	q.next = next
	q.doubles += doubles
	for _, id := range fresh {
		q.seen.add(id)
	}
	q.wake()
	return len(fresh), nil
}

// room returns the segment that the next n bytes go to. It holds mu.
func (q *Queue) room(n int64) (*segment, error) {
	last := q.segments[len(q.segments)-1]
	if last.broken || last.end > headerSize && last.end+n > min(largestSegment, q.maxSize/8) {
		if err := q.rotate(q.next); err != nil {
			return nil, err
		}
		last = q.segments[len(q.segments)-1]
	}
	if q.size()+n > q.maxSize {
		if err := q.reclaim(); err != nil {
			return nil, err
		}
	}
	// A batch larger than the whole queue is taken by an empty one.
	if q.size()+n > q.maxSize && (len(q.segments) > 1 || last.end > headerSize) {
		return nil, ErrFull
	}
	return last, nil
}

// rotate starts the segment whose first record will be number first.
func (q *Queue) rotate(first uint64) error {
	if n := len(q.segments); n > 0 && q.segments[n-1].first == first && !q.segments[n-1].broken {
		return nil
	}
	s, err := createSegment(q.dir, first)
	if err != nil {
		return err
	}
	q.segments = append(q.segments, s)
	q.next = first
	return nil
}

func (q *Queue) size() int64 {
	var n int64
	for _, s := range q.segments {
		n += s.end
	}
	return n
}

// reclaim removes the segments that every destination has passed, except the
// one that is written to. It holds mu.
func (q *Queue) reclaim() error {
	passed := q.next
	for _, c := range q.cursors {
		passed = min(passed, c.at.Seq)
	}
	n := 0
	for n+1 < len(q.segments) && q.segments[n+1].first <= passed {
		n++
	}
	if n == 0 {
		return nil
	}
	// First the ids, then the records they stand in; and the cursors, so that
	// none points into what is gone.
	for _, c := range q.cursors {
		if err := c.sync(); err != nil {
			return err
		}
	}
	if err := q.seen.write(q.dir, q.next); err != nil {
		return err
	}
	for _, s := range q.segments[:n] {
		if err := s.remove(); err != nil {
			return err
		}
	}
	q.segments = slices.Delete(q.segments, 0, n)
	return nil
}

// wake tells everybody who waits to look again. It holds mu.
func (q *Queue) wake() {
	close(q.changed)
	q.changed = make(chan struct{})
}

// Changed returns a channel that is closed when there are more records, or
// there is more room, than at the time of the call.
func (q *Queue) Changed() <-chan struct{} {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.changed
}

// Status is what the queue is like.
type Status struct {
	Records uint64            `json:"records"`  // that some destination still has to get
	Bytes   int64             `json:"bytes"`    // of segments on the disk
	Limit   int64             `json:"limit"`    // of bytes
	Next    uint64            `json:"next"`     // number of the next record
	Behind  map[string]uint64 `json:"behind"`   // records that each destination still has to get
	Corrupt uint64            `json:"corrupt"`  // records skipped since the start
	Doubles uint64            `json:"doubles"`  // events that came again and were left out
	Cut     int64             `json:"cut_tail"` // bytes of half a record at the end, cut off at the start
}

// Status returns what the queue is like now.
func (q *Queue) Status() Status {
	q.mu.Lock()
	defer q.mu.Unlock()
	s := Status{Bytes: q.size(), Limit: q.maxSize, Next: q.next, Behind: map[string]uint64{}, Doubles: q.doubles, Cut: q.cut}
	for name, c := range q.cursors {
		s.Behind[name] = q.next - min(q.next, c.at.Seq)
		s.Records = max(s.Records, s.Behind[name])
		s.Corrupt = max(s.Corrupt, c.corrupt)
	}
	return s
}

// Close writes the cursors down and closes the files.
func (q *Queue) Close() error {
	q.appending.Lock()
	defer q.appending.Unlock()
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return nil
	}
	q.closed = true
	err := q.reclaim()
	for _, c := range q.cursors {
		err = errors.Join(err, c.sync(), c.note.sync())
	}
	q.wake()
	return errors.Join(err, q.closeFiles())
}

func (q *Queue) closeFiles() (err error) {
	for _, s := range q.segments {
		err = errors.Join(err, s.f.Close())
	}
	for _, c := range q.cursors {
		err = errors.Join(err, c.f.Close(), c.note.f.Close())
	}
	return errors.Join(err, q.lock.Close())
}
