package watch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/finding"
	"github.com/mobileops/mobileops/internal/integrity"
)

const (
	tickTime  = 100 * time.Millisecond // how often bursts are looked at, while there are any
	maxAtOnce = 1024                   // bursts that are compared together
	endTime   = 20 * time.Second       // for what is left when the watch ends
	calmTime  = 2 * time.Second        // after an overflow, until everything is compared
)

// judge compares what is due with the baseline until ctx ends. It alone uses
// the opened baseline.
func (w *watcher) judge(ctx context.Context) {
	if err := w.first(ctx); err != nil {
		w.fail(err)
		return
	}
	if w.o.first != nil {
		w.o.first()
	}
	tick := time.NewTicker(tickTime)
	defer tick.Stop()
	var rescan time.Time // when everything is to be compared; zero: not
	var since time.Time
	for {
		due, left := w.bursts.take(time.Now(), maxAtOnce, false)
		if err := w.consider(ctx, due); err != nil {
			w.fail(err)
			return
		}
		list, from, all := w.asks.take()
		if err := w.answer(ctx, list); err != nil {
			w.fail(err)
			return
		}
		if all {
			if rescan.IsZero() {
				since = from
			}
			rescan = time.Now().Add(calmTime) // what fills the queue is probably still going on
		}
		if !rescan.IsZero() && (time.Now().After(rescan) || time.Since(since) > 4*calmTime) {
			rescan = time.Time{}
			if err := w.overflowed(ctx, since); err != nil {
				w.fail(err)
				return
			}
		}
		if len(due) == maxAtOnce {
			continue
		}
		var ticks <-chan time.Time
		if left > 0 || !rescan.IsZero() {
			ticks = tick.C
		}
		select {
		case <-ctx.Done():
			if !rescan.IsZero() {
				w.asks.put(ask{reason: OverflowRecord, since: since})
			}
			return
		case <-ticks:
		case <-w.bursts.wake:
		case <-w.asks.wake:
		}
	}
}

// settle looks at what is left when the source has been closed.
func (w *watcher) settle(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, endTime)
	defer cancel()
	for {
		due, left := w.bursts.take(time.Now(), maxAtOnce, true)
		if err := w.consider(ctx, due); err != nil {
			w.incomplete("what happened last was not compared: %v", err)
			return
		}
		if left == 0 {
			break
		}
	}
	if _, since, all := w.asks.take(); all {
		if err := w.overflowed(ctx, since); err != nil {
			w.incomplete("an overflow of the kernel's queue was not looked into: %v", err)
		}
	}
}

// consider compares what bursts are about, tells of each, and keeps findings.
func (w *watcher) consider(ctx context.Context, due []*burst) error {
	if len(due) == 0 {
		return nil
	}
	if s, ok := w.source.(*fanSource); ok {
		for _, b := range due {
			b.proc = s.execs.complete(b.proc, b.first)
		}
	}
	var paths [][]byte
	have := map[string]int{}
	want := func(p []byte) {
		if _, known := have[string(p)]; !known && p != nil && w.opened.Rule(p) != nil {
			have[string(p)] = len(paths)
			paths = append(paths, p)
		}
	}
	for _, b := range due {
		want(b.path)
		want(b.from)
		want(w.ledger.movedFrom(b.path))
	}
	spots, err := w.opened.Glances(ctx, paths)
	if err != nil {
		return fmt.Errorf("compare with the baseline: %w", err)
	}
	r := &integrity.Report{Baseline: w.opened.Entry, Tree: w.opened.Tree, Started: time.Now().UTC().Truncate(time.Second)}
	judged := make([]bool, len(spots))
	for _, b := range slices.Backward(due) { // the latest to touch a file is who is named in its finding
		at, ok := have[string(b.path)]
		if !ok || judged[at] {
			continue
		}
		judged[at] = true
		w.keepFinding(&spots[at], r, b)
	}
	for i := range spots {
		if !judged[i] {
			w.keepFinding(&spots[i], r, nil)
		}
	}
	for _, b := range due {
		if at, ok := have[string(b.path)]; ok {
			w.tell(w.record(b, &spots[at]))
		}
		if b.tree {
			if err := w.below(ctx, b); err != nil {
				return err
			}
		}
	}
	return nil
}

// record is what is told about a burst.
func (w *watcher) record(b *burst, s *integrity.Spot) *Record {
	r := &Record{
		Kind: FileRecord, Path: b.path, From: b.from, First: b.first, Last: b.last,
		Counts: b.counts, Action: b.counts.action(), Process: b.proc,
	}
	r.Verdict = verdict(s)
	if c := s.Change; c != nil {
		r.Severity, r.Attributes = c.Severity, c.Attributes
		if c.Kind == integrity.Moved {
			r.From = c.From
		}
	}
	if s.Problem != nil {
		r.Severity, r.Text = finding.Low, s.Problem.Reason
	}
	return r
}

func verdict(s *integrity.Spot) Verdict {
	switch {
	case s.Change != nil:
		return Verdict(s.Change.Kind)
	case s.Problem != nil:
		return Unreadable
	case s.Gone:
		return Departed
	case s.Known:
		return Same
	}
	return Transient
}

// keepFinding brings the findings about one path up to date. b is nil when it
// was compared for another path's sake.
func (w *watcher) keepFinding(s *integrity.Spot, r *integrity.Report, b *burst) {
	switch {
	case s.Change != nil:
		f := w.finding(s.Change, r)
		if b != nil {
			addProcess(f.Evidence, b.proc)
			addEvents(f.Evidence, b)
			f.Title = titleOf(s.Change, b.proc)
		}
		w.ledger.set(s.Path, &f, b == nil)
	case s.Problem == nil: // of what cannot be read nothing is known: a finding stays
		w.ledger.set(s.Path, nil, false)
	}
}

// finding is what is stored of a change.
func (w *watcher) finding(c *integrity.Change, r *integrity.Report) finding.Finding {
	f := c.AsFinding("watch-", r)
	f.Title = titleOf(c, nil)
	f.Tags = append(f.Tags, "watch")
	return f
}

// below compares what is in a directory that came or went as a whole.
func (w *watcher) below(ctx context.Context, b *burst) error {
	r, err := w.opened.Below(ctx, b.path)
	if err != nil {
		return fmt.Errorf("compare with the baseline: %w", err)
	}
	changed := map[string]bool{}
	for i := range r.Changes {
		c := &r.Changes[i]
		changed[string(c.Path)] = true
		f := w.finding(c, r)
		addProcess(f.Evidence, b.proc)
		addEvents(f.Evidence, b)
		f.Title = titleOf(c, b.proc)
		w.ledger.set(c.Path, &f, false)
		w.tell(&Record{
			Kind: FileRecord, Path: c.Path, From: c.From, First: b.first, Last: b.last, Action: b.counts.action(), Process: b.proc,
			Verdict: Verdict(c.Kind), Severity: c.Severity, Attributes: c.Attributes,
			Text: "with the directory " + string(b.path),
		})
	}
	if len(r.Problems) == 0 {
		w.ledger.clear(b.path, changed)
	}
	return nil
}

// answer does what the other parts asked for.
func (w *watcher) answer(ctx context.Context, list []ask) error {
	for _, a := range list {
		switch {
		case a.link != nil:
			w.named(a.link)
		case a.reload:
			if err := w.reload(ctx); err != nil {
				return err
			}
		case a.below != nil:
			n, err := w.compareBelow(ctx, a.below, "")
			if err != nil {
				return err
			}
			w.tell(&Record{Kind: a.reason, Path: a.below, Found: n, Text: a.text, Severity: finding.Info})
		}
	}
	return nil
}

// named notes that a file of the baseline has another name now.
func (w *watcher) named(l *newLink) {
	s, ok := w.source.(*fanSource)
	if !ok {
		return
	}
	t, err := readMounts(w.opened)
	if err != nil {
		return
	}
	for _, path := range s.links.learn(w.opened, t, l.self) {
		w.bursts.note(burst{path: path, proc: l.proc, last: l.at, counts: Counts{Attributes: 1}}, false)
	}
}

// compareBelow compares a directory's content, keeps the findings and tells of
// each change that was not known. It returns how many there are of these.
func (w *watcher) compareBelow(ctx context.Context, dir []byte, why string) (int, error) {
	r, err := w.opened.Below(ctx, dir)
	if err != nil {
		return 0, fmt.Errorf("compare with the baseline: %w", err)
	}
	return w.take(r, dir, why), nil
}

// take keeps what a comparison of everything below dir found.
func (w *watcher) take(r *integrity.Report, dir []byte, why string) (found int) {
	changed := make(map[string]bool, len(r.Changes))
	waiting := w.bursts.paths()
	for i := range r.Changes {
		c := &r.Changes[i]
		changed[string(c.Path)] = true
		f := w.finding(c, r)
		if waiting[string(c.Path)] || w.ledger.knows(&f) {
			continue // of what has a burst, it is known who did it
		}
		found++
		if why != "" {
			f.Evidence["by"] = "unknown: " + why
		}
		w.ledger.set(c.Path, &f, false)
		w.tell(&Record{
			Kind: FileRecord, Path: c.Path, From: c.From, Action: "found", Verdict: Verdict(c.Kind),
			Severity: c.Severity, Attributes: c.Attributes, Text: why,
		})
	}
	if len(r.Problems) == 0 {
		w.ledger.clear(dir, changed)
	}
	return found
}

// first compares everything when the watch begins, and tells of the time in
// which nobody watched.
func (w *watcher) first(ctx context.Context) error {
	why := "it was so when the first watch began"
	now := time.Now()
	if !w.before.Alive.IsZero() {
		why = fmt.Sprintf("it changed while nobody watched, between %s and %s", stamp(w.before.Alive), stamp(now))
	}
	n, err := w.compareBelow(ctx, []byte("/"), why)
	if err != nil {
		if errors.Is(err, context.Canceled) {
			return nil
		}
		return err
	}
	if w.before.Alive.IsZero() {
		return nil
	}
	g := &Record{
		Kind: GapRecord, Since: w.before.Alive, Until: now, Clean: w.before.Clean, Found: n, Severity: finding.Medium,
		Text: "the watch before ended without a word: it was killed, or the host went down",
	}
	switch {
	case w.before.Clean:
		g.Severity, g.Text = finding.Info, "the watch before was ended"
	case w.before.Boot != bootID():
		g.Text = "the host was started anew, and the watch before had not been ended"
	}
	w.tell(g)
	w.ledger.event("watch-gap", w.opened.Entry.Name+": "+stamp(g.Since)+" to "+stamp(g.Until), finding.Finding{
		Severity: g.Severity, Title: "Nobody watched for " + g.Until.Sub(g.Since).Round(time.Second).String() + ": " + g.Text,
		Evidence:    map[string]string{"from": stamp(g.Since), "until": stamp(g.Until), "changes": fmt.Sprint(n)},
		Remediation: "What differs from the baseline since then was found and has findings of its own; what was put back in that time was not seen",
	})
	return nil
}

// overflowed compares everything after the kernel's queue was full.
func (w *watcher) overflowed(ctx context.Context, since time.Time) error {
	until := time.Now()
	r, err := w.opened.Below(ctx, []byte("/"))
	if err != nil {
		return fmt.Errorf("compare with the baseline: %w", err)
	}
	n := w.take(r, []byte("/"), fmt.Sprintf("events were lost between %s and %s", stamp(since), stamp(until)))
	rec := &Record{
		Kind: OverflowRecord, Since: since, Until: until, Found: n, Severity: finding.Medium,
		Text: "more happened than could be read: events were lost, and everything was compared again",
	}
	if len(r.Problems) > 0 {
		w.incomplete("after an overflow %d paths could not be compared", len(r.Problems))
	}
	w.tell(rec)
	w.ledger.event("watch-overflow", w.opened.Entry.Name+": "+stamp(since)+" to "+stamp(until), finding.Finding{
		Severity: finding.Medium, Title: "More happened than the watch could read, so it is not known who did everything",
		Evidence:    map[string]string{"from": stamp(since), "until": stamp(until), "changes": fmt.Sprint(n)},
		Remediation: "What differs from the baseline was found by comparing everything; when this comes often, raise fs.fanotify.max_queued_events",
	})
	return nil
}

// reload goes over to the baseline that is the current one now.
func (w *watcher) reload(ctx context.Context) error {
	next, err := w.engine.OpenCurrent(ctx, w.o.Name)
	if errors.Is(err, integrity.ErrNoBaseline) || err != nil && failure.KindOf(err) == failure.Busy {
		return nil // looked at again when the catalogue changes again
	}
	if err != nil {
		return err
	}
	if next.Entry.ID == w.opened.Entry.ID {
		return next.Close()
	}
	t, err := readMounts(next)
	if err != nil {
		next.Close()
		return err
	}
	old := w.opened
	w.opened = next
	w.shown.Store(next)
	w.source.adopt(next, t)
	if s, ok := w.source.(*fanSource); ok {
		s.links.build(next, t)
	}
	if w.enforcer != nil {
		if err := w.enforcer.reload(next); err != nil {
			return err
		}
	}
	if err := old.Close(); err != nil {
		return err
	}
	n, err := w.compareBelow(ctx, []byte("/"), "it is not in the new baseline")
	w.tell(&Record{Kind: BaselineRecord, Found: n, Text: next.Entry.Name + "@" + next.Entry.ID})
	return err
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// inTree tells whether a path is below a directory, both below the tree.
func inTree(path, dir []byte) bool {
	return len(dir) == 1 || len(path) > len(dir) && bytes.HasPrefix(path, dir) && path[len(dir)] == '/'
}
