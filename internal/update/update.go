// Package update brings an installation from one generation to the next: a
// package is proved, laid out beside what is there, made live by one rename,
// tried, and undone when it does not work.
//
// What is live is decided by the store alone (package store): the link that is
// current. What state.db has follows from it, and is put right whenever it does
// not: the history of switches, and the highest sequence that was accepted of
// each package, below which nothing is applied.
//
// While a new generation is on trial (hooks, health checks), a file in the store
// says so: Pending. Whoever finds it with nobody at work, which may be after a
// crash or a reboot, ends the trial: Resolve.
//
// Buckets of state.db:
//
//	update           "seen": the latest moment of any event; for each installation a bucket of its path: "current", and "history" (8 bytes big endian → JSON)
//	update_accepted  NAME/CHANNEL → JSON: the highest sequence accepted
//
// docs/formats/update-store.md describes both.
package update

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/state"
	"github.com/mobileops/mobileops/internal/trust"
	"github.com/mobileops/mobileops/internal/update/health"
	"github.com/mobileops/mobileops/internal/update/store"
)

// SelfName is the name of the packages that hold mobileops itself. They are for
// an installation of their own.
const SelfName = "mobileops"

// Options say what an engine works on.
type Options struct {
	Dir    string // the store
	Target string // the installation
	State  *state.Store
	Keys   func() (*trust.Keys, error) // who is trusted; asked when a package is to be proved
	// Channel is the one that this host follows; "": any.
	Channel string
	// Self says that the installation is of mobileops itself: only packages of
	// SelfName are for it, and they are for no other.
	Self bool
	// RequireChange refuses packages without an approved change.
	RequireChange bool
	Host          string        // the name of this host; changes that are for another one permit nothing
	Deadline      time.Duration // of health checks that name none
	By            string        // who asks
	Doing         string        // the command, for whoever waits for it
	Now           func() time.Time
	Step          func(name string) // see store.Options
	// Guard starts a process that calls Resolve when this one dies during a trial;
	// nil: nobody does before the next command.
	Guard func() error
}

// Engine updates one installation. Making one opens nothing.
type Engine struct {
	o     Options
	store *store.Store
}

// New returns the engine of an installation.
func New(o Options) *Engine {
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Engine{o, store.New(store.Options{Dir: o.Dir, Target: o.Target, Step: o.Step})}
}

// Store returns the store, for reading.
func (e *Engine) Store() *store.Store { return e.store }

func (e *Engine) now() time.Time { return e.o.Now().UTC().Round(0) }

// Notice is told what happens while it does; every field may be nil.
type Notice struct {
	Phase   func(words string)                 // what begins: "health check"
	Read    func(files, bytes int64)           // of the package, so far
	Attempt func(health.Attempt)               // at the health check
	Output  func(hook string, o health.Output) // of a hook
	Problem func(err error)                    // what is wrong and does not end it
}

func (n *Notice) phase(format string, args ...any) {
	if n.Phase != nil {
		n.Phase(fmt.Sprintf(format, args...))
	}
}

func (n *Notice) problem(err error) {
	if n.Problem != nil && err != nil {
		n.Problem(err)
	}
}

// Errors that callers tell apart.
var (
	ErrDowngrade = failure.New(failure.Untrustworthy, "downgrade")
	ErrChannel   = failure.New(failure.Untrustworthy, "wrong channel")
	ErrName      = failure.New(failure.Untrustworthy, "wrong package")
	ErrUnhealthy = failure.New(failure.Failed, "the new generation is not healthy")
	ErrHook      = failure.New(failure.Failed, "a hook failed")
	ErrNoChange  = failure.New(failure.NotAllowed, "an approved change is required")
	ErrCurrent   = failure.New(failure.Busy, "it is current already")
)

// session takes the store, and ends the hook that whoever had it before left
// behind.
func (e *Engine) session(ctx context.Context, n *Notice, mustExist bool) (*store.Session, error) {
	if n == nil {
		n = new(Notice)
	}
	take := e.store.Lock
	if mustExist {
		take = e.store.Existing
	}
	s, err := take(ctx, e.o.Doing)
	if err != nil {
		return nil, err
	}
	e.endOrphan(n)
	for _, what := range s.Swept {
		n.phase("cleared away %s", what)
	}
	for _, err := range s.Stuck {
		n.problem(err)
	}
	return s, nil
}

// Backup keeps the tree as it is now, local edits and all, as a generation that
// can be gone back to.
func (e *Engine) Backup(ctx context.Context, reason string, n *Notice) (*store.Generation, error) {
	st, err := os.Stat(e.o.Target)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, failure.Errorf(failure.NotReady, "there is no installation at %s to keep", e.o.Target)
	} else if err != nil {
		return nil, err
	} else if !st.IsDir() {
		return nil, failure.Errorf(failure.NotReady, "%s is no directory", e.o.Target)
	}
	s, err := e.session(ctx, n, false)
	if err != nil {
		return nil, err
	}
	defer s.Release()
	if err := e.settle(ctx, s, n); err != nil {
		return nil, err
	}
	from, err := s.Current()
	if err != nil {
		return nil, err
	}
	g, err := s.Stage(ctx, store.Request{Now: e.now(), By: e.o.By})
	if err != nil {
		return nil, err
	}
	if from == 0 {
		if err := e.note(ctx, Event{Kind: EventAdopt, To: g.Base}); err != nil {
			return nil, err
		}
	}
	if err := s.Pin(g.Number, &store.Pin{Reason: reason, By: e.o.By, At: e.now()}); err != nil {
		return nil, err
	}
	return g, e.note(ctx, Event{Kind: EventBackup, To: g.Number, Reason: reason})
}

// Prune removes the generations that Removable names.
func (e *Engine) Prune(ctx context.Context, keep int, n *Notice) (store.Pruned, error) {
	s, err := e.session(ctx, n, true)
	if err != nil {
		return store.Pruned{}, err
	}
	defer s.Release()
	if err := e.settle(ctx, s, n); err != nil {
		return store.Pruned{}, err
	}
	return e.removeBeyond(ctx, s, keep, "")
}

// removeBeyond removes the generations that Removable names, and writes down why.
func (e *Engine) removeBeyond(ctx context.Context, s *store.Session, keep int, reason string) (p store.Pruned, err error) {
	gone, err := e.Removable(ctx, keep)
	if err != nil {
		return p, err
	}
	numbers := make([]int, len(gone))
	for i, g := range gone {
		numbers[i] = g.Number
	}
	p, err = s.Remove(ctx, numbers)
	if len(p.Generations) > 0 {
		err = errors.Join(err, e.note(ctx, Event{Kind: EventPrune, Removed: p.Generations, Reason: reason}))
	}
	return p, err
}

// Pin keeps a generation from being pruned, or, with a nil pin, no longer.
func (e *Engine) Pin(ctx context.Context, number int, p *store.Pin, n *Notice) error {
	s, err := e.session(ctx, n, true)
	if err != nil {
		return err
	}
	defer s.Release()
	return s.Pin(number, p)
}
