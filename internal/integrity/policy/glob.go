package policy

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Names are bytes. Within them, a character is a valid UTF-8 sequence or else
// a single byte, which counts as the code point badByte+b so that it equals
// nothing but itself.
const badByte = utf8.MaxRune + 1

// nextChar returns the first character of name, which must not be empty.
func nextChar(name []byte) (c rune, size int) {
	if b := name[0]; b < utf8.RuneSelf {
		return rune(b), 1
	}
	c, size = utf8.DecodeRune(name)
	if c == utf8.RuneError && size == 1 {
		return badByte + rune(name[0]), 1
	}
	return c, size
}

// glob matches one path component: a pattern without braces.
type glob struct {
	// A pattern with at most one star and otherwise literal is compared as
	// bytes: that is nearly every pattern there is.
	simple         bool
	star           bool   // false: the name is exactly prefix
	prefix, suffix string // around the star
	tokens         []token
}

type tokenKind uint8

const (
	literal tokenKind = iota
	anyChar
	anyString
	charClass
)

type token struct {
	kind   tokenKind
	char   rune       // of a literal
	ranges []runeSpan // of a charClass
	negate bool       // of a charClass
}

type runeSpan struct{ lo, hi rune }

func (t *token) matches(c rune) bool {
	switch t.kind {
	case literal:
		return t.char == c
	case charClass:
		for _, s := range t.ranges {
			if s.lo <= c && c <= s.hi {
				return !t.negate
			}
		}
		return t.negate
	}
	return t.kind == anyChar
}

// universal reports whether the glob matches every name.
func (g *glob) universal() bool {
	return g.simple && g.star && g.prefix == "" && g.suffix == ""
}

// match reports whether name matches. It takes at most len(name) times the
// length of the pattern steps: after a mismatch only the last star is tried
// again, one character further. Going back to an earlier star cannot help,
// because the text between the two was already matched as early as possible.
func (g *glob) match(name []byte) bool {
	if g.simple {
		if !g.star {
			return string(name) == g.prefix
		}
		return len(name) >= len(g.prefix)+len(g.suffix) &&
			string(name[:len(g.prefix)]) == g.prefix &&
			string(name[len(name)-len(g.suffix):]) == g.suffix
	}
	t, i := 0, 0
	retryToken, retryAt := -1, 0
	for i < len(name) {
		c, size := nextChar(name[i:])
		switch {
		case t < len(g.tokens) && g.tokens[t].kind == anyString:
			t++
			retryToken, retryAt = t, i
		case t < len(g.tokens) && g.tokens[t].matches(c):
			t++
			i += size
		case retryToken >= 0:
			_, size = nextChar(name[retryAt:])
			retryAt += size
			t, i = retryToken, retryAt
		default:
			return false
		}
	}
	for t < len(g.tokens) && g.tokens[t].kind == anyString {
		t++
	}
	return t == len(g.tokens)
}

// newGlob makes a glob from the elements of a component.
func newGlob(elems []element) glob {
	var g glob
	var lit []byte
	flush := func() {
		for len(lit) > 0 {
			c, size := nextChar(lit)
			g.tokens = append(g.tokens, token{kind: literal, char: c})
			lit = lit[size:]
		}
		lit = nil
	}
	for _, e := range elems {
		if e.kind == literal {
			lit = append(lit, e.byte)
			continue
		}
		flush()
		g.tokens = append(g.tokens, e.token)
	}
	flush()
	g.simplify(elems)
	return g
}

// simplify recognises the patterns that can be compared as bytes.
func (g *glob) simplify(elems []element) {
	var parts [2][]byte
	stars := 0
	for _, e := range elems {
		switch {
		case e.kind == literal:
			parts[stars] = append(parts[stars], e.byte)
		case e.kind == anyString && stars == 0:
			stars++
		default:
			return
		}
	}
	// Half a character beside a star would match half of a name's character.
	if stars > 0 && !(utf8.Valid(parts[0]) && utf8.Valid(parts[1])) {
		return
	}
	g.simple, g.star = true, stars > 0
	g.prefix, g.suffix = string(parts[0]), string(parts[1])
	g.tokens = nil
}

// element is a token whose literals are still single bytes.
type element struct {
	token
	byte byte
}

// node is an element, or a choice of sequences written in braces.
type node struct {
	element
	choices [][]node
}

// Limits of one component of a pattern.
const (
	maxBraceDepth   = 8
	maxAlternatives = 256
)

// parseComponent reads one component of a pattern into the globs of which one
// must match: more than one where it has braces.
func parseComponent(text string) ([]glob, error) {
	p := componentParser{rest: text}
	seq, err := p.sequence(0)
	if err != nil {
		return nil, err
	}
	expanded, err := expand(seq)
	if err != nil {
		return nil, err
	}
	globs := make([]glob, 0, len(expanded))
	for _, elems := range expanded {
		g := newGlob(elems)
		switch {
		case len(elems) == 0:
			return nil, errors.New("the braces allow an empty name")
		case g.simple && !g.star && (g.prefix == "." || g.prefix == ".."):
			return nil, fmt.Errorf("%q is not a name", g.prefix)
		}
		for i := range elems[1:] {
			if elems[i].kind == anyString && elems[i+1].kind == anyString {
				return nil, errors.New("\"**\" must stand alone between slashes")
			}
		}
		globs = append(globs, g)
	}
	return globs, nil
}

type componentParser struct{ rest string }

// sequence reads up to the end, or in braces up to "," or "}".
func (p *componentParser) sequence(depth int) ([]node, error) {
	var seq []node
	for p.rest != "" {
		c := p.rest[0]
		if depth > 0 && (c == ',' || c == '}') {
			return seq, nil
		}
		var n node
		var err error
		switch c {
		case '*':
			n.kind = anyString
			p.rest = p.rest[1:]
		case '?':
			n.kind = anyChar
			p.rest = p.rest[1:]
		case '[':
			n.token, err = p.class()
		case '{':
			n.choices, err = p.braces(depth + 1)
		default:
			n.byte, err = p.literal()
		}
		if err != nil {
			return nil, err
		}
		seq = append(seq, n)
	}
	if depth > 0 {
		return nil, errors.New("\"{\" without \"}\" in the same component: a choice cannot contain a slash (write \\{ for the character)")
	}
	return seq, nil
}

func (p *componentParser) braces(depth int) ([][]node, error) {
	if depth > maxBraceDepth {
		return nil, fmt.Errorf("braces nested more than %d deep", maxBraceDepth)
	}
	var choices [][]node
	for {
		p.rest = p.rest[1:] // "{" or ","
		seq, err := p.sequence(depth)
		if err != nil {
			return nil, err
		}
		choices = append(choices, seq)
		if p.rest[0] == '}' {
			p.rest = p.rest[1:]
			break
		}
	}
	if len(choices) == 1 {
		return nil, errors.New("braces with a single choice (write \\{ for the character)")
	}
	return choices, nil
}

// literal reads one byte of a name: plain or escaped.
func (p *componentParser) literal() (byte, error) {
	b, n, err := unescape(p.rest)
	p.rest = p.rest[n:]
	return b, err
}

// unescape returns the first byte that text stands for: \xHH is the byte of
// that value, a backslash before any other character takes away its meaning.
func unescape(text string) (b byte, n int, err error) {
	switch {
	case text[0] != '\\':
		return text[0], 1, nil
	case len(text) == 1:
		return 0, 0, errors.New("nothing follows the backslash")
	case text[1] != 'x':
		return text[1], 2, nil
	}
	if len(text) >= 4 {
		if v, err := strconv.ParseUint(text[2:4], 16, 8); err == nil {
			if v == 0 || v == '/' {
				return 0, 0, fmt.Errorf("no name contains the byte %s", text[:4])
			}
			return byte(v), 4, nil
		}
	}
	return 0, 0, errors.New("\\x needs two hexadecimal digits")
}

// class reads "[a-z]" or "[!a]".
func (p *componentParser) class() (token, error) {
	t := token{kind: charClass}
	p.rest = p.rest[1:]
	if p.rest != "" && (p.rest[0] == '!' || p.rest[0] == '^') {
		t.negate = true
		p.rest = p.rest[1:]
	}
	for first := true; ; first = false {
		switch {
		case p.rest == "":
			return t, errors.New("\"[\" without \"]\" in the same component (write \\[ for the character)")
		case p.rest[0] == ']' && !first:
			p.rest = p.rest[1:]
			return t, nil
		case strings.HasPrefix(p.rest, "[:"):
			return t, errors.New("classes such as [:alpha:] are not supported: write the ranges")
		}
		lo, err := p.classChar()
		if err != nil {
			return t, err
		}
		hi := lo
		if len(p.rest) > 1 && p.rest[0] == '-' && p.rest[1] != ']' {
			p.rest = p.rest[1:]
			if hi, err = p.classChar(); err != nil {
				return t, err
			}
		}
		if hi < lo {
			return t, errors.New("a range in \"[…]\" ends before it begins")
		}
		t.ranges = append(t.ranges, runeSpan{lo, hi})
	}
}

// classChar reads one character inside brackets.
func (p *componentParser) classChar() (rune, error) {
	if strings.HasPrefix(p.rest, "\\x") {
		b, err := p.literal()
		if b >= utf8.RuneSelf {
			return badByte + rune(b), err
		}
		return rune(b), err
	}
	if p.rest = strings.TrimPrefix(p.rest, "\\"); p.rest == "" {
		return 0, errors.New("nothing follows the backslash")
	}
	c, size := nextChar([]byte(p.rest[:min(len(p.rest), utf8.UTFMax)]))
	p.rest = p.rest[size:]
	return c, nil
}

// expand multiplies out the choices of a sequence.
func expand(seq []node) ([][]element, error) {
	out := [][]element{nil}
	for _, n := range seq {
		if n.choices == nil {
			for i := range out {
				out[i] = append(out[i], n.element)
			}
			continue
		}
		var next [][]element
		for _, choice := range n.choices {
			tails, err := expand(choice)
			if err != nil {
				return nil, err
			}
			if len(next)+len(out)*len(tails) > maxAlternatives {
				return nil, fmt.Errorf("the braces stand for more than %d names", maxAlternatives)
			}
			for _, head := range out {
				for _, tail := range tails {
					next = append(next, slices.Concat(head, tail))
				}
			}
		}
		out = next
	}
	return out, nil
}

// escapeName returns name as a pattern that matches just it, in valid UTF-8
// without control characters.
func escapeName(name string) string {
	var b bytes.Buffer
	for i := 0; i < len(name); {
		c, size := utf8.DecodeRuneInString(name[i:])
		switch {
		case c == utf8.RuneError && size == 1, c < ' ', c == 0x7f:
			fmt.Fprintf(&b, "\\x%02x", name[i])
		case strings.ContainsRune(`\*?[]{}`, c):
			b.WriteByte('\\')
			b.WriteRune(c)
		default:
			b.WriteString(name[i : i+size])
		}
		i += size
	}
	return b.String()
}
