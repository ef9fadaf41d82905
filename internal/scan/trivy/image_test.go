//go:build goexperiment.jsonv2

package trivy

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"io"
	"io/fs"
	"log"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/scan/protocol"
)

type entry struct {
	name, body string
	link       string
	size       int64 // when it is another one than that of body
}

func archive(t *testing.T, entries ...entry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		h := &tar.Header{Name: e.name, Mode: 0o644, Typeflag: tar.TypeReg, Size: int64(len(e.body))}
		if e.link != "" {
			h.Typeflag, h.Linkname = tar.TypeSymlink, e.link
		}
		if e.size > 0 {
			h.Size, h.Format = e.size, tar.FormatGNU
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if e.size > 0 {
			return b.Bytes() // what should follow isn't there
		}
		if _, err := io.WriteString(w, e.body); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func image(t *testing.T, layers ...[]byte) v1.Image {
	t.Helper()
	img, err := mutate.ConfigFile(empty.Image, &v1.ConfigFile{OS: "linux", Architecture: "amd64", RootFS: v1.RootFS{Type: "layers"}})
	if err != nil {
		t.Fatal(err)
	}
	for _, content := range layers {
		l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(content)), nil })
		if err != nil {
			t.Fatal(err)
		}
		if img, err = mutate.AppendLayers(img, l); err != nil {
			t.Fatal(err)
		}
	}
	return img
}

func saved(t *testing.T, img v1.Image) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "image.tar")
	tag, err := name.NewTag("registry.example.org/app:1")
	if err != nil {
		t.Fatal(err)
	}
	if err := tarball.WriteToFile(file, tag, img); err != nil {
		t.Fatal(err)
	}
	return file
}

func laidOut(t *testing.T, img v1.Image) string {
	t.Helper()
	dir := t.TempDir()
	l, err := layout.Write(dir, empty.Index)
	if err == nil {
		err = l.AppendImage(img)
	}
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func packed(t *testing.T, dir string) string {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := w.AddFS(os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "layout.tar")
	if err := os.WriteFile(file, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func zipped(t *testing.T, file string) string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var z bytes.Buffer
	w := gzip.NewWriter(&z)
	_, _ = w.Write(b)
	_ = w.Close()
	if err := os.WriteFile(file+".gz", z.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return file + ".gz"
}

func base(t *testing.T) []byte {
	return archive(t, entry{name: "etc/os-release", body: release}, entry{name: "etc/debian_version", body: "12.11\n"},
		entry{name: "var/lib/dpkg/status", body: status}, entry{name: "old.env", body: "TOKEN=" + githubToken()})
}

func TestImagesInAllTheirForms(t *testing.T) {
	img := image(t, base(t), archive(t, entry{name: "srv/a.env", body: "TOKEN=" + githubToken()}, entry{name: ".wh.old.env"}))
	docker, oci := saved(t, img), laidOut(t, img)
	for form, target := range map[string]string{"docker save": docker, "packed": zipped(t, docker), "layout": oci, "layout in tar": packed(t, oci)} {
		r := request(t, protocol.Image, target, protocol.Vulnerabilities, protocol.Secrets)
		r.Database = database(t)
		report := run(t, r)
		if got := vulnerabilities(report); !slices.Equal(got, []string{"CVE-2024-0001 libssl3 3.0.11-1~deb12u2"}) {
			t.Errorf("%s: vulnerabilities %q", form, got)
		}
		var secrets []string
		for _, res := range report.Results {
			for _, s := range res.Secrets {
				secrets = append(secrets, res.Target)
				if s.Layer != report.Image.Layers[1] && res.Target == "/srv/a.env" {
					t.Errorf("%s: layer %q of %q", form, s.Layer, report.Image.Layers)
				}
			}
		}
		if !slices.Contains(secrets, "/srv/a.env") {
			t.Errorf("%s: secrets %q", form, secrets)
		}
		if report.Image == nil || !strings.HasPrefix(report.Image.ID, "sha256:") || len(report.Image.Layers) != 2 || len(report.Problems) > 0 || report.Stats.Files != 5 {
			t.Errorf("%s: %+v %+v %+v", form, report.Image, report.Problems, report.Stats)
		}
		if form == "docker save" && !slices.Equal(report.Image.Tags, []string{"registry.example.org/app:1"}) {
			t.Errorf("tags %q", report.Image.Tags)
		}
	}
}

func TestAnImageOfARegistryIsFetchedOnlyWhenAsked(t *testing.T) {
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	defer server.Close()
	target := strings.TrimPrefix(server.URL, "http://") + "/app:1"
	ref, err := name.ParseReference(target)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(ref, image(t, archive(t, entry{name: "a.env", body: "TOKEN=" + githubToken()}))); err != nil {
		t.Fatal(err)
	}
	r := request(t, protocol.Image, target, protocol.Secrets)
	refused(t, r, failure.Failed, "--remote")
	r.Remote, r.Insecure = true, true
	report := run(t, r)
	if len(report.Results) != 1 || report.Results[0].Target != "/a.env" || len(report.Image.Digests) != 1 || !slices.Equal(report.Image.Tags, []string{target}) || report.Image.Architecture != "amd64" {
		t.Errorf("results %+v, image %+v", report.Results, report.Image)
	}
	r.Target = strings.TrimPrefix(server.URL, "http://") + "/none:1"
	refused(t, r, failure.Failed, "fetch")
}

func TestPathsThatLeadOutOfALayer(t *testing.T) {
	outside := filepath.Join(t.TempDir(), "outside")
	evil := archive(t, entry{name: "../../../../../.." + outside, body: "x"}, entry{name: "etc/../../x", body: "x"},
		entry{name: "srv/link", link: "/etc"}, entry{name: "srv/link/cron.d/evil", body: "0123456789abc"}, entry{name: "/abs/a.env", body: "TOKEN=" + githubToken()})
	report := run(t, request(t, protocol.Image, saved(t, image(t, base(t), evil)), protocol.Secrets))
	if problem(report, protocol.Escaping, "etc/../../x") == nil || problem(report, protocol.Escaping, "srv/link/cron.d/evil") == nil || len(report.Problems) != 3 {
		t.Errorf("problems %+v", report.Problems)
	}
	if _, err := os.Lstat(outside); err == nil {
		t.Error("a file was written outside")
	}
	if !slices.ContainsFunc(report.Results, func(r protocol.Result) bool { return r.Target == "/abs/a.env" }) {
		t.Errorf("what is absolute is not looked at: %+v", report.Results)
	}
}

func TestBombs(t *testing.T) {
	r := request(t, protocol.Image, saved(t, image(t, base(t), append(archive(t, entry{name: "zeros", size: 100 << 30}), make([]byte, 4096)...))), protocol.Secrets)
	report := run(t, r)
	if p := problem(report, protocol.TooLarge, ""); p == nil || !strings.Contains(p.Detail, "zeros") {
		t.Errorf("problems %+v", report.Problems)
	}
	var many []entry
	for i := range 50 {
		many = append(many, entry{name: strings.Repeat("d/", i) + "f"})
	}
	r = request(t, protocol.Image, saved(t, image(t, archive(t, many...))), protocol.Secrets)
	r.Limits.Entries = 20
	if report = run(t, r); problem(report, protocol.TooLarge, "") == nil {
		t.Errorf("problems %+v", report.Problems)
	}

	jar := []byte("x")
	for range 12 {
		var b bytes.Buffer
		z := zip.NewWriter(&b)
		f, _ := z.Create("inner.jar")
		_, _ = f.Write(jar)
		_ = z.Close()
		jar = b.Bytes()
	}
	dir := plant(t, map[string]string{"app.jar": string(jar), "broken.jar": "PK no more"})
	s := request(t, protocol.Rootfs, dir)
	s.Packages = true
	if report = run(t, s); problem(report, protocol.TooLarge, "app.jar") == nil || problem(report, protocol.Malformed, "broken.jar") == nil {
		t.Errorf("problems %+v", report.Problems)
	}
}

func TestJarsAreKnownByTheirManifests(t *testing.T) {
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	f, _ := z.Create("META-INF/MANIFEST.MF")
	_, _ = io.WriteString(f, "Manifest-Version: 1.0\nImplementation-Title: log\nImplementation-Version: 1.2\nImplementation-Vendor-Id: org.example\n")
	_ = z.Close()
	r := request(t, protocol.Rootfs, plant(t, map[string]string{"opt/log-1.2.jar": b.String()}))
	r.Packages = true
	report := run(t, r)
	if len(report.Results) != 1 || report.Results[0].Packages[0].Name != "org.example:log" || len(report.Problems) > 0 || len(report.Notes) != 1 {
		t.Errorf("%+v, problems %+v, notes %q", report.Results, report.Problems, report.Notes)
	}
	r.JavaDatabase = t.TempDir()
	if report = run(t, r); len(report.Problems) == 0 {
		t.Error("that the database of JARs is missing is not told")
	}
}

// change writes into the file of a layer of a layout.
func change(t *testing.T, dir string, img v1.Image, by func([]byte) []byte) {
	t.Helper()
	layers, err := img.Layers()
	if err != nil {
		t.Fatal(err)
	}
	h, err := layers[len(layers)-1].Digest()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "blobs", h.Algorithm, h.Hex)
	b, err := os.ReadFile(file)
	if err == nil {
		err = os.Chmod(file, 0o600)
	}
	if err == nil {
		err = os.WriteFile(file, by(b), fs.FileMode(0o600))
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestImagesThatAreNotWhatTheySay(t *testing.T) {
	img := image(t, base(t), archive(t, entry{name: "a.env", body: strings.Repeat("TOKEN="+githubToken()+"\n", 1000)}))
	other := zipBytes(archive(t, entry{name: "b.env", body: "nothing to be found"}))
	for what, by := range map[string]struct {
		change func([]byte) []byte
		says   string
	}{
		"cut":     {func(b []byte) []byte { return b[:len(b)/2] }, "damaged"},
		"changed": {func(b []byte) []byte { b[len(b)/2] ^= 0xff; return b }, "layer"},
		"another": {func([]byte) []byte { return other }, "not what the image says"},
		"empty":   {func([]byte) []byte { return nil }, "layer"},
		"no tar":  {func([]byte) []byte { return zipBytes([]byte(strings.Repeat("no tar ", 1000))) }, "damaged"},
	} {
		dir := laidOut(t, img)
		change(t, dir, img, by.change)
		r := request(t, protocol.Image, dir, protocol.Secrets)
		refused(t, r, failure.Untrustworthy, by.says)
		if left, _ := filepath.Glob(filepath.Join(r.Temp, "layer-*")); len(left) > 0 {
			t.Errorf("%s: left behind %q", what, left)
		}
	}
	for _, target := range []string{t.TempDir(), filepath.Join(plant(t, map[string]string{"x.tar": "no archive at all"}), "x.tar"),
		filepath.Join(plant(t, map[string]string{"x.tar": string(archive(t, entry{name: "x", body: "y"}))}), "x.tar")} {
		refused(t, request(t, protocol.Image, target, protocol.Secrets), failure.Untrustworthy, "no image")
	}
	refused(t, request(t, protocol.Image, "registry.example.org/app:1", protocol.Secrets), failure.Failed, "--remote")
}

func zipBytes(b []byte) []byte {
	var z bytes.Buffer
	w := gzip.NewWriter(&z)
	_, _ = w.Write(b)
	_ = w.Close()
	return z.Bytes()
}

func TestThePlatformOfAnIndexIsChosen(t *testing.T) {
	index := v1.ImageIndex(empty.Index)
	for _, arch := range []string{"amd64", "arm64"} {
		img := image(t, archive(t, entry{name: arch + ".env", body: "TOKEN=" + githubToken()}))
		index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: img, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: arch}}})
	}
	dir := t.TempDir()
	if _, err := layout.Write(dir, index); err != nil {
		t.Fatal(err)
	}
	r := request(t, protocol.Image, dir, protocol.Secrets)
	r.Platform = "linux/arm64"
	if report := run(t, r); len(report.Results) != 1 || report.Results[0].Target != "/arm64.env" {
		t.Errorf("results %+v", report.Results)
	}
	r.Platform = ""
	if report := run(t, r); len(report.Results) != 1 || report.Results[0].Target != "/amd64.env" || len(report.Notes) != 1 {
		t.Errorf("results %+v, notes %q", report.Results, report.Notes)
	}
	r.Platform = "linux/riscv64"
	refused(t, r, failure.Usage, "linux/amd64, linux/arm64")
}
