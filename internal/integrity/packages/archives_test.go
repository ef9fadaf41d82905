package packages

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func openArchives(t *testing.T, dir string) *Archives {
	t.Helper()
	a, err := OpenArchives(dir)
	must(t, err)
	t.Cleanup(func() { a.Close() })
	return a
}

func (a *Archives) must(t *testing.T, p Package, paths ...string) []File {
	t.Helper()
	var list [][]byte
	for _, p := range paths {
		list = append(list, []byte(p))
	}
	files, found, err := a.Lookup(t.Context(), p, list)
	if err != nil || !found {
		t.Fatalf("%v: found %v, %v", p, found, err)
	}
	return files
}

// TestDebs: packages in every compression, as dpkg-deb makes them.
func TestDebs(t *testing.T) {
	dir := t.TempDir()
	files := map[string]string{"/bin/x": "hello", "/usr/share/x/y": strings.Repeat("text ", 100000), "/usr/bin/link": "-> x", "/etc/x.conf": "conf", "/usr/share/empty/": ""}
	for i, z := range []string{"none", "gzip", "xz", "zstd"} {
		buildDeb(t, filepath.Join(dir, z, "deeper"), control("x-"+z, fmt.Sprint("1:2-", i), "amd64"), files, []string{"/etc/x.conf"}, "-Z"+z)
	}
	put(t, dir, "README", "no package")
	put(t, dir, "broken.deb", "!<arch>\nno package")
	a := openArchives(t, dir)
	var c *CorruptError
	if p := a.Problems(); len(p) != 1 || !asCorrupt(p[0], &c) || filepath.Base(c.File) != "broken.deb" || c.Offset != 8 {
		t.Errorf("%v", p)
	}
	if n := len(a.Packages()); n != 4 {
		t.Errorf("%d packages", n)
	}
	for i, z := range []string{"none", "gzip", "xz", "zstd"} {
		p := Package{Dpkg, "x-" + z, fmt.Sprint("1:2-", i), "amd64"}
		f := a.must(t, p, "/usr/bin/x", "/bin/x", "/usr/share/x/y", "/usr/bin/link", "/etc/x.conf", "/usr/share/empty", "/none")
		for i, want := range []string{
			"sha256:" + sha256Hex("hello") + " 100644 false ", "sha256:" + sha256Hex("hello") + " 100644 false ", "sha256:" + sha256Hex(files["/usr/share/x/y"]) + " 100644 false ",
			"none 120777 false x", "sha256:" + sha256Hex("conf") + " 100644 true ", "none 40755 false ",
		} {
			if got := fmt.Sprintf("%v %o %v %s", f[i].Digest, *f[i].Mode, f[i].Conffile, f[i].LinkTarget); got != want || f[i].Owner != "root" || f[i].Package != p {
				t.Errorf("%s %d: %s, want %s", z, i, got, want)
			}
		}
		if f[6].Package != (Package{}) || !f[6].Digest.IsZero() {
			t.Errorf("%s: what is not in the archive: %+v", z, f[6])
		}
	}
	if _, found, err := a.Lookup(t.Context(), Package{Dpkg, "x-xz", "1:2-9", "amd64"}, nil); found || err != nil {
		t.Errorf("another version: %v, %v", found, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := a.Lookup(ctx, Package{Dpkg, "x-xz", "1:2-2", "amd64"}, [][]byte{[]byte("/bin/x")}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// TestDebDamaged: a cut or altered archive is an error that names it, never
// other content.
func TestDebDamaged(t *testing.T) {
	dir := t.TempDir()
	file := buildDeb(t, dir, control("x", "1", "all"), map[string]string{"/bin/x": strings.Repeat("hello", 5000), "/bin/y": "y"}, nil, "-Zgzip")
	good, err := os.ReadFile(file)
	must(t, err)
	p := Package{Dpkg, "x", "1", "all"}
	want := sha256Hex(strings.Repeat("hello", 5000))
	bad := t.TempDir()
	for i := range 60 {
		b := good[:len(good)*i/60]
		if i%2 == 1 {
			b = bytes.Clone(good)
			b[len(b)*i/60] ^= 0x10
		}
		must(t, os.WriteFile(bad+"/x.deb", b, 0o644))
		a := openArchives(t, bad)
		files, found, err := a.Lookup(t.Context(), p, [][]byte{[]byte("/bin/x")})
		var c *CorruptError
		switch {
		case !found && len(a.Packages()) == 0 && (len(a.Problems()) != 1 || !asCorrupt(a.Problems()[0], &c)):
			t.Errorf("%d: %v", i, a.Problems())
		case err != nil && (!asCorrupt(err, &c) || c.File != bad+"/x.deb"):
			t.Errorf("%d: %v", i, err)
		case err == nil && found && files[0].Digest.String() != "sha256:"+want && files[0].Package != (Package{}):
			t.Errorf("%d: other content, and no error", i)
		}
	}
}

// TestDebHardLinks: of several names of one file, any may be asked for.
func TestDebHardLinks(t *testing.T) {
	need(t, "dpkg-deb")
	tree, dir := t.TempDir(), t.TempDir()
	put(t, tree, "DEBIAN/control", control("x", "1", "all"))
	first := put(t, tree, "usr/bin/a", "content")
	must(t, os.Link(first, tree+"/usr/bin/b"))
	run(t, "dpkg-deb", "-b", tree, dir)
	a := openArchives(t, dir)
	for _, p := range []string{"/usr/bin/a", "/usr/bin/b"} {
		if f := a.must(t, Package{Dpkg, "x", "1", "all"}, p); f[0].Digest.String() != "sha256:"+sha256Hex("content") {
			t.Errorf("%s: %+v", p, f)
		}
	}
}

// TestRPMFiles: .rpm files, by the digests in their headers.
func TestRPMFiles(t *testing.T) {
	dir := buildRPMs(t)
	a := openArchives(t, dir)
	if n := len(a.Packages()); n != 61 || len(a.Problems()) > 0 {
		t.Errorf("%d packages, %v", n, a.Problems())
	}
	p := Package{RPM, "alpha", "7:1.2-3", "noarch"}
	checkAlpha(t, a.must(t, p, alphaPaths...))
	if f := a.must(t, p, "/bin/alpha"); f[0].Package != p {
		t.Errorf("%+v", f)
	}
	// A header that is not the one that was made is found out.
	good, err := os.ReadFile(dir + "/alpha-1.2-3.noarch.rpm")
	must(t, err)
	at := bytes.Index(good, []byte("with a blank"))
	good[at] ^= 1
	bad := t.TempDir()
	must(t, os.WriteFile(bad+"/x.rpm", good, 0o644))
	if p := openArchives(t, bad).Problems(); len(p) != 1 || !errors.Is(p[0], ErrDamaged) {
		t.Errorf("%v", p)
	}
}

// tarPart is a part of a tar archive as abuild makes it: without the end, but
// for the last.
func tarPart(end bool, entries ...any) []byte {
	var b, z bytes.Buffer
	w := tar.NewWriter(&b)
	for i := 0; i < len(entries); i += 2 {
		h, _ := entries[i].(*tar.Header)
		content := entries[i+1].(string)
		if h == nil {
			h = &tar.Header{Name: entries[i].(string), Typeflag: tar.TypeReg, Mode: 0o644, Uname: "root", Gname: "root"}
		}
		if h.Typeflag == tar.TypeReg {
			h.Size = int64(len(content))
		}
		if err := w.WriteHeader(h); err != nil {
			panic(err)
		}
		w.Write([]byte(content))
	}
	if w.Flush(); end {
		w.Close()
	}
	g := gzip.NewWriter(&z)
	g.Write(b.Bytes())
	g.Close()
	return z.Bytes()
}

// makeAPK writes a package as apk-package(5) tells. apk-tools is not in Debian
// 12, so no real one can be had here.
func makeAPK(signed bool) []byte {
	var b []byte
	if signed {
		b = tarPart(false, ".SIGN.RSA.key.rsa.pub", "signature")
	}
	b = append(b, tarPart(false, ".PKGINFO", "# Generated by abuild\npkgname = busybox\npkgver = 1.36.1-r5\narch = x86_64\n", ".post-install", "#!/bin/sh\n")...)
	return append(b, tarPart(true,
		&tar.Header{Name: "bin/", Typeflag: tar.TypeDir, Mode: 0o755, Uname: "root", Gname: "root"}, "",
		&tar.Header{Name: "bin/busybox", Typeflag: tar.TypeReg, Mode: 0o4755, Uname: "root", Gname: "wheel", PAXRecords: map[string]string{"APK-TOOLS.checksum.SHA1": "00"}}, "busybox",
		&tar.Header{Name: "bin/sh", Typeflag: tar.TypeSymlink, Linkname: "/bin/busybox", Mode: 0o777}, "",
		"etc/busybox.conf", "conf",
		".hidden", "a file of the data",
	)...)
}

func TestAPKFiles(t *testing.T) {
	for _, signed := range []bool{true, false} {
		dir := t.TempDir()
		must(t, os.WriteFile(dir+"/busybox-1.36.1-r5.apk", makeAPK(signed), 0o644))
		put(t, dir, "v3.apk", "ADBd....")
		a := openArchives(t, dir)
		if p := a.Problems(); len(p) != 1 || !errors.Is(p[0], ErrUnsupported) {
			t.Errorf("%v", p)
		}
		f := a.must(t, Package{APK, "busybox", "1.36.1-r5", "x86_64"}, "/usr/bin/busybox", "/bin/sh", "/etc/busybox.conf", "/.hidden", "/.post-install")
		for i, want := range []string{"sha256:" + sha256Hex("busybox") + " 104755 false ", "none 120777 false /bin/busybox", "sha256:" + sha256Hex("conf") + " 100644 true ", "sha256:" + sha256Hex("a file of the data") + " 100644 false "} {
			if f[i].Mode == nil || fmt.Sprintf("%v %o %v %s", f[i].Digest, *f[i].Mode, f[i].Conffile, f[i].LinkTarget) != want {
				t.Errorf("%d: %+v, want %s", i, f[i], want)
			}
		}
		if f[4].Package != (Package{}) {
			t.Errorf("a script of the control part is in the data: %+v", f[4])
		}
	}
}

// apkInstalledText is a database as apk-installed(5) tells.
func apkInstalledText() string {
	sum := func(s string) string {
		return "Q1" + base64.StdEncoding.EncodeToString(Digest{Algorithm: "sha1"}.of(s))
	}
	return "C:" + sum("package") + "\nP:busybox\nV:1.36.1-r5\nA:x86_64\nS:1\nI:2\nT:Size\nD:so:libc.musl-x86_64.so.1\nF:bin\nR:busybox\na:0:0:4755\nZ:" + sum("busybox") +
		"\nR:sh\na:0:0:777\nZ:" + sum("/bin/busybox") + "\nF:etc\nM:0:33:750\nR:busybox.conf\nZ:" + sum("conf") + "\nF:etc/init.d\nR:x\nZ:" + sum("x") +
		"\n\nP:musl\nV:1.2.4-r2\nA:x86_64\nF:lib\nR:ld-musl-x86_64.so.1\na:0:0:755\nZ:Q2" + base64.StdEncoding.EncodeToString(Digest{Algorithm: "sha256"}.of("musl")) + "\nF:\nR:top\n\n"
}

func TestAPKDatabase(t *testing.T) {
	for _, place := range apkInstalled {
		root := t.TempDir()
		put(t, root, place, apkInstalledText())
		s := open(t, root)
		if m := s.Managers(); !slices.Equal(m, []Manager{APK}) {
			t.Fatal(m)
		}
		var got []string
		for _, f := range flat(lookup(t, s, "/bin/busybox", "/bin/sh", "/etc", "/etc/busybox.conf", "/etc/init.d/x", "/lib/ld-musl-x86_64.so.1", "/top", "/none")) {
			got = append(got, fmt.Sprintf("%v %.12s %v %o %s:%s", f.Package, f.Digest, f.Conffile, *f.Mode, f.Owner, f.Group))
		}
		want := []string{
			"busybox 1.36.1-r5 (apk) " + fmt.Sprintf("%.12s", Digest{"sha1", Digest{Algorithm: "sha1"}.of("busybox")}) + " false 4755 root:root",
			"busybox 1.36.1-r5 (apk) " + fmt.Sprintf("%.12s", Digest{"sha1", Digest{Algorithm: "sha1"}.of("/bin/busybox")}) + " false 777 root:root",
			"busybox 1.36.1-r5 (apk) none false 750 root:#33",
			"busybox 1.36.1-r5 (apk) " + fmt.Sprintf("%.12s", Digest{"sha1", Digest{Algorithm: "sha1"}.of("conf")}) + " true 644 root:root",
			"busybox 1.36.1-r5 (apk) " + fmt.Sprintf("%.12s", Digest{"sha1", Digest{Algorithm: "sha1"}.of("x")}) + " false 644 root:root",
			"musl 1.2.4-r2 (apk) " + fmt.Sprintf("%.12s", Digest{"sha256", Digest{Algorithm: "sha256"}.of("musl")}) + " false 755 root:root",
			"musl 1.2.4-r2 (apk) none false 644 root:root",
		}
		if !slices.Equal(got, want) {
			t.Errorf("got  %q\nwant %q", got, want)
		}
		if list, err := s.Packages(t.Context()); err != nil || len(list) != 2 || len(listing(t, s)) != 10 {
			t.Errorf("%v, %v, %d", list, err, len(listing(t, s)))
		}
	}
	root := t.TempDir()
	put(t, root, apkInstalled[0], "P:x\nF:bin\nR:y\nZ:Q1abc\n")
	_, err := open(t, root).Lookup(t.Context(), [][]byte{[]byte("/bin/y")})
	var c *CorruptError
	if !asCorrupt(err, &c) || c.Line != 4 {
		t.Errorf("%v", err)
	}
}

// TestArchivesAndDpkg: an upgrade and a replaced binary, as the archives tell.
func TestArchivesAndDpkg(t *testing.T) {
	need(t, "dpkg")
	root, debs := dpkgRoot(t), t.TempDir()
	install(t, root, buildDeb(t, debs, control("x", "1", "all"), map[string]string{"/bin/x": "version 1"}, nil))
	install(t, root, buildDeb(t, debs, control("x", "2", "all"), map[string]string{"/bin/x": "version 2"}, nil))
	// Somebody who is root replaces the binary and its digest.
	put(t, root, "usr/bin/x", "evil")
	put(t, root, "var/lib/dpkg/info/x.md5sums", fmt.Sprintf("%x  bin/x\n", Digest{Algorithm: "md5"}.of("evil")))
	f := lookup(t, open(t, root), "/usr/bin/x")[0][0]
	if f.Package.Version != "2" || !f.Digest.Equal(f.Digest.of("evil")) {
		t.Errorf("%+v", f)
	}
	in := openArchives(t, debs).must(t, f.Package, "/usr/bin/x")[0]
	if in.Digest.Equal(in.Digest.of("evil")) || !in.Digest.Equal(in.Digest.of("version 2")) {
		t.Errorf("%+v", in)
	}
}

// TestXzDictionary: a dictionary that takes more memory than packages need is
// refused before it is made.
func TestXzDictionary(t *testing.T) {
	need(t, "xz")
	for dict, ok := range map[string]bool{"64MiB": true, "256MiB": false} {
		cmd := exec.Command("xz", "--format=xz", "--lzma2=preset=0,dict="+dict, "-c")
		cmd.Stdin = strings.NewReader("text")
		z, err := cmd.Output()
		must(t, err)
		d := &deb{f: bytes.NewReader(z)}
		_, done, err := d.unpack(arMember{name: "data.tar.xz", size: int64(len(z))}, 100)
		if (err == nil) != ok {
			t.Errorf("%s: %v", dict, err)
		}
		if err == nil {
			done()
		}
	}
}

// TestArchiveOfTwoNames: a package of a split /usr may have different files
// that the merged one would give the same name.
func TestArchiveOfTwoNames(t *testing.T) {
	dir := t.TempDir()
	buildDeb(t, dir, control("x", "1", "all"), map[string]string{"/bin/x": "in bin", "/usr/bin/x": "in usr"}, nil)
	f := openArchives(t, dir).must(t, Package{Dpkg, "x", "1", "all"}, "/bin/x", "/usr/bin/x")
	for i, want := range []string{"in bin", "in usr"} {
		if f[i].Digest.String() != "sha256:"+sha256Hex(want) {
			t.Errorf("%d: %+v", i, f[i])
		}
	}
}
