package policy

import (
	"encoding/binary"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
)

// maxStates bounds the memory of a Matcher: whoever can make directories below
// a pattern of many wildcards can make as many states. Further ones are not
// kept, which costs time alone.
const maxStates = 1 << 16

// Matcher decides for every entry of a walk which rule applies. It may be
// used from several goroutines.
//
// It is an automaton over directories. The patterns of all rules are laid out
// as positions, one for each component; a State is the set of positions that
// the path so far has led to, the last rule that covers the directory, and
// whether the directory lies in Paths. States are made when a walk first
// meets them and shared: below a directory that no pattern names there is
// mostly one for the whole subtree.
//
// Since the last rule decides, positions of rules before the one that covers
// a directory can have no effect below it, and are dropped.
type Matcher struct {
	rules     []Rule     // rule 0 is the default, rule i the policy's i-1
	positions []position // of all rules
	root      *State
	rootRule  *Rule
	nothing   *State // nothing below is covered

	mu     sync.RWMutex
	states map[string]*State // by State.key
}

// position is one component of one rule.
type position struct {
	component
	rule int32
	last bool // a match of this component is a match of the rule
}

// startNode is a directory above or at a start path.
type startNode struct {
	id       int32
	start    bool
	children map[string]*startNode
}

// State is what a Matcher knows about one directory. It is immutable.
type State struct {
	m *Matcher

	// What the state is; key has the same in bytes.
	above     *startNode // the directory is above a start path; nil at and below one, and where there is none
	covered   int32      // the last rule that matches the directory, one above it, or all its entries
	positions []int32    // sorted, of rules after covered

	// What follows from it.
	decision *Rule // of entries that no pattern names: nil for excluded and outside
	prune    bool
	only     []string // see OnlyNames
	onlySet  bool
	literals map[string]literalHits
	globs    []globHit // in descending order of rules

	other atomic.Pointer[State] // of a child that no position matches
}

// literalHits is what a name leads to that patterns spell out.
type literalHits struct {
	rule int32   // the last rule that it matches, -1 for none
	next []int32 // the positions that match
}

// globHit is a glob that stands at a position.
type globHit struct {
	*glob
	position int32
	rule     int32
	last     bool
}

// Compile prepares the policy for a walk. The policy must come from Parse or
// Builtin: a pattern that does not parse is a programming error.
func (p *Policy) Compile() *Matcher {
	m := &Matcher{rules: append([]Rule{p.Default}, p.Rules...), states: map[string]*State{}}
	var first []int32
	covered := int32(0)
	for i := range p.Rules {
		rule := int32(i + 1)
		comps, err := parsePattern(p.Rules[i].Pattern)
		if err != nil {
			panic("policy: a rule was not validated: " + p.Rules[i].Pattern + ": " + err.Error())
		}
		if len(comps) == 0 { // "/"
			covered = rule
			continue
		}
		first = append(first, int32(len(m.positions)))
		for j, c := range comps {
			m.positions = append(m.positions, position{c, rule, j == len(comps)-1})
		}
	}
	m.nothing = &State{m: m, prune: true}
	m.nothing.other.Store(m.nothing)
	tree := startTree(p.Paths)
	if tree.start {
		m.rootRule = m.effective(covered)
		tree = nil
	}
	m.root = m.intern(tree, covered, first)
	return m
}

// startTree returns the start paths as a tree of names.
func startTree(paths []string) *startNode {
	root := &startNode{}
	count := int32(1)
	for _, path := range paths {
		n := root
		for name := range strings.SplitSeq(path, "/") {
			if name == "" {
				continue
			}
			child := n.children[name]
			if child == nil {
				if n.children == nil {
					n.children = map[string]*startNode{}
				}
				child = &startNode{id: count}
				count++
				n.children[name] = child
			}
			n = child
		}
		n.start = true
	}
	return root
}

// Root returns the state of "/".
func (m *Matcher) Root() *State { return m.root }

// RootRule returns the rule that decides "/" itself, nil when it is outside
// the paths or excluded.
func (m *Matcher) RootRule() *Rule { return m.rootRule }

// effective returns a rule, nil for one that excludes.
func (m *Matcher) effective(rule int32) *Rule {
	if m.rules[rule].Exclude {
		return nil
	}
	return &m.rules[rule]
}

// Rule returns the rule that decides a child entry of the directory, nil when
// the entry is outside the paths or excluded. It does not allocate.
func (s *State) Rule(name []byte) *Rule {
	if s.above != nil {
		if child := s.above.children[string(name)]; child == nil || !child.start {
			return nil
		}
	} else if s.literals == nil && s.globs == nil {
		return s.decision
	}
	best := s.covered
	if hit, ok := s.literals[string(name)]; ok && hit.rule > best {
		best = hit.rule
	}
	for i := range s.globs {
		g := &s.globs[i]
		if g.rule <= best {
			break
		}
		if g.last && g.match(name) {
			best = g.rule
			break
		}
	}
	return s.m.effective(best)
}

// Enter returns the state of a child directory. It does not allocate when the
// walk has met the state before.
func (s *State) Enter(name []byte) *State {
	if s.prune {
		return s.m.nothing
	}
	var above *startNode
	if s.above != nil {
		child := s.above.children[string(name)]
		if child == nil {
			return s.m.nothing
		}
		if !child.start {
			above = child
		}
	}
	var buf [32]int32
	matched := buf[:0]
	if hit, ok := s.literals[string(name)]; ok {
		matched = append(matched, hit.next...)
	}
	for i := range s.globs {
		if s.globs[i].match(name) {
			matched = append(matched, s.globs[i].position)
		}
	}
	if len(matched) == 0 && s.above == nil {
		if other := s.other.Load(); other != nil {
			return other
		}
	}

	var nextBuf [64]int32
	next := nextBuf[:0]
	covered := s.covered
	for _, i := range s.positions {
		if s.m.positions[i].deep {
			next = append(next, i)
		}
	}
	for _, i := range matched {
		if p := &s.m.positions[i]; p.last {
			covered = max(covered, p.rule)
		} else {
			next = append(next, i+1)
		}
	}
	child := s.m.intern(above, covered, next)
	if len(matched) == 0 && s.above == nil {
		s.other.Store(child)
	}
	return child
}

// Prune reports that no entry below the directory can be covered, so a walk
// need not read it.
func (s *State) Prune() bool { return s.prune }

// OnlyNames returns the names of the only children that can be covered or can
// lead to covered entries, sorted, when the policy spells them out: above the
// start paths, and in excluded directories from which later rules take single
// names back. A walk then opens these and does not list the directory. The
// caller must not change the slice.
func (s *State) OnlyNames() ([]string, bool) { return s.only, s.onlySet }

// intern returns the state for a directory. It reorders positions.
func (m *Matcher) intern(above *startNode, covered int32, positions []int32) *State {
	covered, positions = m.reduce(covered, positions)
	if len(positions) == 0 && m.effective(covered) == nil {
		return m.nothing
	}
	var buf [256]byte
	key := buf[:0]
	if above != nil {
		key = binary.LittleEndian.AppendUint32(key, uint32(above.id))
	} else {
		key = binary.LittleEndian.AppendUint32(key, 1<<31)
	}
	key = binary.LittleEndian.AppendUint32(key, uint32(covered))
	for _, p := range positions {
		key = binary.LittleEndian.AppendUint32(key, uint32(p))
	}
	m.mu.RLock()
	s := m.states[string(key)]
	m.mu.RUnlock()
	if s != nil {
		return s
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if s := m.states[string(key)]; s != nil {
		return s
	}
	s = m.newState(above, covered, slices.Clone(positions))
	if len(m.states) < maxStates {
		m.states[string(key)] = s
	}
	return s
}

// reduce drops positions that cannot change a decision, and sorts the rest.
func (m *Matcher) reduce(covered int32, positions []int32) (int32, []int32) {
	// A last component that matches every name decides for all entries, here
	// and below, as if it had matched the directory.
	for _, i := range positions {
		if p := &m.positions[i]; p.last && p.rule > covered && slices.ContainsFunc(p.globs, func(g glob) bool { return g.universal() }) {
			covered = p.rule
		}
	}
	// Later rules that decide the same as what covers the directory anyway
	// matter only as long as one in between decides otherwise; that is worth
	// finding out for exclusion alone, since it is what ends a walk.
	includes := false
	positions = slices.DeleteFunc(positions, func(i int32) bool {
		p := &m.positions[i]
		if p.rule <= covered {
			return true
		}
		includes = includes || !m.rules[p.rule].Exclude
		return false
	})
	if !includes && m.rules[covered].Exclude {
		positions = positions[:0]
	}
	slices.Sort(positions)
	return covered, slices.Compact(positions)
}

// newState works out what follows from the identity of a state.
func (m *Matcher) newState(above *startNode, covered int32, positions []int32) *State {
	s := &State{m: m, above: above, covered: covered, positions: positions}
	if above == nil {
		s.decision = m.effective(covered)
	}
	for _, i := range positions {
		p := &m.positions[i]
		for j := range p.globs {
			g := &p.globs[j]
			if !g.simple || g.star {
				s.globs = append(s.globs, globHit{g, i, p.rule, p.last})
				continue
			}
			if s.literals == nil {
				s.literals = map[string]literalHits{}
			}
			hit, ok := s.literals[g.prefix]
			if !ok {
				hit.rule = -1
			}
			if p.last {
				hit.rule = max(hit.rule, p.rule)
			}
			hit.next = append(hit.next, i)
			s.literals[g.prefix] = hit
		}
	}
	slices.SortStableFunc(s.globs, func(a, b globHit) int { return int(b.rule - a.rule) })
	s.setOnly()
	return s
}

// setOnly fills in what OnlyNames returns.
func (s *State) setOnly() {
	if s.above != nil {
		s.only, s.onlySet = slices.Sorted(maps.Keys(s.above.children)), true
		return
	}
	if s.decision != nil {
		return
	}
	var only []string
	for _, i := range s.positions {
		p := &s.m.positions[i]
		if s.m.rules[p.rule].Exclude {
			continue
		}
		names, ok := p.names()
		if p.deep || !ok {
			return
		}
		only = append(only, names...)
	}
	slices.Sort(only)
	s.only, s.onlySet = slices.Compact(only), true
}
