package update

import (
	"context"
	"errors"
	"slices"

	"github.com/mobileops/mobileops/internal/update/store"
)

// neverStayed says, by the history, that a generation was current on trial alone
// and failed: what it holds was not accepted.
func neverStayed(list []Event, g *store.Generation) bool {
	return !g.Current && !stayed(list, g) && slices.ContainsFunc(list, func(ev Event) bool {
		return ev.Kind == EventUndone && ev.From == g.Number && !ev.Time.Before(g.Created)
	})
}

// stayed says, by the history, that a generation made by a package was current
// for more than a trial.
func stayed(list []Event, g *store.Generation) bool {
	return g.Origin == nil || slices.ContainsFunc(list, func(ev Event) bool {
		switch ev.Kind {
		case EventApply, EventActivate, EventRollback, EventFound:
			return ev.To == g.Number && ev.Package != nil && ev.Package.Digest == g.Origin.Digest
		}
		return false
	})
}

// unaccepted says that whoever makes a generation live asks for it anew: it was
// staged and no more, or failed its trial. Where that is not written down, which
// may be because the host was cut off while it went back, it is so as well. Only
// what is older than the history, as after state.db was lost, is left alone.
func unaccepted(list []Event, g *store.Generation) bool {
	if g.Kind != store.Updated {
		return false
	}
	return g.Staged || neverStayed(list, g) || !stayed(list, g) && len(list) > 0 && !list[0].Time.After(g.Created)
}

// before returns the generation that was current before somebody went forward to
// g, by the history; where that does not tell, or cannot be read, the one that g
// was made from. Going back again and again so ends at the first.
func (e *Engine) before(ctx context.Context, g *store.Generation) (int, error) {
	// What happened last tells nearly always, and does not take longer every year.
	list, _ := e.History(ctx, recent)
	way, at := wayHere(list)
	if (at != g.Number || len(way) == 0) && len(list) == recent {
		list, _ = e.History(ctx, 0)
		way, at = wayHere(list)
	}
	if at == g.Number && len(way) > 0 {
		if p, err := e.store.Generation(way[len(way)-1]); err == nil {
			return p.Number, nil
		}
	}
	if len(list) == recent {
		list, _ = e.History(ctx, 0)
	}
	all, err := e.store.List()
	if err != nil {
		return 0, err
	}
	var failed []int
	for _, p := range all {
		if neverStayed(list, p) {
			failed = append(failed, p.Number)
		}
	}
	p, err := e.store.Previous(g, failed...)
	if err != nil {
		return 0, err
	}
	return p.Number, nil
}

// recent is how many events are read at first.
const recent = 32

// wayHere returns the generations that were come by, without what was gone back,
// and the one that it led to. The latest events give the same end of the way as
// all do, or none.
func wayHere(list []Event) (way []int, at int) {
	for _, ev := range list {
		switch ev.Kind {
		case EventApply, EventActivate:
			way = append(way, ev.From)
		case EventRollback, EventFound:
			back := len(way) - 1
			for back >= 0 && way[back] != ev.To {
				back--
			}
			if way = way[:max(back, 0)]; back < 0 && ev.Kind == EventFound {
				way = append(way, ev.From)
			}
		case EventAdopt:
		default:
			continue
		}
		at = ev.To
	}
	return way, at
}

// Before returns the generation that Rollback goes to: store.ErrMissing when
// there is none.
func (e *Engine) Before(ctx context.Context) (int, error) {
	current, err := e.store.Current()
	if err != nil {
		return 0, err
	}
	if current == 0 {
		return 0, store.ErrNone
	}
	g, err := e.store.Generation(current)
	if err != nil {
		return 0, err
	}
	return e.before(ctx, g)
}

// Removable returns the generations that Prune removes: all but the current one,
// the one that Rollback goes to, those that are pinned, and the latest keep of
// the others.
func (e *Engine) Removable(ctx context.Context, keep int) ([]*store.Generation, error) {
	back, err := e.Before(ctx)
	if err != nil && !errors.Is(err, store.ErrMissing) && !errors.Is(err, store.ErrNone) && !errors.Is(err, store.ErrDamaged) {
		return nil, err
	}
	return e.store.Removable(keep, back)
}

// acceptedHere returns the highest release of a package that a generation has
// which was live, or highest: state.db may have been lost.
func (e *Engine) acceptedHere(ctx context.Context, name, channel string, highest Accepted) (Accepted, error) {
	list, err := e.store.List()
	if err != nil {
		if errors.Is(err, store.ErrNone) {
			err = nil
		}
		return highest, err
	}
	var history []Event
	for _, g := range list {
		o, ok := g.Packages[name]
		if !ok || g.Staged || o.Channel != channel || o.Sequence <= highest.Sequence {
			continue
		}
		if history == nil {
			if history, err = e.History(ctx, 0); err != nil {
				return highest, err
			}
		}
		if !neverStayed(history, g) {
			highest = Accepted{o.Name, o.Channel, o.Sequence, o.Version, g.Created}
		}
	}
	return highest, nil
}
