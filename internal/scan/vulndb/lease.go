package vulndb

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
	"golang.org/x/sys/unix"
)

// Lease pins the current generations: as long as it is held, by this process or
// by one that it was passed on to, they are not removed, whatever becomes
// current meanwhile. The kernel ends it with the process.
type Lease struct {
	Dir        string      // has trivy.db and metadata.json
	JavaDir    string      // has trivy-java.db and metadata.json; "": there is no Java database
	Generation *Generation // of Dir
	Java       *Generation // of JavaDir; nil: none

	once sync.Once
	held []*os.File
}

// Release gives the lease back. A second time does nothing.
func (l *Lease) Release() {
	l.once.Do(func() {
		for _, f := range l.held {
			f.Close()
		}
	})
}

// Open pins the current database for a scan. Without one the error wraps
// ErrMissing, and when it is older than Options.MaxAge, ErrStale: both are
// failure.NotReady, and say what to do. One that is not what was taken in wraps
// ErrDamaged. The content is hashed only when the file looks different from when
// that was done last.
func (s *Store) Open(ctx context.Context) (*Lease, error) {
	l := &Lease{}
	g, held, err := s.lease(ctx, Vulnerabilities)
	if err != nil {
		return nil, err
	}
	if g == nil {
		return nil, failure.Hint(ErrMissing, hintImport)
	}
	l.held, l.Generation, l.Dir = append(l.held, held), g, s.path(g.Kind, g.Number)
	if err := s.fresh(g); err != nil && !s.opts.AllowStale {
		l.Release()
		return nil, err
	}
	j, held, err := s.lease(ctx, Java)
	if err != nil {
		l.Release()
		return nil, err
	}
	if j != nil {
		l.held, l.Java, l.JavaDir = append(l.held, held), j, s.path(j.Kind, j.Number)
	}
	return l, nil
}

// fresh says whether a database is too old, or from times to come.
func (s *Store) fresh(g *Generation) error {
	now := s.opts.Now()
	age := g.Age(now)
	switch {
	case age < -futureSlack:
		return failure.Hint(failure.Wrap(failure.NotReady, fmt.Errorf("%w, or the clock of this host is wrong: it was updated on %s, and it is %s", ErrStale, moment(g.UpdatedAt), moment(now))), "set the clock")
	case s.opts.MaxAge > 0 && age > s.opts.MaxAge:
		return failure.Hint(fmt.Errorf("%w: it is of %s, %s ago, and %s is allowed (vulndb.max_age)", ErrStale, moment(g.UpdatedAt), Span(age), Span(s.opts.MaxAge)), hintRenew)
	}
	return nil
}

// Span writes how long something is in the largest unit that says enough: "9d", "26h".
func Span(d time.Duration) string {
	switch {
	case d >= 72*time.Hour && d%(24*time.Hour) == 0, d >= 7*24*time.Hour:
		return fmt.Sprintf("%dd", d/(24*time.Hour))
	case d >= time.Hour:
		return fmt.Sprintf("%dh", d/time.Hour)
	}
	return d.Round(time.Second).String()
}

// lease pins the current generation of a kind; it is nil when there is none.
func (s *Store) lease(ctx context.Context, k Kind) (*Generation, *os.File, error) {
	var err error
	for range 50 { // another process may switch and remove meanwhile, each time
		var sh *shelf
		if sh, err = s.shelf(ctx, k); err != nil {
			return nil, nil, err
		}
		if sh.current == 0 {
			return nil, nil, nil
		}
		g := sh.get(sh.current)
		if g == nil {
			return nil, nil, failure.Hint(failure.Wrap(failure.Untrustworthy, fmt.Errorf("%w: the catalogue has no generation %d", ErrDamaged, sh.current)), hintRenew)
		}
		var held *os.File
		if held, err = s.pin(k, g.Number); err == nil {
			if err := s.glance(ctx, g); err != nil {
				held.Close()
				return nil, nil, s.rescue(sh, err)
			}
			return g, held, nil
		}
		if !errors.Is(err, errGone) {
			return nil, nil, err
		}
		select {
		case <-ctx.Done():
			return nil, nil, context.Cause(ctx)
		case <-time.After(10 * time.Millisecond):
		}
	}
	return nil, nil, failure.Hint(fmt.Errorf("%w: its directory is not there: %w", ErrDamaged, err), hintRenew)
}

// rescue adds to an error about the current generation what helps.
func (s *Store) rescue(sh *shelf, err error) error {
	if failure.KindOf(err) != failure.Untrustworthy {
		return err
	}
	if len(sh.list) > 1 {
		return failure.Hint(err, "get it again, or go back: mobileops vulndb rollback")
	}
	return failure.Hint(err, "get it again: mobileops vulndb import FILE, or mobileops vulndb pull")
}

// errGone says that a generation was removed, or is about to be.
var errGone = errors.New("it was removed")

// pin takes the lock of a generation's directory that leases share.
func (s *Store) pin(k Kind, number int) (*os.File, error) {
	path := s.path(k, number)
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errGone
	}
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, errGone // whoever has it alone is removing it
		}
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	// It may have been removed before the lock came.
	st, err := f.Stat()
	now, nerr := os.Lstat(path)
	if err != nil || nerr != nil || !os.SameFile(st, now) {
		f.Close()
		return nil, errGone
	}
	return f, nil
}

// openDatabase opens the file of a generation.
func (s *Store) openDatabase(g *Generation) (*os.File, fingerprint, error) {
	path := filepath.Join(s.path(g.Kind, g.Number), g.Kind.file())
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrPermission) {
		return nil, fingerprint{}, failure.Wrap(failure.NotAllowed, err)
	}
	if err != nil {
		return nil, fingerprint{}, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	fp, err := look(f)
	if err != nil {
		f.Close()
		return nil, fp, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return f, fp, nil
}

// glance proves a generation as far as that costs nothing: when its file looks
// as it did when its content was proved, it is believed.
func (s *Store) glance(ctx context.Context, g *Generation) error {
	f, fp, err := s.openDatabase(g)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := s.sameMetadata(g); err != nil {
		return err
	}
	if fp == g.Seen {
		return nil
	}
	if err := s.rehash(ctx, g, f); err != nil {
		return err
	}
	s.remember(ctx, g, fp)
	return nil
}

// remember notes how a file looks whose content was proved, so that it need not
// be next time. Where that cannot be written it is only slower.
func (s *Store) remember(ctx context.Context, g *Generation, fp fingerprint) {
	sh, err := s.shelf(ctx, g.Kind)
	if err != nil {
		return
	}
	if now := sh.get(g.Number); now != nil && now.Digest == g.Digest && now.Seen != fp {
		now.Seen = fp
		_ = s.change(ctx, g.Kind, []*Generation{now}, nil, 0)
	}
}
