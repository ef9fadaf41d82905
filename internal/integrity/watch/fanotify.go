package watch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"sync/atomic"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/integrity"
	"golang.org/x/sys/unix"
)

// eventMask is what is asked for on every filesystem. FAN_RENAME (Linux 5.17)
// gives both names of a rename in one event.
const eventMask = unix.FAN_CREATE | unix.FAN_DELETE | unix.FAN_MODIFY | unix.FAN_CLOSE_WRITE |
	unix.FAN_ATTRIB | unix.FAN_RENAME | unix.FAN_ONDIR

// readBytes is how much is read at a time. Each event in it brings a pidfd, so
// it bounds descriptors too: an event is 100 bytes and more.
const readBytes = 32 << 10

// fanSource reads events of whole filesystems. Its goroutine alone uses what
// stands below the line.
type fanSource struct {
	w     *watcher
	group *group
	self  int32
	next  atomic.Pointer[outlook]
	links *links
	execs *execs // nil: starts are not known

	dirs     *directories
	procs    *processes
	orphans  map[string][]orphan // by the handle of the directory
	orphaned int
	noted    [][]byte // paths that the event at hand was noted for
	nameless []byte   // the file whose link count changed in the event before
	linker   int32    // who did that
}

// outlook is what a source needs to know to tell what is watched.
type outlook struct {
	opened *integrity.Opened
	mounts *mounts
}

// orphan is an event in a directory that was gone before its path was known.
// When the directory's own removal is read, the path is known after all.
type orphan struct {
	name   []byte
	counts Counts
	isDir  bool
	self   string
	proc   *Process
	at     time.Time
}

const maxOrphans = 1 << 14

// newFanSource makes the group and marks what the policy covers. An error means
// that fanotify cannot be used.
func newFanSource(w *watcher, t *mounts) (*fanSource, error) {
	fd, err := unix.FanotifyInit(unix.FAN_CLASS_NOTIF|unix.FAN_CLOEXEC|unix.FAN_NONBLOCK|
		unix.FAN_REPORT_DFID_NAME_TARGET|unix.FAN_REPORT_PIDFD, unix.O_RDONLY|unix.O_LARGEFILE|unix.O_CLOEXEC)
	if err != nil {
		return nil, explain(err)
	}
	g, err := newGroup(fd)
	if err != nil {
		return nil, err
	}
	s := &fanSource{
		w: w, group: g, self: int32(os.Getpid()), links: newLinks(),
		dirs: newDirectories(w.opened, t), procs: newProcesses(), orphans: map[string][]orphan{},
	}
	marked := 0
	for _, m := range t.list {
		if m.covered && t.owner(m.point) == m {
			if err = s.mark(m); err == nil {
				marked++
			} else if marked == 0 && !errors.Is(err, errUnmarkable) {
				s.group.close()
				return nil, explain(err)
			} else {
				w.incomplete("%s (%s) is NOT WATCHED: %v", m.point, m.kind, err)
			}
		}
	}
	if marked == 0 {
		s.group.close()
		return nil, fmt.Errorf("no filesystem that the policy covers can be watched: %w", err)
	}
	s.links.build(w.opened, t)
	if s.execs = newExecs(); s.execs != nil {
		go s.execs.run()
	}
	return s, nil
}

// explain says what an error of the kernel means here.
func explain(err error) error {
	switch {
	case errors.Is(err, unix.EPERM):
		return failure.Errorf(failure.NotAllowed, "it needs root (CAP_SYS_ADMIN)")
	case errors.Is(err, unix.ENOSYS), errors.Is(err, unix.EINVAL):
		return fmt.Errorf("this kernel lacks it, or is older than 5.17: %w", err)
	}
	return err
}

// errUnmarkable says that a kind of filesystem cannot be watched as a whole.
var errUnmarkable = errors.New("fanotify cannot watch this kind of filesystem")

// mark asks for the events of the filesystem that m is a mount of. Doing so
// twice is harmless.
func (s *fanSource) mark(m *mount) error {
	fd, err := unix.Open(string(m.point), unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	// What cannot be opened by its handle cannot be resolved to a path.
	h, _, err := unix.NameToHandleAt(fd, "", unix.AT_EMPTY_PATH)
	if err == nil {
		var got int
		if got, err = unix.OpenByHandleAt(fd, h, unix.O_PATH|unix.O_CLOEXEC); err == nil {
			unix.Close(got)
		}
	}
	if err != nil && !errors.Is(err, unix.EPERM) {
		return fmt.Errorf("%w: %w", errUnmarkable, err)
	} else if err != nil {
		return err
	}
	err = s.group.use(func(g int) error {
		return unix.FanotifyMark(g, unix.FAN_MARK_ADD|unix.FAN_MARK_FILESYSTEM, eventMask, fd, "")
	})
	if errors.Is(err, unix.ENODEV) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EXDEV) {
		return fmt.Errorf("%w: %w", errUnmarkable, err)
	}
	return err
}

func (s *fanSource) mode() Mode { return Fanotify }

func (s *fanSource) adopt(o *integrity.Opened, t *mounts) {
	for _, m := range t.list {
		if m.covered && t.owner(m.point) == m {
			if err := s.mark(m); err != nil && !errors.Is(err, unix.ENOENT) {
				s.w.incomplete("%s (%s) is NOT WATCHED: %v", m.point, m.kind, err)
			}
		}
	}
	s.next.Store(&outlook{o, t})
}

func (s *fanSource) close() {
	s.execs.close()
	s.w.bursts.close()
	s.group.close()
}

// run reads events until the group is closed.
func (s *fanSource) run(context.Context) error {
	runtime.LockOSThread()
	// The thread is not unlocked: it ends, and with it its priority.
	hurry()
	defer s.procs.close()
	buf := make([]byte, readBytes)
	var last time.Time
	for {
		if s.w.o.slow != nil {
			s.w.o.slow()
		}
		n, err := s.group.read(buf)
		if errors.Is(err, os.ErrClosed) {
			return nil
		}
		if err != nil {
			if errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) {
				s.w.asks.put(ask{reason: OverflowRecord, since: time.Now()})
				time.Sleep(10 * time.Millisecond)
				continue
			}
			return fmt.Errorf("read events: %w", err)
		}
		if next := s.next.Swap(nil); next != nil {
			s.dirs.opened, s.dirs.mounts = next.opened, next.mounts
			s.dirs.forget()
		}
		s.procs.next()
		now := time.Now()
		count := int64(0)
		err = parseEvents(buf[:n], func(ev *event) {
			count++
			s.event(ev, now)
		})
		s.dirs.settle()
		s.w.events.Add(count)
		s.w.lastRead.Store(now.UnixNano())
		if err != nil {
			return err
		}
		// A process that is known and goes on, such as one that unpacks an
		// archive, need not wake this thread for each of its events: those that
		// wait are merged. A process that nobody knows is looked at at once.
		if s.procs.fresh == 0 && now.Sub(last) < napTime && n < readBytes/2 {
			nap := unix.NsecToTimespec(int64(napTime))
			unix.Nanosleep(&nap, nil)
		}
		last = time.Now()
	}
}

// napTime is for how long events of known processes may wait. The kernel's
// queue holds what a hundred times as many processors make in it.
const napTime = 3 * time.Millisecond

// event looks at one event.
func (s *fanSource) event(ev *event, now time.Time) {
	kept := false
	defer func() {
		if !kept && ev.pidfd >= 0 {
			unix.Close(ev.pidfd)
		}
	}()
	if ev.mask&unix.FAN_Q_OVERFLOW != 0 {
		since := time.Unix(0, s.w.lastRead.Load())
		if s.w.lastRead.Load() == 0 {
			since = s.w.sum.Started
		}
		s.w.asks.put(ask{reason: OverflowRecord, since: since})
		s.dirs.forget()
		return
	}
	if ev.pid == s.self {
		return
	}
	var proc *Process
	who := func() *Process { // asked only when the event is kept
		if !kept {
			kept, proc = true, s.procs.look(ev.pid, ev.pidfd)
		}
		return proc
	}
	s.noted = s.noted[:0]
	if len(ev.name) > 0 && ev.dir != nil {
		s.named(ev, who, now)
	}
	if ev.self != nil && ev.mask&unix.FAN_ONDIR == 0 {
		s.linked(ev, who, now)
	}
}

// named looks at an event that has a name.
func (s *fanSource) named(ev *event, who func() *Process, now time.Time) {
	isDir := ev.mask&unix.FAN_ONDIR != 0
	if ev.mask&unix.FAN_RENAME != 0 {
		s.renamed(ev, who, isDir, now)
		return
	}
	places, err := s.dirs.places(ev.dir)
	if err != nil {
		s.orphan(ev, who, isDir, now)
		return
	}
	if ev.name[0] == '.' && len(ev.name) == 1 {
		for _, p := range places {
			s.itself(p, who, now)
		}
		return
	}
	s.dirent(places, ev.name, string(ev.self), countsOf(ev.mask), isDir, who, now)
}

// countsOf turns the mask of an event into counts.
func countsOf(mask uint64) (c Counts) {
	for _, x := range []struct {
		bit uint64
		n   *int
	}{{unix.FAN_CREATE, &c.Created}, {unix.FAN_MODIFY, &c.Modified}, {unix.FAN_CLOSE_WRITE, &c.Closed}, {unix.FAN_ATTRIB, &c.Attributes}, {unix.FAN_DELETE, &c.Removed}} {
		if mask&x.bit != 0 {
			*x.n = 1
		}
	}
	return c
}

// dirent notes events of a name in a directory.
func (s *fanSource) dirent(places []place, name []byte, self string, counts Counts, isDir bool, who func() *Process, now time.Time) {
	if isDir && self != "" {
		switch {
		case counts.Removed > 0:
			delete(s.dirs.cache, self)
		case counts.Created > 0:
			// From now on events in it need no call to find out where it is.
			in := []place(nil)
			for i := range places {
				if c, covered := places[i].child(name); covered {
					in = append(in, c)
				}
			}
			s.dirs.learn(handle(self), in)
		}
	}
	for i := range places {
		p := &places[i]
		if p.state.Rule(name) != nil {
			path := childPath(p.dir, name)
			s.noted = append(s.noted, path)
			s.w.bursts.note(burst{path: path, proc: who(), last: now, counts: counts}, true)
		}
	}
	if isDir && counts.Removed > 0 && self != "" {
		s.reunite(places, name, self)
	}
}

// itself notes a change of a directory's own attributes.
func (s *fanSource) itself(p place, who func() *Process, now time.Time) {
	if len(p.dir) == 1 {
		if s.dirs.opened.Matcher.RootRule() != nil {
			s.w.bursts.note(burst{path: p.dir, proc: who(), last: now, counts: Counts{Attributes: 1}}, true)
		}
		return
	}
	if parent, name := s.dirs.parent(p); parent.state.Rule(name) != nil {
		s.w.bursts.note(burst{path: p.dir, proc: who(), last: now, counts: Counts{Attributes: 1}}, true)
	}
}

// renamed notes both names of a rename.
func (s *fanSource) renamed(ev *event, who func() *Process, isDir bool, now time.Time) {
	var from []byte
	leaving, err := s.dirs.places(ev.dir)
	if err == nil {
		for i := range leaving {
			p := &leaving[i]
			_, below := p.child(ev.name)
			if p.state.Rule(ev.name) != nil || isDir && below {
				from = childPath(p.dir, ev.name)
				s.w.bursts.note(burst{path: from, proc: who(), last: now, counts: Counts{RenamedFrom: 1}, tree: isDir}, true)
			}
		}
	}
	if ev.to != nil && len(ev.new) > 0 {
		arriving, err := s.dirs.places(ev.to)
		if err == nil {
			for i := range arriving {
				p := &arriving[i]
				_, below := p.child(ev.new)
				if p.state.Rule(ev.new) != nil || isDir && below {
					s.w.bursts.note(burst{path: childPath(p.dir, ev.new), from: from, proc: who(), last: now, counts: Counts{RenamedTo: 1}, tree: isDir}, true)
				}
			}
		}
	}
	if isDir {
		s.dirs.forget()
	}
}

// orphan keeps an event whose directory is gone.
func (s *fanSource) orphan(ev *event, who func() *Process, isDir bool, now time.Time) {
	if s.orphaned >= maxOrphans {
		clear(s.orphans) // most were in directories that nobody watches
		s.orphaned = 0
	}
	s.orphaned++
	key := string(ev.dir)
	s.orphans[key] = append(s.orphans[key], orphan{bytes.Clone(ev.name), countsOf(ev.mask), isDir, string(ev.self), who(), now})
}

// reunite gives the events in a directory that is gone the path that its removal
// told.
func (s *fanSource) reunite(places []place, name []byte, self string) {
	list := s.orphans[self]
	if list == nil {
		return
	}
	delete(s.orphans, self)
	s.orphaned -= len(list)
	var in []place
	for i := range places {
		if c, covered := places[i].child(name); covered {
			in = append(in, c)
		}
	}
	for i := range list {
		o := &list[i]
		if string(o.name) == "." {
			continue // what it was before it went does not matter any more
		}
		s.dirent(in, o.name, o.self, o.counts, o.isDir, func() *Process { return o.proc }, o.at)
	}
}

// linked notes events on a file that has another name which is watched, and
// notices when a file gets one.
func (s *fanSource) linked(ev *event, who func() *Process, now time.Time) {
	for _, path := range s.links.paths(ev.self) {
		if !slices.ContainsFunc(s.noted, func(n []byte) bool { return bytes.Equal(n, path) }) {
			s.w.bursts.note(burst{path: path, proc: who(), last: now, counts: countsOf(ev.mask &^ (unix.FAN_CREATE | unix.FAN_DELETE))}, true)
		}
	}
	switch {
	case len(ev.name) == 0:
		// link(2) and unlink(2) tell of the changed count first, without a name.
		s.nameless, s.linker = append(s.nameless[:0], ev.self...), ev.pid
	case ev.mask&unix.FAN_CREATE != 0 && ev.pid == s.linker && bytes.Equal(ev.self, s.nameless):
		s.nameless = s.nameless[:0]
		// Copies that are made of links (cp -l, git clone) are of files that
		// nobody watches, and too many to be looked up one by one.
		if ino, err := s.dirs.inode(ev.self); err == nil && s.links.maybe(ev.self, ino) {
			s.w.asks.put(ask{link: &newLink{self: bytes.Clone(ev.self), proc: who(), at: now}})
		}
	}
}
