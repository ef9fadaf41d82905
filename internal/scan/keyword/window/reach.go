package window

import (
	"math"
	"regexp/syntax"
	"unicode"
	"unicode/utf8"

	"github.com/mobileops/mobileops/internal/scan/keyword"
)

// reach bounds the bytes of a match: those of loops are in the set, and of the
// others there are so many at most.
type reach struct {
	loops   keyword.Bytes
	bounded int
}

// reachOf computes the reach of a tree.
func reachOf(re *syntax.Regexp) reach {
	switch re.Op {
	case syntax.OpLiteral:
		n := 0
		for _, r := range re.Rune {
			n += width(fold(re, r))
		}
		return reach{bounded: n}
	case syntax.OpCharClass:
		return reach{bounded: width(re.Rune)}
	case syntax.OpAnyChar, syntax.OpAnyCharNotNL:
		return reach{bounded: utf8.UTFMax}
	case syntax.OpStar, syntax.OpPlus:
		return reach{loops: bytesOf(re.Sub[0])}
	case syntax.OpRepeat:
		if re.Max < 0 {
			return reach{loops: bytesOf(re.Sub[0])}
		}
		sub := reachOf(re.Sub[0])
		sub.bounded = times(sub.bounded, re.Max)
		return sub
	case syntax.OpCapture, syntax.OpQuest:
		return reachOf(re.Sub[0])
	case syntax.OpConcat, syntax.OpAlternate:
		var all reach
		for _, sub := range re.Sub {
			r := reachOf(sub)
			all.loops = union(all.loops, r.loops)
			if re.Op == syntax.OpConcat {
				all.bounded = min(all.bounded+r.bounded, math.MaxInt32)
			} else {
				all.bounded = max(all.bounded, r.bounded)
			}
		}
		return all
	}
	return reach{} // what consumes nothing
}

func times(a, b int) int { return min(a*b, math.MaxInt32) } // both are below 1<<31

func union(a, b keyword.Bytes) keyword.Bytes {
	for i := range a {
		a[i] |= b[i]
	}
	return a
}

// bytesOf is the set of bytes that a tree can consume.
func bytesOf(re *syntax.Regexp) (set keyword.Bytes) {
	switch re.Op {
	case syntax.OpLiteral:
		for _, r := range re.Rune {
			set = union(set, bytesOfRanges(fold(re, r)))
		}
	case syntax.OpCharClass:
		set = bytesOfRanges(re.Rune)
	case syntax.OpAnyChar, syntax.OpAnyCharNotNL:
		set = bytesOfRanges([]rune{0, unicode.MaxRune})
	default:
		for _, sub := range re.Sub {
			set = union(set, bytesOf(sub))
		}
	}
	return set
}

// bytesOfRanges is the set of bytes of the characters in ranges (pairs of first and
// last). A byte that is no character is read as U+FFFD, so it counts as one beyond
// ASCII too.
func bytesOfRanges(ranges []rune) (set keyword.Bytes) {
	for i := 0; i+1 < len(ranges); i += 2 {
		for r := ranges[i]; r <= ranges[i+1] && r < utf8.RuneSelf; r++ {
			set.Add(byte(r))
		}
		if ranges[i+1] >= utf8.RuneSelf {
			set[2], set[3] = math.MaxUint64, math.MaxUint64
		}
	}
	return set
}

// width is the length in bytes of the longest character in ranges.
func width(ranges []rune) int {
	if len(ranges) == 0 {
		return 0
	}
	last := ranges[len(ranges)-1]
	for i := 1; i < len(ranges); i += 2 {
		last = max(last, ranges[i])
	}
	return max(1, utf8.RuneLen(last))
}

// fold is the ranges of a character of a literal: itself, or all that are the same
// when case is ignored.
func fold(re *syntax.Regexp, r rune) []rune {
	ranges := []rune{r, r}
	if re.Flags&syntax.FoldCase != 0 {
		for f := unicode.SimpleFold(r); f != r; f = unicode.SimpleFold(f) {
			ranges = append(ranges, f, f)
		}
	}
	return ranges
}

// single is the set of ASCII bytes that ranges are, each a character. The long s and
// the Kelvin sign are overlooked, as the package says; ok is false when there are
// other characters beyond ASCII.
func single(ranges []rune) (set keyword.Bytes, ok bool) {
	for i := 0; i+1 < len(ranges); i += 2 {
		first, last := ranges[i], ranges[i+1]
		for r := first; r <= last; r++ {
			switch {
			case r < utf8.RuneSelf:
				set.Add(byte(r))
			case r != '\u017f' && r != '\u212a':
				return set, false
			}
		}
	}
	return set, set != keyword.Bytes{}
}
