package logs

import (
	"context"
	"fmt"
	"slices"

	"github.com/mobileops/mobileops/internal/logs/event"
	"github.com/mobileops/mobileops/internal/logs/match"
	"github.com/mobileops/mobileops/internal/logs/query"
	"github.com/mobileops/mobileops/internal/logs/segment"
)

// hit is a record that a worker found, or one beside it.
type hit struct {
	event   *event.Event
	context bool
	spot
}

// found is what a worker found in a unit.
type found struct {
	unit    *unit
	hits    []hit // in the order of rows
	matches int64
	err     error
}

// worker looks through units. It is one goroutine's.
type worker struct {
	ctx   context.Context
	opts  *Options
	block segment.Block
	need  *segment.Search
	eval  *query.Evaluator
	exact bool            // of the need, in formats whose text is all of the record
	pipe  *query.Pipeline // of this worker; nil: matches are handed out
	kind  query.Counting  // what pipe needs of matches

	pattern *match.Matcher     // what the query is, if it is a pattern and nothing else
	fill    func(*event.Event) // of the format of the unit at hand
	arena   []byte
	event   event.Event
}

func newWorker(ctx context.Context, o *Options, pipe *query.Pipeline) *worker {
	need := o.Query.Need()
	w := &worker{ctx: ctx, opts: o, need: segment.NewSearch(need), eval: o.Query.NewEvaluator(), exact: need.Exact, pipe: pipe}
	if pipe != nil {
		w.kind = pipe.Counting()
	}
	if p := o.Query.Pattern(); p != nil {
		w.pattern = p.NewMatcher()
	}
	return w
}

// search looks through a unit.
func (w *worker) search(u *unit) found {
	defer u.file.release()
	f := found{unit: u}
	w.arena = nil // hits of the unit before keep it
	if w.opts.Fill != nil {
		w.fill = w.opts.Fill(u.origin.Format)
	}
	if u.file == nil {
		f.err = w.loose(u, &f)
	} else {
		f.err = w.inBlock(u, &f)
	}
	return f
}

func (w *worker) loose(u *unit, f *found) error {
	var rows []int
	for i := range u.loose {
		r := &u.loose[i]
		if r.Time < w.opts.Since || r.Time >= w.opts.Until || !w.matches(u, r) {
			continue
		}
		if err := w.match(u, f, i, r); err != nil {
			return err
		}
		rows = append(rows, i)
	}
	if !w.around() {
		return nil
	}
	return w.withContext(u, f, rows, len(u.loose), func(i int) (event.Record, error) { return u.loose[i], nil })
}

// around says whether records beside the matches are wanted.
func (w *worker) around() bool {
	return w.opts.Before+w.opts.After > 0 && w.pipe == nil && !w.opts.CountOnly
}

// match counts a record that matches, and keeps it where it is wanted. The
// event of the worker is that of the record.
func (w *worker) match(u *unit, f *found, row int, r *event.Record) error {
	f.matches++
	switch {
	case w.pipe != nil && w.kind == query.CountNothing:
		return w.pipe.Add(&w.event)
	case w.pipe != nil:
		w.pipe.AddCount(r.Time, 1)
	case !w.opts.CountOnly && !w.around():
		w.keep(f, u, r, spot{segment: u.segment, origin: u.origin, block: u.block, row: row}, false)
	}
	return nil
}

// prepare makes the event of a record.
func (w *worker) prepare(e *event.Event, u *unit, r *event.Record) {
	*e = event.Event{Record: *r, Origin: u.origin, Text: r.Raw}
	e.Fill = w.fill
	if u.origin.Format == JournalFormat {
		e.Text = journalText(r.Raw)
	}
}

func (w *worker) matches(u *unit, r *event.Record) bool {
	w.prepare(&w.event, u, r)
	return w.eval.Eval(&w.event)
}

// keep adds a copy of a record to what was found.
func (w *worker) keep(f *found, u *unit, r *event.Record, at spot, context bool) {
	if cap(w.arena)-len(w.arena) < len(r.Raw) {
		w.arena = make([]byte, 0, max(len(r.Raw), min(256<<10, max(4<<10, 2*cap(w.arena)))))
	}
	from := len(w.arena)
	w.arena = append(w.arena, r.Raw...)
	kept := *r
	kept.Raw = w.arena[from:len(w.arena):len(w.arena)]
	e := new(event.Event)
	w.prepare(e, u, &kept)
	if w.opts.Parse {
		e.Parsed()
	}
	f.hits = append(f.hits, hit{e, context, at})
}

func (w *worker) inBlock(u *unit, f *found) error {
	if !u.file.reader.Possible(u.block, w.need) {
		return nil
	}
	if err := w.block.Load(u.file.reader, u.block); err != nil {
		return err
	}
	sel, err := w.block.Select(w.need)
	if err != nil || sel.Empty() {
		return err
	}
	exact := sel.Exact && w.exact && u.origin.Format != JournalFormat
	whole := u.first >= w.opts.Since && u.last < w.opts.Until
	switch {
	case exact && whole && (w.opts.CountOnly || w.pipe != nil && w.kind == query.CountTotal):
		f.matches = int64(sel.Count())
		if w.pipe != nil {
			w.pipe.AddCount(0, f.matches)
		}
		return nil
	case exact && (w.opts.CountOnly || w.pipe != nil && w.kind != query.CountNothing):
		return w.block.Times(sel, w.opts.Since, w.opts.Until, func(_ int, at int64) {
			f.matches++
			if w.pipe != nil {
				w.pipe.AddCount(at, 1)
			}
		})
	}
	if w.pattern != nil && !exact && u.origin.Format != JournalFormat {
		return w.inBatches(u, f, sel)
	}
	var rows []int
	err = w.block.Each(sel, w.opts.Since, w.opts.Until, func(i int, r *event.Record) error {
		if exact {
			w.prepare(&w.event, u, r)
		} else if !w.matches(u, r) {
			return nil
		}
		if w.around() {
			rows = append(rows, i)
		}
		return w.match(u, f, i, r)
	})
	if err != nil || !w.around() {
		return err
	}
	return w.withContext(u, f, rows, int(u.file.reader.Block(u.block).Records), w.block.Record)
}

// inBatches is inBlock for a query that is one pattern: it is looked for in many
// records at a time.
func (w *worker) inBatches(u *unit, f *found, sel segment.Selection) error {
	var rows []int
	err := w.block.Batches(sel, w.opts.Since, w.opts.Until, func(b *segment.Batch) error {
		if b.Plain && w.opts.CountOnly {
			f.matches += int64(w.pattern.CountLines(b.Text))
			return nil
		}
		k := 0
		for from := 0; from < len(b.Text); {
			at, _ := w.pattern.NextLine(b.Text, from)
			if at < 0 {
				return nil
			}
			for b.Ends[k] < at {
				k++
			}
			start := 0
			if k > 0 {
				start = b.Ends[k-1] + 1
			}
			from = b.Ends[k] + 1
			r := event.Record{Raw: b.Text[start:b.Ends[k]:b.Ends[k]]}
			r.Time, r.Clock = w.block.When(b.Rows[k])
			w.prepare(&w.event, u, &r)
			if w.around() {
				rows = append(rows, b.Rows[k])
			}
			if err := w.match(u, f, b.Rows[k], &r); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil || !w.around() {
		return err
	}
	return w.withContext(u, f, rows, int(u.file.reader.Block(u.block).Records), w.block.Record)
}

// withContext adds the records of a unit at rows, and those around them, also
// where these lie in the units beside it. What matches there, and what is
// around that, the other unit adds.
func (w *worker) withContext(u *unit, f *found, rows []int, n int, record func(int) (event.Record, error)) error {
	if len(rows) == 0 {
		return nil
	}
	if missing := w.opts.Before - rows[0]; missing > 0 {
		w.beside(u, f, missing, false)
	}
	blocks := 1
	if u.file != nil {
		blocks = u.file.reader.Blocks()
	}
	done := -1 // the last row that was added
	for k, row := range rows {
		to := min(row+w.opts.After, n-1)
		if k+1 < len(rows) {
			to = min(to, rows[k+1]-1)
		}
		for i := max(done+1, row-w.opts.Before, 0); i <= to; i++ {
			r, err := record(i)
			if err != nil {
				return err
			}
			w.keep(f, u, &r, u.line.spot(u.segment, u.block, blocks, i, n), i != row)
			done = i
		}
	}
	if missing := rows[len(rows)-1] + w.opts.After - (n - 1); missing > 0 {
		w.beside(u, f, missing, true)
	}
	return nil
}

// beside adds up to n records before the first of a unit, or behind its last.
func (w *worker) beside(u *unit, f *found, n int, forward bool) {
	from := len(f.hits)
	u.line.beyond(w.ctx, u, forward, func(at spot, r *event.Record) bool {
		if r.Time >= w.opts.Since && r.Time < w.opts.Until && w.matches(u, r) {
			return false
		}
		w.keep(f, u, r, at, true)
		n--
		return n > 0
	})
	if !forward {
		slices.Reverse(f.hits[from:])
	}
}

// guarded searches a unit. A panic, which only a segment that was made to cause
// one could cause, becomes a problem of that unit.
func (w *worker) guarded(u *unit) (f found) {
	defer func() {
		if p := recover(); p != nil {
			f = found{unit: u, err: fmt.Errorf("cannot be read: %v", p)}
		}
	}()
	return w.search(u)
}
