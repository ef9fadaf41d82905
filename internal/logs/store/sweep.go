package store

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/mobileops/mobileops/internal/durable"
	"github.com/mobileops/mobileops/internal/state"
	"golang.org/x/sys/unix"
)

// doomedFor is how long a file waits for readers to come to their end.
const doomedFor = time.Hour

func (s *Store) readersPath() string { return filepath.Join(s.opts.Dir, "readers.lock") }

// reading takes the lock that keeps files from being removed. Where there is
// none to take, such as in a copy that was mounted read-only, nobody removes
// anything either.
func (s *Store) reading() (*os.File, error) {
	f, err := openFile(s.readersPath(), os.O_RDONLY)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	// Whoever removes holds it for moments only.
	for {
		if err = unix.Flock(int(f.Fd()), unix.LOCK_SH); !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		f.Close()
		return nil, &fs.PathError{Op: "flock", Path: s.readersPath(), Err: err}
	}
	return f, nil
}

// alone runs fn while there are no readers, and tells whether it did.
func (s *Store) alone(fn func() error) (bool, error) {
	f, err := os.OpenFile(s.readersPath(), os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return false, access(err)
	}
	defer f.Close()
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); errors.Is(err, unix.EWOULDBLOCK) {
		return false, nil
	} else if err != nil {
		return false, &fs.PathError{Op: "flock", Path: s.readersPath(), Err: err}
	}
	return true, fn()
}

// sweep removes the files of segments that are not part of the store any more,
// and of generations that are in segments. The lock for changes must be held.
func (s *Store) sweep(ctx context.Context, x *index) error {
	if err := s.sweepGenerations(x); err != nil {
		return err
	}
	if len(x.doomed) == 0 {
		return nil
	}
	remove := func() error {
		for _, d := range x.doomed {
			if err := os.Remove(s.segmentPath(d.id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return access(err)
			}
		}
		return durable.SyncDir(s.segmentDir())
	}
	done, err := s.alone(remove)
	if err == nil && !done && x.doomed[0].since < s.opts.Now().Add(-doomedFor).UnixNano() {
		err = remove() // a reader that does not come to its end must not fill the disk
		done = true
	}
	if err != nil || !done {
		return err
	}
	x.doomed = nil
	return s.opts.State.Update(ctx, func(tx *state.Tx) error {
		return tx.Bucket([]byte(storeBucket)).Put([]byte(headKey), x.head.encode())
	})
}

// sweepLater is sweep for those to whom it does not matter: what cannot be
// removed now is tried again with every change, and must not end collecting.
func (s *Store) sweepLater(ctx context.Context, x *index) { _ = s.sweep(ctx, x) }

// sweepGenerations removes the generations that are in segments. Readers that
// have one open keep it.
func (s *Store) sweepGenerations(x *index) error {
	s.keys.forget(x.consumed)
	list, err := walFiles(s.walDir())
	if err != nil {
		return err
	}
	for _, g := range list {
		if g > x.consumed {
			break
		}
		if err := os.Remove(walPath(s, g)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return access(err)
		}
	}
	return nil
}

// clean removes files under temporary names that killed processes left.
func (s *Store) clean() error {
	for _, dir := range []string{s.opts.Dir, s.walDir(), s.segmentDir()} {
		entries, err := os.ReadDir(dir)
		if err != nil {
			return access(err)
		}
		for _, e := range entries {
			name, ok := strings.CutPrefix(e.Name(), ".")
			if i := strings.Index(name, ".tmp-"); ok && i > 0 {
				if err := durable.Clean(filepath.Join(dir, name[:i])); err != nil {
					return access(err)
				}
			}
		}
	}
	return nil
}

func walPath(s *Store, generation uint64) string {
	return filepath.Join(s.walDir(), walName(generation))
}
