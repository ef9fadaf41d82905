package schedule

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"slices"
	"strings"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/state"
	"github.com/zeebo/blake3"
)

// bucket holds the schedules: name → Schedule as JSON, and reportedKey.
var bucket = []byte("integrity.schedules")

// Digest is the BLAKE3 digest of a file's content. In text it is hexadecimal.
type Digest [32]byte

func digest(b []byte) Digest { return blake3.Sum256(b) }

// MarshalText writes 64 hexadecimal digits.
func (d Digest) MarshalText() ([]byte, error) { return []byte(hex.EncodeToString(d[:])), nil }

// UnmarshalText reads 64 hexadecimal digits.
func (d *Digest) UnmarshalText(b []byte) error {
	if len(b) != 2*len(d) {
		return hex.ErrLength
	}
	_, err := hex.Decode(d[:], b)
	return err
}

// ErrNone is wrapped when there is no schedule of a name.
var ErrNone = failure.New(failure.NotReady, "no such schedule")

// List returns the schedules, by name.
func List(ctx context.Context, store *state.Store) (list []Schedule, err error) {
	err = store.View(ctx, func(tx *state.Tx) error {
		list, err = Load(tx)
		return err
	})
	return list, err
}

// Load returns the schedules that a transaction sees, by name.
func Load(tx *state.Tx) ([]Schedule, error) {
	b := tx.Bucket(bucket)
	if b == nil {
		return nil, nil
	}
	var list []Schedule
	err := b.ForEach(func(k, v []byte) error {
		if bytes.Equal(k, reportedKey) {
			return nil
		}
		var s Schedule
		if err := json.Unmarshal(v, &s); err != nil {
			return failure.Errorf(failure.Untrustworthy, "schedule %q: %w", k, err)
		}
		list = append(list, s)
		return nil
	})
	return list, err
}

// Find returns the schedule of a name.
func Find(ctx context.Context, store *state.Store, name string) (Schedule, error) {
	list, err := List(ctx, store)
	if err != nil {
		return Schedule{}, err
	}
	if at := slices.IndexFunc(list, func(s Schedule) bool { return s.Name == name }); at >= 0 {
		return list[at], nil
	}
	names := make([]string, len(list))
	for i, s := range list {
		names[i] = s.Name
	}
	hint := "make one: mobileops integrity schedule --daily 03:00"
	if len(names) > 0 {
		hint = "there are: " + strings.Join(names, ", ")
	}
	return Schedule{}, failure.Hint(failure.Errorf(failure.NotReady, "%w: %q", ErrNone, name), hint)
}

func save(ctx context.Context, store *state.Store, s *Schedule) error {
	v, err := json.Marshal(s)
	if err != nil {
		return err
	}
	return store.Update(ctx, func(tx *state.Tx) error {
		b, err := tx.CreateBucketIfNotExists(bucket)
		if err != nil {
			return err
		}
		return b.Put([]byte(s.Name), v)
	})
}

func forget(ctx context.Context, store *state.Store, name string) error {
	return store.Update(ctx, func(tx *state.Tx) error {
		if b := tx.Bucket(bucket); b != nil {
			return b.Delete([]byte(name))
		}
		return nil
	})
}
