package match

import (
	"errors"
	"fmt"
	"regexp"
	"regexp/syntax"
	"slices"
	"strings"
	"sync"
	"unicode/utf8"
)

// Options say how a pattern is read.
type Options struct {
	// Regex says that the pattern is a regular expression of RE2's syntax with
	// Perl's classes; otherwise it is the text itself.
	//
	// A match lies within one line: ".", "\s" and classes like [^a] do not match
	// a newline, ^ and \A are the beginning of a line, $ and \z its end. A
	// carriage return before the newline belongs to the line. A byte that is no
	// UTF-8 is one character, U+FFFD.
	Regex bool
	// Fold lets letters match in either case: in a regular expression as (?i)
	// does, in plain text those of ASCII, or all if the pattern has others.
	Fold bool
	// Word lets a match count only when no word character ([0-9A-Za-z_], as in
	// RE2's \b) is right before or after it.
	Word bool
}

// Error says what is wrong with a pattern.
type Error struct {
	Pattern string
	// Offset is where the part that is wrong begins, in bytes; -1 when that is
	// not known.
	Offset int
	Err    error
}

func (e *Error) Error() string {
	if e.Offset < 0 {
		return fmt.Sprintf("pattern %q: %v", e.Pattern, e.Err)
	}
	return fmt.Sprintf("pattern %q, column %d: %v", e.Pattern, utf8.RuneCountInString(e.Pattern[:e.Offset])+1, e.Err)
}

func (e *Error) Unwrap() error { return e.Err }

// Pattern is what is looked for. It does not change and may be used by many
// goroutines at once; each makes a Matcher of it.
type Pattern struct {
	need Need
	prog *program // what the pattern is as an expression
	// seeker finds what lines with a match contain; nil if that is of no use.
	seeker seeker
	// literal says that what the seeker finds is a match already, and prefix
	// that no match of its line begins before.
	literal, prefix bool
	// plain says that the seeker is a finder, and matches are its literal.
	plain bool
	// slow is the expression for package regexp, which decides line by line
	// when the automaton would need too many states.
	slow func() *regexp.Regexp
}

// seeker looks for literals: finder and teddy.
type seeker interface {
	// next returns where an occurrence begins at or after from, in the line of
	// the first one, or -1. from begins a line.
	next(buf []byte, from int) int
}

// Compile reads a pattern. Errors are *Error and say what is wrong, and where.
func Compile(pattern string, o Options) (*Pattern, error) {
	expr := pattern
	if !o.Regex {
		if i := strings.IndexByte(pattern, '\n'); i >= 0 {
			return nil, &Error{pattern, i, errNewline}
		}
		if pattern != "" && (!o.Fold || isASCII(pattern) || !utf8.ValidString(pattern)) {
			return compileLiteral(literalOf(pattern, o)), nil
		}
		expr = regexp.QuoteMeta(pattern)
	}
	flags := syntax.Perl &^ (syntax.OneLine | syntax.ClassNL)
	if o.Fold {
		flags |= syntax.FoldCase
	}
	re, err := syntax.Parse(expr, flags)
	if err != nil {
		return nil, syntaxError(pattern, err)
	}
	if err := oneLine(re); err != nil {
		return nil, &Error{pattern, strings.Index(pattern, `\n`), err}
	}
	text := re.String()
	if o.Word {
		text = `(?:(?m:^)|\W)(?:` + text + `)(?:\W|(?m:$))`
	}
	re = re.Simplify()
	p := &Pattern{need: needOf(re, o.Word), slow: sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(text) })}
	if p.prog, err = newProgram(re, o.Word); err != nil {
		return nil, &Error{pattern, -1, err}
	}
	if p.prog.everyLine {
		p.need = Need{Exact: true}
	}
	p.chooseSeeker(re)
	return p, nil
}

// chooseSeeker finds out what is best looked for in a text to find the lines
// that may match.
func (p *Pattern) chooseSeeker(re *syntax.Regexp) {
	if p.need.Exact && len(p.need.Clauses) > 0 {
		c := p.need.Clauses[0]
		if len(c) == 1 {
			p.seeker, p.literal = newFinder(c[0]), true
		} else if t := newTeddy(c); t != nil {
			p.seeker, p.literal = t, true
		}
		return
	}
	single := slices.DeleteFunc(slices.Clone(p.need.Clauses), func(c Clause) bool { return len(c) > 1 })
	best, one := rarest(p.need.Clauses), rarest(single)
	if one != nil {
		if f := newFinder(one[0]); f.rare >= minRarity {
			p.seeker = f
		}
	}
	if p.seeker == nil || best.rarity() > one.rarity()+100 {
		if t := newTeddy(best); t != nil {
			p.seeker = t
			return
		}
	}
	if p.seeker == nil {
		return
	}
	if p.prog.looksBack || p.prog.lineBegin {
		return
	}
	if set := leading(re); len(set) == 1 && len(set[0].Text) > 1 {
		if f := newFinder(set[0]); f.rare >= minRarity && f.rare+32 >= p.seeker.(*finder).rare {
			p.seeker, p.prefix = f, true
		}
	}
}

// minRarity is how rare a pair of bytes has to be for its lines to be tried one
// by one.
const minRarity = 64

// literalOf is plain text as a literal.
func literalOf(pattern string, o Options) Literal {
	lit := Literal{Text: []byte(pattern), Word: o.Word}
	if o.Fold && hasLetter(lit.Text) {
		lit.Text, lit.Fold = lowerASCII(lit.Text), true
	}
	return lit
}

// compileLiteral makes a pattern that looks for one literal, byte by byte.
func compileLiteral(lit Literal) *Pattern {
	return &Pattern{
		need:    Need{Clauses: []Clause{{lit}}, Exact: true},
		seeker:  newFinder(lit),
		literal: true,
		plain:   true,
	}
}

// Need returns what the bytes of every match contain. It must not be changed.
func (p *Pattern) Need() Need { return p.need }

// syntaxError says where in the pattern package syntax found a mistake: it
// tells the text of the part alone.
func syntaxError(pattern string, err error) error {
	var e *syntax.Error
	if !errors.As(err, &e) {
		return &Error{pattern, -1, err}
	}
	at := -1
	if e.Expr != "" {
		at = strings.LastIndex(pattern, e.Expr)
	}
	if e.Code == syntax.ErrInternalError || e.Expr == pattern {
		at = -1
	}
	return &Error{pattern, at, errors.New(e.Code.String())}
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}
