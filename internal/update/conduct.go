package update

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"github.com/mobileops/mobileops/internal/change"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/state"
	"github.com/mobileops/mobileops/internal/update/store"
)

// patience is how long Rollback waits for whoever conducts a trial to end it.
const patience = 20 * time.Second

// errAway says that a trial was ended by who conducts it, who still runs the hook
// that belongs to going back.
var errAway = errors.New("the trial has ended, and its hook runs")

// takeFromTrial takes the store as session does. When another process holds it
// and conducts a trial, that one is asked to end it, and waited for. It returns
// the trial that it has waited for; nil when there was none.
func (e *Engine) takeFromTrial(ctx context.Context, n *Notice) (*store.Session, *Pending, error) {
	var trial *Pending
	asked := map[int]bool{}
	until := time.Now().Add(patience)
	for {
		s, err := e.session(ctx, n, true)
		var held *state.HeldError
		if !errors.As(err, &held) || held.Holder.PID == os.Getpid() {
			return s, trial, err
		}
		p, readErr := e.Pending()
		if p != nil {
			trial = p
		}
		if readErr != nil || trial == nil {
			return nil, nil, err
		}
		current, _ := e.store.Current()
		// One that goes back already is not to be disturbed.
		if pid := held.Holder.PID; p != nil && current == p.To && pid > 0 && !asked[pid] {
			asked[pid] = true
			n.phase("ending the trial of generation %d, which process %d conducts", p.To, pid)
			e.endHolder(held)
		}
		if time.Now().After(until) {
			if current == trial.From && current > 0 {
				return nil, trial, errAway
			}
			return nil, nil, failure.Hint(fmt.Errorf("%w, and does not end its trial", err), "end that process, and run the command again")
		}
		select {
		case <-ctx.Done():
			return nil, nil, ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// endHolder asks a process to end that holds the lock of the store. The process
// is got hold of first, and is the one that is meant when it then still has the
// lock: its number may have been given to another one otherwise.
func (e *Engine) endHolder(held *state.HeldError) {
	process, err := os.FindProcess(held.Holder.PID)
	if err != nil {
		return
	}
	defer process.Release()
	if h, busy := state.New(e.o.Dir, state.Options{}).Holder(held.Name); busy && h.PID == held.Holder.PID {
		_ = process.Signal(syscall.SIGTERM)
	}
}

// cutOff is why a generation was left, where whoever left it could not say so.
const cutOff = "it was broken off while the host went back"

// wentBack completes a way back from a trial that was broken off after the switch:
// it is written down, and services are told. It says whether there was one; when
// the generation of the trial never became current, there was not. The trial is
// over afterwards.
func (e *Engine) wentBack(ctx context.Context, s *store.Session, p *Pending, n *Notice) (bool, error) {
	left, err := s.Generation(p.To)
	switch {
	case errors.Is(err, store.ErrMissing):
		return false, e.end()
	case errors.Is(err, store.ErrDamaged):
		left = &store.Generation{Number: p.To}
	case err != nil:
		return false, err
	case left.Staged:
		return false, e.end()
	}
	old, err := s.Generation(p.From)
	if errors.Is(err, store.ErrDamaged) {
		old = &store.Generation{Number: p.From}
	} else if err != nil {
		return false, err
	}
	err = e.o.State.Update(ctx, func(tx *state.Tx) error {
		list, err := e.historyIn(tx, 1)
		if err != nil {
			return err
		}
		if len(list) > 0 && list[0].Kind == EventUndone && list[0].From == p.To && list[0].To == p.From && !list[0].Time.Before(p.Since) {
			return nil // that much was done
		}
		return e.undoneIn(tx, left, old, cutOff)
	})
	if e.again(p, n); p.Again > maxBack {
		n.problem(errors.New("the hook that follows a rollback was not run again, since whoever ran it died: restart what uses the installation"))
	} else {
		n.problem(e.hookOf(ctx, s, old, left, "rollback", n))
	}
	if err == nil {
		err = ctx.Err()
	}
	if err != nil { // whoever comes next does it
		return true, err
	}
	return true, e.end()
}

// undoneIn writes down that the host went back by itself.
func (e *Engine) undoneIn(tx *state.Tx, left, old *store.Generation, why string) error {
	if err := undoneChange(tx, left, e.now()); err != nil {
		return err
	}
	return e.noteIn(tx, Event{Kind: EventUndone, From: left.Number, To: old.Number, Package: old.Origin, Change: left.Change, Reason: why})
}

// undoneChange tells the change of a generation that it is no longer in force. One
// that is not in state.db any more need not be told.
func undoneChange(tx *state.Tx, left *store.Generation, now time.Time) error {
	if left == nil || left.Change == "" {
		return nil
	}
	if _, err := change.Undone(tx, left.Change, now); err != nil && !errors.Is(err, change.ErrNotFound) {
		return err
	}
	return nil
}
