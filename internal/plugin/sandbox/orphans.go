package sandbox

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Where no cgroup holds what a program starts, a child of it that leaves its
// session and outlives it would keep what it was handed: the terminal of an
// administrator, at which passwords are typed later. So we have orphans become
// our children (PR_SET_CHILD_SUBREAPER of prctl(2)), and end those that are of
// programs that have ended. They are told from other children of ours by the
// number of their filters (proc_pid_status(5)), which only grows.

// running counts the programs of each account that have not been waited for.
// Orphans of one account are not told apart, so that they are ended when the
// last program of it ends.
var running = struct {
	sync.Mutex
	of  map[uint32]int
	all int
}{of: map[uint32]int{}}

// count adds to the programs of an account.
func count(uid uint32, by int) {
	running.Lock()
	defer running.Unlock()
	running.all += by
	if running.of[uid] += by; running.of[uid] == 0 {
		delete(running.of, uid)
	}
}

// uid is who the program is.
func (p *Policy) uid() uint32 {
	if p.Account != nil {
		return p.Account.UID
	}
	return uint32(os.Geteuid())
}

// adoption is whether orphans become ours.
var adoption struct {
	sync.Mutex
	programs int  // that need it
	before   bool // it was so already: a supervisor wants that
}

// adoptOrphans has what loses its parents below us become a child of ours, until
// abandonOrphans was called as often.
func adoptOrphans() error {
	adoption.Lock()
	defer adoption.Unlock()
	if adoption.programs == 0 {
		var now int32
		// Not unix.Prctl: what a uintptr points to moves with the stack of who calls.
		if _, _, err := unix.Syscall(unix.SYS_PRCTL, unix.PR_GET_CHILD_SUBREAPER, uintptr(unsafe.Pointer(&now)), 0); err != 0 {
			return os.NewSyscallError("prctl(PR_GET_CHILD_SUBREAPER)", err)
		}
		adoption.before = now != 0
		if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
			return os.NewSyscallError("prctl(PR_SET_CHILD_SUBREAPER)", err)
		}
	}
	adoption.programs++
	return nil
}

func abandonOrphans() {
	adoption.Lock()
	defer adoption.Unlock()
	if adoption.programs--; adoption.programs == 0 && !adoption.before {
		unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0) // others that we start leave what they like
	}
}

// orphanGrace is how long orphans are looked for that start others as they are
// killed. One that the kernel keeps is left.
const orphanGrace = 10 * time.Second

// endOrphans ends the children of ours that programs of an account left behind.
func endOrphans(uid uint32, filters int) {
	killed := map[int]bool{}
	defer func() {
		for pid := range killed {
			unix.Wait4(pid, nil, unix.WALL|unix.WNOHANG, nil)
		}
	}()
	for end := time.Now().Add(orphanGrace); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if err := unix.Waitid(unix.P_ALL, 0, nil, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT|unix.WALL, nil); errors.Is(err, unix.ECHILD) {
			return // most programs leave nothing behind
		}
		if !killOrphans(uid, filters, killed) {
			return
		}
	}
}

// killOrphans says whether there were any, or whether it is too early to know.
// Nobody starts a program of that account meanwhile: it would be one.
func killOrphans(uid uint32, filters int, killed map[int]bool) bool {
	running.Lock()
	defer running.Unlock()
	// A program of another account is ours until it has become that.
	if running.of[uid] > 0 || uid == uint32(os.Geteuid()) && running.all > 0 {
		return false // who ends last looks again
	}
	found := false
	for _, pid := range children() {
		fd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			continue
		}
		// Looked at when the number cannot become that of another any more.
		if s, err := readStatus(pid); err == nil && s.parent == os.Getpid() && !s.ended && s.uid == uid && s.filters > filters {
			found = true
			killed[pid] = true
			unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
		}
		unix.Close(fd)
	}
	return found
}

// children are the numbers of our children.
func children() (list []int) {
	tasks, _ := filepath.Glob("/proc/self/task/*/children")
	if len(tasks) == 0 { // a kernel without CONFIG_PROC_CHILDREN: look at everything
		all, _ := filepath.Glob("/proc/[0-9]*")
		for _, dir := range all {
			if pid, err := strconv.Atoi(filepath.Base(dir)); err == nil {
				list = append(list, pid)
			}
		}
		return list
	}
	for _, task := range tasks {
		text, _ := os.ReadFile(task)
		for word := range strings.FieldsSeq(string(text)) {
			if pid, err := strconv.Atoi(word); err == nil {
				list = append(list, pid)
			}
		}
	}
	return list
}

// status is what is of interest in proc_pid_status(5).
type status struct {
	parent  int
	ended   bool
	uid     uint32
	filters int // -1 before Linux 5.9
}

// readStatus reads the status of a process; 0: our own.
func readStatus(pid int) (s status, err error) {
	dir := "self"
	if pid != 0 {
		dir = strconv.Itoa(pid)
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%s/status", dir))
	if err != nil {
		return s, err
	}
	s.filters = -1
	for line := range bytes.Lines(text) {
		key, rest, _ := bytes.Cut(line, []byte(":"))
		value := strings.Fields(string(rest))
		if len(value) == 0 {
			continue
		}
		n, _ := strconv.Atoi(value[0])
		switch string(key) {
		case "State":
			s.ended = value[0] == "Z" || value[0] == "X"
		case "PPid":
			s.parent = n
		case "Uid":
			s.uid = uint32(n)
		case "Seccomp_filters":
			s.filters = n
		}
	}
	return s, nil
}
