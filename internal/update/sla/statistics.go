package sla

import "time"

// Statistics says for the advisories of one severity, or all, how they stand.
type Statistics struct {
	Severity    Severity `json:"severity,omitempty"` // "": all
	InTime      int      `json:"in_time"`            // fixed until they were due
	Late        int      `json:"late"`               // fixed after that
	UnderWaiver int      `json:"under_waiver"`       // fixed after that, while a waiver was in force
	Overdue     int      `json:"overdue"`
	Waived      int      `json:"waived"`
	Pending     int      `json:"pending"`
	// Percent of those of which it is decided, that is in time, late or overdue,
	// that were in time; nil when there are none.
	Percent *float64 `json:"percent_in_time"`
	// MeanDays and MaxDays are from first known to fixed; nil when none is.
	MeanDays *float64 `json:"mean_days"`
	MaxDays  *float64 `json:"max_days"`
}

// Count sums up a list: of each severity that is in it, the most severe first,
// and of all together, which come last.
func Count(list []Entry) (out []Statistics) {
	for _, s := range Severities() {
		if c := count(list, s); c.total() > 0 {
			out = append(out, c)
		}
	}
	return append(out, count(list, ""))
}

func (s *Statistics) total() int {
	return s.InTime + s.Late + s.UnderWaiver + s.Overdue + s.Waived + s.Pending
}

func count(list []Entry, only Severity) Statistics {
	c := Statistics{Severity: only}
	var sum, longest time.Duration
	fixed := 0
	for _, e := range list {
		if only != "" && e.Severity != only {
			continue
		}
		switch e.State {
		case Overdue:
			c.Overdue++
		case Waived:
			c.Waived++
		case Pending:
			c.Pending++
		case Fixed:
			switch e.Outcome {
			case InTime:
				c.InTime++
			case Late:
				c.Late++
			case UnderWaiver:
				c.UnderWaiver++
			}
			took := max(0, e.FixedAt.Sub(e.FirstKnown))
			sum, longest, fixed = sum+took/time.Second, max(longest, took), fixed+1
		}
	}
	if decided := c.InTime + c.Late + c.Overdue; decided > 0 {
		c.Percent = new(float64)
		*c.Percent = 100 * float64(c.InTime) / float64(decided)
	}
	if fixed > 0 {
		c.MeanDays, c.MaxDays = new(float64), new(float64)
		*c.MeanDays = float64(sum) / float64(fixed) / (24 * 3600)
		*c.MaxDays = longest.Hours() / 24
	}
	return c
}
