package logs

import (
	"context"
	"errors"
	"slices"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/failure"
	engine "github.com/mobileops/mobileops/internal/logs"
	"github.com/mobileops/mobileops/internal/logs/event"
	"github.com/mobileops/mobileops/internal/logs/query"
	"github.com/mobileops/mobileops/internal/logs/store"
	"github.com/mobileops/mobileops/internal/seal"
	"github.com/mobileops/mobileops/internal/ui"
)

// keyless says that a problem is that there is no key, or not the right one.
func keyless(p engine.Problem) bool {
	return failure.KindOf(p.Err) == failure.NotReady || errors.Is(p.Err, seal.ErrNoKey)
}

// locked returns how many of the problems are that there is no key.
func locked(r engine.Report) (n int) {
	for _, p := range r.Problems {
		if keyless(p) {
			n++
		}
	}
	return n
}

// verdict says what could not be searched, and turns the result into a status.
func verdict(a *app.App, q *query.Query, r engine.Report) error {
	kind := failure.None
	if r.Matches == 0 {
		kind = failure.No
		for _, note := range q.Notes() {
			a.Streams.Notice("mobileops: logs search: %s", note)
		}
	}
	others, shut := 0, locked(r)
	for _, p := range r.Problems {
		k := failure.Incomplete
		if errors.Is(p.Err, store.ErrTampered) {
			k = failure.Untrustworthy
		} else if keyless(p) {
			k = failure.NotReady
		}
		kind = failure.Worse(kind, k)
		if k == failure.NotReady {
			if shut > 0 { // they are all the same: one stands for them
				a.Streams.Notice("mobileops: logs search: %s not searched: %s", ui.Plural(int64(shut), "part was", "parts were"), ui.Escape(p.Err.Error()))
				shut = 0
			}
			continue
		}
		if others++; others <= 20 {
			a.Streams.Notice("mobileops: logs search: %s", ui.Escape(p.Error()))
		}
	}
	if others > 20 {
		a.Streams.Notice("mobileops: logs search: %d more could not be searched", others-20)
	}
	if r.Table != nil && r.Table.Partial {
		a.Streams.Notice("mobileops: logs search: the table is not whole: %s", r.Table.Why)
		kind = failure.Worse(kind, failure.Incomplete)
	}
	if kind == failure.None {
		return nil
	}
	return failure.Silent(kind)
}

// noticeSources says of each --source that nothing stored is of that name: a
// typing error must not look like an answer.
func (o *searchOptions) noticeSources(ctx context.Context, a *app.App, s *store.Store) {
	stats, err := s.Stats(ctx)
	if err != nil {
		return
	}
	for _, name := range o.sources {
		f, err := query.Field("source", query.Options{}, name)
		if err != nil {
			continue
		}
		q, err := query.Parse("", query.Options{})
		if err != nil {
			continue
		}
		eval := q.And(f).NewEvaluator()
		if !slices.ContainsFunc(stats, func(st store.SourceStats) bool {
			return eval.Eval(&event.Event{Origin: &event.Origin{Source: st.Source}})
		}) {
			a.Streams.Notice("mobileops: logs search: nothing is stored of a source %s (see them: mobileops logs status)", ui.Escape(name))
		}
	}
}
