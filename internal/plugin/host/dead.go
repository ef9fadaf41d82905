package host

import (
	"encoding/binary"
	"encoding/json"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/state"
	bolt "go.etcd.io/bbolt"
)

const deadBucket = "plugin_dead"

// Limits of what is kept of batches that could not be delivered, of one name.
const (
	MaxDead      = 1000     // batches; the oldest go
	maxDeadBytes = 32 << 10 // of one; events that do not fit are left out
)

// DeadBatch is a batch of events that was put aside because its delivery
// failed again and again.
type DeadBatch struct {
	Time     time.Time         `json:"time"` // when it was put aside
	Error    string            `json:"error"`
	Attempts int               `json:"attempts"`
	From     string            `json:"from"` // cursor before the batch
	To       string            `json:"to"`   // cursor behind it
	Count    int               `json:"count"`
	Events   []json.RawMessage `json:"events"` // the first of them
}

// putAside stores a batch. The number of a batch is one more than that of the
// one before, so that the last number says how many there ever were.
func putAside(tx *state.Tx, name string, d DeadBatch, events []Event) error {
	top, err := tx.CreateBucketIfNotExists([]byte(deadBucket))
	if err != nil {
		return err
	}
	b, err := top.CreateBucketIfNotExists([]byte(name))
	if err != nil {
		return err
	}
	d.Error = clean(d.Error, 1<<10)
	d.Count = len(events)
	size := 0
	for i := range events {
		raw, err := events[i].MarshalJSON()
		if err != nil {
			return err
		}
		if size += len(raw); size > maxDeadBytes {
			break
		}
		d.Events = append(d.Events, raw)
	}
	v, err := json.Marshal(d)
	if err != nil {
		return err
	}
	seq, err := b.NextSequence()
	if err != nil {
		return err
	}
	if err := b.Put(binary.BigEndian.AppendUint64(nil, seq), v); err != nil {
		return err
	}
	if seq <= MaxDead {
		return nil
	}
	return b.Delete(binary.BigEndian.AppendUint64(nil, seq-MaxDead))
}

// Dead calls fn with what was put aside for a name, oldest first, and returns
// how many batches there ever were.
func Dead(tx *state.Tx, name string, fn func(DeadBatch) error) (total uint64, err error) {
	var b *bolt.Bucket
	if top := tx.Bucket([]byte(deadBucket)); top != nil {
		b = top.Bucket([]byte(name))
	}
	if b == nil {
		return 0, nil
	}
	return b.Sequence(), b.ForEach(func(k, v []byte) error {
		var d DeadBatch
		if err := json.Unmarshal(v, &d); err != nil {
			return failure.Hint(failure.Errorf(failure.Untrustworthy, "what was put aside for %s as %x is damaged: %v", name, k, err), "look: mobileops state check")
		}
		return fn(d)
	})
}
