package schedule

import (
	"slices"
	"testing"
	"time"

	"github.com/mobileops/mobileops/internal/finding"
	"github.com/mobileops/mobileops/internal/state"
)

func TestMissed(t *testing.T) {
	made := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	daily := Schedule{Name: "daily", Baseline: "default", Timing: Timing{day, 3 * time.Hour}, Jitter: 30 * time.Minute, Installed: made}
	weekly := Schedule{Name: "weekly", Baseline: "default", Verify: true, Timing: Timing{week, 3 * time.Hour}, Installed: made}
	other := Schedule{Name: "other", Baseline: "app", Timing: Timing{15 * time.Minute, 0}, Installed: made}
	list := []Schedule{daily, weekly, other}
	ran := func(baseline string, verify bool, at string) Run {
		when, err := time.Parse("01-02 15:04", at)
		if err != nil {
			t.Fatal(err)
		}
		return Run{baseline, verify, when.AddDate(2026, 0, 0)}
	}
	app := func(at string) Run { return ran("app", false, at) }
	for _, tc := range []struct {
		about, now string
		runs       []Run
		want       []string
	}{
		{"just made", "05-01 12:05", nil, nil},
		{"not due for long enough", "05-02 15:00", []Run{app("05-02 14:55")}, nil},
		{"never ran", "05-02 15:31", []Run{app("05-02 15:30")}, []string{"daily"}},
		{"every 15 minutes, one late", "05-01 12:24", nil, nil},
		{"every 15 minutes, one missing", "05-01 12:26", nil, []string{"other"}},
		{"ran this night", "05-09 15:00", []Run{app("05-09 14:50"), ran("default", false, "05-09 03:20"), ran("default", true, "05-03 03:00")}, nil},
		{"a verify is a check", "05-09 15:00", []Run{app("05-09 14:50"), ran("default", true, "05-09 03:20")}, nil},
		{"a check is no verify", "05-09 15:00", []Run{app("05-09 14:50"), ran("default", false, "05-09 03:20")}, []string{"weekly"}},
		{"of another baseline", "05-09 15:00", []Run{app("05-09 14:50"), ran("more", true, "05-09 03:20")}, []string{"daily", "weekly"}},
		{"noted before the clock was set back", "05-09 15:00", []Run{app("05-09 14:50"), ran("default", true, "06-09 03:20"), ran("default", true, "05-08 03:20")}, []string{"daily"}},
	} {
		now := ran("", false, tc.now).At
		gaps := Missed(list, tc.runs, now)
		if got := Names(gaps); !slices.Equal(got, tc.want) {
			t.Errorf("%s: missed %q, want %q", tc.about, got, tc.want)
		}
		for _, g := range gaps {
			if !g.Due.Before(now) || g.Due.IsZero() {
				t.Errorf("%s: %s was due %s", tc.about, g.Schedule.Name, g.Due)
			}
		}
	}
}

func TestMissedIsAFindingUntilItRan(t *testing.T) {
	store := state.New(t.TempDir(), state.Options{})
	s := Schedule{Name: "daily", Baseline: "default", Timing: Timing{day, 0}, Via: Cron, Installed: time.Date(2026, 5, 1, 0, 0, 0, 0, time.UTC)}
	now := s.Installed.Add(48 * time.Hour)
	step := func(runs []Run, want finding.State) {
		t.Helper()
		gaps := Missed([]Schedule{s}, runs, now)
		err := store.Update(t.Context(), func(tx *state.Tx) error {
			if err := Report(tx, "integrity", gaps, now); err != nil {
				return err
			}
			names, err := Reported(tx)
			if err != nil || !slices.Equal(names, Names(gaps)) {
				t.Errorf("%q are said to be reported: %v", names, err)
			}
			list, err := finding.List(tx, finding.Filter{}, now)
			if err != nil || len(list) != 1 || list[0].State != want || list[0].Rule != Rule || list[0].Severity != finding.Medium {
				t.Errorf("%v, %v", list, err)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	step(nil, finding.Open)
	step(nil, finding.Open)
	step([]Run{{"default", false, now}}, finding.Resolved)
	step(nil, finding.Open)
}
