package match

import (
	"bytes"
	"regexp/syntax"
	"slices"
	"unicode/utf8"
)

// dfa finds lines with a match by one look-up for each byte. Its states are
// made when they are met first (as in RE2 and grep), and forgotten all at once
// when they take too much room.
//
// A state is the set of instructions that go on, what the character before was
// where that matters, and the bytes of a character that is not complete yet:
// the instructions see runes, and bytes that are no UTF-8 as U+FFFD one by one,
// precisely as package regexp does. A newline leads from every state to the
// beginning of a line, so that the automaton runs straight over a buffer.
//
// Transitions lead to a row of the table, which is the number of the state
// times the classes of bytes; three rows at the beginning are no states.
type dfa struct {
	p      *program
	trans  []uint32
	keys   []string          // of each state, by number: see key
	rows   map[string]uint32 // by key
	start  uint32            // the row at the beginning of a line
	most   int               // how long trans may become
	bytes  int               // of all keys
	resets int               // how often states were forgotten

	now, next *nfa
	scratch   []byte
	kernel    []uint32
	pending   []byte
	partial   map[partialRune][utf8.UTFMax - 1]byte

	// How often states were forgotten, and how much was read since: an
	// automaton that makes states faster than it uses them is given up.
	sinceReset, thrashed int
	gaveUp               bool
}

const (
	rowUnknown = iota // the state has not been made
	rowDead           // no match in this line any more
	rowMatch          // the line matches
	rowsReserved
)

// tableBytes is what the transitions of one automaton may take. They are to
// stay in the cache of a core.
const tableBytes = 1 << 20

// keyBytes is what the keys of all states may take.
const keyBytes = 4 << 20

func newDFA(p *program) *dfa {
	d := &dfa{
		p: p, most: max(tableBytes/4, 16*p.classes),
		now: newNFA(p), next: newNFA(p),
		partial: map[partialRune][utf8.UTFMax - 1]byte{},
	}
	d.reset()
	return d
}

// reset forgets all states but the beginning of a line.
func (d *dfa) reset() {
	d.trans = append(d.trans[:0], make([]uint32, rowsReserved*d.p.classes)...)
	d.keys = append(d.keys[:0], make([]string, rowsReserved)...)
	d.rows = map[string]uint32{}
	d.sinceReset, d.bytes = 0, 0
	d.resets++
	d.kernel, d.pending = d.kernel[:0], d.pending[:0]
	before := kindOther
	if d.p.lineBegin {
		before = kindLineEnd
	}
	d.start = d.intern(before)
}

// last is the highest row that is no state.
func (d *dfa) last() uint32 { return uint32(rowMatch * d.p.classes) }

// key appends what makes a state: the kind of the character before, the bytes
// of one that is not complete, and the instructions to go on at.
func key(to []byte, before kind, pending []byte, kernel []uint32) []byte {
	to = append(to, byte(before), byte(len(pending)))
	to = append(to, pending...)
	for _, pc := range kernel {
		to = append(to, byte(pc), byte(pc>>8), byte(pc>>16))
	}
	return to
}

// intern returns the row of the state of d.kernel and d.pending.
func (d *dfa) intern(before kind) uint32 {
	if len(d.kernel) == 0 && len(d.pending) == 0 && before != kindLineEnd && d.p.anchored && d.p.lineBegin {
		return uint32(rowDead * d.p.classes)
	}
	d.scratch = key(d.scratch[:0], before, d.pending, d.kernel)
	if row, ok := d.rows[string(d.scratch)]; ok {
		return row
	}
	row := uint32(len(d.trans))
	k := string(d.scratch)
	d.keys = append(d.keys, k)
	d.bytes += len(k)
	d.rows[k] = row
	d.trans = append(d.trans, make([]uint32, d.p.classes)...)
	return row
}

// step makes the transition from a state at a byte. It may forget all states to
// make room.
func (d *dfa) step(from uint32, b byte) (to uint32) {
	k := d.keys[from/uint32(d.p.classes)]
	if len(d.trans)+d.p.classes > d.most || d.bytes > keyBytes {
		if d.sinceReset < 16*len(d.keys) {
			d.thrashed++
		}
		d.gaveUp = d.gaveUp || d.thrashed >= 4
		d.reset()
		from = 0 // it is no more; what follows is remembered for nobody
	}
	before := kind(k[0])
	pending := append(d.pending[:0], k[2:2+k[1]]...)
	d.kernel = d.kernel[:0]
	for k = k[2+k[1]:]; len(k) > 0; k = k[3:] {
		d.kernel = append(d.kernel, uint32(k[0])|uint32(k[1])<<8|uint32(k[2])<<16)
	}
	pending = append(pending, b)
	for len(pending) > 0 && utf8.FullRune(pending) {
		r, size := utf8.DecodeRune(pending)
		pending = pending[:copy(pending, pending[size:])]
		if d.consume(before, r) {
			to = uint32(rowMatch * d.p.classes)
			break
		}
		before = kindOf(r)
		if r == '\n' {
			to = d.start
		} else if !d.p.looksBack {
			before = kindOther
		}
	}
	if to == 0 {
		d.pending = d.canonical(pending)
		to = d.intern(before)
	}
	if from != 0 {
		d.trans[from+uint32(d.p.class[b])] = to
	}
	return to
}

// consume replaces d.kernel by what is left to do after r, and reports whether
// there is a match already, before or behind r.
func (d *dfa) consume(before kind, r rune) bool {
	p := d.p
	after := kindOf(r)
	holds := boundary(before, after)
	d.now.begin()
	for _, pc := range d.kernel {
		d.now.add(pc, holds)
	}
	if !p.word || before != kindWord {
		d.now.add(p.start, holds)
	}
	if d.now.matched && !(p.word && after == kindWord) {
		return true
	}
	d.kernel = d.kernel[:0]
	if r == '\n' {
		return false
	}
	d.next.begin()
	for _, pc := range d.now.set.dense {
		in := &p.inst[pc]
		switch in.Op {
		case syntax.InstRune, syntax.InstRune1, syntax.InstRuneAny, syntax.InstRuneAnyNotNL:
			if in.MatchRune(r) {
				d.next.add(in.Out, 0)
			}
		}
	}
	if d.next.matched && !p.word {
		return true
	}
	for _, pc := range d.next.set.dense {
		if in := &p.inst[pc]; consumes(in) || in.Op == syntax.InstEmptyWidth {
			d.kernel = append(d.kernel, pc)
		}
	}
	slices.Sort(d.kernel)
	return false
}

// partialRune is what matters of the first bytes of a character when all
// characters that can become of them are in one class.
type partialRune struct {
	have, want int
	shape      byte // the first byte where it limits the second one
	class      int
}

// canonical returns the first bytes of a character, or of another one that no
// instruction tells from it: otherwise every letter of a text in Chinese would
// have states of its own.
func (d *dfa) canonical(pending []byte) []byte {
	if len(pending) == 0 {
		return pending
	}
	part := partialRune{have: len(pending)}
	var lo rune
	switch first := pending[0]; {
	case first < 0xe0:
		part.want, lo = 2, rune(first&0x1f)
	case first < 0xf0:
		part.want, lo = 3, rune(first&0x0f)
	default:
		part.want, lo = 4, rune(first&0x07)
	}
	for _, b := range pending[1:] {
		lo = lo<<6 | rune(b&0x3f)
	}
	open := 6 * (part.want - part.have)
	lo <<= open
	hi := lo | (1<<open - 1)
	if part.have == 1 {
		switch first := pending[0]; first {
		case 0xe0:
			part.shape, lo = first, 0x800
		case 0xed:
			part.shape, hi = first, 0xd7ff
		case 0xf0:
			part.shape, lo = first, 0x10000
		case 0xf4:
			part.shape, hi = first, utf8.MaxRune
		}
	}
	part.class = d.p.runeClass(lo)
	if part.class != d.p.runeClass(hi) {
		return pending
	}
	like, ok := d.partial[part]
	if !ok {
		copy(like[:], pending)
		d.partial[part] = like
	}
	return append(pending[:0], like[:part.have]...)
}

// firstMatch returns a place within the first line of buf that matches, from
// the line on that begins at from: the place of a byte of that line or of the
// newline that ends it. It returns -1 when no line matches, and -2 when the
// automaton gave up: then nothing is known of the line that begins at or
// before resume.
func (d *dfa) firstMatch(buf []byte, from int) (at, resume int) {
	last := d.last()
	class := &d.p.class
	s := d.start
	t := d.trans
	i := from
	quiet := from + quietBytes // until here no match: then side by side
	if d.p.anchored {
		quiet = len(buf)
	}
	for i < len(buf) {
		if i >= quiet && buf[i-1] == '\n' {
			at, resume := d.sideBySide(buf, i)
			if at >= 0 {
				return at, 0
			}
			if resume == i {
				quiet = i + quietBytes
			}
			d.sinceReset += resume - from
			i, from = resume, resume
			s, t = d.start, d.trans
			if i >= len(buf) {
				break
			}
		}
		row := s
		s = t[s+uint32(class[buf[i]])]
		if s > last {
			i++
			continue
		}
		if s == rowUnknown {
			d.sinceReset += i - from
			from = i
			s = d.step(row, buf[i])
			t = d.trans
			if d.gaveUp {
				return -2, lineStart(buf, 0, i)
			}
		}
		switch s {
		case last:
			return i, 0
		case uint32(rowDead * d.p.classes):
			n := bytes.IndexByte(buf[i:], '\n')
			if n < 0 {
				return -1, 0
			}
			i += n
			s = d.start
		}
		i++
	}
	d.sinceReset += i - from
	if len(buf) > 0 && buf[len(buf)-1] == '\n' {
		return -1, 0
	}
	to := d.trans[s+uint32(class['\n'])]
	if to == rowUnknown {
		to = d.step(s, '\n')
	}
	if to == last {
		return len(buf), 0
	}
	return -1, 0
}
