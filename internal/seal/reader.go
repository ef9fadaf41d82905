package seal

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"runtime"
	"sync"
	"sync/atomic"
)

// Reader reads all of an object from its beginning, and opens the segments
// ahead in parallel. It is not for use by several goroutines at once.
type Reader struct {
	ctx     context.Context
	cancel  context.CancelFunc
	pipe    *pipeline
	current *job   // whose plaintext is being read, or nil
	rest    []byte // what is left of it
	err     error  // what every further Read returns
}

// NewReader returns a reader of the whole plaintext. It reads ahead in
// goroutines of its own, with up to 2 MiB a processor and 2 MiB more, until
// its end is read, it fails, it is closed or ctx is done. Whoever does not
// read to the end calls Close.
func (o *Object) NewReader(ctx context.Context) *Reader {
	ctx, cancel := context.WithCancel(ctx)
	r := &Reader{ctx: ctx, cancel: cancel}
	r.pipe = newPipeline(0, func(j *job) {
		j.buf, j.err = o.open(j.index, nil, j.buf[:cap(j.buf)])
	})
	go func() {
		defer r.pipe.finish()
		for i := range o.segments {
			j := r.pipe.take(ctx.Done())
			if j == nil || ctx.Err() != nil {
				return
			}
			j.index = i
			r.pipe.submit(j)
		}
	}()
	return r
}

// next makes the plaintext of the next segment the rest. It sets err at the
// end and after a failure, and then releases the goroutines.
func (r *Reader) next() {
	if r.current != nil {
		buf := r.current.buf
		r.current.buf = buf[:0]
		r.pipe.free <- r.current
		r.current, r.rest = nil, nil
	}
	if r.err != nil {
		return
	}
	j, ok := <-r.pipe.order
	switch {
	case !ok && r.ctx.Err() != nil:
		r.err = r.ctx.Err()
	case !ok:
		r.err = io.EOF
	default:
		<-j.done
		if j.err != nil {
			r.err = j.err
		} else {
			r.current, r.rest = j, j.buf
		}
	}
	if r.err != nil {
		r.cancel()
	}
}

// Read reads plaintext that is authentic. The end is io.EOF only when all of
// the object was read.
func (r *Reader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for len(r.rest) == 0 {
		if r.next(); r.err != nil {
			return 0, r.err
		}
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

// WriteTo writes what is left of the plaintext to w, a segment at a time.
// io.Copy uses it.
func (r *Reader) WriteTo(w io.Writer) (int64, error) {
	var total int64
	for {
		if len(r.rest) > 0 {
			n, err := w.Write(r.rest)
			total += int64(n)
			if err == nil && n < len(r.rest) {
				err = io.ErrShortWrite
			}
			r.rest = r.rest[n:]
			if err != nil {
				return total, err
			}
		}
		if r.next(); r.err == io.EOF {
			return total, nil
		} else if r.err != nil {
			return total, r.err
		}
	}
}

// Close ends the reading ahead. It need not be called after an error or the
// end, and never fails.
func (r *Reader) Close() error {
	r.cancel()
	r.rest = nil
	if r.err == nil {
		r.err = fmt.Errorf("read a sealed object: %w", fs.ErrClosed)
	}
	return nil
}

// Verify opens every segment, in parallel, and returns a *CorruptError for the
// first one that is damaged, the error of ctx when that is done before the
// end, or nil. The header and the last segment were authenticated by Open.
func (o *Object) Verify(ctx context.Context) error {
	var next, bad atomic.Int64 // bad: the first segment found damaged; nothing behind it is looked at
	bad.Store(o.segments)
	var mu sync.Mutex
	var first error
	var wg sync.WaitGroup
	for range min(int64(runtime.GOMAXPROCS(0)), o.segments) {
		wg.Go(func() {
			buf := buffers.Get().(*[]byte)
			defer buffers.Put(buf)
			for ctx.Err() == nil {
				i := next.Add(1) - 1
				if i >= bad.Load() {
					return
				}
				if _, err := o.open(i, nil, *buf); err != nil {
					mu.Lock()
					if i < bad.Load() {
						bad.Store(i)
						first = err
					}
					mu.Unlock()
				}
			}
		})
	}
	wg.Wait()
	if first != nil {
		return first
	}
	return ctx.Err()
}
