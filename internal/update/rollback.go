package update

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/mobileops/mobileops/internal/change"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/state"
	"github.com/mobileops/mobileops/internal/trust"
	"github.com/mobileops/mobileops/internal/update/store"
)

// Rollback makes an earlier generation current: to, or with 0 the one that the
// current one was made from. It asks nobody and checks nothing but that the
// generation is there: it is what is done when nothing else works. A trial that
// is under way ends with it.
func (e *Engine) Rollback(ctx context.Context, to int, n *Notice) (*Result, error) {
	began := time.Now()
	if n == nil {
		n = new(Notice)
	}
	s, trial, err := e.takeFromTrial(ctx, n)
	if errors.Is(err, errAway) && (to == 0 || to == trial.From) {
		g, err := e.store.Generation(trial.From)
		return &Result{Generation: g, From: trial.To, Live: true, Took: time.Since(began)}, err
	} else if errors.Is(err, errAway) {
		return nil, failure.Errorf(failure.Busy, "generation %d is current again, and the hook that belongs to it still runs; run the command again", trial.From)
	}
	if err != nil {
		return nil, err
	}
	defer s.Release()
	current, err := s.Current()
	if err != nil {
		return nil, err
	}
	if current == 0 {
		return nil, store.ErrNone
	}
	// Where the note cannot be read, going back matters more.
	p, _ := e.Pending()
	var noted error
	if p != nil && p.From > 0 && current == p.From {
		var was bool
		if was, noted = e.wentBack(ctx, s, p, n); was {
			trial = p
		}
	}
	if trial != nil && trial.From > 0 && current == trial.From && (to == 0 || to == current) {
		// It is what was asked for, and is not to be gone back from twice.
		g, err := s.Generation(current)
		return &Result{Generation: g, From: trial.To, Live: true, Took: time.Since(began)}, errors.Join(err, unrecorded(noted, current))
	}
	left, err := s.Generation(current)
	if errors.Is(err, store.ErrDamaged) && to > 0 { // then it is all the more to be left
		left, err = &store.Generation{Number: current}, nil
	}
	if err != nil {
		return nil, err
	}
	asked := to > 0
	if !asked {
		if to, err = e.before(ctx, left); p != nil && p.From > 0 && current == p.To {
			to, err = p.From, nil
		}
		if errors.Is(err, store.ErrMissing) {
			return nil, failure.Hint(failure.Errorf(failure.No, "there is nothing before generation %d to go back to", current), "see what there is: mobileops update list")
		} else if err != nil {
			return nil, err
		}
	}
	if to == current {
		return nil, fmt.Errorf("generation %d: %w", to, ErrCurrent)
	}
	g, err := s.Generation(to)
	if err != nil {
		return nil, err
	}
	if g.Staged && g.Kind == store.Updated {
		return nil, failure.Hint(failure.Errorf(failure.No, "generation %d was never live", to), fmt.Sprintf("make it live: mobileops update activate %d", to))
	}
	if asked { // where the history cannot be read, going back matters more
		if list, err := e.History(ctx, 0); err == nil && neverStayed(list, g) {
			return nil, failure.Hint(failure.Errorf(failure.No, "generation %d failed its trial, and never was more than that", to), fmt.Sprintf("try it again: mobileops update activate %d", to))
		}
	}
	if _, err := s.Activate(ctx, to, e.now()); err != nil {
		return nil, err
	}
	res := &Result{Generation: g, From: current, Live: true, Took: time.Since(began)}
	ctx = context.WithoutCancel(ctx)
	if p, err := e.Pending(); err != nil || p != nil {
		if err := e.end(); err != nil {
			return res, err
		}
	}
	err = e.o.State.Update(ctx, func(tx *state.Tx) error {
		if err := undoneChange(tx, left, e.now()); err != nil {
			return err
		}
		if g.Change != "" { // what it permitted is in force again, and so is what it did not
			if _, err := change.Redone(tx, g.Change); err != nil && !errors.Is(err, change.ErrNotFound) {
				return err
			}
		}
		return e.noteIn(tx, Event{Kind: EventRollback, From: current, To: to, Package: g.Origin})
	})
	return res, errors.Join(unrecorded(err, to), e.hookOf(ctx, s, g, left, "rollback", n))
}

// unrecorded is the error of a rollback that took place and stands in no history,
// as where the disk of the state is full. Whoever did it again, as the state advises
// for what it refuses, would go back twice.
func unrecorded(err error, to int) error {
	if err == nil {
		return nil
	}
	kind := failure.KindOf(err)
	if hinted, ok := errors.AsType[*failure.Error](err); ok && hinted.Hint != "" && hinted.Err != nil {
		err = hinted.Err
	}
	return failure.Hint(failure.Errorf(kind, "generation %d is current, but that could not be recorded: %w", to, err), "do not go back a second time; see what is current: mobileops update list")
}

// Activate makes a staged generation current, or any other one again. Number 0 is
// the latest staged one.
func (e *Engine) Activate(ctx context.Context, number int, n *Notice) (*Result, error) {
	if n == nil {
		n = new(Notice)
	}
	s, err := e.session(ctx, n, true)
	if err != nil {
		return nil, err
	}
	defer s.Release()
	if err := e.settle(ctx, s, n); err != nil {
		return nil, err
	}
	list, err := s.List()
	if err != nil {
		return nil, err
	}
	var g *store.Generation
	for _, x := range list {
		if x.Number == number || number == 0 && x.Staged && x.Kind == store.Updated {
			g = x
		}
	}
	switch {
	case g == nil && number == 0:
		return nil, failure.Hint(failure.New(failure.No, "no generation is staged"), "stage one: mobileops update apply PKG --stage-only")
	case g == nil:
		return nil, fmt.Errorf("%w: %d", store.ErrMissing, number)
	case g.Damaged != "":
		return nil, fmt.Errorf("generation %d: %w: %s", number, store.ErrDamaged, g.Damaged)
	case g.Current:
		return nil, fmt.Errorf("generation %d: %w", g.Number, ErrCurrent)
	}
	history, err := e.History(ctx, 0)
	if err != nil {
		return nil, err
	}
	if g.Origin != nil && unaccepted(history, g) {
		if err := e.stillGood(ctx, g); err != nil {
			return nil, err
		}
	}
	current, err := s.Current()
	if err != nil {
		return nil, err
	}
	res := &Result{Generation: g, From: current, Change: g.Change}
	return res, e.enter(ctx, s, g, EventActivate, res, n)
}

// stillGood refuses a package that has expired, or been overtaken, or whose key
// is trusted no longer, or whose change no longer allows it.
func (e *Engine) stillGood(ctx context.Context, g *store.Generation) error {
	o := g.Origin
	if !o.Expires.IsZero() {
		seen, err := e.latestSeen(ctx)
		if err != nil {
			return err
		}
		if err := (trust.Release{Name: o.Name, Version: o.Version, Expires: o.Expires}).Current(e.now(), seen); err != nil {
			return err
		}
	}
	if err := e.stillTrusted(o); err != nil {
		return err
	}
	_, err := e.newest(ctx, o.Name, o.Channel, o.Sequence)
	downgrade := errors.Is(err, ErrDowngrade)
	if err != nil && (!downgrade || g.Change == "") {
		return err
	}
	if g.Change == "" {
		if e.o.RequireChange {
			return failure.Hint(ErrNoChange, "it was staged without one; apply the package again with --change ID")
		}
		return nil
	}
	return e.o.State.View(ctx, func(tx *state.Tx) error { return e.authorize(tx, g.Change, *o, downgrade) })
}

// stillTrusted refuses a package whose key was removed since, or limited to others.
// One of a repository has none: its metadata vouched for it.
func (e *Engine) stillTrusted(o *store.Origin) error {
	if o.Key == "" {
		return nil
	}
	keys, err := e.o.Keys()
	if err != nil {
		return err
	}
	what := "is not trusted here any more"
	for _, key := range keys.List() {
		if key.ID() != o.Key {
			continue
		}
		names, channels := key.Scope.Names, key.Scope.Channels
		if (len(names) == 0 || slices.Contains(names, o.Name)) && (len(channels) == 0 || slices.Contains(channels, o.Channel)) {
			return nil
		}
		what = "is trusted only for others"
	}
	return failure.Hint(failure.Errorf(failure.Untrustworthy, "%s %s was signed by the key %s, which %s", o.Name, o.Version, o.Key, what),
		"have it signed by a key that is trusted (mobileops update key list), and apply it again")
}

// Failed returns the numbers of generations that failed their trial and were never
// more than that, by the history; none where that cannot be read.
func (e *Engine) Failed(ctx context.Context, list []*store.Generation) map[int]bool {
	events, err := e.History(ctx, 0)
	if err != nil {
		return nil
	}
	failed := map[int]bool{}
	for _, g := range list {
		if !g.Staged && neverStayed(events, g) {
			failed[g.Number] = true
		}
	}
	return failed
}
