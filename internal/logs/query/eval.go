package query

import (
	"bytes"
	"cmp"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/mobileops/mobileops/internal/logs/event"
	"github.com/mobileops/mobileops/internal/logs/match"
)

// Evaluator decides about events. It belongs to one goroutine.
type Evaluator struct {
	decide func(*event.Event) bool
	buf    [][]byte
}

// NewEvaluator returns an evaluator of the filter.
func (q *Query) NewEvaluator() *Evaluator {
	e := new(Evaluator)
	e.decide = e.build(q.filter, q.opts.Zone)
	return e
}

// Eval reports whether an event is wanted. It looks at the text, the time and
// the origin first, and at fields only when those do not decide.
func (e *Evaluator) Eval(ev *event.Event) bool { return e.decide(ev) }

// build makes a function of a node. The parts of and and or come in the order
// of what they cost.
func (e *Evaluator) build(n node, zone *time.Location) func(*event.Event) bool {
	switch n := n.(type) {
	case *text:
		m := n.pattern.NewMatcher()
		return func(ev *event.Event) bool { return m.Match(ev.Text) }
	case *not:
		of := e.build(n.of, zone)
		return func(ev *event.Event) bool { return !of(ev) }
	case *and:
		parts := e.parts(n.nodes, zone)
		return func(ev *event.Event) bool {
			for _, part := range parts {
				if !part(ev) {
					return false
				}
			}
			return true
		}
	case *or:
		parts := e.parts(n.nodes, zone)
		return func(ev *event.Event) bool {
			for _, part := range parts {
				if part(ev) {
					return true
				}
			}
			return false
		}
	case *comparison:
		return e.compare(n, zone)
	}
	return func(*event.Event) bool { return true }
}

func (e *Evaluator) parts(nodes []node, zone *time.Location) []func(*event.Event) bool {
	sorted := slices.Clone(nodes)
	slices.SortStableFunc(sorted, func(a, b node) int { return cmp.Compare(cost(a), cost(b)) })
	var parts []func(*event.Event) bool
	for _, n := range sorted {
		parts = append(parts, e.build(n, zone))
	}
	return parts
}

// cost orders the parts of an expression: what needs no look at the bytes,
// texts, regular expressions, fields.
func cost(n node) int {
	most := 0
	visit(n, func(n node) {
		c := 0
		switch n := n.(type) {
		case *text:
			c = 1
			if n.regex {
				c = 2
			}
		case *comparison:
			if !given(n.field) {
				c = 3
			}
		}
		most = max(most, c)
	})
	return most
}

// compare makes the function of a comparison. Where every record with such a
// value has certain bytes (clause), they are looked for before the fields are.
func (e *Evaluator) compare(c *comparison, zone *time.Location) func(*event.Event) bool {
	decide := e.field(c, zone)
	var bytes []*match.Matcher
	for _, l := range c.clause(Verbatim) {
		p, err := match.Compile(string(l.Text), match.Options{Fold: l.Fold, Word: l.Word})
		if err != nil {
			return decide // it is a shortcut only
		}
		bytes = append(bytes, p.NewMatcher())
	}
	if bytes == nil {
		return decide
	}
	return func(ev *event.Event) bool {
		if ev.Fill != nil && !slices.ContainsFunc(bytes, func(m *match.Matcher) bool { return m.Match(ev.Raw) }) {
			return false
		}
		return decide(ev)
	}
}

// field makes the function that compares a field. What an event has as a value
// is compared without making a text of it.
func (e *Evaluator) field(c *comparison, zone *time.Location) func(*event.Event) bool {
	switch {
	case c.op == opRegex || c.op == opHas && c.field != fieldTime:
	case c.field == fieldTime:
		return func(ev *event.Event) bool { return c.op == opHas || c.time(ev.Time) }
	case c.field == fieldSeverity:
		return func(ev *event.Event) bool {
			s := ev.Parsed().Severity
			return s < event.NoSeverity && c.severity(int(event.Debug-s))
		}
	case c.field == fieldPID:
		return func(ev *event.Event) bool { return ev.Parsed().PID != 0 && c.number(float64(ev.PID)) }
	case c.field == fieldAddr && !slices.ContainsFunc(c.operands, func(o operand) bool { return o.kind != asAddress }):
		return func(ev *event.Event) bool { return slices.ContainsFunc(ev.Parsed().Addrs, c.address) }
	}
	test := c.tester(zone)
	return func(ev *event.Event) bool {
		e.buf = Values(ev, c.field, e.buf[:0])
		return slices.ContainsFunc(e.buf, test)
	}
}

// tester makes the function that decides about one value, which is a text.
func (c *comparison) tester(zone *time.Location) func([]byte) bool {
	switch c.op {
	case opHas:
		return func(v []byte) bool { return len(v) > 0 }
	case opRegex:
		m := c.pattern.NewMatcher()
		return m.Match
	case opContains:
		if o := &c.operands[0]; o.kind == asText {
			want := []byte(o.text)
			return func(v []byte) bool { return containsText(v, want, c.fold) }
		}
	}
	return func(v []byte) bool {
		kind := c.operands[0].kind
		if c.numeric {
			kind = asText // numbers and texts side by side
		}
		switch kind {
		case asTime:
			t, ok := when(string(v), zone)
			return ok && c.time(t)
		case asSeverity:
			level, ok := severityLevel(string(v))
			return ok && c.severity(level)
		case asNumber:
			n, ok := quantity(string(v))
			return ok && c.number(n)
		}
		return slices.ContainsFunc(c.operands, func(o operand) bool { return c.textual(&o, v) })
	}
}

func (c *comparison) time(t int64) bool {
	return slices.ContainsFunc(c.operands, func(o operand) bool { return o.when.first <= t && t < o.when.last })
}

func (c *comparison) severity(level int) bool {
	if c.op == opBetween {
		return c.operands[0].level <= level && level <= c.operands[1].level
	}
	return slices.ContainsFunc(c.operands, func(o operand) bool { return ordered(c.op, cmp.Compare(level, o.level)) })
}

func (c *comparison) number(n float64) bool {
	if c.op == opBetween {
		return c.operands[0].number <= n && n <= c.operands[1].number
	}
	return slices.ContainsFunc(c.operands, func(o operand) bool {
		return o.kind == asNumber && ordered(c.op, cmp.Compare(n, o.number))
	})
}

func (c *comparison) address(a netip.Addr) bool {
	return slices.ContainsFunc(c.operands, func(o operand) bool { return o.holds(a) })
}

// holds reports whether an address is one of the operand's. IPv4 addresses
// that are written as IPv6 (::ffff:10.0.0.1) are the IPv4 addresses.
func (o *operand) holds(a netip.Addr) bool {
	a = a.WithZone("").Unmap()
	return o.kind == asAddress && a.Is4() == o.from.Is4() && !a.Less(o.from) && !o.to.Less(a)
}

func ordered(op operator, c int) bool {
	switch op {
	case opLess:
		return c < 0
	case opLessEqual:
		return c <= 0
	case opGreater:
		return c > 0
	case opGreaterEqual:
		return c >= 0
	}
	return c == 0
}

// textual reports whether a text is equal to an operand, or in its network.
func (c *comparison) textual(o *operand, v []byte) bool {
	if o.kind == asAddress {
		a, err := netip.ParseAddr(string(v))
		return err == nil && o.holds(a)
	}
	if o.kind == asNumber && c.numeric {
		if n, ok := number(string(v)); ok {
			return n == o.number
		}
	}
	if o.glob != nil {
		return globbed(v, o.glob, c.fold) || c.field == fieldUnit && globbed(service(v), o.glob, c.fold)
	}
	if c.field == fieldUnit {
		return equalText(service(v), service([]byte(o.text)), c.fold)
	}
	return equalText(v, []byte(o.text), c.fold)
}

// service takes the .service from the name of a unit: systemctl lets its users
// leave it out too.
func service(unit []byte) []byte { return bytes.TrimSuffix(unit, []byte(".service")) }

// globbed reports whether a text has the pieces of a pattern: the first at its
// beginning, the last at its end, the others in their order between them.
func globbed(v []byte, glob []string, fold bool) bool {
	first, last := glob[0], glob[len(glob)-1]
	if len(v) < len(first)+len(last) || !equalText(v[:len(first)], []byte(first), fold) ||
		!equalText(v[len(v)-len(last):], []byte(last), fold) {
		return false
	}
	v = v[len(first) : len(v)-len(last)]
	for _, piece := range glob[1 : len(glob)-1] {
		i := indexText(v, []byte(piece), fold)
		if i < 0 {
			return false
		}
		v = v[i+len(piece):]
	}
	return true
}

// Letters of ASCII only are folded in fields: that is what names of hosts,
// users and programs are made of, and what Need can promise.

func equalText(a, b []byte, fold bool) bool {
	if !fold {
		return bytes.Equal(a, b)
	}
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if lowerByte(a[i]) != lowerByte(b[i]) {
			return false
		}
	}
	return true
}

func containsText(v, want []byte, fold bool) bool { return indexText(v, want, fold) >= 0 }

func indexText(v, want []byte, fold bool) int {
	if !fold {
		return bytes.Index(v, want)
	}
	for i := 0; i+len(want) <= len(v); i++ {
		if equalText(v[i:i+len(want)], want, true) {
			return i
		}
	}
	return -1
}

func lowerByte(c byte) byte {
	if c >= 'A' && c <= 'Z' {
		return c | 0x20
	}
	return c
}

func columnNames(columns []Column) string {
	var names []string
	for _, c := range columns {
		names = append(names, c.Name)
	}
	return strings.Join(names, ", ")
}
