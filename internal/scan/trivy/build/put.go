//go:build goexperiment.jsonv2

package build

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/aquasecurity/trivy-db/pkg/db"
	"github.com/aquasecurity/trivy-db/pkg/ecosystem"
	"github.com/aquasecurity/trivy-db/pkg/types"
	"github.com/aquasecurity/trivy-db/pkg/vulnsrc/vulnerability"
	debver "github.com/knqyf263/go-deb-version"
	"github.com/mobileops/mobileops/internal/scan/vulndb/source"
	gocvss20 "github.com/pandatix/go-cvss/20"
	gocvss30 "github.com/pandatix/go-cvss/30"
	gocvss31 "github.com/pandatix/go-cvss/31"
	gocvss40 "github.com/pandatix/go-cvss/40"
	bolt "go.etcd.io/bbolt"
)

// Names of Trivy's tables.
const (
	advisoryDetail      = "advisory-detail"
	vulnerabilityDetail = "vulnerability-detail"
	vulnerabilityID     = "vulnerability-id"
)

// put files an advisory under every name of its vulnerability.
func put(tx *bolt.Tx, a *source.Advisory, skipped map[string]int) error {
	dbc := db.Config{}
	detail := detailOf(a, skipped)
	for _, id := range a.IDs {
		aliases := slices.DeleteFunc(slices.Clone(a.Aliases), func(s string) bool { return s == id })
		for i := range a.Affected {
			p := &a.Affected[i]
			bucket, from := bucketOf(p, a.Publisher)
			name := p.Package
			if !p.Distribution() {
				name = vulnerability.NormalizePkgName(ecosystem.Type(p.Ecosystem), name)
			}
			adv := types.Advisory{
				VendorIDs: aliases, OSes: p.OSes, Arches: p.Arches,
				FixedVersion: p.Fixed, Status: types.Status(p.Status), Severity: types.Severity(p.Severity),
				VulnerableVersions: p.Constraints, PatchedVersions: p.Patched,
			}
			if len(p.Ranges)+len(p.Versions) > 0 {
				adv.VulnerableVersions, adv.PatchedVersions = constraints(p)
			}
			if err := putAdvisory(tx, id, bucket, name, &adv, p.Distribution()); err != nil {
				return err
			}
			if err := dbc.PutDataSource(tx, bucket, from); err != nil {
				return err
			}
		}
		if err := putDetail(tx, id, types.SourceID(a.Publisher.ID), detail); err != nil {
			return err
		}
		if err := dbc.PutVulnerabilityID(tx, id); err != nil {
			return err
		}
	}
	return nil
}

// bucketOf is where Trivy looks for a package, and who wrote what is there.
func bucketOf(p *source.Affected, by source.Publisher) (string, types.DataSource) {
	from := types.DataSource{ID: types.SourceID(by.ID), Name: by.Name, URL: by.URL}
	if p.Distribution() {
		from = distribution(p.Ecosystem)
		return strings.TrimSpace(p.Ecosystem + " " + p.Release), from
	}
	if from.ID == vulnerability.GHSA { // one name for each ecosystem, as in Trivy's own
		name := p.Ecosystem
		if n, ok := map[string]string{
			"composer": "Composer", "go": "Go", "maven": "Maven", "nuget": "NuGet", "rubygems": "RubyGems", "cargo": "Rust", "erlang": "Erlang", "pub": "Pub", "swift": "Swift",
		}[name]; ok {
			name = n
		}
		from.Name += " " + name
		from.URL = "https://github.com/advisories?query=type%3Areviewed+ecosystem%3A" + strings.ToLower(name)
	}
	return p.Ecosystem + "::" + from.Name, from
}

// distribution is who publishes what is wrong in a distribution, whichever way it came here.
func distribution(name string) types.DataSource {
	switch name {
	case "debian":
		return types.DataSource{ID: vulnerability.Debian, Name: "Debian Security Tracker", URL: "https://salsa.debian.org/security-tracker-team/security-tracker"}
	case "ubuntu":
		return types.DataSource{ID: vulnerability.Ubuntu, Name: "Ubuntu CVE Tracker", URL: "https://git.launchpad.net/ubuntu-cve-tracker"}
	case "alpine":
		return types.DataSource{ID: vulnerability.Alpine, Name: "Alpine Secdb", URL: "https://secdb.alpinelinux.org/"}
	case "wolfi":
		return types.DataSource{ID: vulnerability.Wolfi, Name: "Wolfi Secdb", URL: "https://packages.wolfi.dev/os/security.json"}
	}
	return types.DataSource{ID: vulnerability.Chainguard, Name: "Chainguard Security Data", URL: "https://packages.cgr.dev/chainguard/security.json"}
}

// putAdvisory files an advisory, together with one that is there already under
// the same names: two documents may be about one vulnerability.
func putAdvisory(tx *bolt.Tx, id, bucket, name string, adv *types.Advisory, distribution bool) error {
	b, err := nested(tx, advisoryDetail, id, bucket)
	if err != nil {
		return err
	}
	if old := b.Get([]byte(name)); old != nil {
		var o types.Advisory
		if err := json.Unmarshal(old, &o); err != nil {
			return fmt.Errorf("%s %s %s: %w", id, bucket, name, err)
		}
		merge(adv, &o, distribution)
	}
	data, err := json.Marshal(adv)
	if err != nil {
		return err
	}
	return b.Put([]byte(name), data)
}

// merge adds to an advisory what another one of the same vulnerability and
// package says. Of two versions that fix it the later one counts, as the first
// fix was not enough.
func merge(adv, old *types.Advisory, distribution bool) {
	adv.VendorIDs = together(old.VendorIDs, adv.VendorIDs)
	if distribution {
		if later(old.FixedVersion, adv.FixedVersion) {
			adv.FixedVersion = old.FixedVersion
		}
		if adv.FixedVersion != "" {
			adv.Status = types.StatusUnknown
		}
		adv.Severity = max(adv.Severity, old.Severity)
		return
	}
	adv.VulnerableVersions = together(old.VulnerableVersions, adv.VulnerableVersions)
	adv.PatchedVersions = together(old.PatchedVersions, adv.PatchedVersions)
	if len(old.OSes) == 0 || len(adv.OSes) == 0 { // none is all
		adv.OSes = nil
	} else {
		adv.OSes = together(old.OSes, adv.OSes)
	}
	if len(old.Arches) == 0 || len(adv.Arches) == 0 {
		adv.Arches = nil
	} else {
		adv.Arches = together(old.Arches, adv.Arches)
	}
}

// later reports whether version a comes after b; any version comes after none.
func later(a, b string) bool {
	if a == "" || b == "" {
		return a != ""
	}
	va, err := debver.NewVersion(a)
	if err != nil {
		return false
	}
	vb, err := debver.NewVersion(b)
	return err == nil && va.GreaterThan(vb)
}

func together(a, b []string) []string {
	out := slices.Clone(a)
	for _, s := range b {
		if !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return out
}

func nested(tx *bolt.Tx, names ...string) (*bolt.Bucket, error) {
	b, err := tx.CreateBucketIfNotExists([]byte(names[0]))
	for _, name := range names[1:] {
		if err != nil {
			return nil, err
		}
		b, err = b.CreateBucketIfNotExists([]byte(name))
	}
	return b, err
}

// putDetail files what a source says of a vulnerability, and keeps what another
// document of the same source said first.
func putDetail(tx *bolt.Tx, id string, from types.SourceID, d types.VulnerabilityDetail) error {
	b, err := nested(tx, vulnerabilityDetail, id)
	if err != nil {
		return err
	}
	if old := b.Get([]byte(from)); old != nil {
		var o types.VulnerabilityDetail
		if err := json.Unmarshal(old, &o); err != nil {
			return fmt.Errorf("%s %s: %w", id, from, err)
		}
		d = mergeDetail(o, d)
	}
	data, err := json.Marshal(d)
	if err != nil {
		return err
	}
	return b.Put([]byte(from), data)
}

func mergeDetail(o, d types.VulnerabilityDetail) types.VulnerabilityDetail {
	if o.Title == "" {
		o.Title = d.Title
	}
	if o.Description == "" {
		o.Description = d.Description
	}
	if o.CvssVector == "" && o.CvssScore <= 0 {
		o.CvssVector, o.CvssScore = d.CvssVector, d.CvssScore
	}
	if o.CvssVectorV3 == "" {
		o.CvssVectorV3, o.CvssScoreV3 = d.CvssVectorV3, d.CvssScoreV3
	}
	if o.CvssVectorV40 == "" {
		o.CvssVectorV40, o.CvssScoreV40 = d.CvssVectorV40, d.CvssScoreV40
	}
	o.Severity = max(o.Severity, d.Severity)
	o.CweIDs, o.References = together(o.CweIDs, d.CweIDs), together(o.References, d.References)
	if o.PublishedDate == nil || d.PublishedDate != nil && d.PublishedDate.Before(*o.PublishedDate) {
		o.PublishedDate = d.PublishedDate
	}
	if o.LastModifiedDate == nil || d.LastModifiedDate != nil && d.LastModifiedDate.After(*o.LastModifiedDate) {
		o.LastModifiedDate = d.LastModifiedDate
	}
	return o
}

func detailOf(a *source.Advisory, skipped map[string]int) types.VulnerabilityDetail {
	d := types.VulnerabilityDetail{
		Title: a.Title, Description: a.Description, Severity: types.Severity(a.Severity), CweIDs: a.CWE, References: a.References,
		PublishedDate: moment(a.Published), LastModifiedDate: moment(a.Modified),
	}
	for _, c := range a.CVSS {
		if !score(&d, c) {
			skipped["CVSS that cannot be read"]++
		}
	}
	return d
}

func moment(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

// score computes the score of a vector. One that cannot be read says nothing:
// how bad the vulnerability is stays unknown then.
func score(d *types.VulnerabilityDetail, c source.CVSS) bool {
	switch v := c.Vector; {
	case strings.HasPrefix(v, "CVSS:4.0/"):
		p, err := gocvss40.ParseVector(v)
		if err != nil {
			return false
		}
		d.CvssVectorV40, d.CvssScoreV40 = p.Vector(), p.Score()
	case strings.HasPrefix(v, "CVSS:3.1/"):
		p, err := gocvss31.ParseVector(v)
		if err != nil {
			return false
		}
		d.CvssVectorV3, d.CvssScoreV3 = v, p.EnvironmentalScore()
	case strings.HasPrefix(v, "CVSS:3.0/"):
		p, err := gocvss30.ParseVector(v)
		if err != nil {
			return false
		}
		d.CvssVectorV3, d.CvssScoreV3 = v, p.EnvironmentalScore()
	case c.Score > 0:
		d.CvssScore, d.CvssVector = c.Score, v
	case v != "":
		p, err := gocvss20.ParseVector(v)
		if err != nil {
			return false
		}
		d.CvssVector, d.CvssScore = v, p.BaseScore()
	}
	return true
}
