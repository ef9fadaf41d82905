package vulndb

import (
	"context"
	"errors"
	"fmt"

	"github.com/mobileops/mobileops/internal/failure"
)

// Rollback makes an earlier generation current: the one of that number, or with
// 0 the one before the current one. It is proved first. Scans that have the
// present one open go on with it. Nothing is removed.
func (s *Store) Rollback(ctx context.Context, k Kind, number int) (*Result, error) {
	lock, err := s.opts.State.Lock(lockName, "vulndb rollback")
	if err != nil {
		return nil, err
	}
	defer lock.Release()
	sh, err := s.shelf(ctx, k)
	if err != nil {
		return nil, err
	}
	if sh.current == 0 {
		return nil, failure.Hint(ErrMissing, hintImport)
	}
	if number == 0 {
		for _, g := range sh.list {
			if g.Number < sh.current {
				number = max(number, g.Number)
			}
		}
		if number == 0 {
			return nil, failure.Hint(fmt.Errorf("%w: there is none before the current one", ErrNoOther), "see what there is: mobileops vulndb list")
		}
	}
	g, before := sh.get(number), sh.get(sh.current)
	switch {
	case g == nil:
		return nil, failure.Hint(fmt.Errorf("%w: %d", ErrNoOther, number), "see what there is: mobileops vulndb list")
	case g.Current:
		return nil, failure.Errorf(failure.Busy, "%s is current already", g.title())
	}
	if err := s.prove(ctx, g); err != nil {
		return nil, failure.Hint(fmt.Errorf("%s: %w; nothing was changed", g.title(), err), "go back further with --to N, or get the database again")
	}
	if err := s.point(k, number); err != nil {
		return nil, disk(err, s.opts.Dir)
	}
	s.step("pointed")
	if err := s.change(ctx, k, nil, nil, number); err != nil {
		return nil, errors.Join(err, s.point(k, sh.current))
	}
	g.Current = true
	if before != nil {
		before.Current = false
	}
	return &Result{Generation: g, Before: before}, nil
}
