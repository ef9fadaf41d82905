package merge

import "slices"

// side says whose lines a hunk takes.
type side int

const (
	both       side = iota // the sides differ, until their lines turn out to be equal
	justMine               // mine alone changed
	justTheirs             // theirs alone changed
)

// hunk is a place where at least one side changed base.
type hunk struct {
	base, mine, theirs span
	side               side
}

// combine lays the edits of both sides over each other. The same edit on both
// sides makes no hunk. Edits that touch belong to one hunk: one line in common
// has to be between them.
func combine(t *text, mine, theirs []edit) []hunk {
	var hunks []hunk
	add := func(h hunk) {
		if n := len(hunks); n > 0 && (h.mine.from <= hunks[n-1].mine.to || h.theirs.from <= hunks[n-1].theirs.to) {
			last := &hunks[n-1]
			if last.side != h.side {
				last.side = both
			}
			last.base.to, last.mine.to, last.theirs.to = h.base.to, h.mine.to, h.theirs.to
			return
		}
		hunks = append(hunks, h)
	}
	// How far the lines of a side are from those of base, after its last edit.
	var mineShift, theirShift int
	for len(mine) > 0 || len(theirs) > 0 {
		switch {
		case len(theirs) == 0 || len(mine) > 0 && mine[0].old.to < theirs[0].old.from:
			e := mine[0]
			add(hunk{e.old, e.new, e.old.shift(theirShift), justMine})
			mineShift, mine = e.new.to-e.old.to, mine[1:]
			continue
		case len(mine) == 0 || theirs[0].old.to < mine[0].old.from:
			e := theirs[0]
			add(hunk{e.old, e.old.shift(mineShift), e.new, justTheirs})
			theirShift, theirs = e.new.to-e.old.to, theirs[1:]
			continue
		}
		m, o := mine[0], theirs[0]
		if m.old != o.old || !slices.Equal(t.mine.ids[m.new.from:m.new.to], t.theirs.ids[o.new.from:o.new.to]) {
			// The hunk spans both edits; on either side the lines of base
			// that only the other edit touches come along.
			h := hunk{base: span{min(m.old.from, o.old.from), max(m.old.to, o.old.to)}}
			h.mine = span{m.new.from - (m.old.from - h.base.from), m.new.to + (h.base.to - m.old.to)}
			h.theirs = span{o.new.from - (o.old.from - h.base.from), o.new.to + (h.base.to - o.old.to)}
			add(h)
		}
		// The one that goes on further may meet another edit still.
		if m.old.to <= o.old.to {
			mineShift, mine = m.new.to-m.old.to, mine[1:]
		}
		if o.old.to <= m.old.to {
			theirShift, theirs = o.new.to-o.old.to, theirs[1:]
		}
	}
	return hunks
}

func (s span) shift(n int) span { return span{s.from + n, s.to + n} }

// conflicts returns the hunks that cannot be decided, without the lines at
// both ends that the sides have in common.
func conflicts(t *text, hunks []hunk) []Conflict {
	var list []Conflict
	for _, h := range hunks {
		if h.side != both {
			continue
		}
		m, o := t.mine.ids[h.mine.from:h.mine.to], t.theirs.ids[h.theirs.from:h.theirs.to]
		if slices.Equal(m, o) {
			continue
		}
		for len(m) > 0 && len(o) > 0 && m[0] == o[0] {
			m, o = m[1:], o[1:]
			h.mine.from++
			h.theirs.from++
		}
		for len(m) > 0 && len(o) > 0 && m[len(m)-1] == o[len(o)-1] {
			m, o = m[:len(m)-1], o[:len(o)-1]
		}
		list = append(list, Conflict{
			Base:   Lines{h.base.from + 1, h.base.len()},
			Mine:   Lines{h.mine.from + 1, len(m)},
			Theirs: Lines{h.theirs.from + 1, len(o)},
		})
	}
	return list
}

// render writes mine with the changes that are theirs alone.
func render(t *text, hunks []hunk) []byte {
	var out []byte
	write := func(l lines, s span) {
		for _, line := range l.raw[s.from:s.to] {
			out = append(out, line...)
		}
	}
	at := 0
	for _, h := range hunks {
		if h.side != justTheirs {
			continue
		}
		write(t.mine, span{at, h.mine.from})
		write(t.theirs, h.theirs)
		at = h.mine.to
	}
	write(t.mine, span{at, len(t.mine.ids)})
	return out
}
