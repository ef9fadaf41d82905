package filehash

import (
	"bytes"
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/zeebo/blake3"
	"golang.org/x/sys/unix"
)

// seen is an entry that outlives its batch.
type seen struct {
	Entry
	Dir  string
	Name string
}

func (s *seen) path() string { return filepath.Join(s.Dir, s.Name) }

// walkTree walks root and returns everything by path, and the errors of
// directories. It fails the test when entries are not in strictly ascending
// order.
func walkTree(t testing.TB, root string, o Options) (map[string]*seen, map[string]error) {
	t.Helper()
	all, errs, err := tryWalk(t, context.Background(), root, o)
	if err != nil {
		t.Fatalf("walk %s: %v", root, err)
	}
	return all, errs
}

func tryWalk(t testing.TB, ctx context.Context, root string, o Options) (map[string]*seen, map[string]error, error) {
	t.Helper()
	all, errs := map[string]*seen{}, map[string]error{}
	var last *seen
	err := Walk(ctx, root, o, func(b *Batch) error {
		if b.Err != nil {
			errs[string(b.Dir)] = b.Err
		}
		for i := range b.Entries {
			e := &b.Entries[i]
			s := &seen{Entry: *e, Dir: string(b.Dir), Name: string(e.Name)}
			s.Target = bytes.Clone(e.Target)
			if last != nil && CompareKeys([]byte(last.Dir), []byte(last.Name), b.Dir, e.Name) >= 0 {
				t.Errorf("%q in %q comes after %q in %q", s.Name, s.Dir, last.Name, last.Dir)
			}
			last = s
			all[s.path()] = s
		}
		return nil
	})
	return all, errs, err
}

// wants is a selector that wants the same of everything.
type wants Want

func (w wants) Select([]byte) (Want, any) { return Want(w), nil }
func (w wants) Enter([]byte) Selector     { return w }
func (w wants) Names() ([]string, bool)   { return nil, false }

// put writes a file, and the directories above it.
func put(t testing.TB, path string, content []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, content, 0o644); err != nil {
		t.Fatal(err)
	}
}

// pattern returns n bytes that differ from one place to the next.
func pattern(n int) []byte {
	b := make([]byte, n)
	x := uint32(n) + 1
	for i := range b {
		x = x*1664525 + 1013904223
		b[i] = byte(x >> 24)
	}
	return b
}

func reference(b []byte) Sum { return blake3.Sum256(b) }

// paths lists a tree with the standard library, the root excepted.
func paths(t testing.TB, root string) map[string]fs.DirEntry {
	t.Helper()
	list := map[string]fs.DirEntry{}
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err == nil && p != root {
			list[strings.TrimPrefix(p, strings.TrimSuffix(root, "/"))] = d
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func needRoot(t testing.TB, why string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("NOT RUN: needs root to " + why)
	}
}

// noLeaks fails the test when fn leaves file descriptors or goroutines behind.
func noLeaks(t testing.TB, fn func()) {
	t.Helper()
	fds := func() int {
		list, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(list)
	}
	before, routines := fds(), runtime.NumGoroutine()
	fn()
	for range 3000 {
		if fds() <= before && runtime.NumGoroutine() <= routines {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Errorf("file descriptors: %d, then %d; goroutines: %d, then %d", before, fds(), routines, runtime.NumGoroutine())
}

// within fails the test, with all stacks, when fn takes longer than d.
func within(t testing.TB, d time.Duration, fn func()) {
	t.Helper()
	timer := time.AfterFunc(d, func() {
		buf := make([]byte, 1<<20)
		os.Stderr.Write(buf[:runtime.Stack(buf, true)])
		panic("the walk hangs")
	})
	defer timer.Stop()
	fn()
}

func mountTmpfs(t testing.TB, dir, options string) {
	t.Helper()
	needRoot(t, "mount a tmpfs")
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, options); err != nil {
		t.Skipf("NOT RUN: cannot mount a tmpfs here: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Errorf("unmount %s: %v", dir, err)
		}
	})
}
