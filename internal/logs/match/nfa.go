package match

import (
	"regexp/syntax"
	"unicode/utf8"
)

// sparse is a set of instructions in the order in which they were put in, with
// room for all of them (Briggs and Torczon, "An efficient representation for
// sparse sets").
type sparse struct {
	dense []uint32
	where []uint32
}

func newSparse(n int) sparse { return sparse{make([]uint32, 0, n), make([]uint32, n)} }

// put adds pc and reports whether it is new.
func (s *sparse) put(pc uint32) bool {
	if w := s.where[pc]; int(w) < len(s.dense) && s.dense[w] == pc {
		return false
	}
	s.where[pc] = uint32(len(s.dense))
	s.dense = append(s.dense, pc)
	return true
}

// nfa follows the instructions that consume nothing.
type nfa struct {
	p       *program
	set     sparse   // all instructions that were reached
	stack   []uint32 // those to follow
	matched bool     // the end of a match is among them
}

func newNFA(p *program) *nfa { return &nfa{p: p, set: newSparse(len(p.inst))} }

// begin empties the set.
func (n *nfa) begin() {
	n.set.dense = n.set.dense[:0]
	n.matched = false
}

// add puts pc into the set, with all that is reached from it without consuming
// anything where the conditions in holds are fulfilled. The order of the set is
// that of preference.
func (n *nfa) add(pc uint32, holds syntax.EmptyOp) {
	n.stack = append(n.stack[:0], pc)
	for len(n.stack) > 0 {
		pc = n.stack[len(n.stack)-1]
		n.stack = n.stack[:len(n.stack)-1]
		if !n.set.put(pc) {
			continue
		}
		in := &n.p.inst[pc]
		switch in.Op {
		case syntax.InstAlt, syntax.InstAltMatch:
			n.stack = append(n.stack, in.Arg, in.Out)
		case syntax.InstCapture, syntax.InstNop:
			n.stack = append(n.stack, in.Out)
		case syntax.InstEmptyWidth:
			if syntax.EmptyOp(in.Arg)&^holds == 0 {
				n.stack = append(n.stack, in.Out)
			}
		case syntax.InstMatch:
			n.matched = true
		}
	}
}

// tracer tells where a match begins and ends: Pike's simulation of an NFA, with
// the preferences of Perl as in package regexp.
type tracer struct {
	nfa       *nfa
	now, next []thread
}

// thread is an instruction to go on at, and where its match began.
type thread struct {
	pc    uint32
	start int
}

func newTracer(p *program) *tracer { return &tracer{nfa: newNFA(p)} }

// find returns the leftmost match that begins at or after from within
// line[lo:hi], which is one line; -1, -1 when there is none.
func (t *tracer) find(text []byte, lo, hi, from int) (start, end int) {
	p := t.nfa.p
	start, end = -1, -1
	t.now = t.now[:0]
	before := kindLineEnd
	if from > lo {
		r, _ := utf8.DecodeLastRune(text[lo:from])
		before = kindOf(r)
	}
	for at := from; ; {
		r, size, after := rune(-1), 0, kindLineEnd
		if at < hi {
			r, size = utf8.DecodeRune(text[at:hi])
			after = kindOf(r)
		}
		holds := boundary(before, after)
		t.nfa.begin()
		t.next = t.next[:0]
		step := func(pc uint32, began int) (stop bool) {
			seen := len(t.nfa.set.dense)
			t.nfa.add(pc, holds)
			for _, pc := range t.nfa.set.dense[seen:] {
				in := &p.inst[pc]
				switch in.Op {
				case syntax.InstMatch:
					if p.word && after == kindWord {
						continue
					}
					start, end = began, at
					return true // what follows is less preferred
				case syntax.InstRune, syntax.InstRune1, syntax.InstRuneAny, syntax.InstRuneAnyNotNL:
					if size > 0 && in.MatchRune(r) {
						t.next = append(t.next, thread{in.Out, began})
					}
				}
			}
			return false
		}
		stop := false
		for _, th := range t.now {
			if stop = step(th.pc, th.start); stop {
				break
			}
		}
		if start < 0 && !stop && !(p.word && before == kindWord) {
			step(p.start, at)
		}
		t.now, t.next = t.next, t.now
		if size == 0 || start >= 0 && len(t.now) == 0 {
			return start, end
		}
		at += size
		before = after
	}
}
