package block

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/threat"
	"golang.org/x/sys/unix"
)

// Cgroup is a control group of version 2 as rules know it: by the inode of its
// directory, at a level below the root.
type Cgroup struct {
	Path  string `json:"path"` // below the mount: /system.slice/x.service
	Inode uint64 `json:"inode"`
	Level int    `json:"level"`
	// Made is set for one that was made to hold a process.
	Made bool `json:"made,omitempty"`
}

// maxLevel is how deep a control group may lie: nf_tables has eight bits for it.
const maxLevel = 255

// errNoCgroups says that there is nothing by which rules know control groups.
var errNoCgroups = failure.New(failure.NotReady, "control groups of version 2 are not mounted (mount -t cgroup2 none /sys/fs/cgroup)")

// cgroupMount returns where the hierarchy of version 2 is mounted.
func cgroupMount() (string, error) {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(b)) {
		before, after, ok := strings.Cut(line, " - ")
		fields := strings.Fields(before)
		if ok && len(fields) > 4 && strings.HasPrefix(after, "cgroup2 ") {
			return unescapeMount(fields[4]), nil
		}
	}
	return "", errNoCgroups
}

// unescapeMount undoes what proc_pid_mountinfo(5) does to spaces and the like.
func unescapeMount(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}

// cgroupAt finds a control group by its path below the mount.
func cgroupAt(path string) (Cgroup, error) {
	mount, err := cgroupMount()
	if err != nil {
		return Cgroup{}, err
	}
	c := Cgroup{Path: filepath.Clean("/" + path)}
	if c.Level = strings.Count(c.Path, "/"); c.Path == "/" || c.Level > maxLevel {
		return c, failure.Errorf(failure.Usage, "the control group %q holds all processes (cut the host off: mobileops network isolate)", path)
	}
	var st unix.Stat_t
	if err := unix.Lstat(mount+c.Path, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return c, failure.Errorf(failure.Usage, "there is no control group %s%s", mount, c.Path)
	}
	c.Inode = st.Ino
	return c, nil
}

// gone tells whether the control group is no more.
func (c *Cgroup) gone() bool {
	now, err := cgroupAt(c.Path)
	return err != nil || now.Inode != c.Inode
}

// cgroupOf is the control group of a process.
func cgroupOf(pid int) (string, error) {
	dir, err := living(pid)
	if err != nil {
		return "", err
	}
	b, err := os.ReadFile(dir + "/cgroup")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(b)) {
		if path, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "0::"); ok {
			return path, nil
		}
	}
	return "", errNoCgroups
}

// madePrefix begins the names of control groups that hold blocked processes.
const madePrefix = "mobileops-blocked-"

// confine moves a process and all that it started into a control group of its
// own, below the one that it is in: so its service manager still finds it. Each
// target has one, also what was started by a process that is blocked, so that
// either can be let go without the other. Those of processes that it started and
// that are blocked themselves come with it: they stay where they are.
func confine(target threat.Indicator, pid int) ([]Cgroup, error) {
	mount, err := cgroupMount()
	if err != nil {
		return nil, fmt.Errorf("a process is blocked by its control group, and %w", err)
	}
	path, err := cgroupOf(pid)
	if err != nil {
		return nil, err
	}
	if name := madePrefix + strings.ReplaceAll(target.Value, "@", "-"); filepath.Base(path) != name {
		path = filepath.Join(path, name)
	}
	dir := mount + path
	err = os.Mkdir(dir, 0o755)
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, failure.Errorf(failure.NotReady, "a control group for process %d: %w", pid, err)
	}
	created := err == nil
	var others []string
	for range 100 { // those that are started meanwhile are in it, or are found now
		moved := 0
		for _, p := range descendants(pid) {
			at, err := cgroupOf(p)
			if err != nil || at == path || strings.HasPrefix(at, path+"/") {
				continue
			}
			if isMade(at) && !strings.HasPrefix(path, at+"/") {
				if !slices.Contains(others, at) {
					others = append(others, at)
				}
				continue
			}
			if err := os.WriteFile(dir+"/cgroup.procs", []byte(strconv.Itoa(p)), 0); err == nil {
				moved++
			} else if p == pid {
				os.Remove(dir)
				return nil, failure.Errorf(failure.NotReady, "process %d cannot be moved to the control group %s: %w", pid, dir, err)
			}
		}
		if moved == 0 {
			break
		}
	}
	c, err := cgroupAt(path)
	c.Made = true
	// It may have ended before it was moved, and another one have got its number.
	_, start, _ := threat.SplitPID(target.Value)
	if now, bad := threat.ProcessStart(pid); target.Type == threat.PID && start != 0 && (bad != nil || now != start) {
		if created {
			release(c)
		}
		return nil, failure.Errorf(failure.Usage, "process %s is not running", target.Value)
	}
	list := []Cgroup{c}
	for _, at := range others {
		if c, err := cgroupAt(at); err == nil {
			c.Made = true
			list = append(list, c)
		}
	}
	return list, err
}

// isMade tells whether a control group is one of confine, by its path.
func isMade(path string) bool { return strings.HasPrefix(filepath.Base(path), madePrefix) }

// release moves what is in a control group that confine made back, and removes it.
func release(c Cgroup) {
	mount, err := cgroupMount()
	if !c.Made || err != nil || !isMade(c.Path) {
		return
	}
	dir := mount + c.Path
	for range 100 {
		b, err := os.ReadFile(dir + "/cgroup.procs")
		if err != nil || len(b) == 0 {
			break
		}
		for p := range strings.FieldsSeq(string(b)) {
			os.WriteFile(filepath.Dir(dir)+"/cgroup.procs", []byte(p), 0)
		}
	}
	os.Remove(dir)
}

// descendants are a process and all that it started, and they did.
func descendants(pid int) []int {
	children := map[int][]int{}
	for _, p := range processes() {
		if parent, ok := parentOf(p); ok {
			children[parent] = append(children[parent], p)
		}
	}
	list := []int{pid}
	for i := 0; i < len(list); i++ {
		list = append(list, children[list[i]]...)
	}
	return list
}

// processes are the numbers of all processes.
func processes() (list []int) {
	d, err := os.Open("/proc")
	if err != nil {
		return nil
	}
	defer d.Close()
	names, _ := d.Readdirnames(-1)
	for _, n := range names {
		if pid, err := strconv.Atoi(n); err == nil {
			list = append(list, pid)
		}
	}
	slices.Sort(list)
	return list
}

func parentOf(pid int) (int, bool) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, false
	}
	i := strings.LastIndexByte(string(b), ')')
	fields := strings.Fields(string(b[i+1:]))
	if len(fields) < 2 {
		return 0, false
	}
	parent, err := strconv.Atoi(fields[1])
	return parent, err == nil
}

// ancestors are this process and those that started it, up to the first.
func ancestors() (list []int) {
	for pid := os.Getpid(); pid > 0; {
		list = append(list, pid)
		parent, ok := parentOf(pid)
		if !ok {
			break
		}
		pid = parent
	}
	return list
}
