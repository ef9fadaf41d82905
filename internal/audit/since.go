package audit

import (
	"encoding/binary"
	"fmt"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/state"
)

// ErrRewound says that the chain ends before the record that a reader has
// already read: the state was put back to an earlier one.
var ErrRewound = failure.New(failure.Untrustworthy, "the audit chain ends before this position")

// Last returns the sequence number of the last record, 0 when there is none.
func Last(tx *state.Tx) (uint64, error) {
	b := tx.Bucket(recordBucket())
	if b == nil {
		return 0, nil
	}
	k, _ := b.Cursor().Last()
	if k == nil {
		return 0, nil
	}
	if len(k) != 8 {
		return 0, broken(fmt.Errorf("an entry has the key %x, which is no sequence number", k))
	}
	return binary.BigEndian.Uint64(k), nil
}

// Since returns the records that follow record after, oldest first: at most
// limit of them, and no more than fit into maxBytes as stored, but one if there
// is one. It does not verify the chain; a record that cannot be read is
// ErrBroken, and an after that the chain does not reach ErrRewound.
func Since(tx *state.Tx, after uint64, limit, maxBytes int) ([]Record, error) {
	last, err := Last(tx)
	if err != nil {
		return nil, err
	}
	if after > last {
		return nil, fmt.Errorf("%w: it ends with record %d, and %d was read", ErrRewound, last, after)
	}
	if after == last {
		return nil, nil
	}
	var records []Record
	c := tx.Bucket(recordBucket()).Cursor()
	for k, v := c.Seek(sequenceKey(after + 1)); k != nil && len(records) < limit; k, v = c.Next() {
		if maxBytes -= len(v); maxBytes < 0 && len(records) > 0 {
			break
		}
		r, err := stored{k, v}.record()
		if err != nil {
			return nil, broken(err)
		}
		records = append(records, r)
	}
	return records, nil
}

func broken(err error) error {
	return failure.Hint(fmt.Errorf("%w: %w", ErrBroken, err), "see what is wrong: mobileops audit verify")
}
