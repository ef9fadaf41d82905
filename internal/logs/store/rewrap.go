package store

import (
	"context"
	"errors"
	"fmt"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/seal"
	"github.com/mobileops/mobileops/internal/state"
)

// RewrapReport says what Rewrap did.
type RewrapReport struct {
	Segments int `json:"segments"` // that have new readers now
	Plain    int `json:"plain"`    // that are not encrypted, and stayed as they are
	Unopened int `json:"unopened"` // that no key opens, and stayed as they are
	// Pending is set when a collector is at work: what is in its write-ahead log
	// can be read with the keys from before until it becomes segments.
	Pending bool `json:"pending"`
}

// Rewrap makes every encrypted segment one that the keys of to open, and no
// others; one of ids must open each now, or one of to that can. What none opens
// is left as it is, and the error says how many these are: what was collected
// since the recipients were changed is for the new ones already. Only headers are written. What is in
// the write-ahead log becomes segments before that, so the store must have its
// new recipients already (Options). When it was interrupted, it is to be called
// again. The hashes in the Merkle log do not cover what it changes.
func (s *Store) Rewrap(ctx context.Context, ids []seal.Identity, to []seal.Recipient) (*RewrapReport, error) {
	report := new(RewrapReport)
	if len(ids) == 0 || len(to) == 0 {
		return report, failure.New(failure.Usage, "rewrapping needs the keys from before and the new ones")
	}
	for _, r := range to {
		if k, ok := r.(seal.Identity); ok {
			ids = append(ids[:len(ids):len(ids)], k)
		}
	}
	if err := s.flushPending(ctx, report); err != nil {
		return report, err
	}
	x, err := s.index(ctx)
	if err != nil || x == nil {
		return report, err
	}
	for i := range x.entries {
		id := x.entries[i].ID
		if !x.entries[i].Sealed {
			report.Plain++
			continue
		}
		// One change for each, so that collecting goes on.
		err := s.change(ctx, "logs rewrap", func(c *change) error {
			if _, ok := c.find(id); !ok {
				return nil // merged or removed since
			}
			err := seal.Rewrap(s.segmentPath(id), ids, to)
			if errors.Is(err, seal.ErrNoKey) {
				report.Unopened++
				return nil
			}
			if err != nil {
				return err
			}
			report.Segments++
			return nil
		})
		if err != nil {
			return report, fmt.Errorf("segment %d: %w", id, err)
		}
		if err := ctx.Err(); err != nil {
			return report, err
		}
	}
	if report.Segments > 0 {
		if err := s.change(ctx, "logs rewrap", func(c *change) error {
			r := &Record{Kind: KindRewrapped, Time: c.now.UnixNano(), Replaced: uint64(report.Segments)}
			return c.commit(ctx, &operation{records: []*Record{r}})
		}); err != nil {
			return report, err
		}
	}
	if report.Unopened > 0 {
		return report, failure.Hint(failure.Errorf(failure.NotAllowed, "%d of %d encrypted segments are opened by none of the keys, and stayed as they are", report.Unopened, report.Unopened+report.Segments),
			"name all keys that open them as identities; what was collected for the new recipients needs nothing")
	}
	return report, nil
}

// flushPending makes segments of the write-ahead log, unless a collector is at
// work, which does that itself.
func (s *Store) flushPending(ctx context.Context, report *RewrapReport) error {
	w, err := s.Writer(ctx)
	if errors.Is(err, state.ErrBusy) {
		report.Pending = true
		return nil
	}
	if err != nil {
		return err
	}
	return errors.Join(w.Flush(ctx), w.Close())
}
