package vulndb

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/scan/vulndb/vulndbtest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/crypto/bcrypt"
	"oras.land/oras-go/v2"
	"oras.land/oras-go/v2/registry/remote"
	"oras.land/oras-go/v2/registry/remote/auth"
)

// served is docker-registry on loopback.
type served struct {
	host, dir, config string
	cmd               *exec.Cmd
}

func startRegistry(t *testing.T, section string) *served {
	t.Helper()
	if _, err := exec.LookPath("docker-registry"); err != nil {
		t.Skip("docker-registry is missing: nothing is pulled from a real registry")
	}
	// An address of loopback that nobody else uses, so that it can be started again
	// at the same place: a port of those that the kernel gives to nobody by itself, of
	// one of 16 million hosts.
	host := fmt.Sprintf("127.%d.%d.%d:%d", 1+rand.IntN(254), rand.IntN(256), 1+rand.IntN(254), 10000+rand.IntN(20000))
	r := &served{host: host, dir: t.TempDir()}
	r.config = filepath.Join(r.dir, "config.yml")
	text := fmt.Sprintf("version: 0.1\nlog: {level: info, accesslog: {disabled: true}}\nstorage: {filesystem: {rootdirectory: %s}}\nhttp: {addr: '%s'}\n%s", filepath.Join(r.dir, "data"), r.host, section)
	if err := os.WriteFile(r.config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	r.start(t)
	t.Cleanup(func() { r.stop() })
	return r
}

func (r *served) start(t *testing.T) {
	t.Helper()
	r.startUntil(t, time.Now().Add(3*time.Minute))
}

func (r *served) startUntil(t *testing.T, deadline time.Time) {
	t.Helper()
	log, err := os.Create(filepath.Join(r.dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	r.cmd = exec.Command("docker-registry", "serve", r.config)
	r.cmd.Stdout, r.cmd.Stderr, r.cmd.Dir = log, log, r.dir
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	r.cmd.Env = []string{"PATH=/usr/bin:/bin", "OTEL_TRACES_EXPORTER=none"}
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	listening := regexp.MustCompile(`listening on 127\.[0-9.]+:[0-9]+`)
	for ; ; time.Sleep(20 * time.Millisecond) {
		said, _ := os.ReadFile(filepath.Join(r.dir, "log"))
		switch {
		case listening.Match(said):
			return
		case time.Now().After(deadline):
			t.Fatalf("the registry does not listen: %s", said)
		case bytes.Contains(said, []byte("address already in use")): // by somebody who was given any port
			r.stop()
			time.Sleep(100 * time.Millisecond)
			r.startUntil(t, deadline)
			return
		}
	}
}

func (r *served) stop() {
	_ = r.cmd.Process.Kill()
	_ = r.cmd.Wait()
}

// push puts a database there, as Trivy's are, and returns the manifest's digest.
func (r *served) push(t *testing.T, name, mediaType string, data []byte, user string) string {
	t.Helper()
	repo, err := remote.NewRepository(r.host + "/" + name)
	if err != nil {
		t.Fatal(err)
	}
	repo.PlainHTTP = true
	if user != "" {
		u, p, _ := strings.Cut(user, ":")
		repo.Client = &auth.Client{Credential: auth.StaticCredential(r.host, auth.Credential{Username: u, Password: p})}
	}
	layer, err := oras.PushBytes(t.Context(), repo, mediaType, data)
	if err != nil {
		t.Fatal(err)
	}
	desc, err := oras.PackManifest(t.Context(), repo, oras.PackManifestVersion1_0, "application/vnd.aquasec.trivy.config.v1+json", oras.PackManifestOptions{Layers: []ocispec.Descriptor{layer}})
	if err != nil {
		t.Fatal(err)
	}
	if err := repo.Tag(t.Context(), desc, "2"); err != nil {
		t.Fatal(err)
	}
	return desc.Digest.String()
}

func TestPull(t *testing.T) {
	r := startRegistry(t, "")
	s := newStore(t, t.TempDir())
	digest := r.push(t, "security/trivy-db", LayerType, vulndbtest.Archive(t, now.Add(-9*time.Hour), many(500)...), "")
	ref := r.host + "/security/trivy-db:2"
	res, err := s.Pull(t.Context(), ref, PullOptions{})
	if err != nil || res.Number != 1 || res.Manifest != digest || res.Advisories != 500 || res.Origin != ref {
		t.Fatalf("%+v, %v", res, err)
	}
	if res, err = s.Pull(t.Context(), "oci://"+ref, PullOptions{}); err != nil || !res.Unchanged {
		t.Errorf("%+v, %v", res, err)
	}
	r.push(t, "security/trivy-db", LayerType, vulndbtest.Archive(t, now.Add(-8*time.Hour), many(510)...), "")
	if res, err = s.Pull(t.Context(), ref, PullOptions{}); err != nil || res.Number != 2 {
		t.Errorf("%+v, %v", res, err)
	}
	_, err = s.Pull(t.Context(), r.host+"/security/trivy-db@"+digest, PullOptions{})
	wantKind(t, err, failure.Untrustworthy, "the current one is newer")
	java, err := os.ReadFile(tarred(t, javaDir(t), true))
	if err != nil {
		t.Fatal(err)
	}
	r.push(t, "security/java", JavaLayerType, java, "")
	for _, want := range []bool{false, true} {
		if res, err = s.Pull(t.Context(), r.host+"/security/java:2", PullOptions{}); err != nil || res.Kind != Java || res.Number != 1 || res.Unchanged != want {
			t.Errorf("%+v, %v", res, err)
		}
	}
	r.push(t, "other", "application/octet-stream", []byte("x"), "")
	for spec, kind := range map[string]failure.Kind{
		r.host + "/none:2": failure.Failed, r.host + "/security/trivy-db:9": failure.Failed, r.host + "/other:2": failure.Untrustworthy,
		r.host + "/security/trivy-db": failure.Usage, "x": failure.Usage, "user:secret@" + ref: failure.Usage, "registry.example/x:2": failure.Failed,
		r.host + "/security/trivy-db@sha256:" + strings.Repeat("a", 64): failure.Failed,
	} {
		_, err := s.Pull(t.Context(), spec, PullOptions{Attempts: 1, Timeout: 20 * time.Second})
		wantKind(t, err, kind)
		if strings.Contains(err.Error(), "secret") {
			t.Errorf("a password is told: %v", err)
		}
	}
	_, err = s.Pull(t.Context(), "registry.example:80/x:2", PullOptions{Attempts: 1})
	wantKind(t, err, failure.Failed)
	noPartial(t, s)
	agree(t, s)
}

func TestPullWithPassword(t *testing.T) {
	hash, err := bcrypt.GenerateFromPassword([]byte("sesame"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	users := filepath.Join(t.TempDir(), "htpasswd")
	if err := os.WriteFile(users, append([]byte("ops:"), hash...), 0o600); err != nil {
		t.Fatal(err)
	}
	r := startRegistry(t, fmt.Sprintf("auth: {htpasswd: {realm: databases, path: %s}}\n", users))
	r.push(t, "db", LayerType, vulndbtest.Archive(t, now.Add(-9*time.Hour), many(50)...), "ops:sesame")
	s := newStore(t, t.TempDir())
	_, err = s.Pull(t.Context(), r.host+"/db:2", PullOptions{})
	wantKind(t, err, failure.NotAllowed, "--credentials")
	with := func(password string) PullOptions {
		return PullOptions{Credentials: func(_ context.Context, host string) (Credential, error) {
			if host != r.host {
				t.Errorf("asked for %s", host)
			}
			return Credential{Username: "ops", Password: password}, nil
		}}
	}
	_, err = s.Pull(t.Context(), r.host+"/db:2", with("wrong"))
	wantKind(t, err, failure.NotAllowed)
	if res, err := s.Pull(t.Context(), r.host+"/db:2", with("sesame")); err != nil || res.Number != 1 {
		t.Errorf("%+v, %v", res, err)
	}
}

// between passes requests on to a registry, and lets fn answer in its place.
func between(t *testing.T, r *served, fn func(w http.ResponseWriter, req *http.Request, pass func() *http.Response) bool) string {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		pass := func() *http.Response {
			out, err := http.NewRequestWithContext(req.Context(), req.Method, "http://"+r.host+req.URL.Path, nil)
			if err != nil {
				return nil
			}
			out.Header = req.Header.Clone()
			res, err := http.DefaultClient.Do(out)
			if err != nil {
				return nil
			}
			for k, v := range res.Header {
				w.Header()[k] = v
			}
			return res
		}
		if fn(w, req, pass) {
			return
		}
		res := pass()
		if res == nil {
			panic(http.ErrAbortHandler)
		}
		defer res.Body.Close()
		w.WriteHeader(res.StatusCode)
		_, _ = io.Copy(w, res.Body)
	}))
	t.Cleanup(server.Close)
	return strings.TrimPrefix(server.URL, "http://")
}

// TestPullFromABadRegistry meets what registries and lines do.
func TestPullFromABadRegistry(t *testing.T) {
	r := startRegistry(t, "")
	data := vulndbtest.Archive(t, now.Add(-9*time.Hour), many(3000)...)
	r.push(t, "db", LayerType, data, "")
	sum := sha256.Sum256(data)
	isLayer := func(req *http.Request) bool {
		return strings.HasSuffix(req.URL.Path, "/blobs/sha256:"+hex.EncodeToString(sum[:])) && req.Method == http.MethodGet
	}
	fast := PullOptions{Pause: 10 * time.Millisecond}
	t.Run("restarted in the middle", func(t *testing.T) {
		var cuts atomic.Int64
		host := between(t, r, func(w http.ResponseWriter, req *http.Request, pass func() *http.Response) bool {
			if !isLayer(req) || cuts.Add(1) > 1 {
				return false
			}
			res := pass()
			w.WriteHeader(res.StatusCode)
			_, _ = io.CopyN(w, res.Body, int64(len(data)/2))
			w.(http.Flusher).Flush()
			r.stop()
			r.start(t)
			panic(http.ErrAbortHandler)
		})
		s := newStore(t, t.TempDir())
		if res, err := s.Pull(t.Context(), host+"/db:2", fast); err != nil || res.Number != 1 || cuts.Load() != 2 {
			t.Errorf("%+v, %v, %d", res, err, cuts.Load())
		}
		noPartial(t, s)
	})
	// Nothing of these is taken in, and the database from before stays.
	s := newStore(t, t.TempDir())
	imported(t, s, written(t, 20, many(50)...))
	for name, tc := range map[string]struct {
		answer func(w http.ResponseWriter, req *http.Request, pass func() *http.Response) bool
		opts   PullOptions
		kind   failure.Kind
		words  string
	}{
		"truncated": {func(w http.ResponseWriter, req *http.Request, pass func() *http.Response) bool {
			if !isLayer(req) {
				return false
			}
			res := pass()
			w.WriteHeader(res.StatusCode)
			_, _ = io.CopyN(w, res.Body, int64(len(data)-1000))
			panic(http.ErrAbortHandler)
		}, fast, failure.Failed, "broke off"},
		"other bytes": {func(w http.ResponseWriter, req *http.Request, pass func() *http.Response) bool {
			if !isLayer(req) {
				return false
			}
			pass()
			w.Header().Set("Content-Length", fmt.Sprint(len(data)))
			w.WriteHeader(200)
			other := bytes.Clone(data)
			other[len(other)/2] ^= 1
			_, _ = w.Write(other)
			return true
		}, fast, failure.Untrustworthy, "its digest is another"},
		"another manifest": {func(w http.ResponseWriter, req *http.Request, pass func() *http.Response) bool {
			if !strings.Contains(req.URL.Path, "/manifests/") {
				return false
			}
			res := pass()
			body, _ := io.ReadAll(res.Body)
			body = bytes.Replace(body, []byte(`"schemaVersion":2`), []byte(`"schemaVersion":3`), 1)
			w.WriteHeader(res.StatusCode)
			_, _ = w.Write(body)
			return true
		}, fast, failure.Untrustworthy, ""},
		"error 500": {func(w http.ResponseWriter, req *http.Request, pass func() *http.Response) bool {
			http.Error(w, "no", http.StatusInternalServerError)
			return true
		}, fast, failure.Failed, "500"},
		"a page": {func(w http.ResponseWriter, req *http.Request, pass func() *http.Response) bool {
			_, _ = w.Write([]byte("<html>log in"))
			return true
		}, fast, failure.Untrustworthy, "db:2: a manifest"},
		"slow": {func(w http.ResponseWriter, req *http.Request, pass func() *http.Response) bool {
			if !isLayer(req) {
				return false
			}
			res := pass()
			w.WriteHeader(res.StatusCode)
			_, _ = io.CopyN(w, res.Body, 1000)
			w.(http.Flusher).Flush()
			<-req.Context().Done()
			return true
		}, PullOptions{Stall: 300 * time.Millisecond}, failure.Failed, "nothing came for"},
		"too slow": {func(w http.ResponseWriter, req *http.Request, pass func() *http.Response) bool {
			if !isLayer(req) {
				return false
			}
			res := pass()
			w.WriteHeader(res.StatusCode)
			for req.Context().Err() == nil {
				_, _ = io.CopyN(w, res.Body, 10)
				w.(http.Flusher).Flush()
				time.Sleep(20 * time.Millisecond)
			}
			return true
		}, PullOptions{Timeout: 700 * time.Millisecond, Stall: 30 * time.Second}, failure.Failed, "did not arrive within"},
		"silent": {func(w http.ResponseWriter, req *http.Request, pass func() *http.Response) bool {
			<-req.Context().Done()
			return true
		}, PullOptions{Stall: 300 * time.Millisecond, Attempts: 1}, failure.Failed, ""},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := s.Pull(t.Context(), between(t, r, tc.answer)+"/db:2", tc.opts)
			wantKind(t, err, tc.kind, tc.words)
			if l, err := s.Open(t.Context()); err != nil || l.Generation.Number != 1 {
				t.Errorf("%+v, %v", l, err)
			} else {
				l.Release()
			}
			noPartial(t, s)
		})
	}
}
