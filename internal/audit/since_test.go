package audit

import (
	"errors"
	"testing"

	"github.com/mobileops/mobileops/internal/state"
)

func TestSinceReadsWhatFollows(t *testing.T) {
	l, s := newLog(t.TempDir())
	read := func(after uint64, limit, maxBytes int) (list []Record, err error) {
		err = s.View(ctx, func(tx *state.Tx) error {
			list, err = Since(tx, after, limit, maxBytes)
			return err
		})
		return list, err
	}
	if list, err := read(0, 10, 1000); len(list) != 0 || err != nil {
		t.Errorf("empty chain: %d records, %v", len(list), err)
	}
	grow(t, l, 5)
	var all []Record
	if err := l.Records(ctx, func(r Record) error { all = append(all, r); return nil }); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		after           uint64
		limit, maxBytes int
		want            int
	}{{0, 10, 1 << 20, 5}, {2, 10, 1 << 20, 3}, {2, 2, 1 << 20, 2}, {5, 10, 1 << 20, 0}, {0, 10, 1, 1}} {
		list, err := read(c.after, c.limit, c.maxBytes)
		if err != nil || len(list) != c.want {
			t.Errorf("%+v: %d records, %v", c, len(list), err)
		}
		for i, r := range list {
			if want := all[int(c.after)+i]; r.Sequence != want.Sequence || r.Hash != want.Hash || r.Result != want.Result {
				t.Errorf("%+v: record %d is %+v, want %+v", c, i, r, want)
			}
		}
	}
	if _, err := read(6, 1, 1000); !errors.Is(err, ErrRewound) {
		t.Errorf("after the end: %v", err)
	}
	if err := s.Update(ctx, func(tx *state.Tx) error { return tx.Bucket(recordBucket()).Put(sequenceKey(3), []byte("x")) }); err != nil {
		t.Fatal(err)
	}
	if _, err := read(0, 10, 1<<20); !errors.Is(err, ErrBroken) {
		t.Errorf("damaged: %v", err)
	}
}
