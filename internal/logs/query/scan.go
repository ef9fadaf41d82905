package query

import (
	"fmt"
	"strings"
	"time"
	"unicode/utf8"
)

// parser reads an expression from its beginning to its end. There are no
// tokens: what a character means depends on where it stands, for that is how
// people who know grep read what they typed.
type parser struct {
	src   string
	pos   int
	depth int
	begun bool // something of the filter was read
	opts  Options
	notes []string
	// columns are those of the table that a `where` compares; nil while events
	// are looked at.
	columns []Column
}

func newParser(src string, o Options) *parser {
	if o.Zone == nil {
		o.Zone = time.UTC
	}
	if o.Now.IsZero() {
		o.Now = time.Now()
	}
	return &parser{src: src, opts: o}
}

// fail is an error at byte at.
func (p *parser) fail(at int, message, hint string) *Error {
	return &Error{Column: utf8.RuneCountInString(p.src[:min(at, len(p.src))]) + 1, Message: message, Hint: hint}
}

func (p *parser) failf(at int, hint, format string, args ...any) *Error {
	return p.fail(at, fmt.Sprintf(format, args...), hint)
}

func space(c byte) bool {
	return c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == '\v' || c == '\f'
}

func (p *parser) skip() {
	for p.pos < len(p.src) && space(p.src[p.pos]) {
		p.pos++
	}
}

// peek is the byte at a distance from where the parser stands; 0 at the end.
func (p *parser) peek(ahead int) byte {
	if p.pos+ahead < len(p.src) {
		return p.src[p.pos+ahead]
	}
	return 0
}

func (p *parser) rest() string { return p.src[p.pos:] }

func (p *parser) end() bool { return p.pos >= len(p.src) }

// ends reports whether a word ends before byte at.
func (p *parser) ends(at int) bool {
	return at >= len(p.src) || space(p.src[at]) || p.src[at] == ')' || p.src[at] == '|'
}

// quoted reads what is between quotes. Between double quotes a backslash
// escapes; between single quotes it does so only before ' and \, as paths of
// Windows and regular expressions are full of them.
func (p *parser) quoted() (string, error) {
	start, mark := p.pos, p.src[p.pos]
	var b strings.Builder
	for p.pos++; p.pos < len(p.src); p.pos++ {
		c := p.src[p.pos]
		if c == mark {
			p.pos++
			return b.String(), nil
		}
		if c != '\\' {
			b.WriteByte(c)
			continue
		}
		next := p.peek(1)
		switch {
		case p.pos+1 >= len(p.src):
		case mark == '\'' && next != '\'' && next != '\\':
			b.WriteByte(c)
		case next == '"' || next == '\'' || next == '\\' || next == '/':
			b.WriteByte(next)
			p.pos++
		case next == 'n' || next == 't' || next == 'r':
			b.WriteByte(map[byte]byte{'n': '\n', 't': '\t', 'r': '\r'}[next])
			p.pos++
		case next == 'x':
			hi, lo := hexDigit(p.peek(2)), hexDigit(p.peek(3))
			if hi < 0 || lo < 0 {
				return "", p.fail(p.pos, `\x needs two hexadecimal digits`, `\\x is a backslash and an x`)
			}
			b.WriteByte(byte(hi<<4 | lo))
			p.pos += 3
		default:
			_, n := utf8.DecodeRuneInString(p.src[p.pos+1:])
			escape := p.src[p.pos : p.pos+1+n]
			return "", p.failf(p.pos, `a backslash is \\, or put the text between single quotes; a regular expression stands between slashes: /\d+/`,
				"%s means nothing between double quotes", escape)
		}
	}
	return "", p.failf(start, fmt.Sprintf(`to find the character itself write \%c`, mark), "%c has no partner", mark)
}

func hexDigit(c byte) int {
	switch {
	case c >= '0' && c <= '9':
		return int(c - '0')
	case c >= 'a' && c <= 'f':
		return int(c-'a') + 10
	case c >= 'A' && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}

// regexLength is the length of a regular expression between slashes at byte
// at, with its i, or 0 when what stands there is none: a path such as
// /var/log has more behind its second slash.
func (p *parser) regexLength(at int) int {
	if at+1 >= len(p.src) || p.src[at] != '/' || p.src[at+1] == '/' {
		return 0
	}
	class := false
	for i := at + 1; i < len(p.src); i++ {
		switch c := p.src[i]; {
		case c == '\\':
			i++
		case c == '[':
			class = true
		case c == ']':
			class = false
		case c == '/' && !class:
			i++
			if i < len(p.src) && p.src[i] == 'i' {
				i++
			}
			if !p.ends(i) {
				return 0
			}
			return i - at
		}
	}
	return 0
}

// regex reads the expression between slashes of a given length.
func (p *parser) regex(length int) (source string, fold bool) {
	source = p.src[p.pos+1 : p.pos+length]
	p.pos += length
	source, fold = strings.CutSuffix(source, "i")
	return strings.TrimSuffix(source, "/"), fold
}

// wordLength is how far a plain word at byte at goes: to the next space, |, or
// parenthesis that is not its own. Text between quotes right behind = or :
// belongs to it with its spaces, for that is how logs write msg="a b".
func (p *parser) wordLength(at int) int {
	open := 0
	i := at
	for ; i < len(p.src); i++ {
		switch c := p.src[i]; {
		case space(c), c == '|':
			return i - at
		case c == '\\' && i+1 < len(p.src):
			i++
		case c == '(':
			open++
		case c == ')':
			if open == 0 {
				return i - at
			}
			open--
		case c == '"' && i > at && (p.src[i-1] == '=' || p.src[i-1] == ':'):
			if n := strings.IndexByte(p.src[i+1:], '"'); n >= 0 {
				i += n + 1
			}
		}
	}
	return min(i, len(p.src)) - at
}

// unescape takes the backslashes out of a word.
func (p *parser) unescape(at int, word string) (string, error) {
	if strings.IndexByte(word, '\\') < 0 {
		return word, nil
	}
	var b strings.Builder
	for i := 0; i < len(word); i++ {
		c := word[i]
		if c != '\\' {
			b.WriteByte(c)
			continue
		}
		i++
		if i == len(word) {
			return "", p.fail(at+i-1, `there is nothing behind \`, `a backslash is \\`)
		}
		if c = word[i]; c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' {
			return "", p.failf(at+i-1, regexHint(word), `\%c means nothing in a word`, c)
		}
		b.WriteByte(c)
	}
	return b.String(), nil
}

func regexHint(word string) string {
	return fmt.Sprintf("a regular expression stands between slashes: /%s/; text with backslashes between single quotes: '%s'",
		strings.ReplaceAll(word, "/", `\/`), word)
}
