package state

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/mobileops/mobileops/internal/durable"
	"golang.org/x/sys/unix"
)

// Lock is the held lock of a long operation.
type Lock struct {
	f *os.File
}

// Lock takes the named exclusive lock of a long operation, such as
// "integrity-default", without touching state.db. It does not wait: when
// another process has it, it returns a *HeldError, which wraps ErrBusy. The
// kernel drops the lock when the process dies.
func (s *Store) Lock(name, doing string) (*Lock, error) {
	if name == "" {
		return nil, errors.New("a lock needs a name")
	}
	dir := filepath.Join(s.dir, "locks")
	if err := s.makeLocks(dir); err != nil {
		return nil, access(err)
	}
	path := filepath.Join(dir, fileName(name)+".lock")
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, access(err)
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		err = &HeldError{Name: name, Holder: readHolder(f)}
	}
	if err == nil {
		// A full disk only keeps others from reading who holds the lock.
		if err = writeHolder(f, doing); errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
			err = nil
		}
	}
	if err != nil {
		f.Close()
		return nil, access(err)
	}
	return &Lock{f: f}, nil
}

// makeLocks makes the directory of locks and that of the state. It does not
// wait for the disk: a lock dies with its holder, and what an incident begins
// with must not stand behind a disk that is busy. What makes state.db in there
// makes its directory durable, too.
func (s *Store) makeLocks(dir string) error {
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	if err := durable.MkdirAll(filepath.Dir(filepath.Clean(s.dir)), 0o700); err != nil {
		return err
	}
	for _, d := range []string{s.dir, dir} {
		err := os.Mkdir(d, 0o700)
		if err == nil {
			err = os.Chmod(d, 0o700) // whatever the umask
		}
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	return nil
}

// Holder returns who holds the named lock, and whether anybody does, without
// touching state.db and without getting in the way of one who takes it.
func (s *Store) Holder(name string) (Holder, bool) {
	f, err := os.OpenFile(filepath.Join(s.dir, "locks", fileName(name)+".lock"), os.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return Holder{}, false
	}
	defer f.Close()
	h := readHolder(f)
	if h.PID == 0 {
		return Holder{}, false
	}
	// A process with that number is there; that it is the one which wrote it,
	// only the kernel knows.
	if err := unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB); !errors.Is(err, unix.EWOULDBLOCK) {
		return Holder{}, false
	}
	return h, true
}

// Release gives the lock back. The file stays: removing it could take it away
// from a process that has just opened it.
func (l *Lock) Release() error {
	// Closing is not enough: a process of ours that was just forked has the file
	// too, and with it the lock, until it executes its program.
	return errors.Join(l.f.Truncate(0), unix.Flock(int(l.f.Fd()), unix.LOCK_UN), l.f.Close())
}

// fileName makes a lock's name a file name: bytes other than letters, digits,
// dot, dash and underscore become %XX, and so does a leading dot.
func fileName(name string) string {
	var b strings.Builder
	for i, c := range []byte(name) {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-', c == '_', c == '.' && i > 0:
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}

// HeldError says that another process holds a lock. It wraps ErrBusy.
type HeldError struct {
	Name   string
	Holder Holder // its PID is 0 when the holder could not be read
}

func (e *HeldError) Error() string {
	if e.Holder.PID == 0 {
		return fmt.Sprintf("another process holds the lock %q", e.Name)
	}
	return fmt.Sprintf("%s is under way %s", e.Holder.Doing, e.Holder.who())
}

func (e *HeldError) Unwrap() error { return ErrBusy }
