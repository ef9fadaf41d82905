package window

import (
	"math/bits"
	"regexp/syntax"
	"slices"
	"strings"

	"github.com/mobileops/mobileops/internal/scan/keyword"
)

const (
	anchorBytes = 6    // longer anchors are cut: they aren't much rarer, and make more states
	maxVariants = 24   // of a run with alternatives in it
	maxCopies   = 16   // of a set that is repeated
	wide        = 0.4  // of all bytes
	rareEnough  = 1e-7 // of all places
)

// item is a piece of an expression: sets that each match has one after the other
// (in one of several variants), or a gap of unknown text.
type item struct {
	gap      bool
	variants []keyword.Sequence
	// repeated is the length of a run of one set, when the item is one.
	repeated int
}

// flatten takes an expression apart into items in order.
func flatten(re *syntax.Regexp, items []item) []item {
	set := func(s keyword.Bytes, ok bool) []item {
		if !ok {
			return append(items, item{gap: true})
		}
		return append(items, item{variants: []keyword.Sequence{{s}}})
	}
	switch re.Op {
	case syntax.OpEmptyMatch, syntax.OpBeginLine, syntax.OpEndLine, syntax.OpBeginText, syntax.OpEndText,
		syntax.OpWordBoundary, syntax.OpNoWordBoundary:
		return items
	case syntax.OpLiteral:
		for _, r := range re.Rune {
			items = set(single(fold(re, r)))
		}
		return items
	case syntax.OpCharClass:
		return set(single(re.Rune))
	case syntax.OpCapture:
		return flatten(re.Sub[0], items)
	case syntax.OpConcat:
		for _, sub := range re.Sub {
			items = flatten(sub, items)
		}
		return items
	case syntax.OpPlus:
		return repeated(re.Sub[0], 1, -1, items)
	case syntax.OpRepeat:
		return repeated(re.Sub[0], re.Min, re.Max, items)
	case syntax.OpAlternate:
		var variants []keyword.Sequence
		for _, sub := range re.Sub {
			v, ok := fixed(flatten(sub, nil))
			if !ok || len(variants)+len(v) > maxVariants {
				return append(items, beginnings(re), alternatives(re))
			}
			variants = append(variants, v...)
		}
		return append(items, item{variants: variants})
	}
	return append(items, item{gap: true}) // loops, ?, any character
}

// beginnings is how branches that are not of a fixed text begin, which joins what is
// before them.
func beginnings(re *syntax.Regexp) item {
	var variants []keyword.Sequence
	for _, sub := range re.Sub {
		items := flatten(sub, nil)
		if gap := slices.IndexFunc(items, func(i item) bool { return i.gap }); gap >= 0 {
			items = items[:gap]
		}
		v, ok := fixed(items[:min(len(items), anchorBytes)])
		if !ok || len(items) == 0 || len(variants)+len(v) > maxVariants {
			return item{gap: true}
		}
		variants = append(variants, v...)
	}
	return item{variants: variants}
}

// alternatives is what is known of branches that are not of a fixed text: one of the
// anchors of each is in every match, but nothing joins it with its neighbours. A
// single gap stands for branches of which one has no anchors.
func alternatives(re *syntax.Regexp) item {
	var variants []keyword.Sequence
	for _, sub := range re.Sub {
		a, _ := anchors(flatten(sub, nil))
		if len(a) == 0 || len(variants)+len(a) > maxVariants {
			return item{gap: true}
		}
		variants = append(variants, a...)
	}
	return item{gap: true, variants: variants}
}

// repeated are the items of something that stands there several times: its first
// copies, and, when their number isn't fixed, a gap and its last ones.
func repeated(sub *syntax.Regexp, least, most int, items []item) []item {
	one := flatten(sub, nil)
	if least == 0 || slices.ContainsFunc(one, func(i item) bool { return i.gap }) {
		return append(items, item{gap: true})
	}
	copies := min(least, maxCopies)
	start := len(items)
	for range copies {
		items = append(items, one...)
	}
	if len(one) == 1 && len(one[0].variants) == 1 && len(one[0].variants[0]) == 1 {
		items[start].repeated = least
	}
	if least == most && copies == least {
		return items
	}
	items = append(items, item{gap: true})
	for range copies {
		items = append(items, one...)
	}
	return items
}

// fixed joins items without gaps to all texts that they can be.
func fixed(items []item) ([]keyword.Sequence, bool) {
	all := []keyword.Sequence{{}}
	for _, it := range items {
		longer, ok := join(all, it)
		if !ok {
			return nil, false
		}
		all = longer
	}
	return all, true
}

// join appends an item to texts.
func join(texts []keyword.Sequence, it item) ([]keyword.Sequence, bool) {
	if it.gap || len(it.variants)*len(texts) > maxVariants {
		return nil, false
	}
	longer := make([]keyword.Sequence, 0, len(it.variants)*len(texts))
	for _, t := range texts {
		for _, v := range it.variants {
			longer = append(longer, slices.Concat(t, v))
		}
	}
	return longer, true
}

// anchors chooses the rarest sequences of which every match has one, and how often
// one of them is met by chance.
func anchors(items []item) (best []keyword.Sequence, rarity float64) {
	rarity = 1
	consider := func(variants []keyword.Sequence) {
		chosen := make([]keyword.Sequence, 0, len(variants))
		sum := 0.0
		for _, v := range variants {
			cut, p := rarest(v)
			if cut == nil {
				return
			}
			if !slices.ContainsFunc(chosen, func(o keyword.Sequence) bool { return slices.Equal(o, cut) }) {
				chosen = append(chosen, cut)
				sum += p
			}
		}
		if len(chosen) > 0 && sum < rarity {
			best, rarity = chosen, sum
		}
	}
	// Runs between gaps, and parts of them when all of one has too many variants.
	seen := 0 // items before it are in a part that was considered, with all behind them
	for start := range items {
		if items[start].gap {
			consider(items[start].variants)
			continue
		}
		if start < seen {
			continue
		}
		// As long as it has few enough variants, a longer part holds all anchors of
		// a shorter one.
		variants := []keyword.Sequence{{}}
		end := start
		for end < len(items) && !items[end].gap && end-start < 4*anchorBytes {
			longer, ok := join(variants, items[end])
			if !ok {
				break
			}
			variants = longer
			end++
		}
		consider(variants)
		if end == len(items) || items[end].gap {
			seen = end
		}
	}
	return best, rarity
}

// rarest cuts the rarest part of anchorBytes positions out of a sequence.
func rarest(seq keyword.Sequence) (best keyword.Sequence, rarity float64) {
	each := make([]float64, len(seq))
	for i := range seq {
		if i > 0 && seq[i] == seq[i-1] {
			each[i] = each[i-1]
		} else {
			each[i] = frequency(&seq[i])
		}
	}
	for start := 0; start == 0 || start+anchorBytes <= len(seq); start++ {
		part := seq[start:min(start+anchorBytes, len(seq))]
		if len(part) == 0 {
			return nil, 1
		}
		p := 1.0
		for i := range part {
			p *= each[start+i]
		}
		if usual(part) {
			p = max(p, 1e-3)
		}
		if best == nil || p < rarity {
			best, rarity = part, p
		}
	}
	return shorten(best, rarity), rarity
}

// shorten leaves out positions at both ends, those with the most bytes first, as long
// as the rest is rare enough. Each position makes states, and sets of many bytes make
// many, because other anchors can begin within them.
func shorten(seq keyword.Sequence, rarity float64) keyword.Sequence {
	for len(seq) > 1 {
		first, last := frequency(&seq[0]), frequency(&seq[len(seq)-1])
		rest, p := seq[1:], rarity/first
		if last >= first {
			rest, p = seq[:len(seq)-1], rarity/last
		}
		if max(first, last) < wide && p > rareEnough || usual(rest) && !usual(seq) {
			return seq
		}
		seq, rarity = rest, p
	}
	return seq
}

// usual tells whether a sequence is met all the time, in spite of its letters.
func usual(part keyword.Sequence) bool {
	for _, word := range []string{
		"----------", "==========", "//////////", "##########", "**********", "..........", "0000000000",
		"https://", "http://", "key", "endpoint", "password", "secret", "token", "access", "string", "public", "return", "global",
	} {
		for at := 0; at+len(part) <= len(word); at++ {
			same := true
			for i := range part {
				same = same && part[i].Has(word[at+i])
			}
			if same {
				return true
			}
		}
	}
	return false
}

// frequency is how many bytes of source code are in a set, roughly: letters as in
// English, capitals and digits seldom.
func frequency(set *keyword.Bytes) float64 {
	const letters = "etaoinsrhldcumfpgwybvkxjqz" // by frequency
	sum := 0.0
	for c := range 256 {
		if !set.Has(byte(c)) {
			continue
		}
		switch b := byte(c); {
		case 'a' <= b && b <= 'z':
			sum += 0.055 * float64(27-strings.IndexByte(letters, b)) / 27
		case 'A' <= b && b <= 'Z':
			sum += 0.004
		case '0' <= b && b <= '9':
			sum += 0.005
		case b == ' ' || b == '\t' || b == '\n':
			sum += 0.1
		case b > ' ' && b < 0x7f:
			sum += 0.008
		default:
			sum += 0.0005
		}
	}
	return min(sum, 1)
}

// run is a number of bytes of one set in a row that every match has. The zero value
// is none.
type run struct {
	set    keyword.Bytes
	length int
}

// longestRun finds the run that is worth most: the longest of the smallest set.
func longestRun(items []item) (best run) {
	worth := func(r run) int {
		size := 0
		for _, w := range r.set {
			size += bits.OnesCount64(w)
		}
		return r.length * (128 - size)
	}
	for _, it := range items {
		if it.repeated < 8 {
			continue
		}
		if r := (run{it.variants[0][0], it.repeated}); worth(r) > worth(best) {
			best = r
		}
	}
	return best
}

// in tells whether text has such a run.
func (r *run) in(text []byte) bool {
	if r.length == 0 {
		return true
	}
	// A run covers one of every length places; from there it is measured.
	for at := r.length - 1; at < len(text); {
		start := at
		for start >= 0 && at-start < r.length && r.set.Has(text[start]) {
			start--
		}
		if at-start == r.length {
			return true
		}
		at = start + r.length
	}
	return false
}
