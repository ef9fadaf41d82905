package ui

import "bufio"

// Feed prints rows of a table as they come, so its columns cannot follow what
// is in them: each has a width of its own. On a terminal, columns with a Min
// share what the others leave; elsewhere nothing is shortened.
type Feed struct {
	t      *Table
	widths []int
	begun  bool
}

// NewFeed returns a table that prints each row at once. widths are those of the
// columns where nothing is known of the terminal; too long texts push the rest
// of their row to the right there.
func (s *Streams) NewFeed(widths []int, columns ...Column) *Feed {
	return &Feed{t: s.NewTable(columns...), widths: widths}
}

// Row prints a row, and the titles above the first one. Cells are as those of a
// Table.
func (f *Feed) Row(cells ...any) error {
	f.t.rows = f.t.rows[:0]
	f.t.Row(cells...)
	w := bufio.NewWriter(f.t.s.Out)
	widths := f.layout()
	if !f.begun {
		f.begun = true
		theme := f.t.s.Theme()
		titles := make([]Cell, len(f.t.columns))
		for i, c := range f.t.columns {
			titles[i] = Cell{c.Title, theme.Heading}
		}
		f.t.line(w, titles, widths)
	}
	f.t.line(w, f.t.rows[0], widths)
	return w.Flush()
}

// layout returns the widths for the terminal as it is, -1 for columns that are
// left out.
func (f *Feed) layout() []int {
	widths := append([]int(nil), f.widths...)
	if !f.t.fits() {
		return widths
	}
	least := func(i int) int {
		if m := f.t.columns[i].Min; m > 0 {
			return m
		}
		return f.widths[i]
	}
	for total(widths, least) > f.t.s.Width {
		victim := -1
		for i, c := range f.t.columns {
			if widths[i] >= 0 && c.Drop > 0 && (victim < 0 || c.Drop > f.t.columns[victim].Drop) {
				victim = i
			}
		}
		if victim < 0 {
			break
		}
		widths[victim] = -1
	}
	var flexible []int
	for i, c := range f.t.columns {
		if widths[i] >= 0 && c.Min > 0 {
			flexible = append(flexible, i)
			widths[i] = c.Min
		}
	}
	spare := f.t.s.Width - total(widths, func(i int) int { return widths[i] })
	for n := 0; spare > 0 && len(flexible) > 0; n++ {
		widths[flexible[n%len(flexible)]]++
		spare--
	}
	return widths
}
