//go:build goexperiment.jsonv2

package trivy

import (
	"archive/zip"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/scan/memo"
	"github.com/mobileops/mobileops/internal/scan/protocol"
)

// said is what a report says of a target: all but what it took to find it.
func said(t *testing.T, r *protocol.Report) string {
	t.Helper()
	plain := *r
	plain.Stats = protocol.Stats{Files: r.Stats.Files}
	b, err := json.MarshalIndent(plain, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// differ fails when two reports say something else.
func differ(t *testing.T, what string, got, want *protocol.Report) {
	t.Helper()
	a, b := strings.Split(said(t, got), "\n"), strings.Split(said(t, want), "\n")
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			t.Fatalf("%s: line %d of the report is\n%s\ninstead of\n%s", what, i, a[i], b[i])
		}
	}
	if len(a) != len(b) {
		t.Fatalf("%s: the report has %d lines, not %d", what, len(a), len(b))
	}
}

func jarFile(t *testing.T) string {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	f, err := z.Create("META-INF/MANIFEST.MF")
	if err == nil {
		_, err = f.Write([]byte("Manifest-Version: 1.0\nImplementation-Title: log\nImplementation-Version: 1.2\nImplementation-Vendor-Id: org.example\n"))
	}
	if err == nil {
		err = z.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func mit(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", "MIT.txt"))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// variety are images that share layers, whose layers hide, replace and repeat files.
func variety(t *testing.T) []v1.Image {
	key := func(n int) string {
		r := rand.New(rand.NewPCG(uint64(n), 7))
		b := make([]byte, 16)
		for i := range b {
			b[i] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"[r.IntN(32)]
		}
		return "AWS_ACCESS_KEY_ID=AKI" + "A" + string(b) + "\n"
	}
	base := base(t)
	licensed := archive(t, entry{name: "srv/app/LICENSE", body: mit(t)}, entry{name: "srv/app/copy/LICENSE", body: mit(t)},
		entry{name: "srv/app/package.json", body: `{"name":"app","version":"1.0.0","license":"MIT"}`},
		entry{name: "srv/lib/log-1.2.jar", body: jarFile(t)}, entry{name: "tiny", body: "x"}, entry{name: "binary", body: "\x00\x01\x02\x03 0123456789"},
		entry{name: "usr/share/doc/libssl3/copyright", body: "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n\nFiles: *\nCopyright: 2026 Somebody\nLicense: Apache-2.0\n"},
		entry{name: "skip/a.env", body: key(1)}, entry{name: "srv/link", link: "/etc"})
	secret := archive(t, entry{name: "srv/a.env", body: key(2)}, entry{name: "srv/b.env", body: key(3)}, entry{name: "dir/c.env", body: key(4)}, entry{name: "dir/d.env", body: key(5)})
	overwritten := archive(t, entry{name: "srv/a.env", body: "nothing to be seen here\n"}, entry{name: "srv/b.env", body: key(6)})
	whiteout := archive(t, entry{name: "srv/.wh.b.env"}, entry{name: ".wh.old.env"}, entry{name: "srv/app/.wh.LICENSE"})
	opaque := archive(t, entry{name: "dir/.wh..wh..opq"}, entry{name: "dir/e.env", body: key(7)})
	repeated := archive(t, entry{name: "srv/a.env", body: key(2)}, entry{name: "again/a.env", body: key(2)}, entry{name: "Dockerfile", body: "FROM debian\nUSER root\nRUN apt-get install x\n"})
	empty := archive(t)
	return []v1.Image{
		image(t, base, licensed, secret),
		image(t, base, licensed, secret, overwritten),
		image(t, base, secret, whiteout),
		image(t, base, secret, opaque, repeated),
		image(t, base, empty, secret, empty, overwritten, repeated, whiteout),
		image(t, overwritten, secret),
		image(t, secret, base, licensed, opaque),
	}
}

// TestImagesAreRememberedAsTheyAre: whatever images a memory knows, and in which form
// they come, a scan with it tells what one without it does.
func TestImagesAreRememberedAsTheyAre(t *testing.T) {
	images := variety(t)
	forms := []func(i int) string{
		func(i int) string { return saved(t, images[i]) },
		func(i int) string { return laidOut(t, images[i]) },
		func(i int) string { return zipped(t, saved(t, images[i])) },
		func(i int) string { return packed(t, laidOut(t, images[i])) },
	}
	db := database(t)
	for n, scanners := range [][]protocol.Scanner{
		{protocol.Secrets},
		{protocol.Vulnerabilities, protocol.Secrets},
		{protocol.Licenses},
		{protocol.Vulnerabilities, protocol.Secrets, protocol.Licenses, protocol.Misconfigurations},
	} {
		path := filepath.Join(t.TempDir(), "memo")
		findings := 0
		images := images
		if slices.Contains(scanners, protocol.Misconfigurations) {
			images = images[3:5] // of which each takes as long as all others
		}
		for i := range images {
			target := forms[(i+n)%len(forms)](i)
			r := request(t, protocol.Image, target, scanners...)
			r.Database, r.Packages = db, true
			if n == 1 {
				r.Document = protocol.CycloneDX
			}
			want := run(t, r)
			for _, res := range want.Results {
				findings += len(res.Secrets) + len(res.Licenses)
			}
			r.Memo = path
			for round := range 3 {
				got := run(t, r)
				got.Document, want.Document = "", "" // made up identifiers; TestImagesInDocuments
				differ(t, fmt.Sprintf("image %d, round %d, %v", i, round, scanners), got, want)
				if round > 0 && got.Stats.Remembered < got.Stats.Files {
					t.Errorf("image %d, round %d, %v: of %d files %d were remembered", i, round, scanners, got.Stats.Files, got.Stats.Remembered)
				}
				if i > 0 && got.Stats.Remembered == 0 {
					t.Errorf("image %d, round %d, %v: nothing of the layers that it shares was remembered", i, round, scanners)
				}
			}
		}
		if findings < 10 {
			t.Errorf("%v: only %d findings are in the images", scanners, findings)
		}
		raw, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(raw, []byte("AKI"+"A")) {
			t.Error("the memo holds a secret")
		}
	}
}

// TestWhatAnImageSaysOfItselfIsNotBelieved: a layer that is called by the digest of one
// that is known, and is another.
func TestWhatAnImageSaysOfItselfIsNotBelieved(t *testing.T) {
	harmless := image(t, base(t), archive(t, entry{name: "a.env", body: "nothing to be found"}))
	evil := archive(t, entry{name: "a.env", body: "TOKEN=" + githubToken()})
	for form, make := range map[string]func(t *testing.T, img v1.Image) string{"docker save": saved, "layout": laidOut} {
		r := request(t, protocol.Image, make(t, harmless), protocol.Secrets)
		r.Memo = filepath.Join(t.TempDir(), "memo")
		run(t, r)
		if again := run(t, r); again.Stats.Remembered == 0 {
			t.Fatalf("%s: nothing is remembered", form)
		}
		img := image(t, base(t), evil)
		config, err := harmless.ConfigFile()
		if err != nil {
			t.Fatal(err)
		}
		lie := config.DeepCopy()
		forged, err := mutate.ConfigFile(img, lie)
		if err != nil {
			t.Fatal(err)
		}
		r.Target = make(t, forged)
		refused(t, r, failure.Untrustworthy, "not what the image says")
		r.Memo = ""
		refused(t, r, failure.Untrustworthy, "not what the image says")
	}
	// And the file of a layer that was changed after it was remembered, with its old time.
	dir := laidOut(t, harmless)
	r := request(t, protocol.Image, dir, protocol.Secrets)
	r.Memo = filepath.Join(t.TempDir(), "memo")
	time.Sleep(memo.Settled + 200*time.Millisecond) // what is tested is this wait
	run(t, r)
	run(t, r)
	change(t, dir, harmless, func(b []byte) []byte {
		other := zipBytes(evil)
		return append(other, make([]byte, max(0, len(b)-len(other)))...)[:max(len(b), len(other))]
	})
	if _, err := Scan(t.Context(), r, nil); failure.KindOf(err) != failure.Untrustworthy {
		t.Errorf("a layer that was changed: %v", err)
	}
}

// TestAnUnchangedFileIsNotRead: of a file that is the same, nothing of a layer is read.
func TestAnUnchangedFileIsNotRead(t *testing.T) {
	img := variety(t)[1]
	ended, end := context.WithCancel(context.Background())
	end() // whoever reads now fails
	for form, make := range map[string]func() string{
		"docker save": func() string { return saved(t, img) }, "layout": func() string { return laidOut(t, img) },
		"packed": func() string { return zipped(t, saved(t, img)) }, "layout in tar": func() string { return packed(t, laidOut(t, img)) },
	} {
		target := make()
		touch := func(at time.Time) {
			if err := filepath.WalkDir(target, func(p string, _ os.DirEntry, err error) error { return os.Chtimes(p, at, at) }); err != nil {
				t.Fatal(err)
			}
		}
		r := request(t, protocol.Image, target, protocol.Secrets)
		r.Memo = filepath.Join(t.TempDir(), "memo")
		read := func() (read, layers int) {
			a, done := artifactOf(t, r)
			defer done()
			config, err := a.image.ConfigFile()
			if err != nil {
				t.Fatal(err)
			}
			for _, d := range config.RootFS.DiffIDs {
				l, err := a.storedLayer(d)
				if err != nil {
					t.Fatal(err)
				}
				if same, _ := a.memory.layers.verify(ended, l, 1<<30); !same {
					read++
				}
			}
			return read, len(config.RootFS.DiffIDs)
		}
		touch(time.Now().Add(time.Hour)) // as good as a change that has just been
		run(t, r)
		if n, all := read(); n != all {
			t.Errorf("%s: %d of %d layers of a file that has just been written are known by it", form, all-n, all)
		}
		touch(time.Now())
		time.Sleep(memo.Settled + 200*time.Millisecond) // what is tested is this wait
		run(t, r)
		if n, _ := read(); n != 0 {
			t.Errorf("%s: %d layers are read again", form, n)
		}
		if got := run(t, r); got.Stats.Remembered < got.Stats.Files {
			t.Errorf("%s: of %d files %d were remembered", form, got.Stats.Files, got.Stats.Remembered)
		}
		touch(time.Now())
		if n, all := read(); n != all {
			t.Errorf("%s: %d of %d layers of a file that was touched are known by it", form, all-n, all)
		}
	}
}

// artifactOf opens the image of a request with its memory.
func artifactOf(t *testing.T, r *protocol.Scan) (*imageArtifact, func()) {
	t.Helper()
	j := &job{req: r, wants: wanted(r), found: newProblems(), meter: new(meter), trace: os.Stderr}
	var err error
	if j.memory, err = j.openMemory(); err != nil {
		t.Fatal(err)
	}
	a, err := j.imageArtifact(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	i := a.(*imageArtifact)
	if i.memory.layers == nil {
		t.Fatal("there is no memory of layers")
	}
	return i, func() { i.close(); i.memory.close() }
}

// TestWhatIsIncompleteIsNotRemembered: a problem is told each time.
func TestWhatIsIncompleteIsNotRemembered(t *testing.T) {
	token := entry{name: "a.env", body: "TOKEN=" + githubToken()}
	for what, c := range map[string]struct {
		layer    []byte
		scanners []protocol.Scanner
		limits   protocol.Limits
	}{
		"malformed":    {archive(t, token, entry{name: "srv/package.json", body: "{ broken"}), []protocol.Scanner{protocol.Secrets, protocol.Licenses}, protocol.Limits{}},
		"broken JAR":   {archive(t, token, entry{name: "srv/a.jar", body: "PK no more"}), []protocol.Scanner{protocol.Secrets, protocol.Licenses}, protocol.Limits{}},
		"escaping":     {archive(t, token, entry{name: "../x", body: "x"}), []protocol.Scanner{protocol.Secrets}, protocol.Limits{}},
		"too large":    {append(archive(t, token, entry{name: "zeros", size: 100 << 30}), make([]byte, 4096)...), []protocol.Scanner{protocol.Secrets}, protocol.Limits{}},
		"too many":     {archive(t, token, entry{name: "b"}, entry{name: "c"}), []protocol.Scanner{protocol.Secrets}, protocol.Limits{Entries: 2}},
		"long licence": {archive(t, token, entry{name: "LICENSE", body: strings.Repeat("no licence\n", 2<<20)}), []protocol.Scanner{protocol.Licenses}, protocol.Limits{}},
	} {
		r := request(t, protocol.Image, saved(t, image(t, c.layer)), c.scanners...)
		r.Limits = c.limits
		want := run(t, r)
		if len(want.Problems) == 0 {
			t.Errorf("%s: there is no problem", what)
		}
		r.Memo = filepath.Join(t.TempDir(), "memo")
		for range 2 {
			differ(t, what, run(t, r), want)
		}
		a, done := artifactOf(t, r)
		config, err := a.image.ConfigFile()
		if err != nil {
			t.Fatal(err)
		}
		if a.memory.layers.get(config.RootFS.DiffIDs[0]) != nil {
			t.Errorf("%s: it is remembered", what)
		}
		done()
		if c.limits.Entries == 0 {
			continue
		}
		// What was looked at as a whole with room for it isn't when there is none.
		r.Limits = protocol.Limits{}
		if whole := run(t, r); len(whole.Problems) > 0 {
			t.Errorf("%s: %+v", what, whole.Problems)
		}
		if run(t, r).Stats.Remembered == 0 {
			t.Errorf("%s: what is whole is not remembered", what)
		}
		r.Limits = c.limits
		if got := run(t, r); len(got.Problems) != len(want.Problems) {
			t.Errorf("%s: %+v instead of %+v", what, got.Problems, want.Problems)
		}
	}
}

// TestAScanThatEndsEarlyRemembersNoLayer: nor one that fails.
func TestAScanThatEndsEarlyRemembersNoLayer(t *testing.T) {
	img := variety(t)[0]
	r := request(t, protocol.Image, laidOut(t, img), protocol.Secrets)
	r.Memo = filepath.Join(t.TempDir(), "memo")
	change(t, r.Target, img, func(b []byte) []byte { return b[:len(b)-20] })
	refused(t, r, failure.Untrustworthy, "damaged")
	a, done := artifactOf(t, r)
	defer done()
	config, err := a.image.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	if a.memory.layers.get(config.RootFS.DiffIDs[2]) != nil {
		t.Error("a layer that was cut is remembered")
	}
}

// TestOptionsAreRememberedApart: with other options than those that something is
// remembered of, a scan tells what it would without a memory.
func TestOptionsAreRememberedApart(t *testing.T) {
	rules := filepath.Join(t.TempDir(), "rules.yaml")
	if err := os.WriteFile(rules, []byte("rules: [{id: see, category: c, title: t, severity: low, regex: 'nothing to be [a-z]+'}]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	target, path := saved(t, variety(t)[1]), filepath.Join(t.TempDir(), "memo")
	seen := map[string]bool{}
	for round := range 2 {
		for i, change := range []func(r *protocol.Scan){
			func(*protocol.Scan) {},
			func(r *protocol.Scan) { r.SkipFiles = []string{"skip/*"} },
			func(r *protocol.Scan) { r.SkipDirs = []string{"skip/*"} },
			func(r *protocol.Scan) { r.SkipFiles = []string{"**/*.env"} },
			func(r *protocol.Scan) { r.SecretRules = rules },
			func(r *protocol.Scan) { r.Scanners = []protocol.Scanner{protocol.Licenses} },
			func(r *protocol.Scan) { r.Packages = true },
			func(r *protocol.Scan) { r.Limits.Nested = 1 },
		} {
			r := request(t, protocol.Image, target, protocol.Secrets)
			change(r)
			want := run(t, r)
			r.Memo = path
			got := run(t, r)
			differ(t, fmt.Sprintf("option %d, round %d", i, round), got, want)
			if round > 0 && len(want.Problems) == 0 && got.Stats.Remembered < got.Stats.Files {
				t.Errorf("option %d: of %d files %d were remembered", i, got.Stats.Files, got.Stats.Remembered)
			}
			seen[said(t, got)] = true
		}
	}
	if len(seen) < 6 {
		t.Errorf("the options make only %d different reports", len(seen))
	}
}
