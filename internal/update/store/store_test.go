package store_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/mobileops/mobileops/internal/archive"
	"github.com/mobileops/mobileops/internal/update/pack"
	"github.com/mobileops/mobileops/internal/update/store"
	"golang.org/x/sys/unix"
)

// files is a tree: path → content. "->x" is a link to x, a path that ends with /
// a directory, and a path may have its mode after a space.
type files map[string]string

// pkg packs files, with a manifest if it is not "".
func pkg(t testing.TB, manifest string, tree files) []byte {
	t.Helper()
	var b bytes.Buffer
	z, err := zstd.NewWriter(&b)
	if err != nil {
		t.Fatal(err)
	}
	w := tar.NewWriter(z)
	add := func(h *tar.Header, content string) {
		h.Size, h.ModTime = int64(len(content)), time.Unix(1_700_000_000, 0)
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, content); err != nil {
			t.Fatal(err)
		}
	}
	if manifest != "" {
		add(&tar.Header{Name: ".mobileops/package.yaml", Mode: 0o644, Typeflag: tar.TypeReg}, "schema: mobileops.package/v1\n"+manifest)
	}
	for _, name := range slices.Sorted(maps.Keys(tree)) {
		content := tree[name]
		path, mode := name, int64(0o644)
		if p, m, ok := strings.Cut(name, " "); ok {
			path = p
			fmt.Sscanf(m, "%o", &mode)
		}
		switch to, link := strings.CutPrefix(content, "->"); {
		case link:
			add(&tar.Header{Name: path, Linkname: to, Mode: 0o777, Typeflag: tar.TypeSymlink}, "")
		case strings.HasSuffix(path, "/"):
			if mode == 0o644 {
				mode = 0o755
			}
			add(&tar.Header{Name: path, Mode: mode, Typeflag: tar.TypeDir}, "")
		default:
			add(&tar.Header{Name: path, Mode: mode, Typeflag: tar.TypeReg}, content)
		}
	}
	if err := errors.Join(w.Close(), z.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// host is an installation and its store in a directory of their own.
type host struct {
	testing.TB
	*store.Store
	steps []string
}

func newHost(t testing.TB) *host {
	dir := t.TempDir()
	h := &host{TB: t}
	h.Store = store.New(store.Options{Dir: dir + "/app.store", Target: dir + "/app", Step: func(s string) { h.steps = append(h.steps, s) }})
	return h
}

// stage stages a package.
func (h *host) stage(data []byte) (*store.Generation, error) {
	s, err := h.Lock(context.Background(), "a test")
	if err != nil {
		return nil, err
	}
	defer s.Release()
	return stageIn(s, data)
}

func stageIn(s *store.Session, data []byte) (*store.Generation, error) {
	r, err := pack.NewReader(bytes.NewReader(data), archive.DefaultLimits())
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return s.Stage(context.Background(), store.Request{
		Package: r, Now: time.Now(), By: "root",
		Prove: func() (store.Origin, error) { return store.Origin{Name: "platform", Version: "1", Sequence: 1}, nil },
	})
}

// apply stages and activates a package.
func (h *host) apply(data []byte) *store.Generation {
	h.Helper()
	g, err := h.stage(data)
	if err == nil {
		g, err = h.activate(g.Number)
	}
	if err != nil {
		h.Fatal(err)
	}
	return g
}

func (h *host) activate(n int) (*store.Generation, error) {
	s, err := h.Lock(context.Background(), "a test")
	if err != nil {
		return nil, err
	}
	defer s.Release()
	return s.Activate(context.Background(), n, time.Now())
}

// write changes the installation as a person would: by a new file.
func (h *host) write(path, content string) {
	h.Helper()
	p := filepath.Join(h.Target(), path)
	if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
		h.Fatal(err)
	}
	if err := os.WriteFile(p+"~", []byte(content), 0o644); err != nil {
		h.Fatal(err)
	}
	if err := os.Rename(p+"~", p); err != nil {
		h.Fatal(err)
	}
}

// tree reads a whole tree, following its first link alone.
func tree(t testing.TB, dir string) files {
	t.Helper()
	real, err := filepath.EvalSymlinks(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		t.Fatal(err)
	}
	got := files{}
	err = filepath.WalkDir(real, func(p string, d fs.DirEntry, err error) error {
		if err != nil || p == real {
			return err
		}
		rel, _ := filepath.Rel(real, p)
		info, err := d.Info()
		if err != nil {
			return err
		}
		switch {
		case d.IsDir():
			if info.Mode().Perm() != 0o755 {
				got[fmt.Sprintf("%s/ %o", rel, info.Mode().Perm())] = ""
			}
			return nil
		case info.Mode()&fs.ModeSymlink != 0:
			to, err := os.Readlink(p)
			got[rel] = "->" + to
			return err
		}
		content, err := os.ReadFile(p)
		mode := uint32(info.Mode().Perm())
		if info.Mode()&fs.ModeSetuid != 0 {
			mode |= 0o4000
		}
		if mode != 0o644 {
			rel += fmt.Sprintf(" %o", mode)
		}
		got[rel] = string(content)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// is compares the installation with what it should be.
func (h *host) is(want files) {
	h.Helper()
	if got := tree(h, h.Target()); !maps.Equal(got, want) {
		h.Errorf("the installation is\n%v\nnot\n%v", got, want)
	}
}

// clean says what is left behind beside generations.
func (h *host) clean() {
	h.Helper()
	left, _ := filepath.Glob(h.Dir() + "/tmp/*")
	partial, _ := filepath.Glob(h.Dir() + "/generations/*.partial")
	if all := append(left, partial...); len(all) > 0 {
		h.Errorf("left behind: %q", all)
	}
}

func (h *host) verify(n ...int) []store.Difference {
	h.Helper()
	v, err := h.Verify(context.Background(), n, nil)
	if err != nil {
		h.Fatal(err)
	}
	return v.Differences
}

func inode(t testing.TB, path string) uint64 {
	t.Helper()
	return stat(t, path).Ino
}

func TestFirstInstallation(t *testing.T) {
	h := newHost(t)
	g := h.apply(pkg(t, "", files{"bin/": "", "bin/a 755": "program", "lib/deep/x": "library", "l": "->lib/deep", "private/ 700": ""}))
	h.is(files{"bin/a 755": "program", "lib/deep/x": "library", "l": "->lib/deep", "private/ 700": ""})
	if g.Number != 1 || g.Base != 0 || g.Stats.Files != 2 || g.Stats.NewFiles != 2 {
		t.Errorf("generation %+v", g)
	}
	if to, _ := os.Readlink(h.Target()); to != "app.store/current" {
		t.Errorf("the installation is a link to %q", to)
	}
	if d := h.verify(1); len(d) > 0 {
		t.Errorf("verify: %v", d)
	}
	if st, err := os.Stat(filepath.Join(h.Target(), "bin/a")); err != nil || st.ModTime().Unix() != 1_700_000_000 {
		t.Errorf("%v, %v", st, err)
	}
	h.clean()
}

func TestOverlaySharesWhatIsThere(t *testing.T) {
	h := newHost(t)
	h.apply(pkg(t, "", files{"a": "1", "b": "2", "d/c": "3", "empty/": ""}))
	g := h.apply(pkg(t, "remove: [d]\n", files{"b": "two", "n 755": "1", "same": "1"}))
	h.is(files{"a": "1", "b": "two", "n 755": "1", "same": "1"})
	if inode(t, h.Tree(1)+"/a") != inode(t, h.Tree(2)+"/a") || inode(t, h.Tree(2)+"/a") != inode(t, h.Tree(2)+"/same") {
		t.Error("the same content is there twice")
	}
	if g.Stats.NewFiles != 2 || g.Stats.Files != 4 {
		t.Errorf("%+v", g.Stats)
	}
	if st, err := os.Stat(h.Tree(2) + "/empty"); err != nil || !st.IsDir() {
		t.Errorf("an empty directory is gone: %v", err)
	}
	if d := h.verify(1, 2); len(d) > 0 {
		t.Errorf("verify: %v", d)
	}
}

func TestFullReplaces(t *testing.T) {
	h := newHost(t)
	h.apply(pkg(t, "", files{"a": "1", "b": "2"}))
	h.write("own", "mine")
	g := h.apply(pkg(t, "kind: full\n", files{"b": "2"}))
	h.is(files{"b": "2"})
	if !slices.Equal(g.Left, []string{"own"}) || g.Stats.NewFiles != 0 {
		t.Errorf("left behind %v, %+v", g.Left, g.Stats)
	}
	// What an earlier generation took over is of no package still.
	h.write("own", "mine")
	h.apply(pkg(t, "", files{"c": "3"}))
	g = h.apply(pkg(t, "kind: full\n", files{"b": "2"}))
	if !slices.Equal(g.Left, []string{"own"}) {
		t.Errorf("left behind %v", g.Left)
	}
}

func TestRollback(t *testing.T) {
	h := newHost(t)
	h.apply(pkg(t, "", files{"a": "1"}))
	h.apply(pkg(t, "", files{"a": "2"}))
	g, err := h.Generation(2)
	if err != nil {
		t.Fatal(err)
	}
	back, err := h.Previous(g)
	if err != nil || back.Number != 1 {
		t.Fatalf("%v, %v", back, err)
	}
	if _, err := h.activate(1); err != nil {
		t.Fatal(err)
	}
	h.is(files{"a": "1"})
	if _, err := h.activate(2); err != nil {
		t.Fatal(err)
	}
	h.is(files{"a": "2"})
	first, _ := h.Generation(1)
	if _, err := h.Previous(first); !errors.Is(err, store.ErrMissing) {
		t.Errorf("there is something before the first: %v", err)
	}
}

func TestAdoption(t *testing.T) {
	h := newHost(t)
	old := files{"bin/a 755": "program", "etc/x.conf": "setting", "l": "->bin/a", "weird\nname": "x", "empty/ 700": ""}
	for name, content := range old {
		path, mode, _ := strings.Cut(name, " ")
		p := filepath.Join(h.Target(), path)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		var err error
		switch {
		case strings.HasSuffix(path, "/"):
			err = os.Mkdir(p, 0o700)
		case strings.HasPrefix(content, "->"):
			err = os.Symlink(content[2:], p)
		default:
			if err = os.WriteFile(p, []byte(content), 0o644); mode == "755" {
				err = errors.Join(err, os.Chmod(p, 0o755))
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	before := inode(t, h.Target()+"/bin/a")
	g := h.apply(pkg(t, "config: [etc/**]\n", files{"new": "1", "etc/x.conf": "setting"}))
	want := maps.Clone(old)
	want["new"] = "1"
	h.is(want)
	if g.Number != 2 || g.Base != 1 || inode(t, h.Target()+"/bin/a") != before {
		t.Errorf("%+v", g)
	}
	if _, err := h.activate(1); err != nil {
		t.Fatal(err)
	}
	h.is(old)
	if d := h.verify(1, 2); len(d) > 0 {
		t.Errorf("verify: %v", d)
	}
	h.clean()
}

func TestRefusedPackagesLeaveNothing(t *testing.T) {
	h := newHost(t)
	h.apply(pkg(t, "", files{"a": "1"}))
	before := everything(t, h.Dir())
	for name, data := range map[string][]byte{
		"cut":          pkg(t, "", files{"b": strings.Repeat("x", 100_000), "c": "2"})[:60],
		"escape":       pkg(t, "", files{"b": "new", "l": "->../../x"}),
		"over a file":  pkg(t, "", files{"b": "new", "a/x": "1"}),
		"data and not": pkg(t, "data: [a]\n", files{"b": "new"}),
	} {
		if _, err := h.stage(data); err == nil {
			t.Errorf("%s: it was staged", name)
		}
		if after := everything(t, h.Dir()); !slices.Equal(after, before) {
			t.Errorf("%s: left behind:\n%q\nbefore\n%q", name, after, before)
		}
	}
	bad := errors.New("the signature is wrong")
	s, err := h.Lock(context.Background(), "a test")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Release()
	r, err := pack.NewReader(bytes.NewReader(pkg(t, "", files{"b": "new", "setuid/x": "2"})), archive.DefaultLimits())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Stage(context.Background(), store.Request{Package: r, Now: time.Now(), Prove: func() (store.Origin, error) { return store.Origin{}, bad }}); !errors.Is(err, bad) {
		t.Errorf("%v", err)
	}
	if after := everything(t, h.Dir()); !slices.Equal(after, before) {
		t.Errorf("left behind: %q", after)
	}
}

// everything lists a store, but for empty directories of blobs.
func everything(t testing.TB, dir string) (list []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if rel, _ := filepath.Rel(dir, p); err == nil && !(d.IsDir() && strings.HasPrefix(rel, "blobs/")) {
			list = append(list, rel)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func TestLocalEditsOfPackagedFiles(t *testing.T) {
	h := newHost(t)
	h.apply(pkg(t, "", files{"a": "1", "b": "2", "gone": "3"}))
	h.write("a", "changed")
	h.write("own", "mine")
	if err := os.Remove(h.Target() + "/gone"); err != nil {
		t.Fatal(err)
	}
	if d := h.verify(1); len(d) != 3 || d[0].Kind != store.Changed || d[1].Kind != store.Removed || d[2].Kind != store.Added {
		t.Errorf("verify: %v", d)
	}
	g := h.apply(pkg(t, "", files{"c": "4"}))
	h.is(files{"a": "1", "b": "2", "gone": "3", "c": "4", "own": "mine"})
	if !slices.Equal(g.Edited, []string{"a", "gone"}) {
		t.Errorf("edited %v", g.Edited)
	}
	if got, _ := os.ReadFile(h.Tree(1) + "/a"); string(got) != "changed" {
		t.Error("the edit is lost")
	}
}

// TestDamagedContent: a blob that changed in place is found, and never reaches a
// new generation.
func TestDamagedContent(t *testing.T) {
	h := newHost(t)
	h.apply(pkg(t, "", files{"a": "content", "b": "2"}))
	f, err := os.OpenFile(h.Target()+"/a", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	st := stat(t, h.Target()+"/a")
	if _, err := f.WriteAt([]byte("C"), 0); err != nil {
		t.Fatal(err)
	}
	f.Close()
	if err := os.Chtimes(h.Target()+"/a", time.Time{}, time.Unix(int64(st.Mtim.Sec), int64(st.Mtim.Nsec))); err != nil { // as rot would leave it
		t.Fatal(err)
	}
	kinds := map[string]bool{}
	for _, d := range h.verify(1) {
		kinds[d.Kind] = true
	}
	if !kinds[store.BlobFlip] || !kinds[store.Changed] {
		t.Errorf("verify found %v", kinds)
	}
	if _, err := h.stage(pkg(t, "", files{"c": "4"})); !errors.Is(err, store.ErrDamaged) || !strings.Contains(err.Error(), "a") {
		t.Errorf("an overlay that lacks it: %v", err)
	}
	h.clean()
	// Other content under another name does not take it from the store either.
	h.apply(pkg(t, "kind: full\n", files{"a": "content", "other": "content", "b": "2"}))
	h.is(files{"a": "content", "other": "content", "b": "2"})
	if d := h.verify(2); len(d) > 0 {
		t.Errorf("verify afterwards: %v", d)
	}
}

func TestData(t *testing.T) {
	h := newHost(t)
	h.apply(pkg(t, "", files{"bin/x": "1", "var/log/old": "x"}))
	h.write("var/db", "precious")
	g := h.apply(pkg(t, "data: [var, a/b]\n", files{"bin/x": "2", "var/seed": "s", "var/db": "empty"}))
	if got, err := os.ReadFile(h.Target() + "/var/db"); string(got) != "precious" {
		t.Errorf("%q, %v", got, err)
	}
	if got, err := os.ReadFile(h.Target() + "/var/seed"); string(got) != "s" {
		t.Errorf("%q, %v", got, err)
	}
	h.write("var/db", "newer")
	h.write("a/b/c", "nested")
	h.apply(pkg(t, "", files{"bin/x": "3"}))
	for _, n := range []int{1, 2, 3} {
		if _, err := h.activate(n); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(h.Target() + "/var/db"); string(got) != "newer" {
			t.Errorf("generation %d: %q, %v", n, got, err)
		}
	}
	if got, err := os.ReadFile(h.Target() + "/a/b/c"); string(got) != "nested" {
		t.Errorf("%q, %v", got, err)
	}
	if d := h.verify(1, 2, 3); len(d) > 0 {
		t.Errorf("verify: %v", d)
	}
	_ = g
}

func stat(t testing.TB, path string) unix.Stat_t {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		t.Fatal(err)
	}
	return st
}
