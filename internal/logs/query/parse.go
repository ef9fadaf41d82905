package query

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/mobileops/mobileops/internal/logs/match"
)

// query reads filter and pipeline.
func (p *parser) query() (node, []stage, error) {
	filter, err := p.filter()
	if err != nil {
		return nil, nil, err
	}
	if p.end() {
		return filter, nil, nil
	}
	if p.src[p.pos] == ')' {
		return nil, nil, p.fail(p.pos, `")" without "("`, `to find the character put the text between quotes: ")"`)
	}
	stages, err := p.pipeline(nil)
	return filter, stages, err
}

// filter reads an expression up to the end, a | or a ) that is not its own. An
// empty one lets everything through.
func (p *parser) filter() (node, error) {
	p.skip()
	if p.end() || p.src[p.pos] == '|' && p.peek(1) != '|' {
		return everything{}, nil
	}
	return p.or()
}

// keyword reports whether the next word is a given one, in lower or in upper
// case, or the sign that programmers write for it, and goes past it.
func (p *parser) keyword(word, sign string) bool {
	p.skip()
	rest := p.rest()
	for _, w := range [...]string{word, strings.ToUpper(word)} {
		if strings.HasPrefix(rest, w) && (p.ends(p.pos+len(w)) || rest[len(w)] == '(') {
			p.pos += len(w)
			return true
		}
	}
	if sign != "" && strings.HasPrefix(rest, sign) {
		p.pos += len(sign)
		return true
	}
	return false
}

func (p *parser) or() (node, error) {
	if p.depth++; p.depth > maxDepth {
		return nil, p.failf(p.pos, "", "more than %d parentheses and negations within each other", maxDepth)
	}
	defer func() { p.depth-- }()
	var nodes []node
	for {
		n, err := p.and()
		if err != nil {
			return nil, err
		}
		nodes = append(nodes, n)
		if !p.keyword("or", "||") {
			return either(nodes), nil
		}
	}
}

func (p *parser) and() (node, error) {
	var nodes []node
	joined := p.begun // and, or or a parenthesis stands before
	p.begun = true
	for {
		n, err := p.unary(joined)
		if err != nil {
			return nil, err
		}
		nodes = append(nodes, n)
		if joined = p.keyword("and", "&&"); joined {
			continue
		}
		if p.end() || p.src[p.pos] == ')' || p.src[p.pos] == '|' || p.at("or") {
			return all(nodes), nil
		}
	}
}

// at reports whether a keyword is next, without going past it.
func (p *parser) at(word string) bool {
	before := p.pos
	found := p.keyword(word, "")
	p.pos = before
	return found
}

// unary reads a negation or what can be negated. joined says that an operator
// or a parenthesis stands before it.
func (p *parser) unary(joined bool) (node, error) {
	if p.depth++; p.depth > maxDepth {
		return nil, p.failf(p.pos, "", "more than %d parentheses and negations within each other", maxDepth)
	}
	defer func() { p.depth-- }()
	p.skip()
	start := p.pos
	if err := p.operandExpected(start); err != nil {
		return nil, err
	}
	switch c := p.src[p.pos]; {
	case c == '-' && !strings.HasPrefix(p.rest(), "->"):
		if err := p.minus(); err != nil {
			return nil, err
		}
		p.pos++
	case c == '!' && !strings.HasPrefix(p.rest(), "!=") && !strings.HasPrefix(p.rest(), "!~"):
		p.pos++
	case p.keyword("not", ""):
		p.skip()
		if p.end() {
			return nil, p.fail(start, "nothing stands behind not", `to find the word put it between quotes: "not"`)
		}
		clear := joined || p.src[start] == 'N' || strings.IndexByte(`("'-!`, p.src[p.pos]) >= 0
		n, err := p.unary(true)
		if t, plain := n.(*text); err == nil && plain && !clear && !t.regex {
			return nil, p.failf(start, `to leave out what has the word: -`+t.source+`; to find the text: "not `+t.source+`"`,
				"not %s can be read in two ways", t.source)
		}
		if err != nil {
			return nil, err
		}
		return negate(n), nil
	default:
		return p.primary()
	}
	n, err := p.unary(true)
	if err != nil {
		return nil, err
	}
	return negate(n), nil
}

// operandExpected is the error for an end, or an operator, where something to
// look for is expected.
func (p *parser) operandExpected(at int) error {
	if p.end() {
		return p.fail(at, "something to look for is expected here", `to find the words and, or, not put them between quotes: "and"`)
	}
	switch p.src[at] {
	case ')':
		return p.fail(at, `something to look for is expected before ")"`, `to find the character put the text between quotes: "()"`)
	case '|':
		return p.fail(at, `something to look for is expected before "|"`, `to find the character put it between quotes: "|"`)
	}
	for _, w := range [...]string{"and", "or"} {
		if p.at(w) {
			return p.failf(at, `to find the word put it between quotes: "`+w+`"`, "something to look for is expected before %s", w)
		}
	}
	return nil
}

// grepFlag explains a flag of grep or journalctl that somebody typed within the
// expression.
func grepFlag(c byte) string {
	switch c {
	case 'v':
		return "to leave something out put - right before it: -text"
	case 'i', 'w', 'e', 'F', 'A', 'B', 'C':
		return "flags stand before the expression: logs search -" + string(c) + " EXPR"
	case 'E', 'P', 'G':
		return "a regular expression stands between slashes: /a|b/"
	case 'c':
		return "to count: logs search --count EXPR, or EXPR | count"
	case 'u', 't':
		return "write unit=NAME or program=NAME"
	case 'p':
		return "write severity>=err"
	}
	return "flags stand before the expression"
}

// minus judges what stands behind a minus. What could be a flag, a number or a
// dash of a text that somebody copied must not quietly leave events out.
func (p *parser) minus() error {
	at, next := p.pos, p.peek(1)
	letter := next >= 'a' && next <= 'z' || next >= 'A' && next <= 'Z'
	switch {
	case p.ends(at + 1):
		return p.fail(at, "a - stands alone", `to leave something out put it right before it: -text; to find the character: "-"`)
	case next == '-':
		word := p.src[at : at+p.wordLength(at)]
		return p.failf(at, "flags stand before the expression; to find the text put it between quotes: "+quote(word), "%s looks like a flag", word)
	case next >= '0' && next <= '9':
		word := p.src[at : at+p.wordLength(at)]
		return p.failf(at, `to leave out what has the number: not "`+word[1:]+`"; to find the text: `+quote(word), "%s can be read in two ways", word)
	case letter && p.ends(at+2):
		return p.failf(at, grepFlag(next)+`; to find the text put it between quotes: "-`+string(next)+`"`, "-%c looks like a flag", next)
	case letter, next >= utf8.RuneSelf, strings.IndexByte("_@\"'(/[*!{", next) >= 0:
		return nil
	}
	return p.fail(at, "a - here can be read in two ways", `to leave something out: not "text"; to find the text put all of it between quotes`)
}

func (p *parser) primary() (node, error) {
	at := p.pos
	switch c := p.src[at]; c {
	case '(':
		p.pos++
		p.skip()
		if p.peek(0) == ')' {
			return nil, p.fail(p.pos, `something to look for is expected before ")"`, `to find the text put it between quotes: "()"`)
		}
		n, err := p.or()
		if err != nil {
			return nil, err
		}
		p.skip()
		switch {
		case p.end():
			return nil, p.fail(p.pos, `")" expected`, p.opened(at))
		case p.src[p.pos] == '|':
			return nil, p.fail(p.pos, `")" expected: a pipeline cannot stand within parentheses`, p.opened(at))
		}
		p.pos++
		if !p.ends(p.pos) {
			return nil, p.fail(p.pos, `a space is expected behind ")"`, "to find the text with its parentheses put all of it between quotes")
		}
		return n, nil
	case '"', '\'':
		s, err := p.quoted()
		if err != nil {
			return nil, err
		}
		if op := operatorAt(p.rest()); s != "" && op != "" && op[0] != ':' && op != "=" {
			p.pos += len(op) // the name of a field that is no plain name
			return p.compared(at, s, op)
		}
		if !p.ends(p.pos) {
			end := p.pos + p.wordLength(p.pos)
			hint := "put a space there"
			if whole := p.src[at:end]; !strings.Contains(whole, "'") {
				hint += "; to find the text with its quotes: '" + whole + "'"
			}
			return nil, p.fail(p.pos, "text stands right behind the quotes", hint)
		}
		return p.text(at, s, false, false)
	case '/':
		if n := p.regexLength(at); n > 0 {
			source, fold := p.regex(n)
			return p.text(at, source, true, fold)
		}
	}
	if n, err := p.comparison(); n != nil || err != nil {
		return n, err
	}
	return p.word()
}

// opened says which parenthesis is not closed.
func (p *parser) opened(at int) string {
	return fmt.Sprintf(`for the "(" of column %d; to find the character put the text between quotes: "("`, p.fail(at, "", "").Column)
}

// word reads a plain word: a text without spaces.
func (p *parser) word() (node, error) {
	at := p.pos
	length := p.wordLength(at)
	raw := p.src[at : at+length]
	if raw == "*" {
		p.pos += length
		return everything{}, nil
	}
	if p.columns != nil {
		return nil, p.failf(at, "write COLUMN > 10; columns: "+columnNames(p.columns), "where compares columns, and %s is no comparison", raw)
	}
	if err := p.suspicious(at, raw); err != nil {
		return nil, err
	}
	s, err := p.unescape(at, raw)
	if err != nil {
		return nil, err
	}
	p.pos += length
	return p.text(at, s, false, false)
}

// suspicious finds what looks like an operator or a regular expression in a
// plain word: as a text it would find nothing, without a word about why.
func (p *parser) suspicious(at int, word string) error {
	for _, op := range [...]string{"==", "=~", "!=", "!~", ">=", "<=", "=", "~"} {
		if strings.HasPrefix(word, op) {
			return p.failf(at, "write name"+op+"value without spaces; to find the text put all of it between quotes",
				"%s has no field before it", op)
		}
	}
	if (word == "<" || word == ">") && at > 0 {
		return p.failf(at, "write name"+word+`10; to find the character put all of the text between quotes`, "%s has no field and number around it", word)
	}
	bare := strings.ReplaceAll(word, `\\`, "  ")
	for _, escaped := range [...]string{`\*`, `\.`, `\^`, `\$`, `\[`, `\+`, `\?`} {
		bare = strings.ReplaceAll(bare, escaped, "  ")
	}
	first := -1
	for _, sign := range [...]string{"*", ".+", "[^", "[0-9", "[a-z", "[A-Z"} {
		if i := strings.Index(bare, sign); i >= 0 && (first < 0 || i < first) {
			first = i
		}
	}
	if strings.HasPrefix(bare, "^") {
		first = 0
	}
	if strings.HasSuffix(bare, "$") && first < 0 {
		first = len(bare) - 1
	}
	if first < 0 {
		return nil
	}
	hint := "a regular expression stands between slashes: /" + strings.ReplaceAll(word, "/", `\/`) + "/; to find the text itself: " + quote(word)
	if trimmed := strings.Trim(word, "*"); bare[first] == '*' && trimmed != "" && !strings.ContainsAny(trimmed, `*\`) {
		hint = "words match anywhere, so no * is needed: " + trimmed + "; to find the text itself: " + quote(word)
	}
	return p.failf(at+first, hint, "%s is not a pattern here", word)
}

// text makes the node of a text or a regular expression that stands at a byte.
func (p *parser) text(at int, source string, regex, fold bool) (node, error) {
	if source == "" && !regex || source == "" && p.opts.Regex {
		return everything{}, nil
	}
	if p.columns != nil {
		return nil, p.fail(at, "where compares columns, and a text is no comparison", "write COLUMN > 10; columns: "+columnNames(p.columns))
	}
	pattern, err := p.compile(at, source, match.Options{Regex: regex, Fold: fold || p.opts.Fold, Word: p.opts.Word})
	if err != nil {
		return nil, err
	}
	return &text{pattern: pattern, source: source, regex: regex, fold: fold && !p.opts.Regex}, nil
}

func (p *parser) compile(at int, source string, o match.Options) (*match.Pattern, error) {
	pattern, err := match.Compile(source, o)
	if err != nil {
		message, hint := err.Error(), ""
		if inner := errors.Unwrap(err); inner != nil {
			message = inner.Error()
		}
		if o.Regex && !p.opts.Regex {
			hint = "what stands between slashes is a regular expression; to find the text put it between quotes: " + quote("/"+source+"/")
		}
		return nil, p.fail(at, message, hint)
	}
	return pattern, nil
}
