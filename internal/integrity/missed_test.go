package integrity

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/mobileops/mobileops/internal/finding"
	"github.com/mobileops/mobileops/internal/integrity/facts"
	"github.com/mobileops/mobileops/internal/integrity/schedule"
	"github.com/mobileops/mobileops/internal/state"
)

// TestMissedScheduleIsAFinding: a schedule that was not kept is found by any
// check, and resolved by the run that was missing.
func TestMissedScheduleIsAFinding(t *testing.T) {
	b := newBench(t, plainPolicy)
	b.put("a", "1")
	b.take()
	now := time.Now()
	daily, err := schedule.Daily("03:00")
	b.must(err)
	weekly, err := schedule.Weekly("sun@03:00")
	b.must(err)
	b.must(b.Store.Update(t.Context(), func(tx *state.Tx) error {
		bucket, err := tx.CreateBucketIfNotExists([]byte("integrity.schedules"))
		if err != nil {
			return err
		}
		for _, s := range []schedule.Schedule{
			{Name: "checks", Baseline: DefaultName, Timing: daily, Via: schedule.Cron, Root: "/", Installed: now.Add(-30 * 24 * time.Hour)},
			{Name: "verifies", Baseline: DefaultName, Verify: true, Timing: weekly, Via: schedule.Cron, Root: "/", Installed: now.Add(-30 * 24 * time.Hour)},
		} {
			v, err := json.Marshal(s)
			if err != nil {
				return err
			}
			if err := bucket.Put([]byte(s.Name), v); err != nil {
				return err
			}
		}
		return nil
	}))
	states := func() map[string]finding.State {
		got := map[string]finding.State{}
		b.must(b.Store.View(t.Context(), func(tx *state.Tx) error {
			list, err := finding.List(tx, finding.Filter{Rules: []string{schedule.Rule}}, now)
			for _, r := range list {
				got[r.Subject] = r.State
			}
			return err
		}))
		return got
	}
	gaps, err := b.Missed(t.Context(), now)
	b.must(err)
	if got := states(); len(gaps) != 2 || got["checks"] != finding.Open || got["verifies"] != finding.Open || len(got) != 2 {
		t.Fatalf("%d gaps, %v", len(gaps), got)
	}
	// A look at something else than files is not the check that was due.
	b.must(b.Store.Update(t.Context(), func(tx *state.Tx) error {
		_, err := b.putReport(tx, &ReportEntry{ID: newID(), Baseline: DefaultName, Aspects: []string{facts.Network}, Last: now})
		return err
	}))
	gaps, err = b.Missed(t.Context(), now)
	b.must(err)
	if len(gaps) != 2 {
		t.Errorf("after a look at the network: %v", gaps)
	}
	st, err := b.Status(t.Context(), "", now)
	b.must(err)
	if s := &st.Baselines[0]; s.Check != nil || !s.OldestRead.Equal(s.Entry.Started) {
		t.Errorf("the look at the network passes for %+v, and files for read at %v", s.Check, s.OldestRead)
	}
	b.compare(CompareOptions{})
	if got := states(); got["checks"] != finding.Resolved || got["verifies"] != finding.Open {
		t.Errorf("after a check: %v", got)
	}
	b.compare(CompareOptions{Verify: true})
	if got := states(); got["checks"] != finding.Resolved || got["verifies"] != finding.Resolved {
		t.Errorf("after a verify: %v", got)
	}
	// Two days later nothing has run.
	gaps, err = b.Missed(t.Context(), now.Add(48*time.Hour))
	b.must(err)
	if got := states(); len(gaps) != 1 || got["checks"] != finding.Open || got["verifies"] != finding.Resolved {
		t.Errorf("%d gaps, %v", len(gaps), got)
	}
}

// TestLatestReportsOfAName: names that begin alike are kept apart.
func TestLatestReportsOfAName(t *testing.T) {
	b := newBench(t, plainPolicy)
	entry := func(name string, verify bool, at int64) *ReportEntry {
		return &ReportEntry{ID: newID(), Baseline: name, Verify: verify, Last: time.Unix(at, 0), Digest: [32]byte{byte(at)}}
	}
	b.must(b.Store.Update(t.Context(), func(tx *state.Tx) error {
		for _, e := range []*ReportEntry{
			entry("a", true, 1), entry("a", false, 2), entry("a.b", true, 3), entry("a-b", false, 4), entry("a", false, 5), entry("b", true, 6), entry("aa", false, 7),
		} {
			if _, err := b.putReport(tx, e); err != nil {
				return err
			}
		}
		for name, want := range map[string][]int64{"a": {5, 1}, "a.b": {3}, "a-b": {4}, "b": {6}, "aa": {7}, "c": nil, "": nil} {
			latest, err := latestReports(tx, name, true)
			if err != nil {
				return err
			}
			var got []int64
			for _, r := range latest {
				got = append(got, r.Last.Unix())
			}
			if len(got) != len(want) || len(got) > 0 && got[0] != want[0] || len(got) > 1 && got[1] != want[1] {
				t.Errorf("%q: %v, want %v", name, got, want)
			}
		}
		return nil
	}))
}
