package sla

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// machine is a tree with packages of dpkg and package lists of apt in it, and
// the repositories that it is fed from. Nothing of the host is touched.
type machine struct {
	t     *testing.T
	root  string
	repos string
	conf  string // apt.conf
}

func newMachine(t *testing.T) *machine {
	t.Helper()
	for _, p := range []string{"dpkg", "dpkg-deb", "apt-get", "apt-cache", "dpkg-query"} {
		if _, err := exec.LookPath(p); err != nil {
			t.Skipf("NOT RUN: there is no %s here", p)
		}
	}
	m := &machine{t: t, root: filepath.Join(t.TempDir(), "root"), repos: t.TempDir()}
	for _, dir := range []string{"var/lib/dpkg/info", "var/lib/dpkg/updates", "etc/apt/preferences.d", "etc/apt/sources.list.d", "var/lib/apt/lists/partial", "var/cache/apt/archives/partial", "var/log/apt"} {
		if err := os.MkdirAll(filepath.Join(m.root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	m.write("var/lib/dpkg/status", "")
	m.conf = filepath.Join(m.repos, "apt.conf")
	conf := fmt.Sprintf(`Dir %q; Dir::State::status %q; Dir::Etc::main "/dev/null"; Dir::Etc::parts "/dev/null";
APT::Architecture "amd64"; APT::Architectures { "amd64"; "i386"; }; APT::Sandbox::User "";
DPkg::Options { "--root=%s"; "--force-not-root"; "--force-bad-path"; "--force-architecture"; "--log=/dev/null"; }; Dpkg::Use-Pty "0"; Dir::Log::Terminal ""; Dir::Log::History "";
`, m.root+"/", m.root+"/var/lib/dpkg/status", m.root)
	if err := os.WriteFile(m.conf, []byte(conf), 0o644); err != nil {
		t.Fatal(err)
	}
	return m
}

func (m *machine) write(path, text string) {
	m.t.Helper()
	if err := os.WriteFile(filepath.Join(m.root, path), []byte(text), 0o644); err != nil {
		m.t.Fatal(err)
	}
}

func (m *machine) run(name string, args ...string) string {
	m.t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C", "DEBIAN_FRONTEND=noninteractive", "APT_CONFIG=" + m.conf}
	out, err := cmd.CombinedOutput()
	if err != nil {
		m.t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
	return string(out)
}

// deb is a package: name, version, and where not usual, architecture, source and
// what it depends on.
type deb struct{ name, version, arch, source, depends string }

func (m *machine) build(d deb) (path, control string) {
	m.t.Helper()
	if d.arch == "" {
		d.arch = "amd64"
	}
	control = fmt.Sprintf("Package: %s\nVersion: %s\nArchitecture: %s\nMaintainer: x <x@example.org>\nMulti-Arch: same\n", d.name, d.version, d.arch)
	if d.source != "" {
		control += "Source: " + d.source + "\n"
	}
	if d.depends != "" {
		control += "Depends: " + d.depends + "\n"
	}
	control += "Description: for a test\n"
	dir := filepath.Join(m.repos, "build", d.name+"_"+d.version+"_"+d.arch)
	files := filepath.Join(dir, "usr/share", d.name+"-"+d.arch)
	for _, p := range []string{filepath.Join(dir, "DEBIAN"), files} {
		if err := os.MkdirAll(p, 0o755); err != nil {
			m.t.Fatal(err)
		}
	}
	for path, text := range map[string]string{filepath.Join(dir, "DEBIAN/control"): control, filepath.Join(files, "version"): d.version} {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			m.t.Fatal(err)
		}
	}
	path = dir + ".deb"
	m.run("dpkg-deb", "-Znone", "--root-owner-group", "-b", dir, path)
	return path, control
}

// install installs packages as they are, whatever archives say.
func (m *machine) install(list ...deb) {
	m.t.Helper()
	for _, d := range list {
		path, _ := m.build(d)
		m.run("dpkg", "--root="+m.root, "--force-not-root", "--force-bad-path", "--force-architecture", "--force-depends", "--log=/dev/null", "-i", path)
	}
}

// archive is a repository: what its Release file says.
type archive struct {
	name, label, suite string
	date, validUntil   time.Time
	debs               []deb
}

// publish writes an archive anew, and returns its line for sources.list.
func (m *machine) publish(a archive) string {
	m.t.Helper()
	dist := filepath.Join(m.repos, a.name, "dists", a.suite)
	if err := os.MkdirAll(filepath.Join(dist, "main/binary-amd64"), 0o755); err != nil {
		m.t.Fatal(err)
	}
	var packages bytes.Buffer
	for _, d := range a.debs {
		path, control := m.build(d)
		body, err := os.ReadFile(path)
		if err != nil {
			m.t.Fatal(err)
		}
		pool := filepath.Join("pool", filepath.Base(path))
		if err := os.MkdirAll(filepath.Join(m.repos, a.name, "pool"), 0o755); err != nil {
			m.t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(m.repos, a.name, pool), body, 0o644); err != nil {
			m.t.Fatal(err)
		}
		fmt.Fprintf(&packages, "%sFilename: %s\nSize: %d\nSHA256: %x\n\n", control, pool, len(body), sha256.Sum256(body))
	}
	rel := fmt.Sprintf("Origin: Debian\nLabel: %s\nSuite: %s\nCodename: %s\nVersion: 12\nDate: %s\n", a.label, a.suite, a.suite, a.date.UTC().Format("Mon, 02 Jan 2006 15:04:05")+" UTC")
	if !a.validUntil.IsZero() {
		rel += "Valid-Until: " + a.validUntil.UTC().Format("Mon, 02 Jan 2006 15:04:05") + " UTC\n"
	}
	rel += fmt.Sprintf("Architectures: amd64\nComponents: main\nSHA256:\n %x %d main/binary-amd64/Packages\n", sha256.Sum256(packages.Bytes()), packages.Len())
	for path, text := range map[string]string{"Release": rel, "main/binary-amd64/Packages": packages.String()} {
		if err := os.WriteFile(filepath.Join(dist, path), []byte(text), 0o644); err != nil {
			m.t.Fatal(err)
		}
	}
	return fmt.Sprintf("deb [trusted=yes] file:%s %s main\n", filepath.Join(m.repos, a.name), a.suite)
}

// sources publishes archives, makes them those of the machine and fetches their
// package lists.
func (m *machine) sources(list ...archive) {
	m.t.Helper()
	var lines strings.Builder
	for _, a := range list {
		lines.WriteString(m.publish(a))
	}
	m.write("etc/apt/sources.list", lines.String())
	m.run("apt-get", "-o", "Acquire::Check-Valid-Until=false", "-o", "Acquire::Check-Date=false", "update")
}

func (m *machine) survey(a Apt, now time.Time) Survey {
	m.t.Helper()
	a.Root = m.root
	if a.Severity == "" {
		a.Severity = High
	}
	return a.Survey(context.Background(), now)
}

// short writes the advisories of a survey as ID and note.
func short(s Survey) (out []string) {
	for _, a := range merged(&s) {
		line := a.ID() + " " + strings.Join(a.Packages, "+")
		if a.Note != "" {
			line += " (" + a.Note + ")"
		}
		out = append(out, line)
	}
	return out
}
