// Package parity holds mobileops-scan against Trivy's own command.
//
// Both look at the same targets with the same database, and must find the same:
// what one of them has and the other has not fails the test, unless it is on the
// list of docs/formats/scan-parity.md, which says where ours is more right. The
// list of this test and that page name the same differences.
//
// Trivy's command is built from the module that go.mod pins (make does it), asked
// for JSON, and never reaches the internet. Only the order of what is found plays
// no part.
//
// The second half of the package gives the worker what nobody should: damaged
// databases, images that lie, bombs, trees that change meanwhile.
package parity

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mobileops/mobileops/internal/scan/protocol"
)

var (
	vuln      = []protocol.Scanner{protocol.Vulnerabilities}
	secret    = []protocol.Scanner{protocol.Secrets}
	license   = []protocol.Scanner{protocol.Licenses}
	misconfig = []protocol.Scanner{protocol.Misconfigurations}
	both      = []protocol.Scanner{protocol.Vulnerabilities, protocol.Secrets}
	all       = protocol.Scanners()
)

// counts are how many of each there are.
type counts struct{ packages, vulnerabilities, secrets, licenses, misconfigurations int }

func count(r *protocol.Report) (n counts) {
	for _, r := range r.Results {
		n.packages += len(r.Packages)
		n.vulnerabilities += len(r.Vulnerabilities)
		n.secrets += len(r.Secrets)
		n.licenses += len(r.Licenses)
		n.misconfigurations += len(r.Misconfigurations)
	}
	return n
}

// least says whether there are at least as many.
func (n counts) least(want counts) bool {
	return n.packages >= want.packages && n.vulnerabilities >= want.vulnerabilities && n.secrets >= want.secrets &&
		n.licenses >= want.licenses && n.misconfigurations >= want.misconfigurations
}

// target is one thing that both look at.
type target struct {
	name     string
	kind     protocol.Kind
	scanners []protocol.Scanner
	// find is the least that Trivy has to find, so that nobody compares nothing
	// with nothing.
	find counts
	// make makes the target beneath dir and returns its path.
	make func(t testing.TB, dir string) string
	// trivy and ours are what is asked beyond the usual.
	trivy []string
	ours  func(*protocol.Scan)
	// theirs is the path that Trivy gets, when it is another.
	theirs func(path string) string
	// deliberate names differences that have to be seen here.
	deliberate []string
	// problems says that something of the target cannot be looked at, and ours says so.
	problems bool
}

func tree(files map[string]string) func(testing.TB, string) string {
	return func(t testing.TB, dir string) string { return writeAll(t, dir, files) }
}

func targets(t testing.TB) []target {
	list := []target{
		{name: "rootfs/debian", kind: protocol.Rootfs, scanners: vuln, find: counts{packages: 8, vulnerabilities: 10}, make: debianTree,
			deliberate: []string{"Licences that nobody asked for"}},
		{name: "rootfs/debian-all", kind: protocol.Rootfs, scanners: all, find: counts{packages: 8, vulnerabilities: 10, licenses: 4}, make: debianTree},
		{name: "rootfs/debian-license", kind: protocol.Rootfs, scanners: license, find: counts{licenses: 4}, make: debianTree},
		{name: "rootfs/debian-end-of-life", kind: protocol.Rootfs, scanners: vuln, find: counts{packages: 1, vulnerabilities: 2}, make: oldDebianTree},
		{name: "rootfs/ubuntu", kind: protocol.Rootfs, scanners: vuln, find: counts{packages: 3, vulnerabilities: 3}, make: ubuntuTree},
		{name: "rootfs/alpine", kind: protocol.Rootfs, scanners: vuln, find: counts{packages: 3, vulnerabilities: 2}, make: alpineTree},
		{name: "rootfs/alpine-license", kind: protocol.Rootfs, scanners: license, find: counts{licenses: 3}, make: alpineTree},
		{name: "rootfs/programs", kind: protocol.Rootfs, scanners: vuln, find: counts{packages: 4, vulnerabilities: 4}, make: programTree},
		{name: "rootfs/jar", kind: protocol.Rootfs, scanners: vuln, find: counts{packages: 3, vulnerabilities: 2}, make: jarTree},
		{name: "rootfs/empty", kind: protocol.Rootfs, scanners: all, make: tree(map[string]string{"README": "nothing"})},
		{name: "fs/programs", kind: protocol.Filesystem, scanners: vuln, make: programTree},
		{name: "fs/secrets", kind: protocol.Filesystem, scanners: secret, find: counts{secrets: 14}, make: secretTree},
		{name: "rootfs/secrets", kind: protocol.Rootfs, scanners: secret, find: counts{secrets: 14}, make: secretTree},
		{name: "fs/secrets-own-rules", kind: protocol.Filesystem, scanners: secret, find: counts{secrets: 12}, make: ownRulesTree,
			trivy: []string{"--secret-config", ruleFile(t)}, ours: func(s *protocol.Scan) { s.SecretRules = ruleFile(t) }},
		{name: "fs/licenses", kind: protocol.Filesystem, scanners: license, find: counts{licenses: 6}, make: licenseTree},
		{name: "fs/notices", kind: protocol.Filesystem, scanners: license, find: counts{licenses: 1}, make: noticeTree, deliberate: []string{"COPYING and NOTICE files"}},
		{name: "fs/config-malformed", kind: protocol.Filesystem, scanners: misconfig, make: tree(malformedConfig), problems: true},
		{name: "fs/skipped", kind: protocol.Filesystem, scanners: []protocol.Scanner{protocol.Vulnerabilities, protocol.Secrets}, find: counts{vulnerabilities: 1},
			make:  tree(lockFiles["many"]),
			trivy: []string{"--skip-dirs", "c/**", "--skip-files", "**/yarn.lock"},
			ours:  func(s *protocol.Scan) { s.SkipDirs, s.SkipFiles = []string{"c/**"}, []string{"**/yarn.lock"} }},
		{name: "repo/git", kind: protocol.Repository, scanners: all, find: counts{packages: 1, vulnerabilities: 1}, make: gitTree},
	}
	for release, found := range map[string]counts{"rocky": {packages: 2, vulnerabilities: 2}, "centos": {packages: 2, vulnerabilities: 3}, "fedora": {}} {
		list = append(list, target{name: "rootfs/rpm-" + release, kind: protocol.Rootfs, scanners: vuln, find: found, problems: release == "fedora",
			make: func(t testing.TB, dir string) string { return rpmTree(t, dir, release) }})
	}
	for _, name := range keys(lockFiles) {
		list = append(list, target{name: "fs/" + name, kind: protocol.Filesystem, scanners: vuln, find: counts{packages: 1, vulnerabilities: 1}, make: tree(lockFiles[name])})
	}
	list = append(list, target{name: "rootfs/many", kind: protocol.Rootfs, scanners: all, make: tree(lockFiles["many"])})
	for _, name := range keys(configFiles) {
		n := counts{misconfigurations: 1}
		if name == "compose" {
			n = counts{}
		}
		list = append(list, target{name: "fs/config-" + name, kind: protocol.Filesystem, scanners: misconfig, find: n, make: tree(configFiles[name])})
	}
	for name, pack := range map[string]struct {
		mediaType string
		pack      func(testing.TB, []byte) []byte
	}{"gzip": {gzipLayer, gzipped}, "zstd": {zstdLayer, zstandard}, "plain": {tarLayer, func(_ testing.TB, b []byte) []byte { return b }}} {
		list = append(list, target{name: "image/oci-" + name, kind: protocol.Image, scanners: all, find: counts{packages: 10, vulnerabilities: 10, secrets: 1},
			make: func(t testing.TB, dir string) string {
				return ociLayout(t, dir, pack.mediaType, pack.pack, imageLayers(t)...)
			}})
	}
	list = append(list,
		target{name: "image/docker", kind: protocol.Image, scanners: all, find: counts{packages: 10, vulnerabilities: 10, secrets: 1, licenses: 1},
			make: func(t testing.TB, dir string) string {
				return dockerSave(t, filepath.Join(dir, "image.tar"), "parity.example.com/app:1.0", imageLayers(t)...)
			}},
		target{name: "image/docker-vuln", kind: protocol.Image, scanners: vuln, find: counts{packages: 10, vulnerabilities: 10},
			make: func(t testing.TB, dir string) string {
				return dockerSave(t, filepath.Join(dir, "image.tar"), "parity.example.com/app:1.0", imageLayers(t)...)
			}},
		target{name: "image/oci-archive", kind: protocol.Image, scanners: vuln, find: counts{packages: 10, vulnerabilities: 10},
			theirs: func(path string) string { return filepath.Join(filepath.Dir(path), "layout") }, // it cannot read archives of layouts
			make: func(t testing.TB, dir string) string {
				return ociArchive(t, filepath.Join(dir, "image.tar"), ociLayout(t, filepath.Join(dir, "layout"), gzipLayer, gzipped, imageLayers(t)...))
			}})
	for _, format := range []string{"cyclonedx", "spdx-json", "spdx"} {
		list = append(list, target{name: "sbom/" + format, kind: protocol.SBOM, scanners: []protocol.Scanner{protocol.Vulnerabilities, protocol.Licenses}, find: counts{packages: 8, vulnerabilities: 10},
			make: func(t testing.TB, dir string) string {
				root := debianTree(t, filepath.Join(dir, "tree"))
				return write(t, dir, "bom.json", string(runTrivy(t, dir, "rootfs", root, "--format", format)))
			}})
	}
	return list
}

// TestSameFindings compares everything that both say about each target.
func TestSameFindings(t *testing.T) {
	trivyProgram(t)
	_, hashed := hashedJAR(t)
	cache := writeDatabase(t, hashed)
	for _, target := range targets(t) {
		t.Run(target.name, func(t *testing.T) {
			path := target.make(t, t.TempDir())
			made := time.Now()
			said := runTrivy(t, cache, target.line(target.path(path))...)
			// Packages of a system are told under the path that was asked for.
			theirs := asReport(t, bytes.ReplaceAll(said, []byte(target.path(path)), []byte(path)))
			if n := count(theirs); !n.least(target.find) {
				t.Errorf("Trivy found %+v, and should have found %+v: this compares too little", n, target.find)
			}
			scan := protocol.Scan{Kind: target.kind, Target: path, Scanners: target.scanners, Packages: true,
				Database: filepath.Join(cache, "db"), JavaDatabase: filepath.Join(cache, "java-db")}
			if target.ours != nil {
				target.ours(&scan)
			}
			report := scanned(t, scan)
			target.check(t, path, theirs, report)

			if !slices.Contains(target.scanners, protocol.Secrets) && !slices.Contains(target.scanners, protocol.Licenses) {
				return // nothing else is remembered
			}
			// The same again, remembered. What was changed within the last two seconds
			// may change again without anybody seeing it, and so is not remembered.
			secrets := target.kind != protocol.Image && count(theirs).secrets > 0
			if secrets {
				time.Sleep(time.Until(made.Add(2100 * time.Millisecond)))
			}
			scan.Memo = filepath.Join(t.TempDir(), "memo")
			first := scanned(t, scan)
			target.check(t, path, theirs, first)
			again := scanned(t, scan)
			target.check(t, path, theirs, again)
			if secrets && again.Stats.Remembered == 0 {
				t.Errorf("nothing was remembered in a second run: %+v", again.Stats)
			}
		})
	}
}

func (g target) path(path string) string {
	if g.theirs != nil {
		return g.theirs(path)
	}
	return path
}

// line is what Trivy is asked.
func (g target) line(path string) []string {
	line := []string{string(g.kind)}
	switch g.kind {
	case protocol.Image:
		line = append(line, "--input", path)
	default:
		line = append(line, path)
	}
	var scanners []string
	for _, s := range g.scanners {
		scanners = append(scanners, string(s))
	}
	line = append(line, "--format", "json", "--scanners", strings.Join(scanners, ","), "--list-all-pkgs")
	if g.kind != protocol.SBOM && slices.Contains(g.scanners, protocol.Licenses) {
		line = append(line, "--license-full")
	}
	return append(line, g.trivy...)
}

// check fails for every difference that nobody meant.
func (g target) check(t *testing.T, path string, theirs, ours *protocol.Report) {
	t.Helper()
	var seen []string
	for _, d := range compare(theirs, ours) {
		if name := meant(g, d); name != "" {
			seen = append(seen, name)
			continue
		}
		t.Errorf("a difference that is not on the list of docs/formats/scan-parity.md: %s", d)
	}
	for _, name := range g.deliberate {
		if !slices.Contains(seen, name) {
			t.Errorf("the difference %q is on the list, and is not there any more", name)
		}
	}
	// Nothing is wrong with a target that doesn't say so.
	if problems := len(ours.Problems) > 0; problems != g.problems {
		t.Errorf("problems %v, want %v:%s", problems, g.problems, shown(ours.Problems))
	}
}

func ruleFile(t testing.TB) string {
	return write(t, t.TempDir(), "rules.yaml", ownRules)
}

func gitTree(t testing.TB, dir string) string {
	t.Helper()
	writeAll(t, dir, lockFiles["many"])
	tool(t, "git")
	for _, line := range [][]string{
		{"init", "-q", "-b", "main"}, {"remote", "add", "origin", "https://somebody:" + "password@git.example.com/parity/app.git"},
		{"add", "."}, {"-c", "user.name=S", "-c", "user.email=s@example.com", "commit", "-q", "-m", "first"},
	} {
		o := started(t, patience, nil, nil, append([]string{"git", "-C", dir}, line...)...)
		if o.status != 0 {
			t.Fatalf("git %q: %s", line, o.stderr)
		}
	}
	return dir
}

func keys[V any](m map[string]V) []string {
	var list []string
	for k := range m {
		list = append(list, k)
	}
	slices.Sort(list)
	return list
}

// TestPageNamesTheSame holds the list of this test against the page.
func TestPageNamesTheSame(t *testing.T) {
	page, err := os.ReadFile("../../../docs/formats/scan-parity.md")
	if err != nil {
		t.Fatal(err)
	}
	var named []string
	_, differences, _ := strings.Cut(string(page), "\n## Differences\n")
	differences, _, _ = strings.Cut(differences, "\n## ")
	for line := range strings.Lines(differences) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "### "); ok {
			named = append(named, name)
		}
	}
	slices.Sort(named)
	var listed []string
	for _, d := range deliberate {
		listed = append(listed, d.name)
	}
	slices.Sort(listed)
	if !slices.Equal(named, listed) {
		t.Errorf("docs/formats/scan-parity.md has %q\nthis test has %q", named, listed)
	}
}
