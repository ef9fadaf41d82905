package scan

import (
	"slices"
	"strings"
	"testing"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/scan/protocol"
)

// TestNotes: what Trivy notes is told in words for an operator, and nobody is sent to
// its pages. What is not known stays as it is.
func TestNotes(t *testing.T) {
	got := notes([]string{
		"Using severities from other vendors for some vulnerabilities. Read https://trivy.dev/docs/dev/guide/scanner/vulnerability#severity-selection for details",
		"This OS version is not on the EOL list (family debian, version 99)",
		"a/pom.xml: Dependency version cannot be determined. Child dependencies will not be found. (dependency a:b)",
		"main.tf: Failed to load module. Maybe try 'terraform init'?: no such file",
		"Unable to parse pyproject.toml to identify direct dependencies: line 3",
		"Unable to parse pyproject.toml to identify direct dependencies: line 3",
		"Something else that is worth a word. See https://trivy.dev/docs/latest/x",
		"it says: This OS version is not on the EOL list",
		"See https://trivy.dev/docs/latest/y.",
	})
	want := []string{
		"some severities are not those of the distribution, which has none: mobileops scan show ID says whose they are",
		"whether this system still gets security updates is not known here (family debian, version 99)",
		"a/pom.xml: the version of a dependency is not told, so what that needs in turn is not looked up (dependency a:b)",
		"main.tf: a module of Terraform is not here, so it is not judged: terraform init brings it: no such file",
		"pyproject.toml cannot be read, so which dependencies are direct ones is not known: line 3",
		"Something else that is worth a word",
		"it says: whether this system still gets security updates is not known here",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// TestWording: the words of Trivy about what it could not look at.
func TestWording(t *testing.T) {
	const nowhere = `scan of a/b:1: fetch a/b:1: unable to find the specified image "a/b:1" in ["docker" "containerd" "podman" "remote"]: 4 errors occurred:\n\t* docker error: unable to inspect the image (a/b:1): failed to connect to the docker API at unix:///var/run/docker.sock: dial unix /var/run/docker.sock: connect: DOCKER\n\t* containerd error: containerd socket not found: /run/containerd/containerd.sock\n\t* podman error: unable to initialize Podman client: no podman socket found: stat podman/podman.sock: no such file or directory\n\t* remote error: REMOTE\n\n`
	image := func(docker, remote string) string {
		return strings.NewReplacer("DOCKER", docker, "REMOTE", remote).Replace(nowhere)
	}
	const sbom = "scan of x.json: x.json is no SBOM that can be read: failed analysis: SBOM decode error: "
	for _, c := range []struct {
		kind  protocol.Kind
		given string
		fails failure.Kind
		want  string
	}{
		{protocol.SBOM, sbom + "unknown scanning is not yet supported", failure.Untrustworthy, "x.json is no SBOM that can be read: it is neither CycloneDX nor SPDX, or is cut off ("},
		{protocol.SBOM, sbom + "failed to decode: CycloneDX decode error: invalid specification version", failure.Untrustworthy, "x.json is no SBOM that can be read: it is CycloneDX of a version that is not known here ("},
		{protocol.SBOM, sbom + "failed to decode: failed to load tag-value spdx: unsupported SPDX version: 'SPDX-9'", failure.Untrustworthy, "of a version that is not known here: 'SPDX-9' ("},
		{protocol.SBOM, sbom + "failed to decode: CycloneDX decode error: json: cannot unmarshal string into Go struct field BOM.components of type []cyclonedx.Component", failure.Untrustworthy, ": components should not be a string ("},
		{protocol.SBOM, sbom + "failed to decode: CycloneDX decode error: unexpected EOF", failure.Untrustworthy, "read: unexpected EOF ("},
		{protocol.SBOM, "scan of x.json: open x.json: permission denied", failure.Untrustworthy, "scan of x.json: open x.json: permission denied"},
		{protocol.Image, "scan of A:x: fetch A:x: failed to parse the image name: could not parse reference: A:x", failure.Usage, "A:x is no name of an image: write it as registry.example.org/portal:1.4, in lower case"},
		{protocol.Image, image("no such file", `Get "https://a/v2/": dial tcp: lookup a: no such host`), failure.Failed, `the image a/b:1 is neither on this host nor in a registry: Get "https://a/v2/": dial tcp: lookup a: no such host (an archive`},
		{protocol.Image, image("permission denied", "GET https://a/v2/b/manifests/1: MANIFEST_UNKNOWN: manifest unknown"), failure.Failed, "nor in a registry; docker may not be asked (permission denied): the registry has no such image (look at its name"},
		{protocol.Image, image("no such file", "GET https://a/v2/b/manifests/1: UNAUTHORIZED: authentication required"), failure.NotAllowed, "the registry wants to know who asks, or there is no such image (docker login"},
		{protocol.Image, image("no such file", `Get "https://a/v2/": http: server gave HTTP response to HTTPS client`), failure.Failed, "(where that is meant to be so: --insecure)"},
		{protocol.Rootfs, "scan of /: unable to find the specified image", failure.Untrustworthy, "scan of /: unable to find the specified image"},
	} {
		r := Request{Kind: c.kind, Target: "a/b:1", Remote: true}
		if c.kind == protocol.SBOM {
			r.Target, r.Remote = "x.json", false
		}
		err := wording(&r, failure.Errorf(failure.Untrustworthy, "%s", c.given))
		if !strings.Contains(err.Error(), c.want) || failure.KindOf(err) != c.fails || strings.Contains(err.Error(), `\n`) {
			t.Errorf("%s:\n got %v (%d)\nwant %s (%d)", c.given, err, failure.KindOf(err), c.want, c.fails)
		}
	}
	if wording(&Request{}, nil) != nil {
		t.Error("no error became one")
	}
}
