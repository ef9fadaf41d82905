package update

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/mobileops/mobileops/internal/change"
	"github.com/mobileops/mobileops/internal/durable"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/state"
	"github.com/mobileops/mobileops/internal/update/health"
	"github.com/mobileops/mobileops/internal/update/pack"
	"github.com/mobileops/mobileops/internal/update/store"
	"golang.org/x/sys/unix"
)

// Pending is a generation on trial: it is current, and whether it stays is not
// decided.
type Pending struct {
	Schema   string    `json:"schema"`
	From     int       `json:"from"` // the generation that is gone back to; 0: there was none
	To       int       `json:"to"`
	Since    time.Time `json:"since"`
	Deadline time.Time `json:"deadline"`
	Boot     string    `json:"boot"` // random id of the boot in which it began
	Event    string    `json:"event"`
	By       string    `json:"by"`
	Again    int       `json:"again,omitempty"` // how often it was taken over, since who conducted it died
}

const (
	pendingSchema = "mobileops.update.pending/v1"
	namePending   = "pending"
	// secondChance is how long a check may take at least that somebody else takes
	// over.
	secondChance = 15 * time.Second
	// maxAgain is how often a trial is tried anew: what kills whoever conducts it
	// every time, such as a hook that ends its parent, is no generation to stay at.
	maxAgain = 2
	// maxBack is how often it is taken over before the way back does without the hook
	// that tells services of it.
	maxBack = maxAgain + 3
)

func (e *Engine) pendingPath() string { return filepath.Join(e.o.Dir, namePending) }

// Pending returns the trial that is under way; nil when there is none.
func (e *Engine) Pending() (*Pending, error) {
	data, err := os.ReadFile(e.pendingPath())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	p := new(Pending)
	if err := json.Unmarshal(data, p); err != nil || p.Schema != pendingSchema || p.To < 1 {
		return nil, failure.Hint(failure.Errorf(failure.Untrustworthy, "%s cannot be read", e.pendingPath()), "look at mobileops update list, and remove the file when the current generation is the right one")
	}
	return p, nil
}

// bootID identifies this boot of the kernel (random(4)).
func bootID() string {
	data, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(data))
}

// enter makes a generation current and tries it.
func (e *Engine) enter(ctx context.Context, s *store.Session, g *store.Generation, kind string, res *Result, n *Notice) error {
	began := time.Now()
	if err := answerable(g); err != nil {
		return err
	}
	if err := e.hook(ctx, s, g, res.From, "before", n); err != nil {
		return fmt.Errorf("%w; nothing was switched, and generation %d is staged", err, g.Number)
	}
	began = began.Add(-res.Took)
	try := tried(g)
	if try {
		if err := e.begin(g, res.From, kind); err != nil {
			return errors.Join(store.Explain(err), e.discard(ctx, s, g, kind))
		}
	}
	live, err := s.Activate(ctx, g.Number, e.now())
	if err != nil {
		current, readErr := s.Current()
		if readErr == nil && current == g.Number { // it is live, and may not be after a power cut
			err = errors.Join(err, e.undo(ctx, s, g, res.From, "it could not be made durable", res, n))
		} else if try {
			err = errors.Join(err, e.end())
		}
		return errors.Join(err, e.discard(ctx, s, g, kind))
	}
	res.Took = time.Since(began)
	*g = *live // what was edited since it was staged has been merged
	if try {
		if err := e.try(ctx, s, g, res, n); err != nil {
			return err
		}
	}
	res.Live = true
	// What is live stays so, even if writing that down is interrupted.
	if err := e.entered(context.WithoutCancel(ctx), g, kind, res.From); err != nil {
		return fmt.Errorf("generation %d is current, and the next command writes that down, for now it failed: %w", g.Number, err)
	}
	return nil
}

// discard removes a generation that was made to become current and could not: an
// update that failed leaves nothing behind. One that was staged stays so.
func (e *Engine) discard(ctx context.Context, s *store.Session, g *store.Generation, kind string) error {
	if current, err := s.Current(); err != nil || current == g.Number || kind != EventApply {
		return err
	}
	if _, err := s.Remove(context.WithoutCancel(ctx), []int{g.Number}); err != nil && !errors.Is(err, unix.EROFS) {
		return fmt.Errorf("generation %d stays behind: %w", g.Number, err)
	}
	return nil
}

// answerable refuses a check that cannot be made here before anything depends on
// it.
func answerable(g *store.Generation) error {
	if g.Manifest == nil || g.Manifest.Health == nil || g.Manifest.Health.Unit == "" {
		return nil
	}
	if _, err := os.Stat("/run/systemd/system"); err != nil { // sd_booted(3)
		return failure.Hint(failure.Errorf(failure.NotReady, "the package wants unit %s to be active, and systemd does not run here", g.Manifest.Health.Unit),
			fmt.Sprintf("nothing was switched, and generation %d is staged", g.Number))
	}
	return nil
}

// tried says whether a generation has anything that decides whether it stays.
func tried(g *store.Generation) bool {
	return g.Manifest != nil && (g.Manifest.Hooks.After != nil || g.Manifest.Health != nil)
}

// begin writes down that a trial begins, before it does.
func (e *Engine) begin(g *store.Generation, from int, kind string) error {
	deadline := e.deadline(g)
	if h := g.Manifest.Hooks.After; h != nil {
		deadline += max(h.Timeout, pack.DefaultHookTimeout)
	}
	data, err := json.Marshal(Pending{pendingSchema, from, g.Number, e.now(), e.now().Add(deadline), bootID(), kind, e.o.By, 0})
	if err != nil {
		return err
	}
	if err := durable.WriteFile(e.pendingPath(), append(data, '\n'), 0o644); err != nil {
		return err
	}
	if e.o.Guard != nil {
		if err := e.o.Guard(); err != nil {
			return errors.Join(failure.Errorf(failure.Failed, "nobody could be set to watch over the trial: %w", err), e.end())
		}
	}
	return nil
}

// end says that there is no trial any more.
func (e *Engine) end() error {
	if err := os.Remove(e.pendingPath()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return durable.SyncDir(e.o.Dir)
}

func (e *Engine) deadline(g *store.Generation) time.Duration {
	switch h := g.Manifest.Health; {
	case h == nil:
		return 0
	case h.Deadline > 0:
		return h.Deadline
	case e.o.Deadline > 0:
		return e.o.Deadline
	}
	return pack.DefaultHealthDeadline
}

// try runs what decides about a generation that is current already, and goes back
// when it fails.
func (e *Engine) try(ctx context.Context, s *store.Session, g *store.Generation, res *Result, n *Notice) error {
	err := e.hook(ctx, s, g, res.From, "after", n)
	if err == nil {
		err = e.check(ctx, s, g, res.From, e.deadline(g), n)
	}
	if err == nil {
		return e.end()
	}
	backErr := e.back(context.WithoutCancel(ctx), s, g, res.From, err.Error(), res, n)
	if backErr != nil {
		return errors.Join(err, backErr)
	}
	if err := e.end(); err != nil {
		n.problem(err)
	}
	if res.From == 0 {
		return fmt.Errorf("%w; there was nothing before to go back to", err)
	}
	err = fmt.Errorf("%w; generation %d is current again", err, res.From)
	if e.o.Self {
		return err
	}
	return failure.Hint(err, fmt.Sprintf("look at %s; when the cause is gone: mobileops update activate %d", s.Tree(g.Number), g.Number))
}

// OneLine is what a program has written, for a message.
func OneLine(text string) string {
	return strings.Join(strings.FieldsFunc(text, func(r rune) bool { return r == '\n' || r == '\r' }), " / ")
}

// back makes the generation before current again.
func (e *Engine) back(ctx context.Context, s *store.Session, g *store.Generation, from int, why string, res *Result, n *Notice) error {
	if from == 0 {
		return nil
	}
	n.phase("going back to generation %d", from)
	old, err := s.Activate(ctx, from, e.now())
	if err != nil {
		return fmt.Errorf("going back to generation %d failed: %w", from, err)
	}
	g.Current = false
	res.Undone = why
	err = e.o.State.Update(ctx, func(tx *state.Tx) error { return e.undoneIn(tx, g, old, why) })
	n.problem(err)
	// Services still run the other files.
	n.problem(e.hookOf(ctx, s, old, g, "rollback", n))
	return nil
}

// entered writes down that a generation stays.
func (e *Engine) entered(ctx context.Context, g *store.Generation, kind string, from int) error {
	var left *store.Generation
	if kind == EventActivate && from > g.Number { // it was gone back, and what came after is no longer in force
		left, _ = e.store.Generation(from) // one that is damaged has nothing to tell
	}
	return e.o.State.Update(ctx, func(tx *state.Tx) error {
		if err := acceptAll(tx, g, e.now()); err != nil {
			return err
		}
		if err := undoneChange(tx, left, e.now()); err != nil {
			return err
		}
		if g.Change != "" && (kind == EventApply || kind == EventActivate) {
			// An old state.db that was restored may not have it.
			if _, err := change.Applied(tx, g.Change, e.now()); err != nil && !errors.Is(err, change.ErrNotFound) {
				return err
			}
		}
		return e.noteIn(tx, Event{Kind: kind, From: from, To: g.Number, Package: g.Origin, Change: g.Change})
	})
}

// hook runs a hook of the generation's package, if it has one.
func (e *Engine) hook(ctx context.Context, s *store.Session, g *store.Generation, from int, phase string, n *Notice) error {
	if g.Manifest == nil {
		return nil
	}
	h := g.Manifest.Hooks.Before
	if phase == "after" {
		h = g.Manifest.Hooks.After
	}
	if h == nil {
		return nil
	}
	return e.run(ctx, s, g, h, phase, from, g.Number, n)
}

// hookOf runs the hook that tells services of a generation that is current again:
// its own, or that of the one that was left.
func (e *Engine) hookOf(ctx context.Context, s *store.Session, to, left *store.Generation, phase string, n *Notice) error {
	for _, g := range []*store.Generation{to, left} {
		if g != nil && g.Manifest != nil && g.Manifest.Hooks.After != nil {
			number := 0
			if left != nil {
				number = left.Number
			}
			return e.run(ctx, s, g, g.Manifest.Hooks.After, phase, number, to.Number, n)
		}
	}
	return nil
}

func (e *Engine) variables(g *store.Generation, phase string, from, to int, tree string) health.Variables {
	v := health.Variables{From: strconv.Itoa(from), To: strconv.Itoa(to), Tree: tree, Phase: phase}
	if g.Origin != nil {
		v.Name, v.Version = g.Origin.Name, g.Origin.Version
	}
	return v
}

// run runs one hook of g's package. What it is told is the tree that is, or is to
// be, current.
func (e *Engine) run(ctx context.Context, s *store.Session, g *store.Generation, h *pack.Hook, phase string, from, to int, n *Notice) error {
	n.phase("hook %s", phase)
	command, rest := h.Command[0], h.Command[1:]
	beneath := s.Tree(g.Number)
	if c, ok := strings.CutPrefix(command, pack.MetaDir+"/"); ok { // hooks lie beside the tree
		command, beneath = c, filepath.Dir(s.Tree(g.Number))
	}
	root, err := os.OpenRoot(beneath)
	if err != nil {
		return err
	}
	defer root.Close()
	out, err := health.RunHook(ctx, health.Hook{
		Command: append([]string{command}, rest...), Beneath: root, Dir: s.Tree(to), Timeout: h.Timeout,
		Env: e.variables(g, phase, from, to, s.Tree(to)).Environ(), Started: e.started,
	})
	e.ended()
	if n.Output != nil {
		n.Output(phase, out)
	}
	if err != nil {
		return fmt.Errorf("%w: %s: %w", ErrHook, phase, err)
	}
	return nil
}

// check waits for the health check of a generation that is current.
func (e *Engine) check(ctx context.Context, s *store.Session, g *store.Generation, from int, deadline time.Duration, n *Notice) error {
	h := g.Manifest.Health
	if h == nil {
		return nil
	}
	n.phase("health check, at most %s", deadline)
	root, err := os.OpenRoot(s.Tree(g.Number))
	if err != nil {
		return err
	}
	defer root.Close()
	v, err := health.Wait(ctx, health.Check{Command: h.Command, HTTP: h.HTTP, Unit: h.Unit, Deadline: deadline, Interval: min(health.DefaultInterval, deadline/10)},
		health.Env{Tree: root, Variables: e.variables(g, "health", from, g.Number, s.Tree(g.Number)), Started: e.started}, n.Attempt)
	e.ended()
	if err != nil {
		return err
	}
	if !v.Passed {
		return fmt.Errorf("%w after %d attempts in %s: %s", ErrUnhealthy, v.Attempts, v.Elapsed.Round(100*time.Millisecond), OneLine(v.Failure))
	}
	return nil
}

// Resolve ends a trial that nobody conducts any more: its hook and its checks are
// run once more, and when they fail the generation before is current again. It
// returns the trial, nil when there was none.
func (e *Engine) Resolve(ctx context.Context, n *Notice) (*Pending, *Result, error) {
	p, err := e.Pending()
	if err != nil || p == nil {
		return p, nil, err
	}
	s, err := e.session(ctx, n, true)
	if err != nil {
		return p, nil, err
	}
	defer s.Release()
	res, err := e.resolve(ctx, s, n)
	return p, res, errors.Join(err, e.follow(context.WithoutCancel(ctx), s))
}

func (e *Engine) resolve(ctx context.Context, s *store.Session, n *Notice) (*Result, error) {
	p, err := e.Pending()
	if err != nil || p == nil {
		return nil, err
	}
	current, err := s.Current()
	if err != nil {
		return nil, err
	}
	if p.From > 0 && current == p.From {
		was, err := e.wentBack(ctx, s, p, n)
		if !was {
			return nil, err
		}
		return &Result{Generation: &store.Generation{Number: p.To}, From: p.From, Undone: cutOff}, err
	}
	if current != p.To { // it never became current, or somebody went elsewhere
		return nil, e.end()
	}
	g, err := s.Generation(p.To)
	if err != nil {
		return nil, err
	}
	res := &Result{Generation: g, From: p.From}
	n.phase("a trial of generation %d was broken off: it is tried again", p.To)
	if !tried(g) {
		return res, e.end()
	}
	if err := e.tryAgain(ctx, s, g, p, res, n); err != nil {
		if res.Undone != "" {
			return res, nil // it has been put right, which is what was asked for
		}
		return res, err
	}
	res.Live = true
	return res, e.entered(context.WithoutCancel(ctx), g, p.Event, p.From)
}

// again counts that somebody takes over a trial, or the way back from it.
func (e *Engine) again(p *Pending, n *Notice) {
	p.Again++
	data, err := json.Marshal(p)
	if err == nil {
		err = durable.WriteFile(e.pendingPath(), append(data, '\n'), 0o644)
	}
	n.problem(err) // on a full disk it is tried all the same
}

// tryAgain is try for who takes over: after a reboot everything has to start
// first, so the checks have all their time; otherwise what is left of it.
func (e *Engine) tryAgain(ctx context.Context, s *store.Session, g *store.Generation, p *Pending, res *Result, n *Notice) error {
	if e.again(p, n); p.Again > maxAgain {
		why := fmt.Sprintf("whoever conducted its trial died, %d times", p.Again)
		return errors.Join(errors.New(why), e.undo(ctx, s, g, p.From, why, res, n))
	}
	left := e.deadline(g)
	if p.Boot == bootID() {
		left = max(secondChance, min(left, p.Deadline.Sub(e.now())))
	}
	err := e.hook(ctx, s, g, p.From, "after", n)
	if err == nil {
		err = e.check(ctx, s, g, p.From, left, n)
	}
	if err == nil {
		return e.end()
	}
	if ctx.Err() != nil { // whoever comes next decides
		return err
	}
	return errors.Join(err, e.undo(ctx, s, g, p.From, err.Error(), res, n))
}

// undo goes back after a trial that failed, whatever is interrupted meanwhile. When
// that fails, the note about the trial stays, so that the next command tries it
// again, unless there is nothing any more to go back to.
func (e *Engine) undo(ctx context.Context, s *store.Session, g *store.Generation, from int, why string, res *Result, n *Notice) error {
	err := e.back(context.WithoutCancel(ctx), s, g, from, why, res, n)
	if err != nil && !errors.Is(err, store.ErrDamaged) && !errors.Is(err, store.ErrMissing) {
		return err
	}
	return errors.Join(err, e.end())
}
