package worker

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/scan/protocol"
	"github.com/zeebo/blake3"
)

// place gives the stand-in another name.
func place(t *testing.T, path string) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(installed, path); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestFind(t *testing.T) {
	dir := t.TempDir()
	us := filepath.Join(dir, "bin", "mobileops")
	o := Options{Executable: us, StateDir: t.TempDir()}
	_, err := Find(o)
	wantFailure(t, err, failure.NotReady, "mobileops-scan is not there", "make scan-worker")
	_, err = Find(Options{Path: filepath.Join(dir, "none")})
	wantFailure(t, err, failure.NotReady, "mobileops-scan is not there", filepath.Join(dir, "none"))
	_, err = Find(Options{Path: "here"})
	wantFailure(t, err, failure.Usage, "absolute")

	want := place(t, filepath.Join(dir, "libexec", "mobileops", Name))
	if w, err := Find(o); err != nil || w.Path() != want {
		t.Error(w, err)
	}
	want = place(t, filepath.Join(dir, "bin", Name))
	if w, err := Find(o); err != nil || w.Path() != want {
		t.Error(w, err)
	}
	want = place(t, filepath.Join(dir, "elsewhere"))
	o.Path = want
	if w, err := Find(o); err != nil || w.Path() != want {
		t.Error(w, err)
	}

	for name, make := range map[string]func(path string) error{
		"a directory": func(path string) error { return os.Mkdir(path, 0o755) },
		"data":        func(path string) error { return os.WriteFile(path, nil, 0o644) },
	} {
		path := filepath.Join(t.TempDir(), Name)
		if err := make(path); err != nil {
			t.Fatal(err)
		}
		if _, err := Find(Options{Path: path}); err == nil {
			t.Errorf("%s is taken for a program", name)
		}
	}
	// Text that says it is a program.
	script := filepath.Join(t.TempDir(), Name)
	if err := os.WriteFile(script, []byte("hello"), 0o755); err != nil {
		t.Fatal(err)
	}
	w, err := Find(Options{Path: script, StateDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	_, err = w.Scan(t.Context(), &protocol.Scan{Target: "/"}, Limits{}, nil)
	wantFailure(t, err, failure.Failed, "built for another machine")
}

// TestOthersMayNotWrite changes one thing of a path at a time by which somebody else
// could put another program there.
func TestOthersMayNotWrite(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("NOT RUN: who is not root runs what he likes")
	}
	for name, c := range map[string]struct {
		change func(dir string) error
		bad    string // "" when it is none
	}{
		"as it is":                      {func(dir string) error { return nil }, ""},
		"writable file":                 {func(dir string) error { return os.Chmod(dir+"/a/b/"+Name, 0o757) }, "/a/b/" + Name},
		"file of a group":               {func(dir string) error { return chain(dir+"/a/b/"+Name, 0, 4711, 0o775) }, "/a/b/" + Name},
		"writable for the group root":   {func(dir string) error { return os.Chmod(dir+"/a/b/"+Name, 0o775) }, ""},
		"file of somebody":              {func(dir string) error { return os.Chown(dir+"/a/b/"+Name, 4711, 0) }, "/a/b/" + Name},
		"writable directory":            {func(dir string) error { return os.Chmod(dir+"/a", 0o777) }, "/a"},
		"directory of somebody":         {func(dir string) error { return os.Chown(dir+"/a", 4711, 0) }, "/a"},
		"directory for temporary files": {func(dir string) error { return os.Chmod(dir+"/a", 0o777|fs.ModeSticky) }, ""},
		"link":                          {func(dir string) error { return relink(dir, "../c", 0) }, ""},
		"absolute link":                 {func(dir string) error { return relink(dir, dir+"/c", 0) }, ""},
		"link of somebody":              {func(dir string) error { return relink(dir, "../c", 4711) }, "/a/b"},
		"link to a writable directory": {func(dir string) error {
			if err := relink(dir, "../c", 0); err != nil {
				return err
			}
			return os.Chmod(dir+"/c", 0o777)
		}, "/c"},
		"link by a writable directory": {func(dir string) error {
			if err := relink(dir, "../d/../c", 0); err != nil {
				return err
			}
			if err := os.Mkdir(dir+"/d", 0o700); err != nil {
				return err
			}
			return os.Chmod(dir+"/d", 0o777)
		}, "/d"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.Mkdir(filepath.Join(dir, "a"), 0o755); err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(dir, "a", "b", Name)
			if err := os.Mkdir(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte("x"), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := c.change(dir); err != nil {
				t.Fatal(err)
			}
			_, err := Find(Options{Path: path})
			if c.bad == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			wantFailure(t, err, failure.Untrustworthy, dir+c.bad+" ", "what root would run")
		})
	}
	// Who owns our own program could have replaced us.
	dir := t.TempDir()
	path := filepath.Join(dir, Name)
	us := filepath.Join(dir, "mobileops")
	for _, p := range []string{path, us} {
		if err := os.WriteFile(p, nil, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(p, 4711, 4711); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Find(Options{Executable: us}); err != nil {
		t.Error(err)
	}
	if _, err := Find(Options{Path: path, Executable: os.Args[0]}); failure.KindOf(err) != failure.Untrustworthy {
		t.Error(err)
	}
	// A circle ends.
	if err := os.Symlink("circle", filepath.Join(dir, "circle")); err != nil {
		t.Fatal(err)
	}
	if _, err := Find(Options{Path: filepath.Join(dir, "circle")}); err == nil || !strings.Contains(err.Error(), "too many levels") {
		t.Error(err)
	}
}

func chain(path string, uid, gid int, mode fs.FileMode) error {
	if err := os.Chown(path, uid, gid); err != nil {
		return err
	}
	return os.Chmod(path, mode)
}

// relink moves a/b to c, and makes a/b a link.
func relink(dir, target string, uid int) error {
	if err := os.Rename(dir+"/a/b", dir+"/c"); err != nil {
		return err
	}
	if err := os.Symlink(target, dir+"/a/b"); err != nil {
		return err
	}
	return os.Lchown(dir+"/a/b", uid, 0)
}

// packed packs the stand-in as a release packs the worker.
func packed(t *testing.T, program []byte) *bundle {
	t.Helper()
	var archive bytes.Buffer
	about, err := Pack(bytes.NewReader(program), &archive, zstd.SpeedFastest)
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(about)
	if err != nil {
		t.Fatal(err)
	}
	files := fstest.MapFS{ArchiveName: {Data: archive.Bytes()}}
	b, err := readBundle(text, func() (fs.File, error) { return files.Open(ArchiveName) })
	if err != nil {
		t.Fatal(err)
	}
	if sum := blake3.Sum256(program); b.Digest != hex.EncodeToString(sum[:]) || b.Size != int64(len(program)) {
		t.Fatal(about)
	}
	return b
}

// TestUnpack unpacks the worker by many at the same time, runs it, and finds out
// when somebody changed it.
func TestUnpack(t *testing.T) {
	program, err := os.ReadFile(installed)
	if err != nil {
		t.Fatal(err)
	}
	state := t.TempDir()
	dir := filepath.Join(state, "scan", "worker")
	old := packed(t, []byte("an old one that is run"))
	older := packed(t, []byte("an old one"))
	if _, err := old.unpack(dir); err != nil {
		t.Fatal(err)
	}
	inUse, err := old.open(filepath.Join(dir, old.Digest, Name))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := older.unpack(dir); err != nil {
		t.Fatal(err)
	}
	b := packed(t, program)
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			path, err := b.unpack(dir)
			if err != nil {
				t.Error(err)
				return
			}
			w := &Worker{path: path, embedded: b, support: detect(), options: Options{StateDir: state}}
			if _, err := w.Scan(t.Context(), &protocol.Scan{Target: "/role/good"}, Limits{}, nil); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	path := filepath.Join(dir, b.Digest, Name)
	if st, err := os.Stat(path); err != nil || st.Mode() != 0o755 {
		t.Error(st, err)
	}
	if st, err := os.Stat(filepath.Dir(path)); err != nil || st.Mode().Perm() != 0o700 {
		t.Error(st, err)
	}
	if _, err := os.Stat(filepath.Join(dir, older.Digest)); err == nil {
		t.Error("an old one is still there")
	}
	if _, err := os.Stat(filepath.Join(dir, old.Digest, Name)); err != nil {
		t.Error("one that is used is gone:", err)
	}
	inUse.Close()
	removeOthers(dir, b.Digest)
	if _, err := os.Stat(filepath.Join(dir, old.Digest)); err == nil {
		t.Error("the one that was used is still there")
	}

	// One that was removed by another version meanwhile is unpacked again.
	w := &Worker{path: path, embedded: b, support: detect(), options: Options{StateDir: state}}
	if err := os.RemoveAll(filepath.Dir(path)); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Scan(t.Context(), &protocol.Scan{Target: "/role/good"}, Limits{}, nil); err != nil {
		t.Error(err)
	}

	// A changed one is never run.
	if err := os.WriteFile(path, append([]byte(nil), program[:len(program)-1]...), 0o755); err != nil {
		t.Fatal(err)
	}
	_, err = w.Scan(t.Context(), &protocol.Scan{Target: "/role/good"}, Limits{}, nil)
	wantFailure(t, err, failure.Untrustworthy, "digest", "remove it")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if _, err := b.unpack(dir); err != nil {
		t.Fatal(err)
	}
	if _, err = w.Scan(t.Context(), &protocol.Scan{Target: "/role/good"}, Limits{}, nil); err != nil {
		t.Error(err)
	}
	if err := os.Chmod(path, 0o777); err != nil {
		t.Fatal(err)
	}
	_, err = w.Scan(t.Context(), &protocol.Scan{Target: "/role/good"}, Limits{}, nil)
	wantFailure(t, err, failure.Untrustworthy, "can be written by others")
}

func TestBadBundle(t *testing.T) {
	b := packed(t, []byte("a program"))
	b.Digest = strings.Repeat("00", 32)
	_, err := b.unpack(t.TempDir())
	wantFailure(t, err, failure.Untrustworthy, "damaged")
	b.Size = 3
	_, err = b.unpack(t.TempDir())
	wantFailure(t, err, failure.Untrustworthy, "damaged")
	for _, about := range []string{"", "{}", `{"digest":"00","size":3}`, `{"digest":"` + b.Digest + `","size":-1}`} {
		if _, err := readBundle([]byte(about), nil); err == nil {
			t.Errorf("%q is taken", about)
		}
	}
}

// TestLockIsNotWaitedForForEver: somebody who holds it may be stopped.
func TestLockIsNotWaitedForForEver(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	unlock := lockFor(path, time.Minute)
	defer unlock()
	lockFor(path, 50*time.Millisecond)()
}

// TestReal asks the real worker, when it is built.
func TestReal(t *testing.T) {
	path, err := filepath.Abs(filepath.Join("..", "..", "..", "bin", Name))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Skip("NOT RUN: make scan-worker builds bin/" + Name)
	}
	tree := t.TempDir()
	if err := os.WriteFile(filepath.Join(tree, "Dockerfile"), []byte("FROM debian:12\nUSER root\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	w, err := Find(Options{Path: path, Executable: path, StateDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	r, err := w.Scan(t.Context(), &protocol.Scan{Kind: protocol.Filesystem, Target: tree, Scanners: []protocol.Scanner{protocol.Misconfigurations}}, Limits{Memory: 2 << 30, Time: 8 * time.Minute}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Results) == 0 || len(r.Results[0].Misconfigurations) == 0 {
		t.Errorf("%+v", r)
	}
}
