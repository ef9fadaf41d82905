package lab

import (
	"bytes"
	"context"
	"errors"
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

// enter makes the mount namespace of a command: /sys shows the interfaces of
// the host beside the control groups of the machine, and what is private to
// the host lies over what the machine has. $1 is how many pairs of source and
// place follow.
const enter = `set -e
exec 9</sys/fs/cgroup
mount -t sysfs sysfs /sys
mount --no-canonicalize --rbind /proc/self/fd/9 /sys/fs/cgroup
exec 9<&-
n=$1; shift
while [ "$n" -gt 0 ]; do mount --bind "$1" "$2"; shift 2; n=$((n-1)); done
exec "$@"`

// Command prepares a program to run in the host: in its network namespace, in
// a mount namespace of its own, and with a state directory, a log directory
// and a runtime directory of mobileops that are the host's own. The process
// keeps its id through all of this.
//
// The command descends from the process of the test. That one holds no
// connection with a server of Serve any more when Command returns, as a daemon
// does by which somebody has logged in.
func (h *Host) Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	for end := time.Now().Add(patience); h.visitors.Load() > 0 && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	line := []string{"--net=" + h.spot.path(), "unshare", "--mount", "sh", "-c", enter, "sh", strconv.Itoa(len(h.private))}
	for _, p := range h.private {
		line = append(line, p[0], p[1])
	}
	cmd := exec.CommandContext(ctx, "nsenter", append(append(line, name), args...)...)
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH")}, h.env...)
	cmd.Dir = h.dir
	// A daemon that a command leaves behind may hold its output open.
	cmd.WaitDelay = 2 * time.Second
	return cmd
}

// Setenv sets an environment variable for commands that are prepared later.
func (h *Host) Setenv(name, value string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.env = append(h.env, name+"="+value)
}

// Private gives the host a copy of its own of a file or directory of the
// machine, "/etc/resolv.conf", in commands that are prepared later. It returns
// where the copy is. What does not exist on the machine cannot be private.
func (h *Host) Private(path string) string {
	h.lab.t.Helper()
	copied := h.mine(path)
	h.lab.must(os.MkdirAll(filepath.Dir(copied), 0o755))
	if out, err := exec.Command("cp", "-a", path, copied).CombinedOutput(); err != nil {
		h.lab.t.Fatalf("lab: %v: %s", err, out)
	}
	return copied
}

// Empty is Private with an empty directory instead of a copy: "/run".
func (h *Host) Empty(path string) string {
	h.lab.t.Helper()
	dir := h.mine(path)
	h.lab.must(os.MkdirAll(dir, 0o755))
	return dir
}

func (h *Host) mine(path string) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	place := filepath.Join(h.dir, "private", path)
	h.private = append(h.private, [2]string{place, path})
	return place
}

// Result is how a command ended.
type Result struct {
	Status int // exit status; 128 and the number of the signal that ended it
	Stdout string
	Stderr string

	line string
}

// Run runs a program in the host, a minute at most.
func (h *Host) Run(name string, args ...string) Result {
	h.lab.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var stdout, stderr bytes.Buffer
	cmd := h.Command(ctx, name, args...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) && !errors.Is(err, exec.ErrWaitDelay) {
		h.lab.t.Fatalf("lab: %s: %s: %v", h.Name, name, err)
	}
	r := Result{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String(), strings.Join(append([]string{filepath.Base(name)}, args...), " ")}
	if ws := cmd.ProcessState.Sys().(syscall.WaitStatus); ws.Signaled() {
		r.Status = 128 + int(ws.Signal())
	}
	return r
}

// Is ends the test unless the command ended with the status.
func (r Result) Is(t testing.TB, status int) Result {
	t.Helper()
	if r.Status != status {
		t.Fatalf("%s: status %d, want %d\nstdout: %s\nstderr: %s", r.line, r.Status, status, r.Stdout, r.Stderr)
	}
	return r
}

// Mobileops runs mobileops in the host. TestMain of the package must call Main.
func (h *Host) Mobileops(args ...string) Result {
	h.lab.t.Helper()
	return h.Run(Binary(h.lab.t), args...)
}

// Binary is mobileops, built from this module when it is first asked for. A
// short run skips the test that asks: it is that of the race detector, which
// does not look into programs that a test starts.
func Binary(t testing.TB) string {
	t.Helper()
	if testing.Short() {
		t.Skip("-short: what mobileops does as a program of its own")
	}
	path, err := build()
	if err != nil {
		t.Fatalf("lab: %v", err)
	}
	return path
}

// built is where Main wants the binary; "" without Main.
var built string

var build = sync.OnceValues(func() (string, error) {
	if built == "" {
		return "", errors.New("TestMain of the package does not call lab.Main, which removes the binary in the end")
	}
	path := filepath.Join(built, "mobileops")
	cmd := exec.Command("go", "build", "-o", path, "github.com/mobileops/mobileops/cmd/mobileops")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building mobileops: %w: %s", err, out)
	}
	return path, nil
})

// Main runs the tests of a package that runs mobileops: TestMain calls it and
// nothing else. Binaries of tests that died are removed.
func Main(m *testing.M) {
	prefix := filepath.Join(os.TempDir(), "mobileops-lab-")
	old, _ := filepath.Glob(prefix + "*")
	for _, dir := range old {
		if pid, err := strconv.Atoi(strings.TrimPrefix(dir, prefix)); err == nil && started(pid) == "" {
			os.RemoveAll(dir)
		}
	}
	built = prefix + strconv.Itoa(os.Getpid())
	os.RemoveAll(built) // of one that died and had this number
	if err := os.Mkdir(built, 0o755); err != nil {
		fmt.Fprintln(os.Stderr, "lab:", err)
		os.Exit(1)
	}
	status := m.Run()
	os.RemoveAll(built)
	os.Exit(status)
}
