//go:build amd64 || arm64

package sandbox

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// starter runs the tests' program in a role that starts programs, and returns
// it and what it and they print.
func starter(t *testing.T, role string, env ...string) (*exec.Cmd, *os.File) {
	t.Helper()
	needsLayers(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	program := filepath.Join(openDir(t), "tests") // where every account reaches it
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if data, err := os.ReadFile(self); err != nil || os.WriteFile(program, data, 0o755) != nil {
		t.Fatal("copy the test", err)
	}
	cmd := exec.Command(program, "-test.run=^$")
	cmd.Env, cmd.Stdout, cmd.Stderr = append([]string{"SANDBOX_ROLE=" + role}, env...), w, w
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err = cmd.Start()
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	r.SetReadDeadline(time.Now().Add(5 * time.Minute))
	return cmd, r
}

// shoot is a hostile program: it sends SIGKILL to every thread that whoever
// started it may ever have.
func shoot() {
	fmt.Println("shooting")
	for parent := os.Getppid(); ; {
		for thread := parent; thread < parent+500; thread++ {
			unix.Tgkill(parent, thread, unix.SIGKILL)
		}
	}
}

// startAmongShots starts programs of an account that another one of which
// shoots at us, on a kernel whose Landlock knows no signals.
func startAmongShots() {
	s := Detect()
	s.Landlock = min(s.Landlock, 5)
	p := Policy{Account: own(), Limits: Limits{CPU: time.Minute, Tasks: 30, Files: 64}}
	r, w, err := os.Pipe()
	check(err)
	hostile, err := start(Command{Program: os.Args[0], Env: []string{"SANDBOX_ROLE=shoot"}, Stdout: w, Group: true}, p, s)
	check(err)
	_, err = r.Read(make([]byte, 64))
	check(err)
	for range 50 {
		other, err := start(Command{Program: "/bin/true"}, p, s)
		check(err)
		_, err = other.Wait()
		check(err)
	}
	hostile.Signal(unix.SIGKILL)
	hostile.Wait()
	fmt.Println("survived")
	os.Exit(0)
}

func check(err error) {
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}

// TestAmongShots shows that a program cannot end who starts another one of its
// account: no thread of ours becomes that account.
func TestAmongShots(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("NOT RUN: only root starts programs of other accounts")
	}
	if !Detect().resource {
		t.Skip("NOT RUN: without CAP_SYS_RESOURCE a thread has to")
	}
	cmd, r := starter(t, "start among shots")
	out, err := io.ReadAll(r)
	if failed := cmd.Wait(); err != nil || failed != nil || !strings.HasSuffix(string(out), "survived\n") {
		t.Errorf("%q, %v, %v", out, err, failed)
	}
}

// startAndBeKilled starts a program and gets no further than to hold it: the
// cgroup that it is put into is a FIFO which nobody reads.
func startAndBeKilled() {
	s := Detect()
	s.Memory, s.Tasks, s.groups = false, true, hierarchies{tasks: hierarchy{os.Getenv("SANDBOX_GROUPS"), true}}
	group := filepath.Join(s.groups.tasks.dir, fmt.Sprintf("mobileops-sh-%d-1", os.Getpid()))
	check(os.Mkdir(group, 0o700))
	check(unix.Mkfifo(filepath.Join(group, "cgroup.procs"), 0o600))
	_, err := start(Command{Program: "/bin/sh", Args: []string{"-c", "echo it runs"}, Stdout: os.Stdout}, Policy{Account: own(), Limits: Limits{Tasks: 30}}, s)
	check(err)
	os.Exit(0)
}

// TestStarterIsKilled shows that a program which is held does not run without
// limits when who holds it is killed.
func TestStarterIsKilled(t *testing.T) {
	cmd, r := starter(t, "start and be killed", "SANDBOX_GROUPS="+openDir(t))
	for end := time.Now().Add(60 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		// A thread that opens a FIFO waits in the kernel, and its child stands.
		held := false
		for _, pid := range childrenOf(cmd.Process.Pid) {
			stat, _ := os.ReadFile("/proc/" + pid + "/stat")
			held = held || strings.Contains(string(stat), ") t ")
		}
		if held && opening(cmd.Process.Pid) {
			break
		}
		if time.Now().After(end) {
			cmd.Process.Kill()
			t.Fatal("it holds nothing")
		}
	}
	cmd.Process.Kill()
	cmd.Wait()
	if out, err := io.ReadAll(r); err != nil || len(out) > 0 { // until all who could write are gone
		t.Errorf("%q, %v", out, err)
	}
}

func childrenOf(pid int) (list []string) {
	lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, name := range lists {
		text, _ := os.ReadFile(name)
		list = append(list, strings.Fields(string(text))...)
	}
	return list
}

// opening reports whether a thread of a process waits for the other end of a FIFO.
func opening(pid int) bool {
	threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/wchan", pid))
	for _, name := range threads {
		if text, err := os.ReadFile(name); err == nil && strings.Contains(string(text), "wait_for_partner") {
			return true
		}
	}
	return len(threads) == 0
}
