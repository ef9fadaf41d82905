package filehash

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// chunkEntries is how many entries of a directory one worker takes at a time.
// Small enough that workers stay close together, which bounds memory; large
// enough that the lock around the queue does not show.
const chunkEntries = 64

// slot is one piece of work, and the place of its result in the order of
// batches. The slots form a list; work is taken and emitted from its front.
type slot struct {
	next    *slot
	d       *dir
	lo, hi  int  // entries of d, or, for a slot of sub-directories, the index in d.subs
	subdirs bool // open d.subs[lo], and leave the rest to a new slot
	started bool
	done    bool
	batch   *Batch
}

// walk is one running Walk.
type walk struct {
	ctx  context.Context
	opts Options
	emit func(*Batch) error
	ctr  *Counters
	rate *rateLimit

	mapped atomic.Int64 // segments of large files that are mapped

	mu       sync.Mutex
	cond     sync.Cond
	head     *slot // oldest slot that has not been emitted
	started  int   // slots started and not yet emitted
	active   int   // slots being worked on
	emitting bool
	bigs     []*bigFile // large files on which workers may help
	limit    int        // workers that may work at once
	running  int        // workers that exist
	over     bool       // all work is done
	err      error
	wg       sync.WaitGroup
	pool     sync.Pool
}

// Walk visits the tree below root and calls emit with everything that
// Options.Select wants, batch by batch in order. emit is never called by two
// goroutines at once. An error from emit ends the walk and is returned, as is
// the cancellation of ctx. What cannot be read is not an error of the walk: it
// is told in the batch.
func Walk(ctx context.Context, root string, opts Options, emit func(*Batch) error) error {
	if opts.Select == nil {
		opts.Select = everything{}
	}
	fd, err := unix.Open(root, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", root, err)
	}
	var info Info
	if e := fstat(fd, &info); e != 0 {
		unix.Close(fd)
		return fmt.Errorf("stat %s: %w", root, e)
	}
	w := &walk{ctx: ctx, opts: opts, emit: emit, ctr: opts.Counters, rate: newRateLimit(opts.IOLimit)}
	if w.ctr == nil {
		w.ctr = new(Counters)
	}
	w.cond.L = &w.mu
	w.pool.New = func() any { return &Batch{Entries: make([]Entry, 0, chunkEntries)} }

	if err := w.root(fd, info); err != nil {
		unix.Close(fd)
		return err
	}
	top := &dir{fd: fd, path: []byte("/"), sel: opts.Select, dev: info.Dev}
	w.head = &slot{d: top, lo: -1}

	stop := context.AfterFunc(ctx, func() { w.fail(ctx.Err()) })
	defer stop()
	ctl := newConcurrency(info.Dev, opts.Jobs)
	w.setLimit(ctl.start)
	ctl.watch(w)
	w.wg.Wait()
	ctl.stop()

	w.mu.Lock()
	defer w.mu.Unlock()
	w.closeAll()
	if w.err == nil {
		// Workers notice cancellation by themselves, perhaps before fail has
		// run: what they then left out must not pass for a whole walk.
		w.err = ctx.Err()
	}
	return w.err
}

// root reports the root itself when it is wanted.
func (w *walk) root(fd int, info Info) error {
	rs, ok := w.opts.Select.(RootSelector)
	if !ok {
		return nil
	}
	want, tag := rs.SelectRoot()
	if want&WantEntry == 0 {
		return nil
	}
	e := Entry{Name: []byte("/"), Info: info, Tag: tag}
	if want&WantXattrs != 0 {
		wk := worker{scratch: make([]byte, scratchBytes)}
		e.Err = wk.xattrs(fd, &e)
	}
	w.ctr.Files.Add(1)
	return w.emit(&Batch{Dir: []byte{}, Entries: []Entry{e}})
}

// fail ends the walk with err, unless it failed already.
func (w *walk) fail(err error) {
	w.mu.Lock()
	if w.err == nil {
		w.err = err
	}
	w.mu.Unlock()
	w.cond.Broadcast()
}

// closeAll closes the directories of slots that were never worked on.
func (w *walk) closeAll() {
	for s := w.head; s != nil; s = s.next {
		if !s.started && s.d != nil && s.d.fd >= 0 {
			if s.lo < 0 {
				unix.Close(s.d.fd)
			} else {
				s.d.unref()
			}
		}
	}
}

// setLimit lets n workers run at once, starting those that are missing.
func (w *walk) setLimit(n int) {
	w.mu.Lock()
	w.limit = n
	// None is added once the others may have gone home: Walk is then past its
	// wait for them.
	for w.running < n && w.err == nil && !w.over {
		wk := newWorker(w, w.running)
		w.running++
		w.wg.Add(1)
		go func() {
			defer w.wg.Done()
			wk.run()
		}()
	}
	w.mu.Unlock()
	w.cond.Broadcast()
}

// take returns the next work for worker n: a large file to help with, or a
// slot. Both are nil when the walk is over.
func (w *walk) take(n int) (*bigFile, *slot) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for {
		if w.err != nil || w.over {
			return nil, nil
		}
		if n < w.limit {
			for _, b := range w.bigs {
				if b.hasWork() {
					return b, nil
				}
			}
			// Only few slots before the first unstarted one are still in the
			// list, see below, so looking from the head is cheap.
			s := w.head
			for s != nil && s.started {
				s = s.next
			}
			if s == nil && w.active == 0 {
				w.over = true
				w.cond.Broadcast()
				return nil, nil
			}
			// The head may always be taken, or nothing would move. Others only
			// so far ahead: that bounds the results that wait for their turn.
			if s != nil && (s == w.head || w.started < 16*w.limit+32) {
				s.started = true
				w.started++
				w.active++
				if s.subdirs && s.lo+1 < len(s.d.subs) {
					s.d.refs.Add(1)
					rest := &slot{d: s.d, lo: s.lo + 1, subdirs: true, next: s.next}
					s.next = rest
				}
				return nil, s
			}
		}
		w.cond.Wait()
	}
}

// expand puts the rest of a listed directory behind its slot: the entries
// beyond the first chunk, then the directories below it.
func (w *walk) expand(s *slot, d *dir) {
	var first, last *slot
	add := func(n *slot) {
		d.refs.Add(1)
		if first == nil {
			first = n
		} else {
			last.next = n
		}
		last = n
	}
	for lo := chunkEntries; lo < len(d.ents); lo += chunkEntries {
		add(&slot{d: d, lo: lo, hi: min(lo+chunkEntries, len(d.ents))})
	}
	if len(d.subs) > 0 {
		add(&slot{d: d, subdirs: true})
	}
	if first == nil {
		return
	}
	w.mu.Lock()
	last.next = s.next
	s.next = first
	w.mu.Unlock()
	w.cond.Broadcast()
}

// finish hands in the result of a slot, and emits what has become ready.
func (w *walk) finish(s *slot) {
	w.mu.Lock()
	s.done = true
	w.active--
	if !w.emitting {
		w.emitting = true
		for w.head != nil && w.head.done && w.err == nil {
			b := w.head.batch
			w.head.batch = nil
			w.head = w.head.next
			w.started--
			if b == nil {
				continue
			}
			w.mu.Unlock()
			err := w.emit(b)
			w.recycle(b)
			w.mu.Lock()
			if err != nil && w.err == nil {
				w.err = err
			}
		}
		w.emitting = false
	}
	w.mu.Unlock()
	w.cond.Broadcast()
}

func (w *walk) recycle(b *Batch) {
	clear(b.Entries)
	b.Dir, b.Entries, b.Err = nil, b.Entries[:0], nil
	w.pool.Put(b)
}
