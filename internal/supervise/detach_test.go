package supervise

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
	"golang.org/x/sys/unix"
)

func TestDetach(t *testing.T) {
	for _, log := range []string{"", "daemon.log"} {
		t.Run("log "+log, func(t *testing.T) {
			dir := t.TempDir()
			cmd := supervisorCommand(dir, shellService{"one", "exec sleep 1000", 5000})
			d := Daemon{Path: cmd.Path, Env: cmd.Env, Socket: filepath.Join(dir, "run", "sock"), Timeout: long}
			if log != "" {
				d.Log = filepath.Join(dir, log)
			}
			c, err := Detach(t.Context(), d)
			if err != nil {
				t.Fatal(err)
			}
			p, err := readProc(c.PID)
			if err != nil || p.sid != p.pid {
				t.Errorf("%+v, %v", p, err)
			}
			if cwd, _ := os.Readlink(fmt.Sprintf("/proc/%d/cwd", c.PID)); cwd != "/" {
				t.Errorf("it is in %s", cwd)
			}
			// What it inherited is nothing of ours.
			for _, fd := range []string{"0", "1", "2"} {
				to, _ := os.Readlink(fmt.Sprintf("/proc/%d/fd/%s", c.PID, fd))
				if want := map[bool]string{true: "/dev/null", false: d.Log}[fd == "0"]; want != "" && to != want {
					t.Errorf("descriptor %s is %s", fd, to)
				}
			}
			if _, err := Detach(t.Context(), d); !errors.Is(err, ErrHeld) || !strings.Contains(err.Error(), fmt.Sprint(c.PID)) {
				t.Errorf("a second one: %v", err)
			}
			if err := c.Shutdown(t.Context()); err != nil {
				t.Fatal(err)
			}
			eventually(t, "the daemon is gone", func() bool { return !p.identity().alive() })
		})
	}
}

func TestDetachFails(t *testing.T) {
	dir := t.TempDir()
	d := Daemon{Path: "/bin/sh", Args: []string{"-c", "echo no; echo luck >&2; exit 9"}, Socket: filepath.Join(dir, "sock"), Timeout: long}
	for _, log := range []string{"", filepath.Join(dir, "log")} {
		if log != "" {
			if err := os.WriteFile(log, []byte("of before\n"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		d.Log = log
		if _, err := Detach(t.Context(), d); failure.KindOf(err) != failure.Failed || !strings.HasSuffix(err.Error(), "ended: exit status 9: no; luck") {
			t.Errorf("log %q: %v", log, err)
		}
	}
	d.Log = ""
	pid := filepath.Join(dir, "pid")
	d.Args[1] = "sleep 1000 & echo $! >" + pid + "; echo waiting; exec sleep 1000"
	d.Timeout = 5 * time.Second // in which a shell begins
	_, err := Detach(t.Context(), d)
	if err == nil || !strings.Contains(err.Error(), "did not answer") || !strings.HasSuffix(err.Error(), ": waiting") {
		t.Error(err)
	}
	b, err := os.ReadFile(pid)
	if err != nil {
		t.Fatal(err)
	}
	child, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		t.Fatal(err)
	}
	if p, err := readProc(child); err == nil && !p.dead() {
		t.Error("what it started is left running")
	}
	d.Path = filepath.Join(dir, "absent")
	if _, err := Detach(t.Context(), d); !errors.Is(err, unix.ENOENT) {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Detach(ctx, d); failure.KindOf(err) != failure.Interrupted {
		t.Error(err)
	}
}

// TestDetachedOutput has a daemon print more than is kept.
func TestDetachedOutput(t *testing.T) {
	f, err := Daemon{}.output()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	cmd := exec.Command("/bin/sh", "-c", "yes | head -c 1000000; true")
	cmd.Stdout = f
	if err := cmd.Run(); err != nil {
		t.Error(err)
	}
	if st, err := f.Stat(); err != nil || st.Size() != daemonSpace {
		t.Errorf("%d bytes, %v", st.Size(), err)
	}
	if s := printed(f, 0); !strings.HasPrefix(s, "y; y") || len(s) > 2*daemonSays {
		t.Errorf("%.20q", s)
	}
}
