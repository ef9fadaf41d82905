package update_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// inNamespace says whether this is a process that may mount what it likes. When
// it is not, the test is run once more in one, and is over with what that says.
func inNamespace(t *testing.T) bool {
	t.Helper()
	if os.Getenv("UPDATE_TEST_MOUNTS") == t.Name() {
		return true
	}
	if os.Geteuid() != 0 {
		t.Skip("NOT RUN: only root can mount the small disks that this test needs")
	}
	args := []string{"-test.run=^" + t.Name() + "$", "-test.v=" + fmt.Sprint(testing.Verbose())}
	if testing.Short() {
		args = append(args, "-test.short")
	}
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), "UPDATE_TEST_MOUNTS="+t.Name())
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS} // which makes all mounts private
	out, err := cmd.CombinedOutput()
	switch {
	case err != nil:
		t.Fatalf("%v\n%s", err, out)
	case strings.Contains(string(out), "NOT RUN"):
		t.Skip(string(out))
	case testing.Verbose():
		t.Logf("%s", out)
	}
	return false
}

func mount(t testing.TB, what, at, kind, options string, flags uintptr) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(at, 0o755), unix.Mount(what, at, kind, flags, options)); err != nil {
		t.Fatalf("mount -t %s -o %q: %v", kind, options, err)
	}
	t.Cleanup(func() { unix.Unmount(at, unix.MNT_DETACH) })
}

// onDisk moves a site to a disk of its own.
func (s *site) onDisk(t testing.TB, options string) {
	t.Helper()
	disk := filepath.Join(s.dir, "disk")
	mount(t, "none", disk, "tmpfs", options, 0)
	s.moveTo(disk)
}

func (s *site) moveTo(disk string) {
	s.Helper()
	if err := os.CopyFS(disk+"/keys", os.DirFS(s.dir+"/keys")); err != nil {
		s.Fatal(err)
	}
	s.dir = disk
}

// ext4 is a disk in a file, with a filesystem that gives up as real ones do.
type ext4 struct {
	testing.TB
	image, at, device string
}

func newExt4(t testing.TB, size string, options ...string) *ext4 {
	t.Helper()
	for _, tool := range []string{"mkfs.ext4", "mount", "losetup"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("NOT RUN: it needs %s (see make test)", tool)
		}
	}
	dir := t.TempDir()
	d := &ext4{TB: t, image: dir + "/image", at: dir + "/disk"}
	d.run("truncate", "-s", size, d.image)
	d.run("mkfs.ext4", append(append([]string{"-q", "-F"}, options...), d.image)...)
	d.mount()
	t.Cleanup(func() { unix.Unmount(d.at, unix.MNT_DETACH) })
	return d
}

func (d *ext4) run(name string, args ...string) string {
	d.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		d.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
	return strings.TrimSpace(string(out))
}

func (d *ext4) mount() {
	d.Helper()
	if err := os.MkdirAll(d.at, 0o755); err != nil {
		d.Fatal(err)
	}
	d.run("mount", "-t", "ext4", "-o", "loop,errors=remount-ro", d.image, d.at)
	for line := range strings.Lines(d.run("losetup", "-j", d.image)) {
		d.device, _, _ = strings.Cut(line, ":")
	}
}

// fail makes the filesystem believe that it is damaged: it becomes read-only, at
// once and for everybody who has files open.
func (d *ext4) fail() {
	d.Helper()
	at := "/sys/fs/ext4/" + filepath.Base(d.device) + "/trigger_fs_error"
	if err := os.WriteFile(at, []byte("a test"), 0o200); err != nil {
		d.Skipf("NOT RUN: the kernel cannot be told that a filesystem is damaged: %v", err)
	}
}

// again unmounts, repairs and mounts, as an admin does.
func (d *ext4) again() {
	d.Helper()
	d.run("umount", d.at)
	out, err := exec.Command("e2fsck", "-fy", d.image).CombinedOutput()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() > 2 || err != nil && exit == nil {
		d.Fatalf("e2fsck: %v\n%s", err, out)
	}
	d.mount()
}

// fill leaves so many bytes free on a disk, and returns what makes room again.
func fill(t testing.TB, disk string, leave int64) (room func()) {
	t.Helper()
	f, err := os.Create(disk + "/fill")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	if n := int64(st.Bavail)*st.Bsize - leave; n > 0 {
		if err := unix.Fallocate(int(f.Fd()), 0, 0, n); err != nil {
			t.Fatal(err)
		}
	}
	return func() { os.Remove(disk + "/fill") }
}

// exhaust leaves so many inodes.
func exhaust(t testing.TB, disk string, leave int) (room func()) {
	t.Helper()
	dir := disk + "/inodes"
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	n := 0
	for ; ; n++ {
		f, err := os.Create(fmt.Sprintf("%s/%d", dir, n))
		if errors.Is(err, unix.ENOSPC) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	for i := range leave {
		os.Remove(fmt.Sprintf("%s/%d", dir, n-1-i))
	}
	return func() { os.RemoveAll(dir) }
}
