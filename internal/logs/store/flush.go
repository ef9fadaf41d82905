package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"

	"github.com/mobileops/mobileops/internal/durable"
	"github.com/mobileops/mobileops/internal/logs/event"
)

const (
	nanosecondsOfDay = 24 * 3600 * 1e9
	// maxDays is how many segments a generation makes of the days of one origin.
	// Where there are more days, neighbours with few records share one, so that a
	// source with senseless times does not make thousands of files.
	maxDays = 128
	// mixedDay stands for several days. No time is on it.
	mixedDay = math.MaxInt64
)

// dayOf is the number of the UTC day of a time, from 1970-01-01 on.
func dayOf(t int64) int64 {
	d := t / nanosecondsOfDay
	if t%nanosecondsOfDay < 0 {
		d--
	}
	return d
}

// group is what becomes one segment.
type group struct {
	origin event.Origin
	day    int64
	at     []uint32 // the records: where they are in the arena
}

// arena holds the records of a generation, and how they become segments.
type arena struct {
	raw     []byte
	times   []int64
	clocks  []event.Clock
	ends    []uint32 // in raw
	groups  []*group
	cursors map[string][]byte
}

// each calls fn with each record of a group.
func (a *arena) each(g *group, fn func(*event.Record) error) error {
	for _, i := range g.at {
		from := uint32(0)
		if i > 0 {
			from = a.ends[i-1]
		}
		r := event.Record{Time: a.times[i], Clock: a.clocks[i], Raw: a.raw[from:a.ends[i]]}
		if err := fn(&r); err != nil {
			return err
		}
	}
	return nil
}

// gather reads a generation.
func (s *Store) gather(ctx context.Context, r *walReader) (*arena, walScan, error) {
	type slot struct {
		origin event.Origin
		day    int64
	}
	a := &arena{cursors: map[string][]byte{}, raw: make([]byte, 0, r.size)}
	slots := map[slot]*group{}
	known := origins{}
	scan, err := r.frames(ctx, func(_ int64, batches []byte) error {
		return decodeBatches(batches, known, func(f *framed) error {
			a.cursors[string(f.key)] = nil
			if f.cursor != nil {
				setCursor(a.cursors, string(f.key), f.cursor)
			}
			var last *group
			return f.each(func(rec *event.Record) error {
				if int64(len(a.raw))+int64(len(rec.Raw)) > math.MaxUint32 {
					return errors.New("a generation of the write-ahead log of more than 4 GiB")
				}
				day := dayOf(rec.Time)
				if last == nil || last.day != day {
					k := slot{f.origin, day}
					if last = slots[k]; last == nil {
						last = &group{origin: f.origin, day: day}
						slots[k] = last
						a.groups = append(a.groups, last)
					}
				}
				last.at = append(last.at, uint32(len(a.times)))
				a.raw = append(a.raw, rec.Raw...)
				a.times = append(a.times, rec.Time)
				a.clocks = append(a.clocks, rec.Clock)
				a.ends = append(a.ends, uint32(len(a.raw)))
				return nil
			})
		})
	})
	a.groups = boundDays(a.groups)
	for _, g := range a.groups {
		a.inTime(g)
	}
	return a, scan, err
}

// inTime brings the records of a group into the order of their times. The files
// that a rotation left are read in any order, and what is shown around a record
// is what stands beside it in its segment. Records of one time stay as they came.
func (a *arena) inTime(g *group) {
	byTime := func(x, y uint32) int { return cmp.Compare(a.times[x], a.times[y]) }
	if !slices.IsSortedFunc(g.at, byTime) {
		slices.SortStableFunc(g.at, byTime)
	}
}

// boundDays joins days of an origin that has too many, and brings all groups
// into an order: origin, then day. Only neighbours are joined, those with the
// fewest records first: so no segment lies within the time of another, records
// that follow each other stay side by side, and old days can be let go of.
func boundDays(groups []*group) []*group {
	byOrigin := map[event.Origin][]*group{}
	for _, g := range groups {
		byOrigin[g.origin] = append(byOrigin[g.origin], g)
	}
	out := groups[:0:0]
	for _, list := range byOrigin {
		slices.SortFunc(list, func(a, b *group) int { return cmp.Compare(a.day, b.day) })
		out = append(out, joinDays(list)...)
	}
	slices.SortFunc(out, func(a, b *group) int {
		return cmp.Or(compareOrigins(a.origin, b.origin), cmp.Compare(a.day, b.day))
	})
	return out
}

// joinDays joins neighbours in a list of days until there are no more than
// maxDays, the smallest pairs first: in a round as many as are to go, or those of
// them that share no day.
func joinDays(list []*group) []*group {
	for len(list) > maxDays {
		sizes := make([]int, len(list)-1)
		for i := range sizes {
			sizes[i] = len(list[i].at) + len(list[i+1].at)
		}
		slices.Sort(sizes)
		excess := len(list) - maxDays
		most := sizes[min(excess, len(sizes))-1]
		joined := list[:0:0]
		for i := 0; i < len(list); i++ {
			g := list[i]
			if excess > 0 && i+1 < len(list) && len(g.at)+len(list[i+1].at) <= most {
				g = &group{origin: g.origin, day: g.day, at: slices.Concat(g.at, list[i+1].at)}
				slices.Sort(g.at)
				excess--
				i++
			}
			joined = append(joined, g)
		}
		list = joined
	}
	return list
}

func compareOrigins(a, b event.Origin) int {
	return cmp.Or(cmp.Compare(a.Source, b.Source), cmp.Compare(a.Format, b.Format), cmp.Compare(a.Host, b.Host))
}

// consume makes segments of the generations up to one. Those that another
// process, or an earlier attempt, has made segments of are left out. The
// damage that was found in them is returned also when there is no error.
func (s *Store) consume(ctx context.Context, upTo uint64) (damage []Damage, err error) {
	for more := true; more && err == nil; {
		err = s.change(ctx, "logs collect", func(c *change) error {
			if more = c.consumed < upTo; !more {
				return nil
			}
			found, err := c.consumeNext(ctx)
			damage = append(damage, found...)
			return err
		})
	}
	return damage, err
}

// consumeNext makes segments of the generation after the consumed one.
func (c *change) consumeNext(ctx context.Context) ([]Damage, error) {
	s, n := c.store, c.consumed+1
	r, err := s.readGeneration(c.head.store, n)
	if errors.Is(err, fs.ErrNotExist) {
		// Its records are lost, but their sources are read again from where the
		// generations before ended.
		gone := missingGeneration(n)
		lost := &Record{Kind: KindDamaged, Time: c.now.UnixNano(), Damage: &gone}
		return []Damage{gone}, c.commit(ctx, &operation{generation: n, records: []*Record{lost}})
	}
	if err != nil {
		return nil, err
	}
	defer r.close()
	a, scan, err := s.gather(ctx, r)
	if errors.Is(err, errLocked) && s.writesOnly() {
		whole := Damage{File: missingGeneration(n).File, Length: r.size}
		if err := s.keepDamaged(n); err != nil {
			return nil, err
		}
		return nil, c.commit(ctx, &operation{generation: n, records: []*Record{{Kind: KindDamaged, Time: c.now.UnixNano(), Damage: &whole}}})
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", walPath(s, n), err)
	}
	if scan.Torn > 0 && !r.headless { // a closed generation ends with a whole frame
		scan.Damage = append(scan.Damage, Damage{File: missingGeneration(n).File, Offset: scan.End, Length: scan.Torn})
	}
	op := &operation{generation: n}
	for key, cursor := range a.cursors {
		op.cursors = append(op.cursors, cursorChange{key, cursor})
	}
	slices.SortFunc(op.cursors, func(a, b cursorChange) int { return cmp.Compare(a.key, b.key) })
	if err := c.write(ctx, a); err != nil {
		return nil, err
	}
	for _, f := range c.fresh {
		op.records = append(op.records, &Record{Kind: KindAdded, Time: c.now.UnixNano(), Segment: &f.rec})
	}
	for _, d := range scan.Damage {
		op.records = append(op.records, &Record{Kind: KindDamaged, Time: c.now.UnixNano(), Damage: &d})
	}
	if len(scan.Damage) > 0 {
		if err := s.keepDamaged(n); err != nil {
			return nil, err
		}
	}
	return scan.Damage, c.commit(ctx, op)
}

// keepDamaged keeps a generation in which damage was found.
func (s *Store) keepDamaged(n uint64) error {
	if err := durable.MkdirAll(s.damagedDir(), 0o700); err != nil {
		return access(err)
	}
	err := os.Link(walPath(s, n), filepath.Join(s.damagedDir(), walName(n)))
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err == nil {
		err = durable.SyncDir(s.damagedDir())
	}
	return access(err)
}

// freeID returns the next id of a segment from one on for which no file is
// there. A file that somebody put there is not overwritten: it is evidence.
func (s *Store) freeID(id uint64) (uint64, error) {
	for {
		_, err := os.Lstat(s.segmentPath(id))
		if errors.Is(err, fs.ErrNotExist) {
			return id, nil
		}
		if err != nil {
			return 0, access(err)
		}
		id++
	}
}

// write writes the segments of an arena, as many at once as there are
// processors.
func (c *change) write(ctx context.Context, a *arena) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	fresh := make([]*freshSegment, len(a.groups))
	errs := make([]error, len(a.groups))
	room := make(chan struct{}, runtime.GOMAXPROCS(0))
	var wg sync.WaitGroup
	next := c.nextID
	for i, g := range a.groups {
		id, err := c.store.freeID(next)
		if err != nil {
			errs[i] = err
			break
		}
		next = id + 1
		room <- struct{}{}
		wg.Go(func() {
			defer func() { <-room }()
			if errs[i] = ctx.Err(); errs[i] == nil {
				fresh[i], errs[i] = c.writeGroup(ctx, id, a, g)
			}
			if errs[i] != nil {
				cancel()
			}
		})
	}
	wg.Wait()
	for _, f := range fresh {
		if f != nil {
			c.fresh = append(c.fresh, f)
		}
	}
	return worst(errs)
}

// worst returns the first error that is not the mere end of a context that
// another error ended.
func worst(errs []error) error {
	var ended error
	for _, err := range errs {
		if err != nil && !errors.Is(err, context.Canceled) {
			return err
		}
		ended = cmp.Or(ended, err)
	}
	return ended
}

func (c *change) writeGroup(ctx context.Context, id uint64, a *arena, g *group) (*freshSegment, error) {
	w, err := c.store.createSegment(ctx, c.head.store, id, g.origin)
	if err != nil {
		return nil, err
	}
	if err := a.each(g, w.append); err != nil {
		w.abort()
		return nil, access(fmt.Errorf("write segment %d: %w", id, err))
	}
	return w.finish()
}
