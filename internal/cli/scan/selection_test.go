package scan

import (
	"slices"
	"testing"
	"time"

	engine "github.com/mobileops/mobileops/internal/scan"
	"github.com/mobileops/mobileops/internal/scan/ledger"
	"github.com/mobileops/mobileops/internal/scan/protocol"
)

// TestSeverities: one word means that and worse, several mean exactly these, and
// what nobody knows the severity of is left out only by a list.
func TestSeverities(t *testing.T) {
	for _, c := range []struct {
		given, want []string
		wrong       bool
	}{
		{nil, nil, false},
		{[]string{"HIGH"}, []string{"critical", "high", "unknown"}, false},
		{[]string{"low"}, []string{"critical", "high", "medium", "low", "unknown"}, false},
		{[]string{"high", "critical"}, []string{"high", "critical"}, false},
		{[]string{"unknown"}, []string{"unknown"}, false},
		{[]string{"bad"}, nil, true},
	} {
		o := targetOptions{severity: slices.Clone(c.given)}
		if got, err := o.severities(); !slices.Equal(got, c.want) && !c.wrong || (err != nil) != c.wrong {
			t.Errorf("%v: %v, %v; want %v", c.given, got, err, c.want)
		}
	}
}

func TestWanted(t *testing.T) {
	for _, c := range []struct {
		o    targetOptions
		want int // scanners; 0: refused
	}{
		{targetOptions{kind: protocol.Rootfs, scanners: []string{"vuln", "Secret"}}, 2},
		{targetOptions{kind: protocol.Rootfs, scanners: []string{"vuln", "vuln"}}, 1},
		{targetOptions{kind: protocol.Rootfs, scanners: []string{"vuln"}, notice: "N.txt"}, 2},
		{targetOptions{kind: protocol.Rootfs, scanners: []string{"vulns"}}, 0},
		{targetOptions{kind: protocol.Rootfs, scanners: []string{}}, 0},
		{targetOptions{kind: protocol.SBOM, scanners: []string{"secret"}}, 0},
		{targetOptions{kind: protocol.SBOM, scanners: []string{"vuln", "license"}}, 2},
	} {
		if got, err := c.o.wanted(); len(got) != c.want || (err != nil) != (c.want == 0) {
			t.Errorf("%v: %v, %v", c.o.scanners, got, err)
		}
	}
}

func TestSelection(t *testing.T) {
	began := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	item := func(change func(*ledger.Item)) *ledger.Item {
		i := &ledger.Item{State: ledger.Open, FirstSeen: began.Add(-time.Hour), Sighting: ledger.Sighting{Class: ledger.Vulnerability, Severity: ledger.High, Fixed: []string{"2"}}}
		change(i)
		return i
	}
	all := selection{}
	v := &view{Report: &engine.Report{Started: began, Changes: &ledger.Changes{Previous: began.Add(-30 * time.Minute), FirstLook: []protocol.Scanner{protocol.Secrets}}}}
	for _, c := range []struct {
		name  string
		s     selection
		i     *ledger.Item
		keeps bool
	}{
		{"all", all, item(func(*ledger.Item) {}), true},
		{"another severity", selection{severities: []string{"critical"}}, item(func(*ledger.Item) {}), false},
		{"unfixed", selection{ignoreUnfixed: true}, item(func(i *ledger.Item) { i.Fixed = nil }), false},
		{"a secret has no fix", selection{ignoreUnfixed: true}, item(func(i *ledger.Item) { i.Fixed, i.Class = nil, ledger.Secret }), true},
		{"old", selection{newOnly: true}, item(func(*ledger.Item) {}), false},
		{"new", selection{newOnly: true}, item(func(i *ledger.Item) { i.FirstSeen = began }), true},
		{"back again", selection{newOnly: true}, item(func(i *ledger.Item) { i.ReopenedAt = began }), true},
		{"open again", selection{newOnly: true}, item(func(i *ledger.Item) {
			i.Events = []ledger.Event{{At: began.Add(-time.Minute), What: ledger.StandingChanged, From: "waived", To: "open"}}
		}), true},
		{"open again, known since the scan before", selection{newOnly: true}, item(func(i *ledger.Item) {
			i.Events = []ledger.Event{{At: began.Add(-30 * time.Minute), What: ledger.StandingChanged, From: "waived", To: "open"}}
		}), false},
		{"waived", selection{newOnly: true}, item(func(i *ledger.Item) {
			i.State, i.Events = ledger.Waived, []ledger.Event{{At: began, What: ledger.StandingChanged, From: "open", To: "waived"}}
		}), false},
		{"looked for the first time", selection{newOnly: true}, item(func(i *ledger.Item) { i.FirstSeen, i.Class = began, ledger.Secret }), false},
		{"resolved", selection{states: []ledger.State{ledger.Open}}, item(func(i *ledger.Item) { i.State = ledger.Resolved }), false},
	} {
		if got := c.s.keeps(c.i, v.news(c.i) != ""); got != c.keeps {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}

// TestFails: --fail-on high counts what nobody knows the severity of.
func TestFails(t *testing.T) {
	for _, c := range []struct {
		word     string
		severity ledger.Severity
		want     bool
	}{
		{"any", ledger.Low, true}, {"critical", ledger.High, false}, {"high", ledger.High, true}, {"high", ledger.Unknown, true},
		{"high", ledger.Medium, false}, {"medium", ledger.Unknown, true}, {"unknown", ledger.Critical, false}, {"kev", ledger.Critical, false}, {"overdue", ledger.Critical, false},
	} {
		d := &ledger.Deadline{Item: ledger.Item{Sighting: ledger.Sighting{Severity: c.severity}}}
		if got := fails(d, c.word); got != c.want {
			t.Errorf("--fail-on %s of %s: %v", c.word, c.severity, got)
		}
	}
	if !fails(&ledger.Deadline{DueState: ledger.Overdue}, "overdue") || !fails(&ledger.Deadline{Item: ledger.Item{Sighting: ledger.Sighting{KEV: &ledger.KEV{}}}}, "kev") {
		t.Error("what is overdue, or exploited, does not count")
	}
}
