//go:build amd64 || arm64

package sandbox

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// daemon is a program that leaves something behind, in another session and with
// another parent, and says which process that is.
const daemon = `#!/bin/sh
setsid sh -c 'sh -c "echo \$\$ >left.new; mv left.new left; exec sleep 1000" & exit 0' </dev/null >/dev/null 2>&1
while ! [ -e left ]; do sleep 0.01; done
[ "$1" != stay ] || { echo >ready; exec sleep 1000; }
`

// withoutGroups is this host if no cgroups could be made.
func withoutGroups(t *testing.T) Support {
	t.Helper()
	needsLayers(t)
	s := Detect()
	s.Memory, s.Tasks, s.groups = false, false, hierarchies{}
	if s.filters < 0 {
		t.Skip("NOT RUN: the kernel does not say how many filters a process has (Linux 5.9 does)")
	}
	return s
}

// leave starts the program that leaves something behind.
func leave(t *testing.T, s Support, account *Account, data string, args ...string) *Process {
	t.Helper()
	script := write(t, filepath.Join(reachable(t), "daemon"), daemon, 0o755)
	if account != nil {
		if err := os.Chown(data, int(account.UID), int(account.GID)); err != nil {
			t.Fatal(err)
		}
	}
	p, err := start(Command{Program: script, Args: args, Env: []string{"PATH=/usr/bin:/bin"}}, Policy{
		Data: data, Account: account, Exec: []string{"/usr/bin/setsid", "/usr/bin/sleep", "/usr/bin/mv"},
	}, s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // after a failure
		p.Signal(unix.SIGKILL)
		if text, err := os.ReadFile(filepath.Join(data, "left")); err == nil {
			pid, _ := strconv.Atoi(strings.TrimSpace(string(text)))
			if s, err := readStatus(pid); err == nil && s.parent == os.Getpid() {
				unix.Kill(pid, unix.SIGKILL)
			}
		}
	})
	return p
}

// left returns what was left behind, by a file that is written then.
func left(t *testing.T, data, file string) int {
	t.Helper()
	for end := time.Now().Add(60 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if _, err := os.Stat(filepath.Join(data, file)); err != nil {
			continue
		}
		text, err := os.ReadFile(filepath.Join(data, "left"))
		if err != nil {
			t.Fatal(err)
		}
		pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
		if err != nil {
			t.Fatal(err)
		}
		return pid
	}
	t.Fatal("it left nothing behind")
	return 0
}

// lives reports whether a process has not ended.
func lives(pid int) bool {
	s, err := readStatus(pid)
	return err == nil && !s.ended
}

// TestOrphansEndWithoutGroups starts a program that leaves something behind, on
// a host where no cgroup holds that, beside other children of ours.
func TestOrphansEndWithoutGroups(t *testing.T) {
	s := withoutGroups(t)
	other := exec.Command("sleep", "1000")
	other.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { other.Process.Kill(); other.Wait() }()
	data := reachable(t)
	p := leave(t, s, own(), data)
	if exit, err := p.Wait(); err != nil || exit.Status.ExitStatus() != 0 {
		t.Fatalf("%v, status %#x", err, exit.Status)
	}
	if pid := left(t, data, "left"); lives(pid) {
		t.Errorf("process %d goes on when the program has ended", pid)
	}
	if !lives(other.Process.Pid) {
		t.Error("a child of ours that no sandbox had was ended")
	}
	if err := unix.Waitid(unix.P_ALL, 0, nil, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil); errors.Is(err, unix.ECHILD) {
		t.Error("somebody took a child of ours")
	}
	var adopts int32
	if _, _, err := unix.Syscall(unix.SYS_PRCTL, unix.PR_GET_CHILD_SUBREAPER, uintptr(unsafe.Pointer(&adopts)), 0); err != 0 || adopts != 0 {
		t.Errorf("what others leave behind becomes ours: %d, %v", adopts, err)
	}
}

// TestOrphansOfWhoStillRuns starts two programs of one account: what one of them
// left behind may be of the other.
func TestOrphansOfWhoStillRuns(t *testing.T) {
	s := withoutGroups(t)
	stays, goes := reachable(t), reachable(t)
	first := leave(t, s, own(), stays, "stay")
	kept := left(t, stays, "ready")
	second := leave(t, s, own(), goes)
	if _, err := second.Wait(); err != nil {
		t.Fatal(err)
	}
	if !lives(kept) || !lives(first.PID()) {
		t.Error("what belongs to a program that runs was ended with another one")
	}
	first.Signal(unix.SIGKILL)
	if _, err := first.Wait(); err != nil {
		t.Fatal(err)
	}
	for _, pid := range []int{kept, left(t, goes, "left")} {
		if lives(pid) {
			t.Errorf("process %d goes on when both have ended", pid)
		}
	}
}
