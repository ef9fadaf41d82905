package match

import (
	"bytes"
	"regexp/syntax"
	"slices"
	"unicode"
	"unicode/utf8"
)

// Limits of what an expression is taken apart into: how many texts a part of it
// may stand for, by products of its parts and by choices written out.
const (
	maxProduct = 16
	maxChoices = 64
	maxClass   = 4
)

// required is what is known of the bytes of the matches of an expression.
type required struct {
	// set has every text that the expression can match; nil when they are too
	// many or not known.
	set []Literal
	// exact says that each text of set is matched indeed, anywhere.
	exact bool
	// clauses are what matches contain beside.
	clauses []Clause
}

// needOf finds out what every match of re contains. re is simplified.
func needOf(re *syntax.Regexp, word bool) Need {
	if inner, ok := betweenBoundaries(re); ok {
		if r := takeApart(inner); r.exact && r.set != nil && !slices.ContainsFunc(r.set, boundsMove) {
			return exactNeed(r.set, true)
		}
	}
	r := takeApart(re)
	if r.exact && r.set != nil {
		if !slices.ContainsFunc(r.set, func(l Literal) bool { return len(l.Text) == 0 }) {
			return exactNeed(r.set, word)
		}
	}
	r.flush()
	return Need{Clauses: r.clauses}
}

// exactNeed is that of a choice of literals.
func exactNeed(set []Literal, word bool) Need {
	if !word {
		set = absorb(set, bytes.Contains)
	}
	c := Clause(slices.Clone(set))
	for i := range c {
		c[i].Word = word
	}
	return Need{Clauses: []Clause{c}, Exact: true}
}

// betweenBoundaries returns x for the expression \bx\b.
func betweenBoundaries(re *syntax.Regexp) (*syntax.Regexp, bool) {
	if re.Op == syntax.OpCapture {
		return betweenBoundaries(re.Sub[0])
	}
	n := len(re.Sub)
	if re.Op != syntax.OpConcat || n < 3 || re.Sub[0].Op != syntax.OpWordBoundary || re.Sub[n-1].Op != syntax.OpWordBoundary {
		return nil, false
	}
	return &syntax.Regexp{Op: syntax.OpConcat, Sub: re.Sub[1 : n-1]}, true
}

// boundsMove reports whether a word boundary beside l is anything else than the
// absence of a word character there.
func boundsMove(l Literal) bool {
	return len(l.Text) == 0 || !wordByte(l.Text[0]) || !wordByte(l.Text[len(l.Text)-1])
}

// flush makes a clause of the set, if it says anything: single bytes occur
// everywhere.
func (r *required) flush() {
	if r.set != nil && !slices.ContainsFunc(r.set, func(l Literal) bool { return len(l.Text) < 2 }) {
		r.clauses = append(r.clauses, absorb(r.set, bytes.Contains))
	}
	r.set, r.exact = nil, false
}

func takeApart(re *syntax.Regexp) required {
	switch re.Op {
	case syntax.OpEmptyMatch:
		return required{set: []Literal{{}}, exact: true}
	case syntax.OpBeginLine, syntax.OpEndLine, syntax.OpWordBoundary, syntax.OpNoWordBoundary:
		return required{set: []Literal{{}}}
	case syntax.OpLiteral:
		parts := make([]required, len(re.Rune))
		for i, r := range re.Rune {
			parts[i] = runeSet([]rune{r, r}, re.Flags&syntax.FoldCase != 0)
		}
		return sequence(parts)
	case syntax.OpCharClass:
		return runeSet(re.Rune, false)
	case syntax.OpCapture:
		return takeApart(re.Sub[0])
	case syntax.OpConcat:
		parts := make([]required, len(re.Sub))
		for i, sub := range re.Sub {
			parts[i] = takeApart(sub)
		}
		return sequence(parts)
	case syntax.OpAlternate:
		parts := make([]required, len(re.Sub))
		for i, sub := range re.Sub {
			parts[i] = takeApart(sub)
		}
		return choice(parts)
	case syntax.OpQuest:
		return choice([]required{takeApart(re.Sub[0]), {set: []Literal{{}}, exact: true}})
	case syntax.OpPlus:
		r := takeApart(re.Sub[0])
		r.flush()
		return r
	}
	return required{}
}

// runeSet is one character out of ranges of runes.
func runeSet(ranges []rune, fold bool) required {
	var set []Literal
	for i := 0; i+1 < len(ranges); i += 2 {
		if ranges[i+1]-ranges[i] >= maxClass {
			return required{}
		}
		for r := ranges[i]; r <= ranges[i+1]; r++ {
			set = appendRune(set, r)
			if fold {
				for o := unicode.SimpleFold(r); o != r; o = unicode.SimpleFold(o) {
					set = appendRune(set, o)
				}
			}
			// Bytes that are no UTF-8 count as U+FFFD.
			if r == utf8.RuneError || len(set) > maxClass {
				return required{}
			}
		}
	}
	if set == nil {
		return required{} // it never matches
	}
	return required{set: set, exact: true}
}

// appendRune appends r, or lets the other case of the letter stand for both.
func appendRune(set []Literal, r rune) []Literal {
	if !utf8.ValidRune(r) {
		return set
	}
	if r < utf8.RuneSelf && wordByte(byte(r)) && 'A' <= r {
		for i, l := range set {
			if len(l.Text) == 1 && l.Text[0] != byte(r) && l.Text[0]|0x20 == byte(r)|0x20 && wordByte(l.Text[0]) && r != '_' {
				set[i] = Literal{Text: []byte{byte(r) | 0x20}, Fold: true}
				return set
			}
		}
	}
	return append(set, Literal{Text: utf8.AppendRune(nil, r)})
}

// sequence is one part after another.
func sequence(parts []required) required {
	all := required{set: []Literal{{}}, exact: true}
	whole := true // nothing has been flushed: set has the beginning
	for _, p := range parts {
		all.clauses = append(all.clauses, p.clauses...)
		if p.set == nil {
			all.flush()
			whole = false
			continue
		}
		if all.set == nil {
			all.set = p.set
			continue
		}
		if len(all.set)*len(p.set) > maxProduct {
			all.flush()
			whole = false
			all.set = p.set
			continue
		}
		set, exact := product(all.set, p.set)
		all.set, all.exact = set, all.exact && p.exact && exact
	}
	if !whole {
		all.flush()
	}
	return all
}

// leading returns the texts of which one is the beginning of every match; nil
// when they are too many or not known.
func leading(re *syntax.Regexp) []Literal {
	switch re.Op {
	case syntax.OpCapture, syntax.OpPlus:
		return leading(re.Sub[0])
	case syntax.OpConcat:
		set := []Literal{{}}
		for _, sub := range re.Sub {
			part := takeApart(sub).set
			if part == nil || len(part)*len(set) > maxProduct {
				break
			}
			set, _ = product(set, part)
		}
		return absorb(set, bytes.HasPrefix)
	}
	return absorb(takeApart(re).set, bytes.HasPrefix)
}

// absorb leaves out the literals of a set that have another one of it, as
// holds tells: what has them has that one.
func absorb(set []Literal, holds func(long, short []byte) bool) (rest []Literal) {
	for i, l := range set {
		if !slices.ContainsFunc(set, func(s Literal) bool {
			text := l.Text
			if s.Fold {
				text = lowerASCII(text)
			} else if l.Fold && hasLetter(s.Text) {
				return false
			}
			return len(s.Text) < len(text) && holds(text, s.Text)
		}) && !slices.ContainsFunc(set[:i], func(s Literal) bool { return s.Fold == l.Fold && bytes.Equal(s.Text, l.Text) }) {
			rest = append(rest, l)
		}
	}
	return rest
}

// product is each text of a followed by each of b. It is not exact when one of
// two texts minds the case of its letters and the other does not.
func product(a, b []Literal) (set []Literal, exact bool) {
	exact = true
	for _, x := range a {
		for _, y := range b {
			l := Literal{Text: slices.Concat(x.Text, y.Text), Fold: x.Fold || y.Fold}
			if l.Fold {
				exact = exact && (x.Fold || !hasLetter(x.Text)) && (y.Fold || !hasLetter(y.Text))
				l.Text = lowerASCII(l.Text)
			}
			set = append(set, l)
		}
	}
	return set, exact
}

// choice is one of the parts.
func choice(parts []required) required {
	all := required{exact: true}
	n := 0
	for _, p := range parts {
		n += len(p.set)
		all.exact = all.exact && p.exact
		if p.set == nil {
			n = maxChoices + 1
		}
	}
	if n <= maxChoices {
		for _, p := range parts {
			all.set = append(all.set, p.set...)
		}
		return all
	}
	var c Clause
	for i := range parts {
		parts[i].flush()
		best := rarest(parts[i].clauses)
		if best == nil || len(c)+len(best) > maxChoices {
			return required{}
		}
		c = append(c, best...)
	}
	return required{clauses: []Clause{c}}
}

// rarest returns the clause that the fewest texts fulfil, by the look of its
// bytes, or nil.
func rarest(clauses []Clause) (best Clause) {
	bestScore := 0
	for _, c := range clauses {
		if score := c.rarity(); best == nil || score > bestScore {
			best, bestScore = c, score
		}
	}
	return best
}

// rarity is that of the most common literal of the clause; choices cost.
func (c Clause) rarity() int {
	worst := 1 << 20
	for _, l := range c {
		score := 0
		for i, b := range l.Text {
			if i < 8 {
				score += 255 - int(commonness[b])
			}
		}
		worst = min(worst, score)
	}
	return worst - 16*(len(c)-1)
}

func hasLetter(text []byte) bool {
	return slices.ContainsFunc(text, func(b byte) bool { return b|0x20 >= 'a' && b|0x20 <= 'z' })
}

// lowerASCII lowers the letters of ASCII alone.
func lowerASCII(text []byte) []byte {
	text = bytes.Clone(text)
	for i, b := range text {
		if 'A' <= b && b <= 'Z' {
			text[i] = b | 0x20
		}
	}
	return text
}
