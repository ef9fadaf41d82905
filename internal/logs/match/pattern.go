package match

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"regexp/syntax"
	"strings"
)

// Options say how a pattern is read.
type Options struct {
	// Regex says that the pattern is a regular expression of RE2's syntax with
	// Perl's classes; otherwise it is the text itself.
	Regex bool
	// Fold lets letters match in either case: in a regular expression as (?i)
	// does, in plain text the letters of ASCII.
	Fold bool
	// Word lets a match count only when no word character ([0-9A-Za-z_], as in
	// RE2's \b) is right before or after it.
	Word bool
}

// Pattern is what is looked for. It does not change and may be used by many
// goroutines at once; each makes a Matcher of it.
type Pattern struct {
	opts Options
	re   *syntax.Regexp
	slow *regexp.Regexp
	need Need
}

// Compile reads a pattern. Its error says what is wrong, and where.
func Compile(pattern string, o Options) (*Pattern, error) {
	expr := pattern
	if !o.Regex {
		if strings.Contains(pattern, "\n") {
			return nil, errors.New("the pattern has a newline in it, and a line has none")
		}
		expr = regexp.QuoteMeta(pattern)
	}
	flags := syntax.Perl &^ (syntax.OneLine | syntax.ClassNL)
	if o.Fold {
		flags |= syntax.FoldCase
	}
	re, err := syntax.Parse(expr, flags)
	if err != nil {
		return nil, fmt.Errorf("pattern %q: %w", pattern, err)
	}
	p := &Pattern{opts: o, re: re}
	text := re.String()
	if o.Word {
		text = `(?:(?m:^)|\W)(?:` + text + `)(?:\W|(?m:$))`
	}
	if p.slow, err = regexp.Compile(text); err != nil {
		return nil, fmt.Errorf("pattern %q: %w", pattern, err)
	}
	if !o.Regex && pattern != "" {
		lit := Literal{Text: []byte(pattern), Fold: o.Fold, Word: o.Word}
		if o.Fold {
			lit.Text = bytes.ToLower(lit.Text)
		}
		p.need = Need{Clauses: []Clause{{lit}}, Exact: true}
	}
	return p, nil
}

// Need returns what the bytes of every match contain.
func (p *Pattern) Need() Need { return p.need }

// NewMatcher returns a matcher for the use of one goroutine.
func (p *Pattern) NewMatcher() *Matcher { return &Matcher{p: p} }

// Matcher looks for a pattern. It is not safe for concurrent use.
type Matcher struct{ p *Pattern }

// Match reports whether any line of text matches.
func (m *Matcher) Match(text []byte) bool {
	if len(text) == 0 {
		return m.p.slow.Match(text)
	}
	start, _ := m.NextLine(text, 0)
	return start >= 0
}

// Find returns where the first match at or after from begins and ends, or -1,
// -1 when there is none.
func (m *Matcher) Find(text []byte, from int) (start, end int) {
	loc := m.p.slow.FindIndex(text[from:])
	if loc == nil {
		return -1, -1
	}
	return from + loc[0], from + loc[1]
}

// NextLine returns where the first line that matches and begins at or after
// from begins and ends, without its newline, or -1, -1 when there is none.
// from must be the beginning of a line.
func (m *Matcher) NextLine(buf []byte, from int) (start, end int) {
	for from < len(buf) {
		end := len(buf)
		if i := bytes.IndexByte(buf[from:], '\n'); i >= 0 {
			end = from + i
		}
		if m.p.slow.Match(buf[from:end]) {
			return from, end
		}
		from = end + 1
	}
	return -1, -1
}

// CountLines returns how many lines of buf match.
func (m *Matcher) CountLines(buf []byte) int {
	n := 0
	for from := 0; ; n++ {
		_, end := m.NextLine(buf, from)
		if end < 0 {
			return n
		}
		from = end + 1
	}
}
