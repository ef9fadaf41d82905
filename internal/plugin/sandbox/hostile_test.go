//go:build amd64 || arm64

package sandbox

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestMain(m *testing.M) {
	switch os.Getenv("SANDBOX_ROLE") {
	case "shoot":
		shoot()
	case "start among shots":
		startAmongShots()
	case "start and be killed":
		startAndBeKilled()
	}
	if name := os.Getenv("SANDBOX_ESCAPE"); name != "" {
		attempt(name)
	}
	os.Exit(m.Run())
}

// stranger is an account that nobody has.
const stranger = 62999

// newVictims makes what escapes are tried on.
func newVictims(t *testing.T, account uint32) (victims, []*os.File) {
	t.Helper()
	v := victims{dir: openDir(t), passed: 3}
	v.file, v.prog = filepath.Join(v.dir, "file"), filepath.Join(v.dir, "program")
	if err := os.WriteFile(v.prog, []byte("#!/bin/sh\nexit 0\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	v.socket = filepath.Join(v.dir, "socket")
	v.name = fmt.Sprintf("@sandbox-%d-%s", os.Getpid(), filepath.Base(v.dir))
	for _, address := range []string{v.socket, v.name} {
		l, err := net.Listen("unix", address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
	}
	os.Chmod(v.socket, 0o777)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	v.port = l.Addr().(*net.TCPAddr).Port
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	passed, err := conn.(*net.TCPConn).File()
	conn.Close()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { passed.Close() })

	peer := exec.Command("sleep", "1000")
	peer.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if os.Geteuid() == 0 {
		peer.SysProcAttr.Credential = &syscall.Credential{Uid: account, Gid: account}
	}
	if err := peer.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { peer.Process.Kill(); peer.Wait() })
	v.pid = peer.Process.Pid
	return v, []*os.File{passed}
}

// renew puts back what an attempt may have taken away.
func (v *victims) renew(t *testing.T) {
	t.Helper()
	os.Remove(v.file + ".moved")
	os.Remove(v.dir + "/new")
	os.Remove(v.dir + "/made")
	if err := os.WriteFile(v.file, []byte("secret"), 0o666); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(v.file, 0o666); err != nil {
		t.Fatal(err)
	}
}

// openDir is a directory that everybody reaches, and may write to.
func openDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "sandbox")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestEscapes starts a hostile program that tries one thing after another, each
// in a sandbox and then outside of one: what fails there too proves nothing.
func TestEscapes(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(openDir(t), "hostile") // where everybody reaches it
	if data, err := os.ReadFile(self); err != nil || os.WriteFile(program, data, 0o755) != nil {
		t.Fatal("copy the test", err)
	}
	root := os.Geteuid() == 0
	p := Policy{Limits: Limits{Memory: 256 << 20, CPU: time.Second, Tasks: 60, Files: 200, FileBytes: 4 << 20}}
	who := uint32(os.Geteuid())
	if root {
		p.Account, who = &Account{stranger, stranger}, stranger
		p.ReadAny = true // as a plugin has that may read something
	}
	support := Detect()
	v, passed := newVictims(t, who)
	layers := map[Layer]int{}
	if n := len(escapes()); n < 40 {
		t.Fatalf("only %d escapes", n)
	}
	for _, e := range escapes() {
		t.Run(e.name, func(t *testing.T) {
			if !root && e.rootOnly {
				return // it has nothing to lose there
			}
			for _, gap := range support.Gaps(&p) {
				if gap.Layer == e.layer && gap.Layer != Accounts {
					t.Skip("NOT RUN: " + gap.Why)
				}
			}
			env := []string{"SANDBOX_ESCAPE=" + e.name, fmt.Sprintf("SANDBOX_VICTIMS=%s|%s|%s|%d|%d|%d", v.dir, v.socket, v.name, v.port, v.pid, v.passed)}

			v.renew(t)
			p.Data = openDir(t)
			exit, out := run(t, Command{Program: program, Args: []string{"-test.run=^$"}, Env: env, Extra: passed, Group: true}, p)
			errno, known := outcome(out)
			switch {
			case len(e.blocked) == 0 && !exit.Status.Signaled():
				t.Fatalf("it was not killed: %q, %v", out, exit.Status)
			case len(e.blocked) == 0:
			case e.layer == Cgroup && exit.Status.Signaled() && exit.Status.Signal() == syscall.SIGKILL: // out of memory
			case !known || !slices.Contains(e.blocked, error(errno)):
				t.Fatalf("%q (status %#x), %s answers %v", out, exit.Status, e.layer, e.blocked)
			}

			v.renew(t)
			free := freely(t, program, env, passed, root, e)
			if freed, known := outcome(free); !known || len(e.blocked) > 0 && slices.Contains(e.blocked, error(freed)) {
				t.Fatalf("outside of a sandbox: %q: the attempt shows nothing", free)
			}
			if e.layer == Cgroup {
				settle(t, who, v.pid)
			}
			layers[e.layer]++
			t.Logf("%-60s blocked by %s", e.name, e.layer)
		})
	}
	t.Logf("blocked: %v", layers)
}

// settle waits until what an attempt started is gone: the number of processes of
// an account counts those that somebody has yet to reap.
func settle(t *testing.T, account uint32, but int) {
	t.Helper()
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		left := 0
		entries, _ := filepath.Glob("/proc/[0-9]*")
		for _, p := range entries {
			status, err := os.ReadFile(p + "/status") // the directory of a zombie is root's
			if err != nil || !strings.Contains(string(status), fmt.Sprintf("\nUid:\t%d\t", account)) || filepath.Base(p) == fmt.Sprint(but) || filepath.Base(p) == fmt.Sprint(os.Getpid()) {
				continue
			}
			left++
		}
		if left < 10 {
			return
		}
	}
}

// freely tries it outside of a sandbox: with all rights of root, in namespaces
// that end with it.
func freely(t *testing.T, program string, env []string, passed []*os.File, root bool, e escape) string {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cmd := exec.Command(program, "-test.run=^$")
	cmd.Env, cmd.ExtraFiles, cmd.Dir, cmd.Stdout, cmd.Stderr = env, passed, openDir(t), w, w
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if root && strings.HasPrefix(e.name, "m") { // mounts, and the like
		cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWNS
	}
	err = cmd.Start()
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	kill := time.AfterFunc(5*time.Minute, func() { syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) })
	defer kill.Stop()
	cmd.Wait()
	syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // what it left behind
	out, _ := io.ReadAll(r)
	return string(out)
}

// TestEscapesUnprivileged is the same for a caller who is not root: there are no
// accounts, no namespaces, and often no cgroups.
func TestEscapesUnprivileged(t *testing.T) {
	if raceDetector {
		t.Skip("NOT RUN: the race detector takes more memory than the limit that is tried")
	}
	if os.Geteuid() != 0 {
		t.Skip("NOT RUN: these tests run without root already, see TestEscapes")
	}
	dir := openDir(t)
	program := filepath.Join(dir, "tests")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if data, err := os.ReadFile(self); err != nil || os.WriteFile(program, data, 0o755) != nil {
		t.Fatal("copy the test", err)
	}
	cmd := exec.Command(program, "-test.run=^TestEscapes$", "-test.v")
	cmd.Dir, cmd.Env = dir, []string{"TMPDIR=" + dir, "PATH=" + os.Getenv("PATH"), "GOTRACEBACK=all"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Credential: &syscall.Credential{Uid: stranger, Gid: stranger, Groups: []uint32{}}}
	out, err := cmd.CombinedOutput()
	passed := strings.Count(string(out), " blocked by ")
	if err != nil || passed < 40 {
		t.Fatalf("%d escapes blocked, %v:\n%s", passed, err, out)
	}
	t.Logf("%d escapes blocked for a caller who is not root", passed)
}
