package logs

import (
	"strings"
	"time"

	"github.com/mobileops/mobileops/internal/logs/query"
	"github.com/mobileops/mobileops/internal/ui"
)

// barWidth is how many columns of a terminal the longest bar takes.
const barWidth = 40

// printTable prints the table of a pipeline. One that counts gets bars.
func printTable(s *ui.Streams, t *query.Table) error {
	counted, most := countColumn(t)
	var columns []ui.Column
	for _, c := range t.Columns {
		columns = append(columns, ui.Column{Title: strings.ToUpper(c.Name), Right: c.Kind == query.Number, Min: 8})
	}
	bars := counted >= 0 && most > 0 && s.OutTTY
	if bars {
		columns = append(columns, ui.Column{Title: "", Min: 4, Drop: 1})
	}
	table := s.NewTable(columns...)
	theme := s.Theme()
	for _, row := range t.Rows {
		var cells []any
		for i, v := range row {
			text := v.Format(time.Local)
			if i == counted {
				text = ui.Count(int64(v.Number()))
			}
			cells = append(cells, text)
		}
		if bars {
			cells = append(cells, ui.Cell{Text: bar(row[counted].Number(), most), Style: theme.Good})
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

// bar draws a value in eighths of a column.
func bar(v, most float64) string {
	eighths := int(v / most * barWidth * 8)
	if eighths == 0 && v > 0 {
		eighths = 1
	}
	s := strings.Repeat("█", eighths/8)
	if rest := eighths % 8; rest > 0 {
		s += string([]rune("▏▎▍▌▋▊▉")[rest-1])
	}
	return s
}
