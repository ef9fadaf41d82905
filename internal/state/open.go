package state

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"time"

	"github.com/mobileops/mobileops/internal/state/boltfile"
	bolt "go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
	"golang.org/x/sys/unix"
)

// opened is a database file that was examined, and can be used until the
// function that it was given to returns.
type opened struct {
	db      *bolt.DB
	file    *os.File // bbolt's own
	header  boltfile.Header
	seal    *seal  // of the file as it was opened; nil: there is none
	sumPath string // where its seal is kept; "": it has none
}

// open examines state.db, opens it and gives it to fn. The lease must be held.
func (s *Store) open(ctx context.Context, write bool, fn func(*opened) error) error {
	return openFile(ctx, s.Path(), s.sumPath(), readSeal(s.sumPath()), write, fn)
}

func openFile(ctx context.Context, path, sumPath string, seal *seal, write bool, fn func(*opened) error) (err error) {
	flags := os.O_RDONLY
	if write {
		flags = os.O_RDWR
	}
	f, err := openRegular(path, flags)
	if err != nil {
		return access(err)
	}
	// bbolt closes the file, unless a panic kept it from doing so.
	defer f.Close()
	h, err := seal.header(f)
	if err == nil {
		err = seal.verify(ctx, f, h, false)
	}
	if err != nil {
		return advise(err, path)
	}
	o := &opened{file: f, header: h, seal: seal, sumPath: sumPath}
	return advise(o.guard(ctx, func() error {
		o.db, err = bolt.Open(path, 0o600, &bolt.Options{
			ReadOnly:     !write,
			Timeout:      time.Second, // the lease is held: only another program can have it open
			NoStatistics: true,
			// Each time that a growing file is mapped again, bbolt looks at everything
			// that the transaction holds. Address space costs nothing.
			InitialMmapSize: 64 << 20,
			OpenFile:        onceThen(f),
		})
		if errors.Is(err, berrors.ErrTimeout) {
			return fmt.Errorf("%w: it is not mobileops (see fuser %s)", ErrBusy, path)
		}
		if err != nil {
			return fmt.Errorf("open %s: %w", path, err)
		}
		err := o.db.View(checkMagic)
		if err == nil {
			err = fn(o)
		}
		if closed := o.db.Close(); err == nil {
			err = closed
		}
		return err
	}), path)
}

// onceThen gives bbolt the file that was examined when it opens its database,
// and a further handle each time it wants one to copy the file.
func onceThen(f *os.File) func(string, int, os.FileMode) (*os.File, error) {
	given := false
	return func(path string, flags int, _ os.FileMode) (*os.File, error) {
		if given {
			return openRegular(path, flags&^os.O_CREATE)
		}
		given = true
		return f, nil
	}
}

// guard runs fn, and turns a panic or a memory fault out of bbolt into
// ErrCorrupt. A panic of another origin goes on.
func (o *opened) guard(ctx context.Context, fn func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		p := recover()
		if p == nil {
			return
		}
		// The database cannot be closed: after a panic within a transaction its
		// own mutexes may be held, and Close would wait for them. Its mapping
		// stays, and would keep the lock on the file.
		_ = unix.Flock(int(o.file.Fd()), unix.LOCK_UN)
		if _, fault := p.(interface{ Addr() uintptr }); !fault && !fromBolt() {
			panic(p)
		}
		// A nil pointer, or a wrong call, ends in bbolt as well. If the file is
		// whole, that was a mistake in our code and must be seen as one.
		if o.seal != nil && o.seal.txid == o.header.Txid && o.seal.verify(ctx, o.file, o.header, true) == nil {
			panic(p)
		}
		err = fmt.Errorf("%w: %v", ErrCorrupt, p)
	}()
	return fn()
}

// fromBolt reports whether the panic being recovered was raised in bbolt.
func fromBolt() bool {
	var pcs [64]uintptr
	frames := runtime.CallersFrames(pcs[:runtime.Callers(0, pcs[:])])
	panicking := false
	for {
		fr, more := frames.Next()
		switch {
		case strings.HasPrefix(fr.Function, "runtime."):
			panicking = panicking || fr.Function == "runtime.gopanic"
		case panicking:
			return strings.HasPrefix(fr.Function, "go.etcd.io/bbolt")
		}
		if !more {
			return false
		}
	}
}

// reseal sums what the last transaction wrote.
func (o *opened) reseal() error {
	if o.sumPath == "" {
		return nil
	}
	h, err := readHeader(o.file)
	if err != nil {
		return err
	}
	s, err := sealOf(o.file, h, o.seal)
	if err != nil {
		return err
	}
	writeSeal(o.sumPath, s)
	o.header, o.seal = h, s
	return nil
}

// advise adds to a verdict about a file which file it is and what to do.
func advise(err error, path string) error {
	if err == nil || isAdvised(err) {
		return err
	}
	var hint string
	switch {
	case errors.Is(err, ErrCorrupt):
		hint = "nothing was changed; put a backup in its place: mobileops state restore FILE"
	case errors.Is(err, ErrForeign):
		hint = "nothing was changed; choose another place with --state-dir, or move that file away"
	case errors.Is(err, ErrNewer):
		hint = "nothing was changed; use that version, or restore a backup from before: mobileops state restore FILE"
	default:
		return err
	}
	return &verdict{err: err, path: path, hint: hint}
}

// verdict is an error about one database file.
type verdict struct {
	err  error
	path string
	hint string
}

func (v *verdict) Error() string { return fmt.Sprintf("%s: %v (%s)", v.path, v.err, v.hint) }
func (v *verdict) Unwrap() error { return v.err }

func isAdvised(err error) bool {
	var v *verdict
	return errors.As(err, &v)
}
