package ledger

import (
	"cmp"
	"encoding/binary"
	"slices"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/scan/protocol"
)

// rewind takes back what is dated later than now, for then a clock was ahead: it
// would keep deadlines far away, and the order of what happened would be wrong.
func (s *shelf) rewind(now time.Time) error {
	a := &s.about
	if !a.Latest.After(now) {
		return nil
	}
	back := func(times ...*time.Time) {
		for _, t := range times {
			if t.After(now) {
				*t = now
			}
		}
	}
	var changed []*record
	err := s.each(func(r *record) error {
		changed = append(changed, r)
		back(&r.FirstSeen, &r.LastSeen, &r.FixSince, &r.ResolvedAt, &r.ReopenedAt)
		for i := range r.Events {
			back(&r.Events[i].At)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, r := range changed {
		v, err := r.encode()
		if err != nil {
			return err
		}
		if err := s.items.Put(r.key[:], v); err != nil {
			return err
		}
	}
	for {
		k, _ := s.runs.Cursor().Last()
		if len(k) != 8 || int64(binary.BigEndian.Uint64(k)) <= now.UnixMicro() {
			break
		}
		if err := s.runs.Delete(k); err != nil {
			return err
		}
	}
	back(&a.First, &a.Latest, &a.Previous, &a.Told)
	for _, times := range []map[protocol.Scanner]time.Time{a.FirstLook, a.Scanned, a.Complete} {
		for k, t := range times {
			back(&t)
			times[k] = t
		}
	}
	return nil
}

// trim lets the oldest resolved items go when there are too many, some more than
// necessary so that it isn't done again by each scan.
func (s *shelf) trim() error {
	if s.about.Items <= MaxItems {
		return nil
	}
	type old struct {
		key Key
		at  time.Time
	}
	var gone []old
	total := 0
	err := s.items.ForEach(func(k, v []byte) error {
		total++
		if h, err := readHeader(k, v); err != nil || h.standing != resolved {
			return err
		}
		r, err := readRecord(k, v)
		if err == nil {
			gone = append(gone, old{r.key, r.ResolvedAt})
		}
		return err
	})
	if err != nil {
		return err
	}
	drop := total - MaxItems
	if len(gone) < drop {
		return failure.Errorf(failure.Failed, "%s has more than %d items that are not resolved: no more can be remembered", s.asset, MaxItems)
	}
	slices.SortFunc(gone, func(x, y old) int { return cmp.Or(x.at.Compare(y.at), slices.Compare(x.key[:], y.key[:])) })
	drop = min(len(gone), drop+MaxItems/20)
	for _, g := range gone[:drop] {
		if err := s.items.Delete(g.key[:]); err != nil {
			return err
		}
	}
	s.about.Items = total - drop
	return nil
}
