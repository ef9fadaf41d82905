package supervise

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// family is a main process and everything that descends from it. A descendant
// is known by
//
//   - the cgroup, where there is one, which nothing leaves;
//   - the session or process group of the main process, as long as that is not
//     reaped and its number therefore its own;
//   - its parents, as far as they live, or lived when the family was last
//     looked at;
//   - the mark in its environment.
//
// So what is missed has left the session, lost its parents before anybody
// looked, and cleaned its environment. With Options.Subreaper it is then a
// child of the supervisor, which ends it with itself.
type family struct {
	mark string

	mu     sync.Mutex
	pid    int    // 0: there is no main process
	start  uint64 // of pid; 0: it is not known
	own    bool   // the main process cannot have been reaped
	cgroup string
	known  map[identity]bool // descendants that were seen
}

// members returns the processes of the family that have not ended, and
// remembers them. The processes of a table whose parent is one of orphanage
// are asked for the mark.
func (f *family) members(t table, orphanage ...int) []proc {
	f.mu.Lock()
	defer f.mu.Unlock()
	set := map[identity]proc{}
	add := func(p proc) { set[p.identity()] = p }
	main, there := t[f.pid]
	there = there && f.pid > 0 && (f.own || f.start != 0 && main.start == f.start)
	if there {
		add(main)
	}
	inside := f.inCgroup()
	parents := map[int]bool{}
	for _, pid := range orphanage {
		parents[pid] = true
	}
	for _, p := range t {
		switch {
		case f.known[p.identity()], inside[p.pid]:
			add(p)
		case there && (p.sid == f.pid || p.pgid == f.pid):
			add(p)
		case p.start >= f.start && (len(orphanage) == 0 || parents[p.ppid]) && !p.dead() && p.pid != os.Getpid() && marked(p.pid, f.mark):
			add(p)
		}
	}
	t.closure(set)
	f.known = map[identity]bool{}
	var list []proc
	for id, p := range set {
		if p.pid == os.Getpid() {
			continue
		}
		f.known[id] = true
		if !p.dead() {
			list = append(list, p)
		}
	}
	return list
}

// begin says which process the family is of.
func (f *family) begin(pid int, cgroup string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.pid, f.cgroup, f.own = pid, cgroup, true
	if p, err := readProc(pid); err == nil {
		f.start = p.start
	}
}

// reaped says that the number of the main process may be somebody else's by now.
func (f *family) reaped() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.own = false
}

// inCgroup returns the processes of the cgroup and those below it.
func (f *family) inCgroup() map[int]bool {
	if f.cgroup == "" {
		return nil
	}
	set := map[int]bool{}
	_ = filepath.WalkDir(f.cgroup, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.Name() != "cgroup.procs" {
			return nil
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return nil
		}
		for line := range bytes.FieldsSeq(b) {
			if pid, err := strconv.Atoi(string(line)); err == nil {
				set[pid] = true
			}
		}
		return nil
	})
	return set
}

// kill sends SIGKILL to all of the cgroup at once, in which nothing can fork
// meanwhile (cgroup.kill, Linux 5.14).
func (f *family) kill() {
	if f.cgroup != "" {
		_ = os.WriteFile(filepath.Join(f.cgroup, "cgroup.kill"), []byte("1"), 0)
	}
}

// unkillable is how long SIGKILL is waited for: a process that stands in the
// kernel, before a network file system say, ends when that lets it go.
const unkillable = 5 * time.Second

// end ends the family: SIGTERM, and when time is over SIGKILL, until nobody is
// left. group signals the main process and its group; exited is closed when
// the main process has ended. Both may be nil. It returns who is left, which
// is nobody unless the kernel keeps them.
func (f *family) end(c *census, timeout time.Duration, group func(syscall.Signal) error, exited <-chan struct{}) ([]proc, error) {
	look := func() ([]proc, error) {
		t, err := c.take()
		if err != nil {
			return nil, fmt.Errorf("list of processes: %w", err)
		}
		return f.members(t, 1, os.Getpid()), nil
	}
	if group == nil {
		group = func(syscall.Signal) error { return nil }
	}
	termed := map[identity]bool{}
	term := func(list []proc) {
		for _, p := range list {
			if !termed[p.identity()] {
				termed[p.identity()] = true
				_ = p.identity().signal(unix.SIGTERM)
				_ = p.identity().signal(unix.SIGCONT) // a stopped one does not see it otherwise
			}
		}
	}
	list, _ := look() // before parents end
	if exited != nil {
		for _, p := range list {
			termed[p.identity()] = p.pgid == f.pid // told once: for some programs twice means at once
		}
		_ = group(unix.SIGTERM)
		_ = group(unix.SIGCONT)
	}
	term(list)
	deadline := time.Now().Add(timeout)
	killed := false
	var err error
	for pause := 2 * time.Millisecond; ; pause = min(pause*2, 200*time.Millisecond) {
		if exited != nil && !killed {
			select { // nothing to look for as long as it lives
			case <-exited:
			case <-time.After(time.Until(deadline)):
			}
		}
		if list, err = look(); err == nil && len(list) == 0 && over(exited) {
			return nil, nil
		}
		if time.Now().After(deadline) {
			if killed && time.Now().After(deadline.Add(unkillable)) {
				break
			}
			killed = true
			f.kill()
			_ = group(unix.SIGKILL)
			for _, p := range list {
				_ = p.identity().signal(unix.SIGKILL)
			}
		} else {
			term(list)
		}
		time.Sleep(min(pause, max(time.Until(deadline), 2*time.Millisecond)))
	}
	if err == nil && len(list) == 0 {
		err = errors.New("it does not end, though it was killed")
	}
	return list, err
}

func over(exited <-chan struct{}) bool {
	if exited == nil {
		return true
	}
	select {
	case <-exited:
		return true
	default:
		return false
	}
}
