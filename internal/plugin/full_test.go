package plugin

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mobileops/mobileops/internal/failure"
)

// fullDisk says that this process has a small disk of its own, and where.
const fullDisk = "MOBILEOPS_TEST_FULL_DISK"

// onSmallDisk runs a test in a process that has its own mounts, and there a
// small disk for temporary files. It returns true in that process.
func onSmallDisk(t *testing.T) bool {
	t.Helper()
	if dir := os.Getenv(fullDisk); dir != "" {
		if err := errors.Join(unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""), unix.Mount("tmpfs", dir, "tmpfs", 0, "size=6m,mode=755")); err != nil {
			t.Fatal(err)
		}
		t.Setenv("TMPDIR", dir)
		return true
	}
	if os.Geteuid() != 0 {
		t.Skip("NOT RUN: it takes root to mount a small disk")
	}
	dir, err := os.MkdirTemp("", "disk")
	if err != nil {
		t.Fatal(err)
	}
	defer os.Remove(dir)
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.count=1", "-test.v")
	cmd.Env = append(os.Environ(), fullDisk+"="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	out, err := cmd.CombinedOutput()
	if errors.Is(err, os.ErrPermission) {
		t.Skip("NOT RUN: it takes namespaces to mount a small disk: ", err)
	}
	t.Logf("%s", out)
	if err != nil {
		t.Fatal(err)
	}
	return false
}

// fill takes all but some bytes of the disk, until its result is called.
func (c *crash) fill(free int64) (release func()) {
	c.Helper()
	path := filepath.Join(c.dir, "filler")
	var st unix.Statfs_t
	if err := unix.Statfs(c.dir, &st); err != nil {
		c.Fatal(err)
	}
	size := int64(st.Bavail)*st.Bsize - free
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		c.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		c.Fatal(err)
	}
	defer f.Close()
	if err := unix.Fallocate(int(f.Fd()), 0, 0, size); err != nil {
		c.Fatal(err)
	}
	return func() {
		if err := os.Remove(path); err != nil {
			c.Fatal(err)
		}
	}
}

// TestFullDisk makes every change with ever more room on the disk, from none on.
// Without enough it says so, and nothing has changed; what is installed runs.
func TestFullDisk(t *testing.T) {
	if !onSmallDisk(t) {
		return
	}
	c := newCrash(t)
	// Something that does not fit into the first page that is free.
	c.write("src/hello-2/data", strings.Repeat("0123456789abcdef", 1<<11), 0o644)
	c.pack("hello", "2.0.0", 2, "", "echo 2.0.0")
	until := time.Now().Add(12 * time.Second)
	for _, change := range []string{"install", "upgrade", "return", "rollback", "disable", "uninstall", "purge"} {
		failed, well := 0, 0
		for free := int64(0); well < 3 && (time.Now().Before(until) || well < 1); free += 4096 {
			what := fmt.Sprintf("%s with %d bytes left", change, free)
			c.reset(change)
			before, err := c.Get(t.Context(), "hello")
			if err != nil && !isNone(err) {
				t.Fatal(err)
			}
			release := c.fill(free)
			err = c.todo[change](t.Context())
			if before != nil && err != nil {
				if after, gerr := c.Get(t.Context(), "hello"); gerr == nil && after.Enabled {
					if status, out, err := c.run("hello"); err != nil || status != 0 || out != after.Version+"\n" {
						t.Errorf("%s: %d, %q, %v", what, status, out, err)
					}
				}
			}
			release()
			switch {
			case err == nil:
				well++
			case !errors.Is(err, unix.ENOSPC) && !strings.Contains(err.Error(), "no space left"):
				t.Errorf("%s: %v", what, err)
			default:
				failed++
			}
			c.check(what)
		}
		t.Logf("%s: failed %d times", change, failed)
		// The others find room in what state.db has free inside.
		if failed == 0 && (change == "install" || change == "upgrade") {
			t.Errorf("%s never failed: the disk was not full", change)
		}
	}
}

func TestUninstallMakesTheRoomThatItNeeds(t *testing.T) {
	if !onSmallDisk(t) {
		return
	}
	c := newCrash(t)
	c.reset("uninstall")
	release := c.fill(0)
	defer release()
	if err := c.todo["uninstall"](t.Context()); err != nil {
		t.Error("on a full disk:", err)
	}
	if x, err := ReadIndex(c.opts.Dir); err != nil || slices.ContainsFunc(x.Plugins, func(p Entry) bool { return p.Name == "hello" }) {
		t.Error("the index still has it:", x, err)
	}
}

// The record is what counts: who reads that the index could not be written must
// not think that nothing has changed.
func TestChangeWithoutItsIndexSaysThatItWasMade(t *testing.T) {
	w := newWorld(t)
	w.install(w.pack("hello", "1.0.0", 1, "", "echo 1.0.0"))
	index := indexPath(w.opts.Dir)
	if err := errors.Join(os.Remove(index), os.MkdirAll(filepath.Join(index, "in the way"), 0o755)); err != nil {
		t.Fatal(err)
	}
	_, err := w.Uninstall(t.Context(), "hello", false)
	if err == nil || !strings.Contains(err.Error(), "the change itself was made") || !strings.Contains(err.Error(), "mobileops plugin list") {
		t.Error(err)
	}
	if _, err := w.Get(t.Context(), "hello"); !isNone(err) {
		t.Error("it is still there:", err)
	}
}

// TestReadOnly has the plugins on a disk that is mounted read-only: they run,
// and changes say what is wrong.
func TestReadOnly(t *testing.T) {
	if !onSmallDisk(t) {
		return
	}
	c := newCrash(t)
	c.do("install")
	dir := c.opts.Dir
	for _, step := range []error{
		unix.Mount(dir, dir, "", unix.MS_BIND, ""),
		unix.Mount("", dir, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""),
	} {
		if step != nil {
			t.Fatal(step)
		}
	}
	if status, out, err := c.run("hello"); err != nil || status != 0 || out != "1.0.0\n" {
		t.Errorf("%d, %q, %v", status, out, err)
	}
	if err := c.todo["upgrade"](t.Context()); !errors.Is(err, unix.EROFS) {
		t.Errorf("upgrade: %v", err)
	}
	if r, err := c.Get(t.Context(), "hello"); err != nil || r.Version != "1.0.0" {
		t.Errorf("%+v, %v", r, err)
	}
	if err := c.todo["uninstall"](t.Context()); !errors.Is(err, unix.EROFS) || failure.KindOf(err) == failure.Untrustworthy {
		t.Errorf("uninstall: %v", err)
	}
	if err := unix.Unmount(dir, 0); err != nil {
		t.Fatal(err)
	}
	c.check("after it was read-only")
}
