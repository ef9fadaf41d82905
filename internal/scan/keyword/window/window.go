// Package window runs regular expressions only where they can match, with the same
// answer as if they ran everywhere.
//
// Go's regular expressions take their time for every byte, since they keep the
// promise of linear time without an automaton of states. Most expressions that look
// for secrets need some text that is rare, though: an anchor. Of the expression's
// syntax tree New finds
//
//   - anchors: short sequences of sets of bytes of which every match contains at
//     least one. All anchors of all expressions are found by one automaton (package
//     keyword), and what has none of an expression's anchors has no match of it;
//   - a reach: every byte of a match is either consumed by a loop without an upper
//     bound, and then it is one of the bytes that these loops consume, or it is one
//     of a bounded number of others. So a match that contains a certain place ends
//     where, counted from it, one byte too many isn't of the loops;
//   - a run: so many bytes in a row, of so large a set, that every match has
//     somewhere, such as the forty letters of a key. Where there isn't one, nothing
//     can match, and that is found out by looking at every fortieth byte.
//
// FindAll runs the expression in windows: what the anchors reach, and some bytes
// more on both sides. Why the answer is the same: each match contains an anchor and
// lies within the reach of it, so it lies within a window, with all that the
// expression looks at around it (one character, for ^, $ and \b). Windows that touch
// are one, so matches of different windows cannot overlap. And at the edges of a
// window, where the expression sees an end of text that isn't one, nothing can begin
// or end that contains an anchor, because the edge is beyond what any anchor of the
// window reaches. A window starts where a character does: a byte that continues none
// is always the start of one, however the bytes before it are read.
//
// All of this counts bytes. Ignoring case, Go lets k also match the Kelvin sign
// (U+212A) and s the long s (U+017F); anchors don't know them. But a match in which
// one of them (Exotic) stands in the place of an anchor's letter contains it, so that
// they are anchors of every expression.
package window

import (
	"regexp"
	"regexp/syntax"

	"github.com/mobileops/mobileops/internal/scan/keyword"
)

// Expression is a regular expression and where it can match. It is safe for
// concurrent use.
type Expression struct {
	re *regexp.Regexp
	// Anchors are what every match contains one of. Without any nothing is known of
	// where a match can be.
	Anchors []keyword.Sequence
	// Rarity estimates how often an anchor is met by chance in a byte of source code.
	Rarity float64
	reach  reach
	run    run
}

// Exotic are characters that are the same as a letter when case is ignored, and that
// are anchors of every expression beside its own.
func Exotic() []keyword.Sequence {
	return []keyword.Sequence{keyword.Exact("\u017f"), keyword.Exact("\u212a")}
}

// New looks at an expression of package regexp (not one of CompilePOSIX, which
// prefers other matches).
func New(re *regexp.Regexp) *Expression {
	e := &Expression{re: re}
	tree, err := syntax.Parse(re.String(), syntax.Perl)
	if err != nil || !sound(tree) {
		return e
	}
	e.reach = reachOf(tree)
	items := flatten(tree, nil)
	e.Anchors, e.Rarity = anchors(items)
	e.run = longestRun(items)
	return e
}

// sound says that the tree holds nothing that this package doesn't know.
func sound(re *syntax.Regexp) bool {
	if re.Op == syntax.OpNoMatch || re.Op > syntax.OpAlternate {
		return false
	}
	for _, sub := range re.Sub {
		if !sound(sub) {
			return false
		}
	}
	return true
}

// slack is how many bytes a window has more than anchors reach: the characters on
// both sides that the expression looks at, and one that is cut.
const slack = 8

// FindAll returns what re.FindAllSubmatchIndex(text, -1) does. ends are where the
// anchors end that were found in text, Exotic ones too, ascending; none may be
// missing.
func (e *Expression) FindAll(text []byte, ends []int) [][]int {
	var found [][]int
	cursor := cursor{reach: &e.reach, text: text}
	for len(ends) > 0 {
		// The first anchor opens a window, and those that it touches extend it.
		start := cursor.left(ends[0], 0)
		end := cursor.right(ends[0])
		ends = ends[1:]
		for len(ends) > 0 && (ends[0] <= end+2*slack || cursor.left(ends[0], end+2*slack) <= end+2*slack) {
			end = cursor.right(ends[0])
			ends = ends[1:]
		}
		start, end = align(text, start-slack), min(end+slack, len(text))
		if part := text[start:end]; e.run.in(part) {
			for _, match := range e.re.FindAllSubmatchIndex(part, -1) {
				for i := range match {
					if match[i] >= 0 {
						match[i] += start
					}
				}
				found = append(found, match)
			}
		}
	}
	return found
}

// align moves a place in text to the left, to where a character begins.
func align(text []byte, at int) int {
	at = max(at, 0)
	for back := range 4 {
		i := at - back
		if i <= 0 {
			return 0
		}
		if text[i]&0xc0 != 0x80 {
			return i
		}
	}
	return at // no character is that long: each of these bytes is one for itself
}

// cursor moves over the anchors of a text from left to right. It looks at no byte
// more than twice.
type cursor struct {
	*reach
	text   []byte
	at     int // the last anchor's end
	end    int // how far it reaches
	others int // bytes in between that are not of a loop
}

// left returns the first byte that can be in a match with what stands before at. It
// doesn't look further than to stop.
func (c *cursor) left(at, stop int) int {
	others := 0
	for at > stop {
		if !c.loops.Has(c.text[at-1]) {
			if others++; others > c.bounded {
				break
			}
		}
		at--
	}
	return at
}

// right returns where a match that contains what stands before at ends at most. at
// is never less than the last time.
func (c *cursor) right(at int) int {
	if at >= c.end {
		c.end, c.others = at, 0
	} else {
		for _, b := range c.text[c.at:at] {
			if !c.loops.Has(b) {
				c.others--
			}
		}
	}
	c.at = at
	for c.end < len(c.text) {
		if !c.loops.Has(c.text[c.end]) {
			if c.others == c.bounded {
				break
			}
			c.others++
		}
		c.end++
	}
	return c.end
}
