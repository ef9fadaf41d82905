package sla

import (
	"context"
	"testing"
	"time"

	"github.com/mobileops/mobileops/internal/finding"
	"github.com/mobileops/mobileops/internal/state"
)

// ledger is that of this host.
var ledger = Ledger{Policy: DefaultPolicy()}

func update(t *testing.T, s *state.Store, fn func(tx *state.Tx) error) {
	t.Helper()
	if err := s.Update(context.Background(), fn); err != nil {
		t.Fatal(err)
	}
}

func observe(t *testing.T, store *state.Store, s Survey, now time.Time) (c Changes) {
	t.Helper()
	update(t, store, func(tx *state.Tx) (err error) {
		c, err = ledger.Observe(tx, s, now)
		return err
	})
	return c
}

func list(t *testing.T, store *state.Store, f Filter, now time.Time) (out []Entry) {
	t.Helper()
	if err := store.View(context.Background(), func(tx *state.Tx) (err error) {
		out, err = ledger.List(tx, f, now)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return out
}

// advisories makes a survey of packages with these advisories.
func advisories(list ...Advisory) Survey {
	for i := range list {
		list[i].Source, list[i].Name = SourcePackage, "platform"
	}
	return Survey{Source: SourcePackage, Advisories: list}
}

func TestDeadlinesToTheSecond(t *testing.T) {
	store := state.New(t.TempDir(), state.Options{})
	observe(t, store, advisories(
		Advisory{Advisory: "CVE-1", Severity: Critical}, Advisory{Advisory: "CVE-2", Severity: High}, Advisory{Advisory: "CVE-3", Severity: Medium},
		Advisory{Advisory: "CVE-4", Severity: Low}, Advisory{Advisory: "CVE-5", Severity: "HIGH"}, Advisory{Advisory: "CVE-6", Severity: "rather bad"}), noon)
	for _, c := range []struct {
		at      time.Duration
		overdue int
	}{{0, 0}, {30*day - 1, 0}, {30 * day, 0}, {30*day + 1, 4}, {90 * day, 4}, {90*day + 1, 5}, {10000 * day, 5}, {-50 * day, 0}} {
		if got := list(t, store, Filter{States: []State{Overdue}}, noon.Add(c.at)); len(got) != c.overdue {
			t.Errorf("%d are overdue after %s, not %d", len(got), c.at, c.overdue)
		}
	}
	for _, c := range []struct {
		at, within time.Duration
		listed     int
	}{{0, 29 * day, 0}, {0, 30 * day, 4}, {23 * day, 7*day - 1, 0}, {23 * day, 7 * day, 4}, {31 * day, time.Hour, 4}} {
		if got := list(t, store, Filter{Within: c.within}, noon.Add(c.at)); len(got) != c.listed {
			t.Errorf("%d are due within %s after %s, not %d", len(got), c.within, c.at, c.listed)
		}
	}
	// A shorter deadline holds for what is known already.
	update(t, store, func(tx *state.Tx) error {
		p := DefaultPolicy()
		p.Critical = 7 * day
		got, err := Ledger{Policy: p}.List(tx, Filter{States: []State{Overdue}}, noon.Add(7*day+1))
		if err == nil && (len(got) != 1 || got[0].Advisory.Advisory != "CVE-1") {
			t.Errorf("%+v", got)
		}
		return err
	})
}

func TestFixedInTimeOrLate(t *testing.T) {
	for _, c := range []struct {
		at   time.Duration
		want Outcome
	}{{0, InTime}, {30 * day, InTime}, {30*day + time.Second, Late}} {
		store := state.New(t.TempDir(), state.Options{})
		observe(t, store, advisories(Advisory{Advisory: "CVE-1", Severity: High}), noon)
		if got := observe(t, store, advisories(), noon.Add(c.at)); got != (Changes{Fixed: 1}) {
			t.Errorf("%+v", got)
		}
		e := list(t, store, Filter{}, noon.Add(500*day))[0]
		if e.State != Fixed || e.Outcome != c.want || !e.Due.Equal(noon.Add(30*day)) {
			t.Errorf("after %s: %+v", c.at, e.Record)
		}
	}
}

func TestOnlyACompleteSurveyFixes(t *testing.T) {
	store := state.New(t.TempDir(), state.Options{})
	observe(t, store, advisories(Advisory{Advisory: "CVE-1", Severity: High}, Advisory{Advisory: "CVE-2", Severity: High}), noon)
	partial, skipped, other := advisories(Advisory{Advisory: "CVE-1", Severity: High}), advisories(), advisories()
	partial.Problems = []string{"a repository could not be read"}
	skipped.Skipped = "there is none"
	other.Source = SourceApt
	unnamed := advisories(Advisory{Advisory: "CVE 1"})
	for _, s := range []Survey{partial, skipped, other, unnamed} {
		if c := observe(t, store, s, noon.Add(time.Hour)); c != (Changes{}) {
			t.Errorf("%+v changed %+v", s, c)
		}
	}
	update(t, store, func(tx *state.Tx) error {
		sources, err := ledger.Sources(tx)
		if err != nil || len(sources) != 2 {
			t.Fatal(sources, err)
		}
		if s := sources[1]; s.State != "incomplete" || !s.Complete.Equal(noon) || !s.Looked.Equal(noon.Add(time.Hour)) || len(s.Problems) != 1 {
			t.Errorf("%+v", s)
		}
		return nil
	})
	if c := observe(t, store, advisories(), noon.Add(time.Hour)); c != (Changes{Fixed: 2}) {
		t.Errorf("%+v", c)
	}
	if c := observe(t, store, advisories(Advisory{Advisory: "CVE-1", Severity: High}), noon.Add(40*day)); c != (Changes{Again: 1}) {
		t.Errorf("%+v", c)
	}
	if e := list(t, store, Filter{States: []State{Overdue}}, noon.Add(40*day)); len(e) != 1 || !e[0].FirstKnown.Equal(noon) {
		t.Errorf("what comes back has a new deadline: %+v", e)
	}
}

func TestAClockThatGoesBack(t *testing.T) {
	store := state.New(t.TempDir(), state.Options{})
	published := noon.Add(-10 * day)
	s := advisories(Advisory{Advisory: "CVE-1", Severity: High, Published: published}, Advisory{Advisory: "CVE-2", Severity: High})
	known := func(want1, want2 time.Time) {
		t.Helper()
		for i, e := range list(t, store, Filter{}, noon)[:2] {
			want := map[string]time.Time{"CVE-1": want1, "CVE-2": want2}[e.Advisory.Advisory]
			if !e.FirstKnown.Equal(want) {
				t.Errorf("%d: first known is %s, not %s", i, e.FirstKnown, want)
			}
		}
	}
	ahead := noon.Add(1000 * day)
	observe(t, store, s, ahead)
	known(ahead, ahead)
	observe(t, store, s, noon)
	known(noon, noon)
	observe(t, store, s, ahead)
	known(noon, noon)
	observe(t, store, s, noon.Add(-time.Hour))
	known(noon.Add(-time.Hour), noon.Add(-time.Hour))
	// A board without a clock: nothing is known before it was published.
	observe(t, store, s, time.Unix(0, 0))
	known(published, time.Unix(0, 0))
	// A publisher who changes the date later moves nothing.
	s.Advisories[0].Published = noon.Add(20 * day)
	observe(t, store, s, noon)
	known(published, time.Unix(0, 0))
	if e := list(t, store, Filter{}, noon); !e[1].Published.Equal(published) {
		t.Errorf("published is %s", e[1].Published)
	}
}

func TestOneAdvisoryTwice(t *testing.T) {
	store := state.New(t.TempDir(), state.Options{})
	observe(t, store, advisories(Advisory{Advisory: "CVE-1", Severity: Low, Packages: []string{"b"}}, Advisory{Advisory: "CVE-1", Severity: Critical, Packages: []string{"a", "b"}}), noon)
	e := list(t, store, Filter{}, noon)
	if len(e) != 1 || e[0].Severity != Critical || len(e[0].Packages) != 2 {
		t.Errorf("%+v", e)
	}
}

func TestCount(t *testing.T) {
	store := state.New(t.TempDir(), state.Options{})
	observe(t, store, advisories(Advisory{Advisory: "CVE-1", Severity: High}, Advisory{Advisory: "CVE-2", Severity: High}, Advisory{Advisory: "CVE-3", Severity: High}, Advisory{Advisory: "CVE-4", Severity: Low}), noon)
	observe(t, store, advisories(Advisory{Advisory: "CVE-2", Severity: High}, Advisory{Advisory: "CVE-3", Severity: High}, Advisory{Advisory: "CVE-4", Severity: Low}), noon.Add(10*day))
	observe(t, store, advisories(Advisory{Advisory: "CVE-3", Severity: High}, Advisory{Advisory: "CVE-4", Severity: Low}), noon.Add(40*day))
	stats := Count(list(t, store, Filter{}, noon.Add(40*day)))
	if len(stats) != 3 || stats[0].Severity != High || stats[1].Severity != Low || stats[2].Severity != "" {
		t.Fatalf("%+v", stats)
	}
	high := stats[0]
	if high.InTime != 1 || high.Late != 1 || high.Overdue != 1 || int(*high.Percent) != 33 || *high.MeanDays != 25 || *high.MaxDays != 40 {
		t.Errorf("%+v", high)
	}
	if low := stats[1]; low.Pending != 1 || low.Percent != nil || low.MeanDays != nil {
		t.Errorf("%+v", low)
	}
}

func TestTreesDoNotMix(t *testing.T) {
	store := state.New(t.TempDir(), state.Options{})
	image := Ledger{Root: "/mnt/image/", Policy: DefaultPolicy()}
	observe(t, store, advisories(Advisory{Advisory: "CVE-1", Severity: High}), noon)
	update(t, store, func(tx *state.Tx) error {
		if c, err := image.Observe(tx, advisories(Advisory{Advisory: "CVE-2", Severity: High}), noon); err != nil || c != (Changes{New: 1}) {
			t.Errorf("%+v %v", c, err)
		}
		found, err := image.Findings(tx, noon.Add(31*day))
		if err != nil || len(found) != 1 || found[0].Subject != "package/platform/CVE-2 in /mnt/image" {
			t.Errorf("%+v %v", found, err)
		}
		for _, l := range []Ledger{image, ledger} {
			if _, err := l.Report(tx, noon.Add(31*day)); err != nil {
				t.Error(err)
			}
		}
		open, err := finding.List(tx, finding.Filter{States: []finding.State{finding.Open}}, noon)
		if err != nil || len(open) != 2 {
			t.Errorf("%d findings are open (%v)", len(open), err)
		}
		return nil
	})
	if e := list(t, store, Filter{}, noon); len(e) != 1 || e[0].Advisory.Advisory != "CVE-1" || e[0].State != Pending {
		t.Errorf("%+v", e)
	}
}
