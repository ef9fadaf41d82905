package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/mobileops/mobileops/internal/durable"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/state"
)

// change is one change of the store while it is made, under its lock. What
// was carried through or undone of an earlier one is done when it begins.
type change struct {
	store *Store
	*index
	now   time.Time
	fresh []*freshSegment // written, and not visible yet
}

// change takes the lock and lets fn change the store by commit.
func (s *Store) change(ctx context.Context, doing string, fn func(*change) error) error {
	lock, err := s.exclusive(ctx, doing)
	if err != nil {
		return err
	}
	defer lock.Release()
	x, err := s.index(ctx)
	if err == nil && x == nil {
		if err = s.create(ctx); err == nil {
			x, err = s.index(ctx)
		}
	}
	if err != nil {
		return err
	}
	if err := s.settle(ctx, x); err != nil {
		return err
	}
	c := &change{store: s, index: x, now: s.opts.Now()}
	defer c.abort()
	if err := fn(c); err != nil {
		return err
	}
	s.sweepLater(ctx, x)
	return nil
}

// abort removes segments that did not become visible.
func (c *change) abort() {
	for _, f := range c.fresh {
		f.file.Abort()
	}
	c.fresh = nil
}

// commit makes the change that op describes. Its segments are those in fresh.
func (c *change) commit(ctx context.Context, op *operation) error {
	s := c.store
	body := op.encode()
	if len(body) > maxMerkleFrame {
		return failure.Errorf(failure.Failed, "a change of %d bytes is too large for the Merkle log", len(body))
	}
	frame := merkleFrame(&c.tree, body)
	at := c.bytes
	// A change that does not fit must not get into the log.
	next := c.index
	if err := next.apply(op, int64(len(frame))); err != nil {
		return fmt.Errorf("%w: %w", ErrTampered, err)
	}
	if err := appendMerkle(s.merklePath(), at, frame); err != nil {
		return err
	}
	if err := c.publish(); err != nil {
		return errors.Join(err, s.undo(op, at))
	}
	// From here on the change is carried through, now or by whoever comes next.
	return s.store(ctx, next, op)
}

// publish gives the fresh segments their names.
func (c *change) publish() error {
	fresh := c.fresh
	for len(fresh) > 0 {
		if err := os.Rename(fresh[0].file.Name(), c.store.segmentPath(fresh[0].id)); err != nil {
			return access(err)
		}
		fresh = fresh[1:]
		c.fresh = fresh
	}
	return durable.SyncDir(c.store.segmentDir())
}

// store writes the index, to which op was applied, to state.db.
func (s *Store) store(ctx context.Context, x *index, op *operation) error {
	return s.opts.State.Update(ctx, func(tx *state.Tx) error {
		b := tx.Bucket([]byte(storeBucket))
		if b == nil {
			return errors.New("the log store vanished from state.db")
		}
		h, err := decodeHead(b.Get([]byte(headKey)))
		if err != nil {
			return damagedCatalogue(err)
		}
		if h.tree.size+uint64(len(op.leaves)) != x.tree.size {
			return errors.New("state.db was changed by another process meanwhile")
		}
		return x.save(tx, op.cursors)
	})
}

// settle brings to its end what a process that died had begun: every frame in
// the Merkle log behind the head that state.db knows. It changes x to what the
// store is then.
func (s *Store) settle(ctx context.Context, x *index) error {
	st, err := os.Lstat(s.merklePath())
	if errors.Is(err, fs.ErrNotExist) {
		return tampered("%s is gone", s.merklePath())
	}
	if err != nil {
		return access(err)
	}
	switch {
	case st.Size() == x.bytes:
		s.sweepLater(ctx, x)
		return nil
	case st.Size() < x.bytes:
		return tampered("%s has %d bytes, and had %d", s.merklePath(), st.Size(), x.bytes)
	}
	ops, sizes, err := s.tail(ctx, x)
	if err != nil {
		return err
	}
	if len(ops) == 0 { // the frame itself was not written to its end
		return truncate(s.merklePath(), x.bytes)
	}
	at := x.bytes
	missing, err := s.missing(ops)
	if err != nil {
		return err
	}
	if len(missing) > 0 {
		if len(ops) > 1 || !s.stillThere(x, ops[0]) {
			return tampered("state.db is older than the logs, and segment %d is gone", missing[0])
		}
		return s.undo(ops[0], at)
	}
	for i, op := range ops {
		if err := x.apply(op, sizes[i]); err != nil {
			return tampered("%w", err)
		}
		if err := s.store(ctx, x, op); err != nil {
			return err
		}
	}
	s.sweepLater(ctx, x)
	return truncate(s.merklePath(), x.bytes) // what is torn behind them
}

func tampered(format string, args ...any) error {
	return failure.Hint(fmt.Errorf("%w: %w", ErrTampered, fmt.Errorf(format, args...)), "see what is wrong: mobileops logs verify")
}

// tail reads the whole frames behind the head.
func (s *Store) tail(ctx context.Context, x *index) (ops []*operation, sizes []int64, err error) {
	r, f, err := openMerkle(s.merklePath(), x.store, x.bytes, x.tree.clone(), -1)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	for {
		at := r.at
		op, err := r.next(ctx)
		if err == io.EOF || errors.Is(err, errTorn) {
			return ops, sizes, nil
		}
		if isFormat(err) {
			return nil, nil, tampered("%w", err)
		}
		if err != nil {
			return nil, nil, err
		}
		ops = append(ops, op)
		sizes = append(sizes, r.at-at)
	}
}

// missing lists the segments that would be part of the store after the
// operations, and have no file.
func (s *Store) missing(ops []*operation) (list []uint64, err error) {
	want := map[uint64]bool{}
	for _, op := range ops {
		for _, r := range op.records {
			for _, id := range r.From {
				delete(want, id)
			}
			switch r.Kind {
			case KindAdded, KindMerged:
				want[r.Segment.ID] = true
			case KindRemoved:
				delete(want, r.ID)
			}
		}
	}
	for id := range want {
		if _, err := os.Lstat(s.segmentPath(id)); errors.Is(err, fs.ErrNotExist) {
			list = append(list, id)
		} else if err != nil {
			return nil, access(err)
		}
	}
	sortNumbers(list)
	return list, nil
}

// stillThere tells whether what an operation takes its records from is there,
// so that it can be undone.
func (s *Store) stillThere(x *index, op *operation) bool {
	for g := x.consumed + 1; g <= op.generation; g++ {
		if _, err := os.Lstat(walPath(s, g)); err != nil {
			return false
		}
	}
	for _, r := range op.records {
		for _, id := range r.From {
			if _, err := os.Lstat(s.segmentPath(id)); err != nil {
				return false
			}
		}
	}
	return true
}

// undo removes what an operation that does not come to its end left: its
// segments, and its frame in the Merkle log.
func (s *Store) undo(op *operation, at int64) error {
	var errs []error
	for _, r := range op.records {
		if r.Segment == nil {
			continue
		}
		if err := os.Remove(s.segmentPath(r.Segment.ID)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	errs = append(errs, durable.SyncDir(s.segmentDir()))
	if err := errors.Join(errs...); err != nil {
		return access(err) // the frame still says what is to be undone
	}
	return truncate(s.merklePath(), at)
}
