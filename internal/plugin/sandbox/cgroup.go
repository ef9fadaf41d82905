package sandbox

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// hierarchy is a directory in which cgroups for a controller can be made.
type hierarchy struct {
	dir string // "" when there is none
	v2  bool
}

// hierarchies are those of the controllers that limit a program. In version 2
// both are the same.
type hierarchies struct{ memory, tasks hierarchy }

// findHierarchies looks for cgroups beneath which we may make some: beneath our
// own, so that limits that we are under hold for what we start too.
func findHierarchies() (h hierarchies) {
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return h
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return h
	}
	for line := range strings.Lines(string(mounts)) {
		f := strings.Fields(line)
		if len(f) < 4 {
			continue
		}
		switch {
		case f[2] == "cgroup2":
			dir := filepath.Join(f[1], ownGroup(own, ""))
			controllers := delegated(dir)
			if h.memory.dir == "" && slices.Contains(controllers, "memory") {
				h.memory = hierarchy{dir, true}
			}
			if h.tasks.dir == "" && slices.Contains(controllers, "pids") {
				h.tasks = hierarchy{dir, true}
			}
		case f[2] == "cgroup":
			for option := range strings.SplitSeq(f[3], ",") {
				into := map[string]*hierarchy{"memory": &h.memory, "pids": &h.tasks}[option]
				if into == nil || into.dir != "" {
					continue
				}
				if dir := filepath.Join(f[1], ownGroup(own, option)); unix.Access(dir, unix.W_OK) == nil {
					*into = hierarchy{dir: dir}
				} else if unix.Access(f[1], unix.W_OK) == nil {
					*into = hierarchy{dir: f[1]} // ours is not visible in this container
				}
			}
		}
	}
	return h
}

// ownGroup finds our cgroup of a controller, "" for version 2: cgroups(7).
func ownGroup(own []byte, controller string) string {
	lines := bufio.NewScanner(bytes.NewReader(own))
	for lines.Scan() {
		f := strings.SplitN(lines.Text(), ":", 3)
		if len(f) == 3 && slices.Contains(strings.Split(f[1], ","), controller) {
			return f[2]
		}
	}
	return "/"
}

// delegated returns the controllers that groups beneath a directory of version
// 2 have. A group with processes in it cannot hand them on ("no internal
// processes"), so that this needs a unit with Delegate=yes and a group beside
// us, or a container's root.
func delegated(dir string) []string {
	if unix.Access(dir, unix.W_OK) != nil {
		return nil
	}
	text, err := os.ReadFile(filepath.Join(dir, "cgroup.subtree_control"))
	if err != nil {
		return nil
	}
	return strings.Fields(string(text))
}

// groups are the cgroups of one program, made before it starts.
type groups struct {
	dirs []string
	kill string // cgroup.kill, "" when a hierarchy has none
}

// grouping is what came of making them. The groups are never nil.
type grouping struct {
	*groups
	err error
}

// serial tells groups of one process of ours apart.
var serial atomic.Uint64

// newGroups makes them. A limit of zero makes none.
func newGroups(name string, p *Policy, s Support) (*groups, error) {
	l := p.Limits
	g := &groups{}
	unique := fmt.Sprintf("mobileops-%s-%d-%d", name, os.Getpid(), serial.Add(1))
	make := func(h hierarchy, file, value string) error {
		if h.dir == "" {
			return nil
		}
		dir := filepath.Join(h.dir, unique)
		if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
		if !slices.Contains(g.dirs, dir) {
			g.dirs = append(g.dirs, dir)
		}
		if h.v2 {
			g.kill = filepath.Join(dir, "cgroup.kill")
		}
		return os.WriteFile(filepath.Join(dir, file), []byte(value), 0)
	}
	var err error
	if l.Memory > 0 && s.groups.memory.v2 {
		err = make(s.groups.memory, "memory.max", strconv.FormatUint(l.Memory, 10))
		if err == nil { // what does not fit must not go to the disk instead
			os.WriteFile(filepath.Join(g.dirs[0], "memory.swap.max"), []byte("0"), 0)
		}
	} else if l.Memory > 0 {
		err = make(s.groups.memory, "memory.limit_in_bytes", strconv.FormatUint(l.Memory, 10))
	}
	// The processes of an account of its own are counted by a limit; what is
	// killed by cgroup.kill needs a group all the same.
	if err == nil && l.Tasks > 0 && (p.Account == nil || s.groups.tasks.v2 || len(g.dirs) == 0) {
		err = make(s.groups.tasks, "pids.max", strconv.FormatUint(l.Tasks, 10))
	}
	if err != nil {
		g.remove()
		return &groups{}, fmt.Errorf("make a cgroup for %s: %w", name, err)
	}
	return g, nil
}

// add moves a process in.
func (g *groups) add(pid int) error {
	for _, dir := range g.dirs {
		if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0); err != nil {
			return err
		}
	}
	return nil
}

// groupGrace is how long what was killed may take to be gone, which is long
// where many wait for a processor. What the kernel keeps is left.
const groupGrace = 10 * time.Second

// end kills whatever is still in the groups, and removes them. A process that
// forks while it is killed is killed again.
func (g *groups) end() {
	pause := time.Millisecond
	for end := time.Now().Add(groupGrace); ; pause = min(2*pause, 50*time.Millisecond) {
		if g.remove() || time.Now().After(end) { // removed at first: most programs leave nothing behind
			return
		}
		if g.kill != "" {
			os.WriteFile(g.kill, []byte("1"), 0)
		}
		for _, dir := range g.dirs {
			procs, _ := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
			for pid := range strings.FieldsSeq(string(procs)) {
				if n, err := strconv.Atoi(pid); err == nil && n > 0 {
					unix.Kill(n, unix.SIGKILL)
				}
			}
		}
		time.Sleep(pause)
	}
}

// remove removes the groups, which must be empty, and says whether they are
// gone.
func (g *groups) remove() bool {
	gone := true
	for _, dir := range g.dirs {
		if err := unix.Rmdir(dir); err != nil && !errors.Is(err, unix.ENOENT) {
			gone = false
		}
	}
	return gone
}
