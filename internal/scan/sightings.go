package scan

import (
	"cmp"
	"slices"
	"strings"

	"github.com/mobileops/mobileops/internal/scan/ledger"
	"github.com/mobileops/mobileops/internal/scan/license"
	"github.com/mobileops/mobileops/internal/scan/protocol"
	"github.com/mobileops/mobileops/internal/scan/vulndb"
)

// sightings are all that a report tells, as the ledger keeps it. intel may be nil.
func sightings(report *protocol.Report, verdicts *license.Verdicts, intel *vulndb.Intel) (list []ledger.Sighting) {
	for i := range report.Results {
		r := &report.Results[i]
		for j := range r.Vulnerabilities {
			list = append(list, vulnerability(r, &r.Vulnerabilities[j], intel))
		}
		for j := range r.Secrets {
			list = append(list, secret(r, &r.Secrets[j]))
		}
		for j := range r.Misconfigurations {
			list = append(list, misconfiguration(r, &r.Misconfigurations[j]))
		}
	}
	if verdicts != nil {
		list = append(list, violations(verdicts)...)
	}
	return list
}

func vulnerability(r *protocol.Result, v *protocol.Vulnerability, intel *vulndb.Intel) ledger.Sighting {
	s := ledger.Sighting{
		Class: ledger.Vulnerability, ID: v.ID, Aliases: v.Aliases,
		Type: r.Type, Package: v.Package, Installed: []string{v.Installed}, Fixed: versions(v.Fixed), Status: v.Status,
		Severity: ledger.SeverityOf(v.Severity), SeveritySource: v.SeveritySource,
		Title: v.Title, URL: v.URL, References: v.References, DataSource: v.DataSource, Layer: v.Layer,
	}
	if v.PURL != "" {
		s.PURLs = []string{v.PURL}
	}
	if s.Title == "" {
		s.Title, _, _ = strings.Cut(v.Description, "\n")
	}
	switch {
	case v.Path != "":
		s.Paths = []string{v.Path}
	case r.Class != protocol.ClassOS && r.Target != "":
		s.Paths = []string{r.Target}
	}
	if v.Published != nil {
		s.Published = *v.Published
	}
	if score, source := v.Score(); score > 0 {
		c := v.CVSS[source]
		s.CVSS = &ledger.CVSS{Score: score, Source: source, Vector: c.Vector()}
	}
	if intel != nil {
		exploitation(&s, intel)
	}
	return s
}

// versions splits the versions that mend something, of which there may be one for
// each branch.
func versions(list string) (out []string) {
	for v := range strings.SplitSeq(list, ",") {
		if v = strings.TrimSpace(v); v != "" && !slices.Contains(out, v) {
			out = append(out, v)
		}
	}
	return out
}

// exploitation adds what is known of exploits, by the id of the vulnerability or
// by another name of it: both catalogues know CVE numbers alone.
func exploitation(s *ledger.Sighting, intel *vulndb.Intel) {
	_, modelled := intel.Dates()
	for _, id := range append([]string{s.ID}, s.Aliases...) {
		if !strings.HasPrefix(id, "CVE-") {
			continue
		}
		if k, ok := intel.KEV(id); ok && s.KEV == nil {
			s.KEV = &ledger.KEV{Added: k.Added, Due: k.Due, Ransomware: k.Ransomware}
		}
		if p, ok := intel.EPSS(id); ok && (s.EPSS == nil || p.Score > s.EPSS.Score) {
			s.EPSS = &ledger.EPSS{Score: p.Score, Percentile: p.Percentile, Date: modelled}
		}
	}
}

func secret(r *protocol.Result, f *protocol.Secret) ledger.Sighting {
	return ledger.Sighting{
		Class: ledger.Secret, ID: f.Rule, Category: f.Category, Title: f.Title, Severity: ledger.SeverityOf(f.Severity),
		Paths: []string{r.Target}, StartLine: f.StartLine, EndLine: f.EndLine, Match: f.Match, Layer: f.Layer,
		Resolution: "Take it out of the file, and have whoever issued it replace it: whoever could read the file may have it.",
	}
}

func misconfiguration(r *protocol.Result, m *protocol.Misconfiguration) ledger.Sighting {
	return ledger.Sighting{
		Class: ledger.Misconfiguration, ID: m.ID, Aliases: m.Aliases, Type: r.Type, Title: m.Title, Message: m.Message,
		Resolution: m.Resolution, Severity: ledger.SeverityOf(m.Severity), Paths: []string{r.Target},
		StartLine: m.StartLine, EndLine: m.EndLine, Resource: m.Resource, URL: m.URL, References: m.References, Layer: m.Layer,
	}
}

// violations are the licences that the policy does not simply allow.
func violations(v *license.Verdicts) (list []ledger.Sighting) {
	for i := range v.Verdicts {
		d := &v.Verdicts[i]
		var severity ledger.Severity
		switch d.Outcome {
		case license.Allow:
			continue
		case license.Deny:
			severity = ledger.High
		default:
			severity = ledger.Medium
		}
		s := ledger.Sighting{
			Class: ledger.License, ID: cmp.Or(d.License, "unlicensed"), Type: d.Type, Package: d.Package, Category: d.Outcome.String(),
			Severity: severity, Title: d.Outcome.String(), Message: d.Reason, Paths: d.Places,
		}
		if d.PURL != "" {
			s.PURLs = []string{d.PURL}
		}
		if d.Version != "" {
			s.Installed = []string{d.Version}
		}
		list = append(list, s)
	}
	return list
}
