package query

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

// statFunc is one function of stats.
type statFunc struct {
	name     string // count, sum, min, max, avg, dc, or p and the quantile
	of       column // name "": of the rows themselves
	quantile float64
	column   Column // where it goes
}

// group is one thing that stats counts by: a column, or the time in buckets.
type group struct {
	of     column
	length time.Duration // of a bucket; 0: not the time
	column Column
}

// statsStage is stats; top and histogram are made of it.
type statsStage struct {
	funcs []statFunc
	by    []group
}

func (s *statsStage) table() []Column {
	columns := []Column{}
	for _, b := range s.by {
		columns = append(columns, b.column)
	}
	for _, f := range s.funcs {
		columns = append(columns, f.column)
	}
	return columns
}

func (s *statsStage) describe() string {
	var funcs, by []string
	for _, f := range s.funcs {
		text := f.name + "()"
		if f.of.name != "" {
			text = f.name + "(" + fieldText(f.of.name) + ")"
		}
		if f.column.Name != f.standardName() {
			text += " as " + fieldText(f.column.Name)
		}
		funcs = append(funcs, text)
	}
	for _, b := range s.by {
		if b.length > 0 {
			by = append(by, "time("+spanText(b.length)+")")
			continue
		}
		by = append(by, columnText(b.of))
	}
	text := "stats " + strings.Join(funcs, ", ")
	if len(by) > 0 {
		text += " by " + strings.Join(by, ", ")
	}
	return text
}

// standardName is the name of the column of a function.
func (f *statFunc) standardName() string {
	if f.of.name == "" {
		return f.name
	}
	return f.name + "(" + f.of.name + ")"
}

// spanText writes a length of time in the units of the language.
func spanText(d time.Duration) string {
	const oneDay = 24 * time.Hour
	switch {
	case d%oneDay == 0:
		return fmt.Sprintf("%dd", d/oneDay)
	case d%time.Hour == 0:
		return fmt.Sprintf("%dh", d/time.Hour)
	case d%time.Minute == 0:
		return fmt.Sprintf("%dm", d/time.Minute)
	case d%time.Second == 0:
		return fmt.Sprintf("%ds", d/time.Second)
	}
	return fmt.Sprintf("%dns", d)
}

// columnText writes a column: those of tables may be functions.
func columnText(c column) string {
	name, argument, function := strings.Cut(c.name, "(")
	argument, closed := strings.CutSuffix(argument, ")")
	if c.index >= 0 && function && closed && nameLength(name) == len(name) && nameLength(argument) == len(argument) {
		return c.name
	}
	return fieldText(c.name)
}

func (s *statsStage) start(p *Pipeline, next runner) runner {
	return &statsRun{stage: s, p: p, next: next, groups: map[string]*groupState{}}
}

// statsRun counts.
type statsRun struct {
	stage  *statsStage
	p      *Pipeline
	next   runner
	groups map[string]*groupState
	lost   int64 // rows of groups for which there was no room
	keyBuf []byte
}

type groupState struct {
	keys  []Value
	cells []cell
}

// cell is what a function has seen of a group.
type cell struct {
	n         int64
	sum       float64
	min, max  Value
	quantiles *sketch
	different *distinct
}

func (s *statsRun) row(r *row) error {
	var buf [4]Value
	keys := append(buf[:0], make([]Value, len(s.stage.by))...)
	room := maxCombinations
	s.combine(r, keys, 0, &room)
	if room < 0 {
		s.p.partial("what has more than 64 combinations of values is counted for 64 of them")
	}
	return nil
}

// maxCombinations is for how many groups one row may count: those of several
// addresses, times those of several users.
const maxCombinations = 64

// combine counts a row for every combination of its values from key i on.
func (s *statsRun) combine(r *row, keys []Value, i int, room *int) {
	if i == len(keys) {
		if *room--; *room >= 0 {
			s.count(s.group(keys), r)
		}
		return
	}
	b := &s.stage.by[i]
	if b.length > 0 {
		keys[i] = At(bucket(b.of.value(r).When(), b.length, s.p.zone))
		s.combine(r, keys, i+1, room)
		return
	}
	var buf [4]Value
	values := b.of.values(r, buf[:0])
	if len(values) == 0 {
		values = append(values, Value{})
	}
	for _, v := range values {
		if keys[i] = v; *room >= 0 {
			s.combine(r, keys, i+1, room)
		}
	}
}

// group returns the state of a group, or nil when there is no room for it.
func (s *statsRun) group(keys []Value) *groupState {
	s.keyBuf = s.keyBuf[:0]
	size := 200
	for _, k := range keys {
		s.keyBuf = append(s.keyBuf, byte(k.kind))
		s.keyBuf = binary.LittleEndian.AppendUint64(s.keyBuf, uint64(k.ns)^math.Float64bits(k.num))
		s.keyBuf = binary.AppendUvarint(s.keyBuf, uint64(len(k.text)))
		s.keyBuf = append(s.keyBuf, k.text...)
		size += 2*len(k.text) + 64
	}
	if g := s.groups[string(s.keyBuf)]; g != nil {
		return g
	}
	for _, f := range s.stage.funcs {
		switch {
		case f.quantile > 0:
			size += exactValues * 8
		case f.name == "dc":
			size += registerCount
		default:
			size += 128
		}
	}
	if len(s.groups) >= maxGroups || !s.p.reserve(size) {
		return nil
	}
	g := &groupState{keys: slices.Clone(keys), cells: make([]cell, len(s.stage.funcs))}
	s.groups[string(s.keyBuf)] = g
	return g
}

// count adds a row to a group.
func (s *statsRun) count(g *groupState, r *row) {
	if g == nil {
		s.lost++
		return
	}
	var buf [8]Value
	for i := range s.stage.funcs {
		f, c := &s.stage.funcs[i], &g.cells[i]
		if f.of.name == "" {
			c.n++
			continue
		}
		values := f.of.values(r, buf[:0])
		if f.name == "count" {
			if len(values) > 0 {
				c.n++
			}
			continue
		}
		for _, v := range values {
			s.add(f, c, v)
		}
	}
}

// add adds a value to a cell. All functions but dc ask for numbers or times.
func (s *statsRun) add(f *statFunc, c *cell, v Value) {
	if f.name == "dc" {
		if c.different == nil {
			c.different = new(distinct)
		}
		if c.different.registers == nil && len(c.different.hashes) >= registerCount/16 && !s.p.reserve(16) {
			c.different.spread() // less exact, and no larger from here on
		}
		c.different.add(hash(v.exact()))
		return
	}
	if v.kind != Time {
		n, ok := quantity(v.exact())
		if !ok {
			return
		}
		v = Num(n)
	}
	c.n++
	c.sum += v.Number()
	if c.n == 1 || v.compare(c.min) < 0 {
		c.min = v
	}
	if c.n == 1 || v.compare(c.max) > 0 {
		c.max = v
	}
	if f.quantile > 0 {
		if c.quantiles == nil {
			c.quantiles = new(sketch)
		}
		c.quantiles.add(v.Number())
	}
}

func (s *statsRun) addCount(t int64, n int64) {
	keys := make([]Value, len(s.stage.by))
	for i, b := range s.stage.by {
		keys[i] = At(bucket(t, b.length, s.p.zone))
	}
	if g := s.group(keys); g != nil {
		for i := range g.cells {
			g.cells[i].n += n
		}
	} else {
		s.lost += n
	}
}

func (s *statsRun) merge(o *statsRun) {
	s.lost += o.lost
	for _, theirs := range o.groups {
		ours := s.group(theirs.keys)
		if ours == nil {
			s.p.partial(groupsLost)
			continue
		}
		for i := range ours.cells {
			ours.cells[i].join(&theirs.cells[i])
		}
	}
}

func (c *cell) join(o *cell) {
	if o.n > 0 && (c.n == 0 || o.min.compare(c.min) < 0) {
		c.min = o.min
	}
	if o.n > 0 && (c.n == 0 || o.max.compare(c.max) > 0) {
		c.max = o.max
	}
	c.n += o.n
	c.sum += o.sum
	if o.quantiles != nil {
		if c.quantiles == nil {
			c.quantiles = new(sketch)
		}
		c.quantiles.join(o.quantiles)
	}
	if o.different != nil {
		if c.different == nil {
			c.different = new(distinct)
		}
		c.different.join(o.different)
	}
}

// value is the result of a function.
func (c *cell) value(f *statFunc) Value {
	switch {
	case f.name == "count":
		return Num(float64(c.n))
	case f.name == "dc":
		if c.different == nil {
			return Num(0)
		}
		return Num(c.different.count())
	case c.n == 0:
		return Value{}
	case f.name == "sum":
		return Num(c.sum)
	case f.name == "avg":
		return Num(c.sum / float64(c.n))
	case f.name == "min":
		return c.min
	case f.name == "max":
		return c.max
	}
	n, ok := c.quantiles.quantile(f.quantile)
	if !ok {
		return Value{}
	}
	return Num(n)
}

const groupsLost = "there are more groups than a table holds (100,000, or 128 MiB); what is in the others is not counted"

// flush hands on the groups in the order of what they are grouped by. Without
// anything to group by there is one row, even of nothing.
func (s *statsRun) flush() error {
	if len(s.stage.by) == 0 {
		s.group(nil)
	}
	if s.lost > 0 {
		s.p.partial(groupsLost)
	}
	groups := make([]*groupState, 0, len(s.groups))
	for _, g := range s.groups {
		groups = append(groups, g)
	}
	slices.SortFunc(groups, func(a, b *groupState) int {
		for i := range a.keys {
			if c := a.keys[i].compare(b.keys[i]); c != 0 {
				return c
			}
		}
		return 0
	})
	for _, g := range groups {
		vals := slices.Clone(g.keys)
		for i := range s.stage.funcs {
			vals = append(vals, g.cells[i].value(&s.stage.funcs[i]))
		}
		if err := s.next.row(&row{vals: vals}); err == ErrDone {
			break
		} else if err != nil {
			return err
		}
	}
	s.groups = nil
	return s.next.flush()
}

// topStage is top: the most frequent values.
type topStage struct {
	n     int
	stats *statsStage
	rest  []stage // sort and head
}

func (s *topStage) table() []Column { return s.stats.table() }

func (s *topStage) describe() string {
	var by []string
	for _, b := range s.stats.by {
		by = append(by, columnText(b.of))
	}
	return fmt.Sprintf("top %d %s", s.n, strings.Join(by, ", "))
}

func (s *topStage) start(p *Pipeline, next runner) runner {
	return s.stats.start(p, chain(p, s.rest, next))
}

// histogramStage counts events over time, with a row for buckets without any.
type histogramStage struct{ stats *statsStage }

func (s *histogramStage) table() []Column { return s.stats.table() }

func (s *histogramStage) describe() string {
	text := "histogram " + spanText(s.stats.by[0].length)
	for _, b := range s.stats.by[1:] {
		text += " by " + columnText(b.of)
	}
	return text
}

func (s *histogramStage) start(p *Pipeline, next runner) runner {
	if len(s.stats.by) == 1 {
		next = &fillRun{p: p, length: s.stats.by[0].length, next: next}
	}
	return s.stats.start(p, next)
}

// maxEmpty is how many rows in a row a histogram fills with zeros.
const maxEmpty = 10_000

// fillRun adds the buckets without events.
type fillRun struct {
	p      *Pipeline
	length time.Duration
	next   runner
	last   int64
	begun  bool
}

func (f *fillRun) row(r *row) error {
	t := r.vals[0].ns
	if f.begun && (t-f.last)/int64(f.length) <= maxEmpty {
		for at := f.after(f.last); at < t; at = f.after(at) {
			if err := f.next.row(&row{vals: []Value{At(at), Num(0)}}); err != nil {
				return err
			}
		}
	}
	f.begun, f.last = true, t
	return f.next.row(r)
}

// after is the beginning of the next bucket; days may have 23 or 25 hours.
func (f *fillRun) after(t int64) int64 {
	next := bucket(t+int64(f.length)+int64(f.length)/2, f.length, f.p.zone)
	if next <= t {
		return t + int64(f.length)
	}
	return next
}

func (f *fillRun) flush() error { return f.next.flush() }
