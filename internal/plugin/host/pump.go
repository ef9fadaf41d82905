package host

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/state"
)

// PumpOptions say what Pump delivers, and to whom.
type PumpOptions struct {
	Store Store
	// Name is what the cursor is kept under, 1 to 128 bytes: that of the
	// plugin, a slash and something of its own for each hook, so that Forget
	// finds it.
	Name   string
	Types  []string          // TypeFinding, TypeAudit; empty: both
	From   string            // "saved" (default; the first time as "now"), "now" or "oldest"
	Filter func(*Event) bool // which ones to deliver; a gap always is; nil: all
	Batch  int               // events in a batch, at most; 0: 500
	// Deliver takes a batch. When it returns nil, the events are delivered.
	// When it fails, it is called with the same events again.
	Deliver func(ctx context.Context, events []Event) error
	Backoff time.Duration // before the first retry, doubled for each further one; 0: 1 s
	OnError func(error)   // what went wrong; nil: not called
}

const (
	maxRetries     = 5 // deliveries of a batch after the first one failed
	defaultBackoff = time.Second
)

// Pump delivers events in their order until the context is done, whose error
// it returns. A batch whose delivery fails is tried again five times; then it
// is put aside, see Dead, and the events behind it are delivered. Delivery is
// at least once, as of Serve.
func Pump(ctx context.Context, opts PumpOptions) error {
	want := kinds{findings: len(opts.Types) == 0, audit: len(opts.Types) == 0}
	for _, t := range opts.Types {
		switch t {
		case TypeFinding:
			want.findings = true
		case TypeAudit:
			want.audit = true
		default:
			return failure.Errorf(failure.Usage, "there are no events of type %q", t)
		}
	}
	if opts.Name == "" || len(opts.Name) > maxName || opts.Store == nil || opts.Deliver == nil {
		return failure.Errorf(failure.Usage, "a pump needs a name of 1 to %d bytes, a store and somebody to deliver to", maxName)
	}
	if opts.Batch <= 0 {
		opts.Batch = defaultBatch
	}
	if opts.Backoff <= 0 {
		opts.Backoff = defaultBackoff
	}
	var calling sync.Mutex
	p := pump{opts: &opts, failed: func(err error) {
		if opts.OnError != nil && err != nil && !errors.Is(err, context.Canceled) {
			calling.Lock()
			defer calling.Unlock()
			opts.OnError(err)
		}
	}}
	return p.run(ctx, want)
}

type pump struct {
	opts    *PumpOptions
	failed  func(error)
	feed    feed
	cursor  *cursorSaver
	settled position // behind what was delivered, put aside or passed over
}

func (p *pump) run(ctx context.Context, want kinds) error {
	at, err := p.start(ctx)
	if err != nil {
		return err
	}
	p.cursor = newCursorSaver(p.opts.Store, p.opts.Name, p.failed)
	var saving sync.WaitGroup
	saving.Go(p.cursor.run)
	defer saving.Wait()
	defer p.cursor.close()
	p.settled = at
	p.feed = feed{store: p.opts.Store, kinds: want, failed: p.failed, at: at, passed: func() { p.passOver(maxSkipped) }}
	if p.opts.Filter != nil {
		p.feed.filter = p.opts.Filter
	}
	for {
		if err := p.feed.wait(ctx); err != nil {
			p.passOver(1)
			return err
		}
		n := min(p.opts.Batch, len(p.feed.queue))
		events := make([]Event, n)
		for i := range events {
			events[i] = p.feed.queue[i].Event
		}
		behind := p.feed.queue[n-1].behind
		clear(p.feed.queue[:n])
		p.feed.queue = p.feed.queue[n:]
		if err := p.deliver(ctx, events, behind); err != nil {
			return err
		}
	}
}

// start waits for a state that can be read: a hook must not be given up
// because somebody held the lease when it began.
func (p *pump) start(ctx context.Context) (position, error) {
	for retry := pollLeast; ; retry = min(2*retry, retryMost) {
		at, err := start(ctx, p.opts.Store, p.opts.Name, p.opts.From)
		if err == nil || ctx.Err() != nil || failure.KindOf(err) != failure.Busy {
			return at, err
		}
		p.failed(err)
		if err := sleep(ctx, retry); err != nil {
			return at, err
		}
	}
}

func (p *pump) passOver(least uint64) {
	at := p.feed.at
	passed := at.findings - p.settled.findings + at.audit - p.settled.audit
	if len(p.feed.queue) == 0 && passed >= least && at != p.settled {
		p.settle(at)
	}
}

func (p *pump) settle(at position) {
	p.settled = at
	p.cursor.set(at)
}

// deliver delivers one batch, or puts it aside. Its error is that of the
// context.
func (p *pump) deliver(ctx context.Context, events []Event, behind position) error {
	backoff := p.opts.Backoff
	var err error
	for attempt := range 1 + maxRetries {
		if attempt > 0 {
			if err := sleep(ctx, backoff); err != nil {
				return err
			}
			backoff *= 2
		}
		if err = p.opts.Deliver(ctx, events); err == nil {
			p.settle(behind)
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		p.failed(fmt.Errorf("deliver %d events to %s, attempt %d of %d: %w", len(events), p.opts.Name, attempt+1, 1+maxRetries, err))
	}
	dead := DeadBatch{
		Time: time.Now().UTC(), Error: err.Error(), Attempts: 1 + maxRetries,
		From: p.settled.String(), To: behind.String(),
	}
	for retry := pollLeast; ; retry = min(2*retry, retryMost) {
		err := p.opts.Store.Update(ctx, func(tx *state.Tx) error {
			if err := putAside(tx, p.opts.Name, dead, events); err != nil {
				return err
			}
			return saveCursor(tx, p.opts.Name, behind)
		})
		if err == nil {
			p.settle(behind)
			p.failed(fmt.Errorf("%d events for %s were put aside after %d attempts", len(events), p.opts.Name, 1+maxRetries))
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		p.failed(fmt.Errorf("put events for %s aside: %w", p.opts.Name, err))
		if err := sleep(ctx, retry); err != nil {
			return err
		}
	}
}
