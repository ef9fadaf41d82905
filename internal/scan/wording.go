package scan

import (
	"errors"
	"regexp"
	"strings"
	"sync"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/scan/protocol"
)

// Trivy speaks to those who run Trivy: of its own flags and pages, and of what it was
// doing when something went wrong. What it says of a target is said here again, for
// whoever runs mobileops. A sentence that is not known stays as it is.

// sayings are sentences of Trivy v0.72.0 that it logs, each by its beginning, and what
// is said instead. What follows one in a note, such as an error, is kept.
var sayings = []struct{ theirs, ours string }{
	{"Using severities from other vendors for some vulnerabilities", "some severities are not those of the distribution, which has none: mobileops scan show ID says whose they are"},
	{"This OS version is not on the EOL list", "whether this system still gets security updates is not known here"},
	{"No OS package is detected", "no packages of a distribution are there"},
	{"Unable to get vulnerability details", "the database has no details of a vulnerability, which may have been rejected"},
	{"No severity found in specified sources", "nobody who is asked for it knows the severity of a vulnerability"},
	{"Dependency version cannot be determined", "the version of a dependency is not told, so what that needs in turn is not looked up"},
	{"Unable to find python `site-packages` directory", "the packages of Python are not installed here, so their licences are not known"},
	{"Unable to detect the dependency versions from `environment.yml`", "environment.yml tells no versions, so they are not looked up: conda env export tells them"},
	{"Variable values was not found", "variables of Terraform have no values here, so what depends on them is not judged"},
	{"Variable values were not found", "variables of Terraform have no values here, so what depends on them is not judged"},
	{"Missing parameter values", "parameters have no values here, so what depends on them is not judged"},
	{"Failed to load module", "a module of Terraform is not here, so it is not judged: terraform init brings it"},
	{"Failed to load submodule", "a module of Terraform is not here, so it is not judged: terraform init brings it"},
	{"Conda package is supported for SBOM", "packages of Conda are listed, but nothing is known here about vulnerabilities of them"},
	{"The library type is not supported for vulnerability scanning", "packages of this kind are listed, but nothing is known here about vulnerabilities of them"},
	{"Multiple OS components are not supported", "it describes several systems, of which the first one was looked at"},
	{"Mixing Alpine versions is unsupported", "packages of several versions of Alpine are mixed here, and were looked up as those of one"},
	{"Some OS packages were skipped due to mismatched PURL namespace", "packages of another distribution than that of the system were left out"},
	{"Unsupported hash algorithm", "a digest of a kind that is not known here was passed over"},
	{"Unable to parse pyproject.toml", "pyproject.toml cannot be read, so which dependencies are direct ones is not known"},
	{"Unable to parse composer.json", "composer.json cannot be read, so which dependencies are direct ones is not known"},
	{"Unable to parse Cargo.toml", "Cargo.toml cannot be read, so which dependencies are direct ones is not known"},
	{"Unable to parse package.json", "package.json cannot be read, so which dependencies are for development alone is not known"},
	{"Unable to collect licenses", "the licences of packages cannot be read from where they are installed"},
	{"Lopped properties were detected", "properties of a POM lead to each other in a circle"},
}

// elsewhere is a sentence that sends the reader to Trivy's own pages.
var elsewhere = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`\s*[A-Z][^.]*\s?https?://(?:www\.)?(?:trivy\.dev|aquasecurity\.github\.io)\S*[^.]*\.?`)
})

// notes says what Trivy noted in words for an operator, each once.
func notes(list []string) (out []string) {
	said := map[string]bool{}
	for _, n := range list {
		n = elsewhere().ReplaceAllString(n, "")
		for _, s := range sayings {
			at := strings.Index(n, s.theirs)
			if at < 0 || at > 0 && !strings.HasSuffix(n[:at], ": ") {
				continue
			}
			// Their sentence ends where what was noted with it begins.
			rest := n[at+len(s.theirs):]
			if end := strings.IndexAny(rest, "(:"); end < 0 {
				rest = ""
			} else if rest = rest[end:]; rest[0] == '(' {
				rest = " " + rest
			}
			n = n[:at] + s.ours + rest
			break
		}
		if n = strings.TrimRight(strings.TrimSpace(n), "."); n != "" && !said[n] {
			said[n] = true
			out = append(out, n)
		}
	}
	return out
}

// wording says why a target could not be looked at. The kind of the error stays,
// unless a registry wants to know who asks.
func wording(r *Request, err error) error {
	var known *failure.Error
	if err == nil || !errors.As(err, &known) || known.Hint != "" {
		return err
	}
	text := err.Error()
	switch {
	case r.Kind == protocol.SBOM:
		if _, why, ok := strings.Cut(text, "is no SBOM that can be read: "); ok {
			return failure.Hint(failure.Errorf(known.Kind, "%s is no SBOM that can be read: %s", r.Target, sbomReason(why)),
				"CycloneDX as JSON, and SPDX as JSON or as tags and values, can; have it made again by whoever made it")
		}
	case r.Kind == protocol.Image && r.Remote:
		if _, why, ok := strings.Cut(text, "could not parse reference: "); ok {
			return failure.Errorf(failure.Usage, "%s is no name of an image: write it as registry.example.org/portal:1.4, in lower case", strings.TrimSpace(why))
		}
		if _, why, ok := strings.Cut(text, "unable to find the specified image"); ok {
			return notFound(r, why)
		}
	}
	return err
}

// sbomReason says what is wrong with an SBOM.
func sbomReason(why string) string {
	for _, prefix := range []string{"failed analysis: ", "SBOM decode error: ", "failed to decode: ", "CycloneDX decode error: ", "failed to load tag-value spdx: ", "failed to load spdx-json: "} {
		why = strings.TrimPrefix(why, prefix)
	}
	switch {
	case strings.Contains(why, "unknown scanning is not yet supported"):
		return "it is neither CycloneDX nor SPDX, or is cut off"
	case strings.Contains(why, "invalid specification version"):
		return "it is CycloneDX of a version that is not known here"
	case strings.HasPrefix(why, "unsupported SPDX version: "):
		return "it is SPDX of a version that is not known here: " + strings.TrimPrefix(why, "unsupported SPDX version: ")
	}
	if field := unmarshalled().FindStringSubmatch(why); field != nil {
		return field[2] + " should not be a " + field[1]
	}
	return why
}

var unmarshalled = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`json: cannot unmarshal (\w+) into Go struct field \w+?\.(\S+) of type`)
})

// sources are what Trivy says of each place where it looked for an image.
var sources = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`\* (docker|containerd|podman|remote) error: `) })

// notFound says that an image is nowhere. What a registry answers decides; of the
// daemons of this host only those that are there and refused are worth a word.
func notFound(r *Request, why string) error {
	asked := map[string]string{}
	at := sources().FindAllStringSubmatchIndex(why, -1)
	for i, m := range at {
		end := len(why)
		if i+1 < len(at) {
			end = at[i+1][0]
		}
		asked[why[m[2]:m[3]]] = strings.TrimSpace(strings.NewReplacer(`\n`, " ", `\t`, " ", "\n", " ", "\t", " ").Replace(why[m[1]:end]))
	}
	text := "neither on this host nor in a registry"
	for _, daemon := range []string{"docker", "containerd", "podman"} {
		if strings.Contains(asked[daemon], "permission denied") {
			text += "; " + daemon + " may not be asked (permission denied)"
		}
	}
	kind, hint := failure.Failed, "an archive needs no registry: docker save, then mobileops scan image FILE.tar"
	remote := asked["remote"]
	has := func(words ...string) bool {
		for _, w := range words {
			if strings.Contains(remote, w) {
				return true
			}
		}
		return false
	}
	switch {
	case has("UNAUTHORIZED", "DENIED", "401", "403"):
		kind, hint = failure.NotAllowed, "docker login, or podman login, to that registry as the user who scans; or the name is wrong"
		remote = "the registry wants to know who asks, or there is no such image"
	case has("MANIFEST_UNKNOWN", "NAME_UNKNOWN", "404"):
		hint, remote = "look at its name and its tag", "the registry has no such image"
	case has("HTTP response to HTTPS client", "x509:", "certificate"):
		hint = "where that is meant to be so: --insecure"
	}
	if remote != "" {
		text += ": " + remote
	}
	return failure.Hint(failure.Errorf(kind, "the image %s is %s", r.Target, text), hint)
}
