package source

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
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
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/crypto/bcrypt"
)

// startRegistry runs a registry of Debian on loopback and returns its
// HOST:PORT. auth is the section auth of its configuration.
func startRegistry(t *testing.T, auth string) string {
	t.Helper()
	program, err := exec.LookPath("docker-registry")
	if err != nil {
		t.Skip("docker-registry is missing: nothing is pushed to a real registry or pulled from one")
	}
	dir := t.TempDir()
	config := filepath.Join(dir, "config.yml")
	text := fmt.Sprintf("version: 0.1\nlog: {level: info, accesslog: {disabled: true}}\nstorage: {filesystem: {rootdirectory: %s}}\nhttp: {addr: '127.0.0.1:0'}\n%s", filepath.Join(dir, "data"), auth)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "serve", config)
	cmd.Stdout, cmd.Stderr, cmd.Dir = log, log, dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.Env = []string{"PATH=/usr/bin:/bin", "OTEL_TRACES_EXPORTER=none"}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		log.Close()
	})
	listening := regexp.MustCompile(`listening on (127\.0\.0\.1:[0-9]+)`)
	for deadline := time.Now().Add(60 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		said, _ := os.ReadFile(log.Name())
		if m := listening.FindSubmatch(said); m != nil {
			return string(m[1])
		}
		if time.Now().After(deadline) {
			t.Fatalf("the registry does not listen: %s", said)
		}
	}
}

func written(t *testing.T, name string, content []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, content, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

var described = Described{Name: "siem", Version: "1.0.1", Sequence: 1, Summary: "Forwards", Licence: "Apache-2.0", MinVersion: "0.1.0"}

// roundTrip pushes a package and pulls it by tag and by digest.
func roundTrip(t *testing.T, host string, o Options) {
	t.Helper()
	o.TempDir = t.TempDir()
	content := pkg(3<<20, "registry")
	path := written(t, "siem-1.0.1.plugin.tar.zst", content)
	pinned, err := PushOCI(t.Context(), path, "oci://"+host+"/plugins/siem:1.0.1", described, o)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(pinned, "oci://"+host+"/plugins/siem@sha256:") {
		t.Errorf("%s", pinned)
	}
	again, err := PushOCI(t.Context(), path, "oci://"+host+"/plugins/siem:latest", described, o)
	if err != nil || again != pinned {
		t.Errorf("%s, then %s, %v", pinned, again, err)
	}
	for _, spec := range []string{"oci://" + host + "/plugins/siem:1.0.1", "oci://" + host + "/plugins/siem:latest", pinned} {
		found, err := Resolve(t.Context(), spec, o)
		if err == nil && (found.Origin != pinned || found.Kind != Registry) {
			t.Errorf("%+v", found)
		}
		holds(t, found, err, content, o.TempDir)
	}
}

func TestRegistry(t *testing.T) {
	host := startRegistry(t, "")
	roundTrip(t, host, Options{})
	o := Options{TempDir: t.TempDir()}
	_, err := Resolve(t.Context(), "oci://"+host+"/plugins/siem:2", o)
	wantCode(t, err, CodeMissing, failure.Failed)
	_, err = Resolve(t.Context(), "oci://"+host+"/plugins/none:1", o)
	wantCode(t, err, CodeMissing, failure.Failed)
	_, err = Resolve(t.Context(), "oci://"+host+"/plugins/siem@sha256:"+strings.Repeat("a", 64), o)
	wantCode(t, err, CodeMissing, failure.Failed)
	o.MaxPackage = 1000
	_, err = Resolve(t.Context(), "oci://"+host+"/plugins/siem:latest", o)
	wantCode(t, err, CodeTooLarge, failure.Untrustworthy)
	_, err = PushOCI(t.Context(), written(t, "x.plugin.tar.zst", pkg(2000, "x")), "oci://"+host+"/x:1", described, o)
	wantCode(t, err, CodeTooLarge, failure.Untrustworthy)
	o.MaxPackage = 0
	_, err = PushOCI(t.Context(), written(t, "x.plugin.tar.zst", []byte("text")), "oci://"+host+"/x:1", described, o)
	wantCode(t, err, CodeMalformed, failure.Untrustworthy)
	_, err = PushOCI(t.Context(), written(t, "x.plugin.tar.zst", pkg(10, "x")), "oci://"+host+"/x@sha256:"+strings.Repeat("a", 64), described, o)
	wantCode(t, err, CodeSpec, failure.Usage)
	packed := append([]byte{0x1f, 0x8b, 8, 0}, "gzip"...)
	if _, err = PushOCI(t.Context(), written(t, "x.plugin.tar.gz", packed), "oci://"+host+"/gz:1", described, o); err != nil {
		t.Fatal(err)
	}
	found, err := Resolve(t.Context(), "oci://"+host+"/gz:1", o)
	holds(t, found, err, packed, o.TempDir)

	// An index may point into a registry.
	p := newPublisher(t)
	content := pkg(3<<20, "registry")
	doc := Document{Schema: IndexSchema, Serial: 1, Generated: now, Expires: now.Add(48 * time.Hour), Plugins: []Plugin{{"siem", []Version{{Version: "1.0.1", Sequence: 1,
		URL: "oci://" + host + "/plugins/siem:1.0.1", Size: int64(len(content)), Digest: digestOf(content)}}}}}
	publish := func() {
		b, err := json.Marshal(doc)
		if err != nil {
			t.Fatal(err)
		}
		p.sign(b, 1, doc.Expires)
	}
	publish()
	o = p.options(p.dir)
	found, err = Resolve(t.Context(), "siem", o)
	holds(t, found, err, content, o.TempDir)
	doc.Plugins[0].Versions[0].Digest = digestOf(nil)
	publish()
	_, err = Resolve(t.Context(), "siem", o)
	wantCode(t, err, CodeDigest, failure.Untrustworthy)
	doc.Plugins[0].Versions[0].Size = 7
	publish()
	_, err = Resolve(t.Context(), "siem", o)
	wantCode(t, err, CodeDigest, failure.Untrustworthy)
	empty(t, o.TempDir)
}

func TestRegistryWithPassword(t *testing.T) {
	hash, err := bcrypt.GenerateFromPassword([]byte("secret"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	host := startRegistry(t, fmt.Sprintf("auth: {htpasswd: {realm: plugins, path: %s}}\n", written(t, "htpasswd", append([]byte("ops:"), hash...))))
	o := Options{TempDir: t.TempDir(), Credentials: func(_ context.Context, asked string) (Credential, error) {
		if asked != host {
			t.Errorf("asked for %s", asked)
		}
		return Credential{Username: "ops", Password: "secret"}, nil
	}}
	roundTrip(t, host, o)
	o.Credentials = nil
	_, err = Resolve(t.Context(), "oci://"+host+"/plugins/siem:1.0.1", o)
	wantCode(t, err, CodeDenied, failure.NotAllowed)
	o.Credentials = func(context.Context, string) (Credential, error) {
		return Credential{Username: "ops", Password: "wrong"}, nil
	}
	_, err = Resolve(t.Context(), "oci://"+host+"/plugins/siem:1.0.1", o)
	wantCode(t, err, CodeDenied, failure.NotAllowed)
}

// tokens is a server that gives out tokens as the registry wants them.
func tokens(t *testing.T) (server *httptest.Server, bundle string, given *atomic.Int32) {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "tokens"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	bundle = written(t, "bundle.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	given = new(atomic.Int32)
	server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		access := []map[string]any{}
		user, password, _ := r.BasicAuth()
		for _, scope := range r.URL.Query()["scope"] {
			part := strings.Split(scope, ":")
			if user == "ops" && password == "secret" && len(part) == 3 {
				access = append(access, map[string]any{"type": part[0], "name": part[1], "actions": strings.Split(part[2], ",")})
			}
		}
		given.Add(1)
		header, _ := json.Marshal(map[string]any{"typ": "JWT", "alg": "RS256", "x5c": []string{base64.StdEncoding.EncodeToString(der)}})
		claims, _ := json.Marshal(map[string]any{"iss": "issuer", "aud": "registry", "sub": user, "exp": time.Now().Add(time.Hour).Unix(), "nbf": time.Now().Add(-time.Minute).Unix(),
			"iat": time.Now().Unix(), "jti": "1", "access": access})
		signed := base64.RawURLEncoding.EncodeToString(header) + "." + base64.RawURLEncoding.EncodeToString(claims)
		sum := sha256.Sum256([]byte(signed))
		sig, err := rsa.SignPKCS1v15(nil, key, 5 /* crypto.SHA256 */, sum[:])
		if err != nil {
			t.Error(err)
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"token": signed + "." + base64.RawURLEncoding.EncodeToString(sig)})
	}))
	t.Cleanup(server.Close)
	return server, bundle, given
}

func TestRegistryWithTokens(t *testing.T) {
	server, bundle, given := tokens(t)
	host := startRegistry(t, fmt.Sprintf("auth: {token: {realm: '%s', service: registry, issuer: issuer, rootcertbundle: %s}}\n", server.URL, bundle))
	o := Options{TempDir: t.TempDir(), Credentials: func(context.Context, string) (Credential, error) {
		return Credential{Username: "ops", Password: "secret"}, nil
	}}
	roundTrip(t, host, o)
	if given.Load() == 0 {
		t.Error("nobody asked for a token")
	}
	o.Credentials = nil
	_, err := Resolve(t.Context(), "oci://"+host+"/plugins/siem:1.0.1", o)
	wantCode(t, err, CodeDenied, failure.NotAllowed)
}

// fakeRegistry answers with what hostile registries might.
func fakeRegistry(t *testing.T, manifest func(*ocispec.Manifest) (mediaType string, body []byte), blob func(http.ResponseWriter, *http.Request)) string {
	t.Helper()
	content := pkg(5000, "good")
	m := &ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest, ArtifactType: ArtifactType, Config: ocispec.DescriptorEmptyJSON,
		Layers: []ocispec.Descriptor{{MediaType: LayerTypeZstd, Digest: digest.FromBytes(content), Size: int64(len(content))}}}
	m.SchemaVersion = 2
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "/blobs/") {
			if blob != nil {
				blob(w, r)
				return
			}
			_, _ = w.Write(content)
			return
		}
		mediaType, body := ocispec.MediaTypeImageManifest, []byte(nil)
		if manifest != nil {
			mediaType, body = manifest(m)
		}
		if body == nil {
			body, _ = json.Marshal(m)
		}
		w.Header().Set("Content-Type", mediaType)
		w.Header().Set("Content-Length", fmt.Sprint(len(body)))
		_, _ = w.Write(body)
	}))
	t.Cleanup(func() {
		s.CloseClientConnections()
		s.Close()
	})
	return strings.TrimPrefix(s.URL, "http://")
}

func TestHostileRegistries(t *testing.T) {
	type change = func(*ocispec.Manifest) (string, []byte)
	with := func(f func(*ocispec.Manifest)) change {
		return func(m *ocispec.Manifest) (string, []byte) {
			f(m)
			return ocispec.MediaTypeImageManifest, nil
		}
	}
	for name, tc := range map[string]struct {
		manifest change
		blob     func(http.ResponseWriter, *http.Request)
		spec     string
		code     Code
	}{
		"another type":    {with(func(m *ocispec.Manifest) { m.ArtifactType = "application/vnd.other" }), nil, "", CodeMediaType},
		"an image":        {with(func(m *ocispec.Manifest) { m.ArtifactType = ""; m.Config.MediaType = ocispec.MediaTypeImageConfig }), nil, "", CodeMediaType},
		"another layer":   {with(func(m *ocispec.Manifest) { m.Layers[0].MediaType = ocispec.MediaTypeImageLayerGzip }), nil, "", CodeMediaType},
		"two layers":      {with(func(m *ocispec.Manifest) { m.Layers = append(m.Layers, m.Layers[0]) }), nil, "", CodeMediaType},
		"no layer":        {with(func(m *ocispec.Manifest) { m.Layers = nil }), nil, "", CodeMediaType},
		"bad digest":      {with(func(m *ocispec.Manifest) { m.Layers[0].Digest = "sha256:../../x" }), nil, "", CodeMalformed},
		"negative size":   {with(func(m *ocispec.Manifest) { m.Layers[0].Size = -1 }), nil, "", CodeMalformed},
		"claims terabyte": {with(func(m *ocispec.Manifest) { m.Layers[0].Size = 1 << 40 }), func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Content-Length", fmt.Sprint(1<<40)) }, "", CodeTooLarge},
		"an index":        {func(*ocispec.Manifest) (string, []byte) { return ocispec.MediaTypeImageIndex, []byte("{}") }, nil, "", CodeMediaType},
		"a page":          {func(*ocispec.Manifest) (string, []byte) { return "text/html", []byte("<html>") }, nil, "", CodeMediaType},
		"not JSON":        {func(*ocispec.Manifest) (string, []byte) { return ocispec.MediaTypeImageManifest, []byte("<html>") }, nil, "", CodeMalformed},
		"large manifest":  {func(*ocispec.Manifest) (string, []byte) { return ocispec.MediaTypeImageManifest, make([]byte, 3<<20) }, nil, "", CodeTooLarge},
		"other manifest":  {nil, nil, "@sha256:" + strings.Repeat("a", 64), CodeDigest},
		"other blob":      {nil, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(pkg(5000, "bad")) }, "", CodeDigest},
		"endless blob": {nil, func(w http.ResponseWriter, _ *http.Request) {
			_ = http.NewResponseController(w).Flush()
			for block := pkg(1<<16, "x"); ; {
				if _, err := w.Write(block); err != nil {
					return
				}
			}
		}, "", CodeDigest},
		"short blob": {nil, func(w http.ResponseWriter, _ *http.Request) {
			_ = http.NewResponseController(w).Flush()
			_, _ = w.Write(pkg(4000, "good"))
		}, "", CodeTruncated},
		"stops": {nil, func(w http.ResponseWriter, r *http.Request) {
			_, _ = w.Write(pkg(4000, "good"))
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		}, "", CodeStalled},
		"loop": {nil, func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, r.URL.Path+"?", http.StatusFound) }, "", CodeRedirect},
		"elsewhere": {nil, func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://192.0.2.1/x", http.StatusFound)
		}, "", CodePlainHTTP},
		"token from elsewhere": {nil, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("WWW-Authenticate", `Bearer realm="http://192.0.2.1/token",service="x"`)
			w.WriteHeader(http.StatusUnauthorized)
		}, "", CodePlainHTTP},
	} {
		t.Run(name, func(t *testing.T) {
			o := Options{TempDir: t.TempDir(), Stall: time.Minute}
			if name == "stops" {
				o.Stall = 500 * time.Millisecond
			}
			if tc.spec == "" {
				tc.spec = ":1"
			}
			found, err := Resolve(t.Context(), "oci://"+fakeRegistry(t, tc.manifest, tc.blob)+"/x"+tc.spec, o)
			if err == nil {
				t.Fatalf("%+v", found)
			}
			if CodeOf(err) != tc.code {
				t.Errorf("%v: %q, want %q", err, CodeOf(err), tc.code)
			}
			empty(t, o.TempDir)
		})
	}
	found, err := Resolve(t.Context(), "oci://"+fakeRegistry(t, nil, nil)+"/x:1", Options{TempDir: t.TempDir()})
	if err != nil {
		t.Fatalf("what is not hostile is refused, too: %v", err)
	}
	found.Close()
	_, err = Resolve(t.Context(), "oci://registry.invalid/x:1", Options{PlainHTTP: false, Stall: 2 * time.Minute})
	wantCode(t, err, CodeUnreachable, failure.Failed)
	var b bytes.Buffer
	h := &head{&b, 4}
	_, _ = h.Write([]byte("ab"))
	_, _ = h.Write([]byte("cdef"))
	if b.String() != "abcd" {
		t.Errorf("%q", b.String())
	}
}
