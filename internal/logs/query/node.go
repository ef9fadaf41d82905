package query

import (
	"net/netip"
	"strings"

	"github.com/mobileops/mobileops/internal/logs/match"
)

// node is a part of a filter: everything, *text, *comparison, *not, *and, *or.
type node interface{ write(*strings.Builder) }

// everything is the filter that lets every event through.
type everything struct{}

// text asks for a text, a word or a regular expression in the Text of an event.
type text struct {
	pattern *match.Pattern
	source  string // the text, or the expression
	regex   bool
	fold    bool // it says so itself: /…/i
}

type not struct{ of node }

// and and or have at least two nodes, none of their own kind.
type and struct{ nodes []node }
type or struct{ nodes []node }

// operator is how a field is compared.
type operator uint8

const (
	opHas      operator = iota // there is a value
	opEqual                    // one value equals one of the operands
	opContains                 // one value contains the operand
	opLess                     // … is smaller; of severities: less bad
	opLessEqual
	opGreater
	opGreaterEqual
	opBetween // from the first operand to the second, both included
	opRegex   // one value matches the pattern
)

var operatorText = [...]string{opEqual: "==", opContains: ":", opLess: "<", opLessEqual: "<=", opGreater: ">", opGreaterEqual: ">="}

// comparison asks for a field. Negations are nodes around it.
type comparison struct {
	field    string
	op       operator
	operands []operand
	pattern  *match.Pattern // of opRegex
	source   string         // of opRegex: the expression
	ownFold  bool           // of opRegex: /…/i
	fold     bool           // letters of ASCII match in either case
	numeric  bool           // equality of numbers is by value, in the columns of a table
}

// operand is one value that a field is compared with. What it is read as
// depends on the field.
type operand struct {
	text   string
	glob   []string // pieces between the stars, or nil when it is no glob
	open   bool     // of a range: there is no such end
	number float64
	when   stretch // of times; of a comparison with one time: what satisfies it
	level  int     // of severities: 0 debug to 7 emergency
	from   netip.Addr
	to     netip.Addr
	kind   valueKind
}

// valueKind is how an operand and the values of its field are compared.
type valueKind uint8

const (
	asText valueKind = iota
	asNumber
	asTime
	asSeverity
	asAddress
)

// all joins nodes by and.
func all(nodes []node) node {
	var flat []node
	for _, n := range nodes {
		switch n := n.(type) {
		case *and:
			flat = append(flat, n.nodes...)
		case everything: // asks for nothing
		default:
			flat = append(flat, n)
		}
	}
	switch len(flat) {
	case 0:
		return everything{}
	case 1:
		return flat[0]
	}
	return &and{flat}
}

// any joins nodes by or.
func either(nodes []node) node {
	var flat []node
	for _, n := range nodes {
		switch n := n.(type) {
		case *or:
			flat = append(flat, n.nodes...)
		case everything:
			return n
		default:
			flat = append(flat, n)
		}
	}
	if len(flat) == 1 {
		return flat[0]
	}
	return &or{flat}
}

func negate(n node) node {
	if n, ok := n.(*not); ok {
		return n.of
	}
	return &not{n}
}

// visit calls f with every node that is not made of others.
func visit(n node, f func(node)) {
	switch n := n.(type) {
	case *not:
		visit(n.of, f)
	case *and:
		for _, x := range n.nodes {
			visit(x, f)
		}
	case *or:
		for _, x := range n.nodes {
			visit(x, f)
		}
	default:
		f(n)
	}
}

// parses reports whether a node looks at fields that a format has to find.
func parses(n node) bool {
	found := false
	visit(n, func(n node) {
		if c, ok := n.(*comparison); ok && !given(c.field) {
			found = true
		}
	})
	return found
}

// String returns the expression in a canonical form that parses to the same
// query under the same options.
func (q *Query) String() string {
	var b strings.Builder
	q.filter.write(&b)
	for _, s := range q.stages {
		b.WriteString(" | ")
		b.WriteString(s.describe())
	}
	return b.String()
}

func (everything) write(b *strings.Builder) { b.WriteByte('*') }

func (n *text) write(b *strings.Builder) {
	if n.regex {
		writeRegex(b, n.source, n.fold)
		return
	}
	b.WriteString(quote(n.source))
}

func (n *not) write(b *strings.Builder) {
	b.WriteString("not ")
	writeInner(b, n.of)
}

func (n *and) write(b *strings.Builder) { writeList(b, n.nodes, " and ") }
func (n *or) write(b *strings.Builder)  { writeList(b, n.nodes, " or ") }

func writeList(b *strings.Builder, nodes []node, between string) {
	for i, n := range nodes {
		if i > 0 {
			b.WriteString(between)
		}
		writeInner(b, n)
	}
}

// writeInner puts parentheses around what is made of several nodes, even where
// the precedence would do: it is read more often than typed.
func writeInner(b *strings.Builder, n node) {
	switch n.(type) {
	case *and, *or:
		b.WriteByte('(')
		n.write(b)
		b.WriteByte(')')
	default:
		n.write(b)
	}
}

func (n *comparison) write(b *strings.Builder) {
	name := fieldText(n.field)
	switch n.op {
	case opHas:
		b.WriteString("has(" + name + ")")
	case opRegex:
		b.WriteString(name + "~")
		writeRegex(b, n.source, n.ownFold)
	case opBetween:
		b.WriteString(name + "==[" + n.operands[0].String() + ".." + n.operands[1].String() + "]")
	case opEqual:
		if len(n.operands) == 1 {
			b.WriteString(name + "==" + n.operands[0].String())
			return
		}
		b.WriteString(name + " in (")
		for i, o := range n.operands {
			if i > 0 {
				b.WriteString(", ")
			}
			b.WriteString(o.String())
		}
		b.WriteByte(')')
	default:
		b.WriteString(name + operatorText[n.op] + n.operands[0].String())
	}
}

// String returns the operand as it is written in an expression.
func (o *operand) String() string {
	switch {
	case o.open:
		return ""
	case o.glob == nil:
		return quote(o.text)
	}
	var b strings.Builder
	for i, piece := range o.glob {
		if i > 0 {
			b.WriteByte('*')
		}
		if piece != "" {
			b.WriteString(quote(piece))
		}
	}
	return b.String()
}

// writeRegex writes an expression between slashes. Those of the expression are
// escaped, unless they are already.
func writeRegex(b *strings.Builder, source string, fold bool) {
	b.WriteByte('/')
	class := false
	for i := 0; i < len(source); i++ {
		switch c := source[i]; {
		case c == '\\' && i+1 < len(source):
			b.WriteByte(c)
			i++
		case c == '[':
			class = true
		case c == ']':
			class = false
		case c == '/' && !class:
			b.WriteByte('\\')
		}
		b.WriteByte(source[i])
	}
	b.WriteByte('/')
	if fold {
		b.WriteByte('i')
	}
}

// quote writes a text between double quotes, so that it parses to itself.
func quote(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for i := 0; i < len(s); i++ {
		switch c := s[i]; c {
		case '"', '\\':
			b.WriteByte('\\')
			b.WriteByte(c)
		case '\n':
			b.WriteString(`\n`)
		case '\t':
			b.WriteString(`\t`)
		case '\r':
			b.WriteString(`\r`)
		default:
			if c < 0x20 || c == 0x7f {
				b.WriteString(`\x`)
				b.WriteByte("0123456789abcdef"[c>>4])
				b.WriteByte("0123456789abcdef"[c&15])
				continue
			}
			b.WriteByte(c)
		}
	}
	b.WriteByte('"')
	return b.String()
}

// fieldText writes the name of a field, between quotes when it is no plain name.
func fieldText(name string) string {
	if n := nameLength(name); n == len(name) {
		return name
	}
	return quote(name)
}

func lower(s string) string {
	for i := 0; i < len(s); i++ {
		if c := s[i]; c >= 'A' && c <= 'Z' {
			b := []byte(s)
			for j := i; j < len(b); j++ {
				if c := b[j]; c >= 'A' && c <= 'Z' {
					b[j] |= 0x20
				}
			}
			return string(b)
		}
	}
	return s
}
