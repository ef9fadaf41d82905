package pluginsdk

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// Where a subscription begins.
const (
	FromSaved  = "saved"  // behind what was acknowledged last, by whichever process; the first time as FromNow
	FromNow    = "now"    // with what happens from now on
	FromOldest = "oldest" // with the oldest event that the host still has
)

// Subscription says which events are wanted.
type Subscription struct {
	Types []string // TypeFinding, TypeAudit; empty: all that the plugin may read
	From  string   // FromSaved, FromNow or FromOldest; empty: FromSaved
	Batch int      // events in a batch, at most; 0: 500
}

const (
	defaultBatch = 500
	outstanding  = 2                // batches that a host sends ahead
	ackTimeout   = 10 * time.Second // for one acknowledgement, also after the context has ended
)

// subscription is where the reader puts batches.
type subscription struct {
	batches chan []byte // lines; room for what a host may send ahead
}

// Subscribe has events delivered to handle, one batch after the other in
// their order, until the context ends, the host is gone or handle returns an
// error; it returns that error.
//
// A batch is acknowledged when handle has returned nil: from then on it is
// handle's. What was not acknowledged is delivered again to the next
// Subscribe, also of another process, with the same event IDs: at least once.
// There is one subscription at a time; another one is ErrSubscribed.
//
// It needs the permission findings: [read] or audit: [read].
func (c *Client) Subscribe(ctx context.Context, s Subscription, handle func(context.Context, Batch) error) error {
	select {
	case c.subscribed <- struct{}{}:
		defer func() { <-c.subscribed }()
	default:
		return ErrSubscribed
	}
	if s.From == "" {
		s.From = FromSaved
	}
	if s.Batch <= 0 {
		s.Batch = defaultBatch
	}
	params := struct {
		Types []string `json:"types,omitempty"`
		From  string   `json:"from"`
		Batch int      `json:"batch"`
	}{s.Types, s.From, s.Batch}

	// Batches of a subscription follow its answer, so the reader has to know of
	// it before it reads on; those before it belong to an earlier one.
	sub := &subscription{batches: make(chan []byte, outstanding)}
	defer func() {
		c.mu.Lock()
		c.sub = nil
		c.mu.Unlock()
	}()
	// first runs with c.mu held.
	if _, err := c.do(ctx, "events.subscribe", params, &call{first: func(json.RawMessage) { c.sub = sub }}); err != nil {
		return err
	}
	for {
		var line []byte
		select {
		case line = <-sub.batches:
		case <-ctx.Done():
			return ctx.Err()
		case <-c.done:
			return c.Err()
		}
		var m struct {
			Params batchWire `json:"params"`
		}
		if err := json.Unmarshal(line, &m); err != nil {
			return fmt.Errorf("events: %w: %v", ErrProtocol, err)
		}
		b := m.Params.batch()
		if err := handle(ctx, b); err != nil {
			return err
		}
		if err := c.ack(ctx, b.Cursor); err != nil {
			return err
		}
	}
}

// ack tells the host that events up to a cursor are safe here. They are, even
// if the context has ended meanwhile: not to say so would have them twice.
func (c *Client) ack(ctx context.Context, cursor string) error {
	for {
		once, cancel := context.WithTimeout(context.WithoutCancel(ctx), ackTimeout)
		err := c.ask(once, "events.ack", struct {
			Cursor string `json:"cursor"`
		}{cursor}, nil)
		cancel()
		if !errors.Is(err, &Error{Code: CodeBusy}) || ctx.Err() != nil {
			return err
		}
	}
}

// deliver puts a batch where Subscribe takes it from. It never waits: a host
// that sends more ahead than it may ends the connection. A batch for which
// there is no subscription is dropped, and not acknowledged.
func (c *Client) deliver(line []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.sub == nil {
		return nil
	}
	select {
	case c.sub.batches <- bytes.Clone(line): // the line is the reader's
		return nil
	default:
		return fmt.Errorf("%w: more than %d batches of events that were not acknowledged", ErrProtocol, outstanding)
	}
}
