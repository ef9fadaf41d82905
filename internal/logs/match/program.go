package match

import (
	"regexp/syntax"
	"slices"
	"unicode"
	"unicode/utf8"
)

// program is an expression as the automata run it: the instructions of
// regexp/syntax, which work on runes, and what is known about them. It does not
// change.
type program struct {
	inst  []syntax.Inst
	start uint32
	// word says that a match counts only between characters that are no word
	// characters.
	word bool
	// looksBack and lineBegin say that whether the character before is a word
	// character, or the beginning of the line, can make a difference.
	looksBack, lineBegin bool
	// anchored says that every match begins where its line does.
	anchored bool
	// everyLine says that the beginning of any line is a match already.
	everyLine bool
	// bounds are the first runes of the classes of runes that no instruction
	// tells apart, in ascending order; the first class begins at 0.
	bounds []rune
	// class numbers the classes of bytes, classes is how many there are. The
	// newline is alone in its class.
	class   [256]uint8
	classes int
}

func newProgram(re *syntax.Regexp, word bool) (*program, error) {
	prog, err := syntax.Compile(re)
	if err != nil {
		return nil, err
	}
	p := &program{inst: prog.Inst, start: uint32(prog.Start), word: word, looksBack: word}
	bounds := []rune{0, '\n', '\n' + 1, utf8.RuneSelf}
	for i := range p.inst {
		in := &p.inst[i]
		switch in.Op {
		case syntax.InstRune, syntax.InstRune1:
			bounds = appendBounds(bounds, in)
		case syntax.InstEmptyWidth:
			switch syntax.EmptyOp(in.Arg) {
			case syntax.EmptyWordBoundary, syntax.EmptyNoWordBoundary:
				p.looksBack = true
			case syntax.EmptyBeginLine:
				p.lineBegin = true
			}
		}
	}
	if p.looksBack {
		bounds = append(bounds, '0', '9'+1, 'A', 'Z'+1, '_', '_'+1, 'a', 'z'+1)
	}
	slices.Sort(bounds)
	p.bounds = slices.Compact(bounds)
	p.numberBytes()
	n := newNFA(p)
	const anyEnd = syntax.EmptyEndLine | syntax.EmptyWordBoundary | syntax.EmptyNoWordBoundary
	n.begin()
	n.add(p.start, anyEnd)
	p.anchored = !slices.ContainsFunc(n.set.dense, func(pc uint32) bool { return consumes(&p.inst[pc]) })
	n.begin()
	n.add(p.start, syntax.EmptyBeginLine)
	p.everyLine = !word && n.matched
	return p, nil
}

// consumes reports whether in is the end of a match, or matches a character.
func consumes(in *syntax.Inst) bool {
	switch in.Op {
	case syntax.InstMatch, syntax.InstRune, syntax.InstRune1, syntax.InstRuneAny, syntax.InstRuneAnyNotNL:
		return true
	}
	return false
}

// appendBounds appends where the runes begin and end that in matches.
func appendBounds(bounds []rune, in *syntax.Inst) []rune {
	if len(in.Rune) == 1 {
		r := in.Rune[0]
		bounds = append(bounds, r, r+1)
		if syntax.Flags(in.Arg)&syntax.FoldCase != 0 {
			for o := unicode.SimpleFold(r); o != r; o = unicode.SimpleFold(o) {
				bounds = append(bounds, o, o+1)
			}
		}
		return bounds
	}
	for i := 0; i+1 < len(in.Rune); i += 2 {
		bounds = append(bounds, in.Rune[i], in.Rune[i+1]+1)
	}
	return bounds
}

// runeClass returns the class of r.
func (p *program) runeClass(r rune) int {
	i, found := slices.BinarySearch(p.bounds, r)
	if !found {
		i--
	}
	return i
}

// numberBytes numbers the classes of bytes. Those of ASCII follow the runes.
// If no instruction tells runes beyond ASCII apart, it is enough to know what
// part of an encoding a byte can be; otherwise each byte is a class.
func (p *program) numberBytes() {
	beyond := p.bounds[len(p.bounds)-1] > utf8.RuneSelf
	for b := range 256 {
		switch {
		case b < utf8.RuneSelf:
			p.class[b] = uint8(p.runeClass(rune(b)))
		case b == utf8.RuneSelf || beyond || encodingPart(byte(b)) != encodingPart(byte(b-1)):
			p.class[b] = p.class[b-1] + 1
		default:
			p.class[b] = p.class[b-1]
		}
	}
	p.classes = int(p.class[255]) + 1
}

// encodingPart tells bytes apart that play different parts in UTF-8 (RFC 3629,
// section 4). Bytes of one part are neighbours, but for E1–EC and EE–EF, and
// those that never occur.
func encodingPart(b byte) int {
	for i, first := range [...]byte{0x90, 0xa0, 0xc0, 0xc2, 0xe0, 0xe1, 0xed, 0xee, 0xf0, 0xf1, 0xf4, 0xf5} {
		if b < first {
			return i
		}
	}
	return 12
}

// boundary returns what holds between two characters.
func boundary(before, after kind) syntax.EmptyOp {
	var op syntax.EmptyOp
	if before == kindLineEnd {
		op |= syntax.EmptyBeginLine
	}
	if after == kindLineEnd {
		op |= syntax.EmptyEndLine
	}
	if (before == kindWord) != (after == kindWord) {
		return op | syntax.EmptyWordBoundary
	}
	return op | syntax.EmptyNoWordBoundary
}

// kind is what the conditions of width zero want to know about a character.
type kind uint8

const (
	kindOther   kind = iota
	kindWord         // [0-9A-Za-z_]
	kindLineEnd      // no character: the beginning or end of the line
)

func kindOf(r rune) kind {
	switch {
	case r == '\n':
		return kindLineEnd
	case r < utf8.RuneSelf && wordByte(byte(r)):
		return kindWord
	}
	return kindOther
}
