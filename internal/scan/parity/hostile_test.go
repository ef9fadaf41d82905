package parity

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/scan/protocol"
)

// hostile gives the worker something that nobody should, and demands what holds
// whatever that is: it ends, by itself, with a report or with a failure that says
// what is wrong; nothing is written but in Temp; what it looked at is as it was.
func hostile(t *testing.T, scan protocol.Scan, change func(*exec.Cmd)) answer {
	t.Helper()
	scan.Temp = t.TempDir()
	if os.Geteuid() == 0 {
		if err := os.Chown(scan.Temp, nobody, nobody); err != nil { // for tests of others than root
			t.Fatal(err)
		}
	}
	var cwd, tmp string
	a := runWorker(t, patience, scan, func(cmd *exec.Cmd) {
		cwd = cmd.Dir
		for _, v := range cmd.Env {
			if dir, ok := strings.CutPrefix(v, "TMPDIR="); ok {
				tmp = dir
			}
		}
		if change != nil {
			change(cmd)
		}
	})
	// A panic that is caught is told on stderr too, and as a failure. A database that
	// makes Trivy panic is damaged; a file that does is a problem of that file.
	for _, word := range []string{"fatal error:", "SIGSEGV", "SIGBUS", "[signal "} {
		if strings.Contains(a.stderr, word) && (a.failure == nil || a.failure.Status != failure.Untrustworthy.Status()) {
			t.Errorf("it crashed:\n%s", tail(a.stderr))
		}
	}
	if a.failure != nil && a.failure.Status == failure.Failed.Status() && strings.Contains(a.failure.Message, "panicked") {
		t.Errorf("a panic ended the whole scan: %s\n%s", a.failure.Message, tail(a.stderr))
	}
	switch {
	case a.status < 0:
		t.Errorf("a signal ended it:\n%s", tail(a.stderr))
	case a.report == nil && a.failure == nil:
		t.Errorf("it ended with %d and said nothing:\n%s", a.status, tail(a.stderr))
	case a.failure != nil && (a.failure.Message == "" || a.failure.Status != a.status):
		t.Errorf("it ended with %d and says %+v", a.status, *a.failure)
	}
	for _, dir := range []string{cwd, tmp} {
		if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
			t.Errorf("it left %v in %s, which isn't Temp: %v", left, dir, err)
		}
	}
	return a
}

const nobody = 65534

// told fails unless the report has a problem of a kind with a path (or a detail)
// that contains something.
func told(t *testing.T, a answer, kind protocol.ProblemKind, about string) {
	t.Helper()
	if a.report == nil {
		t.Errorf("there is no report: %d %+v", a.status, a.failure)
		return
	}
	if !slices.ContainsFunc(a.report.Problems, func(p protocol.Problem) bool {
		return p.Kind == kind && (strings.Contains(p.Path, about) || strings.Contains(p.Detail, about))
	}) {
		t.Errorf("no problem of kind %q about %q: %+v", kind, about, shown(a.report.Problems))
	}
}

func shown(list []protocol.Problem) string {
	var b strings.Builder
	for i, p := range list {
		if i == 20 {
			fmt.Fprintf(&b, "\n\tand %d more", len(list)-i)
			break
		}
		fmt.Fprintf(&b, "\n\t%s %q: %s", p.Kind, p.Path, p.Detail)
	}
	return b.String()
}

// finds fails unless the rest of the target was looked at nevertheless.
func finds(t *testing.T, a answer, least counts) {
	t.Helper()
	if a.report == nil {
		t.Errorf("there is no report: %d %+v", a.status, a.failure)
	} else if n := count(a.report); !n.least(least) {
		t.Errorf("found %+v, want at least %+v; problems: %s", n, least, shown(a.report.Problems))
	}
}

// refused fails unless it was refused with one of these statuses.
func refused(t *testing.T, a answer, about string, statuses ...failure.Kind) {
	t.Helper()
	if a.failure == nil {
		t.Errorf("it was not refused, and found %+v with these problems: %s", count(a.report), shown(a.report.Problems))
		return
	}
	if !slices.ContainsFunc(statuses, func(k failure.Kind) bool { return k.Status() == a.status }) {
		t.Errorf("status %d, want one of %v: %+v", a.status, statuses, *a.failure)
	}
	if about != "" && !strings.Contains(a.failure.Message, about) {
		t.Errorf("the message does not say %q: %+v", about, *a.failure)
	}
}

func TestDamagedDatabase(t *testing.T) {
	workerProgram(t)
	_, hashed := hashedJAR(t)
	good := writeDatabase(t, hashed)
	root := debianTree(t, t.TempDir())
	whole, err := os.ReadFile(filepath.Join(good, "db", "trivy.db"))
	if err != nil {
		t.Fatal(err)
	}
	meta, err := os.ReadFile(filepath.Join(good, "db", "metadata.json"))
	if err != nil {
		t.Fatal(err)
	}
	zeroed := func(from, to int) []byte {
		b := bytes.Clone(whole)
		clear(b[from:to])
		return b
	}
	for _, c := range []struct {
		name     string
		db, meta []byte // nil: there is no such file
		status   []failure.Kind
	}{
		{"none", nil, nil, []failure.Kind{failure.NotReady}},
		{"no database", nil, meta, []failure.Kind{failure.NotReady, failure.Untrustworthy}},
		{"no metadata", whole, nil, []failure.Kind{failure.NotReady, failure.Untrustworthy}},
		{"empty", []byte{}, meta, []failure.Kind{failure.Untrustworthy}},
		{"a text", []byte(strings.Repeat("this is no database\n", 1000)), meta, []failure.Kind{failure.Untrustworthy}},
		{"half", whole[:len(whole)/2], meta, []failure.Kind{failure.Untrustworthy}},
		{"its first page", whole[:os.Getpagesize()], meta, []failure.Kind{failure.Untrustworthy}},
		{"both meta pages are zeros", zeroed(0, 2*os.Getpagesize()), meta, []failure.Kind{failure.Untrustworthy}},
		{"all pages but the first are zeros", zeroed(2*os.Getpagesize(), len(whole)), meta, []failure.Kind{failure.Untrustworthy}},
		{"metadata of another schema", whole, []byte(metadata(1)), []failure.Kind{failure.NotReady, failure.Untrustworthy}},
		{"metadata that is no JSON", whole, []byte("{"), []failure.Kind{failure.NotReady, failure.Untrustworthy}},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			for name, content := range map[string][]byte{"trivy.db": c.db, "metadata.json": c.meta} {
				if content != nil {
					write(t, dir, name, string(content))
				}
			}
			before := snapshot(t, dir)
			a := hostile(t, protocol.Scan{Kind: protocol.Rootfs, Target: root, Scanners: vuln, Database: dir}, nil)
			refused(t, a, "", c.status...)
			// Trivy removes a database that it cannot read.
			if after := snapshot(t, dir); after != before {
				t.Errorf("the directory of the database was\n%s\nand is\n%s", before, after)
			}
		})
	}

	t.Run("damage within", func(t *testing.T) {
		// A page of advisories may be anything. Whatever it is must not look as if
		// nothing had been found.
		for page := 3; page < len(whole)/os.Getpagesize(); page++ {
			b := bytes.Clone(whole)
			for i := range os.Getpagesize() {
				b[page*os.Getpagesize()+i] ^= byte(0x5a + i)
			}
			dir := t.TempDir()
			write(t, dir, "metadata.json", string(meta))
			write(t, dir, "trivy.db", string(b))
			a := hostile(t, protocol.Scan{Kind: protocol.Rootfs, Target: root, Scanners: vuln, Database: dir}, nil)
			if a.report != nil && count(a.report).vulnerabilities < 10 && len(a.report.Problems) == 0 {
				t.Errorf("with page %d damaged it found %+v and no problem", page, count(a.report))
			}
		}
	})
}

// snapshot is what a directory holds: names, kinds, sizes, contents of small files.
func snapshot(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		sum := ""
		if info.Mode().IsRegular() {
			content, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			h := sha256.Sum256(content)
			sum = hex.EncodeToString(h[:4])
		}
		fmt.Fprintf(&b, "%s %v %s\n", path, info.Mode(), sum)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestCorruptImage(t *testing.T) {
	workerProgram(t)
	_, hashed := hashedJAR(t)
	db := filepath.Join(writeDatabase(t, hashed), "db")
	layers := imageLayers(t)
	plain := func(_ testing.TB, b []byte) []byte { return b }
	// scan looks at an image whose upper layer was packed by pack.
	scan := func(t *testing.T, mediaType string, pack func(t testing.TB, b []byte) []byte) answer {
		n := 0
		path := ociLayout(t, t.TempDir(), mediaType, func(t testing.TB, b []byte) []byte {
			if n++; n == 2 {
				return pack(t, b)
			}
			if mediaType == tarLayer {
				return b
			}
			return gzipped(t, b)
		}, layers...)
		return hostile(t, protocol.Scan{Kind: protocol.Image, Target: path, Scanners: vuln, Database: db}, nil)
	}
	// A layer that cannot be read is either refused with the image, or a problem of
	// a report that is not complete.
	notWhole := func(t *testing.T, a answer) {
		t.Helper()
		switch {
		case a.failure != nil:
			refused(t, a, "", failure.Untrustworthy, failure.Failed)
		case len(a.report.Problems) == 0:
			t.Errorf("a report without problems: %+v", count(a.report))
		}
	}
	for name, pack := range map[string]func(testing.TB, []byte) []byte{
		"truncated gzip":    func(t testing.TB, b []byte) []byte { z := gzipped(t, b); return z[:len(z)/2] },
		"gzip without tail": func(t testing.TB, b []byte) []byte { z := gzipped(t, b); return z[:len(z)-8] },
		"wrong checksum":    func(t testing.TB, b []byte) []byte { z := gzipped(t, b); z[len(z)-6] ^= 1; return z },
		"no tar": func(t testing.TB, b []byte) []byte {
			return gzipped(t, []byte(strings.Repeat("no tar at all\n", 1000)))
		},
		"half a tar": func(t testing.TB, b []byte) []byte { return gzipped(t, b[:len(b)/2+100]) },
		"no gzip":    func(t testing.TB, b []byte) []byte { return []byte("\x1f\x8bnothing of the kind") },
		"other content": func(t testing.TB, b []byte) []byte {
			return gzipped(t, layer(t, entry{name: "etc/os-release", content: "ID=alpine\n"}))
		},
	} {
		t.Run(name, func(t *testing.T) { notWhole(t, scan(t, gzipLayer, pack)) })
	}
	t.Run("zstd that isn't", func(t *testing.T) {
		notWhole(t, scan(t, zstdLayer, func(t testing.TB, b []byte) []byte { return []byte("\x28\xb5\x2f\xfdno") }))
	})
	t.Run("empty", func(t *testing.T) {
		notWhole(t, scan(t, gzipLayer, func(testing.TB, []byte) []byte { return nil }))
	})

	// Trees of files that are changed after the layout was written.
	changed := func(name string, change func(t *testing.T, dir string)) {
		t.Run(name, func(t *testing.T) {
			dir := ociLayout(t, t.TempDir(), tarLayer, plain, layers...)
			change(t, dir)
			notWhole(t, hostile(t, protocol.Scan{Kind: protocol.Image, Target: dir, Scanners: vuln, Database: db}, nil))
		})
	}
	changed("a blob that has another digest", func(t *testing.T, dir string) {
		path := filepath.Join(dir, "blobs", "sha256", digest(layers[1]))
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		write(t, dir, "blobs/sha256/"+digest(layers[1]), string(bytes.Replace(b, []byte("rack (2.2.3)"), []byte("rack (9.9.9)"), 1)))
	})
	changed("a blob that is missing", func(t *testing.T, dir string) {
		if err := os.Remove(filepath.Join(dir, "blobs", "sha256", digest(layers[1]))); err != nil {
			t.Fatal(err)
		}
	})
	changed("no index", func(t *testing.T, dir string) { os.Remove(filepath.Join(dir, "index.json")) })
	changed("an index that is no JSON", func(t *testing.T, dir string) { write(t, dir, "index.json", "{") })
	changed("an index of nothing", func(t *testing.T, dir string) { write(t, dir, "index.json", `{"schemaVersion":2,"manifests":[]}`) })
	changed("an index that leads out", func(t *testing.T, dir string) {
		write(t, dir, "index.json", `{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:../../../../../../etc/passwd","size":1}]}`)
	})
	changed("an index of itself", func(t *testing.T, dir string) {
		b := []byte(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}`)
		for range 2 { // nearly itself: no digest can be its own
			b = fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{"mediaType":"application/vnd.oci.image.index.v1+json","digest":"sha256:%s","size":%d}]}`, digest(b), len(b))
			write(t, dir, "blobs/sha256/"+digest(b), string(b))
		}
		write(t, dir, "index.json", string(b))
	})
	for name, content := range map[string]string{"an empty archive": "", "an archive of nothing": string(layer(t)), "an archive that is a text": "hello",
		"a manifest that leads out": string(layer(t, entry{name: "manifest.json", content: `[{"Config":"../../../etc/passwd","RepoTags":["a:b"],"Layers":["/etc/passwd","../x"]}]`}))} {
		t.Run(name, func(t *testing.T) {
			path := write(t, t.TempDir(), "image.tar", content)
			notWhole(t, hostile(t, protocol.Scan{Kind: protocol.Image, Target: path, Scanners: vuln, Database: db}, nil))
		})
	}
	t.Run("not there", func(t *testing.T) {
		refused(t, hostile(t, protocol.Scan{Kind: protocol.Image, Target: "/nonexistent/image.tar", Scanners: vuln, Database: db}, nil), "/nonexistent/image.tar",
			failure.Failed, failure.NotReady, failure.Usage)
	})
}

func TestEscapingLayers(t *testing.T) {
	workerProgram(t)
	_, hashed := hashedJAR(t)
	db := filepath.Join(writeDatabase(t, hashed), "db")
	outside := t.TempDir()
	secretly := "token " + "gh" + "p_" + fake(alnum, 36, 2) + "\n"
	write(t, outside, "private.env", secretly)
	base := members(debian("12.11", map[string]string{}))
	evil := layer(t,
		entry{name: "../../../../../../.." + outside + "/written-1", content: "x"},
		entry{name: outside + "/written-2", content: "x"},
		entry{name: "a/../../../../../../../.." + outside + "/written-3", content: "x"},
		entry{name: "srv/link", kind: tar.TypeSymlink, link: outside},
		entry{name: "srv/link/written-4", content: "x"},
		entry{name: "srv/private.env", kind: tar.TypeSymlink, link: outside + "/private.env"},
		entry{name: "srv/hard.env", kind: tar.TypeLink, link: "../../../../../../.." + outside + "/private.env"},
		entry{name: "srv/up", kind: tar.TypeSymlink, link: "../../../../../../../../.."},
		entry{name: "srv/up" + outside + "/written-5", content: "x"},
		entry{name: "../../.wh.passwd"},
		entry{name: "srv/..", content: "x"},
		entry{name: "", content: "x"},
		entry{name: "/", kind: tar.TypeDir},
		entry{name: "./", kind: tar.TypeDir},
		entry{name: "app/ok.env", content: secretly},
	)
	path := dockerSave(t, filepath.Join(t.TempDir(), "image.tar"), "evil:1", layer(t, base...), evil)
	before := snapshot(t, outside)
	a := hostile(t, protocol.Scan{Kind: protocol.Image, Target: path, Scanners: all, Database: db, Packages: true}, nil)
	if after := snapshot(t, outside); after != before {
		t.Errorf("something was written out of the image:\n%s", after)
	}
	finds(t, a, counts{packages: 5, vulnerabilities: 5, secrets: 1})
	told(t, a, protocol.Escaping, "written-1")
	told(t, a, protocol.Escaping, "written-3")
	if a.report != nil {
		for _, r := range a.report.Results {
			if len(r.Secrets) > 0 && !strings.HasSuffix(r.Target, "ok.env") {
				t.Errorf("a secret of a file that is not in the image: %+v", r)
			}
		}
	}
}

func TestBombs(t *testing.T) {
	workerProgram(t)
	_, hashed := hashedJAR(t)
	db := filepath.Join(writeDatabase(t, hashed), "db")
	base := layer(t, members(debian("12.11", map[string]string{}))...)
	oci := func(t *testing.T, upper io.Reader) string {
		t.Helper()
		packed, err := io.ReadAll(upper)
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		return ociLayout(t, t.TempDir(), gzipLayer, func(t testing.TB, b []byte) []byte {
			if n++; n == 2 {
				return packed
			}
			return gzipped(t, b)
		}, base, []byte("never compared"))
	}
	within := func(t *testing.T, a answer) {
		t.Helper()
		if a.report != nil && a.report.Stats.PeakMemory > 2<<30 {
			t.Errorf("it took %d MB", a.report.Stats.PeakMemory>>20)
		}
		t.Logf("status %d after %v", a.status, a.took.Round(time.Millisecond))
	}
	// limits are told as problems, or the image is refused. That the digest is
	// another one is told too, since these are.
	limited := func(t *testing.T, a answer) {
		t.Helper()
		within(t, a)
		if a.failure == nil {
			told(t, a, protocol.TooLarge, "")
			finds(t, a, counts{vulnerabilities: 5})
		}
	}

	t.Run("a layer of zeros", func(t *testing.T) {
		r := packed(func(w *tar.Writer) error { return zeros(w, "zeros", 4<<30) })
		limited(t, hostile(t, protocol.Scan{Kind: protocol.Image, Target: oci(t, r), Scanners: both, Database: db, Limits: protocol.Limits{Unpacked: 256 << 20}}, nil))
	})
	t.Run("a million entries", func(t *testing.T) {
		r := packed(func(w *tar.Writer) error {
			for i := range 1_000_000 {
				if err := w.WriteHeader(&tar.Header{Name: fmt.Sprintf("d%d/f%d", i%1000, i), Mode: 0o644}); err != nil {
					return err
				}
			}
			return nil
		})
		path := oci(t, r)
		limited(t, hostile(t, protocol.Scan{Kind: protocol.Image, Target: path, Scanners: both, Database: db, Limits: protocol.Limits{Entries: 100_000}}, nil))
		within(t, hostile(t, protocol.Scan{Kind: protocol.Image, Target: path, Scanners: both, Database: db}, nil))
	})
	t.Run("a long name", func(t *testing.T) {
		r := packed(func(w *tar.Writer) error {
			return w.WriteHeader(&tar.Header{Name: strings.Repeat("a", 900<<10), Mode: 0o644, Format: tar.FormatPAX})
		})
		within(t, hostile(t, protocol.Scan{Kind: protocol.Image, Target: oci(t, r), Scanners: both, Database: db}, nil))
	})
	t.Run("a package database of zeros in a layer", func(t *testing.T) {
		r := packed(func(w *tar.Writer) error { return zeros(w, "var/lib/dpkg/status", 1<<30) })
		within(t, hostile(t, protocol.Scan{Kind: protocol.Image, Target: oci(t, r), Scanners: both, Database: db, Limits: protocol.Limits{Unpacked: 2 << 30}}, nil))
	})

	nested := func(depth int) string {
		inner := jar(t, map[string]string{"zeros.class": strings.Repeat("\x00", 32<<20)})
		for i := range depth {
			files := map[string]string{}
			for n := range 6 {
				files[fmt.Sprintf("lib/%d-%d.jar", i, n)] = string(inner)
			}
			inner = jar(t, files)
		}
		return string(inner)
	}
	t.Run("jars in jars", func(t *testing.T) {
		dir := debianTree(t, t.TempDir())
		write(t, dir, "app/bomb.jar", nested(5))
		a := hostile(t, protocol.Scan{Kind: protocol.Rootfs, Target: dir, Scanners: both, Database: db, Limits: protocol.Limits{Nested: 32 << 20}}, nil)
		limited(t, a)
		told(t, a, protocol.TooLarge, "bomb.jar")
	})
	for name, content := range map[string]string{
		"deep.json":           strings.Repeat("[", 1_000_000),
		"package-lock.json":   `{"name":"a","lockfileVersion":2,"packages":` + strings.Repeat(`{"a":`, 200_000) + "1" + strings.Repeat("}", 200_000) + "}",
		"composer.lock":       `{"packages":[` + strings.Repeat(`{"name":"a/b","version":"1.0"},`, 1_000_000) + `{"name":"a/b","version":"1.0"}]}`,
		"laughs.yaml":         laughs(),
		"stack.json":          `{"AWSTemplateFormatVersion":"2010-09-09","Resources":` + strings.Repeat(`{"a":`, 100_000) + "1" + strings.Repeat("}", 100_000) + "}",
		"Cargo.lock":          "version = 3\n" + strings.Repeat("[[package]]\nname = \"a\"\nversion = \"1.0.0\"\n", 200_000),
		"main.tf":             "locals {\n x = " + strings.Repeat("(", 50_000) + "1" + strings.Repeat(")", 50_000) + "\n}\n",
		"Dockerfile":          "FROM scratch\n" + strings.Repeat("RUN x\n", 50_000),
		"bom.cdx.json":        `{"bomFormat":"CycloneDX","specVersion":"1.6","components":` + strings.Repeat(`[{"type":"library","name":"a","components":`, 20_000) + "[]" + strings.Repeat("}]", 20_000) + "}",
		"one-long-line.txt":   "gh" + "p_" + strings.Repeat("a", 50<<20),
		"keywords-only.conf":  strings.Repeat("facebook twitter adobe = '", 1<<20),
		"LICENSE":             strings.Repeat("Permission is hereby granted, free of charge, ", 1<<19),
		"requirements.txt":    strings.Repeat("a==1.0\n", 200_000),
		"pnpm-lock.yaml":      "lockfileVersion: '9.0'\npackages:\n" + strings.Repeat("  a@1.0.0: {}\n", 3000), // the parser tells each pair of equal keys,
		"pom.xml":             "<project>" + strings.Repeat("<a>", 200_000),
		"site-packages/x.egg": nested(2),
	} {
		t.Run(name, func(t *testing.T) {
			dir := debianTree(t, t.TempDir())
			write(t, dir, filepath.Join("srv", name), content)
			a := hostile(t, protocol.Scan{Kind: protocol.Filesystem, Target: dir, Scanners: all, Database: db, Packages: true}, nil)
			within(t, a)
			finds(t, a, counts{vulnerabilities: 3}) // of the other lock file
			// That of a system looks at other files.
			a = hostile(t, protocol.Scan{Kind: protocol.Rootfs, Target: dir, Scanners: both, Database: db}, nil)
			within(t, a)
			finds(t, a, counts{vulnerabilities: 10})
		})
	}
	t.Run("an sbom", func(t *testing.T) {
		for _, content := range []string{"", "{", strings.Repeat("[", 1<<20), `{"bomFormat":"CycloneDX","specVersion":"1.6","components":` + strings.Repeat(`[{"components":`, 50_000), "SPDXVersion: SPDX-2.3\nPackageName: \n"} {
			path := write(t, t.TempDir(), "bom.json", content)
			a := hostile(t, protocol.Scan{Kind: protocol.SBOM, Target: path, Scanners: vuln, Database: db}, nil)
			within(t, a)
			if a.report != nil && len(a.report.Problems) == 0 {
				t.Errorf("%.40q is taken for an SBOM in which nothing is wrong", content)
			}
		}
		path := write(t, t.TempDir(), "bom.json", `{"bomFormat":"CycloneDX","specVersion":"1.6","components":[`+strings.Repeat(" ", 8<<20)+`]}`)
		a := hostile(t, protocol.Scan{Kind: protocol.SBOM, Target: path, Scanners: vuln, Database: db, Limits: protocol.Limits{Document: 1 << 20}}, nil)
		if a.failure == nil {
			told(t, a, protocol.TooLarge, "")
		}
	})
}

// packed is a tar archive, packed with gzip as it is read.
func packed(fill func(*tar.Writer) error) io.Reader {
	r, w := io.Pipe()
	go func() {
		z, _ := gzip.NewWriterLevel(w, gzip.BestSpeed)
		t := tar.NewWriter(z)
		err := fill(t)
		if err == nil {
			err = t.Close()
		}
		if err == nil {
			err = z.Close()
		}
		w.CloseWithError(err)
	}()
	return r
}

// zeros writes a file of so many zeros.
func zeros(w *tar.Writer, name string, size int64) error {
	if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: size}); err != nil {
		return err
	}
	piece := make([]byte, 1<<20)
	for ; size > 0; size -= int64(len(piece)) {
		if _, err := w.Write(piece[:min(size, int64(len(piece)))]); err != nil {
			return err
		}
	}
	return nil
}

// laughs is a document of YAML that grows without bounds when its aliases are followed.
func laughs() string {
	var b strings.Builder
	b.WriteString("apiVersion: v1\nkind: Pod\nmetadata: {name: x}\na0: &a0 [x,x,x,x,x,x,x,x,x]\n")
	for i := 1; i < 12; i++ {
		fmt.Fprintf(&b, "a%d: &a%d [%s]\n", i, i, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d,", i-1), 9), ","))
	}
	return b.String()
}

func TestStrangeTrees(t *testing.T) {
	workerProgram(t)
	_, hashed := hashedJAR(t)
	db := filepath.Join(writeDatabase(t, hashed), "db")
	token := "token " + "gh" + "p_" + fake(alnum, 36, 2) + "\n"
	scan := func(t *testing.T, dir string, change func(*exec.Cmd)) answer {
		return hostile(t, protocol.Scan{Kind: protocol.Rootfs, Target: dir, Scanners: both, Database: db, Packages: true}, change)
	}
	everything := func(t *testing.T, dir string) answer {
		return hostile(t, protocol.Scan{Kind: protocol.Rootfs, Target: dir, Scanners: all, Database: db, Packages: true}, nil)
	}
	usual := counts{packages: 6, vulnerabilities: 10}

	t.Run("links", func(t *testing.T) {
		dir := debianTree(t, t.TempDir())
		outside := t.TempDir()
		write(t, outside, "private.env", token)
		for name, to := range map[string]string{
			"dangling": "/nonexistent/x", "loop": "loop", "a": "b", "b": "a", "up": "../../../..", "out": outside, "private.env": filepath.Join(outside, "private.env"),
			"package-lock.json": "/nonexistent/package-lock.json", "Dockerfile": "/proc/self/mem", "go.mod": "/dev/zero", "requirements.txt": "/dev/stdin", "self": "/proc/self/root", "x.jar": "/dev/full",
		} {
			if err := os.Symlink(to, filepath.Join(dir, name)); err != nil {
				t.Fatal(err)
			}
		}
		a := everything(t, dir)
		finds(t, a, usual)
		if a.report != nil && count(a.report).secrets > 0 {
			t.Errorf("a link led out of the tree: %+v", a.report.Results)
		}
	})

	t.Run("links in place of what is looked for", func(t *testing.T) {
		dir, outside := t.TempDir(), t.TempDir()
		debianTree(t, outside)
		for _, name := range []string{"etc", "var", "usr"} {
			if err := os.Symlink(filepath.Join(outside, name), filepath.Join(dir, name)); err != nil {
				t.Fatal(err)
			}
		}
		a := scan(t, dir, nil)
		if a.report != nil && (count(a.report).packages > 0 || a.report.OS != nil) {
			t.Errorf("the packages of another tree: %+v %+v", a.report.OS, count(a.report))
		}
	})

	t.Run("no files", func(t *testing.T) {
		dir := debianTree(t, t.TempDir())
		// Each has a name that something looks for.
		for _, name := range []string{"fifo", "package-lock.json", "Dockerfile", "x.jar", "etc/lsb-release", "usr/lib/os-release", "lib/apk/db/installed", "var/lib/rpm/Packages", "app.env", "LICENSE", "bin/program"} {
			if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := unix.Mkfifo(filepath.Join(dir, name), 0o777); err != nil {
				t.Fatal(err)
			}
		}
		socket, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(socket)
		here, err := os.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer here.Close()
		if err := unix.Bind(socket, &unix.SockaddrUnix{Name: fmt.Sprintf("/proc/self/fd/%d/yarn.lock", here.Fd())}); err != nil {
			t.Fatal(err)
		}
		if os.Geteuid() == 0 {
			for name, number := range map[string]int{"zero.lock": int(unix.Mkdev(1, 5)), "Cargo.lock": int(unix.Mkdev(1, 5)), "console": int(unix.Mkdev(5, 1))} {
				if err := unix.Mknod(filepath.Join(dir, name), unix.S_IFCHR|0o666, number); err != nil {
					t.Logf("no device: %v", err)
				}
			}
		}
		a := everything(t, dir)
		finds(t, a, usual)
		if a.report != nil && a.report.Skipped.Special < 12 {
			t.Errorf("%d are counted as no files", a.report.Skipped.Special)
		}
	})

	t.Run("the target is one", func(t *testing.T) {
		for _, kind := range []protocol.Kind{protocol.Filesystem, protocol.Rootfs, protocol.Image, protocol.SBOM, protocol.Repository} {
			path := filepath.Join(t.TempDir(), "fifo")
			if err := unix.Mkfifo(path, 0o777); err != nil {
				t.Fatal(err)
			}
			a := hostile(t, protocol.Scan{Kind: kind, Target: path, Scanners: vuln, Database: db}, nil)
			if a.report != nil && len(a.report.Problems) == 0 {
				t.Errorf("%s: a FIFO is taken for a target: %+v", kind, a.report)
			}
		}
	})

	t.Run("names", func(t *testing.T) {
		dir := debianTree(t, t.TempDir())
		names := []string{"new\nline.env", "bell\a.env", "latin\xe9.env", "\xff\xfe.env", "tab\t.env", "bidi\u202e.env", "quote'\".env", "back\\slash.env", strings.Repeat("n", 250) + ".env", "-rf", " .env", "*.env", "{a,b}.env", "%s%n.env", "\u00fc\u0308.env"}
		for _, name := range names {
			write(t, dir, "names/"+name, token)
		}
		write(t, dir, "names/\xff/package-lock.json", packageLock2)
		write(t, dir, "names/\xff/Dockerfile", "FROM debian:latest\n")
		a := everything(t, dir)
		finds(t, a, counts{packages: 6, vulnerabilities: 10, secrets: len(names)})
		for _, name := range []string{"Dockerfile", "package-lock.json"} {
			told(t, a, protocol.Unreadable, "names/\ufffd/"+name)
		}
	})

	t.Run("deep", func(t *testing.T) {
		dir := debianTree(t, t.TempDir())
		fd, err := unix.Open(dir, unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		for i := 0; err == nil && i < 4096; i++ {
			if err = unix.Mkdirat(fd, "d", 0o755); err != nil {
				break
			}
			var next int
			next, err = unix.Openat(fd, "d", unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
			unix.Close(fd)
			fd = next
		}
		if err != nil {
			t.Fatal(err)
		}
		file, err := unix.Openat(fd, "deep.env", unix.O_CREAT|unix.O_WRONLY|unix.O_CLOEXEC, 0o644)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := unix.Write(file, []byte(token)); err != nil {
			t.Fatal(err)
		}
		unix.Close(file)
		unix.Close(fd)
		a := scan(t, dir, nil)
		finds(t, a, usual)
		// The path is longer than the kernel takes in one piece.
		if a.report != nil && count(a.report).secrets == 0 && len(a.report.Problems) == 0 {
			t.Error("what is deep down was passed over in silence")
		}
	})

	t.Run("unreadable", func(t *testing.T) {
		if os.Geteuid() != 0 {
			t.Skip("NOT TESTED: it takes root to run the worker as somebody else")
		}
		dir := debianTree(t, t.TempDir())
		write(t, dir, "srv/secret.env", token)
		write(t, dir, "usr/lib/python3/dist-packages/requests-2.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: requests\nVersion: 2.0\n")
		write(t, dir, "closed/in/it.env", token)
		for _, name := range []string{"srv/secret.env", "usr/lib/python3/dist-packages/requests-2.0.dist-info/METADATA", "closed"} {
			if err := os.Chmod(filepath.Join(dir, name), 0); err != nil {
				t.Fatal(err)
			}
		}
		for d := dir; d != "/" && d != os.TempDir(); d = filepath.Dir(d) {
			if err := os.Chmod(d, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		a := scan(t, dir, asNobody(t, db))
		finds(t, a, usual)
		for _, name := range []string{"srv/secret.env", "usr/lib/python3/dist-packages/requests-2.0.dist-info/METADATA", "closed"} {
			told(t, a, protocol.Unreadable, name)
		}
	})

	t.Run("unreadable, what matters", func(t *testing.T) {
		if os.Geteuid() != 0 {
			t.Skip("NOT TESTED: it takes root to run the worker as somebody else")
		}
		dir := debianTree(t, t.TempDir())
		if err := os.Chmod(filepath.Join(dir, "var/lib/dpkg/status"), 0); err != nil {
			t.Fatal(err)
		}
		for d := dir; d != "/" && d != os.TempDir(); d = filepath.Dir(d) {
			if err := os.Chmod(d, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		a := scan(t, dir, asNobody(t, db))
		told(t, a, protocol.Unreadable, "var/lib/dpkg/status")
	})

	t.Run("changing", func(t *testing.T) {
		dir := debianTree(t, t.TempDir())
		for i := range 200 {
			write(t, dir, fmt.Sprintf("srv/f%d.env", i), token)
		}
		stop, done := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(done)
			growing, err := os.OpenFile(filepath.Join(dir, "srv", "growing.log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
			if err != nil {
				return
			}
			defer growing.Close()
			line := bytes.Repeat([]byte("nothing of interest\n"), 1000)
			var written int64
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				if written < 64<<20 {
					n, _ := growing.Write(line)
					written += int64(n)
				}
				// A file becomes a directory, a link, a FIFO, nothing, and a file again.
				path := filepath.Join(dir, "srv", fmt.Sprintf("f%d.env", i%200))
				os.RemoveAll(path)
				switch i % 5 {
				case 0:
					os.Mkdir(path, 0o755)
				case 1:
					os.Symlink("/dev/zero", path)
				case 2:
					unix.Mkfifo(path, 0o666)
				case 3:
					os.WriteFile(path, []byte(token), 0o644)
				}
				sub := filepath.Join(dir, "srv", fmt.Sprintf("sub%d", i%10))
				os.RemoveAll(sub)
				os.MkdirAll(filepath.Join(sub, "x", "y"), 0o755)
				os.WriteFile(filepath.Join(sub, "x", "y", "package-lock.json"), []byte(packageLock2), 0o644)
				os.Truncate(filepath.Join(dir, "app", "package-lock.json"), int64(i%len(packageLock2)))
			}
		}()
		for range 3 {
			a := scan(t, dir, nil)
			finds(t, a, counts{packages: 5, vulnerabilities: 8})
		}
		close(stop)
		<-done
	})

	t.Run("not there", func(t *testing.T) {
		for _, kind := range []protocol.Kind{protocol.Filesystem, protocol.Rootfs, protocol.SBOM, protocol.Repository} {
			refused(t, hostile(t, protocol.Scan{Kind: kind, Target: "/nonexistent/tree", Scanners: vuln, Database: db}, nil), "/nonexistent/tree",
				failure.Failed, failure.NotReady, failure.Usage)
		}
	})
}

// asNobody runs the worker as an account that owns nothing. It reads the binary and
// the database through directories that everybody may pass.
func asNobody(t *testing.T, db string) func(*exec.Cmd) {
	t.Helper()
	for d := db; d != "/" && d != os.TempDir(); d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"trivy.db", "metadata.json"} {
		if err := os.Chmod(filepath.Join(db, name), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return func(cmd *exec.Cmd) {
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
		for d := cmd.Dir; d != "/" && d != os.TempDir(); d = filepath.Dir(d) {
			os.Chmod(d, 0o755)
		}
	}
}

func TestStrangeRequests(t *testing.T) {
	program := workerProgram(t)
	version, err := workerVersion()
	if err != nil {
		t.Fatal(err)
	}
	for name, request := range map[string]string{
		"nothing":              "",
		"no JSON":              "hello",
		"half":                 `{"schema":"` + protocol.Schema + `","version":`,
		"another schema":       `{"schema":"mobileops.scan.worker/v0","version":"` + version + `","scan":{"kind":"fs","target":"/tmp","temp":"/tmp"}}`,
		"another version":      `{"schema":"` + protocol.Schema + `","version":"0.0.0-other","scan":{"kind":"fs","target":"/tmp","temp":"/tmp"}}`,
		"no job":               `{"schema":"` + protocol.Schema + `","version":"` + version + `"}`,
		"an unknown kind":      `{"schema":"` + protocol.Schema + `","version":"` + version + `","scan":{"kind":"moon","target":"/tmp","temp":"/tmp","scanners":["secret"]}}`,
		"an unknown scanner":   `{"schema":"` + protocol.Schema + `","version":"` + version + `","scan":{"kind":"fs","target":"/tmp","temp":"/tmp","scanners":["moon"]}}`,
		"deep":                 strings.Repeat("[", 1<<20),
		"something behind it":  `{"schema":"` + protocol.Schema + `","version":"` + version + `","scan":{"kind":"fs","target":"/nonexistent","temp":"/tmp","scanners":["secret"]}} {}`,
		"a pattern that isn't": `{"schema":"` + protocol.Schema + `","version":"` + version + `","scan":{"kind":"fs","target":"/usr/share/doc","temp":"/tmp","scanners":["secret"],"skip_dirs":["[a-"]}}`,
	} {
		t.Run(name, func(t *testing.T) {
			// Nobody listens to progress: descriptor 3 is closed.
			o := started(t, patience, nil, []byte(request), program)
			if o.hung || o.status == 0 || o.status == 1 || strings.Contains(o.stderr, "panic:") {
				t.Errorf("status %d, hung %v\n%s\n%s", o.status, o.hung, o.stdout, tail(o.stderr))
			}
			var f protocol.Failure
			if err := strict(o.stdout, &f); err != nil || f.Status != o.status || f.Message == "" {
				t.Errorf("it ended with %d and said %q: %v", o.status, o.stdout, err)
			}
		})
	}
}
