package logs

import (
	"bytes"
	"errors"

	"github.com/mobileops/mobileops/internal/logs/event"
	"github.com/mobileops/mobileops/internal/logs/match"
	"github.com/mobileops/mobileops/internal/logs/query"
)

// taker takes events that come one after the other, in order: those of a
// journal, of plain files, or those that are collected just now. It decides
// which match, and hands these out with those around them.
type taker struct {
	opts   *Options
	report *Report
	emit   func(Match) error
	eval   *query.Evaluator
	pipe   *query.Pipeline
	kind   query.Counting
	fill   func(*event.Event) // finds the fields of events

	before []*event.Event // the last that were not handed out
	after  int            // how many are still to be handed out as context
	left   bool           // one was left out since the last that was handed out
	limit  int
	enough bool // the limit is reached, and what follows the last match is still to come
}

func (t *taker) begin() {
	t.limit = t.opts.Limit
	if t.pipe = t.opts.Query.Pipeline(); t.pipe != nil {
		t.kind = t.pipe.Counting()
		t.pipe.OnEvent = func(e *event.Event) error { return t.emit(Match{Event: e}) }
	}
}

// event takes an event. It and its bytes may be used anew afterwards.
func (t *taker) event(e *event.Event) error {
	if e.Time < t.opts.Since || e.Time >= t.opts.Until {
		return nil
	}
	if t.eval.Eval(e) {
		if t.enough {
			return errEnough
		}
		return t.found(e)
	}
	switch {
	case t.after > 0:
		if err := t.emit(Match{Event: e, Context: true}); err != nil {
			return err
		}
		if t.after--; t.after == 0 && t.enough {
			return errEnough
		}
	case t.opts.Before > 0:
		if len(t.before) == t.opts.Before {
			t.before = append(t.before[:0], t.before[1:]...)
			t.left = true
		}
		kept := &event.Event{Record: e.Record, Origin: e.Origin, Fill: t.fill}
		kept.Raw = bytes.Clone(e.Raw)
		kept.Text = kept.Raw[:len(e.Text)]
		t.before = append(t.before, kept)
	default:
		t.left = true
	}
	return nil
}

// found takes an event that matches.
func (t *taker) found(e *event.Event) error {
	t.report.Matches++
	if t.pipe != nil {
		if t.kind != query.CountNothing {
			t.pipe.AddCount(e.Time, 1)
			return nil
		}
		return t.pipe.Add(e)
	}
	if t.opts.CountOnly {
		return nil
	}
	apart := t.left
	for _, b := range t.before {
		if err := t.emit(Match{Event: b, Context: true, Apart: apart}); err != nil {
			return err
		}
		apart = false
	}
	t.before, t.left, t.after = t.before[:0], false, t.opts.After
	if err := t.emit(Match{Event: e, Apart: apart}); err != nil {
		return err
	}
	if t.limit > 0 {
		if t.limit--; t.limit == 0 {
			if t.after == 0 {
				return errEnough
			}
			t.enough = true
		}
	}
	return nil
}

// end ends the pipeline. err is what ended the search.
func (t *taker) end(err error) error {
	switch {
	case errors.Is(err, errEnough):
		t.report.Limited, err = true, nil
	case errors.Is(err, query.ErrDone):
		err = nil
	}
	t.report.Limited = t.report.Limited || t.enough
	if t.pipe == nil {
		return err
	}
	table, perr := t.pipe.Result()
	if perr == nil && t.pipe.Tabular() {
		t.report.Table = &table
	}
	return errors.Join(err, perr)
}

// wordless says that no literal of a need must be a whole word.
func wordless(n match.Need) bool {
	for _, c := range n.Clauses {
		for _, l := range c {
			if l.Word {
				return false
			}
		}
	}
	return true
}
