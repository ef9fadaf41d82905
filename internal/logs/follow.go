package logs

import (
	"context"
	"errors"

	"github.com/mobileops/mobileops/internal/logs/event"
	"github.com/mobileops/mobileops/internal/logs/journal"
	"github.com/mobileops/mobileops/internal/logs/store"
)

// Follow searches what is stored and goes on with what is collected, until the
// context ends or the limit is reached. Another process collects.
func Follow(ctx context.Context, snap *store.Snapshot, c *Corpus, o Options, emit func(Match) error) (Report, error) {
	r, err := Search(ctx, c, o, emit)
	if err != nil || r.Limited {
		return r, err
	}
	if o.Limit > 0 {
		o.Limit -= int(r.Matches)
	}
	t := taker{opts: &o, report: &r, emit: emit, eval: o.Query.NewEvaluator()}
	t.begin()
	fills := map[string]func(*event.Event){}
	var e event.Event
	err = snap.Follow(ctx, func(origin *event.Origin, rec *event.Record) error {
		fill, known := fills[origin.Format]
		if !known {
			if o.Fill != nil {
				fill = o.Fill(origin.Format)
			}
			fills[origin.Format] = fill
		}
		own := *origin
		e = event.Event{Record: *rec, Origin: &own, Text: rec.Raw, Fill: fill}
		if own.Format == JournalFormat {
			e.Text = journal.Text(rec.Raw)
		}
		t.fill = fill
		return t.event(&e)
	})
	if errors.Is(err, context.Canceled) {
		err = nil // that is how following ends
	}
	return r, t.end(err)
}
