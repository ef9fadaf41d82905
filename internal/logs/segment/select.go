package segment

import (
	"bytes"
	"encoding/binary"
	"math/bits"
	"slices"

	"github.com/mobileops/mobileops/internal/logs/match"
)

// Selection is a set of records of a block. It is valid until the block is
// loaded again.
type Selection struct {
	// Exact says that these are the records that match; otherwise records that
	// do not match may be among them.
	Exact bool

	count     int
	templates []chosen
}

// chosen are the selected records of a template.
type chosen struct {
	all  bool
	bits []uint64 // if not all; nil: none
}

// Count returns how many records are selected.
func (s *Selection) Count() int { return s.count }

// Empty says whether no record is selected.
func (s *Selection) Empty() bool { return s.count == 0 }

func (s *Selection) has(r rowRef) bool {
	c := &s.templates[r.template]
	return c.all || c.bits != nil && c.bits[r.ordinal>>6]&(1<<(r.ordinal&63)) != 0
}

// All selects every record.
func (b *Block) All() Selection {
	s := Selection{Exact: true, count: int(b.info.records), templates: make([]chosen, len(b.templates))}
	for i := range s.templates {
		s.templates[i].all = true
	}
	return s
}

// Search is a question that many blocks are asked. Only one goroutine may use
// it.
type Search struct {
	clauses [][]*matcher
	exact   bool // of the need; without words, which columns know nothing of
	around  map[string]*addresses
}

// addresses are those that an address is part of.
type addresses struct {
	packed []uint32
	hashes []uint64
	few    bool // otherwise they are not listed
}

// NewSearch prepares the question for what has the needed bytes.
func NewSearch(need match.Need) *Search {
	s := &Search{exact: need.Exact, around: map[string]*addresses{}}
	for _, clause := range need.Clauses {
		var list []*matcher
		for _, l := range clause {
			list = append(list, newMatcher(l.Text, l.Fold))
			s.exact = s.exact && !l.Word
		}
		s.clauses = append(s.clauses, list)
	}
	return s
}

// Select returns the records whose bytes have what is needed. Every record that
// has it is selected.
func (b *Block) Select(q *Search) (Selection, error) {
	if len(q.clauses) == 0 {
		s := b.All()
		s.Exact = q.exact
		return s, nil
	}
	s := Selection{Exact: q.exact, templates: make([]chosen, len(b.templates))}
	for i := range b.templates {
		c, unsure, err := b.choose(i, q)
		if err != nil {
			return Selection{}, err
		}
		s.templates[i] = c
		n := 0
		if c.all {
			n = b.templates[i].count
		}
		for _, w := range c.bits {
			n += bits.OnesCount64(w)
		}
		s.count += n
		if unsure && n > 0 {
			s.Exact = false
		}
	}
	return s, nil
}

// candidate is a way that columns and filter do not rule out.
type candidate struct {
	constraints []constraint
	fold        bool
}

// choose returns which records of a template have a literal of every clause.
func (b *Block) choose(i int, q *Search) (result chosen, unsure bool, err error) {
	t := &b.templates[i]
	if i == b.whole {
		return chosen{all: true}, true, nil
	}
	// Whatever is ruled out without unpacking is ruled out first.
	possible := make([][]candidate, 0, len(q.clauses))
	for _, clause := range q.clauses {
		var ways []candidate
		everywhere := false
		for _, l := range clause {
			var failed error
			l.ways(t.key, b.inside(l), func(w way) bool {
				ok, err := b.possible(q, t, w, l.fold)
				if err != nil {
					failed = err
					return false
				}
				if !ok {
					return true
				}
				if len(w.constraints) == 0 {
					everywhere = true
					return false
				}
				ways = append(ways, candidate{append([]constraint(nil), w.constraints...), l.fold})
				return true
			})
			if failed != nil {
				return chosen{}, false, failed
			}
			if everywhere {
				break
			}
		}
		if everywhere {
			continue
		}
		if len(ways) == 0 {
			return chosen{}, false, nil
		}
		possible = append(possible, ways)
	}
	if len(possible) == 0 {
		return chosen{all: true}, false, nil
	}
	result.bits = b.bitmap(t.count)
	setAll(result.bits, t.count)
	any, one := b.bitmap(t.count), b.bitmap(t.count)
	for _, ways := range possible {
		clear(any)
		for _, w := range ways {
			setAll(one, t.count)
			for _, c := range w.constraints {
				hits := b.bitmap(t.count)
				if err := b.find(q, i, c, w.fold, hits); err != nil {
					return chosen{}, false, err
				}
				for k := range one {
					one[k] &= hits[k]
				}
			}
			for k := range any {
				any[k] |= one[k]
			}
		}
		for k := range result.bits {
			result.bits[k] &= any[k]
		}
	}
	return result, false, nil
}

// possible says whether the columns may have what a way asks for.
func (b *Block) possible(q *Search, t *packedTemplate, w way, fold bool) (bool, error) {
	for _, c := range w.constraints {
		if c.column == inTime {
			continue
		}
		// An address has digits and dots only; of all other columns the index
		// knows what none of them has.
		if v := &b.info.values; (len(c.text) > v.max || !v.has(c.text, fold)) && !partOfAddress(c.text) {
			return false, nil
		}
		col, err := b.column(t.columns + c.column)
		if err != nil {
			return false, err
		}
		if len(c.text) > col.max || c.relation == equal && len(c.text) < col.min || !col.has(c.text, fold) {
			return false, nil
		}
		if fold && hasLetter(c.text) {
			continue
		}
		if !col.odd && c.relation != equal && isAddress(c.text) {
			if !col.address { // it may be anywhere in a value
				c.relation = contains
			}
			if ok := b.addressProbed(q, c); !ok {
				return false, nil
			}
			continue
		}
		found, decided := col.alternatives(c.relation, c.text, func(v []byte) bool { return b.mayHave(hashValue(v)) })
		if decided && !found {
			return false, nil
		}
	}
	return true, b.failed
}

// addressProbed says whether the block may have an address that relates to
// another as a constraint says.
func (b *Block) addressProbed(q *Search, c constraint) bool {
	b.key = append(append(b.key[:0], byte(c.relation)), c.text...)
	may, known := b.probed[string(b.key)]
	if !known {
		list := q.addresses(c)
		may = !list.few || slices.ContainsFunc(list.hashes, b.mayHave)
		b.probed[string(b.key)] = may
	}
	return may
}

// addresses returns the addresses that are related to that of a constraint.
func (q *Search) addresses(c constraint) *addresses {
	key := string(append([]byte{byte(c.relation)}, c.text...))
	if known := q.around[key]; known != nil {
		return known
	}
	list, few := [][]byte{c.text}, true
	if c.relation != equal {
		list, few = addressesAround(c.relation, c.text)
	}
	out := &addresses{few: few}
	for _, v := range list {
		a := packAddress(v)
		out.packed = append(out.packed, binary.LittleEndian.Uint32(a[:]))
		out.hashes = append(out.hashes, hashValue(v))
	}
	q.around[key] = out
	return out
}

// Possible says whether block i of a segment can have what is looked for, as far
// as the index tells.
func (r *Reader) Possible(i int, q *Search) bool {
	for _, clause := range q.clauses {
		if !slices.ContainsFunc(clause, func(m *matcher) bool {
			return m.constant || len(m.text) == 0 || m.timely || m.within(&r.blocks[i])
		}) {
			return false
		}
	}
	return true
}

// inside says whether a literal may begin within a value of the block, as far
// as the index tells.
func (b *Block) inside(m *matcher) bool {
	if m.block != b.info {
		m.block, m.inside = b.info, m.within(b.info)
	}
	return m.inside
}

// within says whether the literal may begin within a value of a block.
func (m *matcher) within(b *blockInfo) bool {
	text := m.text[:m.leading]
	return len(text) > 0 && (partOfAddress(text) || len(text) <= b.values.max && b.values.has(text, m.fold))
}

// partOfAddress says whether text may be part of an IPv4 address.
func partOfAddress(text []byte) bool {
	for _, c := range text {
		if classes[c] != digit && c != '.' {
			return false
		}
	}
	return len(text) <= 15
}

func hasLetter(text []byte) bool {
	for _, c := range text {
		if c >= 'a' && c <= 'z' {
			return true
		}
	}
	return false
}

// find sets the bits of the records of template i whose value in a column, or
// whose time, is as asked.
func (b *Block) find(q *Search, i int, c constraint, fold bool, hits []uint64) (err error) {
	t := &b.templates[i]
	if c.column == inTime {
		return b.findTime(uint32(i), c, fold, hits)
	}
	col, err := b.values(t.columns + c.column)
	if err != nil {
		return err
	}
	if col.address && isAddress(c.text) {
		if list := q.addresses(c); list.few {
			return b.findAddresses(t, col, list.packed, hits)
		}
	}
	data, err := b.text(t.columns + c.column)
	if err != nil {
		return err
	}
	text := c.text
	rows := t.count
	if col.dictionary {
		// The distinct values are searched, and their rows looked up.
		if col.count() != rows {
			return corrupt(b.info.offset, "a column has a wrong number of values")
		}
		rows = bytes.Count(data, []byte{'\n'})
		all := hits
		hits = b.bitmap(rows)
		defer func() {
			if err == nil {
				col.rowsOf(hits, all)
			}
		}()
	}
	if fold && hasLetter(text) {
		b.folded = append(b.folded[:0], data...)
		for i, ch := range b.folded {
			b.folded[i] = lower(ch)
		}
		data = b.folded
	}
	row, counted := 0, 0
	for from := 0; ; {
		n := bytes.Index(data[from:], text)
		if n < 0 {
			return nil
		}
		at, end := from+n, from+n+len(text)
		from = at + 1
		starts, stops := at == 0 || data[at-1] == '\n', end < len(data) && data[end] == '\n'
		switch c.relation {
		case equal:
			if !starts || !stops {
				continue
			}
		case begins:
			if !starts {
				continue
			}
		case ends:
			if !stops {
				continue
			}
		}
		row += bytes.Count(data[counted:at], []byte{'\n'})
		counted = at
		if row >= rows {
			return corrupt(b.info.offset, "a column has too many values")
		}
		hits[row>>6] |= 1 << (row & 63)
		if next := bytes.IndexByte(data[at:], '\n'); next >= 0 {
			from = at + next + 1
		}
	}
}

// rowsOf sets the bits of the rows whose value in the dictionary is one of some.
func (c *packedColumn) rowsOf(some, rows []uint64) {
	if none(some) {
		return
	}
	for i := range c.count() {
		if n := c.number(i); some[n>>6]&(1<<(n&63)) != 0 {
			rows[i>>6] |= 1 << (i & 63)
		}
	}
}

func none(set []uint64) bool {
	for _, w := range set {
		if w != 0 {
			return false
		}
	}
	return true
}

// findAddresses is find for whole addresses in a column of addresses.
func (b *Block) findAddresses(t *packedTemplate, col *packedColumn, list []uint32, hits []uint64) error {
	if len(col.data) != 4*t.count {
		return corrupt(b.info.offset, "a column has a wrong number of addresses")
	}
	for _, want := range list {
		for row := range t.count {
			if binary.LittleEndian.Uint32(col.data[4*row:]) == want {
				hits[row>>6] |= 1 << (row & 63)
			}
		}
	}
	return nil
}

// bitmap returns an empty set of n records. It is valid until the next Load.
func (b *Block) bitmap(n int) []uint64 {
	words := (n + 63) / 64
	from := len(b.words)
	if from+words > cap(b.words) {
		// Bitmaps that were handed out keep the old room.
		b.words, from = make([]uint64, 0, max(2*cap(b.words), from+words, 1<<12)), 0
	}
	b.words = b.words[:from+words]
	set := b.words[from:]
	clear(set)
	return set[:words:words]
}

func setAll(set []uint64, n int) {
	for i := range set {
		set[i] = ^uint64(0)
	}
	if n&63 != 0 {
		set[len(set)-1] = 1<<(n&63) - 1
	}
}

// findTime sets the bits of the records of a template whose time has a text at
// a place.
func (b *Block) findTime(template uint32, c constraint, fold bool, hits []uint64) error {
	if err := b.loadRows(); err != nil {
		return err
	}
	if err := b.loadTimes(); err != nil {
		return err
	}
	var last moment
	known, same := false, false
	for i, ref := range b.rows {
		if ref.template != template {
			continue
		}
		m := moment(b.times[i].time + b.times[i].written)
		if !known || m != last {
			b.raw = c.layout.append(b.raw[:0], m)
			text := b.raw[c.from:][:len(c.text)]
			if fold {
				for k := range text {
					text[k] = lower(text[k])
				}
			}
			known, last, same = true, m, string(text) == string(c.text)
		}
		if same {
			hits[ref.ordinal>>6] |= 1 << (ref.ordinal & 63)
		}
	}
	return nil
}
