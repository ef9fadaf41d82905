package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"

	"github.com/mobileops/mobileops/pkg/pluginsdk"
	"github.com/mobileops/mobileops/plugins/siem-integration-plugin/internal/packed"
	"github.com/mobileops/mobileops/plugins/siem-integration-plugin/internal/queue"
)

// intake brings batches of the host into the queue.
type intake struct {
	q       *queue.Queue
	full    atomic.Bool // it waits for room
	arena   []byte
	records []queue.Record
}

// take returns when the events of a batch are in the queue and synced. While
// that is full it waits: the host keeps what it has not delivered, and says so
// when it had to forget something.
func (in *intake) take(ctx context.Context, b pluginsdk.Batch) error {
	in.arena, in.records = in.arena[:0], in.records[:0]
	ends := make([]int, len(b.Events))
	for i := range b.Events {
		e := &b.Events[i]
		if e.ID == "" || len(e.ID) > queue.MaxID {
			e.ID = ownID(b.Cursor, i, e)
		}
		in.arena = packed.Append(in.arena, e)
		ends[i] = len(in.arena)
	}
	start := 0
	for i := range b.Events {
		in.records = append(in.records, queue.Record{ID: b.Events[i].ID, Raw: in.arena[start:ends[i]]})
		start = ends[i]
	}
	for {
		wait := in.q.Changed() // before the attempt, so that no news is missed
		_, err := in.q.Append(in.records)
		if !errors.Is(err, queue.ErrFull) {
			in.full.Store(false)
			return err
		}
		in.full.Store(true)
		select {
		case <-wait:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// ownID names an event that has no id that can be used, such as a gap. It is
// the same when the batch is delivered again.
func ownID(cursor string, i int, e *pluginsdk.Event) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%q %d %q %q %d", cursor, i, e.ID, e.Type, e.Lost))
	return e.Type + "-" + hex.EncodeToString(sum[:16])
}

// wanted are the types of events that any destination wants; none for all.
func (s *settings) wanted() []string {
	var types []string
	for i := range s.Destinations {
		if len(s.Destinations[i].Types) == 0 {
			return nil
		}
		types = append(types, s.Destinations[i].Types...)
	}
	slices.Sort(types)
	return slices.Compact(types)
}
