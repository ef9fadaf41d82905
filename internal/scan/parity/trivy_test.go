package parity

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mobileops/mobileops/internal/scan/protocol"
)

// document is what Trivy's JSON says, as far as a protocol.Report says it too.
// https://trivy.dev/docs/latest/configuration/reporting/#json
type document struct {
	Metadata struct {
		OS *struct {
			Family, Name string
			EOSL         bool
		}
		ImageID                        string
		DiffIDs, RepoTags, RepoDigests []string
		ImageConfig                    struct{ Architecture string }
		RepoURL, Branch, Commit        string
	}
	Results []struct {
		Target, Class, Type string
		Packages            []documentPackage
		Vulnerabilities     []documentVulnerability
		MisconfSummary      struct{ Successes, Failures int }
		Misconfigurations   []documentMisconfiguration
		Secrets             []struct {
			RuleID, Category, Severity, Title, Match string
			StartLine, EndLine, Offset               int
			Layer                                    documentLayer
		}
		Licenses []struct {
			Severity, Category, PkgName, FilePath, Name, Link string
			Confidence                                        float64
		}
	}
}

type documentLayer struct{ DiffID string }

type documentIdentifier struct{ PURL string }

type documentPackage struct {
	ID, Name, Version, Release                  string
	Epoch                                       int
	SrcName, SrcVersion, FilePath, Relationship string
	Identifier                                  documentIdentifier
	Licenses                                    []string
	Dev                                         bool
	Layer                                       documentLayer
}

type documentVulnerability struct {
	VulnerabilityID, PkgID, PkgName, PkgPath, InstalledVersion, FixedVersion string
	Status, SeveritySource, PrimaryURL, Title, Description, Severity         string
	VendorIDs, CweIDs, References                                            []string
	PkgIdentifier                                                            documentIdentifier
	Layer                                                                    documentLayer
	DataSource                                                               struct{ Name string }
	VendorSeverity                                                           map[string]int
	CVSS                                                                     map[string]struct {
		V2Vector, V3Vector, V40Vector string
		V2Score, V3Score, V40Score    float64
	}
	PublishedDate, LastModifiedDate *time.Time
}

type documentMisconfiguration struct {
	ID, Type, Title, Description, Message, Resolution, Severity, PrimaryURL, Status string
	Aliases, References                                                             []string
	Layer                                                                           documentLayer
	CauseMetadata                                                                   struct {
		Resource           string
		StartLine, EndLine int
	}
}

// asReport translates Trivy's JSON into the words of the protocol.
func asReport(t testing.TB, from []byte) *protocol.Report {
	t.Helper()
	var d document
	if err := json.Unmarshal(from, &d); err != nil {
		t.Fatalf("what Trivy said: %v", err)
	}
	r := &protocol.Report{}
	if o := d.Metadata.OS; o != nil {
		r.OS = &protocol.OS{Family: o.Family, Name: o.Name, EndOfLife: o.EOSL}
	}
	if m := d.Metadata; m.ImageID != "" {
		r.Image = &protocol.ImageID{ID: m.ImageID, Architecture: m.ImageConfig.Architecture, Digests: m.RepoDigests, Tags: m.RepoTags, Layers: m.DiffIDs}
	}
	if m := d.Metadata; m.Commit != "" {
		r.Commit = &protocol.Commit{Remote: m.RepoURL, Branch: m.Branch, Hash: m.Commit}
	}
	for _, from := range d.Results {
		to := protocol.Result{Target: from.Target, Class: protocol.Class(from.Class), Type: from.Type,
			Checks: from.MisconfSummary.Successes + from.MisconfSummary.Failures}
		for _, p := range from.Packages {
			to.Packages = append(to.Packages, p.asPackage())
		}
		for _, v := range from.Vulnerabilities {
			to.Vulnerabilities = append(to.Vulnerabilities, v.asVulnerability())
		}
		for _, m := range from.Misconfigurations {
			if m.Status != "PASS" {
				to.Misconfigurations = append(to.Misconfigurations, m.asMisconfiguration())
			}
		}
		for _, s := range from.Secrets {
			to.Secrets = append(to.Secrets, protocol.Secret{Rule: s.RuleID, Category: s.Category, Title: s.Title, Severity: s.Severity,
				StartLine: s.StartLine, EndLine: s.EndLine, Offset: s.Offset, Match: s.Match, Layer: s.Layer.DiffID})
		}
		for _, l := range from.Licenses {
			to.Licenses = append(to.Licenses, protocol.License{Name: l.Name, Category: l.Category, Severity: l.Severity,
				Package: l.PkgName, Path: l.FilePath, Confidence: l.Confidence, Link: l.Link})
		}
		r.Results = append(r.Results, to)
	}
	return r
}

func (p *documentPackage) asPackage() protocol.Package {
	version := p.Version
	if p.Release != "" {
		version += "-" + p.Release
	}
	if p.Epoch != 0 {
		version = fmt.Sprintf("%d:%s", p.Epoch, version)
	}
	return protocol.Package{ID: p.ID, Name: p.Name, Version: version, Source: p.SrcName, PURL: p.Identifier.PURL, Path: p.FilePath,
		Licenses: p.Licenses, Layer: p.Layer.DiffID, Dev: p.Dev, Relationship: p.Relationship}
}

func (v *documentVulnerability) asVulnerability() protocol.Vulnerability {
	to := protocol.Vulnerability{ID: v.VulnerabilityID, Aliases: v.VendorIDs, Package: v.PkgName, PackageID: v.PkgID, PURL: v.PkgIdentifier.PURL,
		Path: v.PkgPath, Installed: v.InstalledVersion, Fixed: v.FixedVersion, Status: v.Status, Severity: v.Severity,
		SeveritySource: v.SeveritySource, Title: v.Title, Description: v.Description, CWE: v.CweIDs, URL: v.PrimaryURL,
		References: v.References, Published: v.PublishedDate, Modified: v.LastModifiedDate, Layer: v.Layer.DiffID, DataSource: v.DataSource.Name}
	words := []string{"UNKNOWN", "LOW", "MEDIUM", "HIGH", "CRITICAL"}
	for source, n := range v.VendorSeverity {
		if to.Severities == nil {
			to.Severities = map[string]string{}
		}
		to.Severities[source] = words[n]
	}
	for source, c := range v.CVSS {
		if to.CVSS == nil {
			to.CVSS = map[string]protocol.CVSS{}
		}
		to.CVSS[source] = protocol.CVSS(c)
	}
	return to
}

func (m *documentMisconfiguration) asMisconfiguration() protocol.Misconfiguration {
	return protocol.Misconfiguration{ID: m.ID, Aliases: m.Aliases, Type: m.Type, Title: m.Title, Description: m.Description,
		Message: m.Message, Resolution: m.Resolution, Severity: m.Severity, StartLine: m.CauseMetadata.StartLine,
		EndLine: m.CauseMetadata.EndLine, Resource: m.CauseMetadata.Resource, URL: m.PrimaryURL, References: m.References, Layer: m.Layer.DiffID}
}

// difference is one thing that the two reports don't agree about.
type difference struct {
	Result string // target, class and type
	Of     string // "vulnerability", "secret", …
	Key    string // which of them
	Field  string // "" when one of the sides has no such thing at all
	Trivy  string // "" when Trivy has none
	Ours   string // "" when we have none
}

func (d difference) String() string {
	side := func(s string) string {
		if s == "" {
			return "nothing"
		}
		return s
	}
	return fmt.Sprintf("%s: %s %s %s\n\ttrivy %s\n\tours  %s", d.Result, d.Of, d.Key, d.Field, side(d.Trivy), side(d.Ours))
}

// compare returns what two reports don't agree about. The order in which either
// says something plays no part.
func compare(trivy, ours *protocol.Report) []difference {
	var all []difference
	add := func(result, of string, trivy, ours map[string][]string) {
		for key := range union(trivy, ours) {
			a, b := trivy[key], ours[key]
			slices.Sort(a)
			slices.Sort(b)
			for i := range max(len(a), len(b)) {
				switch {
				case i >= len(a):
					all = append(all, difference{result, of, key, "", "", b[i]})
				case i >= len(b):
					all = append(all, difference{result, of, key, "", a[i], ""})
				case a[i] != b[i]:
					all = append(all, fields(result, of, key, a[i], b[i])...)
				}
			}
		}
	}
	one := func(of string, trivy, ours any) {
		add("report", of, map[string][]string{"": {text(trivy)}}, map[string][]string{"": {text(ours)}})
	}
	one("system", trivy.OS, ours.OS)
	one("image", trivy.Image, ours.Image)
	one("commit", trivy.Commit, ours.Commit)

	theirs, mine := byName(trivy.Results), byName(ours.Results)
	for name := range union(theirs, mine) {
		a, b := theirs[name], mine[name]
		add(name, "package", index(a.Packages, packageKey), index(b.Packages, packageKey))
		add(name, "vulnerability", index(a.Vulnerabilities, vulnerabilityKey), index(b.Vulnerabilities, vulnerabilityKey))
		add(name, "secret", index(a.Secrets, secretKey), index(b.Secrets, secretKey))
		add(name, "licence", index(a.Licenses, licenseKey), index(b.Licenses, licenseKey))
		add(name, "misconfiguration", index(a.Misconfigurations, misconfigurationKey), index(b.Misconfigurations, misconfigurationKey))
		if a.Checks != b.Checks {
			all = append(all, difference{name, "checks", "", "number", fmt.Sprint(a.Checks), fmt.Sprint(b.Checks)})
		}
	}
	slices.SortFunc(all, func(a, b difference) int { return cmp.Compare(a.String(), b.String()) })
	return all
}

func packageKey(p protocol.Package) string { return p.Name + " " + p.Version + " " + p.Path }
func vulnerabilityKey(v protocol.Vulnerability) string {
	return v.ID + " in " + v.Package + " " + v.Installed + " " + v.Path
}
func secretKey(s protocol.Secret) string   { return fmt.Sprintf("%s at %d", s.Rule, s.StartLine) }
func licenseKey(l protocol.License) string { return l.Name + " of " + l.Package + l.Path }
func misconfigurationKey(m protocol.Misconfiguration) string {
	return fmt.Sprintf("%s at %d of %s", m.ID, m.StartLine, m.Resource)
}

// byName merges the results that have the same target, class and type, and leaves
// out those that say nothing.
func byName(results []protocol.Result) map[string]protocol.Result {
	m := map[string]protocol.Result{}
	for _, r := range results {
		name := strings.Join([]string{r.Target, string(r.Class), r.Type}, " | ")
		to := m[name]
		to.Packages = append(to.Packages, r.Packages...)
		to.Vulnerabilities = append(to.Vulnerabilities, r.Vulnerabilities...)
		to.Secrets = append(to.Secrets, r.Secrets...)
		to.Licenses = append(to.Licenses, r.Licenses...)
		to.Misconfigurations = append(to.Misconfigurations, r.Misconfigurations...)
		to.Checks += r.Checks
		m[name] = to
	}
	return m
}

// index maps what identifies something to all there is about it.
func index[T any](list []T, key func(T) string) map[string][]string {
	m := map[string][]string{}
	for _, e := range list {
		m[key(e)] = append(m[key(e)], text(e))
	}
	return m
}

func text(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(b)
}

// fields says in which fields two objects differ.
func fields(result, of, key, trivy, ours string) []difference {
	var a, b map[string]json.RawMessage
	if json.Unmarshal([]byte(trivy), &a) != nil || json.Unmarshal([]byte(ours), &b) != nil || a == nil || b == nil {
		return []difference{{result, of, key, "", trivy, ours}}
	}
	var list []difference
	for field := range union(a, b) {
		if string(a[field]) != string(b[field]) {
			list = append(list, difference{result, of, key, field, string(a[field]), string(b[field])})
		}
	}
	return list
}

func union[V any](a, b map[string]V) map[string]struct{} {
	m := map[string]struct{}{}
	for k := range a {
		m[k] = struct{}{}
	}
	for k := range b {
		m[k] = struct{}{}
	}
	return m
}
