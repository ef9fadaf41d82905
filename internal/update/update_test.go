package update_test

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
	"github.com/mobileops/mobileops/internal/state"
	"github.com/mobileops/mobileops/internal/trust"
	"github.com/mobileops/mobileops/internal/update"
)

// files is a tree: path → content; a path may have its mode after a space.
type files map[string]string

// site is an installation with everything that belongs to it, in a directory.
type site struct {
	testing.TB
	dir    string
	signer trust.Signer
	keys   *trust.Keys
	now    time.Time
	opts   func(*update.Options)
}

func newSite(t testing.TB) *site {
	t.Helper()
	s := &site{TB: t, dir: t.TempDir(), now: time.Now().UTC().Round(time.Second)}
	secret, public, err := trust.SecretKeyFile(nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(s.dir+"/key", secret, 0o600); err != nil {
		t.Fatal(err)
	}
	if s.signer, err = trust.OpenSigner(context.Background(), s.dir+"/key", nil); err != nil {
		t.Fatal(err)
	}
	if s.keys, err = trust.OpenKeys(s.dir + "/keys"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.keys.Add(public, trust.Scope{}); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *site) target() string { return s.dir + "/app" }

// engine is that of a process of its own: nothing is remembered but on disk.
func (s *site) engine() *update.Engine { return s.engineStepping(nil) }

func (s *site) engineStepping(step func(string)) *update.Engine {
	o := update.Options{
		Dir: s.dir + "/app.store", Target: s.target(), State: state.New(s.dir+"/state", state.Options{}),
		Keys: func() (*trust.Keys, error) { return trust.OpenKeys(s.dir + "/keys") }, Channel: "stable", By: "root", Doing: "a test",
		Now: func() time.Time { return s.now }, Step: step,
	}
	if s.opts != nil {
		s.opts(&o)
	}
	return update.New(o)
}

// pack makes a signed package and returns its path.
func (s *site) pack(sequence uint64, manifest string, tree files) string {
	s.Helper()
	return s.packAs(trust.Release{Name: "platform", Version: fmt.Sprintf("1.%d", sequence), Sequence: sequence, Channel: "stable", Expires: s.now.AddDate(0, 1, 0)}, manifest, tree)
}

func (s *site) packAs(rel trust.Release, manifest string, tree files) string {
	s.Helper()
	data := archive(s, manifest, tree)
	path := fmt.Sprintf("%s/%s-%d.tar.zst", s.dir, rel.Name, rel.Sequence)
	sig, err := trust.SignPackage(context.Background(), s.signer, bytes.NewReader(data), rel, "")
	if err != nil {
		s.Fatal(err)
	}
	if err := errors.Join(os.WriteFile(path, data, 0o644), os.WriteFile(path+".minisig", sig, 0o644)); err != nil {
		s.Fatal(err)
	}
	return path
}

func archive(t testing.TB, manifest string, tree files) []byte {
	t.Helper()
	var b bytes.Buffer
	z, err := zstd.NewWriter(&b)
	if err != nil {
		t.Fatal(err)
	}
	w := tar.NewWriter(z)
	add := func(name string, mode int64, content string) {
		h := &tar.Header{Name: name, Mode: mode, Size: int64(len(content)), Typeflag: tar.TypeReg, ModTime: time.Unix(1_700_000_000, 0)}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, content); err != nil {
			t.Fatal(err)
		}
	}
	if manifest != "" {
		add(".mobileops/package.yaml", 0o644, "schema: mobileops.package/v1\n"+manifest)
	}
	for _, name := range slices.Sorted(maps.Keys(tree)) {
		path, mode := name, int64(0o644)
		if p, m, ok := strings.Cut(name, " "); ok {
			path = p
			fmt.Sscanf(m, "%o", &mode)
		}
		add(path, mode, tree[name])
	}
	if err := errors.Join(w.Close(), z.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// tree reads what is live.
func (s *site) tree() files {
	s.Helper()
	root, err := filepath.EvalSymlinks(s.target())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		s.Fatal(err)
	}
	got := files{}
	err = filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, _ := filepath.Rel(root, p)
		info, err := d.Info()
		if err != nil {
			return err
		}
		content, err := os.ReadFile(p)
		if info.Mode().Perm() != 0o644 {
			rel += fmt.Sprintf(" %o", info.Mode().Perm())
		}
		got[rel] = string(content)
		return err
	})
	if err != nil {
		s.Fatal(err)
	}
	return got
}

func (s *site) is(want files) {
	s.Helper()
	if got := s.tree(); !maps.Equal(got, want) {
		s.Errorf("live is\n%v\nnot\n%v", got, want)
	}
}

func (s *site) apply(path string) *update.Result {
	s.Helper()
	r, err := s.engine().Apply(context.Background(), update.Request{Path: path}, nil)
	if err != nil {
		s.Fatal(err)
	}
	return r
}

// unchanged runs something that has to leave everything as it is.
func (s *site) unchanged(what string, fn func() error) error {
	s.Helper()
	before, store := s.tree(), s.store()
	err := fn()
	if after := s.tree(); !maps.Equal(before, after) {
		s.Errorf("%s: live is %v, before %v", what, after, before)
	}
	if after := s.store(); !slices.Equal(store, after) {
		s.Errorf("%s: the store has\n%q, before\n%q", what, after, store)
	}
	return err
}

// store lists the store, but for directories of blobs and locks.
func (s *site) store() (list []string) {
	dir := s.dir + "/app.store"
	_ = filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		rel, _ := filepath.Rel(dir, p)
		if err == nil && !(d.IsDir() && strings.HasPrefix(rel, "blobs")) && !strings.HasPrefix(rel, "locks") {
			list = append(list, rel)
		}
		return nil
	})
	return list
}

// verified proves all generations, and that nothing is left behind.
func (s *site) verified() {
	s.Helper()
	e := s.engine()
	numbers, err := e.Store().Numbers()
	if err != nil {
		s.Fatal(err)
	}
	v, err := e.Store().Verify(context.Background(), numbers, nil)
	if err != nil {
		s.Fatal(err)
	}
	for _, d := range v.Differences {
		if d.Serious() {
			s.Errorf("verify: %+v", d)
		}
	}
	for _, p := range []string{"/generations/*.partial", "/tmp/*", "/pending"} {
		if left, _ := filepath.Glob(s.dir + "/app.store" + p); len(left) > 0 {
			s.Errorf("left behind: %q", left)
		}
	}
}

func TestApplyAndRollback(t *testing.T) {
	s := newSite(t)
	s.apply(s.pack(1, "", files{"bin/a 755": "one", "b": "same"}))
	r := s.apply(s.pack(2, "", files{"bin/a 755": "two"}))
	s.is(files{"bin/a 755": "two", "b": "same"})
	if !r.Live || r.From != 1 || r.Generation.Number != 2 {
		t.Errorf("%+v", r)
	}
	if r, err := s.engine().Rollback(context.Background(), 0, nil); err != nil || r.Generation.Number != 1 {
		t.Fatalf("%+v, %v", r, err)
	}
	s.is(files{"bin/a 755": "one", "b": "same"})
	if _, err := s.engine().Rollback(context.Background(), 0, nil); err == nil {
		t.Error("went back beyond the first")
	}
	s.verified()
	list, err := s.engine().History(context.Background(), 0)
	if err != nil || len(list) != 3 || list[2].Kind != update.EventRollback || list[2].From != 2 || list[2].To != 1 {
		t.Errorf("%+v, %v", list, err)
	}
}

func TestWhatIsNotTrusted(t *testing.T) {
	s := newSite(t)
	s.apply(s.pack(5, "", files{"a": "1"}))
	rel := trust.Release{Name: "platform", Version: "1.6", Sequence: 6, Channel: "stable", Expires: s.now.AddDate(0, 1, 0)}
	with := func(change func(*trust.Release)) trust.Release { r := rel; change(&r); return r }
	for name, test := range map[string]struct {
		path func() string
		is   error
		code trust.Code
	}{
		"older": {func() string { return s.pack(4, "", files{"a": "0"}) }, update.ErrDowngrade, ""},
		"expired": {func() string {
			return s.packAs(with(func(r *trust.Release) { r.Expires = s.now }), "", files{"a": "0"})
		}, nil, trust.CodeExpired},
		"channel": {func() string {
			return s.packAs(with(func(r *trust.Release) { r.Channel = "testing" }), "", files{"a": "0"})
		}, update.ErrChannel, ""},
		"itself": {func() string {
			return s.packAs(with(func(r *trust.Release) { r.Name = "mobileops" }), "", files{"a": "0"})
		}, update.ErrName, ""},
		"manifest": {func() string { return s.pack(6, "name: other\n", files{"a": "0"}) }, nil, ""},
		"changed": {func() string {
			p := s.pack(6, "", files{"a": "0", "large": strings.Repeat("x", 10_000)})
			other := archive(s, "", files{"a": "1", "large": strings.Repeat("x", 10_000)})
			if err := os.WriteFile(p, other, 0o644); err != nil {
				t.Fatal(err)
			}
			return p
		}, nil, trust.CodeBadSignature},
		"unsigned": {func() string {
			p := s.pack(6, "", files{"a": "0"})
			if err := os.Remove(p + ".minisig"); err != nil {
				t.Fatal(err)
			}
			return p
		}, nil, trust.CodeUnsigned},
	} {
		path := test.path()
		err := s.unchanged(name, func() error {
			_, err := s.engine().Apply(context.Background(), update.Request{Path: path}, nil)
			return err
		})
		switch {
		case err == nil:
			t.Errorf("%s: it was applied", name)
		case test.is != nil && !errors.Is(err, test.is), test.code != "" && trust.CodeOf(err) != test.code:
			t.Errorf("%s: %v", name, err)
		}
	}
	// Losing state.db opens no way back while a generation knows better.
	if err := os.RemoveAll(s.dir + "/state"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.engine().Apply(context.Background(), update.Request{Path: s.pack(4, "", files{"a": "0"})}, nil); !errors.Is(err, update.ErrDowngrade) {
		t.Errorf("without state.db: %v", err)
	}
	s.verified()
}

func TestTheClockWentBack(t *testing.T) {
	s := newSite(t)
	s.apply(s.pack(1, "", files{"a": "1"}))
	old := s.packAs(trust.Release{Name: "platform", Version: "2", Sequence: 2, Channel: "stable", Expires: s.now.Add(-time.Hour)}, "", files{"a": "2"})
	s.now = s.now.Add(-48 * time.Hour)
	if _, err := s.engine().Apply(context.Background(), update.Request{Path: old}, nil); trust.CodeOf(err) != trust.CodeExpired {
		t.Errorf("it had expired before the clock went back: %v", err)
	}
}

func TestStageAndActivate(t *testing.T) {
	s := newSite(t)
	s.apply(s.pack(1, "", files{"a": "1"}))
	r, err := s.engine().Apply(context.Background(), update.Request{Path: s.pack(2, "", files{"a": "2"}), StageOnly: true}, nil)
	if err != nil || r.Live {
		t.Fatalf("%+v, %v", r, err)
	}
	s.is(files{"a": "1"})
	if _, err := s.engine().Rollback(context.Background(), 2, nil); err == nil {
		t.Error("went back to what was never live")
	}
	if r, err := s.engine().Activate(context.Background(), 0, nil); err != nil || r.Generation.Number != 2 {
		t.Fatalf("%+v, %v", r, err)
	}
	s.is(files{"a": "2"})
	if _, err := s.engine().Activate(context.Background(), 0, nil); err == nil {
		t.Error("nothing is staged, and it was activated")
	}
	// What was staged long ago may no longer be installed.
	r, err = s.engine().Apply(context.Background(), update.Request{Path: s.pack(3, "", files{"a": "3"}), StageOnly: true}, nil)
	if err != nil {
		t.Fatal(err)
	}
	s.now = s.now.AddDate(0, 2, 0)
	if _, err := s.engine().Activate(context.Background(), r.Generation.Number, nil); err == nil {
		t.Error("it had expired")
	}
	s.is(files{"a": "2"})
}

// TestRollbackGoesToWhatWasBefore: which need not be what the current one was
// made from.
func TestRollbackGoesToWhatWasBefore(t *testing.T) {
	s := newSite(t)
	for n := uint64(1); n <= 3; n++ {
		s.apply(s.pack(n, "", files{"a": fmt.Sprint(n)}))
	}
	if _, err := s.engine().Activate(context.Background(), 1, nil); err != nil {
		t.Fatal(err)
	}
	back := func(want int) {
		t.Helper()
		if r, err := s.engine().Rollback(context.Background(), 0, nil); err != nil || r.Generation.Number != want {
			t.Errorf("%+v, %v", r, err)
		}
	}
	back(3)
	back(2)
	back(1)
	if _, err := s.engine().Rollback(context.Background(), 0, nil); err == nil {
		t.Error("went back in a circle")
	}
	if err := os.RemoveAll(s.dir + "/state"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.engine().Activate(context.Background(), 3, nil); err != nil {
		t.Fatal(err)
	}
	back(1)
}

func TestBackupAndPrune(t *testing.T) {
	s := newSite(t)
	s.apply(s.pack(1, "", files{"a": "1"}))
	if err := os.WriteFile(s.target()+"/own", []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	g, err := s.engine().Backup(context.Background(), "before the audit", nil)
	if err != nil || g.Number != 2 {
		t.Fatalf("%+v, %v", g, err)
	}
	for n := uint64(2); n < 8; n++ {
		s.apply(s.pack(n, "kind: full\n", files{"a": fmt.Sprint(n)}))
	}
	p, err := s.engine().Prune(context.Background(), 1, nil)
	if err != nil || len(p.Generations) == 0 || slices.Contains(p.Generations, 2) {
		t.Errorf("%+v, %v", p, err)
	}
	if _, err := s.engine().Activate(context.Background(), 2, nil); err != nil {
		t.Fatal(err)
	}
	s.is(files{"a": "1", "own": "x"})
	s.verified()
}
