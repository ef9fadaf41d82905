package supervise

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	reapEvery = 2 * time.Second
	lookEvery = 15 * time.Second // at all processes, to learn who descends from whom
)

// reaper looks after processes that became children of the supervisor because
// their parents ended (PR_SET_CHILD_SUBREAPER, prctl(2)): it reaps those that
// have ended, and at the very end ends those that have not.
//
// Such an orphan is a child in another session than ours that nobody here
// started. So whoever runs commands beside the supervisor, in the same process,
// must not give them a session of their own.
type reaper struct {
	mu     sync.Mutex
	known  map[int]bool           // main processes; their owners reap them
	starts map[uint64]time.Time   // that are under way, and since when
	number uint64                 // of starts
	seen   map[identity]time.Time // orphans that have ended, and since when that is known
}

func newReaper() *reaper {
	return &reaper{known: map[int]bool{}, starts: map[uint64]time.Time{}, seen: map[identity]time.Time{}}
}

// starting says that a process is about to be started which is nobody's yet.
// The function it returns is called when know was.
func (r *reaper) starting() (over func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.number++
	n := r.number
	r.starts[n] = time.Now()
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.starts, n)
	}
}

// know names a main process, forget says that it is reaped.
func (r *reaper) know(pid int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.known[pid] = true
}

func (r *reaper) forget(pid int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.known, pid)
}

// orphans picks from processes those that became children of ours.
func (r *reaper) orphans(list []proc) []proc {
	self, err := readProc(os.Getpid())
	if err != nil {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	var found []proc
	for _, p := range list {
		if p.ppid == self.pid && p.sid != self.sid && !r.known[p.pid] {
			found = append(found, p)
		}
	}
	return found
}

// reap reaps orphans that have ended. One that somebody is just starting, and
// has not named yet, is not taken away from them: it was forked after that
// start began, so what was seen before the oldest start is no such child.
func (r *reaper) reap() {
	e, err := waitid(unix.P_ALL, 0, unix.WNOHANG|unix.WNOWAIT)
	if err != nil || e.pid == 0 {
		return // no child has ended
	}
	var list []proc
	for _, pid := range children() {
		if p, err := readProc(pid); err == nil && p.dead() {
			list = append(list, p)
		}
	}
	list = r.orphans(list)
	now := time.Now() // all in the list were forked before
	r.mu.Lock()
	defer r.mu.Unlock()
	before := r.seen
	r.seen = map[identity]time.Time{}
	for _, p := range list {
		since, ok := before[p.identity()]
		if !ok {
			since = now
		}
		foreign := !r.known[p.pid] // a start may have ended since the list was made
		for _, began := range r.starts {
			foreign = foreign && began.After(since)
		}
		if !foreign {
			r.seen[p.identity()] = since
			continue
		}
		var status unix.WaitStatus
		_, _ = unix.Wait4(p.pid, &status, unix.WNOHANG, nil)
	}
}

// children lists our children, those that have ended included.
func children() []int {
	var list []int
	tasks, _ := filepath.Glob("/proc/self/task/*/children")
	for _, name := range tasks {
		b, err := os.ReadFile(name)
		if err != nil {
			continue
		}
		for _, f := range strings.Fields(string(b)) {
			if pid, err := strconv.Atoi(f); err == nil {
				list = append(list, pid)
			}
		}
	}
	if len(tasks) > 0 {
		return list
	}
	t, _ := readTable() // a kernel without CONFIG_PROC_CHILDREN
	for _, p := range t {
		if p.ppid == os.Getpid() {
			list = append(list, p.pid)
		}
	}
	return list
}

// serve works until ctx is done.
func (r *reaper) serve(ctx context.Context, s *Supervisor) {
	reaps := time.NewTicker(reapEvery)
	defer reaps.Stop()
	looks := time.NewTicker(lookEvery)
	defer looks.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-reaps.C:
			r.reap()
		case <-looks.C:
			s.lookAround()
		}
	}
}

// end ends the orphans that are of no service any more. It is called when no
// service runs.
func (r *reaper) end(c *census, timeout time.Duration) []proc {
	t, err := c.take()
	if err != nil {
		return nil
	}
	var all []proc
	for _, p := range t {
		all = append(all, p)
	}
	f := &family{known: map[identity]bool{}}
	for _, p := range r.orphans(all) {
		if !p.dead() {
			f.known[p.identity()] = true
		}
	}
	if len(f.known) == 0 {
		return nil
	}
	left, _ := f.end(c, timeout, nil, nil)
	return left
}
