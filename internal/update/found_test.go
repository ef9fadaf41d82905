package update_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/mobileops/mobileops/internal/update"
	"golang.org/x/sys/unix"
)

// What is found at the place of an installation was not made by packages: it has
// names, types and attributes that no package could bring.

func (s *site) must(errs ...error) {
	s.Helper()
	if err := errors.Join(errs...); err != nil {
		s.Fatal(err)
	}
}

func stat(t testing.TB, path string) syscall.Stat_t {
	t.Helper()
	var st syscall.Stat_t
	if err := syscall.Lstat(path, &st); err != nil {
		t.Fatal(err)
	}
	return st
}

// acl is an access control list that gives a user of that number all, as
// posix_acl_xattr.h has it.
func acl(uid, group uint16) []byte {
	b := binary.LittleEndian.AppendUint32(nil, 2)
	for _, e := range []struct {
		tag, perm uint16
		id        uint32
	}{{1, 7, ^uint32(0)}, {2, 7, uint32(uid)}, {4, group, ^uint32(0)}, {0x10, 7, ^uint32(0)}, {0x20, 0, ^uint32(0)}} {
		b = binary.LittleEndian.AppendUint16(b, e.tag)
		b = binary.LittleEndian.AppendUint16(b, e.perm)
		b = binary.LittleEndian.AppendUint32(b, e.id)
	}
	return b
}

// capNetBind is cap_net_bind_service=ep, as linux/capability.h has it.
func capNetBind() []byte {
	b := binary.LittleEndian.AppendUint32(nil, 0x02000000|1)
	for _, v := range []uint32{1 << 10, 0, 0, 0} {
		b = binary.LittleEndian.AppendUint32(b, v)
	}
	return b
}

// TestAttributes: capabilities, access control lists and labels survive adoption,
// overlays, merges, backups and the way back, and so does the mode of the tree
// itself.
func TestAttributes(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("NOT RUN: only root can give capabilities to files")
	}
	s := newSite(t)
	app := s.target()
	s.must(os.MkdirAll(app+"/bin", 0o755), os.MkdirAll(app+"/etc", 0o755),
		os.WriteFile(app+"/bin/server", []byte("server"), 0o755), os.WriteFile(app+"/bin/own", []byte("own"), 0o640), os.WriteFile(app+"/etc/app.conf", []byte("a = 1\n\nb = 1\n"), 0o640),
		os.Chown(app, 0, 33), syscall.Chmod(app, 0o2750))
	if err := unix.Setxattr(app+"/bin", "system.posix_acl_access", acl(33, 5), 0); err != nil {
		t.Skipf("NOT RUN: the filesystem of %s has no access control lists: %v", s.dir, err)
	}
	s.must(unix.Setxattr(app+"/bin/server", "security.capability", capNetBind(), 0), unix.Setxattr(app+"/bin/own", "user.origin", []byte("here"), 0),
		unix.Setxattr(app+"/etc", "system.posix_acl_default", acl(34, 4), 0), unix.Setxattr(app+"/etc/app.conf", "system.posix_acl_access", acl(35, 4), 0))
	server := stat(t, app+"/bin/server").Ino
	same := func(when string, inode bool) {
		t.Helper()
		live := s.target()
		for _, x := range []struct {
			path, name string
			want       []byte
		}{
			{"/bin", "system.posix_acl_access", acl(33, 5)}, {"/bin/server", "security.capability", capNetBind()}, {"/bin/own", "user.origin", []byte("here")},
			{"/etc", "system.posix_acl_default", acl(34, 4)}, {"/etc/app.conf", "system.posix_acl_access", acl(35, 4)},
		} {
			value := make([]byte, 256)
			n, err := unix.Getxattr(live+x.path, x.name, value)
			if err != nil || !bytes.Equal(value[:n], x.want) {
				t.Errorf("%s: %s of %s is %x (%v), and was %x", when, x.name, x.path, value[:max(n, 0)], err, x.want)
			}
		}
		st := stat(t, live+"/.")
		if st.Mode&0o7777 != 0o2750 || st.Gid != 33 {
			t.Errorf("%s: the tree has mode %o and group %d", when, st.Mode&0o7777, st.Gid)
		}
		if got := stat(t, live+"/bin/server").Ino; inode && got != server {
			t.Errorf("%s: the program is another inode", when)
		}
	}
	const manifest = "config: ['etc/**']\n"
	s.apply(s.pack(1, manifest, files{"bin/a 755": "1"}))
	same("adopted, and an overlay", true)
	s.apply(s.pack(2, manifest, files{"etc/app.conf": "a = 1\n\nb = 2\n"}))
	same("configuration in conflict", true)
	s.must(os.WriteFile(s.target()+"/etc/app.conf", []byte("a = 2\n\nb = 2\n"), 0o770))
	s.apply(s.pack(3, manifest, files{"etc/app.conf": "a = 1\n\nb = 3\n"}))
	if data, _ := os.ReadFile(s.target() + "/etc/app.conf"); string(data) != "a = 2\n\nb = 3\n" {
		t.Errorf("merged: %q", data)
	}
	same("configuration merged", true)
	for range 3 {
		_, err := s.engine().Rollback(context.Background(), 0, nil)
		s.must(err)
		same("on the way back", true)
	}
	g, err := s.engine().Backup(context.Background(), "", new(update.Notice))
	s.must(err)
	_, err = s.engine().Activate(context.Background(), g.Number, nil)
	s.must(err)
	same("a backup", false)
	s.verified()
}

// TestModeOfTheFirst: what is made from nothing is for everybody, whatever the
// mask of who does it.
func TestModeOfTheFirst(t *testing.T) {
	defer unix.Umask(unix.Umask(0o077))
	s := newSite(t)
	s.apply(s.pack(1, "", files{"bin/a 755": "1"}))
	for _, p := range []string{"", "/bin", "/bin/a"} {
		if st := stat(t, s.target()+"/."+p); st.Mode&0o777 != 0o755 {
			t.Errorf("%s has mode %o", p, st.Mode&0o777)
		}
	}
	for _, p := range []string{"", "/generations", "/generations/1"} {
		if st := stat(t, s.dir+"/app.store"+p); st.Mode&0o777 != 0o755 {
			t.Errorf("the store: %s has mode %o", p, st.Mode&0o777)
		}
	}
}

// TestHostileTree adopts names and types of every kind.
func TestHostileTree(t *testing.T) {
	s := newSite(t)
	app := s.target()
	s.must(os.MkdirAll(app, 0o755))
	names := []string{"new\nline", "tab\there", "\x1b[2J", "\xff\xfe", "%41", " space ", "-rf", "*", "\u202egnp.exe", "a\\b", "~", ".mobileops", strings.Repeat("n", 255), "end 0 0", "f 644"}
	for _, n := range names {
		s.must(os.WriteFile(filepath.Join(app, n), []byte(n), 0o644))
	}
	deep := app
	for range 300 {
		deep += "/deep"
	}
	s.must(os.MkdirAll(deep, 0o755), os.WriteFile(deep+"/file", []byte("x"), 0o644))
	s.must(os.Link(app+"/-rf", app+"/hard"), os.Symlink("/etc/passwd", app+"/absolute"), os.Symlink("../../../../..", app+"/up"), os.Symlink("dangling\n", app+"/dangling"), os.Symlink("loop", app+"/loop"))
	s.must(syscall.Mkfifo(app+"/fifo", 0o600))
	if os.Geteuid() == 0 {
		s.must(syscall.Mknod(app+"/null", syscall.S_IFCHR|0o600, 1<<8|3))
	}
	at, err := os.Getwd()
	s.must(err, os.Chdir(app)) // a path of a socket has 107 bytes
	socket, err := net.Listen("unix", "socket")
	s.must(err, os.Chdir(at))
	defer socket.Close()
	sparse, err := os.Create(app + "/sparse")
	s.must(err)
	_, err = sparse.WriteAt([]byte("end"), 64<<20)
	s.must(err, sparse.Close())
	blocks := stat(t, app+"/sparse").Blocks
	r := s.apply(s.pack(1, "", files{"bin/a": "1"}))
	for _, n := range names {
		if data, err := os.ReadFile(filepath.Join(s.target(), n)); string(data) != n {
			t.Errorf("%q has %q: %v", n, data, err)
		}
	}
	if _, err := os.Stat(s.target() + strings.TrimPrefix(deep, app) + "/file"); err != nil {
		t.Error(err)
	}
	if a, b := stat(t, s.target()+"/-rf"), stat(t, s.target()+"/hard"); a.Ino != b.Ino {
		t.Error("hard links were parted")
	}
	for link, want := range map[string]string{"absolute": "/etc/passwd", "up": "../../../../..", "dangling": "dangling\n", "loop": "loop"} {
		if got, err := os.Readlink(s.target() + "/" + link); got != want {
			t.Errorf("%s leads to %q: %v", link, got, err)
		}
	}
	if got := stat(t, s.target()+"/sparse").Blocks; got > blocks {
		t.Errorf("the file with a hole has %d blocks, before %d", got, blocks)
	}
	// Pipes, sockets and devices are of running programs: told, and in generation 1.
	want := []string{"fifo", "null", "socket"}
	if os.Geteuid() != 0 {
		want = []string{"fifo", "socket"}
	}
	if fmt.Sprint(r.Generation.Left) != fmt.Sprint(want) {
		t.Errorf("left behind are %q", r.Generation.Left)
	}
	if stat(t, s.dir+"/app.store/generations/1/tree/fifo").Mode&syscall.S_IFMT != syscall.S_IFIFO {
		t.Error("the pipe is gone from what was adopted")
	}
	s.verified()
	// A backup is a copy, and a full package brings the rest to an end.
	g, err := s.engine().Backup(context.Background(), "", new(update.Notice))
	s.must(err)
	if got := stat(t, fmt.Sprintf("%s/app.store/generations/%d/tree/sparse", s.dir, g.Number)).Blocks; got > blocks+64 {
		t.Errorf("a copy of the file with a hole has %d blocks, before %d", got, blocks)
	}
	s.apply(s.pack(2, "kind: full\n", files{"bin/a": "2"}))
	s.is(files{"bin/a": "2"})
	s.verified()
	_, err = s.engine().Prune(context.Background(), 0, new(update.Notice))
	s.must(err)
	s.verified()
}

// TestNamesTooLong: a package with the longest names that there may be, and an
// installation so deep that no path of it could be given to the kernel.
func TestNamesTooLong(t *testing.T) {
	s := newSite(t)
	long := strings.Repeat("n", 255)
	name := strings.Repeat(strings.Repeat("d", 250)+"/", 3) + long
	s.apply(s.pack(1, "", files{name: "1"}))
	s.is(files{name: "1"})
	s.apply(s.pack(2, "", files{"a": "2"}))
	s.is(files{name: "1", "a": "2"})
	s.verified()
}

// immutable is FS_IMMUTABLE_FL of linux/fs.h.
const immutable = 0x10

// TestImmutable: files that nobody may change, by chattr +i, are adopted as they
// are and copied from then on; an update of them is refused by nobody.
func TestImmutable(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("NOT RUN: only root can make files immutable")
	}
	s := newSite(t)
	s.must(os.MkdirAll(s.target(), 0o755), os.WriteFile(s.target()+"/fixed", []byte("mine"), 0o644), os.WriteFile(s.target()+"/other", []byte("x"), 0o644))
	set := func(path string, flags int) error {
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		return unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, flags)
	}
	if err := set(s.target()+"/fixed", immutable); err != nil {
		t.Skipf("NOT RUN: the filesystem of %s has no immutable files: %v", s.dir, err)
	}
	at := []string{s.target() + "/fixed", s.dir + "/app.store/generations/1/tree/fixed"}
	t.Cleanup(func() {
		for _, p := range at {
			_ = set(p, 0)
		}
	})
	s.apply(s.pack(1, "", files{"a": "1"}))
	s.is(files{"a": "1", "fixed": "mine", "other": "x"})
	s.verified()
	_, err := s.engine().Rollback(context.Background(), 0, nil)
	s.must(err)
	s.is(files{"fixed": "mine", "other": "x"})
	if err := os.WriteFile(s.target()+"/fixed", nil, 0o644); !errors.Is(err, unix.EPERM) {
		t.Errorf("it is not immutable any more: %v", err)
	}
	s.verified()
	// It keeps its generation from being pruned, and nothing else.
	_, err = s.engine().Activate(context.Background(), 2, nil)
	s.must(err)
	s.apply(s.pack(2, "", files{"a": "2"}))
	if _, err := s.engine().Prune(context.Background(), 0, new(update.Notice)); err == nil || !errors.Is(err, unix.EPERM) {
		t.Errorf("an immutable file was removed: %v", err)
	}
	s.is(files{"a": "2", "fixed": "mine", "other": "x"})
	var problems []string
	told := &update.Notice{Problem: func(err error) { problems = append(problems, err.Error()) }}
	_, err = s.engine().Apply(context.Background(), update.Request{Path: s.pack(3, "", files{"a": "3"})}, told)
	s.must(err)
	s.is(files{"a": "3", "fixed": "mine", "other": "x"})
	if len(problems) != 1 || !strings.Contains(problems[0], "generation 1, which is no longer wanted, cannot be removed") || !strings.Contains(problems[0], "chattr -i") {
		t.Errorf("told %q", problems)
	}
	s.must(set(s.dir+"/app.store/generations/1.partial/tree/fixed", 0))
	s.apply(s.pack(4, "", files{"a": "4"}))
	s.is(files{"a": "4", "fixed": "mine", "other": "x"})
	s.verified()
}
