package logs

import (
	"context"
	"errors"
	"math"
	"runtime"
	"slices"
	"sync"

	"github.com/mobileops/mobileops/internal/logs/event"
	"github.com/mobileops/mobileops/internal/logs/journal"
	"github.com/mobileops/mobileops/internal/logs/query"
)

// JournalFormat is the format of records of the systemd journal.
const JournalFormat = "journal"

func journalText(raw []byte) []byte { return journal.Text(raw) }

// errEnough ends a search whose limit is reached.
var errEnough = errors.New("enough was found")

// maxHeld bounds what is held back to be put in order, in matches. Beyond it,
// matches of sources whose times overlap may be given out of order.
const maxHeld = 1 << 18

// Search calls emit with the matches, the oldest first, from one goroutine. An
// error of emit ends the search. What could not be searched is in the report,
// not in the error.
func Search(ctx context.Context, c *Corpus, o Options, emit func(Match) error) (Report, error) {
	if o.Until == 0 {
		o.Until = math.MaxInt64
	}
	if o.Workers == 0 {
		o.Workers = runtime.GOMAXPROCS(0)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s := searcher{opts: &o, emit: emit}
	if s.pipe = o.Query.Pipeline(); s.pipe != nil {
		s.pipe.OnEvent = func(e *event.Event) error { return emit(Match{Event: e}) }
	}
	p := newPlan(ctx, c, &o)
	err := s.run(ctx, cancel, p)
	p.close()
	s.report.Skipped = p.skipped
	s.report.Problems = append(p.problems, s.report.Problems...)
	switch {
	case errors.Is(err, errEnough):
		s.report.Limited, err = true, nil
		s.report.Matches = s.given // more was found than was asked for
	case errors.Is(err, query.ErrDone):
		err = nil
	}
	if err == nil && s.pipe != nil {
		var table query.Table
		if table, err = s.pipe.Result(); err == nil && s.pipe.Tabular() {
			s.report.Table = &table
		}
	}
	return s.report, err
}

// searcher puts what workers found in order.
type searcher struct {
	opts   *Options
	emit   func(Match) error
	report Report
	pipe   *query.Pipeline // nil: matches are given out as they are
	held   []group         // by time
	given  int64           // matches
	last   spot            // of the record given out last
	shown  map[spot]bool   // with context: what was given out
}

// group are hits that stay together: one match, or several with their context.
type group struct {
	time int64
	hits []hit
}

// dispatched is a unit with the time before which no later unit has a record.
type dispatched struct {
	unit     *unit
	frontier int64
	result   chan found
}

// run dispatches units to workers and takes what they found in the same order.
func (s *searcher) run(ctx context.Context, cancel context.CancelFunc, p *plan) error {
	work := make(chan *dispatched)
	order := make(chan *dispatched, s.opts.Workers+1)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() {
		defer close(work)
		defer close(order)
		for {
			u := p.take()
			if u == nil {
				return
			}
			d := &dispatched{u, p.frontier(), make(chan found, 1)}
			select {
			case order <- d:
			case <-ctx.Done():
				u.file.release()
				return
			}
			select {
			case work <- d:
			case <-ctx.Done():
				u.file.release()
				d.result <- found{unit: u, err: ctx.Err()}
				return
			}
		}
	})
	// Where runs of a pipeline can be merged, each worker has its own.
	shared := s.pipe != nil && s.pipe.Mergeable()
	var runs []*query.Pipeline
	for range s.opts.Workers {
		var pipe *query.Pipeline
		if shared {
			pipe = s.opts.Query.Pipeline()
			runs = append(runs, pipe)
		}
		wg.Go(func() {
			w := newWorker(ctx, s.opts, pipe)
			for d := range work {
				d.result <- w.guarded(d.unit)
			}
		})
	}
	for d := range order {
		f := <-d.result
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := s.take(f, d.frontier); err != nil {
			return err
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	for _, r := range runs { // idle since their last result was taken
		s.pipe.Merge(r)
	}
	return s.release(math.MaxInt64)
}

// take adds what was found in a unit, and gives out what no later unit can
// come before.
func (s *searcher) take(f found, frontier int64) error {
	s.report.Units++
	if f.err != nil && !errors.Is(f.err, query.ErrDone) {
		s.report.Problems = append(s.report.Problems, Problem{f.unit.name, f.err})
	}
	s.report.Matches += f.matches
	for i := 0; i < len(f.hits); {
		k := i + 1
		for k < len(f.hits) && s.opts.Before+s.opts.After > 0 && f.hits[k-1].spot.isBefore(f.hits[k].spot) {
			k++
		}
		s.held = append(s.held, group{f.hits[i].event.Time, f.hits[i:k]})
		i = k
	}
	if len(s.held) > maxHeld {
		frontier = math.MaxInt64
	}
	return s.release(frontier)
}

// release gives out what is older than a time.
func (s *searcher) release(before int64) error {
	if len(s.held) == 0 {
		return nil
	}
	// Stable: records of the same time stay in the order of their source.
	slices.SortStableFunc(s.held, func(a, b group) int {
		switch {
		case a.time < b.time:
			return -1
		case a.time > b.time:
			return 1
		}
		return 0
	})
	n := 0
	for ; n < len(s.held) && (s.held[n].time < before || before == math.MaxInt64); n++ {
		g := &s.held[n]
		for i, h := range g.hits {
			if s.opts.Before+s.opts.After > 0 {
				if s.shown[h.spot] {
					continue
				}
				if s.shown == nil || len(s.shown) > maxHeld {
					s.shown = map[spot]bool{}
				}
				s.shown[h.spot] = true
			}
			apart := s.last.origin != nil && !s.last.isBefore(h.spot)
			s.last = h.spot
			if err := s.give(Match{Event: h.event, Context: h.context, Apart: apart}); err != nil {
				return err
			}
			if !h.context && s.opts.Limit > 0 {
				if s.opts.Limit--; s.opts.Limit == 0 {
					return s.rest(g.hits[i+1:])
				}
			}
		}
	}
	s.held = slices.Delete(s.held, 0, n)
	return nil
}

// rest gives out what stands behind the last match that is wanted.
func (s *searcher) rest(behind []hit) error {
	for i, h := range behind {
		if i == s.opts.After || !h.context {
			break
		}
		if s.shown[h.spot] {
			continue
		}
		apart := !s.last.isBefore(h.spot)
		s.last = h.spot
		if err := s.give(Match{Event: h.event, Context: true, Apart: apart}); err != nil {
			return err
		}
	}
	return errEnough
}

func (s *searcher) give(m Match) error {
	if !m.Context {
		s.given++
	}
	if s.pipe == nil {
		return s.emit(m)
	}
	if m.Context {
		return nil
	}
	return s.pipe.Add(m.Event)
}
