package filehash

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// childEnv names what a process that a test starts does instead of the tests.
const childEnv = "FILEHASH_TEST_CHILD"

func TestMain(m *testing.M) {
	if what := os.Getenv(childEnv); what != "" {
		if err := child(what); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func child(what string) error {
	if what == "idle" {
		return idle()
	}
	n, bad := 0, 0
	err := Walk(context.Background(), what, Options{}, func(b *Batch) error {
		for i := range b.Entries {
			n++
			if c := b.Entries[i].Content; c != Hashed && c != NoContent {
				bad++
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	status, err := os.ReadFile("/proc/self/status")
	for l := range strings.Lines(string(status)) {
		if kb, ok := strings.CutPrefix(l, "VmHWM:"); ok {
			fmt.Println(n, bad, strings.Fields(kb)[0])
		}
	}
	return err
}

// idle sets the idle priority while threads keep starting, and says which
// threads are not idle.
func idle() error {
	for range 60 {
		go func() {
			runtime.LockOSThread()
			unix.Nanosleep(&unix.Timespec{Sec: 3}, nil)
		}()
	}
	if err := SetIdlePriority(); err != nil {
		return err
	}
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return err
	}
	for _, t := range tasks {
		tid, err := strconv.Atoi(t.Name())
		if err != nil {
			return err
		}
		class, _, e := unix.Syscall(unix.SYS_IOPRIO_GET, 1, uintptr(tid), 0)
		nice, err := unix.Getpriority(unix.PRIO_PROCESS, tid) // the system call gives 20 minus nice
		if e == unix.ESRCH || err == unix.ESRCH {
			continue
		}
		if e != 0 || err != nil || class>>13 != 3 || nice != 1 {
			return fmt.Errorf("thread %d: I/O class %d, nice %d, %v, %v", tid, class>>13, 20-nice, e, err)
		}
	}
	fmt.Println(len(tasks))
	return nil
}

func TestSetIdlePriority(t *testing.T) {
	for range 5 {
		c := exec.Command("/proc/self/exe")
		c.Env = append(os.Environ(), childEnv+"=idle")
		out, err := c.CombinedOutput()
		if n, _ := strconv.Atoi(strings.TrimSpace(string(out))); err != nil || n < 2 {
			t.Fatalf("%v: %s", err, out)
		}
	}
}

// TestMemory: 200,000 files and a large one in less than 64 MiB.
func TestMemory(t *testing.T) {
	if raceEnabled || testing.Short() {
		t.Skip("NOT RUN: the race detector needs memory of its own; or -short")
	}
	tree, err := os.MkdirTemp("/dev/shm", "filehash-test-")
	if err != nil {
		t.Skipf("NOT RUN: no tmpfs: %v", err)
	}
	t.Cleanup(func() { os.RemoveAll(tree) })
	for i := range 200 {
		dir := filepath.Join(tree, fmt.Sprintf("dir%d", i))
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		for j := range 1000 {
			f, err := unix.Open(fmt.Sprintf("%s/file-with-a-name-%d", dir, j), unix.O_CREAT|unix.O_WRONLY|unix.O_CLOEXEC, 0o644)
			if err != nil {
				t.Fatal(err)
			}
			unix.Close(f)
		}
	}
	put(t, tree+"/large", bytes.Repeat([]byte("x"), 64<<20))
	c := exec.Command("/proc/self/exe")
	c.Env = append(os.Environ(), childEnv+"="+tree)
	out, err := c.CombinedOutput()
	var n, bad, kb int
	if _, serr := fmt.Sscan(string(out), &n, &bad, &kb); err != nil || serr != nil || n != 200201 || bad != 0 || kb > 64<<10 {
		t.Errorf("%v: entries, unread, KiB: %s", err, out)
	}
	t.Logf("%d MiB at most", kb>>10)
}
