package store

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/mobileops/mobileops/internal/logs/segment"
)

// merge merges what is mergeable, one segment in one change, so that others
// come to their turn between them.
func (s *Store) merge(ctx context.Context, report *RotateReport) error {
	failed := map[uint64]bool{} // first segments of merges that were not made
	var firstErr error
	for {
		more := false
		err := s.change(ctx, "logs rotate", func(c *change) error {
			var lists [][]*entry
			lists, report.Locked = s.mergeable(c.index)
			for _, list := range lists {
				if failed[list[0].ID] {
					continue
				}
				more = true
				m, err := c.mergeOne(ctx, list)
				if err != nil {
					failed[list[0].ID] = true
					return err
				}
				report.Merged = append(report.Merged, m)
				report.Freed += m.Before - m.After
				return s.sweep(ctx, c.index)
			}
			return nil
		})
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil && firstErr == nil {
			firstErr = err // a segment that is damaged must not keep others from being merged
		}
		if !more {
			return firstErr
		}
		time.Sleep(2 * time.Millisecond) // whoever waits for the lock looks every few
	}
}

// mergeOne makes one segment of several.
func (c *change) mergeOne(ctx context.Context, list []*entry) (Merge, error) {
	s, m := c.store, mergeOf(list)
	id, err := s.freeID(c.nextID)
	if err != nil {
		return m, err
	}
	w, err := s.createSegment(ctx, c.head.store, id, m.Origin)
	if err != nil {
		return m, err
	}
	inTime := slices.SortedStableFunc(slices.Values(list), func(a, b *entry) int { return cmp.Compare(a.MinTime, b.MinTime) })
	for _, e := range inTime {
		if err := s.copyRecords(ctx, w, s.info(c.index, e)); err != nil {
			w.abort()
			return m, fmt.Errorf("merge segment %d: %w", e.ID, err)
		}
	}
	fresh, err := w.finish()
	if err != nil {
		return m, err
	}
	c.fresh = append(c.fresh, fresh)
	if fresh.rec.Records != m.Records {
		return m, tampered("segments %v have %d records, and the catalogue says %d", m.From, fresh.rec.Records, m.Records)
	}
	m.Into, m.After = id, fresh.rec.Bytes
	op := &operation{records: []*Record{{Kind: KindMerged, Time: c.now.UnixNano(), Segment: &fresh.rec, From: m.From}}}
	return m, c.commit(ctx, op)
}

// copyRecords appends the records of a segment, after its hash was compared
// with the catalogue's: what was altered must not get a new hash.
func (s *Store) copyRecords(ctx context.Context, w *segmentWriter, info SegmentInfo) error {
	data, err := info.Open(ctx)
	if err != nil {
		return err
	}
	defer data.Close()
	sum, err := hashSegment(ctx, data.file, info.Bytes, info.Sealed)
	if err != nil {
		return err
	}
	if sum != info.Hash {
		return tampered("the file of segment %d was altered", info.ID)
	}
	r, err := segment.Open(data)
	if err != nil {
		return err
	}
	return r.Scan(ctx, math.MinInt64, math.MaxInt64, w.append)
}
