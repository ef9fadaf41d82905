package pack

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/mobileops/mobileops/internal/archive"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/plugin/manifest"
)

// spoiled are the things that can happen to a directory after it was installed,
// or to a package that is a directory.
type spoiled struct {
	what  string
	code  archive.Code // as an installed directory
	file  archive.Code // of the program, by VerifyFile; "" when it is not touched
	dir   archive.Code // as a package that is a directory, "" when it is taken
	spoil func(dir string) error
}

func in(dir string, name ...string) string {
	return filepath.Join(append([]string{dir}, name...)...)
}

func everythingThatHappens() []spoiled {
	replace := func(name string, by func(path string) error) func(string) error {
		return func(dir string) error { return errors.Join(os.RemoveAll(in(dir, name)), by(in(dir, name))) }
	}
	link := func(path string) error { return os.Symlink("/bin/sh", path) }
	fifo := func(path string) error { return syscall.Mkfifo(path, 0o755) }
	directory := func(path string) error { return os.Mkdir(path, 0o755) }
	socket := func(path string) error {
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
		if err == nil {
			l.SetUnlinkOnClose(false)
			err = l.Close()
		}
		return err
	}
	const prog = "mobileops-demo"
	return []spoiled{
		{"a file changed", CodeDigest, "", CodeDigest, func(dir string) error {
			return os.WriteFile(in(dir, "files/rules/a.yaml"), []byte("a: 2\n"), 0o644)
		}},
		{"the program changed", CodeDigest, CodeDigest, CodeDigest, func(dir string) error {
			return os.WriteFile(in(dir, prog), []byte(strings.Replace(program, "hello", "hallo", 1)), 0o755)
		}},
		{"the program longer", CodeDigest, CodeDigest, CodeDigest, func(dir string) error {
			return os.WriteFile(in(dir, prog), []byte(program+"\n"), 0o755)
		}},
		{"the program empty", CodeDigest, CodeDigest, CodeDigest, func(dir string) error { return os.Truncate(in(dir, prog), 0) }},
		{"the program gone", CodeMissingFile, CodeMissingFile, CodeMissingFile, func(dir string) error { return os.Remove(in(dir, prog)) }},
		{"a file gone", CodeMissingFile, "", CodeMissingFile, func(dir string) error { return os.Remove(in(dir, "LICENSE")) }},
		{"a directory gone", CodeMissingFile, "", CodeMissingFile, func(dir string) error { return os.RemoveAll(in(dir, "files")) }},
		{"one more file", CodeExtraFile, "", CodeExtraFile, func(dir string) error { return os.WriteFile(in(dir, "more"), nil, 0o644) }},
		{"one more file in a directory", CodeExtraFile, "", CodeExtraFile, func(dir string) error {
			return os.WriteFile(in(dir, "files/rules/more"), nil, 0o644)
		}},
		{"one more directory", CodeExtraFile, "", CodeExtraFile, func(dir string) error { return os.Mkdir(in(dir, "files/more"), 0o755) }},
		{"one more link", CodeExtraFile, "", CodeExtraFile, func(dir string) error { return os.Symlink("README.md", in(dir, "link")) }},
		{"a link in place of the program", archive.CodeType, archive.CodeType, archive.CodeType, replace(prog, link)},
		{"a link to the same content", archive.CodeType, archive.CodeType, archive.CodeType, func(dir string) error {
			return errors.Join(os.Rename(in(dir, prog), in(dir, "..", "moved")), os.Symlink("../moved", in(dir, prog)))
		}},
		{"a link in place of a directory", archive.CodeType, "", archive.CodeType, func(dir string) error {
			return errors.Join(os.Rename(in(dir, "files"), in(dir, "..", "moved")), os.Symlink("../moved", in(dir, "files")))
		}},
		{"a directory in place of the program", archive.CodeDirOverFile, archive.CodeDirOverFile, archive.CodeDirOverFile, replace(prog, directory)},
		{"a pipe in place of the program", archive.CodeDevice, archive.CodeDevice, archive.CodeDevice, replace(prog, fifo)},
		{"a pipe in place of a file", archive.CodeDevice, "", archive.CodeDevice, replace("files/rules/b.yaml", fifo)},
		{"a socket in place of a file", archive.CodeDevice, "", archive.CodeDevice, replace("LICENSE", socket)},
		{"a file in place of a directory", archive.CodeFileOverDir, "", archive.CodeFileOverDir, replace("files", func(path string) error {
			return os.WriteFile(path, nil, 0o644)
		})},
		{"setuid", archive.CodeSetID, archive.CodeSetID, archive.CodeSetID, func(dir string) error { return os.Chmod(in(dir, prog), 0o755|fs.ModeSetuid) }},
		{"writable by its group", CodeWritable, CodeWritable, "", func(dir string) error { return os.Chmod(in(dir, prog), 0o775) }},
		{"writable by all", CodeWritable, "", "", func(dir string) error { return os.Chmod(in(dir, "LICENSE"), 0o646) }},
		{"a directory writable by all", CodeWritable, "", "", func(dir string) error { return os.Chmod(in(dir, "files/rules"), 0o777) }},
		{"the top writable by its group", CodeWritable, CodeWritable, "", func(dir string) error { return os.Chmod(dir, 0o775) }},
		{"no program any more", CodeMode, CodeMode, CodeMode, func(dir string) error { return os.Chmod(in(dir, prog), 0o644) }},
		{"a program that was none", CodeMode, "", CodeMode, func(dir string) error { return os.Chmod(in(dir, "LICENSE"), 0o755) }},
		{"more private", CodeMode, "", "", func(dir string) error { return os.Chmod(in(dir, "LICENSE"), 0o600) }},
		{"the manifest gone", CodeMissingFile, "", CodeNotPackage, func(dir string) error { return os.Remove(in(dir, manifest.FileName)) }},
		{"the signature gone", CodeMissingFile, "", CodeUnsigned, func(dir string) error { return os.Remove(in(dir, manifest.SignatureName)) }},
		{"the manifest a link", archive.CodeType, "", archive.CodeType, replace(manifest.FileName, link)},
		{"the manifest a pipe", archive.CodeDevice, "", archive.CodeDevice, replace(manifest.FileName, fifo)},
		{"the signature a directory", archive.CodeDirOverFile, "", archive.CodeDirOverFile, replace(manifest.SignatureName, directory)},
	}
}

// TestChangesAfterInstallationAreFound: whatever happens to a directory, it is
// not what was signed any more.
func TestChangesAfterInstallationAreFound(t *testing.T) {
	p := newPublisher(t)
	for _, s := range everythingThatHappens() {
		dir, m := installed(t, p)
		if err := errors.Join(VerifyDir(t.Context(), dir, m), VerifyFile(t.Context(), dir, m, m.Program())); err != nil {
			t.Fatalf("before anything happened: %v", err)
		}
		if err := s.spoil(dir); err != nil {
			t.Fatal(err)
		}
		err := VerifyDir(t.Context(), dir, m)
		refusedAs(t, s.what, err, s.code)
		if failure.KindOf(err) != failure.Untrustworthy {
			t.Errorf("%s: %v", s.what, err)
		}
		refusedAs(t, s.what+", the program", VerifyFile(t.Context(), dir, m, m.Program()), s.file)
	}
}

// TestPackagesThatAreDirectoriesAreRefused: the same, before it is installed.
func TestPackagesThatAreDirectoriesAreRefused(t *testing.T) {
	p := newPublisher(t)
	for _, s := range everythingThatHappens() {
		src := filepath.Join(t.TempDir(), "demo")
		if _, err := BuildDir(t.Context(), sourceDir(t), src, p.options()); err != nil {
			t.Fatal(err)
		}
		if err := s.spoil(src); err != nil {
			t.Fatal(err)
		}
		parent := t.TempDir()
		dst := filepath.Join(parent, "partial")
		err := func() error {
			pkg, err := Open(src)
			if err != nil {
				return err
			}
			defer pkg.Close()
			if err := pkg.Verify(p.keys, now); err != nil {
				return err
			}
			if err := pkg.Unpack(t.Context(), dst); err != nil {
				return err
			}
			return VerifyDir(t.Context(), dst, pkg.Manifest)
		}()
		refusedAs(t, s.what, err, s.dir)
		left, readErr := os.ReadDir(parent)
		if readErr != nil || s.dir != "" && len(left) > 0 {
			t.Errorf("%s: %v is left (%v)", s.what, left, readErr)
		}
	}
}

func TestOwnersOfWhatIsInstalled(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("giving files to another user needs root")
	}
	p := newPublisher(t)
	const somebody = 12345
	for _, name := range []string{".", "files", "files/rules/a.yaml", "mobileops-demo", manifest.FileName} {
		dir, m := installed(t, p)
		if err := os.Chown(in(dir, name), somebody, -1); err != nil {
			t.Fatal(err)
		}
		refusedAs(t, name, VerifyDir(t.Context(), dir, m), CodeOwner)
		code := map[string]archive.Code{".": CodeOwner, "mobileops-demo": CodeOwner}[name]
		refusedAs(t, name+", the program", VerifyFile(t.Context(), dir, m, m.Program()), code)
	}
	// A package that lies in somebody's directory is taken, unless everybody
	// could have put it there.
	src := filepath.Join(t.TempDir(), "demo")
	if _, err := BuildDir(t.Context(), sourceDir(t), src, p.options()); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(src, somebody, -1); err != nil {
		t.Fatal(err)
	}
	pkg, err := Open(src)
	if err != nil {
		t.Fatal(err)
	}
	pkg.Close()
	if err := os.Chmod(src, 0o777); err != nil {
		t.Fatal(err)
	}
	_, err = Open(src)
	refusedAs(t, "a directory that all may write", err, CodeWritable)
}

// TestAllThatIsWrongIsTold, up to a number.
func TestAllThatIsWrongIsTold(t *testing.T) {
	p := newPublisher(t)
	dir, m := installed(t, p)
	if err := errors.Join(os.Remove(in(dir, "LICENSE")), os.WriteFile(in(dir, "README.md"), []byte("# other\n"), 0o644), os.WriteFile(in(dir, "more\x1b[2J"), nil, 0o644)); err != nil {
		t.Fatal(err)
	}
	err := VerifyDir(t.Context(), dir, m)
	for _, want := range []string{`missing-file: "LICENSE"`, `digest: "README.md"`, `extra-file: "more\x1b[2J"`} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	for i := range 100 {
		if err := os.WriteFile(in(dir, strings.Repeat("x", i+1)), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if n := strings.Count(VerifyDir(t.Context(), dir, m).Error(), "\n") + 1; n < maxReported || n > 2*maxReported {
		t.Errorf("%d lines", n)
	}
}

func TestVerifyOfWhatIsNotThere(t *testing.T) {
	p := newPublisher(t)
	dir, m := installed(t, p)
	refusedAs(t, "no directory", VerifyDir(t.Context(), dir+"x", m), CodeMissingFile)
	refusedAs(t, "no such file", VerifyFile(t.Context(), dir, m, "other"), CodeExtraFile)
	if err := os.Symlink(dir, dir+"-link"); err != nil {
		t.Fatal(err)
	}
	refusedAs(t, "a link", VerifyDir(t.Context(), dir+"-link", m), archive.CodeFileOverDir)
	if err := VerifyFile(t.Context(), dir, m, "files/rules/b.yaml"); err != nil {
		t.Error(err)
	}
	if err := errors.Join(Discard(dir), Discard(dir)); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v", err)
	}
}

func TestOpenOfWhatIsNoPackage(t *testing.T) {
	dir := t.TempDir()
	put(t, dir, "text", "hello", 0o644)
	put(t, dir, "empty", "", 0o644)
	if err := errors.Join(syscall.Mkfifo(in(dir, "pipe"), 0o644), os.Mkdir(in(dir, "directory"), 0o755)); err != nil {
		t.Fatal(err)
	}
	for name, code := range map[string]archive.Code{
		"text": archive.CodeFormat, "empty": archive.CodeTruncated, "pipe": CodeNotPackage, "directory": CodeNotPackage, "nowhere": "",
	} {
		pkg, err := Open(in(dir, name))
		refusedAs(t, name, err, code)
		if err == nil || pkg != nil {
			t.Errorf("%s is opened", name)
		}
	}
}

// BenchmarkVerify is what each start of a plugin costs: its program alone, and
// everything that is installed, with a program of 20 MB.
func BenchmarkVerify(b *testing.B) {
	p := newPublisher(b)
	src := sourceDir(b)
	put(b, src, "mobileops-demo", program+"exit\n"+strings.Repeat("0123456789abcdef", 20_000_000/16), 0o755)
	dir := filepath.Join(b.TempDir(), "demo")
	report, err := BuildDir(b.Context(), src, dir, p.options())
	if err != nil {
		b.Fatal(err)
	}
	m := report.Manifest
	for _, c := range []struct {
		name string
		f    func() error
	}{
		{"open", func() error {
			pkg, err := Open(dir)
			if err != nil {
				return err
			}
			return errors.Join(pkg.Verify(p.keys, now), pkg.Close())
		}},
		{"dir", func() error { return VerifyDir(b.Context(), dir, m) }},
		{"program", func() error { return VerifyFile(b.Context(), dir, m, m.Program()) }},
	} {
		b.Run(c.name, func(b *testing.B) {
			for b.Loop() {
				if err := c.f(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
