package journal

import (
	"context"
	"encoding/binary"
	"errors"
	"maps"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// watch tells when journals may have changed.
type watch struct {
	notify  *os.File // inotify; nil until Wait was called
	fd      int      // of notify
	added   map[string]bool
	scanned time.Time // when directories were listed last
}

// pollInterval is how often Wait looks by itself: inotify says nothing about
// files on the network, and nothing is lost when a notice is.
const pollInterval = time.Second

// rescanInterval is how often the directories are listed again without notice.
const rescanInterval = 10 * time.Second

const watchMask = unix.IN_CREATE | unix.IN_MOVED_TO | unix.IN_MODIFY | unix.IN_ATTRIB | unix.IN_DELETE | unix.IN_MOVED_FROM

func (w *watch) open() error {
	if w.notify != nil {
		return nil
	}
	fd, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
	if err != nil {
		return os.NewSyscallError("inotify_init1", err)
	}
	w.notify, w.fd = os.NewFile(uintptr(fd), "inotify"), fd
	w.added = map[string]bool{}
	return nil
}

// directory watches a directory, or a file, when there is a watch.
func (w *watch) directory(path string) {
	if w.notify == nil || w.added[path] {
		return
	}
	// A path that cannot be watched is looked at from time to time all the same.
	if _, err := unix.InotifyAddWatch(w.fd, path, watchMask); err == nil {
		w.added[path] = true
	}
}

func (w *watch) close() error {
	if w.notify == nil {
		return nil
	}
	return w.notify.Close()
}

// Wait returns when there may be more entries for Next: some were written, or a
// file appeared. It returns the error of ctx when that ends first. What
// journalctl calls rotation needs nothing more: files that were renamed are
// known by what they are, and files that were removed are read to their end.
func (s *Set) Wait(ctx context.Context) error { return s.wait(ctx, &s.walk) }

// wait is Wait for a walk.
func (s *Set) wait(ctx context.Context, w *walk) error {
	if s.closed {
		return os.ErrClosed
	}
	first := s.watch.notify == nil
	if err := s.watch.open(); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { s.watch.notify.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	if first {
		// From here on nothing is missed: what came before is seen now.
		s.rescan(w)
	}
	var buf [4096]byte
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		if s.more(w) {
			return nil
		}
		s.watch.notify.SetReadDeadline(time.Now().Add(pollInterval))
		if ctx.Err() != nil {
			continue // the deadline of AfterFunc may have been overwritten
		}
		n, err := s.watch.notify.Read(buf[:])
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		}
		if named(buf[:max(n, 0)]) || s.growing() || time.Since(s.watch.scanned) > rescanInterval {
			s.rescan(w)
		}
	}
}

// growing reports whether there is a file that may still become a journal.
func (s *Set) growing() bool {
	for _, y := range s.young {
		if !y.told {
			return true
		}
	}
	return false
}

// named reports whether notices are about more than what is in files.
func named(notices []byte) bool {
	for len(notices) >= unix.SizeofInotifyEvent {
		mask := binary.NativeEndian.Uint32(notices[4:])
		size := unix.SizeofInotifyEvent + int(binary.NativeEndian.Uint32(notices[12:]))
		if mask&^unix.IN_MODIFY != 0 || size > len(notices) {
			return true
		}
		notices = notices[size:]
	}
	return false
}

// more reports whether a file has entries that were not looked at.
func (s *Set) more(w *walk) (found bool) {
	s.guarded(func() {
		found = slices.ContainsFunc(w.streams, func(st *stream) bool { return !st.finished() })
	})
	return found
}

// finished reports whether a stream has no more entries for now.
func (st *stream) finished() bool {
	return st.state == drained && st.f.counter(headerEntries) == st.seen
}

// rescan opens files that are new, and closes those that were removed and have
// been read to their end by w.
func (s *Set) rescan(w *walk) {
	s.watch.scanned = time.Now()
	for _, f := range s.files {
		f.gone = true
	}
	for _, y := range s.young {
		y.seen = false
	}
	for _, p := range s.roots {
		s.watch.directory(p)
		if err := s.addRoot(p); err != nil {
			s.problem(err)
		}
	}
	maps.DeleteFunc(s.young, func(_ fileKey, y *young) bool { return !y.seen })
	for _, st := range slices.Clone(w.streams) {
		done := false
		s.guarded(func() { done = st.f.gone && st.finished() })
		if done {
			w.remove(st.f)
			s.drop(st.f)
		}
	}
}

// drop closes a file that was removed, unless another walk is in the middle of it.
func (s *Set) drop(f *file) {
	for _, w := range append(s.searches, &s.walk) {
		for _, st := range w.streams {
			if st.f == f && st.state != fresh {
				return
			}
		}
	}
	for _, w := range append(s.searches, &s.walk) {
		w.remove(f)
	}
	s.files = slices.DeleteFunc(s.files, func(x *file) bool { return x == f })
	delete(s.perFile, f.path)
	f.close()
}

// remove leaves a file out.
func (w *walk) remove(f *file) {
	if w.current != nil && w.current.f == f {
		w.current = nil
	}
	w.streams = slices.DeleteFunc(w.streams, func(st *stream) bool { return st.f == f })
}
