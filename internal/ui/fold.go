package ui

import "strings"

// Fold folds paragraphs to a width in columns and puts indent before each
// line. An empty line ends a paragraph; a line that begins with a space is
// kept as it is. The result ends with a newline.
func Fold(text string, width int, indent string) string {
	var b strings.Builder
	column, room := 0, max(width-columns(indent), 8)
	endLine := func() {
		if column > 0 {
			b.WriteByte('\n')
			column = 0
		}
	}
	for line := range strings.SplitSeq(strings.TrimRight(text, "\n"), "\n") {
		if line == "" || line[0] == ' ' {
			endLine()
			if line != "" {
				b.WriteString(indent + line)
			}
			b.WriteByte('\n')
			continue
		}
		for word := range strings.FieldsSeq(line) {
			w := columns(word)
			switch {
			case column == 0:
				b.WriteString(indent + word)
				column = w
				continue
			case column+1+w > room:
				b.WriteString("\n" + indent + word)
				column = w
				continue
			}
			b.WriteString(" " + word)
			column += 1 + w
		}
	}
	endLine()
	return b.String()
}
