package query

import (
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/mobileops/mobileops/internal/logs/event"
)

// ErrDone is what Add returns when no further event can change the result.
var ErrDone = errors.New("the pipeline has all that it asked for")

// Limits of what a pipeline keeps. What is beyond them is not in the result,
// and the result says so.
const (
	maxGroups = 100_000
	maxMemory = 128 << 20 // of the groups, rows or events that it keeps, roughly
	maxSeen   = 1 << 20   // values that dedup remembers
)

// Pipeline is the run of the stages of a query over the events that it found.
// It belongs to one goroutine. Stages such as head and tail go by the order in
// which events are added.
//
// What comes out is a Table when a stage makes one (Tabular), and events
// otherwise. Events and rows are handed to OnEvent and OnRow when those are
// set, as soon as they are known; rows are in the result of Result otherwise.
type Pipeline struct {
	// OnEvent gets the events that come out of a pipeline that is not Tabular:
	// during Add, or during Result where a stage has to see all of them first.
	OnEvent func(*event.Event) error
	// OnRow gets the rows of a table that need not be sorted or counted first.
	OnRow func([]Value) error

	stages  []stage
	zone    *time.Location
	first   runner
	in      row      // of Add; stages that hold a row back copy it
	columns []Column // nil: events come out
	table   Table
	memory  int
	reasons []string
	flushed bool
}

// row is what goes from stage to stage: an event, or a row of a table.
type row struct {
	ev   *event.Event
	vals []Value
}

// stage is one stage of the pipeline of a query. It does not change.
type stage interface {
	describe() string // canonical form
	// start returns what does the work of one run and hands on to next.
	start(p *Pipeline, next runner) runner
}

// runner does the work of a stage.
type runner interface {
	row(r *row) error // ErrDone: it needs no more
	flush() error     // there is no more
}

// Pipeline returns a new run of the pipeline, or nil when the query has none.
func (q *Query) Pipeline() *Pipeline {
	if len(q.stages) == 0 {
		return nil
	}
	p := &Pipeline{stages: q.stages, zone: q.opts.Zone, columns: columnsOf(q.stages)}
	p.first = chain(p, q.stages, (*sink)(p))
	return p
}

func chain(p *Pipeline, stages []stage, last runner) runner {
	for _, s := range slices.Backward(stages) {
		last = s.start(p, last)
	}
	return last
}

// columnsOf are the columns of what comes out of the stages, or nil for events.
func columnsOf(stages []stage) []Column {
	var columns []Column
	for _, s := range stages {
		if t, ok := s.(interface{ table() []Column }); ok {
			columns = t.table()
		}
	}
	return columns
}

// Tabular reports whether a table comes out, rather than events.
func (p *Pipeline) Tabular() bool { return p.columns != nil }

// Columns returns the columns of the table.
func (p *Pipeline) Columns() []Column { return slices.Clone(p.columns) }

// Add runs an event through the stages. The event and its bytes may be used
// anew when Add returns. It returns ErrDone when no further event can change
// the result, and what OnEvent and OnRow return.
func (p *Pipeline) Add(ev *event.Event) error {
	p.in.ev = ev
	return p.first.row(&p.in)
}

// Result ends the run and returns the table; its rows are those that OnRow did
// not get. Without a table, it has no columns.
func (p *Pipeline) Result() (Table, error) {
	if !p.flushed {
		p.flushed = true
		if err := p.first.flush(); err != nil && !errors.Is(err, ErrDone) {
			return Table{}, err
		}
	}
	t := p.table
	t.Columns = p.columns
	if t.Rows == nil {
		t.Rows = [][]Value{} // a list in JSON, too
	}
	t.Partial, t.Why = len(p.reasons) > 0, strings.Join(p.reasons, "; ")
	return t, nil
}

// partial remembers why the result is not whole.
func (p *Pipeline) partial(why string) {
	if !slices.Contains(p.reasons, why) {
		p.reasons = append(p.reasons, why)
	}
}

// reserve accounts for memory, and reports whether there is enough.
func (p *Pipeline) reserve(bytes int) bool {
	if p.memory+bytes > maxMemory {
		return false
	}
	p.memory += bytes
	return true
}

// sink is the end of a pipeline.
type sink Pipeline

func (s *sink) row(r *row) error {
	if r.ev != nil {
		if s.OnEvent == nil {
			return nil
		}
		return s.OnEvent(r.ev)
	}
	if s.OnRow != nil {
		return s.OnRow(r.vals)
	}
	size := 0
	for _, v := range r.vals {
		size += 40 + len(v.text)
	}
	if p := (*Pipeline)(s); !p.reserve(size) {
		p.partial("the table has more rows than there is memory for")
		return ErrDone
	}
	s.table.Rows = append(s.table.Rows, r.vals)
	return nil
}

func (s *sink) flush() error { return nil }

// Counting says which numbers alone are enough for a pipeline.
type Counting uint8

const (
	// CountNothing is that of a pipeline that has to see the events.
	CountNothing Counting = iota
	// CountTotal is that of a pipeline that needs to know how many events there are.
	CountTotal
	// CountTimes is that of a pipeline that needs the time of each event.
	CountTimes
)

// Counting says what the pipeline needs to know of events. When it is not
// CountNothing, AddCount may be called in place of Add.
func (p *Pipeline) Counting() Counting {
	s, ok := leadingStats(p.stages)
	if !ok {
		return CountNothing
	}
	for _, f := range s.funcs {
		if f.name != "count" || f.of.name != "" {
			return CountNothing
		}
	}
	for _, b := range s.by {
		if b.length == 0 {
			return CountNothing
		}
	}
	if len(s.by) > 0 {
		return CountTimes
	}
	return CountTotal
}

// AddCount adds n events of a time in nanoseconds, which does not matter when
// Counting is CountTotal. It must not be called when it is CountNothing.
func (p *Pipeline) AddCount(t int64, n int64) {
	if s, ok := p.first.(*statsRun); ok {
		s.addCount(t, n)
	}
}

// Merge adds what another run of the same query has seen, so that several
// goroutines can share the work, and reports whether that is possible: when
// the pipeline begins with stats, top, count or histogram. The other run must
// not be used again.
func (p *Pipeline) Merge(o *Pipeline) bool {
	a, ok := p.first.(*statsRun)
	if !ok {
		return false
	}
	b, ok := o.first.(*statsRun)
	if !ok || p.flushed || o.flushed {
		return false
	}
	a.merge(b)
	for _, why := range o.reasons {
		p.partial(why)
	}
	return true
}

// Mergeable reports whether Merge is possible.
func (p *Pipeline) Mergeable() bool {
	_, ok := p.first.(*statsRun)
	return ok
}

// column is a field of events, or a column of the table that a stage gets.
type column struct {
	name  string
	index int // in the table; -1: a field of events
}

// values appends what a row has in a column.
func (c column) values(r *row, dst []Value) []Value {
	if c.index >= 0 {
		if v := r.vals[c.index]; v.kind != Nil {
			dst = append(dst, v)
		}
		return dst
	}
	direct := "" // the common ones, without a copy
	switch c.name {
	case fieldTime:
		return append(dst, At(r.ev.Time))
	case fieldHost:
		direct = r.ev.Parsed().Host
	case fieldUnit:
		direct = r.ev.Parsed().Unit
	case fieldProgram:
		direct = r.ev.Parsed().Program
	case fieldUser:
		direct = r.ev.Parsed().User
	}
	if direct != "" {
		return append(dst, Text(direct))
	}
	var buf [8][]byte
	for _, v := range Values(r.ev, c.name, buf[:0]) {
		if c.name == fieldPID {
			dst = append(dst, Num(float64(r.ev.PID)))
			break
		}
		dst = append(dst, Text(string(v)))
	}
	return dst
}

// value is the first value of a row in a column.
func (c column) value(r *row) Value {
	var buf [4]Value
	if v := c.values(r, buf[:0]); len(v) > 0 {
		return v[0]
	}
	return Value{}
}

// kind is the kind of the values of a column.
func (c column) kind(columns []Column) Kind {
	switch {
	case c.index >= 0:
		return columns[c.index].Kind
	case c.name == fieldTime:
		return Time
	case c.name == fieldPID:
		return Number
	}
	return String
}
