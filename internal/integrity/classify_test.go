package integrity

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/mobileops/mobileops/internal/finding"
)

// image is a bench whose tree has a real dpkg database, in which real packages
// are installed by dpkg.
type image struct {
	*bench
	debs string
}

const imagePolicy = `version: 1
paths: [/]
rules:
  - {path: "/usr/{bin,lib}", severity: high}
  - {path: /etc, severity: medium}
  - {path: /var/lib/dpkg, severity: low}
  - {path: /var/lib/dpkg/info, severity: high}
  - "!/var/lib/dpkg/{lock,lock-frontend,triggers,updates}"
  - "!/var/log/**"
`

func newImage(t *testing.T) *image {
	t.Helper()
	if _, err := exec.LookPath("dpkg-deb"); err != nil {
		t.Skip("NOT RUN: there is no dpkg-deb here")
	}
	if os.Geteuid() != 0 {
		t.Skip("NOT RUN: dpkg installs as root only")
	}
	i := &image{newBench(t, imagePolicy), t.TempDir()}
	for _, d := range []string{"var/lib/dpkg/info", "var/lib/dpkg/updates", "var/lib/dpkg/triggers", "var/log", "usr/bin", "usr/lib", "etc"} {
		i.must(os.MkdirAll(i.path(d), 0o755))
	}
	i.must(os.WriteFile(i.path("var/lib/dpkg/status"), nil, 0o644))
	i.must(os.WriteFile(i.path("var/lib/dpkg/available"), nil, 0o644))
	return i
}

// files are what a package that is built has: texts by path, "->" and the target
// of a link. A text that begins with "setuid" is; what is in /etc is a conffile.
type files map[string]string

// install builds a package and installs it.
func (i *image) install(name, version string, list files) string {
	i.Helper()
	dir := filepath.Join(i.debs, name+"-"+version)
	i.must(os.MkdirAll(filepath.Join(dir, "DEBIAN"), 0o755))
	control := fmt.Sprintf("Package: %s\nVersion: %s\nArchitecture: all\nMaintainer: Test <test@example.com>\nDescription: test\n", name, version)
	i.must(os.WriteFile(filepath.Join(dir, "DEBIAN/control"), []byte(control), 0o644))
	var conf, sums strings.Builder
	for p, text := range list {
		full := filepath.Join(dir, p)
		i.must(os.MkdirAll(filepath.Dir(full), 0o755))
		if target, link := strings.CutPrefix(text, "->"); link {
			i.must(os.Symlink(target, full))
			continue
		}
		mode := os.FileMode(0o644)
		if strings.HasPrefix(p, "/usr/bin/") {
			mode = 0o755
		}
		if strings.HasPrefix(text, "setuid") {
			mode |= os.ModeSetuid
		}
		i.must(os.WriteFile(full, []byte(text), mode))
		i.must(os.Chmod(full, mode))
		if strings.HasPrefix(p, "/etc/") {
			fmt.Fprintln(&conf, p)
			continue
		}
		out, err := exec.Command("md5sum", full).Output()
		i.must(err)
		fmt.Fprintf(&sums, "%s  %s\n", out[:32], strings.TrimPrefix(p, "/"))
	}
	i.must(os.WriteFile(filepath.Join(dir, "DEBIAN/conffiles"), []byte(conf.String()), 0o644))
	i.must(os.WriteFile(filepath.Join(dir, "DEBIAN/md5sums"), []byte(sums.String()), 0o644))
	deb := filepath.Join(i.debs, name+"_"+version+"_all.deb")
	i.run("dpkg-deb", "--root-owner-group", "-b", dir, deb)
	i.must(os.RemoveAll(dir))
	i.run("dpkg", "--root="+i.tree, "--force-not-root", "--force-confold", "-i", deb)
	return deb
}

func (i *image) run(name string, args ...string) {
	i.Helper()
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND=noninteractive")
	if out, err := cmd.CombinedOutput(); err != nil {
		i.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
}

// class returns "class severity" of the change at a path, "" for none.
func class(r *Report, path string) string {
	for _, c := range r.Changes {
		if string(c.Path) == path {
			return string(c.Class) + " " + c.Severity.String()
		}
	}
	return ""
}

func (i *image) expectClasses(r *Report, want map[string]string) {
	i.Helper()
	for p, w := range want {
		if got := class(r, p); got != w {
			i.Errorf("%s is %q, want %q", p, got, w)
		}
	}
	for _, c := range r.Changes {
		if _, ok := want[string(c.Path)]; !ok && c.Severity >= finding.Medium {
			i.Errorf("%s %s is %s %s: %s", c.Kind, c.Path, c.Class, c.Severity, c.Reason)
		}
		if c.Class == "" || c.Reason == "" {
			i.Errorf("%s has class %q for reason %q", c.Path, c.Class, c.Reason)
		}
	}
	if i.Failed() {
		for _, c := range r.Changes {
			i.Logf("%-8s %-8s %-17s %s (%s: %s)", c.Severity, c.Kind, c.Class, c.Path, c.Package, c.Reason)
		}
		i.Logf("%+v", r.Ownership)
	}
}

func startImage(t *testing.T) *image {
	i := newImage(t)
	i.install("one", "1.0", files{"/usr/bin/one": "one 1.0", "/usr/lib/libone.so.1": "lib 1.0", "/usr/lib/libone.so": "->libone.so.1", "/usr/lib/one/gone": "x", "/etc/one.conf": "# one\n"})
	i.install("two", "1.0", files{"/usr/bin/two": "two 1.0", "/usr/lib/two/data": "data", "/etc/two.conf": "# two\n"})
	i.put("etc/local.conf", "mine")
	i.take()
	i.expect(i.compare(CompareOptions{}))
	return i
}

// TestOneHighFinding: one package was upgraded, and one binary of another was
// replaced in between. That is one high finding.
func TestOneHighFinding(t *testing.T) {
	i := startImage(t)
	i.install("one", "2.0", files{"/usr/bin/one": "one 2.0", "/usr/lib/libone.so.2": "lib 2.0", "/usr/lib/libone.so": "->libone.so.2", "/usr/lib/one/fresh": "y", "/etc/one.conf": "# one, new\n"})
	i.must(os.WriteFile(i.path("usr/bin/two"), []byte("evil two"), 0o755))
	r := i.compare(CompareOptions{})
	i.expectClasses(r, map[string]string{
		"/usr/bin/two":         "suspicious high",
		"/usr/bin/one":         "package-update info",
		"/usr/lib/libone.so.1": "package-update info",
		"/usr/lib/libone.so.2": "package-update info",
		"/usr/lib/libone.so":   "package-update info",
		"/usr/lib/one/gone":    "package-update info",
		"/usr/lib/one/fresh":   "package-update info",
		"/etc/one.conf":        "package-update info",
	})
	high := 0
	for _, f := range findings(r) {
		if f.Severity >= finding.High {
			high++
		}
	}
	if high != 1 {
		t.Errorf("%d high findings", high)
	}
}

// TestClasses: what each kind of change is called.
func TestClasses(t *testing.T) {
	i := startImage(t)
	i.put("etc/one.conf", "# changed by the admin\n")
	i.put("usr/lib/two/data", "tampered")
	i.put("usr/lib/evil.so", "\x7fELF")
	i.put("usr/bin/setuid", "x")
	i.must(os.Chmod(i.path("usr/bin/setuid"), 0o755|os.ModeSetuid))
	i.put("etc/local.conf", "mine, changed")
	i.put("etc/another", "new")
	i.must(os.Chmod(i.path("usr/bin/one"), 0o755|os.ModeSetuid))
	i.must(os.Chmod(i.path("usr/bin/two"), 0o777))
	i.must(os.Remove(i.path("usr/lib/libone.so.1")))
	i.must(os.Remove(i.path("etc/two.conf")))
	i.must(os.Remove(i.path("usr/lib/libone.so")))
	i.must(os.Symlink("evil.so", i.path("usr/lib/libone.so")))
	i.put("etc/one.conf.dpkg-dist", "# one, from the package\n")
	// The content is what the database says, which it was not before: the
	// database was altered.
	i.put("usr/lib/one/gone", "altered")
	sums := i.path("var/lib/dpkg/info/one.md5sums")
	b, err := os.ReadFile(sums)
	i.must(err)
	out, err := exec.Command("md5sum", i.path("usr/lib/one/gone")).Output()
	i.must(err)
	lines := strings.Split(string(b), "\n")
	for n, l := range lines {
		if strings.HasSuffix(l, "usr/lib/one/gone") {
			lines[n] = string(out[:32]) + l[32:]
		}
	}
	i.must(os.WriteFile(sums, []byte(strings.Join(lines, "\n")), 0o644))
	i.expectClasses(i.compare(CompareOptions{}), map[string]string{
		"/etc/one.conf":                  "conffile medium",
		"/etc/one.conf.dpkg-dist":        "conffile low",
		"/etc/two.conf":                  "conffile medium",
		"/usr/lib/two/data":              "package-modified high",
		"/usr/lib/evil.so":               "suspicious high",
		"/usr/bin/setuid":                "suspicious high",
		"/usr/bin/one":                   "suspicious high",
		"/usr/bin/two":                   "package-modified high",
		"/etc/local.conf":                "unowned medium",
		"/etc/another":                   "unowned medium",
		"/usr/lib/libone.so.1":           "package-modified high",
		"/usr/lib/libone.so":             "package-modified high",
		"/usr/lib/one/gone":              "package-modified high",
		"/var/lib/dpkg/info/one.md5sums": "package-modified high",
	})
}

// TestPackageRemoved: what went with its package, and what went without.
func TestPackageRemoved(t *testing.T) {
	i := startImage(t)
	i.run("dpkg", "--root="+i.tree, "--force-not-root", "-P", "one")
	i.must(os.Remove(i.path("usr/bin/two")))
	i.must(os.Remove(i.path("etc/local.conf")))
	i.expectClasses(i.compare(CompareOptions{}), map[string]string{
		"/usr/bin/one":         "package-update info",
		"/usr/lib/libone.so.1": "package-update info",
		"/etc/one.conf":        "package-update info",
		"/usr/bin/two":         "package-modified high",
		"/etc/local.conf":      "unowned medium",
	})
}

// TestPackageArchive: with the archives at hand, an altered database does not
// help, and what is as in the archive may be setuid.
func TestPackageArchive(t *testing.T) {
	i := startImage(t)
	i.install("one", "2.0", files{"/usr/bin/one": "one 2.0", "/usr/bin/as-root": "setuid program"})
	i.put("usr/bin/one", "evil")
	out, err := exec.Command("md5sum", i.path("usr/bin/one")).Output()
	i.must(err)
	sums := i.path("var/lib/dpkg/info/one.md5sums")
	b, err := os.ReadFile(sums)
	i.must(err)
	lines := strings.Split(string(b), "\n")
	for n, l := range lines {
		if strings.HasSuffix(l, "usr/bin/one") {
			lines[n] = string(out[:32]) + l[32:]
		}
	}
	i.must(os.WriteFile(sums, []byte(strings.Join(lines, "\n")), 0o644))
	if got := class(i.compare(CompareOptions{}), "/usr/bin/one"); got != "package-update info" {
		t.Errorf("by the altered database it is %q", got)
	}
	if got := class(i.compare(CompareOptions{}), "/usr/bin/as-root"); got != "suspicious high" {
		t.Errorf("a new setuid file is %q", got)
	}
	r := i.compare(CompareOptions{PackageArchive: i.debs})
	if got := class(r, "/usr/bin/one"); got != "suspicious critical" {
		t.Errorf("by the archive it is %q", got)
	}
	at := slices.IndexFunc(r.Changes, func(c Change) bool { return string(c.Path) == "/usr/bin/as-root" })
	if c := r.Changes[at]; c.Class != PackageUpdate || !strings.Contains(c.Reason, "as in the archive") {
		t.Errorf("a setuid file of the archive is %s: %s", c.Class, c.Reason)
	}
}
