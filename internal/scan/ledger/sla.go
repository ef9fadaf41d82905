package ledger

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/mobileops/mobileops/internal/finding"
	"github.com/mobileops/mobileops/internal/state"
)

// Basis is from when deadlines of vulnerabilities are counted.
type Basis string

// The bases.
const (
	FromFix       Basis = "fix-available" // since a fixed version was known here
	FromFirstSeen Basis = "first-seen"
)

// Policy says until when what scans find has to be mended, and who may waive it.
// A time of 0 means for ever. What has an unknown severity is due like high.
// Everything but vulnerabilities is counted from when it was first seen.
type Policy struct {
	Basis                       Basis // "": FromFix
	Critical, High, Medium, Low time.Duration
	// KEV: the date that CISA gives counts where it is earlier, fix or not.
	KEV bool
	// Soon is how long before its end a deadline is DueSoon; 0: a week.
	Soon time.Duration
	// Approval: a waiver is in force only when a second person approved it.
	Approval bool
}

// Within returns how long items of a severity may stay; 0: for ever.
func (p Policy) Within(s Severity) time.Duration {
	switch s {
	case Critical:
		return p.Critical
	case Medium:
		return p.Medium
	case Low:
		return p.Low
	}
	return p.High
}

// due returns when a record that has been decoded is due; zero: never.
func (p Policy) due(r *record) time.Time {
	s, err := r.last()
	if err != nil {
		return time.Time{}
	}
	t, _ := p.deadline(s, r.FirstSeen, r.FixSince)
	return t
}

// deadline returns when an item is due, and from what that follows.
func (p Policy) deadline(s *Sighting, firstSeen, fixSince time.Time) (due time.Time, from string) {
	if s.Expected != "" {
		return
	}
	start := firstSeen
	from = "first seen on " + start.Format(time.DateOnly)
	if s.Class == Vulnerability && p.Basis != FromFirstSeen {
		if start = fixSince; len(s.Fixed) == 0 {
			start = time.Time{}
		}
		from = "fix known here since " + start.Format(time.DateOnly)
	}
	if within := p.Within(s.Severity); within > 0 && !start.IsZero() {
		due = start.Add(within)
	}
	if k := s.KEV; p.KEV && k != nil && !k.Due.IsZero() {
		if end := endOfDay(k.Due); due.IsZero() || end.Before(due) {
			due, from = end, "due date of CISA's KEV catalogue"
		}
	}
	if due.IsZero() {
		from = ""
	}
	return due, from
}

// Outcome says of a resolved item whether that was in time.
type Outcome string

// The outcomes.
const (
	InTime      Outcome = "in-time"
	Late        Outcome = "late"
	UnderWaiver Outcome = "under-waiver" // after it was due, but waived, or excluded by VEX
)

// DueState says how an item stands to its deadline.
type DueState string

// The states of deadlines.
const (
	Overdue     DueState = "overdue"
	DueSoon     DueState = "due-soon"
	Due         DueState = "due"
	NoFix       DueState = "no-fix" // nothing is due before there is a fix
	DueWaived   DueState = "waived"
	DueExcluded DueState = "not-affected" // or fixed, by VEX
	DueNever    DueState = "never"        // the policy has no time for it
	DueResolved DueState = "resolved"
)

// DueStates returns all states in the order in which they are shown.
func DueStates() []DueState {
	return []DueState{Overdue, DueSoon, Due, NoFix, DueWaived, DueExcluded, DueNever, DueResolved}
}

// Deadline is an item and until when it has to be mended.
type Deadline struct {
	Item
	DueState DueState  `json:"due_state"`
	Due      time.Time `json:"due,omitzero"`       // zero: never
	From     string    `json:"due_from,omitempty"` // from what that follows
}

// Left returns how long there is until an item is due, negative when it is overdue;
// false when it never is.
func (d *Deadline) Left(now time.Time) (time.Duration, bool) {
	if d.Due.IsZero() {
		return 0, false
	}
	return d.Due.Sub(now), true
}

// of returns how an item stands to its deadline.
func (p Policy) of(i Item, now time.Time) Deadline {
	d := Deadline{Item: i}
	d.Due, d.From = p.deadline(&i.Sighting, i.FirstSeen, i.FixSince)
	soon := p.Soon
	if soon == 0 {
		soon = 7 * day
	}
	switch {
	case i.State == Resolved:
		d.DueState, d.Due = DueResolved, i.ResolvedDue
	case i.State == Waived:
		d.DueState = DueWaived
	case i.State == Expected:
		d.DueState = DueNever
	case i.State != Open:
		d.DueState = DueExcluded
	case d.Due.IsZero() && i.Class == Vulnerability && p.Basis != FromFirstSeen && len(i.Fixed) == 0 && p.Within(i.Severity) > 0:
		d.DueState = NoFix
	case d.Due.IsZero():
		d.DueState = DueNever
	case now.After(d.Due):
		d.DueState = Overdue
	case d.Due.Sub(now) <= soon:
		d.DueState = DueSoon
	default:
		d.DueState = Due
	}
	return d
}

// SLA returns the items that pass a filter with their deadlines: by when they are
// due, those that never are last.
func (l Ledger) SLA(tx *state.Tx, f Filter, now time.Time) ([]Deadline, error) {
	items, err := l.List(tx, f, now)
	if err != nil {
		return nil, err
	}
	list := make([]Deadline, len(items))
	for n := range items {
		list[n] = l.Policy.of(items[n], now)
	}
	slices.SortStableFunc(list, func(a, b Deadline) int { // items come in order of urgency
		return cmp.Or(
			boolFirst(a.DueState != DueResolved, b.DueState != DueResolved),
			boolFirst(!a.Due.IsZero(), !b.Due.IsZero()),
			a.Due.Compare(b.Due),
			cmp.Compare(slices.Index(DueStates(), a.DueState), slices.Index(DueStates(), b.DueState)),
		)
	})
	return list, nil
}

// Statistics says for the items of one severity, or all, how they stand.
type Statistics struct {
	Severity    Severity `json:"severity,omitempty"` // "": all
	InTime      int      `json:"in_time"`            // resolved until they were due
	Late        int      `json:"late"`               // resolved after that
	UnderWaiver int      `json:"under_waiver"`       // resolved after that, while waived or excluded
	Overdue     int      `json:"overdue"`
	Pending     int      `json:"pending"` // due, or due soon
	NoFix       int      `json:"no_fix"`
	Waived      int      `json:"waived"`
	Excluded    int      `json:"not_affected"`
	// Percent of those of which it is decided, that is in time, late or overdue,
	// that were in time; nil when there are none.
	Percent *float64 `json:"percent_in_time"`
	// MeanDays and MaxDays are from first seen, or come back, to resolved; nil when
	// none is.
	MeanDays *float64 `json:"mean_days"`
	MaxDays  *float64 `json:"max_days"`
}

// Count sums up deadlines: of each severity that is among them, the most severe
// first, and of all together, which come last.
func Count(list []Deadline) (out []Statistics) {
	for _, s := range Severities() {
		if c := count(list, s); c.total() > 0 {
			out = append(out, c)
		}
	}
	return append(out, count(list, ""))
}

func (s *Statistics) total() int {
	return s.InTime + s.Late + s.UnderWaiver + s.Overdue + s.Pending + s.NoFix + s.Waived + s.Excluded
}

func count(list []Deadline, only Severity) Statistics {
	c := Statistics{Severity: only}
	var sum, longest float64
	done := 0
	for n := range list {
		d := &list[n]
		if only != "" && d.Severity != only {
			continue
		}
		switch d.DueState {
		case Overdue:
			c.Overdue++
		case Due, DueSoon:
			c.Pending++
		case NoFix:
			c.NoFix++
		case DueWaived:
			c.Waived++
		case DueExcluded:
			c.Excluded++
		case DueResolved:
			switch d.Outcome {
			case InTime:
				c.InTime++
			case Late:
				c.Late++
			case UnderWaiver:
				c.UnderWaiver++
			}
			took := max(0, d.ResolvedAt.Sub(later(d.FirstSeen, d.ReopenedAt)).Hours()/24)
			sum, longest, done = sum+took, max(longest, took), done+1
		}
	}
	if decided := c.InTime + c.Late + c.Overdue; decided > 0 {
		percent := 100 * float64(c.InTime) / float64(decided)
		c.Percent = &percent
	}
	if done > 0 {
		mean := sum / float64(done)
		c.MeanDays, c.MaxDays = &mean, &longest
	}
	return c
}

// The rule of findings about what is overdue, and how their scopes begin.
const (
	OverdueRule  = "overdue"
	overdueScope = "sla:"
)

// Report brings the findings about what is overdue on an asset up to date: what was
// mended or waived is resolved there, what a waiver covered until now is open
// again. Nothing in them changes from one day to the next, so that one that
// somebody acknowledged stays so.
func (l Ledger) Report(tx *state.Tx, asset string, now time.Time) (finding.Summary, error) {
	list, err := l.SLA(tx, Filter{Asset: asset, States: []State{Open}}, now)
	if err != nil {
		return finding.Summary{}, err
	}
	return l.ReportDeadlines(tx, asset, list, now)
}

// ReportDeadlines is Report for whoever has the deadlines of all open items of the
// asset already: it reads none of them, so the lease is short.
func (l Ledger) ReportDeadlines(tx *state.Tx, asset string, list []Deadline, now time.Time) (finding.Summary, error) {
	var found []finding.Finding
	for n := range list {
		d := &list[n]
		if d.DueState != Overdue {
			continue
		}
		f := finding.Finding{
			Rule: OverdueRule, Severity: d.Severity.Finding(),
			Title:       fmt.Sprintf("%s in %s was due on %s", d.ID, d.Subject, d.Due.Format(time.DateOnly)),
			Subject:     ruleOf(&d.Sighting) + " " + subjectOf(asset, d.Key, d.Subject, d.Ecosystem, &d.Sighting),
			Evidence:    map[string]string{"severity": string(d.Severity), "first_seen": d.FirstSeen.Format(time.RFC3339), "due": d.Due.Format(time.RFC3339), "because": d.From},
			Remediation: findingOf(asset, d.Key, d.Subject, d.Ecosystem, &d.Sighting, now).Remediation,
			Tags:        []string{"sla", string(d.Class)},
			Observed:    now,
		}
		if d.URL != "" {
			f.References = []string{d.URL}
		}
		found = append(found, f)
	}
	return finding.Report(tx, FindingSource, scopeOf(overdueScope, asset), found, now)
}
