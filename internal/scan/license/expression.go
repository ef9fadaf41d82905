package license

import (
	"fmt"
	"strings"

	"github.com/mobileops/mobileops/internal/failure"
)

// Limits of one expression.
const (
	maxExpression = 64 << 10 // bytes
	maxDepth      = 64       // parentheses
	maxLeaves     = 2000     // licences
)

// Op says how the parts of an Expression belong together.
type Op int

// The operators. And binds tighter than Or; With belongs to a single licence.
const (
	Leaf Op = iota // no parts: one licence
	And            // all of the parts apply
	Or             // whoever uses it chooses one of the parts
)

// Expression is a licence expression as in annex B of SPDX 3.0 (annex D of 2.3).
type Expression struct {
	Op    Op
	Parts []*Expression // of And and Or, two or more
	// ID is a licence: an identifier of SPDX in its own letters, LicenseRef-…, or,
	// when Known is false, what somebody wrote.
	ID        string
	Known     bool
	Later     bool   // ID+: this version or a later one, for licences without an -or-later of their own
	Exception string // what follows WITH
}

// ExpressionError tells what is wrong with an expression, and where.
type ExpressionError struct {
	Expression string
	Offset     int // in bytes
	Problem    string
}

// Error names the offset.
func (e *ExpressionError) Error() string {
	text := e.Expression
	if len(text) > 80 {
		text = text[:80] + "…"
	}
	return fmt.Sprintf("licence expression %q: offset %d: %s", text, e.Offset, e.Problem)
}

// Parse reads an expression as SPDX writes it. Operators and identifiers are read
// in any case; identifiers that SPDX does not have stay as they are, with Known
// false. Errors are *ExpressionError of kind failure.Usage.
func Parse(s string) (*Expression, error) { return parse(s, spdxNames{}) }

// namer reads names of licences: one identifier of SPDX, or what people write.
type namer interface {
	// name returns the expression that one name, without operators, stands for.
	name(text string) *Expression
	// spaces says that names may have spaces in them.
	spaces() bool
}

func parse(s string, names namer) (*Expression, error) {
	p := parser{text: s, names: names}
	if len(s) > maxExpression {
		return nil, p.fail(maxExpression, "longer than %d bytes", maxExpression)
	}
	e, err := p.or(0)
	if err != nil {
		return nil, err
	}
	if t, at := p.peek(); t != "" {
		return nil, p.fail(at, "%q is not expected here", t)
	}
	return e, nil
}

type parser struct {
	text   string
	at     int
	leaves int
	names  namer
}

func (p *parser) fail(at int, format string, args ...any) error {
	return failure.Wrap(failure.Usage, &ExpressionError{p.text, at, fmt.Sprintf(format, args...)})
}

// peek returns the next word or parenthesis, "" at the end, and its offset.
func (p *parser) peek() (token string, at int) {
	for p.at < len(p.text) && isBlank(p.text[p.at]) {
		p.at++
	}
	if p.at == len(p.text) {
		return "", p.at
	}
	if c := p.text[p.at]; c == '(' || c == ')' {
		return p.text[p.at : p.at+1], p.at
	}
	end := p.at
	for end < len(p.text) && !isBlank(p.text[end]) && p.text[end] != '(' && p.text[end] != ')' {
		end++
	}
	return p.text[p.at:end], p.at
}

func isBlank(c byte) bool { return c == ' ' || c == '\t' || c == '\n' || c == '\r' }

// operator returns which operator a word is, "" when it is none.
func operator(word string) string {
	switch up := strings.ToUpper(word); up {
	case "AND", "OR", "WITH":
		return up
	}
	return ""
}

// take is peek that moves on.
func (p *parser) take() (token string, at int) {
	token, at = p.peek()
	p.at = at + len(token)
	return token, at
}

func (p *parser) or(depth int) (*Expression, error) {
	return p.chain(depth, "OR", Or, func(depth int) (*Expression, error) { return p.chain(depth, "AND", And, p.with) })
}

// chain reads parts that are joined by one operator.
func (p *parser) chain(depth int, word string, op Op, part func(int) (*Expression, error)) (*Expression, error) {
	first, err := part(depth)
	if err != nil {
		return nil, err
	}
	parts := []*Expression{first}
	for {
		if t, _ := p.peek(); operator(t) != word {
			return Join(op, parts...), nil
		}
		p.take()
		next, err := part(depth)
		if err != nil {
			return nil, err
		}
		parts = append(parts, next)
	}
}

// with reads a licence with or without an exception, or what is in parentheses.
func (p *parser) with(depth int) (*Expression, error) {
	t, at := p.peek()
	switch {
	case t == "":
		return nil, p.fail(at, "a licence is missing")
	case t == ")" || operator(t) != "":
		return nil, p.fail(at, "a licence is missing before %q", t)
	case t == "(":
		if depth >= maxDepth {
			return nil, p.fail(at, "more than %d parentheses", maxDepth)
		}
		p.take()
		e, err := p.or(depth + 1)
		if err != nil {
			return nil, err
		}
		if end, at := p.take(); end != ")" {
			return nil, p.fail(at, "a closing parenthesis is missing")
		}
		return e, nil
	}
	text := p.words()
	if p.leaves++; p.leaves > maxLeaves {
		return nil, p.fail(at, "more than %d licences", maxLeaves)
	}
	if !p.names.spaces() && !isIdentifier(strings.TrimSuffix(text, "+")) {
		return nil, p.fail(at, "%q is no identifier of a licence", text)
	}
	e := p.names.name(text)
	if t, _ := p.peek(); operator(t) != "WITH" {
		return e, nil
	}
	p.take()
	if t, at := p.peek(); t == "" || t == "(" || t == ")" || operator(t) != "" {
		return nil, p.fail(at, "an exception is missing after WITH")
	}
	exception := p.words()
	if e.Op != Leaf || e.Exception != "" {
		return e, nil // the name stands for more than one licence, or already says which exception
	}
	e = &Expression{ID: e.ID, Known: e.Known, Later: e.Later, Exception: exceptionID(exception)}
	return e, nil
}

// words reads one name: one word, or as many as there are up to an operator.
func (p *parser) words() string {
	word, at := p.take()
	if !p.names.spaces() {
		return word
	}
	end := p.at
	for {
		t, _ := p.peek()
		if t == "" || t == "(" || t == ")" || operator(t) != "" {
			return p.text[at:end]
		}
		p.take()
		end = p.at
	}
}

// isIdentifier reports whether s is an idstring of SPDX, or a reference with one.
func isIdentifier(s string) bool {
	for i := range len(s) {
		c := s[i]
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '.' || c == ':') {
			return false
		}
	}
	return s != ""
}

// spdxNames reads identifiers as they are.
type spdxNames struct{}

func (spdxNames) spaces() bool { return false }

func (spdxNames) name(text string) *Expression {
	if e, ok := identifier(text); ok {
		return e
	}
	id, later := strings.CutSuffix(text, "+")
	return &Expression{ID: id, Later: later, Known: strings.HasPrefix(id, "LicenseRef-") || strings.HasPrefix(id, "DocumentRef-")}
}

// Join makes one expression of several that all apply (And) or of which one may be
// chosen (Or). Parts that say the same are taken once. It returns nil for none.
func Join(op Op, parts ...*Expression) *Expression {
	var flat []*Expression
	seen := map[string]bool{}
	for _, p := range parts {
		if p == nil {
			continue
		}
		inner := []*Expression{p}
		if p.Op == op {
			inner = p.Parts
		}
		for _, e := range inner {
			if s := e.String(); !seen[s] {
				seen[s] = true
				flat = append(flat, e)
			}
		}
	}
	switch len(flat) {
	case 0:
		return nil
	case 1:
		return flat[0]
	}
	return &Expression{Op: op, Parts: flat}
}

// String writes the expression as SPDX does; a name that SPDX does not have becomes
// LicenseRef-….
func (e *Expression) String() string {
	if e == nil {
		return ""
	}
	var b strings.Builder
	e.write(&b, Or)
	return b.String()
}

func (e *Expression) write(b *strings.Builder, around Op) {
	if e.Op == Leaf {
		b.WriteString(reference(e))
		if e.Later {
			b.WriteByte('+')
		}
		if e.Exception != "" {
			b.WriteString(" WITH " + e.Exception)
		}
		return
	}
	word, parentheses := " OR ", false
	if e.Op == And {
		word = " AND "
	} else if around == And {
		parentheses = true
		b.WriteByte('(')
	}
	for i, p := range e.Parts {
		if i > 0 {
			b.WriteString(word)
		}
		p.write(b, e.Op)
	}
	if parentheses {
		b.WriteByte(')')
	}
}

// reference returns how a licence is called in an expression.
func reference(e *Expression) string {
	if e.Known {
		return e.ID
	}
	clean := strings.Trim(strings.Map(func(r rune) rune {
		if r < 0x80 && (isIdentifier(string(r)) && r != ':') {
			return r
		}
		return '-'
	}, e.ID), "-")
	if len(clean) > 60 {
		clean = strings.TrimRight(clean[:60], "-")
	}
	if clean == "" {
		clean = "unnamed"
	}
	return "LicenseRef-" + clean
}

// Licenses returns the licences of the expression, from left to right.
func (e *Expression) Licenses() []*Expression {
	if e == nil {
		return nil
	}
	if e.Op == Leaf {
		return []*Expression{e}
	}
	var out []*Expression
	for _, p := range e.Parts {
		out = append(out, p.Licenses()...)
	}
	return out
}
