package supervise

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// proc is a process as the kernel lists it. Its number and the time it was
// started at, in clock ticks since the boot, are together nobody else's.
type proc struct {
	pid, ppid, pgid, sid int
	state                byte
	start                uint64
}

// identity tells a process from every other of this boot.
type identity struct {
	pid   int
	start uint64
}

func (p proc) identity() identity { return identity{p.pid, p.start} }

// dead reports whether the process has ended, and is only still listed.
func (p proc) dead() bool { return p.state == 'Z' || p.state == 'X' || p.state == 'x' }

var errStat = errors.New("not as proc_pid_stat(5) says")

// parseStat reads the content of /proc/PID/stat (proc_pid_stat(5)). The name in
// it is up to the process, parentheses, spaces and newlines included.
func parseStat(b []byte) (proc, error) {
	var p proc
	end := bytes.LastIndexByte(b, ')')
	begin := bytes.IndexByte(b, '(')
	if begin < 2 || end < begin {
		return p, errStat
	}
	f := strings.Fields(string(b[end+1:]))
	if len(f) < 20 || len(f[0]) != 1 {
		return p, errStat
	}
	p.state = f[0][0]
	var errs [5]error
	p.pid, errs[0] = strconv.Atoi(string(b[:begin-1]))
	p.ppid, errs[1] = strconv.Atoi(f[1])
	p.pgid, errs[2] = strconv.Atoi(f[2])
	p.sid, errs[3] = strconv.Atoi(f[3])
	p.start, errs[4] = strconv.ParseUint(f[19], 10, 64)
	if errors.Join(errs[:]...) != nil || p.pid <= 0 {
		return p, errStat
	}
	return p, nil
}

// readProc reads one process.
func readProc(pid int) (proc, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return proc{}, err
	}
	return parseStat(b)
}

// signal sends a signal to this process, and to no other that has its number
// by now.
func (id identity) signal(sig syscall.Signal) error {
	fd, err := unix.PidfdOpen(id.pid, 0)
	if err == nil {
		defer unix.Close(fd)
	} else if !errors.Is(err, unix.ENOSYS) && !errors.Is(err, unix.EPERM) {
		return err
	}
	p, statErr := readProc(id.pid)
	if statErr != nil || p.start != id.start {
		return unix.ESRCH
	}
	if err != nil { // before Linux 5.3, or forbidden by a filter
		return unix.Kill(id.pid, sig)
	}
	return unix.PidfdSendSignal(fd, sig, nil, 0)
}

// table is a list of processes by their numbers.
type table map[int]proc

// readTable reads the whole list of processes.
func readTable() (table, error) {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil, err
	}
	names, err := dir.Readdirnames(-1)
	dir.Close()
	if err != nil {
		return nil, err
	}
	t := make(table, len(names))
	for _, name := range names {
		if name[0] < '0' || name[0] > '9' {
			continue
		}
		pid, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		if p, err := readProc(pid); err == nil {
			t[pid] = p
		}
	}
	return t, nil
}

// closure adds to a set of processes all of their descendants.
func (t table) closure(set map[identity]proc) {
	children := map[int][]proc{}
	for _, p := range t {
		children[p.ppid] = append(children[p.ppid], p)
	}
	var todo []proc
	for _, p := range set {
		todo = append(todo, p)
	}
	for len(todo) > 0 {
		p := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		for _, c := range children[p.pid] {
			if _, known := set[c.identity()]; !known && c.start >= p.start {
				set[c.identity()] = c
				todo = append(todo, c)
			}
		}
	}
}

// marked reports whether a process has the variable in its environment.
func marked(pid int, mark string) bool {
	if mark == "" {
		return false
	}
	env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	if err != nil {
		return false
	}
	for v := range bytes.SplitSeq(env, []byte{0}) {
		if string(v) == mark {
			return true
		}
	}
	return false
}

// census reads the list of processes, once for all who want it at a time.
type census struct {
	mu      sync.Mutex
	over    sync.Cond
	running bool
	begun   uint64 // readings
	done    uint64 // number of the last reading that is over
	last    table
	err     error
}

func newCensus() *census {
	c := new(census)
	c.over.L = &c.mu
	return c
}

// take returns a list that was begun after the call.
func (c *census) take() (table, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for need := c.begun + 1; c.done < need; {
		if c.running {
			c.over.Wait()
			continue
		}
		c.running = true
		c.begun++
		number := c.begun
		c.mu.Unlock()
		t, err := readTable()
		c.mu.Lock()
		c.last, c.err, c.done, c.running = t, err, number, false
		c.over.Broadcast()
	}
	return c.last, c.err
}

// bootID names this boot of the kernel. Numbers of processes mean nothing in
// another one.
func bootID() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}
