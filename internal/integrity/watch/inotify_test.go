package watch

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func withInotify(o *Options) { o.Inotify = true }

func TestInotify(t *testing.T) {
	h := newHost(t)
	w := h.watch(withInotify)
	h.sh(`echo changed >etc/a; sleep 0.1`)
	r := w.file("a", Changed)
	if r.Process != nil {
		t.Errorf("inotify tells no process, but the record does: %+v", r.Process)
	}
	h.sh(`mkdir -p etc/new/deep; echo x >etc/new/deep/x; sleep 0.1`)
	w.file("new/deep/x", Added)
	h.sh(`mv etc/sub etc/sub2; sleep 0.3; echo y >etc/sub2/y; sleep 0.1`)
	w.file("sub/c", Removed)
	w.file("sub2/c", Added)
	w.file("sub2/y", Added)
	h.sh(`mv etc/b etc/b2; chmod 600 etc/sub2/c; rm etc/sub2/y; echo z >etc/skip/z; sleep 0.1`)
	w.file("b2", Moved)
	found := h.awaitFindings("watch-changed a", "watch-added new", "watch-added new/deep", "watch-added new/deep/x", "watch-removed sub", "watch-removed sub/c",
		"watch-added sub2", "watch-added sub2/c", "watch-moved b2")
	if by := found["watch-changed a"].Evidence["by"]; !strings.Contains(by, "inotify") {
		t.Errorf("by %q", by)
	}
	// The watched directory itself goes and comes.
	h.sh(`mv etc gone; mkdir -p etc; echo one >etc/a; sleep 0.3; echo two >etc/again; sleep 0.1`)
	w.file("again", Added)
	if sum := w.end(); sum.Mode != Inotify || len(sum.Incomplete) != 0 {
		t.Errorf("%+v", sum)
	}
}

// TestInotifySaysWhenItsLimitIsReached runs this test program in a user namespace,
// which has limits of its own: that of the machine is for all other tests too.
func TestInotifySaysWhenItsLimitIsReached(t *testing.T) {
	if os.Getenv("WATCH_TEST_LIMIT") != "" {
		limited(t)
		return
	}
	needRoot(t)
	cmd := exec.Command(os.Args[0], "-test.run=^TestInotifySaysWhenItsLimitIsReached$", "-test.v")
	cmd.Env = append(os.Environ(), "WATCH_TEST_LIMIT=1", "TMPDIR="+t.TempDir())
	ids := []syscall.SysProcIDMap{{Size: 1}}
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER | unix.CLONE_NEWNS, UidMappings: ids, GidMappings: ids}
	out, err := cmd.CombinedOutput()
	if ended := new(exec.ExitError); err != nil && !errors.As(err, &ended) {
		t.Skipf("NOT RUN: no user namespace, so the limit of inotify cannot be set: %v", err)
	}
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// limited is TestInotifySaysWhenItsLimitIsReached in its user namespace.
func limited(t *testing.T) {
	h := newHost(t)
	h.sh(`i=0; while [ $i -lt 30 ]; do mkdir etc/d$i; i=$((i+1)); done
		echo 10 >/proc/sys/user/max_inotify_watches
		echo 10 >other/limit; mount --bind other/limit /proc/sys/fs/inotify/max_user_watches`)
	h.take()
	w := h.watch(withInotify)
	sum := w.end()
	if len(sum.Incomplete) != 1 || !strings.Contains(sum.Incomplete[0], "limit of 10 inotify watches") {
		t.Errorf("%q", sum.Incomplete)
	}
}

// TestUnprivileged runs this test program as a user without rights, who gets
// inotify and is told what that means.
func TestUnprivileged(t *testing.T) {
	if dir := os.Getenv("WATCH_TEST_UNPRIVILEGED"); dir != "" {
		unprivileged(t, dir)
		return
	}
	needRoot(t)
	dir, err := os.MkdirTemp("", "mobileops-watch-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if err := os.Chown(dir, 65534, 65534); err != nil {
		t.Fatal(err)
	}
	self, err := os.ReadFile("/proc/self/exe")
	if err == nil {
		err = os.WriteFile(dir+"/test", self, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(dir+"/test", "-test.run=^TestUnprivileged$", "-test.v")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "WATCH_TEST_UNPRIVILEGED="+dir, "TMPDIR="+dir, "HOME="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
