package store

import (
	"cmp"
	"context"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
)

// Hold is a legal hold: while it is set, no segment that it covers is removed
// or merged.
type Hold struct {
	Name string `json:"name"`
	// Sources are names of sources, or patterns (*, ? and [] as in path.Match,
	// but * stands for slashes too: a name is no path to whoever types one);
	// none: all sources.
	Sources []string `json:"sources,omitempty"`
	// Since and Until bound the times of the records, nanoseconds since 1970
	// UTC, both inclusive. 0 is no bound: a record can say that it is of 1965.
	Since  int64     `json:"since,omitempty"`
	Until  int64     `json:"until,omitempty"`
	Reason string    `json:"reason"`
	By     string    `json:"by"`
	Time   time.Time `json:"time"` // when it was set
}

// covers tells whether the hold keeps a segment.
func (h *Hold) covers(s *SegmentRecord) bool {
	if h.Since != 0 && s.MaxTime < h.Since || h.Until != 0 && s.MinTime > h.Until {
		return false
	}
	return len(h.Sources) == 0 || slices.ContainsFunc(h.Sources, func(pattern string) bool {
		ok, err := path.Match(withoutSlashes(pattern), withoutSlashes(s.Origin.Source))
		return pattern == s.Origin.Source || ok && err == nil
	})
}

// withoutSlashes makes slashes bytes as others, where path.Match would let no
// pattern go over them.
func withoutSlashes(name string) string { return strings.ReplaceAll(name, "/", "\x00") }

// Errors of holds.
var (
	ErrHoldExists = failure.New(failure.Busy, "a hold of that name is set already")
	ErrNoHold     = failure.New(failure.No, "no hold has that name")
)

// Hold sets a legal hold. Its error is ErrHoldExists when there is one of that
// name.
func (s *Store) Hold(ctx context.Context, h Hold) error {
	if h.Name == "" || len(h.Name) > 256 {
		return failure.New(failure.Usage, "a hold needs a name of at most 256 bytes")
	}
	if h.Until != 0 && h.Since != 0 && h.Until < h.Since {
		return failure.New(failure.Usage, "a hold that ends before it begins")
	}
	if len(h.Reason) > maxName || len(h.By) > maxName || len(h.Sources) > 10_000 {
		return failure.Wrap(failure.Usage, errBounds)
	}
	for _, p := range h.Sources {
		if _, err := path.Match(p, ""); err != nil || p == "" || len(p) > maxName {
			return failure.Errorf(failure.Usage, "%q is no name or pattern of sources", p)
		}
	}
	return s.change(ctx, "logs hold", func(c *change) error {
		if _, ok := c.hold(h.Name); ok {
			return fmt.Errorf("%w: %q", ErrHoldExists, h.Name)
		}
		h.Time = c.now.UTC()
		return c.commit(ctx, &operation{records: []*Record{{Kind: KindHeld, Time: c.now.UnixNano(), Hold: &h}}})
	})
}

// Release ends a legal hold. Its error is ErrNoHold when there is none.
func (s *Store) Release(ctx context.Context, name, reason, by string) error {
	if len(reason) > maxName || len(by) > maxName {
		return failure.Wrap(failure.Usage, errBounds)
	}
	return s.change(ctx, "logs release", func(c *change) error {
		if _, ok := c.hold(name); !ok {
			return fmt.Errorf("%w: %q", ErrNoHold, name)
		}
		r := &Record{Kind: KindReleased, Time: c.now.UnixNano(), Name: name, Reason: reason, By: by}
		return c.commit(ctx, &operation{records: []*Record{r}})
	})
}

// Holds lists the holds that are set, by name.
func (s *Store) Holds(ctx context.Context) ([]Hold, error) {
	x, err := s.index(ctx)
	if err != nil || x == nil {
		return nil, err
	}
	return x.holds, nil
}

// SourceStats is what the store has of one source.
type SourceStats struct {
	Source   string `json:"source"`
	Segments int    `json:"segments"`
	Records  int64  `json:"records"`
	RawBytes int64  `json:"raw_bytes"` // of the records as they were written
	Bytes    int64  `json:"bytes"`     // of their segments on the disk
	Pending  int64  `json:"pending"`   // records that are in no segment yet
	First    int64  `json:"first"`     // least time, nanoseconds since 1970 UTC
	Last     int64  `json:"last"`      // greatest time
}

// Stats returns what the store has of each source, by name.
func (s *Store) Stats(ctx context.Context) ([]SourceStats, error) {
	snap, err := s.Snapshot(ctx, Everything())
	if err != nil {
		return nil, err
	}
	defer snap.Close()
	bySource := map[string]*SourceStats{}
	of := func(source string, first, last int64) *SourceStats {
		st := bySource[source]
		if st == nil {
			st = &SourceStats{Source: source, First: first, Last: last}
			bySource[source] = st
		}
		st.First, st.Last = min(st.First, first), max(st.Last, last)
		return st
	}
	for i := range snap.Segments {
		g := &snap.Segments[i]
		st := of(g.Origin.Source, g.MinTime, g.MaxTime)
		st.Segments++
		st.Records += g.Records
		st.RawBytes += g.RawBytes
		st.Bytes += g.Bytes
	}
	err = snap.pending(ctx, func(f *framed) error {
		if f.records == 0 {
			return nil
		}
		st := of(f.origin.Source, f.minTime, f.maxTime)
		st.Records += int64(f.records)
		st.Pending += int64(f.records)
		return nil
	})
	list := make([]SourceStats, 0, len(bySource))
	for _, st := range bySource {
		list = append(list, *st)
	}
	slices.SortFunc(list, func(a, b SourceStats) int { return cmp.Compare(a.Source, b.Source) })
	return list, err
}
