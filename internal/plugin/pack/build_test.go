package pack

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mobileops/mobileops/internal/archive"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/plugin/manifest"
)

func TestBuiltPackagesAreInstalled(t *testing.T) {
	p := newPublisher(t)
	for _, format := range []archive.Format{archive.Zstd, archive.Gzip} {
		opts := p.options()
		opts.Format = format
		var b, again bytes.Buffer
		src := sourceDir(t)
		report, err := Build(t.Context(), src, &b, opts)
		if err != nil {
			t.Fatal(err)
		}
		other := sourceDir(t)
		old := time.Unix(1_500_000_000, 0)
		if err := os.Chtimes(filepath.Join(other, "LICENSE"), old, old); err != nil {
			t.Fatal(err)
		}
		if _, err := Build(t.Context(), other, &again, opts); err != nil || !bytes.Equal(b.Bytes(), again.Bytes()) {
			t.Errorf("%s: the same files make other bytes (%v)", format, err)
		}
		if got := names(report.Manifest); !slices.Equal(got, packedNames) || report.Files != len(packedNames)+2 || report.PackedBytes != int64(b.Len()) {
			t.Errorf("%s: %v, %+v", format, got, report)
		}
		path := filepath.Join(t.TempDir(), ArchiveName(report.Manifest, format))
		if err := os.WriteFile(path, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
		if filepath.Base(path) != "demo-1.2.0.plugin."+string(format) {
			t.Error(path)
		}
		pkg, err := Open(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := pkg.Verify(p.keys, now); err != nil {
			t.Fatal(err)
		}
		if pkg.Release.Sequence != 7 || pkg.Release.Channel != DefaultChannel || pkg.Key.ID() != report.KeyID {
			t.Errorf("%+v, %s", pkg.Release, pkg.Key.ID())
		}
		dst := filepath.Join(t.TempDir(), "partial")
		if err := pkg.Unpack(t.Context(), dst); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(pkg.Close(), VerifyDir(t.Context(), dst, pkg.Manifest)); err != nil {
			t.Error(err)
		}
		for _, name := range packedNames {
			want, err := os.ReadFile(filepath.Join(src, name))
			if err != nil {
				t.Fatal(err)
			}
			if got, err := os.ReadFile(filepath.Join(dst, name)); err != nil || !bytes.Equal(got, want) {
				t.Errorf("%s is not what was packed (%v)", name, err)
			}
		}
		if out, err := exec.Command(filepath.Join(dst, "mobileops-demo")).Output(); err != nil || string(out) != "hello\n" {
			t.Errorf("the program said %q, %v", out, err)
		}
		if info, err := os.Stat(dst); err != nil || info.Mode().Perm() != 0o755 {
			t.Errorf("%v, %v", info.Mode(), err)
		}
	}
}

// TestModesDoNotDependOnTheUmask runs what unpacks under a strict and a loose
// one.
func TestModesDoNotDependOnTheUmask(t *testing.T) {
	p := newPublisher(t)
	data := built(t, p)
	for _, mask := range []int{0o077, 0} {
		before := syscall.Umask(mask)
		err := take(t, p, data)
		dst := filepath.Join(t.TempDir(), "partial")
		if err == nil {
			var pkg *Package
			if pkg, err = OpenReader(bytes.NewReader(data)); err == nil {
				if err = pkg.Verify(p.keys, now); err == nil {
					err = pkg.Unpack(t.Context(), dst)
				}
				pkg.Close()
				if err == nil {
					err = VerifyDir(t.Context(), dst, pkg.Manifest)
				}
			}
		}
		syscall.Umask(before)
		if err != nil {
			t.Errorf("umask %03o: %v", mask, err)
		}
	}
}

// TestPackagesAreReadByTar: anybody can look into a package, and unpack one.
func TestPackagesAreReadByTar(t *testing.T) {
	for _, need := range []string{"tar", "zstd"} {
		if _, err := exec.LookPath(need); err != nil {
			t.Skipf("%s is not installed", need)
		}
	}
	p := newPublisher(t)
	dir := t.TempDir()
	path := filepath.Join(dir, "p.tar.zst")
	if err := os.WriteFile(path, built(t, p), 0o644); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("tar", "-tf", path).Output()
	if want := "plugin.yaml\nplugin.yaml.minisig\n" + strings.Join(packedNames, "\n") + "\n"; err != nil || string(out) != want {
		t.Errorf("%v\n%s\nwant\n%s", err, out, want)
	}
	tree := filepath.Join(dir, "tree")
	if err := os.Mkdir(tree, 0o755); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("tar", "-xpf", path, "-C", tree).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	// What tar unpacked is a package that is a directory, and packed again by
	// tar it is one that is an archive.
	pkg, err := Open(tree)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(pkg.Verify(p.keys, now), pkg.Prove(t.Context()), pkg.Close()); err != nil {
		t.Error(err)
	}
	again := filepath.Join(dir, "again.tar.gz")
	cmd := exec.Command("tar", append([]string{"-czf", again, "plugin.yaml", "plugin.yaml.minisig"}, packedNames...)...)
	cmd.Dir = tree
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	data, err := os.ReadFile(again)
	if err != nil {
		t.Fatal(err)
	}
	if err := take(t, p, data); err != nil {
		t.Error(err)
	}
}

func TestBuildDir(t *testing.T) {
	p := newPublisher(t)
	dst := filepath.Join(t.TempDir(), "demo")
	report, err := BuildDir(t.Context(), sourceDir(t), dst, p.options())
	if err != nil {
		t.Fatal(err)
	}
	pkg, err := Open(dst)
	if err != nil {
		t.Fatal(err)
	}
	defer pkg.Close()
	unpacked := filepath.Join(t.TempDir(), "partial")
	if err := errors.Join(pkg.Verify(p.keys, now), pkg.Prove(t.Context()), pkg.Unpack(t.Context(), unpacked), VerifyDir(t.Context(), unpacked, pkg.Manifest)); err != nil {
		t.Error(err)
	}
	if report.KeyID != pkg.Key.ID() {
		t.Error(report)
	}
	if _, err := BuildDir(t.Context(), sourceDir(t), dst, p.options()); !errors.Is(err, fs.ErrExist) {
		t.Errorf("over another: %v", err)
	}
	if _, err := os.Stat(filepath.Join(dst, "plugin.yaml")); err != nil {
		t.Errorf("what was there is gone: %v", err)
	}
}

func TestBuildChoosesFiles(t *testing.T) {
	p := newPublisher(t)
	for _, tc := range []struct {
		include, exclude, want []string
	}{
		{want: packedNames},
		{include: []string{"README*"}, want: []string{"README.md", "mobileops-demo"}},
		{include: []string{"**"}, want: []string{"LICENSE", "README.md", "files/empty", "files/helper", "files/rules/a.yaml", "files/rules/b.yaml", "main.go", "mobileops-demo"}},
		{include: []string{"**"}, exclude: []string{"files", "*.go", "LICENSE"}, want: []string{"README.md", "mobileops-demo"}},
		{exclude: []string{"files/rules/*", "**/empty"}, want: []string{"LICENSE", "README.md", "files/helper", "mobileops-demo"}},
	} {
		opts := p.options()
		opts.Include, opts.Exclude = tc.include, tc.exclude
		var b bytes.Buffer
		report, err := Build(t.Context(), sourceDir(t), &b, opts)
		if err != nil {
			t.Errorf("%v: %v", tc, err)
			continue
		}
		if got := names(report.Manifest); !slices.Equal(got, tc.want) {
			t.Errorf("%v: %v", tc, got)
		}
	}
}

func TestBuildRefuses(t *testing.T) {
	p := newPublisher(t)
	for _, tc := range []struct {
		what  string
		want  string
		spoil func(dir string, o *BuildOptions) error
	}{
		{"no program", "build the plugin first", func(dir string, _ *BuildOptions) error { return os.Remove(filepath.Join(dir, "mobileops-demo")) }},
		{"a program that is none", "neither an ELF program", func(dir string, _ *BuildOptions) error {
			return os.WriteFile(filepath.Join(dir, "mobileops-demo"), []byte("package main"), 0o755)
		}},
		{"a program that is empty", "neither an ELF program", func(dir string, _ *BuildOptions) error { return os.Truncate(filepath.Join(dir, "mobileops-demo"), 0) }},
		{"a program without its mode", "chmod 755", func(dir string, _ *BuildOptions) error { return os.Chmod(filepath.Join(dir, "mobileops-demo"), 0o644) }},
		{"a link in files", "symbolic link", func(dir string, _ *BuildOptions) error {
			return os.Symlink("/etc/shadow", filepath.Join(dir, "files/l"))
		}},
		{"a link in place of files", "symbolic link", func(dir string, _ *BuildOptions) error {
			return errors.Join(os.RemoveAll(filepath.Join(dir, "files")), os.Symlink("/etc", filepath.Join(dir, "files")))
		}},
		{"a link in place of the manifest", "symbolic link", func(dir string, _ *BuildOptions) error {
			return errors.Join(os.Rename(filepath.Join(dir, "plugin.yaml"), filepath.Join(dir, "x.yaml")), os.Symlink("x.yaml", filepath.Join(dir, "plugin.yaml")))
		}},
		{"a pipe", "pipe", func(dir string, _ *BuildOptions) error { return syscall.Mkfifo(filepath.Join(dir, "files/p"), 0o644) }},
		{"setuid", "no file of a plugin has such bits", func(dir string, _ *BuildOptions) error {
			return os.Chmod(filepath.Join(dir, "files/helper"), 0o755|fs.ModeSetuid)
		}},
		{"no manifest", "plugin init", func(dir string, _ *BuildOptions) error { return os.Remove(filepath.Join(dir, "plugin.yaml")) }},
		{"a manifest that is none", "plugin.yaml:", func(dir string, _ *BuildOptions) error {
			return os.WriteFile(filepath.Join(dir, "plugin.yaml"), []byte(source1+"colour: red\n"), 0o644)
		}},
		{"case", "case alone", func(dir string, _ *BuildOptions) error {
			return os.WriteFile(filepath.Join(dir, "files/EMPTY"), nil, 0o644)
		}},
		{"a name with a newline", "files", func(dir string, _ *BuildOptions) error {
			return os.WriteFile(filepath.Join(dir, "files/a\nb"), nil, 0o644)
		}},
		{"a pattern that matches nothing", "no file matches", func(_ string, o *BuildOptions) error { o.Include = []string{"nothing/*"}; return nil }},
		{"a bad pattern", "stands alone", func(_ string, o *BuildOptions) error { o.Exclude = []string{"a**"}; return nil }},
		{"no key", "needs a key", func(_ string, o *BuildOptions) error { o.Signer = nil; return nil }},
		{"no sequence", "sequence", func(_ string, o *BuildOptions) error { o.Sequence = 0; return nil }},
		{"an end within a second", "whole second", func(_ string, o *BuildOptions) error { o.Expires = expires.Add(1); return nil }},
		{"a format that is none", "no format", func(_ string, o *BuildOptions) error { o.Format = "zip"; return nil }},
	} {
		dir, opts := sourceDir(t), p.options()
		if err := tc.spoil(dir, &opts); err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		if _, err := Build(t.Context(), dir, &b, opts); err == nil || !strings.Contains(err.Error(), tc.want) || failure.KindOf(err) == failure.None {
			t.Errorf("%s: %v, want %q", tc.what, err, tc.want)
		}
		if tc.what == "a format that is none" {
			continue // is of no matter to a directory
		}
		parent := t.TempDir()
		if _, err := BuildDir(t.Context(), dir, filepath.Join(parent, "p"), opts); err == nil {
			t.Errorf("%s: a directory is built", tc.what)
		}
		if left, err := os.ReadDir(parent); err != nil || len(left) > 0 {
			t.Errorf("%s: %v is left, %v", tc.what, left, err)
		}
	}
}

func TestBuildSaysWhatStoppedIt(t *testing.T) {
	p := newPublisher(t)
	full := errors.New("no space left on device")
	if _, err := Build(t.Context(), sourceDir(t), refusing{full}, p.options()); !errors.Is(err, full) {
		t.Errorf("%v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Build(ctx, sourceDir(t), &bytes.Buffer{}, p.options()); failure.KindOf(err) != failure.Interrupted {
		t.Errorf("%v", err)
	}
	if _, err := Build(t.Context(), filepath.Join(t.TempDir(), "nowhere"), &bytes.Buffer{}, p.options()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v", err)
	}
}

// TestChangesDuringBuildAreNoticed: between hashing a file and packing it, by
// writing into it or by putting another in its place.
func TestChangesDuringBuildAreNoticed(t *testing.T) {
	p := newPublisher(t)
	for what, change := range map[string]func(dir string) error{
		"written": func(dir string) error {
			return os.WriteFile(filepath.Join(dir, "LICENSE"), []byte("Apache-2.1\n"), 0o644)
		},
		"longer": func(dir string) error {
			return os.WriteFile(filepath.Join(dir, "LICENSE"), []byte("Apache-2.0, or later\n"), 0o644)
		},
		"replaced": func(dir string) error {
			return errors.Join(os.WriteFile(filepath.Join(dir, "new"), []byte("Apache-2.0\n"), 0o644), os.Rename(filepath.Join(dir, "new"), filepath.Join(dir, "LICENSE")))
		},
		"a link": func(dir string) error {
			return errors.Join(os.Remove(filepath.Join(dir, "LICENSE")), os.Symlink("README.md", filepath.Join(dir, "LICENSE")))
		},
	} {
		dir, opts := sourceDir(t), p.options()
		b, err := prepare(t.Context(), dir, &opts)
		if err != nil {
			t.Fatal(err)
		}
		if err := change(dir); err != nil {
			t.Fatal(err)
		}
		if err := b.write(t.Context(), &bytes.Buffer{}, opts); err == nil {
			t.Errorf("%s: packed", what)
		}
		parent := t.TempDir()
		if err := write(t.Context(), filepath.Join(parent, "p"), b.raw, b.signature, b.each); err == nil {
			t.Errorf("%s: written to a directory", what)
		}
		if left, err := os.ReadDir(parent); err != nil || len(left) > 0 {
			t.Errorf("%s: %v is left, %v", what, left, err)
		}
		b.tree.close()
	}
}

type refusing struct{ err error }

func (r refusing) Write([]byte) (int, error) { return 0, r.err }

// TestManifestsThatBuildWritesAreSignedExactly: the signature beside the
// manifest verifies with the program minisign, as anybody would.
func TestManifestsThatBuildWritesAreSignedExactly(t *testing.T) {
	if _, err := exec.LookPath("minisign"); err != nil {
		t.Skip("minisign is not installed")
	}
	p := newPublisher(t)
	dst := filepath.Join(t.TempDir(), "demo")
	if _, err := BuildDir(t.Context(), sourceDir(t), dst, p.options()); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("minisign", "-V", "-P", p.signer.Public().String(), "-m", manifest.FileName)
	cmd.Dir = dst
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "name=demo version=1.2.0 sequence=7 channel=stable") {
		t.Errorf("%v\n%s", err, out)
	}
}
