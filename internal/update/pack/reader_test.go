package pack

import (
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/mobileops/mobileops/internal/archive"
	"github.com/mobileops/mobileops/internal/archive/rawtar"
)

// TestEntriesAreToldAsTheyAre: the manifest and its directory, and what else an entry
// of a package can be; what headers of all formats say is shown for package archive.
func TestEntriesAreToldAsTheyAre(t *testing.T) {
	unpacked := rawtar.Archive(
		rawtar.Dir("./"), rawtar.Dir(".mobileops/"),
		manifestEntry("name: platform\nversion: 2.4.1\nsetuid: [{path: bin/ping, mode: \"4755\"}]\ndata: [var]\nhooks: {before: {command: [.mobileops/hooks/before, now]}}\n"),
		rawtar.Entry{Name: ".mobileops/hooks/before", Body: "#!/bin/sh\n", Mode: 0o755},
		rawtar.Entry{Name: "./bin/ping", Body: rawtar.Hello, Mode: 0o4755}, rawtar.Symlink("bin/p", "ping"),
		rawtar.Dir("bin/"), // after what is in it
		rawtar.Entry{Name: "tmp", Type: '5', Mode: 0o1777}, rawtar.Symlink("var/here", "there"), rawtar.File("übung/ß"),
	)
	for how, data := range map[string][]byte{"gzip": rawtar.Gzip(unpacked), "zstd": rawtar.Zstd(append(unpacked, make([]byte, 9<<10)...))} {
		m, all, err := readPackage(t, data, archive.Limits{})
		if err != nil {
			t.Fatalf("%s: %v", how, err)
		}
		if m.Name != "platform" || m.Version != "2.4.1" || m.Kind != KindOverlay || m.Hooks.Before.Timeout != DefaultHookTimeout {
			t.Errorf("%s: %+v", how, m)
		}
		var lines []string
		for _, e := range all {
			line := fmt.Sprintf("%s %s %o %d", e.Name, e.Kind, e.Mode, e.ModTime.Unix())
			if e.Meta {
				line += " meta"
			}
			if e.Kind == archive.Symlink {
				line += " -> " + e.Link
			}
			if e.Kind == archive.File {
				line += fmt.Sprintf(" %q", e.content)
			}
			lines = append(lines, line)
		}
		const usual = "1700000000"
		want := []string{
			".mobileops/hooks/before file 755 " + usual + ` meta "#!/bin/sh\n"`,
			"bin/ping file 4755 " + usual + ` "hello, world\n"`,
			"bin/p symlink 777 " + usual + " -> ping",
			"bin directory 755 " + usual,
			"tmp directory 775 " + usual,
			"var/here symlink 777 " + usual + " -> there",
			"übung/ß file 644 " + usual + ` "hello, world\n"`,
		}
		if got := strings.Join(lines, "\n"); got != strings.Join(want, "\n") {
			t.Errorf("%s:\n%s\nwant\n%s", how, got, strings.Join(want, "\n"))
		}
	}
}

// incompressible is content that packing makes no smaller.
func incompressible(n int) string {
	var b strings.Builder
	for i := 0; b.Len() < n; i++ {
		sum := sha256.Sum256([]byte{byte(i), byte(i >> 8), byte(i >> 16)})
		b.Write(sum[:])
	}
	return b.String()[:n]
}

// tree makes a directory with everything that a package can hold.
func tree(t testing.TB) string {
	t.Helper()
	root := t.TempDir()
	write := func(name, content string, mode os.FileMode) {
		p := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(p, mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(p, time.Time{}, time.Unix(1_700_000_000, 123456789)); err != nil {
			t.Fatal(err)
		}
	}
	write(".mobileops/package.yaml", "schema: mobileops.package/v1\nname: platform\nversion: 2.4.1\nconfig: [etc/**]\nhooks: {after: {command: [.mobileops/hooks/after]}}\n", 0o644)
	write(".mobileops/hooks/after", "#!/bin/sh\nexit 0\n", 0o755)
	write("bin/run", "#!/bin/sh\n", 0o755)
	write("etc/platform.conf", "level = info\n", 0o640)
	write("lib/large", incompressible(1<<20), 0o644)
	write("lib/empty", "", 0o444)
	write("lib/ümläut €", "x", 0o644)
	write("share/"+strings.Repeat("long-directory-name/", 9)+strings.Repeat("n", 200), "long", 0o644)
	for link, target := range map[string]string{"bin/alias": "run", "lib/up": "../bin/run", "share/longlink": strings.Repeat("long-directory-name/", 9) + strings.Repeat("n", 200)} {
		if err := os.Symlink(target, filepath.Join(root, link)); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// contentOf is what a package should hold of a tree: names, kinds, modes,
// targets and content.
func contentOf(t testing.TB, root string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(root, func(p string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, _ := filepath.Rel(root, p)
		info, err := d.Info()
		if err != nil {
			return err
		}
		switch {
		case name == "." || name == MetaDir || name == ManifestName:
		case d.IsDir():
			all[name] = fmt.Sprintf("directory %o", info.Mode().Perm())
		case d.Type() == os.ModeSymlink:
			target, err := os.Readlink(p)
			all[name] = "symlink 777 " + target
			return err
		default:
			content, err := os.ReadFile(p)
			all[name] = fmt.Sprintf("file %o %d %x", info.Mode().Perm(), info.ModTime().Unix(), sha256.Sum256(content))
			return err
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// packageContent is the same of a package.
func packageContent(entries []told) map[string]string {
	all := map[string]string{}
	for _, e := range entries {
		all[e.Name] = fmt.Sprintf("%s %o", e.Kind, e.Mode)
		switch e.Kind {
		case archive.Symlink:
			all[e.Name] += " " + e.Link
		case archive.File:
			all[e.Name] += fmt.Sprintf(" %d %x", e.ModTime.Unix(), sha256.Sum256([]byte(e.content)))
		}
	}
	return all
}

// TestPackagesOfRealPrograms reads what GNU tar and bsdtar write, in every
// format that can hold the tree.
func TestPackagesOfRealPrograms(t *testing.T) {
	root := tree(t)
	want := fmt.Sprint(contentOf(t, root))
	out := t.TempDir()
	const names = ".mobileops/package.yaml .mobileops/hooks bin etc lib share"
	for _, c := range []struct{ program, options string }{
		{"tar", "-czf %s"}, {"tar", "-czf %s --format=gnu"}, {"tar", "-czf %s --format=oldgnu"}, {"tar", "-czf %s --format=pax"},
		{"tar", "-cf %s --zstd --format=pax --sort=name --owner=0 --group=0 --numeric-owner --mtime=@1700000000"},
		{"tar", "-cf %s --zstd"}, {"tar", "-cf %s -I zstd\\ -19\\ -T0"}, {"tar", "-czf %s -b 2048"},
		{"tar", "-czf %[1]s -g %[1]s.snapshot --format=gnu"},
		{"bsdtar", "-czf %s"}, {"bsdtar", "-cf %s --zstd --format=pax"}, {"bsdtar", "-czf %s --format=gnutar"},
	} {
		t.Run(c.program+" "+c.options, func(t *testing.T) {
			for _, need := range []string{c.program, "zstd"} {
				if _, err := exec.LookPath(need); err != nil {
					t.Skipf("%s is not installed", need)
				}
			}
			p := filepath.Join(out, "p")
			cmd := exec.Command("sh", "-c", c.program+" "+fmt.Sprintf(c.options, p)+" "+names)
			cmd.Dir = root
			if text, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, text)
			}
			data, err := os.ReadFile(p)
			if err != nil {
				t.Fatal(err)
			}
			m, all, err := readPackage(t, data, archive.DefaultLimits())
			if strings.Contains(c.options, ".snapshot") {
				// Incremental backups have entries of their own for directories.
				if codeOf(err) != archive.CodeType {
					t.Errorf("an incremental archive: %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := fmt.Sprint(packageContent(all)); got != want {
				t.Errorf("\n%s\nwant\n%s", got, want)
			}
			if m.Name != "platform" || !m.IsConfig("etc/platform.conf") {
				t.Errorf("%+v", m)
			}
		})
	}
}

// TestUstarOfRealPrograms: the old format holds no long names.
func TestUstarOfRealPrograms(t *testing.T) {
	root := t.TempDir()
	for _, name := range []string{"bin/a", "bin/b"} {
		if err := os.MkdirAll(filepath.Join(root, "bin"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, name), []byte(name), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want := fmt.Sprint(contentOf(t, root))
	for _, line := range []string{"tar -czf %s --format=ustar .", "tar -czf %s --format=v7 bin", "bsdtar -czf %s --format=ustar ."} {
		if _, err := exec.LookPath(strings.Fields(line)[0]); err != nil {
			t.Skip(strings.Fields(line)[0] + " is not installed")
		}
		p := filepath.Join(t.TempDir(), "p")
		cmd := exec.Command("sh", "-c", fmt.Sprintf(line, p))
		cmd.Dir = root
		if text, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		data, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		_, all, err := readPackage(t, data, archive.DefaultLimits())
		if got := fmt.Sprint(packageContent(all)); err != nil || got != want {
			t.Errorf("%s: %v\n%s\nwant\n%s", line, err, got, want)
		}
	}
}
