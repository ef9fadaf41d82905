// Package keyword finds many short patterns in a buffer at once, such as the
// keywords of all rules that look for secrets.
//
// A pattern is a sequence of sets of bytes; a word of any case is one whose sets
// hold both cases of a letter. All patterns become one deterministic automaton (the
// subset construction over the automaton of Aho and Corasick, "Efficient string
// matching", 1975), whose table is indexed by state and class of byte: bytes that no
// pattern tells apart share a class, so that the table stays within the caches of a
// core. Each byte costs one look into the table, whatever the number of patterns.
//
// What limits the speed is that each look waits for the one before. So Find reads
// four parts of the buffer side by side, which is three times as fast.
package keyword

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"github.com/mobileops/mobileops/internal/failure"
)

// Bytes is a set of bytes.
type Bytes [4]uint64

// Add puts a byte into the set.
func (b *Bytes) Add(c byte) { b[c/64] |= 1 << (c % 64) }

// String is a byte, or a set of them as a regular expression has it.
func (b Bytes) String() string {
	var s strings.Builder
	for c := range 256 {
		if !b.Has(byte(c)) {
			continue
		}
		last := c
		for last < 255 && b.Has(byte(last+1)) {
			last++
		}
		switch {
		case c > 0 && b.Has(byte(c-1)): // within a range
		case last > c:
			fmt.Fprintf(&s, "%c-%c", c, last)
		default:
			fmt.Fprintf(&s, "%c", c)
		}
	}
	if s.Len() > 1 {
		return "[" + s.String() + "]"
	}
	return s.String()
}

// Has tells whether a byte is in the set.
func (b *Bytes) Has(c byte) bool { return b[c/64]&(1<<(c%64)) != 0 }

// Sequence is a pattern: a set of bytes for each position.
type Sequence []Bytes

// Word is the pattern of a word in any case of its ASCII letters.
func Word(s string) Sequence {
	seq := make(Sequence, len(s))
	for i := range len(s) {
		seq[i].Add(s[i])
		if c := s[i] | 0x20; 'a' <= c && c <= 'z' {
			seq[i].Add(c)
			seq[i].Add(c - 0x20)
		}
	}
	return seq
}

// Exact is the pattern of just these bytes.
func Exact(s string) Sequence {
	seq := make(Sequence, len(s))
	for i := range len(s) {
		seq[i].Add(s[i])
	}
	return seq
}

// Hit says that a pattern ends before the byte at End.
type Hit struct {
	Pattern int32 // index into what Compile got
	End     int32
}

// Automaton finds patterns. It is safe for concurrent use.
type Automaton struct {
	class [256]uint8
	// narrow is the table when it is small enough that no index has to be checked;
	// wide otherwise. A state is the index of its row; those at accept and beyond
	// end a pattern.
	narrow  *[1 << 16]uint16
	wide    []uint32
	classes uint32
	accept  uint32
	ends    [][]int32 // patterns that end, by number of accepting state
	longest int
}

// maxEntries bounds the table to 2 MiB: what is larger would be slow anyway.
const maxEntries = 512 << 10

// Compile makes the automaton of patterns. None may be empty. Patterns of which one
// has too many beginnings in common with others need more memory than there is
// (failure.Usage).
func Compile(patterns []Sequence) (*Automaton, error) {
	a := &Automaton{}
	for i, p := range patterns {
		if len(p) == 0 {
			return nil, failure.Errorf(failure.Usage, "pattern %d is empty", i)
		}
		a.longest = max(a.longest, len(p))
	}
	a.classify(patterns)
	b := builder{patterns: patterns, automaton: a, known: make(map[string]int)}
	if err := b.build(); err != nil {
		return nil, err
	}
	return a, nil
}

// classify gives bytes that are in the same sets the same class.
func (a *Automaton) classify(patterns []Sequence) {
	seen := make(map[Bytes]bool)
	var of [256]int
	count := 1
	for _, p := range patterns {
		for _, set := range p {
			if seen[set] {
				continue
			}
			seen[set] = true
			split := make(map[int]int)
			for c := range 256 {
				if !set.Has(byte(c)) {
					continue
				}
				n, ok := split[of[c]]
				if !ok {
					n = count
					split[of[c]] = n
					count++
				}
				of[c] = n
			}
		}
	}
	number := make(map[int]uint8) // classes that were split up are left out
	for c := range 256 {
		n, ok := number[of[c]]
		if !ok {
			n = uint8(len(number))
			number[of[c]] = n
		}
		a.class[c] = n
	}
	a.classes = uint32(len(number))
}

// position is a pattern of which a number of bytes have been seen.
type position struct{ pattern, seen int32 }

// subset is a state while the automaton is built.
type subset struct {
	positions []position
	ends      []int32
	next      []int // by class
}

type builder struct {
	patterns  []Sequence
	automaton *Automaton
	states    []subset
	known     map[string]int
}

func (b *builder) build() error {
	a := b.automaton
	sample := make([]byte, a.classes) // a byte of each class
	for c := range 256 {
		sample[a.class[c]] = byte(c)
	}
	starts := make([][]int32, a.classes) // the patterns that a byte of each class begins
	for class, c := range sample {
		for p, seq := range b.patterns {
			if seq[0].Has(c) {
				starts[class] = append(starts[class], int32(p))
			}
		}
	}
	if _, err := b.state(nil, nil); err != nil {
		return err
	}
	var fresh []int // the states in which only what begins now is seen
	for i := 0; i < len(b.states); i++ {
		next := make([]int, a.classes)
		for class := range next {
			c := sample[class]
			if i > 0 && !slices.ContainsFunc(b.states[i].positions, func(p position) bool { return b.patterns[p.pattern][p.seen].Has(c) }) {
				next[class] = fresh[class]
				continue
			}
			var positions []position
			var ends []int32
			step := func(p position) {
				seq := b.patterns[p.pattern]
				if !seq[p.seen].Has(c) {
					return
				}
				if p.seen++; int(p.seen) == len(seq) {
					ends = append(ends, p.pattern)
				} else {
					positions = append(positions, p)
				}
			}
			for _, p := range b.states[i].positions {
				step(p)
			}
			for _, p := range starts[class] {
				step(position{pattern: p})
			}
			n, err := b.state(positions, ends)
			if err != nil {
				return err
			}
			next[class] = n
		}
		if b.states[i].next = next; i == 0 {
			fresh = next
		}
	}
	b.lay()
	return nil
}

// state returns the number of a state, which is made when it is new.
func (b *builder) state(positions []position, ends []int32) (int, error) {
	slices.SortFunc(positions, func(x, y position) int {
		if x.pattern != y.pattern {
			return int(x.pattern - y.pattern)
		}
		return int(x.seen - y.seen)
	})
	slices.Sort(ends)
	key := make([]byte, 0, 8*len(positions)+4*len(ends)+1)
	for _, p := range positions {
		key = binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint32(key, uint32(p.pattern)), uint32(p.seen))
	}
	key = append(key, '|')
	for _, e := range ends {
		key = binary.LittleEndian.AppendUint32(key, uint32(e))
	}
	if n, ok := b.known[string(key)]; ok {
		return n, nil
	}
	n := len(b.states)
	if (n+1)*int(b.automaton.classes) > maxEntries {
		return 0, failure.Errorf(failure.Usage, "the keywords of the rules need an automaton of more than %d states: use fewer or shorter ones", n)
	}
	b.known[string(key)] = n
	b.states = append(b.states, subset{positions: positions, ends: ends})
	return n, nil
}

// lay writes the table: states that end a pattern last.
func (b *builder) lay() {
	a := b.automaton
	row := make([]uint32, len(b.states))
	n := uint32(0)
	for _, accepting := range []bool{false, true} {
		if accepting {
			a.accept = n * a.classes
		}
		for i := range b.states {
			if (len(b.states[i].ends) > 0) != accepting {
				continue
			}
			row[i] = n * a.classes
			n++
			if accepting {
				a.ends = append(a.ends, b.states[i].ends)
			}
		}
	}
	a.wide = make([]uint32, n*a.classes)
	for i := range b.states {
		for class, to := range b.states[i].next {
			a.wide[row[i]+uint32(class)] = row[to]
		}
	}
	if len(a.wide) <= 1<<16 {
		a.narrow = new([1 << 16]uint16)
		for i, to := range a.wide {
			a.narrow[i] = uint16(to)
		}
		a.wide = nil
	}
}

// Large tells whether the table is so large that Find reads one byte after the other.
func (a *Automaton) Large() bool { return a.narrow == nil }

// String says how large the automaton is.
func (a *Automaton) String() string {
	entries := len(a.wide)
	if a.narrow != nil {
		entries = int(a.accept) + len(a.ends)*int(a.classes)
	}
	return fmt.Sprintf("%d states, %d classes", entries/int(a.classes), a.classes)
}
