package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"slices"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/logs/event"
)

// Range is which records are wanted.
type Range struct {
	Since, Until int64    // nanoseconds since 1970 UTC: from Since on, and before Until
	Sources      []string // names; none: all
}

// Everything is the range of all records.
func Everything() Range { return Range{Since: math.MinInt64, Until: math.MaxInt64} }

func (r *Range) source(name string) bool {
	return len(r.Sources) == 0 || slices.Contains(r.Sources, name)
}

// Snapshot is the store at one moment: each record that had been appended by
// then is in exactly one of its segments, or pending. Its files stay until it
// is closed, or for an hour.
type Snapshot struct {
	// Segments are those that overlap the range, by origin and least time.
	Segments []SegmentInfo
	// Problems says what could not be made part of the snapshot: it is
	// incomplete then.
	Problems []error

	store   *Store
	wanted  Range
	wal     []*walReader
	reading *os.File
}

// Snapshot takes a snapshot. It reads the catalogue and opens the write-ahead
// log, and nothing else. The Snapshot must be closed.
func (s *Store) Snapshot(ctx context.Context, r Range) (*Snapshot, error) {
	snap := &Snapshot{store: s, wanted: r}
	var err error
	if snap.reading, err = s.reading(); err != nil {
		return nil, err
	}
	for last := uint64(math.MaxUint64); ; {
		x, err := s.index(ctx)
		if err != nil {
			snap.Close()
			return nil, err
		}
		if x == nil {
			return snap, nil
		}
		err = snap.openWAL(s, x)
		if err == nil {
			snap.list(s, x)
			return snap, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			snap.Close()
			return nil, err
		}
		if x.consumed == last { // nobody flushed it: it was removed
			snap.Problems = append(snap.Problems, tampered("%s is gone", missingGeneration(x.consumed+1).File))
			snap.list(s, x)
			return snap, nil
		}
		last = x.consumed
	}
}

// list takes the segments that are wanted from the catalogue.
func (p *Snapshot) list(s *Store, x *index) {
	type place struct {
		rank    int32 // of the origin
		i       int32
		minTime int64
	}
	rank := x.ranks()
	places := make([]place, 0, len(x.entries))
	for i := range x.entries {
		e := &x.entries[i]
		if e.MaxTime < p.wanted.Since || e.MinTime >= p.wanted.Until || !p.wanted.source(e.Origin.Source) {
			continue
		}
		places = append(places, place{rank[e.number], int32(i), e.MinTime})
	}
	slices.SortFunc(places, func(a, b place) int {
		return cmp.Or(cmp.Compare(a.rank, b.rank), cmp.Compare(a.minTime, b.minTime), cmp.Compare(a.i, b.i))
	})
	p.Segments = make([]SegmentInfo, len(places))
	for i, at := range places {
		p.Segments[i] = s.info(x, &x.entries[at.i])
	}
}

// ranks are the places of the origins in their order, by their numbers.
func (x *index) ranks() []int32 {
	numbers := make([]int32, len(x.origins))
	for i := range numbers {
		numbers[i] = int32(i)
	}
	slices.SortFunc(numbers, func(a, b int32) int { return compareOrigins(x.origins[a], x.origins[b]) })
	rank := make([]int32, len(numbers))
	for at, n := range numbers {
		rank[n] = int32(at)
	}
	return rank
}

func (s *Store) info(x *index, e *entry) SegmentInfo {
	return SegmentInfo{SegmentRecord: e.SegmentRecord, Added: e.added, Leaf: e.leaf, store: s, id: x.store}
}

// openWAL opens the generations that are in no segment. Its error is
// fs.ErrNotExist when one of them vanished.
func (p *Snapshot) openWAL(s *Store, x *index) error {
	p.closeWAL()
	list, err := walFiles(s.walDir())
	if err != nil {
		return err
	}
	next := x.consumed + 1
	for _, n := range list {
		if n <= x.consumed {
			continue
		}
		if n != next {
			return fmt.Errorf("%s: %w", walPath(s, next), fs.ErrNotExist)
		}
		r, err := s.readGeneration(x.store, n)
		if err != nil {
			return err
		}
		p.wal = append(p.wal, r)
		next++
	}
	if next == x.consumed+1 {
		return fmt.Errorf("%s: %w", walPath(s, next), fs.ErrNotExist)
	}
	return nil
}

func (p *Snapshot) closeWAL() {
	for _, r := range p.wal {
		r.close()
	}
	p.wal = nil
}

// Close lets go of the files.
func (p *Snapshot) Close() {
	p.closeWAL()
	if p.reading != nil {
		p.reading.Close() // and with it the lock
		p.reading = nil
	}
}

// Pending calls fn with the records in the range that are in no segment yet, in
// the order in which they were appended. Raw is valid until fn returns. It can
// be called more than once, and finds the same each time. Damage does not end
// it: the error is a *DamageError in the end.
func (p *Snapshot) Pending(ctx context.Context, fn func(*event.Origin, *event.Record) error) error {
	return p.pending(ctx, func(f *framed) error {
		if f.records == 0 || f.maxTime < p.wanted.Since || f.minTime >= p.wanted.Until || !p.wanted.source(f.origin.Source) {
			return nil
		}
		return f.each(func(r *event.Record) error {
			if r.Time < p.wanted.Since || r.Time >= p.wanted.Until {
				return nil
			}
			return fn(&f.origin, r)
		})
	})
}

func (p *Snapshot) pending(ctx context.Context, fn func(*framed) error) error {
	var damage []Damage
	known := origins{}
	for _, r := range p.wal {
		scan, err := r.frames(ctx, func(_ int64, batches []byte) error { return decodeBatches(batches, known, fn) })
		if err != nil {
			return err
		}
		damage = append(damage, scan.Damage...)
	}
	if len(damage) > 0 {
		return failure.Wrap(failure.Incomplete, &DamageError{damage})
	}
	return nil
}
