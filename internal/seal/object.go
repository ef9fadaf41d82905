package seal

import (
	"fmt"
	"io"
	"slices"
	"sync"

	"github.com/mobileops/mobileops/internal/failure"
)

// Object is a sealed object that was opened. All of its methods can be called
// by several goroutines at once.
type Object struct {
	payload
	context     string
	interrupted bool
	cache       cache
}

// Open opens the sealed file r of size bytes. It authenticates the header and
// the last segment, so that Size is true. The context must be that of
// NewWriter.
//
// Errors: ErrNotSealed, ErrNewer, ErrNoKey, *CorruptError, or that of reading.
func Open(r io.ReaderAt, size int64, context string, ids []Identity) (*Object, error) {
	h, err := readHeader(r, size, ids, false)
	if err != nil {
		return nil, err
	}
	defer clear(h.dataKey)
	if h.context != context {
		return nil, corruptHeader(atContext, "it is %q, and not %q", h.context, context)
	}
	o := &Object{context: h.context, interrupted: h.interrupted}
	o.r, o.offset = r, int64(h.headerSize())
	var ok bool
	if o.segments, o.size, ok = geometry(size - o.offset); !ok {
		return nil, &CorruptError{o.segments, o.offset, fmt.Sprintf("no object has %d bytes behind its header: cut off, or something was appended", size-o.offset)}
	}
	if o.aead, err = payloadCipher(&h.preamble, h.dataKey); err != nil {
		return nil, err
	}
	e, err := o.cache.get(&o.payload, o.segments-1)
	if err != nil {
		return nil, err
	}
	o.cache.release(e)
	return o, nil
}

// Size returns the length of the plaintext in bytes.
func (o *Object) Size() int64 { return o.size }

// Interrupted reports whether a Rewrap of the file is under way or was
// interrupted. The object is whole, but the keys from before may still open
// it: Rewrap is to be called again.
func (o *Object) Interrupted() bool { return o.interrupted }

// ReadAt reads plaintext, as io.ReaderAt does. It opens only the segments that
// it touches, and keeps the four used last.
func (o *Object) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, failure.Errorf(failure.Usage, "read a sealed object at %d: before its beginning", off)
	}
	total := 0
	for len(p) > 0 && off < o.size {
		index, skip := off/SegmentSize, int(off%SegmentSize)
		n, err := o.readSegment(p, index, skip)
		total += n
		if err != nil {
			return total, err
		}
		p, off = p[n:], off+int64(n)
	}
	if len(p) > 0 {
		return total, io.EOF
	}
	return total, nil
}

// readSegment reads from one segment into p, skipping its first bytes.
func (o *Object) readSegment(p []byte, index int64, skip int) (int, error) {
	if n := o.plainLen(index); skip == 0 && len(p) >= n && !o.cache.has(index) {
		// All of it is wanted: it goes where it is wanted, and the cache is
		// left to those who read parts.
		buf := buffers.Get().(*[]byte)
		defer buffers.Put(buf)
		plain, err := o.open(index, p[:n:n], *buf)
		return len(plain), err
	}
	e, err := o.cache.get(&o.payload, index)
	if err != nil {
		return 0, err
	}
	defer o.cache.release(e)
	return copy(p, e.plain[skip:]), nil
}

// buffers are those for sealed segments that are opened elsewhere.
var buffers = sync.Pool{New: func() any {
	b := make([]byte, SegmentSize+tagSize)
	return &b
}}

// cacheSize is how many opened segments an object keeps: enough for a few
// readers, each of which goes forward.
const cacheSize = 4

// cache keeps the segments used last. One that is asked for by several
// goroutines is opened once.
type cache struct {
	mu      sync.Mutex
	entries []*entry // the one used last comes last
	spare   [][]byte
}

type entry struct {
	index int64
	users int
	stale bool // no longer in entries; its buffer is spare when nobody uses it
	once  sync.Once
	buf   []byte
	plain []byte
	err   error
}

// get returns a segment, opened. The caller releases it.
func (c *cache) get(p *payload, index int64) (*entry, error) {
	e := c.find(index)
	e.once.Do(func() {
		if e.buf == nil {
			e.buf = make([]byte, p.plainLen(0)+tagSize) // no segment is longer than the first
		}
		e.plain, e.err = p.open(index, nil, e.buf)
	})
	if e.err != nil {
		c.drop(e)
		return nil, e.err
	}
	return e, nil
}

// has reports whether a segment is in the cache or on its way there.
func (c *cache) has(index int64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.ContainsFunc(c.entries, func(e *entry) bool { return e.index == index })
}

// find returns the entry of a segment with one more user, and moves it to the
// end; without one it makes one that is yet to be opened.
func (c *cache) find(index int64) *entry {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, e := range c.entries {
		if e.index == index {
			copy(c.entries[i:], c.entries[i+1:])
			c.entries[len(c.entries)-1] = e
			e.users++
			return e
		}
	}
	if len(c.entries) == cacheSize {
		c.remove(c.entries[0])
	}
	e := &entry{index: index, users: 1}
	if n := len(c.spare); n > 0 {
		e.buf, c.spare = c.spare[n-1], c.spare[:n-1]
	}
	c.entries = append(c.entries, e)
	return e
}

// remove takes an entry out of the cache; c.mu is held.
func (c *cache) remove(e *entry) {
	if i := slices.Index(c.entries, e); i >= 0 {
		c.entries = slices.Delete(c.entries, i, i+1)
		e.stale = true
		c.recycle(e)
	}
}

// recycle keeps the buffer of an entry that nobody sees any more; c.mu is held.
func (c *cache) recycle(e *entry) {
	if e.stale && e.users == 0 && e.buf != nil && len(c.spare) < cacheSize {
		c.spare = append(c.spare, e.buf)
		e.buf, e.plain = nil, nil
	}
}

// release ends the use of an entry.
func (c *cache) release(e *entry) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e.users--
	c.recycle(e)
}

// drop takes out an entry that could not be opened, so that the next reader
// tries again: what failed may have been the disk.
func (c *cache) drop(e *entry) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.remove(e)
	e.users--
	c.recycle(e)
}
