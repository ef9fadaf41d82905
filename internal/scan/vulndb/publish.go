package vulndb

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/mobileops/mobileops/internal/durable"
	"github.com/mobileops/mobileops/internal/failure"
	"golang.org/x/sys/unix"
)

// Terms are what whoever takes a database in allows.
type Terms struct {
	AcceptSmaller bool   // fewer than half of the advisories of the current one
	AllowOlder    bool   // an older one than the current one
	Signature     string // file of minisign that vouches for the file; "": the one beside it, FILE.minisig
}

// Result is what came of taking in a database, or of going back to one.
type Result struct {
	*Generation
	Unchanged bool        `json:"unchanged"`         // it was current already, and nothing was done
	Before    *Generation `json:"before,omitempty"`  // what was current until then
	Removed   []int       `json:"removed,omitempty"` // generations that were more than are kept
}

// receive takes a database in: fill puts it into the stage and says where it is
// from.
func (s *Store) receive(ctx context.Context, doing string, t Terms, fill func(*stage) (*Generation, error)) (*Result, error) {
	lock, err := s.opts.State.Lock(lockName, doing)
	if err != nil {
		return nil, err
	}
	defer lock.Release()
	s.step("locked")
	if err := s.sweep(ctx); err != nil {
		return nil, disk(err, s.opts.Dir)
	}
	s.step("swept")
	st, err := s.newStage()
	if err != nil {
		return nil, err
	}
	defer st.drop()
	s.step("staged")
	about, err := fill(st)
	var same *unchangedError
	if errors.As(err, &same) {
		return &Result{Generation: same.g, Unchanged: true}, nil
	}
	if err != nil {
		return nil, err
	}
	s.step("filled")
	g, err := st.seal(ctx)
	if err != nil {
		return nil, err
	}
	g.Origin, g.Manifest, g.Signer = about.Origin, about.Manifest, about.Signer
	s.step("sealed")
	return s.publish(ctx, st, g, t)
}

// unchangedError says that what is asked for is current already.
type unchangedError struct{ g *Generation }

func (e *unchangedError) Error() string { return e.g.title() + " is current already" }

// publish makes what is in a stage the current generation.
func (s *Store) publish(ctx context.Context, st *stage, g *Generation, t Terms) (*Result, error) {
	sh, err := s.shelf(ctx, g.Kind)
	if err != nil {
		return nil, err
	}
	before := sh.get(sh.current)
	if before != nil && before.Digest == g.Digest && before.UpdatedAt.Equal(g.UpdatedAt) && s.prove(ctx, before) == nil {
		return &Result{Generation: before, Unchanged: true}, nil
	}
	if err := s.judge(g, before, t); err != nil {
		return nil, err
	}
	if err := durable.MkdirAll(s.generations(g.Kind), 0o700); err != nil {
		return nil, disk(err, s.opts.Dir)
	}
	if g.Number, err = s.next(g.Kind, sh); err != nil {
		return nil, err
	}
	path := s.path(g.Kind, g.Number)
	if err := os.Rename(st.dir, path); err != nil {
		return nil, disk(err, s.opts.Dir)
	}
	s.step("renamed")
	undo := func(err error) (*Result, error) {
		return nil, errors.Join(disk(err, s.opts.Dir), s.point(g.Kind, sh.current), s.remove(g.Kind, g.Number))
	}
	if err := durable.SyncDir(s.generations(g.Kind)); err != nil {
		return undo(err)
	}
	s.step("synced")
	if err := s.point(g.Kind, g.Number); err != nil {
		return undo(err)
	}
	s.step("pointed")
	if err := s.change(ctx, g.Kind, []*Generation{g}, nil, g.Number); err != nil {
		return undo(err)
	}
	g.Current = true
	s.step("catalogued")
	res := &Result{Generation: g, Before: before}
	res.Removed, err = s.prune(ctx, g.Kind)
	if err != nil {
		return res, failure.Wrap(failure.Failed, fmt.Errorf("generation %d is current, but old ones could not be removed: %w", g.Number, err))
	}
	s.step("pruned")
	return res, nil
}

// judge refuses a database that is worse than the current one, by what most
// mistakes and attacks look like.
func (s *Store) judge(g, before *Generation, t Terms) error {
	if g.UpdatedAt.After(s.opts.Now().Add(futureSlack)) {
		return failure.Hint(failure.Errorf(failure.Untrustworthy, "the database says that it was updated on %s, which is still to come", moment(g.UpdatedAt)), "is the clock of this host right?")
	}
	if before == nil {
		return nil
	}
	if g.UpdatedAt.Before(before.UpdatedAt) && !t.AllowOlder {
		return failure.Hint(failure.Errorf(failure.Untrustworthy, "the database is of %s, and the current one is newer: of %s", moment(g.UpdatedAt), moment(before.UpdatedAt)),
			"to go back on purpose: --allow-older, or mobileops vulndb rollback")
	}
	now, then, what := int64(g.Advisories), int64(before.Advisories), "advisories"
	if g.Kind == Java {
		now, then, what = g.Size, before.Size, "bytes"
	}
	if now*2 < then && !t.AcceptSmaller {
		return failure.Hint(failure.Errorf(failure.Untrustworthy, "the database has %d %s, less than half of the %d of the current one", now, what, then),
			"if that is as it should be: --accept-smaller")
	}
	return nil
}

// futureSlack is how far clocks may be apart.
const futureSlack = 24 * time.Hour

func moment(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 UTC") }

// next is a number that nothing has: neither the catalogue nor a directory.
func (s *Store) next(k Kind, sh *shelf) (int, error) {
	n := sh.last()
	entries, err := os.ReadDir(s.generations(k))
	if err != nil {
		return 0, err
	}
	for _, e := range entries {
		if i, ok := numbered(e.Name()); ok {
			n = max(n, i)
		}
	}
	return n + 1, nil
}

// numbered reads the name of a generation's directory.
func numbered(name string) (int, bool) {
	n, err := strconv.Atoi(name)
	return n, err == nil && n > 0 && strconv.Itoa(n) == name
}

// point makes the link "current" lead to a generation; 0 takes it away.
func (s *Store) point(k Kind, number int) error {
	link := filepath.Join(s.base(k), "current")
	target := filepath.Join("generations", strconv.Itoa(number))
	if now, err := os.Readlink(link); err == nil && now == target {
		return nil
	}
	if number == 0 {
		if err := os.Remove(link); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	if err := durable.MkdirAll(s.base(k), 0o700); err != nil {
		return err
	}
	next := filepath.Join(s.base(k), partial+"current")
	_ = os.Remove(next)
	if err := os.Symlink(target, next); err != nil {
		return err
	}
	if err := os.Rename(next, link); err != nil {
		return err
	}
	return durable.SyncDir(s.base(k))
}

// errInUse says that a scan has a generation open.
var errInUse = failure.New(failure.Busy, "a scan has it open")

// prune removes the generations that are more than are kept: the oldest, but
// neither the current one nor one that a scan has open.
func (s *Store) prune(ctx context.Context, k Kind) (removed []int, err error) {
	sh, err := s.shelf(ctx, k)
	if err != nil {
		return nil, err
	}
	kept := 0
	for i := len(sh.list) - 1; i >= 0; i-- {
		g := sh.list[i]
		if g.Current {
			continue
		}
		if kept < s.opts.Keep {
			kept++
			continue
		}
		held, err := s.hold(k, g.Number)
		if errors.Is(err, errInUse) {
			continue
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return removed, err
		}
		// Out of the catalogue first: what stands there is there.
		err = s.change(ctx, k, nil, []int{g.Number}, 0)
		s.step("dropped")
		if err == nil {
			err = s.discard(k, g.Number)
		}
		held.Close()
		if err != nil {
			return removed, err
		}
		removed = append(removed, g.Number)
	}
	return removed, nil
}

// remove removes the directory of a generation that no scan has open.
func (s *Store) remove(k Kind, number int) error {
	held, err := s.hold(k, number)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer held.Close()
	return s.discard(k, number)
}

// hold takes the lock that leases share, alone. Its error is errInUse when a
// lease has it.
func (s *Store) hold(k Kind, number int) (*os.File, error) {
	f, err := os.Open(s.path(k, number))
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, errInUse
		}
		return nil, err
	}
	return f, nil
}

// discard takes a directory away under another name first, so that half of it
// is never taken for a generation.
func (s *Store) discard(k Kind, number int) error {
	from := s.path(k, number)
	to := filepath.Join(s.generations(k), partial+"removed-"+strconv.Itoa(number))
	if err := os.RemoveAll(to); err != nil {
		return err
	}
	if err := os.Rename(from, to); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	return os.RemoveAll(to)
}
