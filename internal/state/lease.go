package state

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
	"golang.org/x/sys/unix"
)

// A lease is the right to have state.db open. It is a lock on the file
// state.lock rather than bbolt's own lock on state.db, for three reasons: a
// wait can be cancelled, the holder can be named, and nobody starves.
//
// Two bytes of the file are locked (open file description locks, fcntl(2)):
// byte 0 is the turn, byte 1 the lease. Whoever wants the lease first takes the
// turn, exclusively, waits for the lease, and gives the turn back. So a writer
// that waits for readers to finish holds back further readers, and a process
// that leases in a tight loop queues behind the one whose turn it is.
type lease struct {
	f *os.File // nil where nothing can be locked, because nothing can be written
}

const (
	turnByte  = 0
	leaseByte = 1

	defaultLockTimeout = 10 * time.Second
	sayAfter           = time.Second // a shorter wait is not worth a word
)

// acquire waits for the lease. Its error is ErrBusy when LockTimeout passes.
func (s *Store) acquire(ctx context.Context, exclusive bool) (*lease, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	path := filepath.Join(s.dir, lockName)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if errors.Is(err, unix.EROFS) && !exclusive {
		return &lease{}, nil // nobody can write here, so there is nothing to wait for
	}
	if err != nil {
		return nil, access(err)
	}
	w := &waiter{store: s, ctx: ctx, f: f, start: time.Now()}
	if w.timeout = s.opts.LockTimeout; w.timeout == 0 {
		w.timeout = defaultLockTimeout
	}
	kind := int16(unix.F_RDLCK)
	if exclusive {
		kind = unix.F_WRLCK
	}
	// The one whose turn it is competes with nobody, so it can look often.
	err = w.lock(turnByte, unix.F_WRLCK, 8*time.Millisecond)
	if err == nil {
		err = w.lock(leaseByte, kind, time.Millisecond)
	}
	if err == nil {
		err = setLock(f, turnByte, unix.F_UNLCK)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	// Who holds it is for messages only: a full disk must not stop a reader.
	_ = writeHolder(f, s.doing())
	return &lease{f: f}, nil
}

// release gives the lease back; closing the file drops its locks.
func (l *lease) release() {
	if l.f != nil {
		l.f.Close()
	}
}

type waiter struct {
	store   *Store
	ctx     context.Context
	f       *os.File
	start   time.Time
	timeout time.Duration
	said    bool
}

// lock takes one byte of the lock file, looking again after at most every.
func (w *waiter) lock(at int64, kind int16, every time.Duration) error {
	pause := every / 8
	for {
		err := setLock(w.f, at, kind)
		if err == nil || !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EACCES) {
			return err
		}
		waited := time.Since(w.start)
		if waited >= w.timeout {
			return &failure.Error{
				Kind: failure.Busy,
				Err:  fmt.Errorf("%w: %s", ErrBusy, readHolder(w.f)),
				Hint: fmt.Sprintf("gave up after %v; wait longer with --lock-timeout", w.timeout),
			}
		}
		if !w.said && waited >= sayAfter && w.store.opts.OnWait != nil {
			w.said = true
			w.store.opts.OnWait(readHolder(w.f).String())
		}
		pause = min(pause*2, every)
		timer := time.NewTimer(min(pause/2+rand.N(pause), w.timeout-waited+time.Millisecond))
		select {
		case <-w.ctx.Done():
			timer.Stop()
			return w.ctx.Err()
		case <-timer.C:
		}
	}
}

func setLock(f *os.File, at int64, kind int16) error {
	return unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: kind, Start: at, Len: 1})
}

// access gives an error of the file system its kind and says what helps.
func access(err error) error {
	switch {
	case errors.Is(err, fs.ErrPermission):
		return failure.Hint(failure.Wrap(failure.NotAllowed, err), "run as root, or choose another place with --state-dir")
	case errors.Is(err, unix.EROFS):
		return failure.Hint(failure.Wrap(failure.Failed, err), "nothing was changed; make it writable, or choose another place with --state-dir")
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		return failure.Hint(failure.Wrap(failure.Failed, err), "nothing was changed; free some space and run it again")
	}
	return err
}
