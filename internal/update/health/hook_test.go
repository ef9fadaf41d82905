package health

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
	"golang.org/x/sys/unix"
)

// sh is a hook that runs a line of shell.
func sh(line string) Hook {
	return Hook{Command: []string{"/bin/sh", "-c", line}, Timeout: 5 * time.Minute}
}

// tree returns a directory with an executable script at each path, and a
// handle of it.
func tree(t *testing.T, scripts map[string]string) *os.Root {
	t.Helper()
	dir := t.TempDir()
	for name, text := range scripts {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	return root
}

// hookError asserts that err is one, of kind Failed.
func hookError(t *testing.T, err error) *HookError {
	t.Helper()
	var he *HookError
	if !errors.As(err, &he) {
		t.Fatalf("%v is no HookError", err)
	}
	if k := failure.KindOf(err); k != failure.Failed {
		t.Errorf("%v is of kind %v", err, k)
	}
	return he
}

// gone waits until the process whose number is in the file has ended.
func gone(t *testing.T, file string) {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if !alive(pid) {
			return
		}
	}
	t.Errorf("process %d lives on", pid)
	_ = unix.Kill(pid, unix.SIGKILL)
}

// alive reports whether the process runs; one that waits to be reaped by
// whoever adopted it does not.
func alive(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, rest, _ := bytes.Cut(stat, []byte(") "))
	return len(rest) > 0 && rest[0] != 'Z' && rest[0] != 'X'
}

func TestHookRunsInACleanPlace(t *testing.T) {
	t.Setenv("LD_PRELOAD", "/nowhere.so")
	t.Setenv("SECRET", "x")
	old := unix.Umask(0o077)
	defer unix.Umask(old)
	// A descriptor that whoever started us forgot to close.
	leak, err := unix.Open("/dev/null", unix.O_RDONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(leak)

	h := sh(`env | sort; umask; cat; ls /proc/$$/fd | tr '\n' ' '; echo; pwd; test -t 0 || echo no-terminal; ( : </dev/tty ) 2>/dev/null || echo no-tty`)
	h.Env = Variables{Name: "platform", Version: "2.4.1", From: "7", To: "8", Tree: "/opt/mobileops", Phase: "after"}.Environ()
	out, err := RunHook(context.Background(), h)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(out.Bytes()), "\n")
	var kept []string
	for _, l := range lines {
		// The shell sets these itself.
		if !strings.HasPrefix(l, "PWD=") && !strings.HasPrefix(l, "_=") && !strings.HasPrefix(l, "SHLVL=") && !strings.HasPrefix(l, "OLDPWD=") {
			kept = append(kept, l)
		}
	}
	want := `HOME=/
LANG=C.UTF-8
MOBILEOPS_UPDATE_FROM=7
MOBILEOPS_UPDATE_NAME=platform
MOBILEOPS_UPDATE_PHASE=after
MOBILEOPS_UPDATE_TO=8
MOBILEOPS_UPDATE_TREE=/opt/mobileops
MOBILEOPS_UPDATE_VERSION=2.4.1
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
0022
0 1 2 
/
no-terminal
no-tty
`
	if got := strings.Join(kept, "\n"); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	if now := unix.Umask(0o077); now != 0o077 {
		t.Errorf("our own umask became %#o", now)
	}
}

func TestHookFails(t *testing.T) {
	root := tree(t, map[string]string{
		"ok":          "#!/bin/sh\necho \"$1 $2\"\n",
		"interpreter": "#!/nowhere/sh\n",
		"none":        "echo no first line\n",
		"plain":       "#!/bin/sh\n",
		"bin/sub":     "#!/bin/sh\npwd\n",
	})
	dir := root.Name()
	if err := os.Chmod(filepath.Join(dir, "plain"), 0o644); err != nil {
		t.Fatal(err)
	}
	outside := filepath.Join(t.TempDir(), "evil")
	if err := os.WriteFile(outside, []byte("#!/bin/sh\necho evil\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	for from, to := range map[string]string{"away": outside, "up": "../" + filepath.Base(filepath.Dir(outside)) + "/evil", "inside": "bin/sub", "dir": filepath.Dir(outside)} {
		if err := os.Symlink(to, filepath.Join(dir, from)); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Mkfifo(filepath.Join(dir, "fifo"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name    string
		command []string
		want    string // in the error; "": it succeeds
		output  string
	}{
		{"runs", []string{"ok", "a b", "$HOME"}, "", "a b $HOME\n"},
		{"runs through a link that stays inside", []string{"inside"}, "", dir + "\n"},
		{"status", []string{"/bin/sh", "-c", "echo one; echo two >&2; exit 3"}, "/bin/sh: exit status 3: one\ntwo", "one\ntwo\n"},
		{"status without a word", []string{"/bin/false"}, "/bin/false: exit status 1", ""},
		{"signal", []string{"/bin/sh", "-c", "echo x; kill -SEGV $$"}, "ended by signal 11 (segmentation fault): x", "x\n"},
		{"not there", []string{"nothing"}, "no such file", ""},
		{"not there, absolute", []string{"/nowhere/x"}, "no such file", ""},
		{"interpreter", []string{"interpreter"}, "interpreter that its first line names", ""},
		{"no first line", []string{"none"}, "begins with #!", ""},
		{"not executable", []string{"plain"}, "is it executable?", ""},
		{"a directory", []string{"bin"}, "not a file", ""},
		{"a FIFO", []string{"fifo"}, "not a file", ""},
		{"link out", []string{"away"}, "escapes", ""},
		{"relative link out", []string{"up"}, "escapes", ""},
		{"beneath a link out", []string{"dir/evil"}, "escapes", ""},
		{"dots", []string{"bin/../../" + filepath.Base(filepath.Dir(outside)) + "/evil"}, "escapes", ""},
		{"no command", nil, "without a command", ""},
	} {
		out, err := RunHook(context.Background(), Hook{Command: tc.command, Beneath: root})
		if tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
			t.Errorf("%s: %v, want %q", tc.name, err, tc.want)
		}
		if got := string(out.Bytes()); got != tc.output {
			t.Errorf("%s: output %q, want %q", tc.name, got, tc.output)
		}
	}
	if _, err := RunHook(context.Background(), Hook{Command: []string{"ok"}}); err == nil || !strings.Contains(err.Error(), "no tree") {
		t.Errorf("without a tree: %v", err)
	}
}

func TestHookTellsStatusAndSignal(t *testing.T) {
	_, err := RunHook(context.Background(), sh("exit 42"))
	if he := hookError(t, err); he.Status != 42 || he.Signal != 0 || he.TimedOut != 0 {
		t.Errorf("%+v", he)
	}
	_, err = RunHook(context.Background(), sh("kill -KILL $$"))
	if he := hookError(t, err); he.Status != -1 || he.Signal != syscall.SIGKILL || he.TimedOut != 0 {
		t.Errorf("%+v", he)
	}
}

// TestHookTimesOut ends commands that take too long, and what they started.
func TestHookTimesOut(t *testing.T) {
	t.Parallel()
	var all sync.WaitGroup // at once, on however few cores: they only wait
	defer all.Wait()
	for name, tc := range map[string]struct {
		line  string
		last  string
		grace time.Duration // in which a busy machine cleans up, unless nothing does
	}{
		"sleeps":                 {"echo begin; echo $$ >pid; sleep 1000", "begin", time.Minute},
		"ends by itself":         {"trap 'echo cleaned up; exit 0' TERM; echo $$ >pid; while :; do sleep 0.1; done", "cleaned up", time.Minute},
		"ignores SIGTERM":        {"trap '' TERM; echo $$ >pid; while :; do sleep 1000; done", "", 300 * time.Millisecond},
		"stops itself":           {"echo $$ >pid; kill -STOP $$; sleep 1000", "", time.Minute},
		"grandchild has pipe":    {"(trap '' TERM; sleep 1000) & echo $! >pid; sleep 1000", "", time.Minute},
		"grandchild ignores all": {"(trap '' TERM HUP INT; while :; do sleep 1000; done) & echo $! >pid; wait", "", time.Minute},
	} {
		all.Go(func() {
			t.Run(name, func(t *testing.T) {
				dir := t.TempDir()
				h := sh(tc.line)
				h.Dir, h.Timeout, h.Grace = dir, 10*time.Second, tc.grace // in which a busy machine starts a shell
				out, err := RunHook(context.Background(), h)
				if he := hookError(t, err); he.TimedOut < h.Timeout {
					t.Errorf("%+v", he)
				}
				if !strings.Contains(err.Error(), "took longer than") {
					t.Error(err)
				}
				if !strings.Contains(string(out.Bytes()), tc.last) {
					t.Errorf("output %q has no %q", out.Bytes(), tc.last)
				}
				gone(t, filepath.Join(dir, "pid"))
			})
		})
	}
}

// TestHookLeavesNothingRunning is about processes that outlive the command.
func TestHookLeavesNothingRunning(t *testing.T) {
	dir := t.TempDir()
	for name, line := range map[string]string{
		"holds the pipe": "sleep 1000 & echo $! >pid",
		"silent":         "sleep 1000 >/dev/null 2>&1 </dev/null & echo $! >pid",
		"ignores":        "(trap '' TERM HUP; exec sleep 1000) & echo $! >pid",
	} {
		h := sh(line)
		h.Dir = dir
		if out, err := RunHook(context.Background(), h); err != nil || out.Elapsed > 4*time.Minute {
			t.Errorf("%s: %v after %v", name, err, out.Elapsed)
		}
		gone(t, filepath.Join(dir, "pid"))
	}

	// What comes a little later than the end of the command is still read.
	h := sh("(sleep 0.05; echo late) &")
	h.drain = time.Minute
	out, err := RunHook(context.Background(), h)
	if err != nil || string(out.Bytes()) != "late\n" {
		t.Errorf("%q, %v", out.Bytes(), err)
	}
}

// TestHookDoesNotFollowSessions shows what is documented: a daemon lives on,
// and neither holds up the hook nor breaks it.
func TestHookDoesNotFollowSessions(t *testing.T) {
	dir := t.TempDir()
	h := sh("setsid sh -c 'echo $$ >pid.new; mv pid.new pid; exec sleep 1000' & while ! test -e pid; do sleep 0.05; done; echo started")
	h.Dir = dir
	out, err := RunHook(context.Background(), h)
	if err != nil || string(out.Bytes()) != "started\n" {
		t.Fatalf("%q, %v", out.Bytes(), err)
	}
	data, err := os.ReadFile(filepath.Join(dir, "pid"))
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil {
		t.Fatal(err)
	}
	if !alive(pid) {
		t.Error("the daemon was ended")
	}
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		t.Error(err)
	}
	gone(t, filepath.Join(dir, "pid"))
}

func TestHookIsCancelled(t *testing.T) {
	dir := t.TempDir()
	ctx, cancel := context.WithCancel(context.Background())
	h := sh("sh -c 'trap \"\" TERM; echo $$ >pid.new; mv pid.new pid; sleep 1000' & sleep 1000")
	h.Dir, h.Grace = dir, 300*time.Millisecond
	go func() {
		for {
			if _, err := os.Stat(filepath.Join(dir, "pid")); err == nil {
				cancel()
				return
			}
			time.Sleep(5 * time.Millisecond)
		}
	}()
	_, err := RunHook(ctx, h)
	if !errors.Is(err, context.Canceled) || failure.KindOf(err) != failure.Interrupted {
		t.Errorf("%v, kind %v", err, failure.KindOf(err))
	}
	gone(t, filepath.Join(dir, "pid"))
	if _, err := RunHook(ctx, sh("touch "+filepath.Join(dir, "ran"))); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "ran")); err == nil {
		t.Error("a hook was started after the cancellation")
	}
}

func TestHookFloods(t *testing.T) {
	out, err := RunHook(context.Background(), sh("echo first; head -c 20000000 /dev/zero | tr '\\0' x; echo; echo last; exit 1"))
	if he := hookError(t, err); he.Last != strings.Repeat("x", lastBytes-5)+"\nlast" {
		t.Errorf("last lines %q", he.Last)
	}
	if len(out.Head) != keep || len(out.Tail) != keep || out.Omitted != 20000000+6+6-2*keep {
		t.Errorf("%d + %d + %d bytes", len(out.Head), out.Omitted, len(out.Tail))
	}
	all := string(out.Bytes())
	if !strings.HasPrefix(all, "first\nxx") || !strings.HasSuffix(all, "xx\nlast\n") || !strings.Contains(all, "bytes left out]") {
		t.Errorf("output %.40q … %.40q", all, all[len(all)-40:])
	}
	// A command that floods for ever is ended as any other.
	h := sh("yes")
	h.Timeout, h.Grace = 200*time.Millisecond, 200*time.Millisecond
	if _, err := RunHook(context.Background(), h); hookError(t, err).TimedOut == 0 {
		t.Error(err)
	}
}

func TestCaptureKeepsBothEnds(t *testing.T) {
	for _, n := range []int{0, 1, keep - 1, keep, keep + 1, 2*keep - 1, 2 * keep, 2*keep + 1, 3*keep + 7, 200_000} {
		data := make([]byte, n)
		for i := range data {
			data[i] = byte(i * 7 / 5)
		}
		o := capture(bytes.NewReader(data))
		if n <= 2*keep && (o.Omitted != 0 || !bytes.Equal(o.Bytes(), data)) {
			t.Errorf("%d bytes became %d", n, len(o.Bytes()))
		}
		if n > 2*keep && (!bytes.Equal(o.Head, data[:keep]) || !bytes.Equal(o.Tail, data[n-keep:]) || o.Omitted != int64(n-2*keep)) {
			t.Errorf("%d bytes: %d + %d + %d, or others", n, len(o.Head), o.Omitted, len(o.Tail))
		}
	}
}

func TestHookRunsAsAnotherUser(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("not root: nobody else to run as")
	}
	h := sh("id -u; id -g; id -G")
	h.Credential = &syscall.Credential{Uid: 65534, Gid: 65534}
	out, err := RunHook(context.Background(), h)
	if err != nil || string(out.Bytes()) != "65534\n65534\n65534\n" {
		t.Errorf("%q, %v", out.Bytes(), err)
	}
}

// TestHookStaysInItsGeneration resolves the command once: a switch of the link
// that leads to the tree does not reach into a hook that runs.
func TestHookStaysInItsGeneration(t *testing.T) {
	store := t.TempDir()
	for _, g := range []string{"1", "2"} {
		if err := os.Mkdir(filepath.Join(store, g), 0o755); err != nil {
			t.Fatal(err)
		}
		text := "#!/bin/sh\necho $0\npwd -P\n"
		if err := os.WriteFile(filepath.Join(store, g, "run"), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	current := filepath.Join(store, "current")
	if err := os.Symlink("1", current); err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenRoot(current)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	if err := errors.Join(os.Remove(current), os.Symlink("2", current)); err != nil {
		t.Fatal(err)
	}
	out, err := RunHook(context.Background(), Hook{Command: []string{"run"}, Beneath: root})
	if want := filepath.Join(store, "1", "run") + "\n" + filepath.Join(store, "1") + "\n"; err != nil || string(out.Bytes()) != want {
		t.Errorf("%q, %v; want %q", out.Bytes(), err, want)
	}
}

// TestStartedIsTold: whoever asks learns the process group while it runs, of a hook
// and of each attempt of a check.
func TestStartedIsTold(t *testing.T) {
	var groups []int
	started := func(pid int) {
		if group, err := syscall.Getpgid(pid); err != nil || group != pid {
			t.Errorf("process %d is in group %d: %v", pid, group, err)
		}
		groups = append(groups, pid)
	}
	if _, err := RunHook(t.Context(), Hook{Command: []string{"/bin/true"}, Started: started}); err != nil || len(groups) != 1 {
		t.Errorf("%v, %v", groups, err)
	}
	if _, err := RunHook(t.Context(), Hook{Command: []string{"/no/such/program"}, Started: started}); err == nil || len(groups) != 1 {
		t.Errorf("of what did not start: %v, %v", groups, err)
	}
	// It passes in the end: an attempt that meets the deadline may not come to start.
	third := "cd " + t.TempDir() + "; echo x >>tries; test $(wc -l <tries) -ge 3"
	v, err := Wait(t.Context(), fast(Check{Command: []string{"/bin/sh", "-c", third}}), Env{Started: started}, nil)
	if err != nil || v.Attempts < 3 || len(groups) != 1+v.Attempts {
		t.Errorf("%d attempts, told of %v: %v", v.Attempts, groups, err)
	}
}
