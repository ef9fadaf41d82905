package host

import (
	"context"
	"strconv"
	"sync"
)

// Limits of deliveries.
const (
	maxOutstanding = 2         // batches that were not acknowledged
	maxBatch       = 5000      // events in a batch
	defaultBatch   = 500       //
	batchBytes     = 512 << 10 // of a line, but for one event that is larger
	maxSkipped     = 1000      // events that a filter passed over before that is written down
)

// subscription delivers events to the plugin of a session.
type subscription struct {
	s      *session
	feed   feed
	batch  int
	cancel context.CancelFunc
	done   chan struct{} // closed when it has ended

	mu    sync.Mutex
	open  []position    // behind the batches that were not acknowledged, oldest first
	acked position      // behind what was acknowledged
	room  chan struct{} // wakes who waits for open to become shorter
}

// subscribed answers events.subscribe, and delivers from then on.
func (s *session) subscribed(id uint64, params []byte) error {
	var p struct {
		Types []string `json:"types"`
		From  string   `json:"from"`
		Batch int      `json:"batch"`
	}
	if err := decode(params, &p); err != nil {
		return err
	}
	perms := &s.opts.Permissions
	want := kinds{}
	for _, t := range p.Types {
		switch {
		case t == TypeFinding && perms.ReadFindings:
			want.findings = true
		case t == TypeAudit && perms.ReadAudit:
			want.audit = true
		case t == TypeFinding, t == TypeAudit:
			return refuse(Denied, "the permissions of this plugin do not have %s: [read]", map[string]string{TypeFinding: "findings", TypeAudit: "audit"}[t])
		default:
			return refuse(Invalid, "there are no events of type %s", quoted(t))
		}
	}
	if len(p.Types) == 0 {
		want = kinds{perms.ReadFindings, perms.ReadAudit}
	}
	if want == (kinds{}) {
		return refuse(Denied, "the permissions of this plugin have neither findings: [read] nor audit: [read]")
	}
	switch p.From {
	case "", "saved", "now", "oldest":
	default:
		return refuse(Invalid, "from is %s; it is saved, now or oldest", quoted(p.From))
	}
	if p.Batch <= 0 {
		p.Batch = defaultBatch
	}
	sub := &subscription{s: s, batch: min(p.Batch, maxBatch), done: make(chan struct{}), room: make(chan struct{}, 1)}
	sub.feed = feed{store: s.opts.Store, kinds: want, failed: s.failed, passed: func() { sub.passOver(maxSkipped) }}
	if len(perms.FindingsFrom) > 0 {
		sub.feed.filter = func(e *Event) bool { return e.Type != TypeFinding || perms.mayRead(e.Finding.Source) }
	}
	select {
	case s.subscribing <- struct{}{}:
		defer func() { <-s.subscribing }()
	case <-s.ctx.Done():
		return s.ctx.Err()
	}
	s.replace(nil) // before the start is read: what it acknowledged counts
	s.cursor.write()
	at, err := start(s.ctx, s.opts.Store, s.opts.cursorName(), p.From)
	if err != nil {
		return err
	}
	sub.feed.at, sub.acked = at, at
	s.answer(id, struct {
		Cursor string `json:"cursor"`
	}{at.String()}, nil)
	s.replace(sub)
	return nil
}

// subscribe is replace for those who have not the right to.
func (s *session) subscribe(sub *subscription) {
	s.subscribing <- struct{}{}
	defer func() { <-s.subscribing }()
	s.replace(sub)
}

// replace ends the subscription that there is, and starts sub unless it is
// nil. The right to (s.subscribing) must be held.
func (s *session) replace(sub *subscription) {
	s.mu.Lock()
	old := s.sub
	s.sub = nil
	s.mu.Unlock()
	if old != nil {
		old.cancel()
		<-old.done
	}
	if sub == nil {
		return
	}
	ctx, cancel := context.WithCancel(s.ctx)
	sub.cancel = cancel
	s.mu.Lock()
	s.sub = sub
	s.mu.Unlock()
	go sub.run(ctx)
}

// ack answers events.ack: everything up to a cursor is the plugin's now.
func (s *session) ack(params []byte) (any, error) {
	var p struct {
		Cursor string `json:"cursor"`
	}
	if err := decode(params, &p); err != nil {
		return nil, err
	}
	at, err := parsePosition(p.Cursor)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	sub := s.sub
	s.mu.Unlock()
	if sub == nil || !sub.ack(at) {
		return nil, refuse(NotFound, "no batch with the cursor %s waits for an acknowledgement", at)
	}
	s.cursor.set(at)
	return nothing{}, nil
}

// ack takes the batches up to at from those that are open. To acknowledge the
// last one twice changes nothing.
func (u *subscription) ack(at position) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	for i, p := range u.open {
		if p == at {
			u.open = append(u.open[:0], u.open[i+1:]...)
			u.acked = at
			select {
			case u.room <- struct{}{}:
			default:
			}
			return true
		}
	}
	return at == u.acked
}

// run delivers until its context is done.
func (u *subscription) run(ctx context.Context) {
	defer close(u.done)
	for {
		if err := u.feed.wait(ctx); err != nil {
			u.passOver(1)
			return
		}
		line, behind, err := u.next()
		if err != nil {
			u.s.cancel(err)
			return
		}
		if !u.admit(ctx, behind) {
			return
		}
		select {
		case u.s.out <- outLine{line: line, fd: -1}:
		case <-ctx.Done():
			return
		}
	}
}

// passOver notes, when nothing is open, that the filter let least events or
// more by, which nobody will acknowledge. Without it a plugin that has not been
// told anything for long would be told of a gap.
func (u *subscription) passOver(least uint64) {
	u.mu.Lock()
	defer u.mu.Unlock()
	at := u.feed.at
	passed := at.findings - u.acked.findings + at.audit - u.acked.audit
	if len(u.open) == 0 && len(u.feed.queue) == 0 && passed >= least && at != u.acked {
		u.acked = at
		u.s.cursor.set(at)
	}
}

// admit waits until a further batch may be sent, and counts it as sent.
func (u *subscription) admit(ctx context.Context, behind position) bool {
	for {
		u.mu.Lock()
		if len(u.open) < maxOutstanding {
			u.open = append(u.open, behind)
			u.mu.Unlock()
			return true
		}
		u.mu.Unlock()
		select {
		case <-u.room:
		case <-ctx.Done():
			return false
		}
	}
}

// next makes the line of the next batch, and returns the position behind it.
func (u *subscription) next() (line []byte, behind position, err error) {
	const begin = `{"method":"events","params":{"events":[`
	line = append(make([]byte, 0, batchBytes), begin...)
	n := 0
	for ; n < min(u.batch, len(u.feed.queue)); n++ {
		kept := len(line)
		if n > 0 {
			line = append(line, ',')
		}
		e := &u.feed.queue[n]
		if line, err = e.appendJSON(line); err != nil {
			return nil, behind, err
		}
		if n > 0 && len(line) > batchBytes-128 {
			line = line[:kept]
			break
		}
		behind = e.behind
	}
	clear(u.feed.queue[:n])
	u.feed.queue = u.feed.queue[n:]
	line = append(line, `],"cursor":`...)
	line = strconv.AppendQuote(line, behind.String())
	return append(line, "}}\n"...), behind, nil
}
