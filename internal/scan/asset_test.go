package scan

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/mobileops/mobileops/internal/scan/protocol"
	"github.com/mobileops/mobileops/internal/scan/vex"
)

// TestAssetStaysTheSame: what a target is remembered as has nothing in it that the
// next scan of the same thing would not have.
func TestAssetStaysTheSame(t *testing.T) {
	root := t.TempDir()
	if err := os.MkdirAll(filepath.Join(root, "etc"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "etc/hostname"), []byte("edge1\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	name, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name    string
		request Request
		want    string
	}{
		{"this host", Request{Kind: protocol.Rootfs, Target: "/", Host: true}, "host:" + name},
		{"the tree of another host", Request{Kind: protocol.Rootfs, Target: root, Host: true}, "rootfs:" + root},
		{"a tree", Request{Kind: protocol.Rootfs, Target: root + "/./etc/.."}, "rootfs:" + root},
		{"a name given", Request{Kind: protocol.Filesystem, Target: root, Asset: "portal"}, "named:portal"},
		{"the name of another asset", Request{Kind: protocol.Rootfs, Target: root, Host: true, Asset: "host:old"}, "host:old"},
		{"a name with a colon", Request{Kind: protocol.Rootfs, Target: root, Asset: "team:portal"}, "named:team:portal"},
		{"an archive", Request{Kind: protocol.Image, Target: root + "/x.tar"}, "image:" + root + "/x.tar"},
		{"a reference by tag", Request{Kind: protocol.Image, Target: "localhost:5000/a/b:2", Remote: true}, "image:localhost:5000/a/b"},
		{"a reference by digest", Request{Kind: protocol.Image, Target: "a/b:2@sha256:00", Remote: true}, "image:a/b"},
		{"a repository", Request{Kind: protocol.Repository, Target: root}, "repo:" + root},
		{"an SBOM", Request{Kind: protocol.SBOM, Target: root + "/s.json"}, "sbom:" + root + "/s.json"},
	} {
		if got := asset(&c.request); got.ID != c.want || got.Kind != c.request.Kind {
			t.Errorf("%s: %+v, want %s", c.name, got, c.want)
		}
	}
}

// TestNothingKnownIsNotClean: where there is nothing to look up, that nothing was
// found is not the answer.
func TestNothingKnownIsNotClean(t *testing.T) {
	vuln := []protocol.Scanner{protocol.Vulnerabilities}
	some := []protocol.Result{{Packages: []protocol.Package{{Name: "a"}}}}
	for _, c := range []struct {
		name   string
		r      Request
		report protocol.Report
		want   bool
	}{
		{"a system", Request{Kind: protocol.Rootfs, Scanners: vuln}, protocol.Report{OS: &protocol.OS{}}, false},
		{"no system", Request{Kind: protocol.Rootfs, Scanners: vuln}, protocol.Report{}, true},
		{"no system, but packages of a language", Request{Kind: protocol.Rootfs, Scanners: vuln}, protocol.Report{Results: some}, true},
		{"an image of one program", Request{Kind: protocol.Image, Scanners: vuln}, protocol.Report{Results: some}, false},
		{"an image of nothing", Request{Kind: protocol.Image, Scanners: vuln}, protocol.Report{}, true},
		{"an SBOM of nothing", Request{Kind: protocol.SBOM, Scanners: vuln}, protocol.Report{}, true},
		{"a project without lock files", Request{Kind: protocol.Filesystem, Scanners: vuln}, protocol.Report{}, false},
		{"secrets alone", Request{Kind: protocol.Rootfs, Scanners: []protocol.Scanner{protocol.Secrets}}, protocol.Report{}, false},
	} {
		if got := unknown(&c.r, &c.report) != nil; got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}

// TestAnEmptyDirectoryIsNotClean: what is not mounted has no weaknesses either.
func TestAnEmptyDirectoryIsNotClean(t *testing.T) {
	for kind, want := range map[protocol.Kind]bool{protocol.Filesystem: true, protocol.Rootfs: true, protocol.Repository: true, protocol.Image: false, protocol.SBOM: false} {
		r := Request{Kind: kind, Scanners: []protocol.Scanner{protocol.Secrets}}
		if got := nothing(&r, &protocol.Report{}) != nil; got != want {
			t.Errorf("%s without a file: %v", kind, got)
		}
		if nothing(&r, &protocol.Report{Stats: protocol.Stats{Files: 1}}) != nil {
			t.Errorf("%s with a file", kind)
		}
	}
}

// TestImageIsNamedByPackageURLs: statements about an image that was fetched reach
// it, in every manner in which OCI package URLs are written, and those about others
// do not.
func TestImageIsNamedByPackageURLs(t *testing.T) {
	image := &protocol.ImageID{
		ID: "sha256:11", Architecture: "amd64", Tags: []string{"registry.example.org/team/Portal:2", "registry.example.org/other:9"},
		Digests: []string{"registry.example.org/team/Portal@sha256:22"},
	}
	names := products(&Request{Kind: protocol.Image, Remote: true}, &protocol.Report{Image: image})
	for id, want := range map[string]bool{
		"pkg:oci/portal": true,
		"pkg:oci/portal@sha256%3A22?repository_url=registry.example.org%2Fteam%2FPortal&arch=amd64": true,
		"pkg:oci/portal@sha256:22?tag=2&repository_url=registry.example.org/team":                   true,
		"pkg:oci/portal?arch=arm64": false,
		"pkg:oci/portal?tag=9":      false,
		"pkg:oci/portal@sha256%3A11?repository_url=registry.example.org/team/Portal": false,
		"pkg:oci/portal?repository_url=registry.example.com/team":                    false,
		"registry.example.org/team/Portal:2":                                         true,
	} {
		d := &vex.Document{Statements: []vex.Statement{{
			Vulnerability: vex.Vulnerability{Name: "CVE-1"}, Status: vex.NotAffected, Products: []vex.Product{{Component: vex.Component{ID: id}}},
		}}}
		if _, s := vex.Match([]*vex.Document{d}, vex.Query{Vulnerabilities: []string{"CVE-1"}, Products: names}); (s != nil) != want {
			t.Errorf("%s: %t", id, !want)
		}
	}
	// What a file calls itself could be anything.
	if got := products(&Request{Kind: protocol.Image}, &protocol.Report{Image: image}); len(got) != 1 || got[0] != "sha256:11" {
		t.Errorf("an archive is %q", got)
	}
}
