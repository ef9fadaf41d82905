package vulndb

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/scan/vulndb/vulndbtest"
	"github.com/mobileops/mobileops/internal/state"
)

var now = time.Date(2026, 5, 20, 12, 0, 0, 0, time.UTC)

// newStore returns an empty store of a state directory, whose clock stands.
func newStore(t testing.TB, dir string, change ...func(*Options)) *Store {
	t.Helper()
	o := Options{
		Dir: filepath.Join(dir, "scan", "vulndb"), State: state.New(dir, state.Options{LockTimeout: 60 * time.Second}),
		Now: func() time.Time { return now }, MaxAge: 7 * 24 * time.Hour, By: "tester",
	}
	for _, fn := range change {
		fn(&o)
	}
	return New(o)
}

// many are n advisories.
func many(n int) (list []vulndbtest.Advisory) {
	list = vulndbtest.Sample()
	for i := len(list); i < n; i++ {
		list = append(list, vulndbtest.Advisory{Bucket: "debian 12", Package: fmt.Sprintf("pkg%d", i/3), ID: fmt.Sprintf("CVE-2025-%05d", i), Fixed: "1.0-1", Severity: "LOW", Title: strings.Repeat("x", i%500)})
	}
	return list
}

// written is db.tar.gz of a database that was built hours before now.
func written(t testing.TB, hours int, list ...vulndbtest.Advisory) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "db.tar.gz")
	if err := os.WriteFile(path, vulndbtest.Archive(t, now.Add(-time.Duration(hours)*time.Hour), list...), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func imported(t testing.TB, s *Store, path string) *Result {
	t.Helper()
	res, err := s.Import(t.Context(), path, Terms{})
	if err != nil {
		t.Fatal(err)
	}
	return res
}

// wantKind wants an error of a kind that has all of the words.
func wantKind(t testing.TB, err error, k failure.Kind, words ...string) {
	t.Helper()
	if err == nil || failure.KindOf(err) != k {
		t.Fatalf("the error is of kind %d, not %d: %v", failure.KindOf(err), k, err)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("%q is not in: %v", w, err)
		}
	}
}

// noPartial wants nothing to be left of what was interrupted.
func noPartial(t testing.TB, s *Store) {
	t.Helper()
	_ = filepath.WalkDir(s.opts.Dir, func(path string, _ os.DirEntry, _ error) error {
		if strings.HasPrefix(filepath.Base(path), partial) {
			t.Errorf("%s is left", path)
		}
		return nil
	})
}

func TestImportAndOpen(t *testing.T) {
	s := newStore(t, t.TempDir())
	_, err := s.Open(t.Context())
	wantKind(t, err, failure.NotReady, "there is no vulnerability database", "mobileops vulndb import FILE")
	if _, err := s.Verify(t.Context()); !errors.Is(err, ErrMissing) {
		t.Errorf("verify of nothing: %v", err)
	}
	path := written(t, 2, many(40)...)
	g := imported(t, s, path).Generation
	if g.Number != 1 || g.Kind != Vulnerabilities || g.Advisories != 40 || g.Vulnerabilities != 40 || g.Ecosystems["debian 12"] != 38 || g.Ecosystems["npm"] != 1 ||
		len(g.Sources) != 3 || g.Origin != path || g.By != "tester" || !g.UpdatedAt.Equal(now.Add(-2*time.Hour)) || g.Schema != 2 || !g.Current {
		t.Errorf("%+v", g)
	}
	l, err := s.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Release()
	for _, name := range []string{"trivy.db", "metadata.json"} {
		if _, err := os.Stat(filepath.Join(l.Dir, name)); err != nil {
			t.Error(err)
		}
	}
	if l.JavaDir != "" || l.Generation.Number != 1 {
		t.Errorf("%+v", l)
	}
	if to, err := os.Readlink(filepath.Join(s.Dir(), "current")); err != nil || to != "generations/1" {
		t.Errorf("current leads to %q, %v", to, err)
	}
	list, err := s.Verify(t.Context())
	if err != nil || len(list) != 1 || list[0].Problem != "" {
		t.Errorf("%+v, %v", list, err)
	}
	// The same once more changes nothing.
	if res := imported(t, s, path); !res.Unchanged || res.Number != 1 {
		t.Errorf("%+v", res)
	}
	noPartial(t, s)
}

// layoutDir writes an OCI layout whose only layer is content.
func layoutDir(t testing.TB, content []byte, mediaType string, change func(name string, data []byte) []byte) string {
	t.Helper()
	dir := t.TempDir()
	put := func(name string, data []byte) string {
		sum := sha256.Sum256(data)
		if name == "" {
			name = "blobs/sha256/" + hex.EncodeToString(sum[:])
		}
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if change != nil {
			data = change(name, data)
		}
		if err := os.WriteFile(path, data, 0o644); err != nil {
			t.Fatal(err)
		}
		return "sha256:" + hex.EncodeToString(sum[:])
	}
	layer := put("", content)
	config := put("", []byte("{}"))
	manifest := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.aquasec.trivy.config.v1+json","digest":%q,"size":2},"layers":[{"mediaType":%q,"digest":%q,"size":%d,"annotations":{"org.opencontainers.image.title":"db.tar.gz"}}]}`,
		config, mediaType, layer, len(content))
	m := put("", manifest)
	put("index.json", fmt.Appendf(nil, `{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":%q,"size":%d,"annotations":{"org.opencontainers.image.ref.name":"2"}}]}`, m, len(manifest)))
	put("oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`))
	return dir
}

// tarred packs a tree as tar does.
func tarred(t testing.TB, dir string, packed bool) string {
	t.Helper()
	var out bytes.Buffer
	tw := tar.NewWriter(&out)
	if err := tw.AddFS(os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	if err := tw.Close(); err != nil {
		t.Fatal(err)
	}
	data := out.Bytes()
	if packed {
		var z bytes.Buffer
		zw := gzip.NewWriter(&z)
		_, _ = zw.Write(data)
		_ = zw.Close()
		data = z.Bytes()
	}
	path := filepath.Join(t.TempDir(), "layout.tar")
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// sqlite is as much of a Java database as can be told apart without SQLite.
func sqlite() []byte {
	b := make([]byte, 2*4096)
	copy(b, "SQLite format 3\x00")
	binary.BigEndian.PutUint16(b[16:], 4096)
	binary.BigEndian.PutUint32(b[24:], 7)
	binary.BigEndian.PutUint32(b[28:], 2)
	binary.BigEndian.PutUint32(b[92:], 7)
	b[100] = 0x0d
	copy(b[3000:], "CREATE TABLE artifacts(id INTEGER)CREATE TABLE indices(artifact_id INTEGER)")
	return b
}

func javaDir(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	for name, data := range map[string][]byte{"trivy-java.db": sqlite(), "metadata.json": []byte(`{"Version":1,"UpdatedAt":"2026-05-19T00:00:00Z","NextUpdate":"2026-05-22T00:00:00Z"}`)} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// TestForms takes in every form that operators have.
func TestForms(t *testing.T) {
	data := vulndbtest.Archive(t, now.Add(-time.Hour), many(10)...)
	plain := t.TempDir()
	vulndbtest.WriteAt(t, plain, now.Add(-time.Hour), many(10)...)
	pulled := t.TempDir()
	if err := os.WriteFile(filepath.Join(pulled, "db.tar.gz"), data, 0o644); err != nil {
		t.Fatal(err)
	}
	layout := layoutDir(t, data, LayerType, nil)
	for name, path := range map[string]string{
		"archive": filepath.Join(pulled, "db.tar.gz"), "directory of oras pull": pulled, "directory": plain, "bare": filepath.Join(plain, "trivy.db"),
		"layout": layout, "tar of a layout": tarred(t, layout, false), "packed tar of a layout": tarred(t, layout, true), "tar": tarred(t, plain, false),
		"java": javaDir(t), "tar of java": tarred(t, javaDir(t), true),
	} {
		t.Run(name, func(t *testing.T) {
			s := newStore(t, t.TempDir())
			g := imported(t, s, path).Generation
			if strings.Contains(name, "java") != (g.Kind == Java) || g.Kind == Vulnerabilities && g.Advisories != 10 {
				t.Errorf("%+v", g)
			}
			l, err := s.Open(t.Context())
			if g.Kind == Java {
				wantKind(t, err, failure.NotReady)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			l.Release()
		})
	}
	cache := t.TempDir()
	if err := os.Rename(plain, filepath.Join(cache, "db")); err != nil {
		t.Fatal(err)
	}
	_, err := newStore(t, t.TempDir()).Import(t.Context(), cache, Terms{})
	wantKind(t, err, failure.Usage, "a level deeper", filepath.Join(cache, "db"))
}

// TestRefused takes in nothing that is not a whole, newer database.
func TestRefused(t *testing.T) {
	s := newStore(t, t.TempDir())
	good := imported(t, s, written(t, 10, many(50)...))
	file := func(name string, data []byte) string {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, data, 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	tarOf := func(files map[string]string) string {
		dir := t.TempDir()
		for name, text := range files {
			if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		return tarred(t, dir, true)
	}
	data := vulndbtest.Archive(t, now.Add(-time.Hour), many(50)...)
	plain := t.TempDir()
	vulndbtest.WriteAt(t, plain, now.Add(-time.Hour), many(50)...)
	raw, err := os.ReadFile(filepath.Join(plain, "trivy.db"))
	if err != nil {
		t.Fatal(err)
	}
	meta := `{"Version":2,"UpdatedAt":"2026-05-20T11:00:00Z"}`
	var bomb bytes.Buffer
	zw := gzip.NewWriter(&bomb)
	tw := tar.NewWriter(zw)
	_ = tw.WriteHeader(&tar.Header{Name: "trivy.db", Mode: 0o644, Size: 300 << 20})
	for range 300 {
		_, _ = tw.Write(make([]byte, 1<<20))
	}
	_ = tw.Close()
	_ = zw.Close()
	var outside bytes.Buffer
	tw = tar.NewWriter(&outside)
	_ = tw.WriteHeader(&tar.Header{Name: "../trivy.db", Mode: 0o644, Size: 3})
	_, _ = tw.Write([]byte("abc"))
	_ = tw.Close()
	flip := func(b []byte, at int) []byte { b = slices.Clone(b); b[at] ^= 0x40; return b }
	u, k := failure.Untrustworthy, failure.Kind(failure.NotReady)
	for _, tc := range []struct {
		name, path string
		kind       failure.Kind
		words      string
	}{
		{"no file", filepath.Join(t.TempDir(), "none"), k, "no such file"},
		{"a pipe", "/dev/null", failure.Usage, "neither a file nor a directory"},
		{"nothing", file("db.tar.gz", nil), u, "empty"},
		{"a page", file("db.tar.gz", []byte("<html>404")), u, "it begins with"},
		{"no metadata", file("trivy.db", raw), u, "metadata.json is missing"},
		{"cut archive", file("db.tar.gz", data[:len(data)/2]), u, ""},
		{"flipped archive", file("db.tar.gz", flip(data, len(data)/2)), u, ""},
		{"bytes after it", file("db.tar.gz", append(slices.Clone(data), "more"...)), u, "after the end"},
		{"bomb", file("db.tar.gz", bomb.Bytes()), u, "bomb"},
		{"outside", file("x.tar", outside.Bytes()), u, "traversal"},
		{"no database", tarOf(map[string]string{"README": "x"}), u, "neither trivy.db nor trivy-java.db"},
		{"two databases", tarOf(map[string]string{"trivy.db": string(raw), "trivy-java.db": string(sqlite()), "metadata.json": meta}), u, "two databases"},
		{"two files of one", tarOf(map[string]string{"a/trivy.db": string(raw), "b/trivy.db": string(raw), "metadata.json": meta}), u, "two databases"},
		{"schema 1", tarOf(map[string]string{"trivy.db": string(raw), "metadata.json": `{"Version":1,"UpdatedAt":"2026-05-20T11:00:00Z"}`}), u, "schema 1"},
		{"no date", tarOf(map[string]string{"trivy.db": string(raw), "metadata.json": `{"Version":2}`}), u, "does not say when"},
		{"metadata of another kind", tarOf(map[string]string{"trivy.db": string(raw), "metadata.json": `[]`}), u, "metadata.json"},
		{"future", tarOf(map[string]string{"trivy.db": string(raw), "metadata.json": `{"Version":2,"UpdatedAt":"2027-05-20T11:00:00Z"}`}), u, "still to come"},
		{"cut database", tarOf(map[string]string{"trivy.db": string(raw[:len(raw)/3]), "metadata.json": meta}), u, "cut off"},
		{"no database at all", tarOf(map[string]string{"trivy.db": strings.Repeat("x", 9000), "metadata.json": meta}), u, "no file of bbolt"},
		{"empty", written(t, 1), u, "is empty"},
		{"cut java", tarOf(map[string]string{"trivy-java.db": string(sqlite()[:5000]), "metadata.json": `{"Version":1,"UpdatedAt":"2026-05-20T11:00:00Z"}`}), u, "cut off"},
		{"older", written(t, 11, many(50)...), u, "the current one is newer"},
		{"smaller", written(t, 1, many(20)...), u, "less than half of the 50"},
		{"signature without keys", "", k, "vulndb.keys"},
		{"layout of something else", layoutDir(t, data, "application/octet-stream", nil), u, "no layer is of type"},
		{"layout with a flipped layer", layoutDir(t, data, LayerType, func(name string, b []byte) []byte {
			if bytes.Equal(b, data) {
				return flip(b, len(b)-30)
			}
			return b
		}), u, ""},
		{"layout with a flipped manifest", layoutDir(t, data, LayerType, func(name string, b []byte) []byte {
			if bytes.Contains(b, []byte("db.tar.gz")) {
				return bytes.Replace(b, []byte("db.tar.gz"), []byte("db.tar.gy"), 1)
			}
			return b
		}), u, "its digest is another"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			terms := Terms{}
			if tc.path == "" {
				tc.path, terms.Signature = written(t, 1, many(50)...), "/nonexistent.minisig"
			}
			_, err := s.Import(t.Context(), tc.path, terms)
			wantKind(t, err, tc.kind, tc.words)
			l, err := s.Open(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer l.Release()
			if l.Generation.Number != good.Number {
				t.Errorf("generation %d is current", l.Generation.Number)
			}
			noPartial(t, s)
		})
	}
	// What is refused without being said is taken when it is.
	if res, err := s.Import(t.Context(), written(t, 1, many(20)...), Terms{AcceptSmaller: true}); err != nil || res.Number != 2 {
		t.Errorf("%+v, %v", res, err)
	}
	if res, err := s.Import(t.Context(), written(t, 11, many(50)...), Terms{AllowOlder: true}); err != nil || res.Number != 3 || res.Before.Number != 2 {
		t.Errorf("%+v, %v", res, err)
	}
}

func TestStale(t *testing.T) {
	dir := t.TempDir()
	imported(t, newStore(t, dir), written(t, 24, many(10)...))
	later := func(d time.Duration) func(*Options) {
		return func(o *Options) { o.Now = func() time.Time { return now.Add(d) } }
	}
	for d, want := range map[time.Duration]error{0: nil, 6 * 24 * time.Hour: nil, 6*24*time.Hour + time.Minute: ErrStale, -72 * time.Hour: ErrStale} {
		l, err := newStore(t, dir, later(d)).Open(t.Context())
		if !errors.Is(err, want) {
			t.Errorf("after %v: %v", d, err)
		}
		if err == nil {
			l.Release()
			continue
		}
		wantKind(t, err, failure.NotReady)
		st, serr := newStore(t, dir, later(d)).Status(t.Context())
		if !st.Stale || !errors.Is(serr, ErrStale) || st.Vulnerabilities.Number != 1 {
			t.Errorf("%+v, %v", st, serr)
		}
		l, err = newStore(t, dir, later(d), func(o *Options) { o.AllowStale = true }).Open(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		l.Release()
	}
}

func TestRollback(t *testing.T) {
	s := newStore(t, t.TempDir(), func(o *Options) { o.Keep = 3 })
	_, err := s.Rollback(t.Context(), Vulnerabilities, 0)
	wantKind(t, err, failure.NotReady)
	for i := range 3 {
		imported(t, s, written(t, 10-i, many(50+i)...))
	}
	res, err := s.Rollback(t.Context(), Vulnerabilities, 0)
	if err != nil || res.Number != 2 || res.Before.Number != 3 {
		t.Fatalf("%+v, %v", res, err)
	}
	if res, err = s.Rollback(t.Context(), Vulnerabilities, 1); err != nil || res.Number != 1 {
		t.Fatalf("%+v, %v", res, err)
	}
	_, err = s.Rollback(t.Context(), Vulnerabilities, 0)
	wantKind(t, err, failure.No, "none before")
	_, err = s.Rollback(t.Context(), Vulnerabilities, 9)
	wantKind(t, err, failure.No)
	_, err = s.Rollback(t.Context(), Vulnerabilities, 1)
	wantKind(t, err, failure.Busy)
	if to, _ := os.Readlink(filepath.Join(s.Dir(), "current")); to != "generations/1" {
		t.Error(to)
	}
	// One that is damaged is not gone to.
	damage(t, filepath.Join(s.path(Vulnerabilities, 3), "trivy.db"), func(b []byte) []byte { b[len(b)/2] ^= 1; return b })
	_, err = s.Rollback(t.Context(), Vulnerabilities, 3)
	wantKind(t, err, failure.Untrustworthy, "nothing was changed")
	list, err := s.List(t.Context(), Vulnerabilities)
	if err != nil || len(list) != 3 || list[0].Number != 3 || !list[2].Current {
		t.Errorf("%+v, %v", list, err)
	}
}

func TestKeep(t *testing.T) {
	s := newStore(t, t.TempDir())
	imported(t, s, written(t, 10, many(50)...))
	l, err := s.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		imported(t, s, written(t, 9-i, many(51+i)...))
	}
	numbers := func() (n []int) {
		list, err := s.List(t.Context(), Vulnerabilities)
		if err != nil {
			t.Fatal(err)
		}
		for _, g := range list {
			n = append(n, g.Number)
		}
		return n
	}
	if got := numbers(); !slices.Equal(got, []int{4, 3, 1}) { // 1 is open
		t.Errorf("%v", got)
	}
	if _, err := os.ReadFile(filepath.Join(l.Dir, "trivy.db")); err != nil {
		t.Error(err)
	}
	l.Release()
	res := imported(t, s, written(t, 5, many(60)...))
	if got := numbers(); !slices.Equal(got, []int{5, 4}) || !slices.Equal(res.Removed, []int{3, 1}) {
		t.Errorf("%v, removed %v", got, res.Removed)
	}
	if _, err := os.Stat(s.path(Vulnerabilities, 1)); !os.IsNotExist(err) {
		t.Error(err)
	}
	noPartial(t, s)
}

// damage changes the content of a file that nobody should change.
func damage(t testing.TB, path string, change func([]byte) []byte) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, change(data), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestDamage(t *testing.T) {
	for name, harm := range map[string]func(t *testing.T, dir string){
		"flipped": func(t *testing.T, dir string) {
			damage(t, dir+"/trivy.db", func(b []byte) []byte { b[9000] ^= 1; return b })
		},
		"truncated": func(t *testing.T, dir string) {
			damage(t, dir+"/trivy.db", func(b []byte) []byte { return b[:len(b)-5000] })
		},
		"removed": func(t *testing.T, dir string) {
			if err := os.Remove(dir + "/trivy.db"); err != nil {
				t.Fatal(err)
			}
		},
		"a directory": func(t *testing.T, dir string) {
			_ = os.Remove(dir + "/trivy.db")
			if err := os.Mkdir(dir+"/trivy.db", 0o700); err != nil {
				t.Fatal(err)
			}
		},
		"a link": func(t *testing.T, dir string) {
			if err := errors.Join(os.Rename(dir+"/trivy.db", dir+"/other"), os.Symlink("other", dir+"/trivy.db")); err != nil {
				t.Fatal(err)
			}
		},
		"metadata": func(t *testing.T, dir string) {
			damage(t, dir+"/metadata.json", func(b []byte) []byte { return bytes.Replace(b, []byte("2026"), []byte("2025"), 1) })
		},
		"gone": func(t *testing.T, dir string) {
			if err := os.RemoveAll(dir); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStore(t, t.TempDir())
			first := written(t, 5, many(50)...)
			imported(t, s, first)
			second := written(t, 3, many(60)...)
			imported(t, s, second)
			harm(t, s.path(Vulnerabilities, 2))
			_, err := s.Open(t.Context())
			wantKind(t, err, failure.Untrustworthy, "is damaged")
			st, err := s.Status(t.Context())
			wantKind(t, err, failure.Untrustworthy)
			if len(st.Problems) != 1 {
				t.Errorf("%q", st.Problems)
			}
			list, err := s.Verify(t.Context())
			wantKind(t, err, failure.Untrustworthy, "generation 2")
			if len(list) != 2 || list[0].Problem == "" || list[1].Problem != "" {
				t.Errorf("%+v", list)
			}
			// The same database mends it, or going back does.
			if res := imported(t, s, second); res.Unchanged || res.Number != 3 {
				t.Errorf("%+v", res)
			}
			l, err := s.Open(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			l.Release()
		})
	}
}

// TestMoved opens a database whose file looks different and is the same, such as
// after the state directory was copied to another disk.
func TestMoved(t *testing.T) {
	s := newStore(t, t.TempDir())
	g := imported(t, s, written(t, 5, many(50)...)).Generation
	damage(t, filepath.Join(s.path(Vulnerabilities, 1), "trivy.db"), func(b []byte) []byte { return b })
	for range 2 {
		l, err := s.Open(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		l.Release()
	}
	list, err := s.List(t.Context(), Vulnerabilities)
	if err != nil || list[0].Seen == g.Seen {
		t.Errorf("it is not remembered that the file was proved: %+v, %v", list[0], err)
	}
}

func TestInterrupted(t *testing.T) {
	s := newStore(t, t.TempDir())
	path := written(t, 5, many(50)...)
	for _, step := range []string{"swept", "staged", "filled", "sealed"} {
		ctx, cancel := context.WithCancel(t.Context())
		s.step = func(at string) {
			if at == step {
				cancel()
			}
		}
		if _, err := s.Import(ctx, path, Terms{}); failure.KindOf(err) != failure.Interrupted {
			t.Errorf("at %s: %v", step, err)
		}
		noPartial(t, s)
		if list, err := s.List(t.Context(), Vulnerabilities); err != nil || len(list) != 0 {
			t.Errorf("at %s: %v, %v", step, list, err)
		}
	}
}

func TestOneAtATime(t *testing.T) {
	s := newStore(t, t.TempDir())
	path := written(t, 5, many(50)...)
	s.step = func(at string) {
		if at == "filled" {
			_, err := newStore(t, s.opts.State.Dir()).Import(t.Context(), path, Terms{})
			wantKind(t, err, failure.Busy, "vulndb import")
		}
	}
	imported(t, s, path)
}

func TestMetadataJSONIsThatOfTrivy(t *testing.T) {
	g := Generation{Metadata: Metadata{Schema: 2, UpdatedAt: now}}
	data, err := json.Marshal(g)
	if err != nil || !bytes.Contains(data, []byte(`"updated":"2026-05-20T12:00:00Z"`)) {
		t.Errorf("%s, %v", data, err)
	}
}
