package ui

import (
	"bufio"
	"fmt"
)

// Column describes a column of a Table.
type Column struct {
	Title string
	Right bool // aligned to the right, as numbers are

	// Min makes the column one that may be shortened, to this many columns of
	// the terminal, when the table is wider than the terminal. 0: never.
	Min int
	// KeepEnd shortens at the beginning: a path is told apart by its end. Such
	// columns are shortened only after all others, for people copy from them.
	KeepEnd bool
	// Drop makes the column one that may be left out when shortening is not
	// enough; the greatest goes first. 0: never. When it is empty in every row it
	// goes before anything is shortened.
	Drop int
}

// Cell is a text in a table and how it is styled.
type Cell struct {
	Text  string
	Style func(string) string // such as Theme.Faint; nil: plain
}

// Table prints rows in aligned columns. On a terminal it adapts to the width;
// elsewhere nothing is shortened or left out, and no tab is printed. Cells are
// given as they are: the table escapes them (see Escape).
type Table struct {
	s       *Streams
	columns []Column
	rows    [][]Cell
}

// gap is what stands between two columns.
const gap = 2

// widestPadded is up to which width a column is aligned outside of a terminal.
// Without it, one name of thousands of bytes would fill every row with spaces.
const widestPadded = 120

// NewTable returns an empty table that prints to Out.
func (s *Streams) NewTable(columns ...Column) *Table { return &Table{s: s, columns: columns} }

// Row adds a row. Each cell is a string, a Cell, or something that fmt prints.
func (t *Table) Row(cells ...any) {
	row := make([]Cell, len(t.columns))
	for i := range min(len(cells), len(row)) {
		switch c := cells[i].(type) {
		case Cell:
			row[i] = Cell{Escape(c.Text), c.Style}
		case string:
			row[i] = Cell{Text: Escape(c)}
		default:
			row[i] = Cell{Text: Escape(fmt.Sprint(c))}
		}
	}
	t.rows = append(t.rows, row)
}

// Len returns how many rows there are.
func (t *Table) Len() int { return len(t.rows) }

// Print prints the titles and the rows; nothing at all when there are no rows.
func (t *Table) Print() error {
	if len(t.rows) == 0 {
		return nil
	}
	widths := t.layout()
	theme := t.s.Theme()
	titles := make([]Cell, len(t.columns))
	for i, c := range t.columns {
		titles[i] = Cell{c.Title, theme.Heading}
	}
	w := bufio.NewWriterSize(t.s.Out, 64<<10)
	t.line(w, titles, widths)
	for _, row := range t.rows {
		t.line(w, row, widths)
	}
	return w.Flush()
}

// line prints a row. Nothing is padded at its end.
func (t *Table) line(w *bufio.Writer, row []Cell, widths []int) {
	pad, first := 0, true
	for i, cell := range row {
		if widths[i] < 0 {
			continue
		}
		text := cell.Text
		if t.fits() {
			text = cut(text, widths[i], t.columns[i].KeepEnd)
		}
		missing := max(0, widths[i]-columns(text))
		if !first {
			pad += gap
		}
		first = false
		if t.columns[i].Right {
			pad += missing
		}
		if text != "" {
			w.WriteString(spaces(pad))
			pad = 0
			if cell.Style != nil {
				text = cell.Style(text)
			}
			w.WriteString(text)
		} else if t.columns[i].Right {
			continue
		}
		if !t.columns[i].Right {
			pad += missing
		}
	}
	w.WriteByte('\n')
}

// fits reports whether the table is made to fit a terminal.
func (t *Table) fits() bool { return t.s.OutTTY && t.s.Width > 0 }

// layout returns the width of each column, -1 for one that is left out.
func (t *Table) layout() []int {
	widths := make([]int, len(t.columns))
	for i, c := range t.columns {
		widths[i] = columns(c.Title)
		for _, row := range t.rows {
			widths[i] = max(widths[i], columns(row[i].Text))
		}
	}
	if !t.fits() {
		for i := range widths {
			widths[i] = min(widths[i], widestPadded)
		}
		return widths
	}
	least := func(i int) int {
		if m := t.columns[i].Min; m > 0 {
			return min(m, widths[i])
		}
		return widths[i]
	}
	// A column without a word in it goes before anything is shortened.
	for i, c := range t.columns {
		if c.Drop > 0 && t.blank(i) && total(widths, func(i int) int { return widths[i] }) > t.s.Width {
			widths[i] = -1
		}
	}
	for total(widths, least) > t.s.Width {
		victim := -1
		for i, c := range t.columns {
			if widths[i] >= 0 && c.Drop > 0 && (victim < 0 || c.Drop > t.columns[victim].Drop) {
				victim = i
			}
		}
		if victim < 0 {
			break
		}
		widths[victim] = -1
	}
	for total(widths, func(i int) int { return widths[i] }) > t.s.Width {
		widest := -1
		for i, c := range t.columns {
			if widths[i] <= least(i) {
				continue
			}
			later := widest >= 0 && c.KeepEnd != t.columns[widest].KeepEnd
			if widest < 0 || later && !c.KeepEnd || !later && widths[i] > widths[widest] {
				widest = i
			}
		}
		if widest < 0 {
			break
		}
		widths[widest]--
	}
	return widths
}

// blank reports whether no row has anything in a column.
func (t *Table) blank(column int) bool {
	for _, row := range t.rows {
		if row[column].Text != "" {
			return false
		}
	}
	return true
}

// total adds up the columns that are shown and the gaps between them.
func total(widths []int, of func(int) int) int {
	sum := -gap
	for i, w := range widths {
		if w >= 0 {
			sum += of(i) + gap
		}
	}
	return sum
}
