package conformance

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/mobileops/mobileops/pkg/pluginsdk"
)

// sample returns the event of a number: always the same for the same number.
// Every third subject is no UTF-8.
func sample(n int) pluginsdk.Event {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC).Add(time.Duration(n) * time.Second)
	subject := fmt.Sprintf("/usr/bin/sample-%d", n)
	if n%3 == 0 {
		subject += "\xff\n"
	}
	return pluginsdk.Event{
		ID: fmt.Sprintf("f-%d", n), Type: pluginsdk.TypeFinding, Time: at, Change: pluginsdk.ChangeOpened,
		Finding: &pluginsdk.Finding{
			Source: "integrity", Rule: "file-changed", Severity: pluginsdk.High, Title: "A file changed", Subject: subject,
			Evidence: map[string]string{"size": "1 → 2", "note": "\"cursor\":\"x\""}, Observed: at,
			ID: fmt.Sprintf("%010x", n), Fingerprint: fmt.Sprintf("%032x", n), State: pluginsdk.Open,
			FirstSeen: at, LastSeen: at, TimesSeen: 1, Scopes: []string{"default"},
		},
	}
}

func sampleAct(n int) pluginsdk.Event {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC).Add(time.Duration(n) * time.Second)
	return pluginsdk.Event{
		ID: fmt.Sprintf("a-%d", n), Type: pluginsdk.TypeAudit, Time: at,
		Audit: &pluginsdk.AuditRecord{
			Sequence: uint64(n), Hash: strings.Repeat("0", 64), Time: at, Actor: pluginsdk.Actor{UID: 1000, User: "ann", LoginUID: 1000},
			Command: "integrity check", Args: []string{"--scope", "\xff"}, Result: "clean", Elapsed: time.Second,
		},
	}
}

// wants reports whether a subscription asked for events of a type.
func (s *subscription) wants(kind string) bool {
	return len(s.Types) == 0 || slices.Contains(s.Types, kind)
}

// events returns the events of batch number n, those that the plugin wants.
func (p *process) events(n, size int) []pluginsdk.Event {
	p.mu.Lock()
	sub := p.sub
	p.mu.Unlock()
	if sub.Batch > 0 {
		size = min(size, sub.Batch)
	}
	var list []pluginsdk.Event
	for i := range size {
		switch k := n*1000 + i; {
		case sub.wants(pluginsdk.TypeFinding) && (i%2 == 0 || !sub.wants(pluginsdk.TypeAudit)):
			list = append(list, sample(k))
		case sub.wants(pluginsdk.TypeAudit):
			list = append(list, sampleAct(k))
		}
	}
	return list
}

func cursor(n int) string { return fmt.Sprintf("c%d", n) }

// deliver sends batch number n.
func (p *process) deliver(n, size int) {
	p.write(p.encode(message{Method: "events", Params: marshal(pluginsdk.Batch{Events: p.events(n, size), Cursor: cursor(n)})}))
}

// deliverRaw sends events that are given as JSON, and fields behind the cursor.
func (p *process) deliverRaw(n int, events []json.RawMessage, more string) {
	line := append([]byte(`{"method":"events","params":{"events":`), marshal(events)...)
	p.write(fmt.Appendf(line, `,"cursor":%q%s}}`+"\n", cursor(n), more))
}

// position is the highest batch of those from 1 to last that was acknowledged.
// An acknowledgement covers the batches before it, too. p.mu must be held.
func (p *process) position(last int) int {
	for n := last; n > 0; n-- {
		if slices.Contains(p.acked, cursor(n)) {
			return n
		}
	}
	return 0
}

// stream delivers the batches from first to last as a host does, two ahead at
// most, and waits until all are acknowledged.
func (p *process) stream(first, last, size int) error {
	limit := p.r.opts.Timeout
	for sent, acked := first-1, first-1; acked < last; {
		for ; sent < last && sent-acked < 2; sent++ {
			p.deliver(sent+1, size)
		}
		before := acked
		if !p.until(limit, func() bool { acked = max(before, p.position(sent)); return acked > before }) {
			return p.missing(fmt.Sprintf("batch %d of %d was not acknowledged", before+1, last), limit)
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.inOrder(last)
}

// inOrder checks the acknowledgements. p.mu must be held.
func (p *process) inOrder(last int) error {
	highest := 0
	for _, c := range p.acked {
		n := 0
		for k := 1; k <= last && n == 0; k++ {
			if c == cursor(k) {
				n = k
			}
		}
		switch {
		case n == 0:
			return fmt.Errorf("it acknowledged %.64q, which is the cursor of no batch", c)
		case n < highest:
			return fmt.Errorf("it acknowledged batch %d after batch %d", n, highest)
		}
		highest = n
	}
	return nil
}

// up starts the plugin and waits until it is ready and has subscribed, if it
// has done so before.
func (r *runner) up(dir string, how behaviour) (*process, error) {
	if r.opts.Role == pluginsdk.RoleService && !r.serves {
		return nil, notApplicable("it was never ready")
	}
	p, err := r.start(dir, nil, how)
	if err != nil {
		return nil, err
	}
	if err := p.settled(); err != nil {
		p.end()
		return nil, err
	}
	return p, nil
}

// settled waits until the plugin is as it was when it was started first.
func (p *process) settled() error {
	if !p.until(p.r.opts.ReadyTimeout, func() bool { return p.isReady }) {
		return p.missing("it was not ready", p.r.opts.ReadyTimeout)
	}
	if p.r.subscribes && !p.until(p.r.opts.Timeout, func() bool { return p.sub != nil }) {
		return p.missing("it did not subscribe", p.r.opts.Timeout)
	}
	return nil
}

// alive checks that the plugin works: it answers, or at least takes events.
func (p *process) alive() error {
	if p.r.pings {
		return p.ping(p.r.opts.Timeout)
	}
	if !p.running() {
		return errors.New(p.ended())
	}
	return nil
}

// subscriber is up for a plugin that has to subscribe for a check.
func (r *runner) subscriber(dir string, how behaviour) (*process, error) {
	if r.serves && !r.subscribes {
		return nil, notApplicable("it subscribes to no events")
	}
	if r.serves && !r.acks {
		return nil, notApplicable("it does not acknowledge events as it should")
	}
	return r.up(dir, how)
}
