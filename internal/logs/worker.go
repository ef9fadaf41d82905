package logs

import (
	"github.com/mobileops/mobileops/internal/logs/event"
	"github.com/mobileops/mobileops/internal/logs/query"
	"github.com/mobileops/mobileops/internal/logs/segment"
)

// hit is a record that a worker found, or one beside it.
type hit struct {
	event   *event.Event
	context bool
	row     int // in its unit
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
	opts  *Options
	block segment.Block
	need  *segment.Search
	eval  *query.Evaluator
	exact bool // of the need, in formats whose text is all of the record

	arena []byte
	event event.Event
}

func newWorker(o *Options) *worker {
	need := o.Query.Need()
	return &worker{opts: o, need: segment.NewSearch(need), eval: o.Query.NewEvaluator(), exact: need.Exact}
}

// search looks through a unit.
func (w *worker) search(u *unit) found {
	defer u.file.release()
	f := found{unit: u}
	w.arena = nil // hits of the unit before keep it
	if u.file == nil {
		w.loose(u, &f)
		return f
	}
	f.err = w.inBlock(u, &f)
	return f
}

func (w *worker) loose(u *unit, f *found) {
	until := -1
	for i := range u.loose {
		r := &u.loose[i]
		inRange := r.Time >= w.opts.Since && r.Time < w.opts.Until
		switch {
		case inRange && w.matches(u, r):
			f.matches++
			if w.opts.CountOnly {
				continue
			}
			for k := max(until+1, i-w.opts.Before); k < i; k++ {
				w.keep(f, u, &u.loose[k], k, true)
			}
			w.keep(f, u, r, i, false)
			until = max(i, min(i+w.opts.After, len(u.loose)-1))
			// Records after it that match are told as matches when their turn comes.
			for k := i + 1; k <= until; k++ {
				n := &u.loose[k]
				if n.Time >= w.opts.Since && n.Time < w.opts.Until && w.matches(u, n) {
					until = k - 1
					break
				}
				w.keep(f, u, n, k, true)
			}
		}
	}
}

// prepare makes the event of a record.
func (w *worker) prepare(e *event.Event, u *unit, r *event.Record) {
	*e = event.Event{Record: *r, Origin: u.origin, Text: r.Raw}
	if w.opts.Fill != nil {
		e.Fill = w.opts.Fill(u.origin.Format)
	}
	if u.origin.Format == JournalFormat {
		e.Text = journalText(r.Raw)
	}
}

func (w *worker) matches(u *unit, r *event.Record) bool {
	w.prepare(&w.event, u, r)
	return w.eval.Eval(&w.event)
}

// keep adds a copy of a record to what was found.
func (w *worker) keep(f *found, u *unit, r *event.Record, row int, context bool) {
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
	f.hits = append(f.hits, hit{e, context, row})
}

func (w *worker) inBlock(u *unit, f *found) error {
	if err := w.block.Load(u.file.reader, u.block); err != nil {
		return err
	}
	sel, err := w.block.Select(w.need)
	if err != nil || sel.Empty() {
		return err
	}
	exact := sel.Exact && w.exact && u.origin.Format != JournalFormat
	whole := u.first >= w.opts.Since && u.last < w.opts.Until
	if exact && whole && w.opts.CountOnly {
		f.matches = int64(sel.Count())
		return nil
	}
	if exact && (w.opts.CountOnly || w.opts.TimesOnly) {
		return w.block.Times(sel, w.opts.Since, w.opts.Until, func(i int, at int64) {
			f.matches++
			if w.opts.TimesOnly {
				f.hits = append(f.hits, hit{&event.Event{Record: event.Record{Time: at}, Origin: u.origin}, false, i})
			}
		})
	}
	around := w.opts.Before > 0 || w.opts.After > 0
	var rows []int
	err = w.block.Each(sel, w.opts.Since, w.opts.Until, func(i int, r *event.Record) error {
		if !exact && !w.matches(u, r) {
			return nil
		}
		f.matches++
		switch {
		case w.opts.CountOnly:
		case around:
			rows = append(rows, i)
		default:
			w.keep(f, u, r, i, false)
		}
		return nil
	})
	if err != nil || !around {
		return err
	}
	return w.withContext(u, f, rows)
}

// withContext adds the records of a block at rows, and those around them.
func (w *worker) withContext(u *unit, f *found, rows []int) error {
	n := int(u.file.reader.Block(u.block).Records)
	done := -1 // the last row that was added
	for k, row := range rows {
		to := min(row+w.opts.After, n-1)
		if k+1 < len(rows) {
			to = min(to, rows[k+1]-1)
		}
		for i := max(done+1, row-w.opts.Before, 0); i <= to; i++ {
			r, err := w.block.Record(i)
			if err != nil {
				return err
			}
			w.keep(f, u, &r, i, i != row)
			done = i
		}
	}
	return nil
}
