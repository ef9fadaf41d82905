package journal

import (
	"bytes"
	"context"
	"path/filepath"
	"slices"
	"strings"

	"github.com/mobileops/mobileops/internal/logs/match"
)

// FieldMatch is a value that a field must have, byte for byte. As with
// journalctl, matches of one field are alternatives, and each field that has a
// match must have one of them.
type FieldMatch struct {
	Field string
	Value []byte
}

// SearchOptions say which entries are looked for. The zero value finds all.
type SearchOptions struct {
	// Since and Until are times in nanoseconds since 1970-01-01 UTC: the
	// entry's is at or after Since and before Until. 0 is without bound.
	Since, Until int64
	Matches      []FieldMatch
	// Need is what must be in an entry: in one of its fields, as the bytes
	// "FIELD=value", at least one literal of each clause. Whether that is all
	// that is wanted (Need.Exact) is for the caller to know.
	Need match.Need
	// After goes on after a cursor or a position; empty: from the first entry.
	After string
	// Follow goes on with entries that are written later, until the context
	// ends. Without it the search ends with what was there when it began.
	Follow bool
}

// Search calls fn with the entries that are looked for, in the order of
// journalctl. The entry is valid during the call. It ends with the error of fn
// or of ctx, if any. What could not be read is reported, as with Next, and left
// out. Search does not change where Next is.
func (s *Set) Search(ctx context.Context, o SearchOptions, fn func(*Entry) error) error {
	w := &walk{s: s}
	if o.After != "" {
		p, files, err := parseCursor(o.After)
		if err != nil {
			return err
		}
		if w.place = p; len(files) > 0 {
			w.restore = files
		}
		w.place.exact = p.hasSeqnum && p.hasMonotonic && p.hasRealtime && p.hasXor
	}
	q := newQuery(ctx, s, o)
	w.filter = q
	for _, f := range s.files {
		w.add(f)
	}
	s.searches = append(s.searches, w)
	defer func() { s.searches = slices.DeleteFunc(s.searches, func(x *walk) bool { return x == w }) }()

	var e Entry
	for n := 0; ; n++ {
		if n%256 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		s.release()
		found := false
		if !s.guarded(func() { found = w.advance() }) {
			continue
		}
		if found {
			e.fill(s, w.current.f, &w.current.head)
			if err := fn(&e); err != nil {
				return err
			}
			continue
		}
		if err := ctx.Err(); err != nil || !o.Follow {
			return err
		}
		if err := s.wait(ctx, w); err != nil {
			return err
		}
	}
}

// Count returns how many entries there are that Search would call fn with. It
// is the number of matches only when o.Need is exact.
func (s *Set) Count(ctx context.Context, o SearchOptions) (uint64, error) {
	n := uint64(0)
	o.Follow = false
	err := s.Search(ctx, o, func(*Entry) error {
		n++
		return nil
	})
	return n, err
}

// Match makes Next hand out only entries that have one of the values of each
// field that is named. It replaces earlier matches; without any, all entries
// pass again. Next goes on with the first entry.
func (s *Set) Match(matches ...FieldMatch) {
	s.walk.filter = nil
	if len(matches) > 0 {
		s.walk.filter = newQuery(context.Background(), s, SearchOptions{Matches: matches, Follow: true})
	}
	s.SeekHead()
}

// query is a search as it is carried out: a filter.
type query struct {
	ctx          context.Context
	s            *Set
	since, until uint64 // in microseconds, until excluded; 0: without bound
	clauses      [][]needle
	groups       []group
	follow       bool
	met          []bool // of clauses and groups, by the entry at hand
}

// group are the values of one field.
type group struct {
	values [][]byte // "FIELD=value"
}

// needle is a literal that is looked for in a value.
type needle struct {
	finder *match.Finder
	size   int
	word   bool
}

func newQuery(ctx context.Context, s *Set, o SearchOptions) *query {
	q := &query{ctx: ctx, s: s, follow: o.Follow}
	// Times have microseconds: both bounds are rounded up.
	q.since = uint64(max(o.Since, 0)+999) / 1000
	q.until = uint64(max(o.Until, 0)+999) / 1000
	for _, c := range o.Need.Clauses {
		var needles []needle
		for _, lit := range c {
			if len(lit.Text) == 0 {
				needles = nil // anything matches
				break
			}
			n := needle{size: len(lit.Text), word: lit.Word}
			// What stands before and after a value in the file is no part of it.
			lit.Word = false
			n.finder = match.NewFinder(lit)
			needles = append(needles, n)
		}
		if len(needles) > 0 {
			q.clauses = append(q.clauses, needles)
		}
	}
	byField := map[string]int{}
	for _, m := range o.Matches {
		i, ok := byField[m.Field]
		if !ok {
			i = len(q.groups)
			byField[m.Field] = i
			q.groups = append(q.groups, group{})
		}
		q.groups[i].values = append(q.groups[i].values, append(append([]byte(m.Field), '='), m.Value...))
	}
	q.met = make([]bool, len(q.clauses)+len(q.groups))
	return q
}

// occurs reports whether a literal is in a value, and is a word when it must be.
func (n *needle) occurs(value []byte) bool {
	for at := 0; ; at++ {
		if at = n.finder.Next(value, at); at < 0 {
			return false
		}
		if n.stands(value, at) {
			return true
		}
	}
}

// stands reports whether an occurrence counts.
func (n *needle) stands(value []byte, at int) bool {
	end := at + n.size
	return !n.word || (at == 0 || !wordByte(value[at-1])) && (end == len(value) || !wordByte(value[end]))
}

// prepare lists the entries that pass, except for the last one: its writer may
// not have entered it in all lists yet, or may have died before.
func (q *query) prepare(st *stream) {
	f := st.f
	n := f.entries.n
	if !q.follow {
		st.end = n
	}
	if f.entries.broken || n == 0 {
		return
	}
	if len(q.met) == 0 {
		q.bound(st)
		return
	}
	if n < 2 {
		return
	}
	list, err := q.collect(f, f.entries.item(n-2))
	if err != nil {
		// Lists cannot be relied upon, so each entry is looked at.
		if q.ctx.Err() == nil {
			q.s.problem(err)
		}
		return
	}
	st.list, st.next = list, n-1
}

// bound leaves out what is out of the bounds of time, in files that journald
// wrote: it begins a new file when the clock goes back, so they are in order.
// Others may have received their entries in any order.
func (q *query) bound(st *stream) {
	name := filepath.Base(st.f.path)
	if !strings.HasPrefix(name, "system") && !strings.HasPrefix(name, "user-") {
		return
	}
	c := &st.f.entries
	if q.since > 0 {
		st.next = c.bisect(func(h *head) bool { return h.realtime < q.since })
	}
	if q.until > 0 && !q.follow {
		// An entry that cannot be read ends the bisection early.
		if end := c.bisect(func(h *head) bool { return h.realtime < q.until }); end < c.n {
			if _, err := st.f.entry(c.item(end)); err == nil {
				st.end = end
			}
		}
	}
}

// pass says whether the head of a stream is looked for.
func (q *query) pass(st *stream, listed bool) bool {
	if st.head.realtime < q.since || q.until > 0 && st.head.realtime >= q.until {
		return false
	}
	if listed || len(q.met) == 0 {
		return true
	}
	clear(q.met)
	missing := len(q.met)
	e := Entry{f: st.f, set: q.s, offset: st.head.offset}
	e.each(func(value []byte) error {
		for i := range q.met {
			if !q.met[i] && q.meets(i, value) {
				q.met[i] = true
				missing--
			}
		}
		if missing == 0 {
			return errStop
		}
		return nil
	})
	return missing == 0
}

// meets reports whether a value has what clause or group i asks for.
func (q *query) meets(i int, value []byte) bool {
	if i < len(q.clauses) {
		for k := range q.clauses[i] {
			if q.clauses[i][k].occurs(value) {
				return true
			}
		}
		return false
	}
	for _, v := range q.groups[i-len(q.clauses)].values {
		if bytes.Equal(v, value) {
			return true
		}
	}
	return false
}
