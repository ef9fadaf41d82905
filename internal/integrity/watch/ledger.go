package watch

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/mobileops/mobileops/internal/finding"
	"github.com/mobileops/mobileops/internal/integrity"
	"github.com/mobileops/mobileops/internal/state"
	"github.com/zeebo/blake3"
)

// ledger stores the findings of a watch: what differs from the baseline now
// under the scope "watch:NAME", and what happened once (gaps, overflows,
// denials) under "watch-events:NAME", which only a person closes.
type ledger struct {
	store         *state.Store
	scope, events string

	mu   sync.Mutex
	room sync.Cond
	open map[ledgerKey]opened           // as stored, or about to be
	todo map[ledgerKey]*finding.Finding // nil: it is no more
	once []finding.Finding
	told map[ledgerKey]bool // what happened, as far as it was kept
	many int                // changes that were not kept, because there are too many
	shut bool
}

type ledgerKey struct{ rule, subject string }

// opened is what must be known of a finding that is open.
type opened struct {
	change [32]byte // digest of its evidence without who did it and when
	from   string   // of what was moved
}

func openedOf(f *finding.Finding) opened { return opened{changeOf(f.Evidence), f.Evidence["from"]} }

const (
	maxOpen    = 20000 // findings of one watch that are open
	maxTodo    = 6000  // waiting to be stored; then the judge waits
	maxOnce    = 1000
	perStore   = 2000                   // in one transaction
	storeEvery = 500 * time.Millisecond // at most two a second
)

// rules are those of a path: of one path at most one is open.
var rules = [...]string{"watch-added", "watch-changed", "watch-removed", "watch-moved"}

const tooMany = "watch-too-many-changes"

func newLedger(s *state.Store, name string) *ledger {
	l := &ledger{store: s, scope: "watch:" + name, events: "watch-events:" + name, open: map[ledgerKey]opened{}, todo: map[ledgerKey]*finding.Finding{}, told: map[ledgerKey]bool{}}
	l.room.L = &l.mu
	return l
}

// load reads what the watch before found, with who did it.
func (l *ledger) load(ctx context.Context) error {
	return l.store.View(ctx, func(tx *state.Tx) error {
		list, err := finding.List(tx, finding.Filter{Sources: []string{integrity.Source}, Tags: []string{"watch"}}, time.Now())
		if err != nil {
			return err
		}
		clear(l.open)
		for _, r := range list {
			if slices.Contains(r.Scopes, l.scope) {
				l.open[ledgerKey{r.Rule, r.Subject}] = openedOf(&r.Finding)
			}
		}
		return nil
	})
}

// set notes what is known of a path now: f, or with nil that it is as it was.
// With keepWho, who did it stays as it was when nothing else changed.
func (l *ledger) set(path []byte, f *finding.Finding, keepWho bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.todo) >= maxTodo && !l.shut {
		l.room.Wait()
	}
	subject := string(path)
	for _, rule := range rules {
		key := ledgerKey{rule, subject}
		if f != nil && f.Rule == rule {
			continue
		}
		if _, known := l.open[key]; known {
			delete(l.open, key)
			l.todo[key] = nil
		}
	}
	if f == nil {
		return
	}
	key := ledgerKey{f.Rule, subject}
	old, known := l.open[key]
	if known && keepWho && old.change == changeOf(f.Evidence) {
		return
	}
	if !known && len(l.open) >= maxOpen {
		l.many++
		l.tooMany(f)
		return
	}
	l.open[key] = openedOf(f)
	l.todo[key] = f
}

// tooMany says in one finding that there are more. l.mu is held.
func (l *ledger) tooMany(f *finding.Finding) {
	key := ledgerKey{tooMany, l.scope}
	f = &finding.Finding{
		Source: integrity.Source, Rule: key.rule, Subject: key.subject, Severity: f.Severity, Observed: f.Observed, Tags: f.Tags,
		Title:       fmt.Sprintf("More than %s changes are open; further ones are not listed one by one", strconv.Itoa(maxOpen)),
		Remediation: "See the whole report: mobileops integrity check",
	}
	if _, known := l.open[key]; !known {
		l.open[key] = openedOf(f)
		l.todo[key] = f
	}
}

// knows tells whether a change is stored already, whoever did it.
func (l *ledger) knows(f *finding.Finding) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	old, known := l.open[ledgerKey{f.Rule, f.Subject}]
	return known && old.change == changeOf(f.Evidence)
}

// movedFrom returns where the content of a path was in the baseline, when a
// finding says that it was moved.
func (l *ledger) movedFrom(path []byte) []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	if f, known := l.open[ledgerKey{"watch-moved", string(path)}]; known {
		return []byte(f.from)
	}
	return nil
}

// clear lets go of everything below a directory that is not in changed.
func (l *ledger) clear(dir []byte, changed map[string]bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for key := range l.open {
		if key.rule == tooMany {
			if len(dir) == 1 && len(changed) < maxOpen {
				delete(l.open, key)
				l.todo[key] = nil
			}
			continue
		}
		if !changed[key.subject] && inTree([]byte(key.subject), dir) {
			delete(l.open, key)
			l.todo[key] = nil
		}
	}
}

// event keeps something that happened once.
func (l *ledger) event(rule, subject string, f finding.Finding) {
	f.Source, f.Rule, f.Subject, f.Observed = integrity.Source, rule, subject, time.Now()
	f.Tags = append(f.Tags, "file-integrity", "watch")
	l.mu.Lock()
	defer l.mu.Unlock()
	// Anybody can run a program of a new name, again and again.
	if key := (ledgerKey{rule, subject}); !l.told[key] {
		if len(l.told) >= maxOpen {
			f.Rule, f.Subject = "watch-too-many-events", l.events
			f.Title = fmt.Sprintf("More than %d things happened that are findings; further ones are not listed one by one", maxOpen)
			f.Evidence = nil
		} else {
			l.told[key] = true
		}
	}
	if len(l.once) < maxOnce {
		l.once = append(l.once, f)
	}
}

// changeOf is a digest of evidence without who did it and when.
func changeOf(evidence map[string]string) [32]byte {
	h := blake3.New()
	for _, k := range slices.Sorted(maps.Keys(evidence)) {
		if k != "by" && k != "events" && k != "baseline" && !strings.HasPrefix(k, "by.") {
			fmt.Fprintf(h, "%d %s%d %s", len(k), k, len(evidence[k]), evidence[k])
		}
	}
	return [32]byte(h.Sum(nil))
}

// run stores until done is closed, and then what is left.
func (l *ledger) run(done <-chan struct{}, w *watcher) {
	tick := time.NewTicker(storeEvery)
	defer tick.Stop()
	ctx := context.Background()
	for {
		last := false
		select {
		case <-tick.C:
		case <-done:
			last = true
		}
		for {
			left, err := l.flush(ctx)
			if errors.Is(err, state.ErrCorrupt) {
				w.fail(fmt.Errorf("store findings: %w", err))
				l.close()
				return
			}
			if err != nil && !last && !errors.Is(err, state.ErrBusy) {
				// A full disk must not end a watch: anybody can fill one.
				w.incomplete("findings cannot be stored for now: %v", err)
			}
			if err != nil && last {
				w.incomplete("the last findings were not stored: %v", err)
			}
			if !last || left == 0 || err != nil {
				break
			}
		}
		if last {
			return
		}
	}
}

func (l *ledger) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.shut = true
	l.room.Broadcast()
}

// flush stores some of what waits, in one transaction, and returns how much is
// left. What could not be stored waits again.
func (l *ledger) flush(ctx context.Context) (left int, err error) {
	l.mu.Lock()
	once := l.once
	l.once = nil
	batch := make(map[ledgerKey]*finding.Finding, min(len(l.todo), perStore))
	var found, gone []finding.Finding
	for key, f := range l.todo {
		if len(batch) == perStore {
			break
		}
		batch[key] = f
		delete(l.todo, key)
		if f != nil {
			found = append(found, *f)
		} else {
			gone = append(gone, finding.Finding{Rule: key.rule, Subject: key.subject})
		}
	}
	left = len(l.todo)
	l.room.Broadcast()
	l.mu.Unlock()
	if len(batch)+len(once) == 0 {
		return 0, nil
	}
	now := time.Now()
	err = l.store.Update(ctx, func(tx *state.Tx) error {
		if _, err := finding.Resolve(tx, integrity.Source, l.scope, gone, "the watch saw that it is as in the baseline again, or differs in another way", now); err != nil {
			return err
		}
		if _, err := finding.ReportPartial(tx, integrity.Source, l.scope, found, now); err != nil {
			return err
		}
		if len(once) == 0 {
			return nil
		}
		_, err := finding.ReportPartial(tx, integrity.Source, l.events, once, now)
		return err
	})
	if err != nil {
		l.mu.Lock()
		l.once = append(once, l.once...)
		for key, f := range batch {
			if _, newer := l.todo[key]; !newer {
				l.todo[key] = f
			}
		}
		l.mu.Unlock()
	}
	return left, err
}

// addProcess says in evidence who did it.
func addProcess(to map[string]string, p *Process) {
	switch {
	case p == nil:
		to["by"] = "unknown: inotify does not tell"
		return
	case p.PID == 0:
		to["by"] = "unknown: a process in another namespace, or the kernel itself"
		return
	case !p.Known():
		to["by"] = fmt.Sprintf("pid %d, which had ended before anything could be read", p.PID)
		return
	}
	to["by"] = fmt.Sprintf("pid %d %s", p.PID, p.Program())
	to["by.exe"], to["by.command"] = p.Exe, strings.Join(p.Args, " ")
	to["by.uid"], to["by.started"] = strconv.Itoa(p.UID), p.Started.UTC().Format(time.RFC3339Nano)
	if p.LoginUID >= 0 {
		to["by.login_uid"] = strconv.Itoa(p.LoginUID)
	}
	if p.Cgroup != "" {
		to["by.cgroup"] = p.Cgroup
	}
	var above []string
	for _, a := range p.Parents {
		above = append(above, fmt.Sprintf("%d %s", a.PID, a.Name))
	}
	if above != nil {
		to["by.parents"] = strings.Join(above, ", ")
	}
}

// addEvents says in evidence what happened.
func addEvents(to map[string]string, b *burst) {
	c := &b.counts
	to["events"] = fmt.Sprintf("created %d, modified %d, closed %d, attributes %d, renamed from %d, renamed to %d, removed %d; %s to %s",
		c.Created, c.Modified, c.Closed, c.Attributes, c.RenamedFrom, c.RenamedTo, c.Removed,
		b.first.UTC().Format(time.RFC3339Nano), b.last.UTC().Format(time.RFC3339Nano))
}
