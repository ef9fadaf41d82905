package query

import (
	"fmt"
	"slices"
	"strings"

	"github.com/mobileops/mobileops/internal/logs/event"
)

// whereStage lets through what an expression asks for.
type whereStage struct {
	filter  node
	opts    Options
	columns []Column // of the table; nil for events
}

func (s *whereStage) describe() string {
	var b strings.Builder
	b.WriteString("where ")
	s.filter.write(&b)
	return b.String()
}

func (s *whereStage) start(p *Pipeline, next runner) runner {
	w := &whereRun{next: next}
	if s.columns == nil {
		e := new(Evaluator)
		decide := e.build(s.filter, p.zone)
		w.wanted = func(r *row) bool { return decide(r.ev) }
	} else {
		w.wanted = s.build(s.filter, p)
	}
	return w
}

// build makes a function of a node that looks at columns.
func (s *whereStage) build(n node, p *Pipeline) func(*row) bool {
	switch n := n.(type) {
	case *not:
		of := s.build(n.of, p)
		return func(r *row) bool { return !of(r) }
	case *and:
		parts := s.parts(n.nodes, p)
		return func(r *row) bool {
			return !slices.ContainsFunc(parts, func(part func(*row) bool) bool { return !part(r) })
		}
	case *or:
		parts := s.parts(n.nodes, p)
		return func(r *row) bool {
			return slices.ContainsFunc(parts, func(part func(*row) bool) bool { return part(r) })
		}
	case *comparison:
		i := slices.IndexFunc(s.columns, func(c Column) bool { return c.Name == n.field })
		test := n.tester(p.zone)
		return func(r *row) bool { return r.vals[i].kind != Nil && test([]byte(r.vals[i].exact())) }
	}
	return func(*row) bool { return true }
}

func (s *whereStage) parts(nodes []node, p *Pipeline) []func(*row) bool {
	var parts []func(*row) bool
	for _, n := range nodes {
		parts = append(parts, s.build(n, p))
	}
	return parts
}

type whereRun struct {
	wanted func(*row) bool
	next   runner
}

func (w *whereRun) row(r *row) error {
	if !w.wanted(r) {
		return nil
	}
	return w.next.row(r)
}

func (w *whereRun) flush() error { return w.next.flush() }

// headStage lets the first n through.
type headStage struct{ n int }

func (s headStage) describe() string { return fmt.Sprintf("head %d", s.n) }

func (s headStage) start(_ *Pipeline, next runner) runner { return &headRun{left: s.n, next: next} }

type headRun struct {
	left int
	next runner
}

func (h *headRun) row(r *row) error {
	if h.left <= 0 {
		return ErrDone
	}
	h.left--
	if err := h.next.row(r); err != nil {
		return err
	}
	if h.left == 0 {
		return ErrDone
	}
	return nil
}

func (h *headRun) flush() error { return h.next.flush() }

// kept is a row that a stage holds back, with what it is sorted by.
type kept struct {
	row  *row
	keys []Value
	size int
}

// keep copies a row, whose event belongs to somebody else.
func keep(r *row, keys []Value) kept {
	if r.ev == nil {
		size := 64
		for _, v := range r.vals {
			size += 40 + len(v.text)
		}
		return kept{row: r, keys: keys, size: size}
	}
	ev, size := clone(r.ev)
	return kept{row: &row{ev: ev}, keys: keys, size: size}
}

// clone copies an event with all that it has, and tells about how large it is.
func clone(ev *event.Event) (*event.Event, int) {
	c := *ev.Parsed()
	c.Raw = slices.Clone(ev.Raw)
	c.Text = slices.Clone(ev.Text)
	c.Message = slices.Clone(ev.Message)
	c.Addrs = slices.Clone(ev.Addrs)
	c.Fields = make([]event.Field, len(ev.Fields))
	size := 400 + len(c.Raw) + len(c.Text) + len(c.Message) + 24*len(c.Addrs)
	for i, f := range ev.Fields {
		c.Fields[i] = event.Field{Name: strings.Clone(f.Name), Value: slices.Clone(f.Value)}
		size += 40 + len(f.Name) + len(f.Value)
	}
	c.Host, c.Unit, c.Program, c.User = strings.Clone(c.Host), strings.Clone(c.Unit), strings.Clone(c.Program), strings.Clone(c.User)
	return &c, size
}

// handOn gives rows to the next stage and ends it.
func handOn(next runner, rows []kept) error {
	for _, k := range rows {
		if err := next.row(k.row); err == ErrDone {
			break
		} else if err != nil {
			return err
		}
	}
	return next.flush()
}

// tailStage lets the last n through.
type tailStage struct{ n int }

func (s tailStage) describe() string { return fmt.Sprintf("tail %d", s.n) }

func (s tailStage) start(p *Pipeline, next runner) runner { return &tailRun{p: p, n: s.n, next: next} }

type tailRun struct {
	p    *Pipeline
	n    int
	rows []kept
	next runner
}

func (t *tailRun) row(r *row) error {
	if t.n == 0 {
		return nil
	}
	k := keep(r, nil)
	t.rows = append(t.rows, k)
	fits := t.p.reserve(k.size)
	for len(t.rows) > t.n || !fits && len(t.rows) > 1 {
		if len(t.rows) <= t.n {
			t.p.partial("tail keeps fewer than it was asked for: there is no memory for more")
		}
		t.p.memory -= t.rows[0].size
		t.rows[0] = kept{}
		t.rows = t.rows[1:]
		if !fits {
			fits = t.p.reserve(k.size)
		}
	}
	return nil
}

func (t *tailRun) flush() error { return handOn(t.next, t.rows) }

// sortKey is one column that is sorted by.
type sortKey struct {
	of         column
	descending bool
}

// sortStage sorts. With a limit it keeps no more than that many.
type sortStage struct {
	keys  []sortKey
	limit int // of the head behind it; 0: none
}

func (s *sortStage) describe() string {
	var keys []string
	for _, k := range s.keys {
		sign := ""
		if k.descending {
			sign = "-"
		}
		keys = append(keys, sign+columnText(k.of))
	}
	return "sort " + strings.Join(keys, ", ")
}

func (s *sortStage) start(p *Pipeline, next runner) runner {
	return &sortRun{stage: s, p: p, next: next}
}

type sortRun struct {
	stage *sortStage
	p     *Pipeline
	next  runner
	rows  []kept
	full  bool // the first rows, as many as the limit, are sorted
}

func (s *sortRun) row(r *row) error {
	keys := make([]Value, len(s.stage.keys))
	for i, k := range s.stage.keys {
		keys[i] = k.of.value(r)
		if k.of.name == fieldSeverity && keys[i].kind == String {
			// By how bad they are, not by the alphabet.
			if level, ok := severityLevel(keys[i].text); ok {
				keys[i] = Num(float64(level))
			}
		}
	}
	if s.full && s.compare(kept{keys: keys}, s.rows[s.stage.limit-1]) >= 0 {
		return nil // as many are before it as are wanted
	}
	k := keep(r, keys)
	fits := s.p.reserve(k.size)
	s.rows = append(s.rows, k)
	if limit := s.stage.limit; limit > 0 && len(s.rows) >= 2*limit+100 {
		s.cut(limit)
		s.full = true
	} else if !fits {
		s.p.partial("sort keeps fewer than there are: there is no memory for all; the first of them are right")
		s.cut(len(s.rows) / 2)
	}
	return nil
}

// cut sorts, and keeps the first n.
func (s *sortRun) cut(n int) {
	s.full = s.full && n >= s.stage.limit
	slices.SortStableFunc(s.rows, s.compare)
	for i := n; i < len(s.rows); i++ {
		s.p.memory -= s.rows[i].size
		s.rows[i] = kept{}
	}
	s.rows = s.rows[:min(n, len(s.rows))]
}

func (s *sortRun) compare(a, b kept) int {
	for i, k := range s.stage.keys {
		x, y := a.keys[i], b.keys[i]
		c := x.compare(y)
		if k.descending && x.kind != Nil && y.kind != Nil {
			c = -c // what has none comes last either way
		}
		if c != 0 {
			return c
		}
	}
	return 0
}

func (s *sortRun) flush() error {
	slices.SortStableFunc(s.rows, s.compare)
	return handOn(s.next, s.rows)
}

// dedupStage lets through the first of each combination of values.
type dedupStage struct{ of []column }

func (s *dedupStage) describe() string { return "dedup " + columnList(s.of) }

func columnList(columns []column) string {
	var names []string
	for _, c := range columns {
		names = append(names, columnText(c))
	}
	return strings.Join(names, ", ")
}

func (s *dedupStage) start(p *Pipeline, next runner) runner {
	return &dedupRun{stage: s, p: p, next: next, seen: map[uint64]struct{}{}}
}

// dedupRun remembers a hash of what it has seen. Of a million of them two are
// the same by accident once in tens of millions of searches.
type dedupRun struct {
	stage *dedupStage
	p     *Pipeline
	next  runner
	seen  map[uint64]struct{}
	buf   []byte
}

func (d *dedupRun) row(r *row) error {
	var values [8]Value
	d.buf = d.buf[:0]
	for _, c := range d.stage.of {
		for _, v := range c.values(r, values[:0]) {
			d.buf = append(append(d.buf, v.exact()...), 0, 1)
		}
		d.buf = append(d.buf, 0, 0)
	}
	h := hash(string(d.buf))
	if _, ok := d.seen[h]; ok {
		return nil
	}
	if len(d.seen) >= maxSeen {
		d.p.partial("dedup remembers a million values; of those beyond, each is here as often as it was found")
	} else {
		d.seen[h] = struct{}{}
	}
	return d.next.row(r)
}

func (d *dedupRun) flush() error { return d.next.flush() }

// fieldsStage makes a table of some columns.
type fieldsStage struct {
	of      []column
	columns []Column
}

func (s *fieldsStage) table() []Column { return s.columns }

func (s *fieldsStage) describe() string { return "fields " + columnList(s.of) }

func (s *fieldsStage) start(_ *Pipeline, next runner) runner { return &fieldsRun{s, next} }

type fieldsRun struct {
	stage *fieldsStage
	next  runner
}

func (f *fieldsRun) row(r *row) error {
	vals := make([]Value, len(f.stage.of))
	for i, c := range f.stage.of {
		var buf [8]Value
		switch v := c.values(r, buf[:0]); len(v) {
		case 0:
		case 1:
			vals[i] = v[0]
		default: // several addresses
			var texts []string
			for _, v := range v {
				texts = append(texts, v.exact())
			}
			vals[i] = Text(strings.Join(texts, ", "))
		}
	}
	return f.next.row(&row{vals: vals})
}

func (f *fieldsRun) flush() error { return f.next.flush() }
