package integrity

import (
	"bytes"
	"context"
	"encoding/json"
	"slices"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/integrity/facts"
	"github.com/mobileops/mobileops/internal/integrity/schedule"
	"github.com/mobileops/mobileops/internal/state"
)

// Schedules returns the schedules, and the latest comparisons of each kind of
// the baselines that they are about.
func (e *Engine) Schedules(ctx context.Context) (list []schedule.Schedule, runs []schedule.Run, err error) {
	err = e.Store.View(ctx, func(tx *state.Tx) error {
		list, runs, err = schedules(tx)
		return err
	})
	return list, runs, err
}

func schedules(tx *state.Tx) ([]schedule.Schedule, []schedule.Run, error) {
	list, err := schedule.Load(tx)
	if err != nil {
		return nil, nil, err
	}
	catalogue, err := entries(tx)
	if err != nil {
		return nil, nil, err
	}
	var runs []schedule.Run
	seen := map[string]bool{}
	for i := range list {
		name := list[i].Baseline
		if seen[name] {
			continue
		}
		seen[name] = true
		i := slices.IndexFunc(catalogue, func(c Entry) bool { return c.Current && c.Name == name })
		latest, err := latestReports(tx, name, i < 0 || catalogue[i].Entries > 0)
		if err != nil {
			return nil, nil, err
		}
		for _, r := range latest {
			runs = append(runs, schedule.Run{Baseline: name, Verify: r.Verify, At: r.Last})
		}
	}
	return list, runs, nil
}

// latestReports returns the newest entry of a check and that of a verify in the
// catalogue of reports, as far as there are any, the newer first. With files,
// only those count that looked at files: a look at the network every few minutes
// is not the check of the night.
func latestReports(tx *state.Tx, name string, files bool) (latest []ReportEntry, err error) {
	b := tx.Bucket(reportsBucket)
	if b == nil {
		return nil, nil
	}
	prefix := reportPrefix(name)
	c := b.Cursor()
	// Names have no byte 1, so behind all of the name comes name, 1.
	back := c.Prev
	if k, _ := c.Seek(append([]byte(name), 1)); k == nil {
		back = c.Last
	}
	for k, v := back(); bytes.HasPrefix(k, prefix) && len(latest) < 2; k, v = c.Prev() {
		var r ReportEntry
		if err := json.Unmarshal(v, &r); err != nil {
			return nil, failure.Errorf(failure.Untrustworthy, "catalogue of reports: %w", err)
		}
		if files && !r.looked(facts.Files) {
			continue
		}
		if len(latest) == 0 || latest[0].Verify != r.Verify {
			latest = append(latest, r)
		}
	}
	return latest, nil
}

// Missed returns the schedules that did not run in time, and brings the
// findings about them up to date.
func (e *Engine) Missed(ctx context.Context, now time.Time) (gaps []schedule.Gap, err error) {
	var before []string
	err = e.Store.View(ctx, func(tx *state.Tx) error {
		list, runs, err := schedules(tx)
		if err != nil {
			return err
		}
		gaps = schedule.Missed(list, runs, now)
		before, err = schedule.Reported(tx)
		return err
	})
	if err != nil || slices.Equal(before, schedule.Names(gaps)) {
		return gaps, err
	}
	return gaps, e.Store.Update(ctx, func(tx *state.Tx) error {
		_, err := noteMissed(tx, now)
		return err
	})
}

// noteMissed brings the findings about missed schedules up to date with what
// the transaction sees. It returns those that no finding told of before.
func noteMissed(tx *state.Tx, now time.Time) ([]schedule.Gap, error) {
	list, runs, err := schedules(tx)
	if err != nil {
		return nil, err
	}
	gaps := schedule.Missed(list, runs, now)
	before, err := schedule.Reported(tx)
	if err != nil || slices.Equal(before, schedule.Names(gaps)) {
		return nil, err
	}
	if err := schedule.Report(tx, Source, gaps, now); err != nil {
		return nil, err
	}
	return slices.DeleteFunc(gaps, func(g schedule.Gap) bool { return slices.Contains(before, g.Schedule.Name) }), nil
}
