// Package powercut is a disk for tests that forgets what was never flushed: a
// program's promise that something is on the disk is proved by cutting the
// power.
//
//	func TestMain(m *testing.M) { powercut.Enter(); os.Exit(m.Run()) }
//
//	d := powercut.Start(t, powercut.Options{})
//	dir := d.Mount()
//	from := d.Mark("begin")
//	…                                    // a process works below dir
//	d.Unmount()
//	for _, cut := range d.Cuts(from, d.Now(), 60, 1) {
//		t.Run(cut.String(), func(t *testing.T) {
//			left := d.Cut(t, cut).Mount() // the journal is replayed here
//			…                             // what is there?
//		})
//	}
//
// The disk is a loop device whose backing file is served by a process of its
// own over FUSE, so that every request of the filesystem is seen, in the order
// in which it was sent: a write, a range made zero, a flush (REQ_FLUSH comes
// as FUSE_FSYNC; the block layer turns FUA into a write and a flush). They are
// kept in memory as a log. Marks lie in the same log, in order with what is
// written: they say what a program had reported by then.
//
// A cut is a position in that log. What lies before the last flush before it
// is on the disk. Each later write is lost, survives, or survives in part, as
// a Fate decides; a sector is written whole or not at all. That is what a disk
// with a volatile cache may do (SCSI SBC-3 4.15, NVMe 5.27.1.4, Linux
// Documentation/block/writeback_cache_control.rst).
//
// Nothing is left of a test that dies: Enter puts it into a mount namespace of
// its own, which takes the mounts with it; loop devices let go of their files
// with their last user, and the server ends when nobody can use its file any
// more. Until then it serves, so that nobody waits for it in vain. For that the
// server itself is in the namespace of the machine: a process that ends unmounts
// what it was the last to have mounted before it closes its files, and would
// wait for its own answers.
package powercut

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// role is the environment variable by which a process knows what it is for.
const (
	role   = "MOBILEOPS_POWERCUT"
	inside = "inside" // a test in a mount namespace of its own; outside has the descriptor of the machine's
	leaves = "leave"  // the server of a disk, on its way out of that namespace
	serves = "serve"  // the server of a disk

	outside = "MOBILEOPS_POWERCUT_OUTSIDE"
)

// Enter puts the program of the tests into a mount namespace of its own, by
// executing it again in the same process. It is called first in TestMain, and
// returns in the new namespace, or where none can be made: Start says why.
// In a process that Start made, it serves and does not return.
func Enter() {
	switch os.Getenv(role) {
	case leaves:
		fmt.Fprintln(os.Stderr, leave())
		os.Exit(1)
	case serves:
		os.Exit(serve())
	case inside:
		if fd, err := strconv.Atoi(os.Getenv(outside)); err == nil {
			unix.CloseOnExec(fd)
		}
		return
	}
	if os.Geteuid() != 0 {
		return
	}
	fd, err := unix.Open("/proc/self/ns/mnt", unix.O_RDONLY, 0)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	runtime.LockOSThread() // the namespace is the thread's until execve
	defer runtime.UnlockOSThread()
	if unix.Unshare(unix.CLONE_NEWNS) != nil {
		return
	}
	// Slave: what the machine unmounts is not held back by the test.
	if unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, "") != nil {
		return
	}
	_ = again(inside, strconv.Itoa(fd))
}

// again executes this program in this process in another role.
func again(as, fd string) error {
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	for name, value := range map[string]string{role: as, outside: fd} {
		if err := os.Setenv(name, value); err != nil {
			return err
		}
	}
	return syscall.Exec(exe, os.Args, os.Environ())
}

// Options say what kind of disk it is. The zero value is one with ext4.
type Options struct {
	Filesystem string   // "ext4", "xfs" or "btrfs"
	Size       int64    // bytes; 0 is the smallest round size that the filesystem takes
	Sector     int      // bytes that are written whole or not at all: 512 or 4096, which 0 means
	Mkfs       []string // further arguments of mkfs
	Mount      string   // options of mount(8), such as "noauto_da_alloc"
}

// sizes of disks by their filesystem, in bytes. They are sparse.
var sizes = map[string]int64{"ext4": 64 << 20, "xfs": 320 << 20, "btrfs": 160 << 20}

// Device is a disk that remembers the order of what is written to it.
type Device struct {
	t       testing.TB
	options Options
	file    string // the backing file, which the server serves
	place   *place
	base    *os.File // the content before the log
	content *os.File // the content now
	log     *log
	server  *exec.Cmd
	said    lines // what the server complained about

	cutting sync.Mutex
	settled *settled
}

// Start makes a disk with an empty filesystem. It is gone when the test is
// over. The test is skipped where that cannot be done.
func Start(t testing.TB, o Options) *Device {
	t.Helper()
	if o.Filesystem == "" {
		o.Filesystem = "ext4"
	}
	if o.Sector == 0 {
		o.Sector = 4096
	}
	if o.Size == 0 {
		o.Size = sizes[o.Filesystem]
	}
	needs(t, "mkfs."+o.Filesystem)
	made, err := memory("powercut-made", o.Size)
	must(t, err)
	defer made.Close()
	var args []string
	switch o.Filesystem {
	case "ext4":
		args = []string{"-q", "-F", "-b", "4096", "-m", "0", "-J", "size=4", "-E", "nodiscard,lazy_itable_init=0,lazy_journal_init=0"}
	case "xfs":
		args = []string{"-q", "-f", "-K", "-s", "size=" + strconv.Itoa(o.Sector)}
	case "btrfs":
		args = []string{"-q", "-f", "-K"}
	default:
		t.Fatalf("powercut: no filesystem %q", o.Filesystem)
	}
	mkfs := exec.Command("mkfs."+o.Filesystem, append(append(args, o.Mkfs...), "/proc/self/fd/3")...)
	mkfs.ExtraFiles = []*os.File{made}
	if out, err := mkfs.CombinedOutput(); err != nil {
		t.Fatalf("powercut: %s: %v: %s", mkfs, err, out)
	}
	base, err := sparse(made, o.Size)
	must(t, err)
	return start(t, o, base, &place{dir: filepath.Join(t.TempDir(), "mounted")})
}

// needs skips the test where a disk cannot be made.
func needs(t testing.TB, tool string) {
	t.Helper()
	const what = "NOT RUN: what a power cut leaves: "
	if os.Geteuid() != 0 {
		t.Skip(what + "mounting a filesystem needs root")
	}
	if _, err := exec.LookPath(tool); err != nil {
		t.Skipf(what+"%s is not installed (make test installs it)", tool)
	}
	for _, device := range []string{"/dev/fuse", "/dev/loop-control"} {
		if _, err := os.Stat(device); err != nil {
			t.Skip(what + err.Error())
		}
	}
	if os.Getenv(role) != inside {
		t.Skip(what + "no mount namespace can be made here, or TestMain does not call powercut.Enter")
	}
}

// start makes a disk with the content base, which it takes over.
func start(t testing.TB, o Options, base *os.File, at *place) *Device {
	t.Helper()
	d := &Device{t: t, options: o, base: base, place: at}
	dir := t.TempDir()
	t.Cleanup(d.close)
	var err error
	d.content, err = sparse(base, o.Size)
	must(t, err)
	d.log, err = newLog()
	must(t, err)
	d.file = filepath.Join(dir, "disk")
	must(t, os.WriteFile(d.file, nil, 0o600))

	fuse, err := connect(d.file)
	if err != nil {
		t.Skipf("NOT RUN: what a power cut leaves: no FUSE: %v", err)
	}
	defer fuse.Close() // the server is to be the only one who has it
	fd, err := strconv.Atoi(os.Getenv(outside))
	must(t, err)
	namespace, err := os.Open(fmt.Sprintf("/proc/self/fd/%d", fd))
	must(t, err)
	defer namespace.Close()
	exe, err := os.Executable()
	must(t, err)
	server := exec.Command(exe, d.file)
	// The race detector would have it wait a second before it ends.
	server.Env = append(os.Environ(), role+"="+leaves, "GORACE=atexit_sleep_ms=0")
	server.ExtraFiles = []*os.File{d.content, d.log.file, fuse, namespace}
	server.Stderr = &d.said
	// A Ctrl-C is for the test; the server serves until the test is gone.
	server.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	must(t, server.Start())
	d.server = server
	return d
}

// close takes the disk away.
func (d *Device) close() {
	d.Unmount()
	if d.server != nil {
		if err := unix.Unmount(d.file, 0); err != nil {
			_ = unix.Unmount(d.file, unix.MNT_DETACH)
			d.t.Errorf("powercut: something still uses the disk: %v", err)
		}
		end := time.AfterFunc(time.Minute, func() { _ = d.server.Process.Kill() })
		if err := d.server.Wait(); err != nil {
			d.t.Errorf("powercut: the server of the disk: %v", err)
		}
		end.Stop()
		if s := d.said.String(); s != "" {
			d.t.Errorf("powercut: the server of the disk: %s", s)
		}
	}
	d.settled.close()
	for _, f := range []*os.File{d.base, d.content} {
		if f != nil {
			f.Close()
		}
	}
	if d.log != nil {
		d.log.file.Close()
	}
}

// Mount mounts the disk, and returns the directory. What is left after a cut is
// mounted there too, one at a time, so that paths mean what they meant.
func (d *Device) Mount() string {
	d.t.Helper()
	backing, err := os.OpenFile(d.file, os.O_RDWR, 0)
	must(d.t, err)
	defer backing.Close()
	must(d.t, d.place.mount(d, backing, d.options))
	return d.place.dir
}

// Unmount unmounts the disk, which writes everything to it. It does nothing
// when the disk is not mounted.
func (d *Device) Unmount() {
	d.t.Helper()
	if err := d.place.unmount(d); err != nil {
		d.t.Errorf("powercut: %v", err)
	}
}

// Path is the backing file of the disk, by which another process of the test
// names it to Mark.
func (d *Device) Path() string { return d.file }

// Mark puts a mark into the log, and returns its position.
func (d *Device) Mark(name string) Position {
	d.t.Helper()
	must(d.t, Mark(d.file, name))
	return d.Now()
}

// Mark puts a mark into the log of the disk at path, a Device.Path. When it
// returns, the mark lies behind everything that the disk had flushed before the
// call, and before everything that is written after it. Any process of the test
// may call it; with setfattr(1) it is: setfattr -n user.mark -v NAME PATH.
func Mark(path, name string) error {
	// An attribute goes to the server the way that data goes.
	if err := unix.Setxattr(path, markAttribute, []byte(name), 0); err != nil {
		return fmt.Errorf("mark %s: %w", name, err)
	}
	return nil
}

// must ends the test when setting up failed.
func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("powercut: %v", err)
	}
}

// lines are kept for later, while another goroutine writes them.
type lines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(b)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.TrimSpace(l.buf.String())
}
