package source

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

type osvDocument struct {
	ID         string         `json:"id"`
	Modified   *time.Time     `json:"modified"`
	Published  *time.Time     `json:"published"`
	Withdrawn  *time.Time     `json:"withdrawn"`
	Aliases    []string       `json:"aliases"`
	Upstream   []string       `json:"upstream"`
	Summary    string         `json:"summary"`
	Details    string         `json:"details"`
	Severity   []osvSeverity  `json:"severity"`
	Affected   []osvAffected  `json:"affected"`
	References []osvReference `json:"references"`
	Specific   struct {
		Severity any    `json:"severity"` // GitHub's: "MODERATE"
		CWE      any    `json:"cwe_ids"`
		URL      string `json:"url"` // Go's
	} `json:"database_specific"`
}

type osvReference struct {
	URL string `json:"url"`
}

type osvSeverity struct {
	Type  string `json:"type"`
	Score string `json:"score"`
}

type osvAffected struct {
	Package struct {
		Ecosystem string `json:"ecosystem"`
		Name      string `json:"name"`
	} `json:"package"`
	Severity []osvSeverity `json:"severity"`
	Ranges   []struct {
		Type   string `json:"type"`
		Events []struct {
			Introduced   string `json:"introduced"`
			Fixed        string `json:"fixed"`
			LastAffected string `json:"last_affected"`
		} `json:"events"`
	} `json:"ranges"`
	Versions  []string `json:"versions"`
	Ecosystem struct {
		Urgency any `json:"urgency"` // Debian's
		Imports []struct {
			GOOS   []string `json:"goos"`
			GOARCH []string `json:"goarch"`
		} `json:"imports"`
	} `json:"ecosystem_specific"`
	Specific struct {
		LastKnown any `json:"last_known_affected_version_range"` // GitHub's
	} `json:"database_specific"`
}

// decode reads a JSON document, and says where it is wrong.
func decode(data []byte, v any) error {
	dec := json.NewDecoder(bytes.NewReader(data))
	if err := dec.Decode(v); err != nil {
		return malformed(err, int64(len(data)))
	}
	if _, err := dec.Token(); err != io.EOF {
		return &MalformedError{Offset: dec.InputOffset(), Reason: "something follows the document"}
	}
	return nil
}

func malformed(err error, size int64) *MalformedError {
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	switch {
	case errors.As(err, &syntax):
		return &MalformedError{Offset: syntax.Offset, Reason: err.Error()}
	case errors.As(err, &kind):
		return &MalformedError{Offset: kind.Offset, Entry: kind.Field, Reason: "a " + kind.Value + " stands there, which does not belong there"}
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return &MalformedError{Offset: size, Reason: "it ends there, too early"}
	}
	return &MalformedError{Reason: err.Error()}
}

// parseOSV reads a document of OSV.
func parseOSV(data []byte, sum *Summary) (*Advisory, error) {
	d, err := osv(data, sum)
	if err != nil {
		return nil, err
	}
	return d.advisory(sum)
}

// parseGo reads a document of the Go vulnerability database, which is OSV.
func parseGo(data []byte, sum *Summary) (*Advisory, error) {
	d, err := osv(data, sum)
	if err != nil {
		return nil, err
	}
	if !strings.HasPrefix(d.ID, "GO-") {
		return nil, &MalformedError{Entry: d.ID, Reason: "is not in the Go vulnerability database"}
	}
	return d.advisory(sum)
}

func osv(data []byte, sum *Summary) (*osvDocument, error) {
	if !utf8.Valid(data) {
		return nil, &MalformedError{Reason: "it is not UTF-8"}
	}
	d := &osvDocument{}
	if err := decode(data, d); err != nil {
		return nil, err
	}
	switch {
	case d.ID == "" || len(d.ID) > 200 || strings.ContainsAny(d.ID, "\x00\n"):
		return nil, &MalformedError{Entry: "id", Reason: "it has no name"}
	case d.Modified == nil:
		return nil, &MalformedError{Entry: "modified", Reason: "it does not say when it was changed"}
	case d.Withdrawn != nil:
		sum.skip("withdrawn")
		sum.date(d.Modified.UTC())
		return nil, errSkip
	}
	return d, nil
}

func (d *osvDocument) advisory(sum *Summary) (*Advisory, error) {
	a := &Advisory{
		Publisher: publisherOf(d.ID), Title: d.Summary, Description: d.Details, Modified: d.Modified.UTC(),
		Severity: severityOf(text(d.Specific.Severity)), CWE: texts(d.Specific.CWE), CVSS: vectors(d.Severity),
	}
	if d.Published != nil {
		a.Published = d.Published.UTC()
	}
	for _, r := range d.References {
		if r.URL != "" {
			a.References = append(a.References, r.URL)
		}
	}
	if d.Specific.URL != "" && !slices.Contains(a.References, d.Specific.URL) {
		a.References = append(a.References, d.Specific.URL)
	}
	a.IDs, a.Aliases = d.names()
	for i := range d.Affected {
		if err := a.add(&d.Affected[i], sum); err != nil {
			return nil, err
		}
	}
	return a, nil
}

// names tells CVEs, by which a vulnerability is known, from its other names.
func (d *osvDocument) names() (ids, aliases []string) {
	var others []string
	for _, n := range slices.Concat([]string{d.ID}, d.Aliases, d.Upstream) {
		switch {
		case n == "" || len(n) > 200:
		case strings.HasPrefix(n, "CVE-"):
			if !slices.Contains(ids, n) {
				ids = append(ids, n)
			}
		case strings.Contains(n, "-CVE-"): // DEBIAN-CVE-…: the same with the name of a database before it
		case !slices.Contains(others, n):
			others = append(others, n)
		}
	}
	if len(ids) == 0 {
		others = slices.DeleteFunc(others, func(n string) bool { return n == d.ID })
		return []string{d.ID}, others
	}
	return ids, others
}

// publisherOf tells by the name of a document who wrote it.
func publisherOf(id string) Publisher {
	prefix, _, _ := strings.Cut(id, "-")
	switch prefix {
	case "GHSA":
		return Publisher{"ghsa", "GitHub Security Advisory", "https://github.com/advisories"}
	case "GO":
		return Publisher{"govulndb", "The Go Vulnerability Database", "https://pkg.go.dev/vuln/"}
	case "PYSEC":
		return Publisher{"osv", "Python Packaging Advisory Database", "https://github.com/pypa/advisory-database"}
	case "RUSTSEC":
		return Publisher{"osv", "RustSec Advisory Database", "https://github.com/RustSec/advisory-db"}
	case "MAL":
		return Publisher{"osv", "OpenSSF Malicious Packages", "https://github.com/ossf/malicious-packages"}
	}
	return Publisher{"osv", "Open Source Vulnerabilities", "https://osv.dev/"}
}

func severityOf(word string) Severity {
	switch strings.ToUpper(word) {
	case "LOW":
		return Low
	case "MODERATE", "MEDIUM":
		return Medium
	case "HIGH":
		return High
	case "CRITICAL":
		return Critical
	}
	return UnknownSeverity
}

func vectors(list []osvSeverity) (out []CVSS) {
	for _, s := range list {
		if v, ok := strings.CutPrefix(s.Type, "CVSS_V"); ok && s.Score != "" {
			out = append(out, CVSS{Version: v, Vector: strings.TrimSuffix(s.Score, "/")})
		}
	}
	return out
}

func text(v any) string {
	s, _ := v.(string)
	return s
}

func texts(v any) (out []string) {
	list, _ := v.([]any)
	for _, e := range list {
		if s, ok := e.(string); ok && s != "" {
			out = append(out, s)
		}
	}
	return out
}

// add adds a package of a document, unless nothing is known of its ecosystem.
func (a *Advisory) add(from *osvAffected, sum *Summary) error {
	ecosystem, release, ok := ecosystemOf(from.Package.Ecosystem)
	if !ok {
		name, _, _ := strings.Cut(from.Package.Ecosystem, ":")
		if name == "" || len(name) > 40 {
			name = "none"
		}
		sum.skip("ecosystem " + name)
		return nil
	}
	name := from.Package.Name
	switch {
	case name == "" || len(name) > 1000 || strings.ContainsRune(name, 0):
		return &MalformedError{Entry: from.Package.Ecosystem, Reason: "a package of it has no name"}
	case ecosystem == "go" && name == "toolchain":
		sum.skip("the go command itself")
		return nil
	case len(from.Versions) > maxVersions:
		return &MalformedError{Entry: name, Reason: "it has too many versions"}
	}
	p := Affected{Ecosystem: ecosystem, Release: release, Package: name, Versions: from.Versions}
	for _, i := range from.Ecosystem.Imports {
		p.OSes, p.Arches = union(p.OSes, i.GOOS), union(p.Arches, i.GOARCH)
	}
	if v := vectors(from.Severity); len(v) > 0 && len(a.CVSS) == 0 {
		a.CVSS = v
	}
	for _, r := range from.Ranges {
		if r.Type == "GIT" {
			continue // of commits, which packages do not tell
		}
		out := Range{Until: until(text(from.Specific.LastKnown))}
		for _, e := range r.Events {
			if ev := (Event{e.Introduced, e.Fixed, e.LastAffected}); ev != (Event{}) {
				out.Events = append(out.Events, ev)
			}
		}
		if len(out.Events) > 0 {
			p.Ranges = append(p.Ranges, out)
		}
	}
	if len(p.Ranges) == 0 && len(p.Versions) == 0 {
		sum.skip("no versions")
		return nil
	}
	if p.Distribution() && !p.settle(text(from.Ecosystem.Urgency), sum) {
		return nil
	}
	a.Affected = append(a.Affected, p)
	return nil
}

// settle makes of ranges what databases have of distributions: the version that
// fixes it.
func (p *Affected) settle(urgency string, sum *Summary) bool {
	p.Severity = urgencyOf(urgency)
	for _, r := range p.Ranges {
		for _, e := range r.Events {
			switch {
			case e.Fixed != "":
				p.Fixed = e.Fixed
			case e.LastAffected != "":
				sum.skip("ends with a version that is affected, which has no place in a distribution's advisories")
				return false
			}
		}
	}
	if len(p.Ranges) == 0 {
		sum.skip("no versions")
		return false
	}
	if p.Fixed == "0" {
		return false
	}
	if p.Fixed == "" {
		p.Status = Unfixed
		if urgency == "end-of-life" {
			p.Status = EndOfLife
		}
	}
	p.Ranges, p.Versions = nil, nil
	return true
}

// until reads GitHub's bound of a range that has no end.
func until(s string) string {
	s = strings.ReplaceAll(s, " ", "")
	if strings.HasPrefix(s, "<") && len(s) < 100 && !strings.ContainsAny(s, ",|") {
		return s
	}
	return ""
}

// ecosystemOf gives Trivy's word for an ecosystem of OSV, and the release where
// it is of a distribution.
func ecosystemOf(name string) (ecosystem, release string, ok bool) {
	base, suffix, _ := strings.Cut(name, ":")
	switch strings.ToLower(base) {
	case "npm":
		return "npm", "", true
	case "pypi":
		return "pip", "", true
	case "go":
		return "go", "", true
	case "crates.io":
		return "cargo", "", true
	case "maven":
		return "maven", "", true
	case "rubygems":
		return "rubygems", "", true
	case "nuget":
		return "nuget", "", true
	case "packagist":
		return "composer", "", true
	case "hex":
		return "erlang", "", true
	case "pub":
		return "pub", "", true
	case "conancenter":
		return "conan", "", true
	case "swifturl":
		return "swift", "", true
	case "julia":
		return "julia", "", true
	case "bitnami":
		return "bitnami", "", true
	case "debian":
		return "debian", suffix, plain(suffix)
	case "alpine":
		suffix = strings.TrimPrefix(suffix, "v")
		return "alpine", suffix, plain(suffix)
	case "ubuntu": // "22.04:LTS"; what Ubuntu Pro fixes, others do not get
		suffix, _, _ = strings.Cut(suffix, ":")
		return "ubuntu", suffix, plain(suffix)
	case "wolfi":
		return "wolfi", "", suffix == ""
	case "chainguard":
		return "chainguard", "", suffix == ""
	}
	return "", "", false
}

// plain reports whether a release is a version.
func plain(release string) bool {
	return release != "" && len(release) < 10 && strings.Trim(release, "0123456789.") == ""
}

func union(a, b []string) []string {
	for _, s := range b {
		if !slices.Contains(a, s) {
			a = append(a, s)
		}
	}
	return a
}
