package isolation

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/ruleset"
	"github.com/mobileops/mobileops/internal/state"
)

// Engine isolates this host, remembers it, and keeps a guard.
type Engine struct {
	Store *state.Store
	// StartGuard starts a process that runs Guard and outlives this one, and
	// returns where it is told should the process end before this one; nil:
	// none is started.
	StartGuard func() (ended <-chan error, err error)
	// Warn is told of what went wrong beside the thing itself.
	Warn func(format string, args ...any)
}

// Request is what is to be done by Isolate.
type Request struct {
	Options
	By, Reason, Profile string
	Probe               []Target // must be reachable afterwards
}

// Result is what isolation came to.
type Result struct {
	Prepared *Prepared
	Took     time.Duration // until the rules were in force
	Severed  Severed
	Record   Record
	Guard    state.Holder // of the guard's lock; PID 0: there is none
	// Bypass names processes that no rule can stop.
	Bypass []string
	// SeverError, ProbeError, RecordError and GuardError say what could not be done
	// while isolation is in force.
	SeverError, ProbeError, RecordError, GuardError error
}

// ours reports whether a table is one that mobileops made: of isolation, blocks
// or segments. What the administrator of this host blocks while it is isolated is
// no change by others.
func ours(_ uint8, table string) bool { return strings.HasPrefix(table, "mobileops_") }

// lock keeps others from changing isolation meanwhile. Trouble with the state
// directory, such as a full disk, is no reason not to isolate.
func (e *Engine) lock(doing string) (release func(), err error) {
	if err := mayChange(); err != nil {
		return nil, err
	}
	l, err := e.Store.Lock("network-isolation", doing)
	var held *state.HeldError
	switch {
	case errors.As(err, &held):
		if held.Holder.PID > 0 {
			return nil, failure.Hint(err, fmt.Sprintf("if it hangs: kill -9 %d", held.Holder.PID))
		}
		return nil, err
	case err != nil:
		e.Warn("no lock was taken: %v", err)
		return func() {}, nil
	}
	return func() { l.Release() }, nil
}

// finished is the context of what is to be finished once it has begun: rules, the
// record of them and the guard belong together. An interruption is often not meant
// for it: a connection that isolation has cut ends with SIGHUP. What follows is
// bounded, and who interrupts twice ends the process.
func finished(ctx context.Context) (context.Context, error) {
	return context.WithoutCancel(ctx), ctx.Err()
}

// Isolate puts isolation in force at once, cuts what is not allowed any more,
// and undoes it when a probe fails. Its error says in the end whether the host
// is isolated.
func (e *Engine) Isolate(ctx context.Context, q Request) (*Result, error) {
	release, err := e.lock("network isolate")
	if err != nil {
		return nil, err
	}
	defer release()
	for _, t := range q.Probe {
		q.Allow = append(q.Allow, t.Peers()...)
	}
	q.Owned = e.StartGuard != nil
	began := time.Now()
	prepared, err := Prepare(q.Options, q.By)
	if err != nil {
		return nil, err
	}
	var before *Record
	lasted := false
	if q.Replace {
		before, lasted = e.lasting(ctx)
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := e.makeWay(q.Replace); err != nil {
		return nil, err
	}
	if _, err = prepared.PutInForce(); err != nil {
		e.guardAgain(ctx)
		return nil, err
	}
	r := &Result{Prepared: prepared, Took: time.Since(began)}
	// From here on the host is cut off, and everything else has time.
	r.Severed, r.SeverError = prepared.Sever()
	r.Bypass = bypassing()
	if err := e.probe(ctx, q, before, lasted); errors.Is(err, errNoWayBack) {
		r.ProbeError = err
	} else if err != nil {
		return nil, err
	}
	ctx = context.WithoutCancel(ctx) // see finished
	r.Record = Record{Since: began, By: q.By, Reason: q.Reason, Profile: q.Profile, Allow: prepared.Allowed(), Strict: q.Strict, Around: prepared.plan.around.Remembered, Mark: prepared.plan.note}
	if q.Confirm > 0 {
		r.Record.Deadline = began.Add(q.Confirm)
	}
	if r.Record.Before, err = ruleset.Digest(ctx, ours); err != nil {
		e.Warn("the rules of others could not be read: %v", err)
	}
	r.RecordError = Save(ctx, e.Store, &r.Record)
	r.Guard, r.GuardError = e.startGuard(ctx)
	return r, nil
}

// makeWay ends the guard of isolation that is to be replaced, or has lapsed: such
// a one still owns the tables, and would call what comes next lapsed, too.
func (e *Engine) makeWay(replace bool) error {
	if !e.guarded() {
		return nil
	}
	if !replace {
		if now, err := Read(); err != nil || now.InForce {
			return err // PutInForce says what is in force
		}
	}
	return e.stopGuard()
}

// lasting tells whether isolation that lasts is in force, and what is remembered of
// it: nil when that is nothing, or of another one, which lets in others.
func (e *Engine) lasting(ctx context.Context) (r *Record, lasts bool) {
	now, err := Read()
	if err != nil || !now.InForce || now.Pending {
		return nil, false
	}
	r, err = Load(ctx, e.Store)
	if err != nil {
		e.Warn("%v", err)
	}
	if !r.Lasts() || !r.of(&now) {
		return nil, true
	}
	return r, true
}

// again puts in force what a record says.
func (e *Engine) again(r *Record) error {
	p, err := Prepare(Options{Allow: r.Allow, Strict: r.Strict, Remembered: r.Around, Replace: true, Owned: e.StartGuard != nil}, r.By)
	if err != nil {
		return err
	}
	if _, err := p.PutInForce(); err != nil {
		return err
	}
	if _, err := p.Sever(); err != nil {
		e.Warn("%v", err)
	}
	return nil
}

// errNoWayBack says that a target cannot be reached, and that isolation stays all
// the same: before it there was one that lasted, and nobody knows what it let in.
var errNoWayBack = errors.New("this host stays isolated, since nothing is remembered of the isolation before")

// probe undoes isolation when a target cannot be reached any more: what was there
// before is in force again, isolation that lasted included.
func (e *Engine) probe(ctx context.Context, q Request, before *Record, lasted bool) error {
	for _, t := range q.Probe {
		err := t.Reach(ctx)
		if err == nil {
			continue
		}
		if lasted && before == nil {
			return fmt.Errorf("%s cannot be reached from here (%w), and %w", t.Name, err, errNoWayBack)
		}
		what, hint := "isolation", "the host is open again; see that it answers, or leave the probe out"
		undo := Restore
		if before != nil {
			what, hint = "the change", "the host is isolated as it was before; see that it answers, or leave the probe out"
			undo = func() error { return e.again(before) }
		}
		if undo := undo(); undo != nil {
			return fmt.Errorf("%s cannot be reached (%w), and %s could not be undone: %w", t.Name, err, what, undo)
		}
		whole := context.WithoutCancel(ctx)
		if before == nil {
			_ = Save(whole, e.Store, &Record{Since: time.Now(), By: q.By, Reason: q.Reason, Ended: time.Now(), How: "undone"})
		} else if _, err := e.startGuard(whole); err != nil {
			e.Warn("%v", err)
		}
		if ctx.Err() != nil {
			return fmt.Errorf("%s was undone: %w", what, ctx.Err())
		}
		return failure.Hint(failure.Errorf(failure.Failed, "%s was undone: %s cannot be reached from here: %w", what, t.Name, err), hint)
	}
	return nil
}

// Confirm makes isolation that waits for it last.
func (e *Engine) Confirm(ctx context.Context, now time.Time) error {
	release, err := e.lock("network confirm")
	if err != nil {
		return err
	}
	defer release()
	if ctx, err = finished(ctx); err != nil {
		return err
	}
	guarded, err := e.pauseGuard()
	if err != nil {
		return err
	}
	if err = Confirm(); err == nil || errors.Is(err, errConfirmed) {
		switch noted, trouble := e.noteConfirmed(ctx, now); {
		case trouble != nil:
			err = failure.Errorf(failure.Incomplete, "isolation lasts, but not across a reboot: %w", trouble)
		case noted:
			err = nil
		}
	}
	if guarded {
		if _, problem := e.startGuard(ctx); problem != nil && err == nil {
			e.Warn("isolation is confirmed, and the guard did not start again: %v", problem)
		}
	}
	return err
}

// Restored is what taking isolation back came to.
type Restored struct {
	Record *Record // nil: nothing was remembered
	// Same reports whether the rules of others are those from before; it is nil
	// when that cannot be told.
	Same *bool
}

// Restore takes isolation back; ErrNotInForce when there was none.
func (e *Engine) Restore(ctx context.Context, how string) (*Restored, error) {
	release, err := e.lock("network restore")
	if err != nil {
		return nil, err
	}
	defer release()
	if ctx, err = finished(ctx); err != nil {
		return nil, err
	}
	if err := e.stopGuard(); err != nil {
		return nil, err
	}
	r := new(Restored)
	r.Record, err = Load(ctx, e.Store)
	unread := err // trouble with the state must not keep a host cut off
	done := Restore()
	switch {
	case done != nil && !errors.Is(done, ErrNotInForce):
		e.guardAgain(ctx)
		return nil, done
	case unread == nil:
	case done != nil || failure.KindOf(unread) == failure.Untrustworthy: // at the next boot nobody believes it either
		e.Warn("%v", unread)
	default:
		return r, failure.Hint(failure.Errorf(failure.Failed, "the host is not isolated any more, but may be after a reboot or a reconcile, as what is remembered of it cannot be read: %w", unread), "once that is mended: mobileops network restore")
	}
	if r.Record.Open() {
		if done != nil && !r.Record.Lasts() {
			how = "lapsed"
		}
		if err := e.note(ctx, func(rec *Record) { rec.Ended, rec.How = time.Now(), how }); err != nil {
			return r, failure.Hint(failure.Errorf(failure.Failed, "the host is not isolated any more, but would be after a reboot or a reconcile: %w", err), "once that is mended: mobileops network restore")
		}
		if r.Record.Before != "" {
			after, err := ruleset.Digest(ctx, ours)
			if err == nil {
				same := after == r.Record.Before
				r.Same = &same
			}
		}
	}
	return r, done
}

// note changes the record, if there is one.
func (e *Engine) note(ctx context.Context, change func(*Record)) error {
	r, err := Load(ctx, e.Store)
	if err != nil || r == nil {
		return err
	}
	change(r)
	return Save(ctx, e.Store, r)
}

// Lapsed notes that isolation has ended by itself.
func (e *Engine) Lapsed(ctx context.Context) error {
	return e.note(ctx, func(r *Record) {
		if r.Open() {
			r.Ended, r.How = time.Now(), "lapsed"
		}
	})
}

// Reconciled is what Reconcile did.
type Reconciled string

// What Reconcile can have done.
const (
	AsRecorded Reconciled = "as recorded"
	ArmedAgain Reconciled = "isolated again"
	Swept      Reconciled = "removed what was left of isolation that has lapsed"
)

// Reconcile makes true what is remembered: after a reboot, and after somebody
// flushed the rules, a host that is to be isolated is isolated again. Isolation
// that nobody confirmed is not.
func (e *Engine) Reconcile(ctx context.Context) (Reconciled, error) {
	release, err := e.lock("network reconcile")
	if err != nil {
		return "", err
	}
	defer release()
	if ctx, err = finished(ctx); err != nil {
		return "", err
	}
	record, err := Load(ctx, e.Store)
	if err != nil {
		return "", err
	}
	now, err := ReadAll()
	if err != nil {
		return "", err
	}
	switch {
	case record.Lasts() && (!now.InForce || now.Pending || len(now.Gaps) > 0):
		if err := e.stopGuard(); err != nil {
			return "", err
		}
		if err := e.again(record); err != nil {
			e.guardAgain(ctx)
			return "", err
		}
		_, err = e.startGuard(ctx)
		return ArmedAgain, err
	case now.Present && !now.InForce:
		if err := e.stopGuard(); err != nil {
			return "", err
		}
		if err := Restore(); err != nil && !errors.Is(err, ErrNotInForce) {
			return "", err
		}
		return Swept, e.Lapsed(ctx)
	case record.Open() && !record.Lasts() && !now.InForce:
		return Swept, e.Lapsed(ctx)
	case now.InForce && !e.guarded():
		_, err = e.startGuard(ctx)
	}
	return AsRecorded, err
}
