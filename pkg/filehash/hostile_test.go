package filehash

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestHostileNames: names are bytes, and paths may be longer than the kernel
// takes at once.
func TestHostileNames(t *testing.T) {
	root := t.TempDir()
	names := []string{"new\nline", `back\slash`, "\u202etxt.exe", "bad\xff\xfeutf8", "\x01\x1b[31m", strings.Repeat("n", 255), " ", "-rf", "...", "a b", "é", "\"'`$(x)"}
	for _, n := range names {
		put(t, root+"/"+n, []byte(n))
		put(t, root+"/dir"+n[:min(len(n), 250)]+"/"+n, []byte(n))
	}
	all, errs := walkTree(t, root, Options{Select: wants(WantEntry | WantContent | WantXattrs)})
	if len(errs) > 0 || len(all) != 3*len(names) {
		t.Fatalf("%d entries, want %d; %v", len(all), 3*len(names), errs)
	}
	for _, n := range names {
		for _, p := range []string{"/" + n, "/dir" + n[:min(len(n), 250)] + "/" + n} {
			if e := all[p]; e == nil || e.Sum != reference([]byte(n)) || e.Err != nil {
				t.Errorf("%q: %+v", p, e)
			}
		}
	}
}

// deepDir makes levels directories with the same name, one in the other, and a
// file in each, by handles: the path may exceed PATH_MAX.
func deepDir(t *testing.T, root, name string, levels int) {
	fd, err := unix.Open(root, unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	for range levels {
		if err := unix.Mkdirat(fd, name, 0o755); err != nil {
			t.Fatal(err)
		}
		next, err := unix.Openat(fd, name, unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		unix.Close(fd)
		if err != nil {
			t.Fatal(err)
		}
		fd = next
		f, err := unix.Openat(fd, "file", unix.O_CREAT|unix.O_WRONLY|unix.O_CLOEXEC, 0o644)
		if err != nil {
			t.Fatal(err)
		}
		unix.Write(f, []byte("deep"))
		unix.Close(f)
	}
	unix.Close(fd)
}

func TestPathLongerThanPathMax(t *testing.T) {
	root := t.TempDir()
	deepDir(t, root, strings.Repeat("x", 255), 40)
	all, errs := walkTree(t, root, Options{Select: wants(WantEntry | WantContent | WantXattrs), Jobs: 4})
	if len(all) != 80 || len(errs) > 0 {
		t.Fatalf("%d entries, want 80; %v", len(all), errs)
	}
	for _, e := range all {
		if e.Err != nil || e.Name == "file" && e.Sum != reference([]byte("deep")) {
			t.Errorf("%.20s…/%.20s: %v", e.Dir, e.Name, e.Err)
		}
	}
}

// TestTooDeep: below 1,000 levels a directory is reported as unreadable, the
// rest of the tree is seen, and no handle stays open.
func TestTooDeep(t *testing.T) {
	root := t.TempDir()
	deepDir(t, root, "d", 1050)
	put(t, root+"/z/last", []byte("z"))
	noLeaks(t, func() {
		all, errs := walkTree(t, root, Options{Jobs: 2})
		if len(errs) != 1 {
			t.Errorf("%d directories are unreadable, want 1", len(errs))
		}
		for dir, err := range errs {
			if n := strings.Count(dir, "/"); n != maxDepth+1 || !errors.Is(err, errTooDeep) {
				t.Errorf("level %d: %v", n, err)
			}
		}
		if len(all) != 2*maxDepth+1+2 || all["/z/last"] == nil {
			t.Errorf("%d entries", len(all))
		}
	})
}

// TestSpecialFiles: what is not a regular file is reported and never opened.
// A FIFO without a writer, or a device, would show by blocking or by reading.
func TestSpecialFiles(t *testing.T) {
	root := t.TempDir()
	if err := unix.Mkfifo(root+"/fifo", 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", root+"/socket")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for name, target := range map[string]string{"dangling": "nowhere", "loop": "loop", "up": "..", "abs": "/etc"} {
		if err := os.Symlink(target, root+"/"+name); err != nil {
			t.Fatal(err)
		}
	}
	put(t, root+"/file", []byte("content"))
	if err := os.Link(root+"/file", root+"/hard"); err != nil {
		t.Fatal(err)
	}
	want := map[string]uint32{"/fifo": unix.S_IFIFO, "/socket": unix.S_IFSOCK, "/dangling": unix.S_IFLNK, "/loop": unix.S_IFLNK, "/up": unix.S_IFLNK, "/abs": unix.S_IFLNK, "/file": unix.S_IFREG, "/hard": unix.S_IFREG}
	if os.Geteuid() == 0 {
		for name, dev := range map[string]uint64{"/zero": unix.Mkdev(1, 5), "/tty": unix.Mkdev(5, 0)} {
			if err := unix.Mknod(root+name, unix.S_IFCHR|0o600, int(dev)); err != nil {
				t.Fatal(err)
			}
			want[name] = unix.S_IFCHR
		}
		if err := unix.Mknod(root+"/block", unix.S_IFBLK|0o600, int(unix.Mkdev(7, 200))); err != nil {
			t.Fatal(err)
		}
		want["/block"] = unix.S_IFBLK
	} else {
		t.Log("NOT RUN: device nodes need root")
	}
	within(t, 2*time.Minute, func() {
		all, _ := walkTree(t, root, Options{Select: wants(WantEntry | WantContent | WantXattrs)})
		if len(all) != len(want) {
			t.Errorf("%d entries, want %d", len(all), len(want))
		}
		for p, kind := range want {
			e := all[p]
			if e == nil || e.Info.Type() != kind || e.Err != nil || (e.Content == Hashed) != (kind == unix.S_IFREG) {
				t.Errorf("%s: %+v", p, e)
			}
		}
		if string(all["/loop"].Target) != "loop" || string(all["/up"].Target) != ".." {
			t.Error("targets of links are wrong")
		}
		if a, b := all["/file"], all["/hard"]; a.Info.Ino != b.Info.Ino || a.Info.Links != 2 || a.Sum != b.Sum {
			t.Errorf("hard links: %+v, %+v", a.Info, b.Info)
		}
		if os.Geteuid() == 0 && all["/zero"].Info.Rdev != unix.Mkdev(1, 5) {
			t.Errorf("rdev %x", all["/zero"].Info.Rdev)
		}
	})
}

// TestTreeThatFightsBack walks while names turn from files into links, FIFOs
// and directories, and directories into links that lead outside.
func TestTreeThatFightsBack(t *testing.T) {
	outside := t.TempDir()
	put(t, outside+"/canary", []byte("the canary must not be seen"))
	put(t, outside+"/sub/canary", []byte("the canary must not be seen"))
	canary := reference([]byte("the canary must not be seen"))
	root := t.TempDir()
	for i := range 200 {
		put(t, fmt.Sprintf("%s/d%d/f%d", root, i%8, i), []byte("inside"))
	}
	ctx, stop := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop()
	for range 2 {
		wg.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				d := fmt.Sprintf("%s/d%d", root, rand.N(8))
				f := fmt.Sprintf("%s/f%d", d, rand.N(200))
				switch rand.N(8) {
				case 0:
					os.RemoveAll(d)
					os.Symlink(outside, d)
				case 1:
					os.Remove(d)
					os.MkdirAll(d+"/sub", 0o755)
				case 2:
					os.RemoveAll(f)
					os.Symlink(outside+"/canary", f)
				case 3:
					os.RemoveAll(f)
					unix.Mkfifo(f, 0o600)
				case 4:
					os.RemoveAll(f)
					os.Mkdir(f, 0o755)
				default:
					os.Mkdir(d, 0o755)
					os.RemoveAll(f)
					// Never an existing file: it may be a FIFO, or a link.
					if w, err := os.OpenFile(f, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644); err == nil {
						w.WriteString("inside")
						w.Close()
					}
				}
			}
		})
	}
	noLeaks(t, func() {
		// As many walks as two seconds hold, and on a busy machine at least 20.
		end := time.Now().Add(2 * time.Second)
		for walks := 0; walks < 20 || time.Now().Before(end); walks++ {
			within(t, 2*time.Minute, func() {
				all, _ := walkTree(t, root, Options{Jobs: 1 + walks%5, Select: wants(WantEntry | WantContent | WantXattrs)})
				for p, e := range all {
					if e.Content == Hashed && e.Sum == canary || strings.Contains(p, "canary") {
						t.Fatalf("%s leads out of the tree", p)
					}
				}
			})
		}
	})
}

// TestMountpoint: another filesystem is flagged and not entered.
func TestMountpoint(t *testing.T) {
	root := t.TempDir()
	put(t, root+"/a/under", []byte("x"))
	put(t, root+"/b", []byte("x"))
	mountTmpfs(t, root+"/a", "size=1m")
	put(t, root+"/a/inside", []byte("x"))
	all, _ := walkTree(t, root, Options{})
	if e := all["/a"]; len(all) != 2 || !e.Mountpoint || all["/b"].Mountpoint {
		t.Errorf("%d entries, %+v", len(all), e)
	}
	all, _ = walkTree(t, root, Options{CrossDevice: true})
	if e := all["/a/inside"]; len(all) != 3 || e == nil || e.Content != Hashed || all["/a"].Mountpoint {
		t.Errorf("across: %d entries, %+v", len(all), e)
	}
	// A selector that names the mount point goes there.
	all, _ = walkTree(t, root, Options{Select: onlyA{}})
	if all["/a/inside"] == nil {
		t.Error("a directory that was named is not entered")
	}
}

type onlyA struct{ everything }

func (onlyA) Names() ([]string, bool) { return []string{"a"}, true }

// TestXattrs: of files, directories and links, sorted, large ones too.
func TestXattrs(t *testing.T) {
	root := t.TempDir()
	put(t, root+"/file", nil)
	put(t, root+"/dir/x", nil)
	os.Symlink("file", root+"/link")
	set := func(name, attr string, value []byte) {
		if err := unix.Lsetxattr(root+"/"+name, attr, value, 0); err != nil {
			t.Skipf("NOT RUN: the filesystem has no such attribute: %s on %s: %v", attr, name, err)
		}
	}
	big := bytes.Repeat([]byte("v"), 2000)
	acl := []byte{2, 0, 0, 0, 1, 0, 6, 0, 255, 255, 255, 255, 2, 0, 4, 0, 1, 0, 0, 0, 4, 0, 4, 0, 255, 255, 255, 255, 16, 0, 4, 0, 255, 255, 255, 255, 32, 0, 4, 0, 255, 255, 255, 255}
	set("file", "user.zz", big)
	set("file", "user.a", []byte{})
	set("dir", "user.d", []byte("dir"))
	set("file", "system.posix_acl_access", acl)
	want := map[string][]string{"/file": {"system.posix_acl_access", "user.a", "user.zz"}, "/dir": {"user.d"}, "/dir/x": nil, "/link": nil}
	if os.Geteuid() == 0 {
		caps := []byte{1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
		set("file", "security.capability", caps)
		set("link", "trusted.l", []byte("link"))
		want["/file"] = append([]string{"security.capability"}, want["/file"]...)
		want["/link"] = []string{"trusted.l"}
	} else {
		t.Log("NOT RUN: capabilities and trusted attributes need root")
	}
	for _, w := range []Want{WantEntry | WantContent | WantXattrs, WantEntry | WantXattrs} {
		all, _ := walkTree(t, root, Options{Select: wants(w)})
		for p, names := range want {
			var got []string
			for _, x := range all[p].Xattrs {
				got = append(got, x.Name)
				if x.Name == "user.zz" && !bytes.Equal(x.Value, big) {
					t.Error("a large value is wrong")
				}
			}
			if all[p].Err != nil || fmt.Sprint(got) != fmt.Sprint(names) {
				t.Errorf("%s: %q, want %q; %v", p, got, names, all[p].Err)
			}
		}
	}
}
