package filehash

import (
	"context"
	"errors"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// openedDir is a directory as a walk has it before listing.
func openedDir(t *testing.T, path string, sel Selector) *dir {
	t.Helper()
	fd, err := unix.Open(path, unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	d := &dir{fd: fd, path: []byte("/"), sel: sel}
	var info Info
	if e := fstat(fd, &info); e != 0 {
		t.Fatal(e)
	}
	d.dev = info.Dev
	return d
}

func testWorker(t *testing.T) *worker {
	w := &walk{ctx: t.Context(), ctr: new(Counters)}
	return &worker{walk: w, dents: make([]byte, 32<<10), scratch: make([]byte, scratchBytes), buf: make([]byte, segmentBytes)}
}

// TestDirectoryRemovedBeforeItIsListed: it has vanished, as any other entry
// can, and is no error.
func TestDirectoryRemovedBeforeItIsListed(t *testing.T) {
	path := t.TempDir() + "/d"
	if err := os.Mkdir(path, 0o755); err != nil {
		t.Fatal(err)
	}
	d := openedDir(t, path, everything{})
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := d.list(testWorker(t)); err != nil || len(d.ents) > 0 {
		t.Errorf("%d entries, %v", len(d.ents), err)
	}
}

// TestNameThatCannotBeLookedAt: what is below a name that cannot be statted is
// not known, which the walk must say even where it wants nothing of the name
// itself: on the way to a start path, and where names come without a type.
func TestNameThatCannotBeLookedAt(t *testing.T) {
	needRoot(t, "drops root's rights for a moment")
	path := t.TempDir()
	if err := os.MkdirAll(path+"/a/below", 0o755); err != nil {
		t.Fatal(err)
	}
	d := openedDir(t, path, onlyA{})
	if err := os.Chmod(path, 0o644); err != nil { // to be listed, not to be searched
		t.Fatal(err)
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Setfsuid(65534); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Setfsuid(0); err != nil {
			panic(err) // the thread must not go on like this
		}
	}()
	w := testWorker(t)
	if err := d.list(w); err != nil {
		t.Fatal(err)
	}
	if len(d.subs) != 1 {
		t.Fatalf("%d directories to open, want a", len(d.subs))
	}
	if c, err := d.openChild(w, int(d.subs[0])); c == nil || !errors.Is(err, unix.EACCES) || string(c.path) != "/a" {
		t.Errorf("%+v, %v", c, err)
	}
}

// TestFileThatTradesPlaces: a name that is a link and a file by turns is never
// reported as a file of which nothing is known, as if nobody had wanted its
// content.
func TestFileThatTradesPlaces(t *testing.T) {
	path := t.TempDir()
	put(t, path+"/a", []byte("content"))
	if err := os.Symlink("nowhere", path+"/b"); err != nil {
		t.Fatal(err)
	}
	d := openedDir(t, path, everything{})
	w := testWorker(t)
	if err := d.list(w); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithTimeout(t.Context(), 2*time.Second)
	defer stop()
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			unix.Renameat2(d.fd, "a", d.fd, "b", unix.RENAME_EXCHANGE)
		}
	}()
	seen := map[Content]int{}
	for ctx.Err() == nil {
		e := Entry{Name: d.name(0)}
		if w.regular(d, 0, &e, WantEntry|WantContent) && e.Info.Type() == unix.S_IFREG {
			seen[e.Content]++
			if e.Content == NoContent {
				t.Fatal("a regular file was reported without content and without an error")
			}
		}
	}
	<-done
	t.Logf("%v", seen)
}

// TestLongPath: so that nobody can fill the memory with paths, one that is much
// longer than any program could use is not followed, and that is reported.
func TestLongPath(t *testing.T) {
	root := t.TempDir()
	deepDir(t, root, strings.Repeat("x", 255), maxPath/256+5)
	put(t, root+"/z/last", []byte("z"))
	all, errs := walkTree(t, root, Options{Jobs: 2})
	if len(errs) != 1 || all["/z/last"] == nil {
		t.Errorf("%d directories are unreadable, want 1", len(errs))
	}
	for dir, err := range errs {
		if len(dir) <= maxPath || len(dir) > maxPath+256 || !errors.Is(err, errTooDeep) {
			t.Errorf("%d bytes: %v", len(dir), err)
		}
	}
}
