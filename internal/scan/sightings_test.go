package scan

import (
	"reflect"
	"testing"
	"time"

	"github.com/mobileops/mobileops/internal/scan/ledger"
	"github.com/mobileops/mobileops/internal/scan/license"
	"github.com/mobileops/mobileops/internal/scan/protocol"
)

func TestSightingsHaveWhatTheReportSays(t *testing.T) {
	published := time.Date(2026, 5, 1, 0, 0, 0, 0, time.UTC)
	report := &protocol.Report{Results: []protocol.Result{
		{Target: "debian 12.11", Class: protocol.ClassOS, Type: "debian", Vulnerabilities: []protocol.Vulnerability{{
			ID: "CVE-2026-1", Aliases: []string{"DSA-1"}, Package: "openssl", PURL: "pkg:deb/debian/openssl@3", Installed: "3", Fixed: "3.1, 2.9,3.1", Status: "fixed", Severity: "HIGH",
			Description: "first line\nsecond", CVSS: map[string]protocol.CVSS{"nvd": {V3Score: 7.5, V3Vector: "CVSS:3.1/x"}, "vendor": {V2Score: 9}}, Published: &published,
		}}},
		{Target: "app/package-lock.json", Class: protocol.ClassLanguage, Type: "npm", Vulnerabilities: []protocol.Vulnerability{{ID: "GHSA-1", Package: "lodash", Installed: "4", Severity: "whatever"}}},
		{Target: "app.ini", Class: protocol.ClassSecret, Secrets: []protocol.Secret{{Rule: "aws", Severity: "CRITICAL", StartLine: 3, EndLine: 3, Match: "key = ***"}}},
		{Target: "Dockerfile", Class: protocol.ClassConfig, Type: "dockerfile", Misconfigurations: []protocol.Misconfiguration{{ID: "DS-0002", Severity: "HIGH", Message: "no USER", Resource: "r"}}},
	}}
	verdicts := &license.Verdicts{Verdicts: []license.Verdict{
		{Subject: license.Subject{Package: "a", Version: "1", License: "MIT"}, Outcome: license.Allow},
		{Subject: license.Subject{Package: "b", Version: "2", Places: []string{"lib/b"}}, Outcome: license.Deny, Reason: "nothing says anything"},
		{Subject: license.Subject{Package: "c", License: "GPL-3.0-only"}, Outcome: license.Review},
	}}
	got := sightings(report, verdicts, nil)
	want := []ledger.Sighting{
		{
			Class: ledger.Vulnerability, ID: "CVE-2026-1", Aliases: []string{"DSA-1"}, Type: "debian", Package: "openssl", PURLs: []string{"pkg:deb/debian/openssl@3"}, Installed: []string{"3"},
			Fixed: []string{"3.1", "2.9"}, Status: "fixed", Severity: ledger.High, Title: "first line", CVSS: &ledger.CVSS{Score: 7.5, Source: "nvd", Vector: "CVSS:3.1/x"}, Published: published,
		},
		{Class: ledger.Vulnerability, ID: "GHSA-1", Type: "npm", Package: "lodash", Installed: []string{"4"}, Severity: ledger.Unknown, Paths: []string{"app/package-lock.json"}},
		{Class: ledger.Secret, ID: "aws", Severity: ledger.Critical, Paths: []string{"app.ini"}, StartLine: 3, EndLine: 3, Match: "key = ***", Resolution: got[2].Resolution},
		{Class: ledger.Misconfiguration, ID: "DS-0002", Type: "dockerfile", Severity: ledger.High, Message: "no USER", Resource: "r", Paths: []string{"Dockerfile"}},
		{Class: ledger.License, ID: "unlicensed", Package: "b", Installed: []string{"2"}, Paths: []string{"lib/b"}, Category: "deny", Title: "deny", Message: "nothing says anything", Severity: ledger.High},
		{Class: ledger.License, ID: "GPL-3.0-only", Package: "c", Category: "review", Title: "review", Severity: ledger.Medium},
	}
	if len(got) != len(want) {
		t.Fatalf("%d sightings, want %d: %+v", len(got), len(want), got)
	}
	for i := range want {
		if !reflect.DeepEqual(got[i], want[i]) {
			t.Errorf("sighting %d:\n%+v, want\n%+v", i, got[i], want[i])
		}
	}
}

// TestScoreIsThatOfTheNewestVersion: a score of an older version of CVSS counts only
// when there is none of a newer one.
func TestScoreIsThatOfTheNewestVersion(t *testing.T) {
	for _, c := range []struct {
		cvss   map[string]protocol.CVSS
		score  float64
		source string
	}{
		{nil, 0, ""},
		{map[string]protocol.CVSS{"nvd": {V2Score: 10}}, 10, "nvd"},
		{map[string]protocol.CVSS{"nvd": {V2Score: 10, V3Score: 5}, "ghsa": {V3Score: 5}}, 5, "ghsa"},
		{map[string]protocol.CVSS{"nvd": {V3Score: 9.8}, "ghsa": {V40Score: 6.9}}, 6.9, "ghsa"},
	} {
		v := protocol.Vulnerability{CVSS: c.cvss}
		if score, source := v.Score(); score != c.score || source != c.source {
			t.Errorf("%v: %v by %q, want %v by %q", c.cvss, score, source, c.score, c.source)
		}
	}
}
