package seal

import (
	"crypto/cipher"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"sync/atomic"

	"github.com/mobileops/mobileops/internal/failure"
)

// Options say how an object is sealed. The zero value is good.
type Options struct {
	Workers int // how many segments are sealed at once; 0: as many as there are processors
	// Keys is how many recipients and key files the header is to have room for,
	// so that a later Rewrap can add some; 0: twice those given now, and what
	// else fits into 4 KiB (16 age recipients).
	Keys int
}

// Writer seals what is written to it. It holds up to 2×Workers+2 MiB, and is
// not for use by several goroutines at once.
//
// An object is whole only when Close returned nil. Whoever cannot write all of
// the content calls Abort, never Close: an object that Close ended is
// authentic, however little was written.
type Writer struct {
	w        io.Writer
	aead     cipher.AEAD
	options  Options
	current  *job // being filled, or nil
	index    int64
	pipe     *pipeline     // nil until a first segment is full
	written  chan struct{} // closed when the goroutine that writes is done
	failed   atomic.Pointer[error]
	finished bool
}

// NewWriter begins a sealed object: it writes the header to w and returns what
// seals the content. The context says what the object is, such as "logs
// segment 17"; it is readable in the file, and Open wants the same. The
// object can be opened by every one of to.
func NewWriter(w io.Writer, context string, to []Recipient, o Options) (*Writer, error) {
	if len(context) > maxContext {
		return nil, failure.Errorf(failure.Usage, "a context of %d bytes; at most %d", len(context), maxContext)
	}
	p := &preamble{context: context}
	dataKey := make([]byte, keySize)
	defer clear(dataKey)
	rand.Read(p.nonce[:]) // never fails: crypto/rand.Read
	rand.Read(dataKey)
	stanzas, err := wrapAll(dataKey, p, to)
	if err != nil {
		return nil, err
	}
	p.slotSize = slotSizeFor(stanzas, o.Keys)
	s := slot{sequence: 1, stanzas: stanzas}
	b, err := s.encode(p, dataKey)
	if err != nil {
		return nil, err
	}
	aead, err := payloadCipher(p, dataKey)
	if err != nil {
		return nil, err
	}
	header := make([]byte, preambleSize, p.headerSize())
	copy(header, p.encode())
	copy(header[fixedSize:], stateWhole)
	header = append(append(header, b...), b...)
	if err := writeAll(w, header); err != nil {
		return nil, err
	}
	return &Writer{w: w, aead: aead, options: o}, nil
}

// slotSizeFor returns the size of slots for these stanzas and for as many keys
// as are wanted later, within the limits.
func slotSizeFor(stanzas []stanza, keys int) int {
	need := 0
	for _, s := range stanzas {
		need += 4 + len(s.body)
	}
	if keys == 0 {
		keys = 2 * len(stanzas)
	}
	room := max(need, (need*keys+len(stanzas)-1)/len(stanzas))
	slots := (slotHead + room + macSize + slotUnit - 1) / slotUnit
	return min(slots*slotUnit, maxSlot)
}

func writeAll(w io.Writer, b []byte) error {
	n, err := w.Write(b)
	if err == nil && n < len(b) {
		err = io.ErrShortWrite
	}
	return err
}

// Write seals p. An error can be that of an earlier Write: the segments are
// written behind its back.
func (w *Writer) Write(p []byte) (int, error) {
	total := 0
	for len(p) > 0 {
		if err := w.ready(); err != nil {
			return total, err
		}
		j := w.current
		n := copy(j.buf[len(j.buf):SegmentSize], p)
		j.buf = j.buf[:len(j.buf)+n]
		p = p[n:]
		total += n
	}
	return total, w.err()
}

// ReadFrom seals all of r, reading right into the segments. io.Copy uses it.
func (w *Writer) ReadFrom(r io.Reader) (int64, error) {
	var total int64
	for {
		if w.current != nil && len(w.current.buf) == SegmentSize {
			// The next segment must not be begun for nothing: an empty one may
			// not follow. Whether r has more is seen by reading one byte.
			var one [1]byte
			n, err := readSome(r, one[:])
			if n > 0 {
				if _, err := w.Write(one[:]); err != nil {
					return total, err
				}
				total++
			}
			if err != nil {
				return total, ended(err)
			}
			continue
		}
		if err := w.ready(); err != nil {
			return total, err
		}
		j := w.current
		n, err := readSome(r, j.buf[len(j.buf):SegmentSize])
		j.buf = j.buf[:len(j.buf)+n]
		total += int64(n)
		if err != nil {
			return total, ended(err)
		}
	}
}

// readSome is Read, but gives up on a reader that returns nothing again and again.
func readSome(r io.Reader, b []byte) (int, error) {
	for range 100 {
		if n, err := r.Read(b); n > 0 || err != nil {
			return n, err
		}
	}
	return 0, io.ErrNoProgress
}

func ended(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// ready makes sure that the current segment has room. A full one is handed on
// only now that more comes: the last one is sealed differently.
func (w *Writer) ready() error {
	if w.finished {
		return fmt.Errorf("write to a sealed object: %w", fs.ErrClosed)
	}
	if err := w.err(); err != nil {
		return err
	}
	if w.current != nil && len(w.current.buf) == SegmentSize {
		if w.index == maxSegments-1 {
			return failure.Errorf(failure.Usage, "a sealed object holds at most %d TiB", int64(maxSegments)*SegmentSize>>40)
		}
		w.hand(false)
	}
	if w.current == nil {
		if w.pipe == nil {
			w.current = newJob()
		} else {
			w.current = w.pipe.take(nil)
		}
	}
	return nil
}

// hand gives the current segment to the workers.
func (w *Writer) hand(last bool) {
	if w.pipe == nil {
		w.pipe = newPipeline(w.options.Workers, w.seal)
		w.pipe.made = 1 // the current one
		w.written = make(chan struct{})
		go w.writeOut()
	}
	j := w.current
	j.index, j.last = w.index, last
	w.current = nil
	w.index++
	w.pipe.submit(j)
}

// seal seals a segment in place.
func (w *Writer) seal(j *job) {
	j.buf = w.aead.Seal(j.buf[:0], segmentNonce(j.index, j.last), j.buf, nil)
}

// writeOut writes sealed segments in their order. After a failure it only
// empties the pipeline.
func (w *Writer) writeOut() {
	defer close(w.written)
	for j := range w.pipe.order {
		<-j.done
		if w.err() == nil {
			if err := writeAll(w.w, j.buf); err != nil {
				w.failed.Store(&err)
			}
		}
		j.buf = j.buf[:0]
		w.pipe.free <- j
	}
}

func (w *Writer) err() error {
	if err := w.failed.Load(); err != nil {
		return *err
	}
	return nil
}

// Close seals the last segment and waits until everything is written to the
// underlying writer, which it does not close. Called again, it only returns
// fs.ErrClosed.
func (w *Writer) Close() error {
	if w.finished {
		return fmt.Errorf("close a sealed object: %w", fs.ErrClosed)
	}
	if err := w.err(); err != nil {
		w.Abort()
		return err
	}
	if w.current == nil {
		w.current = newJob() // an empty object has one empty segment
	}
	w.finished = true
	if w.pipe == nil {
		j := w.current
		j.index, j.last = 0, true
		w.seal(j)
		return writeAll(w.w, j.buf)
	}
	w.hand(true)
	w.pipe.finish()
	<-w.written
	return w.err()
}

// Abort ends the writer without ending the object: what was written can never
// be opened. After Close it does nothing, so it can be deferred.
func (w *Writer) Abort() {
	if w.finished {
		return
	}
	w.finished = true
	if w.pipe != nil {
		err := fmt.Errorf("seal: %w", fs.ErrClosed)
		w.failed.CompareAndSwap(nil, &err)
		w.pipe.finish()
		<-w.written
	}
}
