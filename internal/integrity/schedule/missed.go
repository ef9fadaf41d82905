package schedule

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/mobileops/mobileops/internal/finding"
	"github.com/mobileops/mobileops/internal/state"
)

// Rule is the rule of the findings about schedules that were missed, and Scope
// the name under which they are kept.
const (
	Rule  = "schedule-missed"
	Scope = "schedules"
)

// Run is a comparison that came to its end.
type Run struct {
	Baseline string
	Verify   bool
	At       time.Time // when it began
}

// Gap is a schedule that did not run.
type Gap struct {
	Schedule *Schedule
	Last     time.Time // when it last ran; zero: not since it was made
	Due      time.Time // when the run that is missing was to have begun
}

// tolerance is how long after its time a run is waited for: it may wait for
// another one, it takes a while, and the clock may be put back by an hour.
func tolerance(period time.Duration) time.Duration {
	return min(max(period/8, 10*time.Minute), 3*time.Hour)
}

// clockSlack is how far ahead of the clock a run may seem to be. One that is
// further ahead was noted before the clock was set back, and says nothing
// about when the next one is due.
const clockSlack = 5 * time.Minute

// Missed returns the schedules that did not run for longer than their period,
// jitter and a tolerance. A verify does what a check does; it counts as both.
func Missed(list []Schedule, runs []Run, now time.Time) []Gap {
	var gaps []Gap
	for n := range list {
		s := &list[n]
		g := Gap{Schedule: s, Last: s.lastRun(runs, now)}
		since := g.Last
		if since.IsZero() || since.Before(s.Installed) && !s.Installed.After(now) {
			since = s.Installed
		}
		if since.After(now.Add(clockSlack)) {
			continue
		}
		if now.Sub(since) <= s.Timing.Period+s.Jitter+tolerance(s.Timing.Period) {
			continue
		}
		g.Due = s.Next(since.In(now.Location()))
		gaps = append(gaps, g)
	}
	return gaps
}

// lastRun returns when what the schedule does was last done, by it or by hand.
func (s *Schedule) lastRun(runs []Run, now time.Time) (last time.Time) {
	for _, r := range runs {
		if r.Baseline == s.Baseline && (r.Verify || !s.Verify) && r.At.After(last) && !r.At.After(now.Add(clockSlack)) {
			last = r.At
		}
	}
	return last
}

// LastRun returns when what a schedule does was last done, by it or by hand;
// zero when never.
func LastRun(s *Schedule, runs []Run, now time.Time) time.Time { return s.lastRun(runs, now) }

// finding says in the common vocabulary that a schedule was missed.
func (g *Gap) finding(source string, now time.Time) finding.Finding {
	last := "never since it was made"
	if !g.Last.IsZero() {
		last = g.Last.UTC().Format(time.RFC3339)
	}
	where := "systemctl list-timers " + g.Schedule.Timer() + "; journalctl -u " + g.Schedule.unit()
	if g.Schedule.Via == Cron {
		where = "whether cron runs, and its log about " + cronDir + "/" + g.Schedule.unit()
	}
	return finding.Finding{
		Source: source, Rule: Rule, Severity: finding.Medium, Subject: g.Schedule.Name, Observed: now,
		Title:       fmt.Sprintf("Integrity %s of baseline %s did not run as scheduled", g.Schedule.Mode(), g.Schedule.Baseline),
		Evidence:    map[string]string{"schedule": g.Schedule.Timing.String(), "last": last, "due": g.Due.UTC().Format(time.RFC3339)},
		Remediation: "See why: " + where + ". A run resolves this: mobileops integrity " + g.Schedule.Mode() + " --name " + g.Schedule.Baseline,
		Tags:        []string{"file-integrity", "schedule"},
	}
}

// reportedKey is where in the bucket the names of the schedules stand of which
// the findings say that they were missed. No schedule can have that name.
var reportedKey = []byte("\x00missed")

// Report brings the findings of a source up to date with what is missed now:
// what was missed and has run since is resolved. When Reported names the same
// ones already, nothing need be written.
func Report(tx *state.Tx, source string, gaps []Gap, now time.Time) error {
	found := make([]finding.Finding, len(gaps))
	for n := range gaps {
		found[n] = gaps[n].finding(source, now)
	}
	if _, err := finding.Report(tx, source, Scope, found, now); err != nil {
		return err
	}
	b, err := tx.CreateBucketIfNotExists(bucket)
	if err != nil {
		return err
	}
	v, err := json.Marshal(Names(gaps))
	if err != nil {
		return err
	}
	return b.Put(reportedKey, v)
}

// Reported returns the names of the schedules of which the stored findings say
// that they were missed, in their order.
func Reported(tx *state.Tx) (names []string, err error) {
	if b := tx.Bucket(bucket); b != nil {
		if v := b.Get(reportedKey); v != nil {
			err = json.Unmarshal(v, &names)
		}
	}
	return names, err
}

// Names returns the names of the schedules that were missed.
func Names(gaps []Gap) []string {
	names := make([]string, len(gaps))
	for n := range gaps {
		names[n] = gaps[n].Schedule.Name
	}
	slices.Sort(names)
	return names
}
