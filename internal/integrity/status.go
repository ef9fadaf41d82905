package integrity

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/mobileops/mobileops/internal/finding"
	"github.com/mobileops/mobileops/internal/integrity/history"
	"github.com/mobileops/mobileops/internal/integrity/schedule"
	"github.com/mobileops/mobileops/internal/state"
)

// WatchLock is the name of the lock that a watch of a baseline holds for as
// long as it runs.
func WatchLock(name string) string { return "watch-" + name }

// Status says how the watch over the files of this host stands. It is made from
// the catalogue alone: no baseline is opened, and nothing is verified.
type Status struct {
	At        time.Time
	Baselines []BaselineStatus // the current one of each name
	// Other are open findings of the engine that are about no baseline, such as
	// those about the history, without those about missed schedules.
	Other map[finding.Severity]int
	// Strays are schedules about baselines that there are none of.
	Strays []ScheduleStatus
}

// BaselineStatus says how things stand with the current baseline of a name.
type BaselineStatus struct {
	Entry  Entry
	Former int // older baselines of that name that are kept
	// Record is the one in the history that made it the current one; nil when
	// the history does not know it. Signed tells whether a signature covers the
	// record; that the signature is right, verify and integrity history say.
	Record *history.Record
	Signed bool

	Check  *ReportEntry // the last check; nil: none is remembered
	Verify *ReportEntry // the last verify
	// OldestRead is when the file that was not read for the longest time was
	// really read.
	OldestRead time.Time

	Open         map[finding.Severity]int // open findings about it
	Acknowledged int

	Schedules []ScheduleStatus
	Watch     *state.Holder // who watches it; nil: nobody
	Running   *state.Holder // who takes, checks or verifies it at this moment
}

// ScheduleStatus says how things stand with a schedule.
type ScheduleStatus struct {
	schedule.Schedule
	Last   time.Time            // when what it does was last done; zero: never
	Files  []schedule.FileState // of the files of the schedule, in their order
	Missed *schedule.Gap        // nil: it ran when it was to
}

// Last returns the newest report about the baseline, nil when there is none.
func (b *BaselineStatus) Last() *ReportEntry {
	if b.Check == nil || b.Verify != nil && b.Verify.Last.After(b.Check.Last) {
		return b.Verify
	}
	return b.Check
}

// Status looks at the baselines of one name, or with "" of all. An unknown name
// is ErrNoBaseline, and so is a host without any.
func (e *Engine) Status(ctx context.Context, name string, now time.Time) (*Status, error) {
	if name == "" {
		list, err := e.List(ctx)
		if err != nil {
			return nil, err
		}
		if len(list) == 0 {
			_, err := find(nil, DefaultName)
			return nil, err
		}
	} else if _, err := e.Find(ctx, name); err != nil {
		return nil, err
	}
	gaps, err := e.Missed(ctx, now)
	if err != nil {
		return nil, err
	}
	s := &Status{At: now, Other: map[finding.Severity]int{}}
	var chain *history.Chain
	err = e.Store.View(ctx, func(tx *state.Tx) error {
		if err := s.baselines(tx, name, now); err != nil {
			return err
		}
		chain = history.Read(tx)
		return s.schedules(tx, name, gaps, now)
	})
	if err != nil {
		return nil, err
	}
	s.records(chain)
	for i := range s.Baselines {
		b := &s.Baselines[i]
		if h, ok := e.Store.Holder(WatchLock(b.Entry.Name)); ok {
			b.Watch = &h
		}
		if h, ok := e.Store.Holder("integrity-" + b.Entry.Name); ok {
			b.Running = &h
		}
	}
	return s, nil
}

// baselines fills in what the catalogues know.
func (s *Status) baselines(tx *state.Tx, name string, now time.Time) error {
	list, err := entries(tx)
	if err != nil {
		return err
	}
	byName := map[string]int{}
	for _, c := range list {
		if c.Current && (name == "" || c.Name == name) {
			byName[c.Name] = -1
			s.Baselines = append(s.Baselines, BaselineStatus{Entry: c, Former: -1, Open: map[finding.Severity]int{}})
		}
	}
	slices.SortFunc(s.Baselines, func(a, b BaselineStatus) int { return strings.Compare(a.Entry.Name, b.Entry.Name) })
	for i := range s.Baselines {
		b := &s.Baselines[i]
		byName[b.Entry.Name] = i
		latest, err := latestReports(tx, b.Entry.Name, b.Entry.Entries > 0)
		if err != nil {
			return err
		}
		for n := range latest {
			if latest[n].Verify {
				b.Verify = &latest[n]
			} else {
				b.Check = &latest[n]
			}
		}
		b.OldestRead = b.oldestRead()
	}
	for _, c := range list {
		if i, ok := byName[c.Name]; ok {
			s.Baselines[i].Former++
		}
	}
	return finding.Outlines(tx, now, func(f *finding.Outline) error {
		if f.Source != Source || f.State != finding.Open && f.State != finding.Acknowledged {
			return nil
		}
		names := aboutBaselines(f.Scopes)
		if len(names) == 0 && f.Rule != schedule.Rule && f.State == finding.Open {
			s.Other[f.Severity]++
		}
		for _, name := range names {
			i, ok := byName[name]
			switch {
			case !ok:
			case f.State == finding.Open:
				s.Baselines[i].Open[f.Severity]++
			default:
				s.Baselines[i].Acknowledged++
			}
		}
		return nil
	})
}

// aboutBaselines returns the names of the baselines in scopes, those of checks
// (see scope) and those of watches.
func aboutBaselines(scopes []string) (names []string) {
	for _, s := range scopes {
		rest, ok := strings.CutPrefix(s, "baseline:")
		for _, prefix := range []string{"watch:", "watch-events:"} {
			if !ok {
				rest, ok = strings.CutPrefix(s, prefix)
			}
		}
		if end := strings.IndexAny(rest, "@ "); end >= 0 {
			rest = rest[:end]
		}
		if ok && !slices.Contains(names, rest) {
			names = append(names, rest)
		}
	}
	return names
}

// oldestRead is when everything had been read for the last time: at the latest
// when the baseline was taken.
func (b *BaselineStatus) oldestRead() time.Time {
	last := b.Last()
	switch {
	case last == nil || last.BaselineID != b.Entry.ID:
		return b.Entry.Started
	case last.Verify || last.Summary.OldestRead.IsZero():
		return last.Last
	}
	return last.Summary.OldestRead
}

// schedules fills in the schedules of the baselines.
func (s *Status) schedules(tx *state.Tx, name string, gaps []schedule.Gap, now time.Time) error {
	list, runs, err := schedules(tx)
	if err != nil {
		return err
	}
	for i := range list {
		st := ScheduleStatus{Schedule: list[i], Last: schedule.LastRun(&list[i], runs, now)}
		if st.Files, err = schedule.Look(&list[i]); err != nil {
			return fmt.Errorf("schedule %s: %w", list[i].Name, err)
		}
		if at := slices.IndexFunc(gaps, func(g schedule.Gap) bool { return g.Schedule.Name == list[i].Name }); at >= 0 {
			st.Missed = &gaps[at]
		}
		at := slices.IndexFunc(s.Baselines, func(b BaselineStatus) bool { return b.Entry.Name == list[i].Baseline })
		switch {
		case at >= 0:
			s.Baselines[at].Schedules = append(s.Baselines[at].Schedules, st)
		case name == "":
			s.Strays = append(s.Strays, st)
		}
	}
	return nil
}

// records finds the record of each baseline in the history, from its end.
func (s *Status) records(chain *history.Chain) {
	missing, covered := len(s.Baselines), false
	for n := uint64(chain.Len()); n > 0 && missing > 0; n-- {
		r, err := chain.Record(n)
		if err != nil {
			return // the history is broken, which verify and integrity history tell
		}
		covered = covered || len(r.Signature) > 0
		for i := range s.Baselines {
			b := &s.Baselines[i]
			if b.Record == nil && r.ID == b.Entry.ID && r.Root == history.Digest(b.Entry.Root) {
				b.Record, b.Signed = &r.Record, covered
				missing--
			}
		}
	}
}
