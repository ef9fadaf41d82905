package source

import (
	"context"
	"errors"
	"time"
)

// Follow reads what is there and goes on with what comes, until the context
// ends, which is no error. When the sink is full it waits for room.
func (c *Collector) Follow(ctx context.Context) error {
	err := c.run(ctx, true, c.follow)
	if ctx.Err() != nil && (errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)) {
		return nil
	}
	return err
}

func (c *Collector) follow(parent context.Context) error {
	ctx, cancel := context.WithCancel(parent)
	n := newNotifier(c)
	defer n.close()
	for _, o := range c.others {
		if j, ok := o.(*journald); ok {
			defer goWait(func() { j.follow(ctx) })()
		}
	}
	defer cancel() // before they are waited for
	going := func() bool { return ctx.Err() == nil && c.out.failed() == nil }
	for going() {
		began := time.Now()
		announced := n.watch(c.look())
		// A look costs at most a tenth of the time.
		pause(ctx, max(shortPause, 10*time.Since(began)))
		next := began.Add(10 * c.opts.Poll)
		if !announced || c.later.Swap(false) {
			next = began.Add(c.opts.Poll)
		}
		for look := false; going() && !look && time.Now().Before(next); {
			c.poll()
			left, due := c.unfinished()
			step := min(c.opts.Poll, time.Until(next))
			if len(left) > 0 {
				step = min(step, max(due.Sub(c.now()), 10*time.Millisecond))
			}
			select {
			case <-ctx.Done():
			case <-c.again:
				look = true
			case <-time.After(step):
			}
			now := c.now()
			for _, t := range left {
				if t.isDue(now) {
					c.queue.put(t)
				}
			}
		}
	}
	return c.out.failed()
}

// shortPause is the least time between two looks.
const shortPause = 50 * time.Millisecond
