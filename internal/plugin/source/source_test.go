package source

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/trust"
	"github.com/zeebo/blake3"
)

var now = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

func newSigner(t testing.TB) trust.Signer {
	t.Helper()
	secret, _, err := trust.SecretKeyFile(nil)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "team.key")
	if err := os.WriteFile(path, secret, 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := trust.OpenSigner(t.Context(), path, nil)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func newKeys(t testing.TB, signers ...trust.Signer) *trust.Keys {
	t.Helper()
	k, err := trust.OpenKeys(filepath.Join(t.TempDir(), "plugin-keys"))
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range signers {
		if _, err := k.Add(s.Public(), trust.Scope{}); err != nil {
			t.Fatal(err)
		}
	}
	return k
}

// pkg is what passes for a package here: it begins like zstd.
func pkg(size int, seed string) []byte {
	b := append([]byte{0x28, 0xb5, 0x2f, 0xfd}, bytes.Repeat([]byte(seed), size/max(1, len(seed))+1)...)
	return b[:size]
}

func digestOf(b []byte) string { return fmt.Sprintf("%x", blake3.Sum256(b)) }

// publisher is a directory with packages and an index, and who signs it.
type publisher struct {
	t      testing.TB
	dir    string
	signer trust.Signer
	needs  map[string]string // min_version by file name
}

func newPublisher(t testing.TB) *publisher {
	return &publisher{t: t, dir: t.TempDir(), signer: newSigner(t), needs: map[string]string{}}
}

// add puts NAME-VERSION into the directory; its sequence is the last number of
// the version.
func (p *publisher) add(name, version string, content []byte) {
	p.t.Helper()
	if err := os.WriteFile(filepath.Join(p.dir, name+"-"+version+".plugin.tar.zst"), content, 0o644); err != nil {
		p.t.Fatal(err)
	}
}

func (p *publisher) describe(_ context.Context, path string) (Described, error) {
	base := strings.TrimSuffix(filepath.Base(path), ".plugin.tar.zst")
	at := strings.LastIndexByte(base, '-')
	d := Described{Name: base[:at], Version: base[at+1:], Summary: "Does what " + base[:at] + " does", MinVersion: p.needs[filepath.Base(path)]}
	_, err := fmt.Sscanf(d.Version[strings.LastIndexByte(d.Version, '.')+1:], "%d", &d.Sequence)
	return d, err
}

func (p *publisher) publish() *Document {
	p.t.Helper()
	doc, err := MakeIndex(p.t.Context(), p.dir, PublishOptions{Signer: p.signer, Describe: p.describe, Now: now})
	if err != nil {
		p.t.Fatal(err)
	}
	return doc
}

// sign signs an index of any content, as of a serial number and an end.
func (p *publisher) sign(data []byte, serial uint64, expires time.Time) {
	p.t.Helper()
	sig, err := trust.SignPackage(p.t.Context(), p.signer, bytes.NewReader(data), trust.Release{Name: IndexRelease, Version: fmt.Sprint(serial), Sequence: serial, Channel: IndexChannel, Expires: expires}, "")
	if err != nil {
		p.t.Fatal(err)
	}
	p.put(IndexName, data)
	p.put(IndexName+".minisig", sig)
}

func (p *publisher) put(name string, data []byte) {
	p.t.Helper()
	if err := os.WriteFile(filepath.Join(p.dir, name), data, 0o644); err != nil {
		p.t.Fatal(err)
	}
}

func (p *publisher) get(name string) []byte {
	p.t.Helper()
	b, err := os.ReadFile(filepath.Join(p.dir, name))
	if err != nil {
		p.t.Fatal(err)
	}
	return b
}

func (p *publisher) serve() *httptest.Server {
	s := httptest.NewServer(http.FileServer(http.Dir(p.dir)))
	p.t.Cleanup(s.Close)
	return s
}

// options are for a host that trusts p, with one index called corp.
func (p *publisher) options(url string) Options {
	return Options{Keys: newKeys(p.t, p.signer), Indexes: []Index{{Name: "corp", URL: url}}, CacheDir: filepath.Join(p.t.TempDir(), "cache"),
		TempDir: p.t.TempDir(), Product: "1.0.0", Now: func() time.Time { return now.Add(time.Hour) }}
}

func wantCode(t testing.TB, err error, code Code, kind failure.Kind) {
	t.Helper()
	if CodeOf(err) != code || failure.KindOf(err) != kind {
		t.Errorf("%v: code %q, status %d; want %q, %d", err, CodeOf(err), failure.KindOf(err).Status(), code, kind.Status())
	}
}

// holds fails unless found has the content, and is gone when it is closed.
func holds(t testing.TB, found *Found, err error, content []byte, temp string) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	f, err := found.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var b bytes.Buffer
	if _, err := b.ReadFrom(f); err != nil || !bytes.Equal(b.Bytes(), content) {
		t.Errorf("%d bytes of %d, %v", b.Len(), len(content), err)
	}
	if found.Digest != digestOf(content) || found.Size != int64(len(content)) {
		t.Errorf("%+v", found)
	}
	if st, err := f.Stat(); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", st.Mode(), err)
	}
	if err := found.Close(); err != nil {
		t.Error(err)
	}
	if err := found.Close(); err != nil {
		t.Errorf("closed twice: %v", err)
	}
	empty(t, temp)
}

func empty(t testing.TB, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) > 0 {
		t.Errorf("%v is left in %s, %v", entries, dir, err)
	}
}

func TestLocal(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	file := filepath.Join(dir, "x-1.0.plugin.tar.zst")
	if err := os.WriteFile(file, []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "tree"), 0o755); err != nil {
		t.Fatal(err)
	}
	for spec, want := range map[string]Found{
		file: {Kind: File, Path: file}, "x-1.0.plugin.tar.zst": {Kind: File, Path: file}, "./x-1.0.plugin.tar.zst": {Kind: File, Path: file},
		"file://" + file: {Kind: File, Path: file}, "./tree": {Kind: Directory, Path: filepath.Join(dir, "tree")}, "tree/": {Kind: Directory, Path: filepath.Join(dir, "tree")}, ".": {Kind: Directory, Path: dir},
	} {
		found, err := Resolve(t.Context(), spec, Options{})
		if err != nil || found.Kind != want.Kind || found.Path != want.Path || found.Spec != spec {
			t.Errorf("%s: %+v, %v", spec, found, err)
			continue
		}
		if err := found.Close(); err != nil {
			t.Error(err)
		}
	}
	if _, err := os.Stat(file); err != nil {
		t.Errorf("the operator's own file is gone: %v", err)
	}
	_, err := Resolve(t.Context(), "tree", Options{}) // a name, whatever lies here
	wantCode(t, err, CodeNoIndex, failure.NotReady)
	_, err = Resolve(t.Context(), "./missing", Options{})
	wantCode(t, err, CodeMissing, failure.Failed)
	_, err = Resolve(t.Context(), "/dev/null", Options{})
	wantCode(t, err, CodeSpec, failure.Usage)
}

func TestSpecs(t *testing.T) {
	for spec, code := range map[string]Code{
		"": CodeSpec, "a\nb": CodeSpec, strings.Repeat("x", 3000): CodeSpec, "ftp://h/x": CodeSpec, "UPPER": CodeSpec, "name@": CodeSpec, "name@IN": CodeSpec, "a b": CodeSpec, "-x": CodeSpec,
		"https://": CodeSpec, "https://u:p@h/x": CodeSpec, "http://example.org/x": CodePlainHTTP, "https://h/x#sha256=1": CodeSpec, "https://h/x#blake3=zz": CodeSpec,
		"oci://": CodeSpec, "oci://h": CodeSpec, "oci://h/r": CodeSpec, "oci://u:p@h/r:1": CodeSpec, "oci://h/UP:1": CodeSpec, "oci://h/r@sha256:1": CodeSpec, "oci://h/r@sha512:" + strings.Repeat("a", 128): CodeSpec,
		"file://host/x": CodeSpec, "name@unknown": CodeNoIndex,
	} {
		_, err := Resolve(t.Context(), spec, Options{Indexes: []Index{{Name: "corp", URL: "/nowhere"}}})
		wantCode(t, err, code, code.kind())
		if err != nil && strings.Contains(err.Error(), "u:p") {
			t.Errorf("the message has the password: %v", err)
		}
	}
	_, err := Resolve(t.Context(), "https://h/x", Options{Offline: true})
	wantCode(t, err, CodeUnreachable, failure.Failed)
	_, err = Resolve(t.Context(), "oci://h/x:1", Options{Offline: true})
	wantCode(t, err, CodeUnreachable, failure.Failed)
}

func TestKindsOfErrors(t *testing.T) {
	err := &Error{Code: CodeRollback, Msg: "a", Hint: "c", Err: errors.New("b")}
	if err.Error() != "a: b (c)" || failure.KindOf(fmt.Errorf("x: %w", err)) != failure.Untrustworthy || CodeOf(fmt.Errorf("x: %w", err)) != CodeRollback || CodeOf(errors.New("x")) != "" {
		t.Errorf("%v", err)
	}
}
