package ui

import (
	"strings"

	"github.com/mattn/go-runewidth"
)

// columns measures text as terminals with a UTF-8 locale show it, whatever the
// locale of this process is, so that output does not depend on it.
func columns(s string) int {
	for i := 0; i < len(s); i++ {
		if s[i] < 0x20 || s[i] > 0x7e {
			return (&runewidth.Condition{}).StringWidth(s)
		}
	}
	return len(s)
}

// cut shortens text to a width, with an ellipsis for what is missing: the end,
// or the beginning for text that is told apart by its end, such as paths.
func cut(s string, width int, keepEnd bool) string {
	if columns(s) <= width {
		return s
	}
	if width < 1 {
		return ""
	}
	c := &runewidth.Condition{}
	if keepEnd {
		return c.TruncateLeft(s, c.StringWidth(s)-width+1, "…")
	}
	return c.Truncate(s, width, "…")
}

func spaces(n int) string { return strings.Repeat(" ", max(n, 0)) }
