package logs

import (
	"context"
	"fmt"

	"github.com/mobileops/mobileops/internal/logs/event"
	"github.com/mobileops/mobileops/internal/logs/store"
)

// Stored returns what a snapshot of the store has. The records that are in no
// segment yet are copied; an error tells what of them could not be read, the
// corpus has the others all the same.
func Stored(ctx context.Context, snap *store.Snapshot) (*Corpus, error) {
	c := new(Corpus)
	files := &pool{max: maxOpenFiles}
	for i := range snap.Segments {
		s := &snap.Segments[i]
		c.Segments = append(c.Segments, Segment{
			Name:    fmt.Sprintf("segment %d (%s)", s.ID, s.Origin.Source),
			Origin:  s.Origin,
			MinTime: s.MinTime, MaxTime: s.MaxTime,
			Order: s.ID,
			Open: func(ctx context.Context) (Data, error) {
				data, err := s.Open(ctx)
				if err != nil {
					return nil, err
				}
				return files.add(data, func() (Data, error) { return s.Open(ctx) }), nil
			},
		})
	}
	at := map[event.Origin]int{}
	var arena []byte
	err := snap.Pending(ctx, func(o *event.Origin, r *event.Record) error {
		i, known := at[*o]
		if !known {
			i = len(c.Loose)
			at[*o] = i
			c.Loose = append(c.Loose, Loose{Origin: *o})
		}
		if cap(arena)-len(arena) < len(r.Raw) {
			arena = make([]byte, 0, max(len(r.Raw), 1<<20))
		}
		from := len(arena)
		arena = append(arena, r.Raw...)
		kept := *r
		kept.Raw = arena[from:len(arena):len(arena)]
		c.Loose[i].Records = append(c.Loose[i].Records, kept)
		return nil
	})
	return c, err
}
