package logs

import (
	"math"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/mobileops/mobileops/internal/logs/query"
	"github.com/mobileops/mobileops/internal/ui"
)

// widestBar and shortestBar are how many columns of a terminal the longest bar
// takes: as many as are left.
const (
	widestBar   = 40
	shortestBar = 10
)

// nothing stands for a value that is not there, so that programs that split
// lines at spaces find as many columns in each.
const nothing = "-"

// printTable prints the table of a pipeline. For people one that counts gets
// bars, and its numbers commas; programs get them to calculate with.
func printTable(s *ui.Streams, t *query.Table) error {
	counted, most := countColumn(t)
	var columns []ui.Column
	for _, c := range t.Columns {
		columns = append(columns, ui.Column{Title: strings.ToUpper(c.Name), Right: c.Kind == query.Number, Min: 8})
	}
	bars := counted >= 0 && most > 0 && s.OutTTY
	theme := s.Theme()
	rows := make([][]any, len(t.Rows))
	widths := make([]int, len(t.Columns))
	for r, row := range t.Rows {
		for i, v := range row {
			cell := ui.Cell{Text: v.Format(time.Local)}
			switch {
			case v.Kind() == query.Nil:
				cell = ui.Cell{Text: nothing, Style: theme.Faint}
			case i == counted && s.OutTTY && v.Number() == math.Trunc(v.Number()):
				cell.Text = ui.Count(int64(v.Number()))
			}
			rows[r] = append(rows[r], cell)
			widths[i] = max(widths[i], utf8.RuneCountInString(cell.Text), len(columns[i].Title))
		}
	}
	width := widestBar
	if bars {
		columns = append(columns, ui.Column{Title: "", Min: shortestBar, Drop: 1})
		if s.Width > 0 {
			left := s.Width
			for _, w := range widths {
				left -= w + 2
			}
			width = max(shortestBar, min(widestBar, left))
		}
	}
	table := s.NewTable(columns...)
	for r, cells := range rows {
		if bars {
			cells = append(cells, ui.Cell{Text: bar(t.Rows[r][counted].Number(), most, width), Style: theme.Good})
		}
		table.Row(cells...)
	}
	return table.Print()
}

// countColumn returns the column that says how many, and its greatest value;
// -1 if there is none, or more than one.
func countColumn(t *query.Table) (column int, most float64) {
	column = -1
	for i, c := range t.Columns {
		if strings.HasPrefix(c.Name, "count") && c.Kind == query.Number {
			if column >= 0 {
				return -1, 0
			}
			column = i
		}
	}
	if column < 0 || len(t.Columns) < 2 {
		return -1, 0
	}
	for _, row := range t.Rows {
		most = max(most, row[column].Number())
	}
	return column, most
}

// bar draws a value in eighths of a column; the greatest one is as wide as told.
func bar(v, most float64, width int) string {
	eighths := int(v / most * float64(width) * 8)
	if eighths == 0 && v > 0 {
		eighths = 1
	}
	s := strings.Repeat("█", eighths/8)
	if rest := eighths % 8; rest > 0 {
		s += string([]rune("▏▎▍▌▋▊▉")[rest-1])
	}
	return s
}
