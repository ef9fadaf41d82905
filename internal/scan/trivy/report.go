//go:build goexperiment.jsonv2

package trivy

import (
	"cmp"
	"context"
	"slices"
	"strconv"
	"strings"

	dbTypes "github.com/aquasecurity/trivy-db/pkg/types"
	ftypes "github.com/aquasecurity/trivy/pkg/fanal/types"
	"github.com/aquasecurity/trivy/pkg/licensing/expression"
	"github.com/aquasecurity/trivy/pkg/result"
	"github.com/aquasecurity/trivy/pkg/types"

	"github.com/mobileops/mobileops/internal/scan/protocol"
)

// scanOptions are what Trivy's command would make of its flags.
func (j *job) scanOptions() types.ScanOptions {
	o := types.ScanOptions{
		PkgTypes:            types.PkgTypes,
		PkgRelationships:    ftypes.Relationships,
		LicenseFull:         true,
		VulnSeveritySources: []dbTypes.SourceID{"auto"},
		LicenseCategories: map[ftypes.LicenseCategory][]string{
			ftypes.CategoryForbidden:    expression.ForbiddenLicenses,
			ftypes.CategoryRestricted:   expression.RestrictedLicenses,
			ftypes.CategoryReciprocal:   expression.ReciprocalLicenses,
			ftypes.CategoryNotice:       expression.NoticeLicenses,
			ftypes.CategoryPermissive:   expression.PermissiveLicenses,
			ftypes.CategoryUnencumbered: expression.UnencumberedLicenses,
		},
	}
	if j.req.Kind == protocol.Repository {
		o.PkgTypes = []string{types.PkgTypeLibrary}
	}
	for _, s := range []struct {
		on      bool
		scanner types.Scanner
	}{
		{j.wants.packages, types.SBOMScanner}, {j.wants.vulnerabilities, types.VulnerabilityScanner}, {j.wants.secrets, types.SecretScanner},
		{j.wants.licenses, types.LicenseScanner}, {j.wants.misconfigurations, types.MisconfigScanner},
	} {
		if s.on {
			o.Scanners.Enable(s.scanner)
		}
	}
	return o
}

// filter takes out what Trivy reports twice and checks that passed, and puts the
// rest in order. Severities are all kept: choosing is for whoever reads the report.
func filter(ctx context.Context, r *types.Report) error {
	o := result.FilterOptions{}
	for s := range dbTypes.SeverityNames {
		o.Severities = append(o.Severities, dbTypes.Severity(s))
	}
	for i := range r.Results {
		if err := result.FilterResult(ctx, &r.Results[i], result.IgnoreConfig{}, o); err != nil {
			return err
		}
	}
	return nil
}

// report says what Trivy found in the words of the protocol.
func (j *job) report(r *types.Report, from origin) (*protocol.Report, error) {
	out := &protocol.Report{
		Schema: protocol.Schema, Version: version(), Engine: Engine, Kind: j.req.Kind, Target: j.req.Target,
		Commit: from.commit, Results: []protocol.Result{},
		Skipped: protocol.Skipped{Pattern: j.meter.pattern.Load(), Special: j.meter.special.Load()},
		Stats:   protocol.Stats{Files: j.meter.files.Load(), Bytes: j.meter.bytes.Load()},
	}
	if os := r.Metadata.OS; os != nil && os.Family != "none" {
		out.OS = &protocol.OS{Family: string(os.Family), Name: os.Name, EndOfLife: os.Eosl}
	}
	m := r.Metadata
	if m.ImageID != "" || len(m.DiffIDs) > 0 {
		out.Image = &protocol.ImageID{ID: m.ImageID, Architecture: m.ImageConfig.Architecture, Digests: m.RepoDigests, Tags: m.RepoTags, Layers: m.DiffIDs}
	}
	if r.BOM != nil {
		if root := r.BOM.Root(); root != nil {
			out.Subject = root.Name
		}
	}
	for i := range r.Results {
		if res, ok := j.result(&r.Results[i]); ok {
			out.Results = append(out.Results, res)
		}
	}
	return out, j.memory.count(r.Results, out)
}

func (j *job) result(r *types.Result) (protocol.Result, bool) {
	out := protocol.Result{Target: r.Target, Class: protocol.Class(r.Class), Type: string(r.Type)}
	if j.req.Packages || j.wants.licenses {
		for i := range r.Packages {
			out.Packages = append(out.Packages, packageOf(&r.Packages[i]))
		}
	}
	for i := range r.Vulnerabilities {
		out.Vulnerabilities = append(out.Vulnerabilities, vulnerabilityOf(&r.Vulnerabilities[i]))
	}
	for _, s := range r.Secrets {
		out.Secrets = append(out.Secrets, protocol.Secret{
			Rule: s.RuleID, Category: string(s.Category), Title: s.Title, Severity: s.Severity,
			StartLine: s.StartLine, EndLine: s.EndLine, Offset: s.Offset, Match: s.Match, Layer: s.Layer.DiffID,
		})
	}
	for _, l := range r.Licenses {
		out.Licenses = append(out.Licenses, protocol.License{
			Name: l.Name, Category: string(l.Category), Severity: l.Severity, Package: l.PkgName, Path: l.FilePath,
			Confidence: l.Confidence, Link: l.Link,
		})
	}
	for i := range r.Misconfigurations {
		out.Misconfigurations = append(out.Misconfigurations, misconfigurationOf(&r.Misconfigurations[i]))
	}
	if s := r.MisconfSummary; s != nil {
		out.Checks = s.Successes + s.Failures
	}
	empty := len(out.Packages)+len(out.Vulnerabilities)+len(out.Secrets)+len(out.Licenses)+len(out.Misconfigurations)+out.Checks == 0
	return out, !empty
}

func packageOf(p *ftypes.Package) protocol.Package {
	out := protocol.Package{
		ID: p.ID, Name: p.Name, Version: fullVersion(p.Epoch, p.Version, p.Release), Source: p.SrcName, PURL: purlOf(p.Identifier),
		Path: p.FilePath, Licenses: p.Licenses, Layer: p.Layer.DiffID, Dev: p.Dev,
	}
	if p.Relationship != ftypes.RelationshipUnknown {
		out.Relationship = p.Relationship.String()
	}
	return out
}

func fullVersion(epoch int, version, release string) string {
	p := ftypes.Package{Epoch: epoch, Version: version, Release: release}
	var b strings.Builder
	if p.Epoch != 0 {
		b.WriteString(strconv.Itoa(p.Epoch) + ":")
	}
	b.WriteString(p.Version)
	if p.Release != "" {
		b.WriteString("-" + p.Release)
	}
	return b.String()
}

func purlOf(id ftypes.PkgIdentifier) string {
	if id.PURL == nil {
		return ""
	}
	return id.PURL.String()
}

func vulnerabilityOf(v *types.DetectedVulnerability) protocol.Vulnerability {
	out := protocol.Vulnerability{
		ID: v.VulnerabilityID, Aliases: v.VendorIDs, Package: v.PkgName, PackageID: v.PkgID, PURL: purlOf(v.PkgIdentifier),
		Path: v.PkgPath, Installed: v.InstalledVersion, Fixed: v.FixedVersion, Status: v.Status.String(),
		Severity: cmp.Or(v.Severity, dbTypes.SeverityUnknown.String()), SeveritySource: string(v.SeveritySource),
		Title: v.Title, Description: v.Description, CWE: v.CweIDs, URL: v.PrimaryURL, References: v.References,
		Published: v.PublishedDate, Modified: v.LastModifiedDate, Layer: v.Layer.DiffID,
	}
	if v.DataSource != nil {
		out.DataSource = v.DataSource.Name
	}
	for source, s := range v.VendorSeverity {
		if out.Severities == nil {
			out.Severities = map[string]string{}
		}
		out.Severities[string(source)] = s.String()
	}
	for source, c := range v.CVSS {
		if out.CVSS == nil {
			out.CVSS = map[string]protocol.CVSS{}
		}
		out.CVSS[string(source)] = protocol.CVSS(c)
	}
	return out
}

func misconfigurationOf(m *types.DetectedMisconfiguration) protocol.Misconfiguration {
	out := protocol.Misconfiguration{
		ID: m.ID, Aliases: m.Aliases, Type: m.Type, Title: m.Title, Description: m.Description, Message: m.Message,
		Resolution: m.Resolution, Severity: m.Severity, StartLine: m.CauseMetadata.StartLine, EndLine: m.CauseMetadata.EndLine,
		Resource: m.CauseMetadata.Resource, URL: m.PrimaryURL, References: m.References, Layer: m.Layer.DiffID,
	}
	//lint:ignore SA1019 waivers and exceptions that people wrote down may have it
	if m.AVDID != "" && m.AVDID != m.ID && !slices.Contains(out.Aliases, m.AVDID) {
		out.Aliases = append(slices.Clone(out.Aliases), m.AVDID)
	}
	return out
}
