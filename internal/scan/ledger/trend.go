package ledger

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"maps"
	"time"

	"github.com/mobileops/mobileops/internal/scan/protocol"
	"github.com/mobileops/mobileops/internal/state"
)

// Scan is the summary of one scan of an asset. With age scans are thinned out: of
// the last week all are kept, of the last quarter one a day, of two years one a
// week, of what was before one in thirty days. One that is left has in New,
// Reopened, Resolved and Took what those before it had that are gone.
type Scan struct {
	At       time.Time          `json:"at"`
	Scanners []protocol.Scanner `json:"scanners"`
	Complete bool               `json:"complete"`
	Counts   Counts             `json:"counts"` // of what was there after it
	New      int                `json:"new"`
	Reopened int                `json:"reopened"`
	Resolved int                `json:"resolved"`
	// ResolveSeconds is the sum, over those resolved, of the time since they were
	// first seen, or had come back.
	ResolveSeconds float64 `json:"resolve_seconds"`
	Joined         int     `json:"joined,omitempty"` // scans before it that are gone
}

// summarise keeps the summary of the scan.
func (v *visit) summarise() error {
	run := Scan{
		At: v.o.At, Scanners: v.o.Scanners, Complete: v.o.Complete && !v.view.nothing && !v.o.Unseen.Older, Counts: v.out.Counts,
		New: len(v.out.New) + len(v.out.Baseline), Reopened: len(v.out.Reopened), Resolved: len(v.out.Resolved),
	}
	for _, i := range v.out.Resolved {
		run.ResolveSeconds += max(0, i.ResolvedAt.Sub(later(i.FirstSeen, i.ReopenedAt)).Seconds())
	}
	runs, err := v.s.scans()
	if err != nil {
		return err
	}
	if n := len(runs); n > 0 && runs[n-1].At.Equal(run.At) { // a second scan in the same moment
		last := runs[n-1]
		run.absorb(&last)
	}
	if err := v.s.putScan(&run); err != nil {
		return err
	}
	return v.s.thin(append(runs, run), v.o.At)
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// absorb takes over what a scan before did.
func (s *Scan) absorb(before *Scan) {
	s.New += before.New
	s.Reopened += before.Reopened
	s.Resolved += before.Resolved
	s.ResolveSeconds += before.ResolveSeconds
	s.Joined += before.Joined + 1
}

func (s *shelf) putScan(r *Scan) error {
	v, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return s.runs.Put(timeKey(r.At), v)
}

// scans returns the summaries, the oldest first.
func (s *shelf) scans() (list []Scan, err error) {
	err = s.runs.ForEach(func(k, v []byte) error {
		what := fmt.Sprintf("scan %x of %s", k, s.asset)
		var r Scan
		if err := decodeJSON(what, v, &r); err != nil {
			return err
		}
		if len(k) != 8 || int64(binary.BigEndian.Uint64(k)) != r.At.UnixMicro() {
			return damaged(what, -1, "it is of %s", r.At)
		}
		list = append(list, r)
		return nil
	})
	return list, err
}

const day = 24 * time.Hour

// slot says which scans are joined with age: those of one slot. Zero: none.
func slot(at, now time.Time) int64 {
	width := time.Duration(0)
	switch age := now.Sub(at); {
	case age <= 7*day:
		return 0
	case age <= 91*day:
		width = day
	case age <= 2*365*day:
		width = 7 * day
	default:
		width = 30 * day
	}
	return at.Unix()/int64(width/time.Second)<<2 | int64(width/day)%4
}

// thin joins old scans. Of each slot the last one is left.
func (s *shelf) thin(runs []Scan, now time.Time) error {
	for i := 0; i+1 < len(runs); i++ {
		old, next := &runs[i], &runs[i+1]
		n := slot(old.At, now)
		many := len(runs)-i > MaxScans && i < len(runs)-2
		if !many && (n == 0 || n != slot(next.At, now)) || old.At.Equal(next.At) {
			continue
		}
		if err := s.runs.Delete(timeKey(old.At)); err != nil {
			return err
		}
		next.absorb(old)
		if err := s.putScan(next); err != nil {
			return err
		}
	}
	return nil
}

// Period is one step of a Trend.
type Period struct {
	From, Until time.Time
	Counts      Counts // at the end of it
	Scans       int
	New         int
	Reopened    int
	Resolved    int
	// MeanResolve is how long those resolved in it were there, on average; 0: none
	// were.
	MeanResolve time.Duration
}

// MarshalJSON writes the period with days for durations.
func (p Period) MarshalJSON() ([]byte, error) {
	var mean *float64
	if p.Resolved > 0 {
		days := p.MeanResolve.Hours() / 24
		mean = &days
	}
	return json.Marshal(struct {
		From     time.Time `json:"from"`
		Until    time.Time `json:"until"`
		Counts   Counts    `json:"counts"`
		Scans    int       `json:"scans"`
		New      int       `json:"new"`
		Reopened int       `json:"reopened"`
		Resolved int       `json:"resolved"`
		Mean     *float64  `json:"mean_days_to_resolve"`
	}{p.From, p.Until, p.Counts, p.Scans, p.New, p.Reopened, p.Resolved, mean})
}

// MaxPeriods bounds a Trend.
const MaxPeriods = 5_000

// Trend returns how an asset, or with "" all of them, developed from since until
// now, in steps. Between two scans of an asset it is as it was after the first of
// them. Before its first scan it counts for nothing.
func (l Ledger) Trend(tx *state.Tx, asset string, since, now time.Time, step time.Duration) ([]Period, error) {
	if step <= 0 || !since.Before(now) {
		return nil, fmt.Errorf("%w: a trend has a beginning before now, and steps", ErrInvalid)
	}
	if now.Sub(since)/step >= MaxPeriods {
		return nil, fmt.Errorf("%w: a trend has at most %d steps: choose longer ones", ErrInvalid, MaxPeriods)
	}
	var list []Period
	for from := since; from.Before(now); from = from.Add(step) {
		until := from.Add(step)
		if until.After(now) {
			until = now
		}
		list = append(list, Period{From: from.UTC(), Until: until.UTC(), Counts: noCounts()})
	}
	seconds := make([]float64, len(list))
	err := shelves(tx, asset, func(s *shelf) error {
		runs, err := s.scans()
		if err != nil {
			return err
		}
		next, last := 0, noCounts()
		for i := range list {
			p := &list[i]
			// A scan at the end of a period belongs to it.
			for ; next < len(runs) && !runs[next].At.After(p.Until); next++ {
				r := &runs[next]
				if last = r.Counts; r.At.Before(since) {
					continue
				}
				p.Scans += 1 + r.Joined
				p.New += r.New
				p.Reopened += r.Reopened
				p.Resolved += r.Resolved
				seconds[i] += r.ResolveSeconds
			}
			p.Counts.add(&last)
		}
		return nil
	})
	for i := range list {
		if n := list[i].Resolved; n > 0 {
			list[i].MeanResolve = time.Duration(seconds[i] / float64(n) * float64(time.Second))
		}
	}
	return list, err
}

func noCounts() Counts { return Counts{Open: map[Severity]int{}, Classes: map[Class]int{}} }

func (c *Counts) add(o *Counts) {
	for k, n := range o.Open {
		c.Open[k] += n
	}
	for k, n := range o.Classes {
		c.Classes[k] += n
	}
	c.Waived += o.Waived
	c.Excluded += o.Excluded
}

// Total returns how many items are open.
func (c *Counts) Total() (n int) {
	for _, m := range c.Open {
		n += m
	}
	return n
}

// AssetStatus is what is known of an asset as a whole.
type AssetStatus struct {
	Asset
	First    time.Time `json:"first_scan"`
	Latest   time.Time `json:"last_scan"`
	Previous time.Time `json:"previous_scan,omitzero"` // the one before the latest
	// Scanned is when each scanner last ran, Complete when it last saw everything
	// that it was asked for.
	Scanned  map[protocol.Scanner]time.Time `json:"scanned"`
	Complete map[protocol.Scanner]time.Time `json:"complete"`
	Counts   Counts                         `json:"counts"`
	Items    int                            `json:"items"` // remembered, resolved ones included
}

// Assets returns all assets that were ever scanned, by id.
func (l Ledger) Assets(tx *state.Tx) (list []AssetStatus, err error) {
	err = shelves(tx, "", func(s *shelf) error {
		list = append(list, s.status())
		return nil
	})
	return list, err
}

// Asset returns what is known of one asset, or ErrNoAsset.
func (l Ledger) Asset(tx *state.Tx, id string) (*AssetStatus, error) {
	s, err := find(tx, id)
	if err != nil {
		return nil, err
	}
	status := s.status()
	return &status, nil
}

func (s *shelf) status() AssetStatus {
	a := &s.about
	return AssetStatus{
		Asset: a.Asset, First: a.First, Latest: a.Latest, Previous: a.Previous,
		Scanned: maps.Clone(a.Scanned), Complete: maps.Clone(a.Complete), Counts: a.Counts, Items: a.Items,
	}
}
