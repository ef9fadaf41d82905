// Package lab makes hosts on a switch, in network namespaces of their own, for
// tests: what a packet does is proved by sending it.
//
//	l := lab.New(t)
//	lan := l.Switch()
//	host, attacker := lan.Host("host"), lan.Host("attacker")
//	talk := lab.Talk(host, attacker)
//	lab.Open(t, talk...)                       // the control: packets do pass
//	host.Mobileops("network", "isolate").Is(t, 0)
//	lab.Blocked(t, talk...)
//
// A Lab is a set of namespaces that no name leads to: they are held open by
// the process of the test, and by what runs in them. So labs of tests that run
// at once do not get in each other's way, and nothing is left of a test that
// died but processes that it had started, which the next lab ends. The network
// of the machine itself is never touched.
//
// The n-th host on switch s (both from 1) has 10.9.s.n/24 and fd09:0:0:s::n/64.
// Duplicate address detection is off, so that addresses are usable at once.
package lab

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// marker is the environment variable by which processes that a lab started are
// known: "PID:START" of the test that made it.
const marker = "MOBILEOPS_LAB"

// Lab is a network of a test.
type Lab struct {
	t     testing.TB
	dir   string // removed at the end
	mark  string
	mu    sync.Mutex // for what follows
	spots []*namespace
	nets  int // switches so far
}

// New makes an empty lab that is gone when the test is over. The test is
// skipped where namespaces cannot be made.
func New(t testing.TB) *Lab {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("NOT RUN: what packets do: making network namespaces needs root")
	}
	for _, tool := range []string{"ip", "nsenter", "unshare", "mount"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("NOT RUN: what packets do: %s is not installed (apt-get install iproute2 util-linux; make test does)", tool)
		}
	}
	l := &Lab{t: t, dir: t.TempDir(), mark: fmt.Sprintf("%d:%s", os.Getpid(), started(os.Getpid()))}
	endLeftovers()
	t.Cleanup(l.close)
	probe, err := l.namespace("probe")
	if err != nil {
		t.Skipf("NOT RUN: what packets do: no network namespace can be made here: %v", err)
	}
	probe.file.Close()
	l.spots = nil
	return l
}

// must ends the test when setting up failed.
func (l *Lab) must(err error) {
	l.t.Helper()
	if err != nil {
		l.t.Fatalf("lab: %v", err)
	}
}

// close ends what still runs in the namespaces, which vanish with it.
func (l *Lab) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	// A directory is removed after this, and what they write into it must
	// have come to its end. Meanwhile some may start others.
	said := map[int]bool{}
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		left := processes(l.spots)
		if len(left) == 0 {
			break
		}
		for _, pid := range left {
			if !said[pid] {
				name, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
				l.t.Logf("lab: ending process %d, which still runs: %s", pid, bytes.ReplaceAll(name, []byte{0}, []byte{' '}))
				said[pid] = true
			}
			syscall.Kill(pid, syscall.SIGKILL)
		}
	}
	for _, n := range l.spots {
		n.file.Close()
	}
}

// processes are those in one of the namespaces.
func processes(spots []*namespace) (pids []int) {
	ours := map[uint64]bool{}
	for _, n := range spots {
		ours[n.inode] = true
	}
	eachProcess(func(pid int) {
		var st syscall.Stat_t
		if syscall.Stat(fmt.Sprintf("/proc/%d/ns/net", pid), &st) == nil && ours[st.Ino] && pid != os.Getpid() {
			pids = append(pids, pid)
		}
	})
	return pids
}

// endLeftovers ends processes of labs whose test has died.
func endLeftovers() {
	eachProcess(func(pid int) {
		env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
		if err != nil {
			return
		}
		for _, v := range strings.Split(string(env), "\x00") {
			mark, ok := strings.CutPrefix(v, marker+"=")
			if !ok {
				continue
			}
			owner, start, _ := strings.Cut(mark, ":")
			if n, err := strconv.Atoi(owner); err == nil && started(n) != start {
				syscall.Kill(pid, syscall.SIGKILL)
			}
		}
	})
}

// eachProcess calls f for every process there is.
func eachProcess(f func(pid int)) {
	names, _ := filepath.Glob("/proc/[0-9]*")
	for _, name := range names {
		if pid, err := strconv.Atoi(filepath.Base(name)); err == nil {
			f(pid)
		}
	}
}

// started is when a process began, in ticks since the machine did; "" when
// there is none of that id or it has ended.
func started(pid int) string {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return ""
	}
	fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	if len(fields) < 20 || fields[0] == "Z" {
		return ""
	}
	return fields[19]
}
