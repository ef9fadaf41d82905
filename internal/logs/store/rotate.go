package store

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/mobileops/mobileops/internal/logs/event"
)

// Limits say what is kept. A zero is no limit.
type Limits struct {
	MaxAge   time.Duration // of the newest record in a segment
	MaxBytes int64         // on the disk
}

// Policy says what retention keeps.
type Policy struct {
	// MaxAge is for each source without limits of its own; MaxBytes is for the
	// whole store, those sources included.
	Limits
	Sources map[string]Limits // by name of the source
	DryRun  bool              // nothing is changed; the report says what would be
}

// Removal is a segment that retention let go.
type Removal struct {
	SegmentRecord
	Reason string `json:"reason"`
}

// Merge is segments that became one. Into is 0 in a dry run.
type Merge struct {
	Origin  event.Origin `json:"origin"`
	From    []uint64     `json:"from"`
	Into    uint64       `json:"into"`
	Records int64        `json:"records"`
	Before  int64        `json:"before"` // bytes
	After   int64        `json:"after"`  // bytes
}

// RotateReport says what retention did.
type RotateReport struct {
	Removed []Removal `json:"removed"`
	Merged  []Merge   `json:"merged"`
	// Held are segments that would have been removed, but for a legal hold.
	Held  []Removal `json:"held"`
	Freed int64     `json:"freed"` // bytes
	// Over is by how many bytes a limit of size is exceeded although everything
	// that may go is gone.
	Over int64 `json:"over"`
	// Locked are encrypted segments that were not merged, because there is no
	// key to open them, or nobody any more to encrypt for.
	Locked int  `json:"locked"`
	DryRun bool `json:"dry_run"`
}

const (
	// Segments of fewer bytes on the disk, and of records, are merged with others
	// of their day. What was made of a full generation is large enough: merging
	// means to compress anew.
	smallSegment = 8 << 20
	smallRaw     = DefaultMaxOpen / 2
	// mergedRaw bounds what a merge takes together, in bytes of records.
	mergedRaw = 512 << 20
)

// oldest is the earliest time that is believed of a record when its age is
// asked for: 2000-01-01. The age of other segments counts from when they came.
const oldest = 946684800 * int64(time.Second)

// age is how old a segment is: that of its newest record, or of the segment
// itself when that time makes no sense.
func (e *entry) age(now time.Time) time.Duration {
	t := e.MaxTime
	if t < oldest || t > e.added {
		t = e.added
	}
	return now.Sub(time.Unix(0, t))
}

// Rotate removes segments that are too old or too many, and merges small ones
// of one origin and day. Legal holds win over both. Each is recorded in the
// Merkle log. The report is right also when there is an error: it says what was
// done by then.
func (s *Store) Rotate(ctx context.Context, p Policy) (*RotateReport, error) {
	report := &RotateReport{DryRun: p.DryRun, Removed: []Removal{}, Merged: []Merge{}, Held: []Removal{}}
	x, err := s.index(ctx)
	if err != nil || x == nil {
		return report, err
	}
	if p.DryRun {
		report.Removed, report.Held, report.Over = x.expired(&p, s.opts.Now())
		for _, r := range report.Removed {
			report.Freed += r.Bytes
			i, _ := x.find(r.ID)
			x.drop(i, 0)
		}
		var lists [][]*entry
		lists, report.Locked = s.mergeable(x)
		for _, list := range lists {
			report.Merged = append(report.Merged, mergeOf(list))
		}
		return report, nil
	}
	err = s.change(ctx, "logs rotate", func(c *change) error {
		removed, held, over := c.expired(&p, c.now)
		report.Held, report.Over = held, over
		op := &operation{}
		for _, r := range removed {
			op.records = append(op.records, &Record{Kind: KindRemoved, Time: c.now.UnixNano(), ID: r.ID, Reason: r.Reason})
			report.Freed += r.Bytes
		}
		if len(removed) == 0 {
			return nil
		}
		if err := c.commit(ctx, op); err != nil {
			report.Freed = 0
			return err
		}
		report.Removed = removed
		return s.sweep(ctx, c.index)
	})
	if err != nil {
		return report, err
	}
	return report, s.merge(ctx, report)
}

// expired lists what retention lets go, the oldest first, and what it would
// but for a hold.
func (x *index) expired(p *Policy, now time.Time) (removed, held []Removal, over int64) {
	removed, held = []Removal{}, []Removal{}
	gone := make([]bool, len(x.entries))
	byAge := make([]int, len(x.entries))
	for i := range byAge {
		byAge[i] = i
	}
	ages := make([]time.Duration, len(x.entries))
	for i := range x.entries {
		ages[i] = x.entries[i].age(now)
	}
	slices.SortStableFunc(byAge, func(a, b int) int { return cmp.Compare(ages[b], ages[a]) })
	let := func(i int, reason string) bool {
		e := &x.entries[i]
		if h := x.heldBy(&e.SegmentRecord); h != nil {
			held = append(held, Removal{e.SegmentRecord, fmt.Sprintf("%s, but held by %q", reason, h.Name)})
			return false
		}
		gone[i] = true
		removed = append(removed, Removal{e.SegmentRecord, reason})
		return true
	}
	refused := make([]bool, len(x.entries)) // a hold is named once
	for _, i := range byAge {
		limits, own := p.Sources[x.entries[i].Origin.Source]
		if !own {
			limits = p.Limits
		}
		if limits.MaxAge > 0 && ages[i] > limits.MaxAge {
			refused[i] = !let(i, "older than "+days(limits.MaxAge))
		}
	}
	bound := func(limit int64, reason string, of func(*entry) bool) {
		if limit <= 0 {
			return
		}
		var sum int64
		for i := range x.entries {
			if !gone[i] && of(&x.entries[i]) {
				sum += x.entries[i].Bytes
			}
		}
		for _, i := range byAge {
			if sum <= limit {
				return
			}
			if !gone[i] && !refused[i] && of(&x.entries[i]) {
				if let(i, reason) {
					sum -= x.entries[i].Bytes
				} else {
					refused[i] = true
				}
			}
		}
		over = max(over, sum-limit)
	}
	for source, limits := range p.Sources {
		bound(limits.MaxBytes, fmt.Sprintf("its source has more than %d bytes", limits.MaxBytes),
			func(e *entry) bool { return e.Origin.Source == source })
	}
	bound(p.MaxBytes, fmt.Sprintf("the store has more than %d bytes", p.MaxBytes), func(*entry) bool { return true })
	return removed, held, max(over, 0)
}

// heldBy returns a hold that covers a segment, or nil.
func (x *index) heldBy(s *SegmentRecord) *Hold {
	for i := range x.holds {
		if x.holds[i].covers(s) {
			return &x.holds[i]
		}
	}
	return nil
}

// mergeable lists small segments that are to become one: those of one origin
// and day, in order of their ids. Segments over more than a day are among
// themselves, and only with those beside them, so that none comes to lie within
// the time of another.
func (x *index) mergeable() [][]*entry {
	type slot struct {
		origin event.Origin
		day    int64
		sealed bool
	}
	open := map[slot][]*entry{}
	raw := map[slot]int64{}
	var out [][]*entry
	end := func(k slot) {
		if len(open[k]) > 1 {
			out = append(out, open[k])
		}
		delete(open, k)
		delete(raw, k)
	}
	runs := x.wideRuns()
	for i := range x.entries {
		e := &x.entries[i]
		if e.Bytes >= smallSegment || e.RawBytes >= smallRaw || x.heldBy(&e.SegmentRecord) != nil {
			continue
		}
		k := slot{e.Origin, dayOf(e.MinTime), e.Sealed}
		if e.wide() {
			k.day = mixedDay - runs[i]
		}
		if raw[k]+e.RawBytes > mergedRaw {
			end(k)
		}
		open[k] = append(open[k], e)
		raw[k] += e.RawBytes
	}
	for k := range open {
		end(k)
	}
	slices.SortFunc(out, func(a, b []*entry) int { return cmp.Compare(a[0].ID, b[0].ID) })
	return out
}

// wide says that a segment is over more than a day.
func (e *entry) wide() bool { return dayOf(e.MinTime) != dayOf(e.MaxTime) }

// wideRuns numbers, by the index of their entries, wide segments: those of one
// origin between whose beginnings no other one begins have the same number.
func (x *index) wideRuns() map[int]int64 {
	order := make([]int, len(x.entries))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int {
		p, q := &x.entries[a], &x.entries[b]
		return cmp.Or(compareOrigins(p.Origin, q.Origin), cmp.Compare(p.MinTime, q.MinTime))
	})
	runs, run := map[int]int64{}, int64(0)
	for at, i := range order {
		if !x.entries[i].wide() || at > 0 && x.entries[i].Origin != x.entries[order[at-1]].Origin {
			run++
		}
		if x.entries[i].wide() {
			runs[i] = run
		}
	}
	return runs
}

// mergeable is that of the index, without what this store cannot merge, and how
// many segments those are.
func (s *Store) mergeable(x *index) (lists [][]*entry, locked int) {
	for _, list := range x.mergeable() {
		if list[0].Sealed && (len(s.opts.Identities) == 0 || len(s.opts.Recipients) == 0) {
			locked += len(list)
			continue
		}
		lists = append(lists, list)
	}
	return lists, locked
}

func mergeOf(list []*entry) Merge {
	m := Merge{Origin: list[0].Origin}
	for _, e := range list {
		m.From = append(m.From, e.ID)
		m.Records += e.Records
		m.Before += e.Bytes
	}
	return m
}

// days is an age as people give it: in days where these are whole.
func days(age time.Duration) string {
	const day = 24 * time.Hour
	if age >= day && age%day == 0 {
		return strconv.FormatInt(int64(age/day), 10) + "d"
	}
	return age.String()
}
