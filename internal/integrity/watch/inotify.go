package watch

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/mobileops/mobileops/internal/integrity"
	"golang.org/x/sys/unix"
)

// inoMask is what is asked for of each directory.
const inoMask = unix.IN_CREATE | unix.IN_DELETE | unix.IN_MODIFY | unix.IN_CLOSE_WRITE | unix.IN_ATTRIB |
	unix.IN_MOVED_FROM | unix.IN_MOVED_TO | unix.IN_ONLYDIR | unix.IN_DONT_FOLLOW

// inoSource watches directory by directory with inotify(7), as any user can. It
// tells no process, and a directory that appears is not seen in its first
// moments: what is in it then is found by comparing it.
type inoSource struct {
	w     *watcher
	group *group
	fd    int

	mu     sync.Mutex
	opened *integrity.Opened
	mounts *mounts
	byWD   map[int32][]byte // path below the tree
	byDir  map[string]int32
	full   bool
	denied int
}

func newInoSource(w *watcher, t *mounts) (*inoSource, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("inotify: %w", err)
	}
	g, err := newGroup(fd)
	if err != nil {
		return nil, err
	}
	s := &inoSource{w: w, group: g, fd: fd, opened: w.opened, mounts: t, byWD: map[int32][]byte{}, byDir: map[string]int32{}}
	s.addAll()
	if len(s.byWD) == 0 {
		s.group.close()
		return nil, errors.New("inotify: no directory that the policy covers can be watched")
	}
	return s, nil
}

func (s *inoSource) mode() Mode { return Inotify }

func (s *inoSource) close() {
	s.w.bursts.close()
	s.group.close()
}

func (s *inoSource) adopt(o *integrity.Opened, t *mounts) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.opened, s.mounts = o, t
	s.addAll()
}

// addAll watches everything that the policy covers. s.mu is held, or nobody
// else knows s yet.
func (s *inoSource) addAll() {
	for _, p := range s.opened.Policy.Paths {
		// The directory above tells when the path itself comes and goes.
		dir, _ := splitPath([]byte(p))
		for !s.add(dir) && len(dir) > 1 {
			dir, _ = splitPath(dir)
		}
		s.addTree([]byte(p), 0)
	}
	if s.denied > 0 {
		s.w.incomplete("%d directories may not be read by this user and are NOT WATCHED", s.denied)
		s.denied = 0
	}
}

const maxInoDepth = 1000

// addTree watches a directory and those below it.
func (s *inoSource) addTree(dir []byte, depth int) {
	if depth > maxInoDepth || s.opened.State(dir).Prune() || s.full || !s.add(dir) {
		return
	}
	host := s.opened.Outside(dir)
	m := s.mounts.owner(host)
	if !m.covered {
		return
	}
	list, err := os.ReadDir(string(host))
	if err != nil {
		s.denied++
	}
	for _, e := range list {
		if e.IsDir() {
			s.addTree(childPath(dir, []byte(e.Name())), depth+1)
		}
	}
}

// add watches one directory.
func (s *inoSource) add(dir []byte) bool {
	wd, err := unix.InotifyAddWatch(s.fd, string(s.opened.Outside(dir)), inoMask)
	switch {
	case err == nil:
		s.byWD[int32(wd)] = bytes.Clone(dir)
		s.byDir[string(dir)] = int32(wd)
		return true
	case errors.Is(err, unix.ENOSPC):
		if !s.full {
			s.full = true
			limit, _ := os.ReadFile("/proc/sys/fs/inotify/max_user_watches")
			s.w.incomplete("the kernel's limit of %s inotify watches is reached, so the rest is NOT WATCHED (raise it: sysctl fs.inotify.max_user_watches)", strings.TrimSpace(string(limit)))
		}
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		s.denied++
	}
	return false
}

// dropTree forgets a directory and those below it.
func (s *inoSource) dropTree(dir []byte) {
	for d, wd := range s.byDir {
		if d == string(dir) || inTree([]byte(d), dir) {
			unix.InotifyRmWatch(s.fd, uint32(wd))
			delete(s.byDir, d)
			delete(s.byWD, wd)
		}
	}
}

// run reads events until the source is closed.
func (s *inoSource) run(context.Context) error {
	buf := make([]byte, readBytes)
	for {
		if s.w.o.slow != nil {
			s.w.o.slow()
		}
		n, err := s.group.read(buf)
		if errors.Is(err, os.ErrClosed) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read events: %w", err)
		}
		now := time.Now()
		count, moved := int64(0), map[uint32][]byte{}
		s.mu.Lock()
		err = parseInotify(buf[:n], func(wd int32, mask, cookie uint32, name []byte) {
			count++
			s.event(wd, mask, cookie, name, moved, now)
		})
		if s.denied > 0 {
			s.w.incomplete("%d directories may not be read by this user and are NOT WATCHED", s.denied)
			s.denied = 0
		}
		s.mu.Unlock()
		s.w.events.Add(count)
		s.w.lastRead.Store(now.UnixNano())
		if err != nil {
			return err
		}
	}
}

// parseInotify calls fn with each struct inotify_event in b.
func parseInotify(b []byte, fn func(wd int32, mask, cookie uint32, name []byte)) error {
	for off := 0; off < len(b); {
		rest := b[off:]
		if len(rest) < unix.SizeofInotifyEvent {
			return &EventError{off, "cut short"}
		}
		size := unix.SizeofInotifyEvent + int(binary.NativeEndian.Uint32(rest[12:]))
		if size < 0 || size > len(rest) {
			return &EventError{off, fmt.Sprintf("an event of %d bytes in %d", size, len(rest))}
		}
		name := rest[unix.SizeofInotifyEvent:size]
		if i := bytes.IndexByte(name, 0); i >= 0 {
			name = name[:i]
		}
		fn(int32(binary.NativeEndian.Uint32(rest)), binary.NativeEndian.Uint32(rest[4:]), binary.NativeEndian.Uint32(rest[8:]), name)
		off += size
	}
	return nil
}

// event looks at one event. s.mu is held.
func (s *inoSource) event(wd int32, mask, cookie uint32, name []byte, moved map[uint32][]byte, now time.Time) {
	if mask&unix.IN_Q_OVERFLOW != 0 {
		s.w.asks.put(ask{reason: OverflowRecord, since: time.Unix(0, s.w.lastRead.Load())})
		return
	}
	dir, known := s.byWD[wd]
	if mask&unix.IN_IGNORED != 0 {
		if known && s.byDir[string(dir)] == wd {
			delete(s.byDir, string(dir))
		}
		delete(s.byWD, wd)
		return
	}
	if !known {
		return
	}
	isDir := mask&unix.IN_ISDIR != 0
	if len(name) == 0 { // the directory itself
		if mask&unix.IN_ATTRIB != 0 && s.opened.Rule(dir) != nil {
			s.w.bursts.note(burst{path: dir, last: now, counts: Counts{Attributes: 1}}, true)
		}
		return
	}
	state := s.opened.State(dir)
	path := childPath(dir, name)
	covered := state.Rule(name) != nil
	if !covered && !(isDir && !state.Enter(name).Prune()) {
		return
	}
	b := burst{path: path, last: now, counts: inoCounts(mask)}
	switch {
	case mask&unix.IN_MOVED_FROM != 0:
		moved[cookie] = path
		if isDir {
			b.tree = true
			s.dropTree(path)
		}
	case mask&unix.IN_MOVED_TO != 0:
		b.from = moved[cookie]
		if isDir {
			b.tree = true
			s.addTree(path, 0)
		}
	case mask&unix.IN_CREATE != 0 && isDir:
		b.tree = true // what was made in it before it was watched
		s.addTree(path, 0)
	}
	if covered || b.tree {
		s.w.bursts.note(b, true)
	}
}

func inoCounts(mask uint32) (c Counts) {
	for _, x := range []struct {
		bit uint32
		n   *int
	}{
		{unix.IN_CREATE, &c.Created}, {unix.IN_MODIFY, &c.Modified}, {unix.IN_CLOSE_WRITE, &c.Closed}, {unix.IN_ATTRIB, &c.Attributes},
		{unix.IN_DELETE, &c.Removed}, {unix.IN_MOVED_FROM, &c.RenamedFrom}, {unix.IN_MOVED_TO, &c.RenamedTo},
	} {
		if mask&x.bit != 0 {
			*x.n = 1
		}
	}
	return c
}

// splitPath cuts a path into the directory and the name in it.
func splitPath(p []byte) (dir, name []byte) {
	i := bytes.LastIndexByte(p, '/')
	return p[:max(i, 1)], p[i+1:]
}
