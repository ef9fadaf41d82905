package plugin

import (
	"context"
	"encoding/json"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/plugin/source"
	"github.com/mobileops/mobileops/internal/state"
)

// bucketIndexes is a bucket of state.db: address of an index → source.Seen, JSON.
// It is by address, since what an administrator calls another index tomorrow has
// serial numbers of its own.
const bucketIndexes = "plugin_indexes"

// SeenIndex returns what was accepted last of the index at an address; zero:
// nothing yet.
func (e *Engine) SeenIndex(ctx context.Context, url string) (seen source.Seen, err error) {
	err = e.opts.State.View(ctx, func(tx *state.Tx) error {
		seen, err = seenIndex(tx, url)
		return err
	})
	return seen, err
}

func seenIndex(tx *state.Tx, url string) (seen source.Seen, err error) {
	if b := tx.Bucket([]byte(bucketIndexes)); b != nil {
		if data := b.Get([]byte(url)); data != nil {
			if err := json.Unmarshal(data, &seen); err != nil {
				return seen, failure.Errorf(failure.Untrustworthy, "what was seen of the index %s: %v (restore the state: mobileops state restore)", url, err)
			}
		}
	}
	return seen, nil
}

// AcceptIndex remembers an index. What another process accepted meanwhile is
// never gone back behind.
func (e *Engine) AcceptIndex(ctx context.Context, url string, seen source.Seen) error {
	data, err := json.Marshal(seen)
	if err != nil {
		return err
	}
	return e.opts.State.Update(ctx, func(tx *state.Tx) error {
		before, err := seenIndex(tx, url)
		if err != nil || before.Serial >= seen.Serial {
			return err
		}
		b, err := tx.CreateBucketIfNotExists([]byte(bucketIndexes))
		if err != nil {
			return err
		}
		return b.Put([]byte(url), data)
	})
}
