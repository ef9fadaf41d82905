package sandbox

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
	"golang.org/x/sys/unix"
)

// run runs a command in a sandbox, and returns what it wrote.
func run(t *testing.T, c Command, p Policy) (Exit, string) {
	t.Helper()
	return runWith(t, Detect(), c, p)
}

// runWith is run on a host that has no more than s.
func runWith(t *testing.T, s Support, c Command, p Policy) (Exit, string) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	c.Stdout, c.Stderr = w, w
	if os.Geteuid() == 0 && p.Account != nil && p.Data != "" {
		if err := os.Chown(p.Data, int(p.Account.UID), int(p.Account.GID)); err != nil {
			t.Fatal(err)
		}
	}
	proc, err := start(c, p, s)
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	out := make(chan string)
	go func() { b, _ := io.ReadAll(r); out <- string(b) }()
	limit := time.AfterFunc(5*time.Minute, func() { proc.Signal(unix.SIGKILL) })
	defer limit.Stop()
	e, err := proc.Wait()
	if err != nil {
		t.Fatal(err)
	}
	return e, <-out
}

// own is an account for a program, where there can be one.
func own() *Account {
	if os.Geteuid() != 0 {
		return nil
	}
	return &Account{62998, 62998}
}

// needsLayers skips where the kernel lacks what these tests are about.
func needsLayers(t *testing.T) {
	t.Helper()
	if s := Detect(); s.Landlock < 3 || !s.Seccomp || !s.Held {
		t.Skipf("NOT RUN: this host has %+v", s)
	}
}

// write makes a file that everybody can read.
func write(t *testing.T, path, content string, mode os.FileMode) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
	return path
}

// reachable is a directory that everybody reaches.
func reachable(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "sandbox")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestWhatIsAllowed runs scripts of several interpreters, which do everything
// that their policy lets them.
func TestWhatIsAllowed(t *testing.T) {
	needsLayers(t)
	dir := reachable(t)
	config := write(t, filepath.Join(dir, "config"), "read me\n", 0o644)
	for name, head := range map[string]string{"sh": "#!/bin/sh", "bash through env": "#!/usr/bin/env bash"} {
		t.Run(name, func(t *testing.T) {
			script := write(t, filepath.Join(dir, "script"), head+`
set -e
cat `+config+`
pwd
echo kept >file; mkdir -p sub/deep; mv file sub/deep/moved; cat sub/deep/moved
echo to null >/dev/null
head -c 4 /dev/urandom | wc -c
(exit 3) || echo a child exited with $?
echo "$1 $2 $GREETING"
`, 0o755)
			data := reachable(t)
			exit, out := run(t, Command{Program: script, Args: []string{"one", "two three"}, Env: []string{"PATH=/usr/bin:/bin", "GREETING=hello"}}, Policy{
				Read: []string{config, "/nonexistent"}, Exec: []string{"/bin/cat", "/usr/bin/mv", "/usr/bin/mkdir", "/usr/bin/head", "/usr/bin/wc", "/nonexistent"},
				Data: data, Account: own(), Limits: Limits{Memory: 64 << 20, CPU: 10 * time.Second, Tasks: 30, Files: 64, FileBytes: 1 << 20},
			})
			want := "read me\n" + data + "\nkept\n4\na child exited with 3\none two three hello\n"
			if out != want || !exit.Status.Exited() || exit.Status.ExitStatus() != 0 {
				t.Errorf("%q, status %#x; want %q", out, exit.Status, want)
			}
			if os.Geteuid() == 0 {
				info, err := os.Stat(filepath.Join(data, "sub/deep/moved"))
				if err != nil || info.Sys().(*syscall.Stat_t).Uid != own().UID || info.Mode().Perm() != 0o600 {
					t.Errorf("%v, %v", info, err)
				}
			}
		})
	}
}

// TestReadAny reads a file of root that is listed, which its account may not.
func TestReadAny(t *testing.T) {
	needsLayers(t)
	if os.Geteuid() != 0 {
		t.Skip("NOT RUN: only root has files that others cannot read")
	}
	dir := reachable(t)
	secret, other := write(t, filepath.Join(dir, "secret"), "kept from others\n", 0o600), write(t, filepath.Join(dir, "other"), "unlisted\n", 0o600)
	for _, any := range []bool{false, true} {
		_, out := run(t, Command{Program: "/bin/sh", Args: []string{"-c", "read x <" + secret + " && echo $x; read y <" + other + " && echo $y; exit 0"}},
			Policy{Read: []string{secret}, Account: own(), ReadAny: any})
		if strings.Contains(out, "kept from others") != any || strings.Contains(out, "unlisted") {
			t.Errorf("with ReadAny %t: %q", any, out)
		}
	}
}

// TestPassedSocket shows that a connection which was handed over can be used.
func TestPassedSocket(t *testing.T) {
	needsLayers(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	passed, err := conn.(*net.TCPConn).File()
	conn.Close()
	if err != nil {
		t.Fatal(err)
	}
	defer passed.Close()
	peer, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()
	if _, err := peer.Write([]byte("ping\n")); err != nil {
		t.Fatal(err)
	}
	unix.SetNonblock(int(passed.Fd()), false)
	_, out := run(t, Command{Program: "/bin/sh", Args: []string{"-c", "read line <&3; echo got $line; echo pong >&3"}, Extra: []*os.File{passed}}, Policy{Account: own()})
	if out != "got ping\n" {
		t.Errorf("%q", out)
	}
	peer.SetReadDeadline(time.Now().Add(time.Minute))
	buf := make([]byte, 16)
	if n, err := peer.Read(buf); err != nil || string(buf[:n]) != "pong\n" {
		t.Errorf("%q, %v", buf[:n], err)
	}
}

// TestNothingIsInherited looks at descriptors, environment and signals.
func TestNothingIsInherited(t *testing.T) {
	needsLayers(t)
	leaked, err := unix.Open("/etc/passwd", unix.O_RDONLY, 0) // without O_CLOEXEC
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(leaked)
	t.Setenv("SECRET", "token")
	_, out := run(t, Command{Program: "/bin/sh", Args: []string{"-c", fmt.Sprintf("read x <&%d && echo leaked; echo secret=$SECRET; umask; id -u", leaked)}},
		Policy{Account: own(), Exec: []string{"/usr/bin/id"}})
	uid := os.Geteuid()
	if own() != nil {
		uid = int(own().UID)
	}
	if strings.Contains(out, "leaked\n") || !strings.Contains(out, "secret=\n0077\n"+fmt.Sprint(uid)+"\n") {
		t.Errorf("%q", out)
	}
}

// TestLeftBehind shows that what a program leaves running ends with it: by its
// process group, and by its cgroup when it left the group.
func TestLeftBehind(t *testing.T) {
	needsLayers(t)
	for name, how := range map[string]string{"in the group": "sleep 1000 & echo $!", "in a session of its own": "setsid sleep 1000 & echo $!"} {
		t.Run(name, func(t *testing.T) {
			if strings.Contains(how, "setsid") && !Detect().Tasks {
				t.Skip("NOT RUN: no pids cgroup can be made here")
			}
			exit, out := run(t, Command{Program: "/bin/sh", Args: []string{"-c", how + "; while ! test -e started; do test -d /proc/x || break; done"}, Env: []string{"PATH=/usr/bin:/bin"}, Group: true},
				Policy{Account: own(), Exec: []string{"/usr/bin/sleep", "/usr/bin/setsid"}, Limits: Limits{Tasks: 20}})
			var pid int
			if _, err := fmt.Sscan(out, &pid); err != nil || !exit.Status.Exited() {
				t.Fatalf("%q, %v", out, exit.Status)
			}
			for end := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
				stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
				if err != nil || strings.Contains(string(stat), ") Z ") {
					break
				}
				if time.Now().After(end) {
					t.Fatalf("still there: %s", stat)
				}
			}
		})
	}
}

// TestSignal stops a program, also when it asks to be traced.
func TestSignal(t *testing.T) {
	needsLayers(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	proc, err := Start(Command{Program: "/bin/sh", Args: []string{"-c", "trap 'echo ended; exit 4' TERM; echo ready; while :; do :; done"}, Stdout: w, Group: true}, Policy{Account: own()})
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 64)
	if n, err := r.Read(buf); err != nil || string(buf[:n]) != "ready\n" {
		t.Fatalf("%q, %v", buf[:n], err)
	}
	if err := proc.Signal(unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	e, err := proc.Wait()
	if err != nil || e.Status.ExitStatus() != 4 {
		t.Errorf("%v, %v", e.Status, err)
	}
	if err := proc.Signal(unix.SIGTERM); !errors.Is(err, os.ErrProcessDone) {
		t.Error(err)
	}
}

// TestNotStarted goes through programs that cannot be run.
func TestNotStarted(t *testing.T) {
	needsLayers(t)
	dir := reachable(t)
	for name, c := range map[string]struct {
		program, says string
	}{
		"not there":            {filepath.Join(dir, "none"), "no such file"},
		"a directory":          {dir, "invalid argument"},
		"not executable":       {write(t, filepath.Join(dir, "plain"), "#!/bin/sh\n", 0o644), "permission denied"},
		"no format":            {write(t, filepath.Join(dir, "text"), "echo hi\n", 0o755), "a script begins with #!"},
		"no such interpreter":  {write(t, filepath.Join(dir, "lost"), "#!/no/such\n", 0o755), "no such file"},
		"its own interpreter":  {write(t, filepath.Join(dir, "loop"), "#!"+filepath.Join(dir, "loop")+"\n", 0o755), "interpreters of interpreters"},
		"a linker of its own":  {write(t, filepath.Join(dir, "elf"), "\x7fELF\x02\x01", 0o755), "start"},
		"an empty file":        {write(t, filepath.Join(dir, "empty"), "", 0o755), "a script begins with #!"},
		"a relative path":      {"./x", "no such file"},
		"a FIFO is not opened": {fifo(t, filepath.Join(dir, "fifo")), "invalid argument"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Start(Command{Program: c.program}, Policy{Account: own(), Limits: Limits{Tasks: 5, Memory: 1 << 30}})
			if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%v, want %q", err, c.says)
			}
		})
	}
	if left, _ := filepath.Glob("/sys/fs/cgroup/*/*mobileops-*-" + fmt.Sprint(os.Getpid()) + "-*"); len(left) > 0 {
		t.Errorf("cgroups left: %q", left)
	}
}

func fifo(t *testing.T, path string) string {
	t.Helper()
	if err := unix.Mkfifo(path, 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestMissingLayers shows that nothing runs with less than it should, unless
// somebody accepted that.
func TestMissingLayers(t *testing.T) {
	s := Support{Landlock: 0, Seccomp: false, Held: false}
	p := &Policy{Limits: Limits{Memory: 1, Tasks: 1}}
	var layers []string
	for _, g := range s.missing(p) {
		layers = append(layers, string(g.Layer))
	}
	if got := strings.Join(layers, " "); got != "landlock seccomp rlimits" {
		t.Error(got)
	}
	p.Without = []Layer{Landlock, Seccomp, Rlimits}
	if g := s.missing(p); len(g) > 0 {
		t.Error(g)
	}
	if failure.KindOf(failure.Errorf(failure.NotReady, "x")) != failure.NotReady {
		t.Error("kinds")
	}
	if g := (Support{Landlock: 7, Seccomp: true, Held: true, Memory: true, Tasks: true}).Gaps(p); len(g) > 0 {
		t.Error(g)
	}
}

// TestGaps shows what is told of hosts that lack something.
func TestGaps(t *testing.T) {
	for name, c := range map[string]struct {
		support Support
		account *Account
		want    string
	}{
		"before Linux 6.12, as root":         {Support{Root: true, Landlock: 4, Tasks: true, resource: true}, nil, "signals account"},
		"before Linux 6.12, with an account": {Support{Root: true, Landlock: 4, Tasks: true, resource: true}, &Account{1, 1}, ""},
		"before Linux 6.12, in a container":  {Support{Root: true, Landlock: 4, Tasks: true}, &Account{1, 1}, "signals"},
		"without cgroups":                    {Support{Root: true, Landlock: 6}, &Account{1, 1}, "end"},
	} {
		c.support.Seccomp, c.support.Held = true, true
		var permissions []string
		for _, g := range c.support.Gaps(&Policy{Account: c.account}) {
			permissions = append(permissions, g.Permission)
		}
		if got := strings.Join(permissions, " "); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

// BenchmarkStart compares a call in a sandbox with one that is not:
// go test -bench Start ./internal/plugin/sandbox
func BenchmarkStart(b *testing.B) {
	b.Run("plain", func(b *testing.B) {
		for b.Loop() {
			if err := exec.Command("/bin/true").Run(); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("sandbox", func(b *testing.B) {
		for b.Loop() {
			p, err := Start(Command{Program: "/bin/true"}, Policy{Account: own(), Limits: Limits{Memory: 256 << 20, CPU: time.Minute, Tasks: 64, Files: 256, FileBytes: 1 << 30}})
			if err != nil {
				b.Fatal(err)
			}
			if e, err := p.Wait(); err != nil || e.Status != 0 {
				b.Fatal(e, err)
			}
		}
	})
}
