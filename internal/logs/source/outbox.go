package source

import (
	"context"
	"errors"
	"sync"
	"time"
)

// outbox collects what was read and hands it to the sink, in order. Readers
// wait when too much is in it.
type outbox struct {
	sink    Sink
	delay   time.Duration // how long a batch waits for others; 0: not at all
	patient bool          // a full sink is tried again

	mu      sync.Mutex
	change  sync.Cond
	pending []sending
	bytes   int
	closing bool
	full    bool // the last attempt found no room
	err     error
}

// recordBytes is about what a record takes beside its text: of a file of empty
// lines that is nearly everything.
const recordBytes = 48

// sending is a batch on its way.
type sending struct {
	Batch
	meter *meter
	read  int // bytes of its source
	bytes int // that it takes in the outbox
}

func newOutbox(sink Sink, delay time.Duration, patient bool) *outbox {
	o := &outbox{sink: sink, delay: delay, patient: patient}
	o.change.L = &o.mu
	return o
}

// add puts a batch into the outbox: n bytes of a source. It never blocks.
func (o *outbox) add(m *meter, n int, b Batch) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.err != nil {
		return
	}
	s := sending{Batch: b, meter: m, read: n, bytes: n + len(b.Cursor) + len(b.Records)*recordBytes}
	o.pending = append(o.pending, s)
	o.bytes += s.bytes
	o.change.Broadcast()
}

// room waits until there is room for what a turn reads; false says that
// nothing will be kept any more.
func (o *outbox) room() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	for o.bytes >= queueBytes && o.err == nil && !o.closing {
		o.change.Wait()
	}
	return o.err == nil && !o.closing
}

// failed returns why nothing will be kept any more, or nil.
func (o *outbox) failed() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.err
}

// isFull reports whether the sink has no room.
func (o *outbox) isFull() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.full
}

// close says that nothing more comes; run returns when all was handed over.
func (o *outbox) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.closing = true
	o.change.Broadcast()
}

// flushed waits until everything has been handed over, and returns why it
// could not be.
func (o *outbox) flushed() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	for len(o.pending) > 0 && o.err == nil {
		o.change.Wait()
	}
	return o.err
}

// run hands batches over until the outbox is closed or the sink fails. When
// the context ends it tries once to hand over what is there.
func (o *outbox) run(ctx context.Context) error {
	for {
		list := o.collect(ctx)
		if len(list) == 0 {
			return nil
		}
		err := o.append(ctx, list)
		o.mu.Lock()
		if err != nil {
			o.err = err
			o.change.Broadcast()
			o.mu.Unlock()
			return err
		}
		for _, s := range list {
			o.bytes -= s.bytes
		}
		o.pending = o.pending[len(list):]
		if len(o.pending) == 0 {
			o.pending = nil
		}
		o.change.Broadcast()
		o.mu.Unlock()
		for _, s := range list {
			s.meter.kept(s.Records, s.read)
		}
	}
}

// collect waits for batches and returns the first ones, which stay in the
// outbox until they were kept; none when the outbox was closed.
func (o *outbox) collect(ctx context.Context) []sending {
	wake := func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.change.Broadcast()
	}
	defer context.AfterFunc(ctx, wake)()
	o.mu.Lock()
	defer o.mu.Unlock()
	for len(o.pending) == 0 && !o.closing {
		o.change.Wait()
	}
	if o.delay > 0 && len(o.pending) > 0 {
		due := time.Now().Add(o.delay)
		defer time.AfterFunc(o.delay, wake).Stop()
		for o.bytes < batchBytes && !o.closing && ctx.Err() == nil && time.Now().Before(due) {
			o.change.Wait()
		}
	}
	bytes, n := 0, 0
	for n < len(o.pending) && (n == 0 || bytes+o.pending[n].bytes <= batchBytes) {
		bytes += o.pending[n].bytes
		n++
	}
	return o.pending[:n:n]
}

const (
	firstRetry = time.Second
	lastRetry  = time.Minute
	lastWords  = 5 * time.Second // for what is left when the context ended
)

func (o *outbox) append(ctx context.Context, list []sending) error {
	batches := make([]Batch, len(list))
	for i, s := range list {
		batches[i] = s.Batch
	}
	for wait := firstRetry; ; wait = min(2*wait, lastRetry) {
		last, cancel := ctx, context.CancelFunc(func() {})
		if ctx.Err() != nil {
			last, cancel = context.WithTimeout(context.WithoutCancel(ctx), lastWords)
		}
		err := o.sink.Append(last, batches)
		cancel()
		o.mu.Lock()
		o.full = errors.Is(err, ErrFull)
		o.change.Broadcast()
		o.mu.Unlock()
		if !errors.Is(err, ErrFull) || !o.patient || ctx.Err() != nil {
			return err
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return err
		}
	}
}
