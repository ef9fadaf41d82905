package repo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/state"
	"github.com/mobileops/mobileops/internal/trust"
	"github.com/theupdateframework/go-tuf/v2/metadata"
)

// world is a publisher, a web server in front of its directory, and a host.
type world struct {
	t     *testing.T
	ctx   context.Context
	clock time.Time
	keys  map[string]trust.Signer
	pub   *Publisher
	dir   string // of the repository
	srv   *httptest.Server
	// serve, when it is not nil, answers instead of the directory.
	serve  http.HandlerFunc
	asked  []string
	state  string // directory of the host
	limits Limits
	source string // "": the web server
}

func newKey(t testing.TB) trust.Signer {
	t.Helper()
	secret, _, err := trust.SecretKeyFile(nil)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(path, secret, 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := trust.OpenSigner(t.Context(), path, nil)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// newWorld makes a repository with a key for each role, and two packages.
func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{
		t: t, ctx: t.Context(), clock: time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC), keys: map[string]trust.Signer{},
		dir: filepath.Join(t.TempDir(), "repository"), state: filepath.Join(t.TempDir(), "state"),
	}
	w.pub = OpenPublisher(w.dir, w.now)
	opts := InitOptions{Keys: map[string][]trust.Signer{}}
	for _, role := range Roles() {
		w.keys[role] = newKey(t)
		opts.Keys[role] = []trust.Signer{w.keys[role]}
	}
	if err := w.pub.Init(w.ctx, opts); err != nil {
		t.Fatal(err)
	}
	w.add("1.0", 1, []byte("first"))
	w.add("1.1", 2, bytes.Repeat([]byte("second"), 100000))
	w.publish()
	w.srv = httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		w.asked = append(w.asked, r.URL.Path)
		if w.serve != nil {
			w.serve(rw, r)
			return
		}
		w.file(rw, r)
	}))
	t.Cleanup(w.srv.Close)
	return w
}

func (w *world) now() time.Time { return w.clock }

// file is what a plain web server does.
func (w *world) file(rw http.ResponseWriter, r *http.Request) {
	http.FileServer(http.Dir(w.dir)).ServeHTTP(rw, r)
}

func (w *world) signers(role string) ([]trust.Signer, error) {
	return []trust.Signer{w.keys[role]}, nil
}

func release(version string, sequence uint64) trust.Release {
	return trust.Release{Name: "platform", Version: version, Sequence: sequence, Channel: "stable", Expires: time.Date(2027, 6, 1, 0, 0, 0, 0, time.UTC)}
}

func (w *world) add(version string, sequence uint64, content []byte) *Staged {
	w.t.Helper()
	pkg := filepath.Join(w.t.TempDir(), "platform-"+version+".tar.zst")
	if err := os.WriteFile(pkg, content, 0o600); err != nil {
		w.t.Fatal(err)
	}
	sig, err := trust.SignPackage(w.ctx, w.keys["targets"], bytes.NewReader(content), release(version, sequence), "")
	if err == nil {
		err = os.WriteFile(trust.SignaturePath(pkg), sig, 0o600)
	}
	var s *Staged
	if err == nil {
		s, err = w.pub.Add(w.ctx, pkg, AddOptions{Severity: "critical"})
	}
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

func (w *world) publish() *Publication {
	w.t.Helper()
	p, err := w.pub.Publish(w.ctx, PublishOptions{Signers: w.signers})
	if err != nil {
		w.t.Fatal(err)
	}
	return p
}

func (w *world) pin() []byte {
	data, err := os.ReadFile(w.pub.RootPath())
	if err != nil {
		w.t.Fatal(err)
	}
	return data
}

// host is a new process on the host.
func (w *world) host() *Client {
	w.t.Helper()
	source := w.source
	if source == "" {
		source = w.srv.URL
	}
	return w.hostWith(Options{Source: source, Root: w.pin()})
}

func (w *world) hostWith(o Options) *Client {
	w.t.Helper()
	o.Dir, o.State = filepath.Join(w.state, "update"), state.New(w.state, state.Options{})
	o.Now, o.Limits = w.now, w.limits
	c, err := Open(o)
	if err != nil {
		w.t.Fatal(err)
	}
	return c
}

// refreshed is a host that has seen what is published.
func (w *world) refreshed() *Client {
	w.t.Helper()
	c := w.host()
	if _, err := c.Refresh(w.ctx); err != nil {
		w.t.Fatal(err)
	}
	return c
}

func (w *world) available(c *Client) []Target {
	w.t.Helper()
	list, err := c.Available(w.ctx)
	if err != nil {
		w.t.Fatal(err)
	}
	return list
}

// copyDir is a copy of a directory, such as the one that an attacker keeps.
func copyDir(t testing.TB, from string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "copy")
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
	return to
}

func (w *world) local(name string) string {
	return filepath.Join(w.state, "update", "metadata", name)
}

// tree is every file below a directory with its content.
func tree(t testing.TB, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(dir, func(p string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(p)
		all[strings.TrimPrefix(p, dir)] = string(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// refused makes sure that an error is one of a repository, of a code and of the
// kind that goes with it.
func refused(t testing.TB, err error, code Code, kind failure.Kind) *Error {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) || e.Code != code || failure.KindOf(err) != kind {
		t.Fatalf("got %q (%q, status %d), want %q with status %d", err, CodeOf(err), failure.KindOf(err).Status(), code, kind.Status())
	}
	return e
}

// forge changes a file of metadata and signs it.
func forge[T metadata.Roles](w *world, name string, change func(*metadata.Metadata[T]), signers ...trust.Signer) {
	w.t.Helper()
	var m metadata.Metadata[T]
	if _, err := m.FromFile(filepath.Join(w.dir, "metadata", name)); err != nil {
		w.t.Fatal(err)
	}
	change(&m)
	if len(signers) > 0 {
		if err := sign(w.ctx, &m, signers); err != nil {
			w.t.Fatal(err)
		}
	}
	if err := m.ToFile(filepath.Join(w.dir, "metadata", name), false); err != nil {
		w.t.Fatal(err)
	}
}

func noise(n int) []byte {
	r := rand.New(rand.NewPCG(1, uint64(n)))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

func mustWrite(t testing.TB, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
}

func describe(m map[string]string) string {
	var b strings.Builder
	for _, k := range sortedKeys(m) {
		fmt.Fprintf(&b, "%s (%d bytes)\n", k, len(m[k]))
	}
	return b.String()
}

func sortedKeys(m map[string]string) []string {
	keys := []string{}
	for k := range maps.Keys(m) {
		keys = append(keys, k)
	}
	return keys
}
