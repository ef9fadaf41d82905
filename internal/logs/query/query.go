// Package query is the language of `mobileops logs search`: an expression that
// says which events are wanted, and a pipeline that counts, sorts and cuts what
// was found. docs/query.md has its grammar, and the reasons why what people
// who know grep type means what it means.
//
// A Query is parsed once and never changes; it may be used by many goroutines.
// Each of them makes an Evaluator, which has the buffers and the matchers. To
// a store, a Query also says what it can leave out without looking at events:
// bytes that every match has (Need), a range of time (TimeRange), sources.
// Those may promise too little, never too much.
//
// Words are looked for in the Text of an event, which costs about as much as
// grep. Fields have to be found first (event.Parsed), which costs several
// times that, so Eval asks for them last and only when the text has not decided.
//
// Expressions come from people, and from whoever may send them one: their
// length, their nesting and their lists are limited, and a pipeline's memory is.
package query

import (
	"math"
	"slices"
	"time"

	"github.com/mobileops/mobileops/internal/logs/match"
)

// Limits of an expression.
const (
	maxLength = 64 << 10 // bytes
	maxDepth  = 100      // parentheses and negations within each other
	maxItems  = 1000     // values of one list
	maxStages = 32       // of a pipeline
)

// Options say how an expression is read.
type Options struct {
	Fold  bool // letters match in either case, as with grep -i; in fields those of ASCII
	Word  bool // words, phrases and regular expressions match whole words only, as with grep -w
	Regex bool // the whole expression is one regular expression, as with grep -e
	Fixed bool // the whole expression is one text, as with grep -F
	// Now is what relative times (-1h, today) count from; the zero value stands
	// for the time of the call.
	Now time.Time
	// Zone is that of dates without a zone, and of the buckets of time(1d); nil
	// stands for UTC.
	Zone *time.Location
}

// Query is a parsed expression. It does not change.
type Query struct {
	opts   Options
	filter node
	stages []stage
	notes  []string
}

// Parse reads an expression. Its error is an *Error, which has the column.
func Parse(expr string, o Options) (*Query, error) {
	p := newParser(expr, o)
	q := &Query{opts: p.opts}
	if len(expr) > maxLength {
		return nil, p.fail(maxLength, "the expression is longer than 64 KiB", "")
	}
	var err error
	if o.Regex || o.Fixed {
		q.filter, err = p.text(0, expr, o.Regex && !o.Fixed, o.Fold)
	} else {
		q.filter, q.stages, err = p.query()
	}
	if err != nil {
		return nil, err
	}
	q.notes = p.notes
	return q, nil
}

// Notes are remarks on how the expression was understood, for whoever may have
// meant something else: "status=500 is looked for as text; …". They are worth
// showing when nothing was found.
func (q *Query) Notes() []string { return slices.Clone(q.notes) }

// And returns a query that also asks for every filter. The pipeline stays.
func (q *Query) And(filters ...Filter) *Query {
	nodes := []node{q.filter}
	for _, f := range filters {
		if f.n != nil {
			nodes = append(nodes, f.n)
		}
	}
	c := *q
	c.filter = all(nodes)
	return &c
}

// Then returns a query whose pipeline goes on with further stages, such as "top
// 20 user": what flags ask for. The columns of its errors are those of stages.
func (q *Query) Then(stages string) (*Query, error) {
	p := newParser("| "+stages, q.opts)
	more, err := p.pipeline(columnsOf(q.stages))
	if err != nil {
		if e, ok := err.(*Error); ok {
			e.Column = max(1, e.Column-2)
		}
		return nil, err
	}
	c := *q
	c.stages = append(q.stages[:len(q.stages):len(q.stages)], more...)
	c.notes = append(q.Notes(), p.notes...)
	return &c, nil
}

// FieldsNeeded reports whether Eval may have to look at fields. When not, it
// reads Text, Time and Origin of an event only.
func (q *Query) FieldsNeeded() bool { return parses(q.filter) }

// TimeRange returns the nanoseconds that every match lies in, as far as
// comparisons of time say: from since, and before until. math.MinInt64 and
// math.MaxInt64 stand for an open end: there are times before 1970. since is
// not before until when nothing can match.
func (q *Query) TimeRange() (since, until int64) {
	r := timeRange(q.filter)
	return r.first, r.last
}

func timeRange(n node) stretch {
	open := stretch{math.MinInt64, math.MaxInt64}
	switch n := n.(type) {
	case *comparison:
		if n.field != fieldTime || n.op == opHas {
			return open
		}
		hull := n.operands[0].when
		for _, o := range n.operands[1:] {
			hull = stretch{min(hull.first, o.when.first), max(hull.last, o.when.last)}
		}
		return hull
	case *and:
		for _, x := range n.nodes {
			r := timeRange(x)
			open = stretch{max(open.first, r.first), min(open.last, r.last)}
		}
	case *or:
		hull := stretch{math.MaxInt64, math.MinInt64}
		for _, x := range n.nodes {
			r := timeRange(x)
			hull = stretch{min(hull.first, r.first), max(hull.last, r.last)}
		}
		return hull
	}
	return open
}

// Sources returns the names that the source of every match has one of, or nil
// when the query does not say. Comparisons by pattern say nothing here.
func (q *Query) Sources() []string {
	nodes := []node{q.filter}
	if a, ok := q.filter.(*and); ok {
		nodes = a.nodes
	}
	var names []string
	for _, n := range nodes {
		c, ok := n.(*comparison)
		if !ok || c.field != fieldSource || c.op != opEqual || c.fold ||
			slices.ContainsFunc(c.operands, func(o operand) bool { return o.glob != nil }) {
			continue
		}
		var own []string
		for _, o := range c.operands {
			if names == nil || slices.Contains(names, o.text) {
				own = append(own, o.text)
			}
		}
		if len(own) == 0 {
			return names // nothing can match, and nil would stand for all sources
		}
		names = own
	}
	return names
}

// Highlights returns the texts that matches have, for colouring: words,
// phrases and regular expressions that are not below a negation.
func (q *Query) Highlights() []*match.Pattern {
	var list []*match.Pattern
	var walk func(node)
	walk = func(n node) {
		switch n := n.(type) {
		case *text:
			list = append(list, n.pattern)
		case *comparison:
			if n.pattern != nil {
				list = append(list, n.pattern)
			}
		case *and:
			for _, x := range n.nodes {
				walk(x)
			}
		case *or:
			for _, x := range n.nodes {
				walk(x)
			}
		}
	}
	walk(q.filter)
	return list
}
