package ledger

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/mobileops/mobileops/internal/finding"
	"github.com/mobileops/mobileops/internal/state"
)

// WaiverStatus is a waiver as it stands at a moment.
type WaiverStatus struct {
	Waiver
	State   WaiverState `json:"state"`
	Matches int         `json:"matches"` // items that it accepted when they were last looked at
	// Unused: it is in force, every asset that it could concern was scanned
	// completely since it was, and it accepted nothing there.
	Unused bool `json:"unused,omitempty"`
}

// Waivers returns all waivers as they stand at now: those in force by their end,
// then those that wait, that expired, and that were taken back, the latest first.
func (l Ledger) Waivers(tx *state.Tx, now time.Time) ([]WaiverStatus, error) {
	b, err := top(tx, waiverBucket)
	if err != nil {
		return nil, err
	}
	all, err := readWaivers(b)
	if err != nil {
		return nil, err
	}
	list := make([]WaiverStatus, len(all))
	looked := make([]int, len(all)) // assets; -1: one was not scanned since
	for i, w := range all {
		list[i] = WaiverStatus{Waiver: *w, State: w.State(now)}
	}
	err = shelves(tx, "", func(s *shelf) error {
		for i, w := range all {
			if !wildcard(w.Asset, s.asset) {
				continue
			}
			for _, used := range s.about.Used {
				list[i].Matches += used[w.ID]
			}
			if w.Class != "" && s.about.Scanned[w.Class.Scanner()].IsZero() {
				continue // nothing here ever looked for it
			}
			if !s.lookedSince(w) {
				looked[i] = -1
			} else if looked[i] >= 0 {
				looked[i]++
			}
		}
		return nil
	})
	for i := range list {
		list[i].Unused = list[i].State == InForce && list[i].Matches == 0 && looked[i] > 0
	}
	order := []WaiverState{InForce, Waiting, Expired, Removed}
	slices.SortFunc(list, func(a, b WaiverStatus) int {
		byEnd := a.Until.Compare(b.Until)
		if a.State == Expired || a.State == Removed {
			byEnd = -byEnd
		}
		return cmp.Or(cmp.Compare(slices.Index(order, a.State), slices.Index(order, b.State)), byEnd, strings.Compare(a.ID, b.ID))
	})
	return list, err
}

// lookedSince reports whether the asset was scanned completely since a waiver was
// in force, by a scanner that finds what it accepts. An asset that never runs that
// scanner is none that the waiver could concern.
func (s *shelf) lookedSince(w *Waiver) bool {
	since := w.Created.At
	if w.Approved != nil {
		since = w.Approved.At
	}
	for _, c := range Classes() {
		if w.Class != "" && w.Class != c {
			continue
		}
		if _, ran := s.about.Scanned[c.Scanner()]; !ran {
			continue
		}
		if s.about.Complete[c.Scanner()].Before(since) {
			return false
		}
	}
	return true
}

// The rules of findings about waivers, and their scope.
const (
	ExpiredRule  = "waiver-expired"
	UnusedRule   = "waiver-unused"
	waiversScope = "waivers"
	// expiredFor is how long one that expired is reported: nobody has to take it
	// back.
	expiredFor = 90 * day
)

// ReportWaivers brings the findings about waivers up to date: those that expired
// (medium), and those that are in force and accept nothing (low).
func (l Ledger) ReportWaivers(tx *state.Tx, now time.Time) (finding.Summary, error) {
	list, err := l.Waivers(tx, now)
	if err != nil {
		return finding.Summary{}, err
	}
	var found []finding.Finding
	for i := range list {
		w := &list[i]
		f := finding.Finding{
			Subject:  w.ID + ": " + w.Pattern.String(),
			Evidence: map[string]string{"owner": w.Owner, "reason": w.Reason, "until": w.Until.Format(time.RFC3339)},
			Tags:     []string{"waiver"}, Observed: now,
		}
		switch {
		case w.State == Expired && now.Sub(w.Until) < expiredFor:
			f.Rule, f.Severity = ExpiredRule, finding.Medium
			f.Title = "the waiver of " + w.Pattern.String() + " expired on " + w.Until.Format(time.DateOnly)
			f.Remediation = "mend what it accepted, or waive it anew"
		case w.Unused:
			f.Rule, f.Severity = UnusedRule, finding.Low
			f.Title = "the waiver of " + w.Pattern.String() + " accepts nothing"
			f.Remediation = "take it back: mobileops scan unwaive " + w.ID + " --reason TEXT"
		default:
			continue
		}
		found = append(found, f)
	}
	return finding.Report(tx, FindingSource, waiversScope, found, now)
}
