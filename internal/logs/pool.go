package logs

import (
	"container/list"
	"sync"
)

// maxOpenFiles is how many segments of the store a search has open at a time.
// Those that overlap in time are all in work at once, and there can be more of
// them than a process may have files: one for each of many small sources.
const maxOpenFiles = 256

// pool keeps files of segments open, and closes those that were not used for
// the longest time when there are too many.
type pool struct {
	mu   sync.Mutex
	max  int
	open list.List // of *pooled, the one used last in front
}

// pooled is the content of a segment that is opened again when it was closed
// meanwhile. It is safe for concurrent use.
type pooled struct {
	pool   *pool
	size   int64
	reopen func() (Data, error)

	// Of pool.mu.
	data  Data
	place *list.Element // nil: data is not open
	users int           // that read now
	ended bool
}

// add takes over data that was opened by reopen.
func (p *pool) add(data Data, reopen func() (Data, error)) *pooled {
	d := &pooled{pool: p, size: data.Size(), reopen: reopen}
	p.mu.Lock()
	defer p.mu.Unlock()
	d.keep(data)
	return d
}

// keep notes that data is open. p.mu is held.
func (d *pooled) keep(data Data) {
	p := d.pool
	d.data, d.place = data, p.open.PushFront(d)
	for e := p.open.Back(); e != nil && p.open.Len() > p.max; {
		old := e.Value.(*pooled)
		e = e.Prev()
		if old.users == 0 && old != d {
			old.drop()
		}
	}
}

// drop closes what is open. p.mu is held.
func (d *pooled) drop() {
	if d.place == nil {
		return
	}
	d.pool.open.Remove(d.place)
	d.data.Close() // it was only read
	d.data, d.place = nil, nil
}

// Size returns the length of the content in bytes.
func (d *pooled) Size() int64 { return d.size }

// ReadAt reads content, as io.ReaderAt does.
func (d *pooled) ReadAt(b []byte, off int64) (int, error) {
	data, err := d.use()
	if err != nil {
		return 0, err
	}
	defer d.unuse()
	return data.ReadAt(b, off)
}

func (d *pooled) use() (Data, error) {
	p := d.pool
	p.mu.Lock()
	defer p.mu.Unlock()
	if d.place == nil {
		data, err := d.reopen()
		if err != nil {
			return nil, err
		}
		d.keep(data)
	}
	p.open.MoveToFront(d.place)
	d.users++
	return d.data, nil
}

func (d *pooled) unuse() {
	d.pool.mu.Lock()
	defer d.pool.mu.Unlock()
	if d.users--; d.users == 0 && d.ended {
		d.drop()
	}
}

// Close lets go of the file.
func (d *pooled) Close() error {
	d.pool.mu.Lock()
	defer d.pool.mu.Unlock()
	if d.ended = true; d.users == 0 {
		d.drop()
	}
	return nil
}
