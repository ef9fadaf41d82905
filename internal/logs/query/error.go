package query

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/mobileops/mobileops/internal/failure"
)

// Error is what is wrong with an expression, and where.
type Error struct {
	Column  int    // 1-based, in characters; a byte that is not UTF-8 counts as one
	Message string // lower case, no trailing dot
	Hint    string // what to write instead, or empty
}

func (e *Error) Error() string {
	s := fmt.Sprintf("column %d: %s", e.Column, e.Message)
	if e.Hint != "" {
		s += " (" + e.Hint + ")"
	}
	return s
}

// Unwrap makes every Error one of kind failure.Usage.
func (e *Error) Unwrap() error { return failure.New(failure.Usage, e.Message) }

// pointerWidth is how many columns of an expression Pointer shows on each side
// of the place that it points at.
const pointerWidth = 60

// Pointer draws the line of the expression with a caret below the column of
// the error. Control characters, bidi marks and bytes that are not UTF-8 are
// escaped; of a long expression the surroundings of the column are shown.
func (e *Error) Pointer(expr string) string {
	var cells []string
	for i := 0; i < len(expr); {
		r, n := utf8.DecodeRuneInString(expr[i:])
		cells = append(cells, drawn(r, expr[i:i+n]))
		i += n
	}
	at := min(max(e.Column-1, 0), len(cells))
	first := at
	for left := 0; first > 0 && left < pointerWidth; first-- {
		left += width(cells[first-1])
	}
	last := at
	for right := 0; last < len(cells) && right < pointerWidth; last++ {
		right += width(cells[last])
	}
	var line, caret strings.Builder
	if first > 0 {
		line.WriteString("…")
		caret.WriteByte(' ')
	}
	for i, c := range cells[first:last] {
		line.WriteString(c)
		if first+i < at {
			caret.WriteString(strings.Repeat(" ", width(c)))
		}
	}
	if last < len(cells) {
		line.WriteString("…")
	}
	return line.String() + "\n" + caret.String() + "^"
}

// drawn is a character as it is safe to print.
func drawn(r rune, bytes string) string {
	switch {
	case r == utf8.RuneError && len(bytes) == 1:
		return fmt.Sprintf(`\x%02x`, bytes[0])
	case r == '\n':
		return `\n`
	case r == '\t':
		return `\t`
	case r == '\r':
		return `\r`
	case r < 0x80 && unicode.IsControl(r):
		return fmt.Sprintf(`\x%02x`, r)
	case !unicode.IsPrint(r) || unicode.Is(unicode.M, r):
		// A combining mark too: alone in its cell, nobody would see it.
		if r < 0x10000 {
			return fmt.Sprintf(`\u%04x`, r)
		}
		return fmt.Sprintf(`\U%08x`, r)
	}
	return bytes
}

// wide are the blocks whose characters take two columns in a terminal.
var wide = &unicode.RangeTable{
	R16: []unicode.Range16{
		{0x1100, 0x115f, 1}, {0x2e80, 0xa4cf, 1}, {0xac00, 0xd7a3, 1}, {0xf900, 0xfaff, 1}, {0xfe30, 0xfe6f, 1}, {0xff00, 0xff60, 1},
	},
	R32: []unicode.Range32{{0x1f300, 0x1faff, 1}, {0x20000, 0x3fffd, 1}},
}

// width is how many columns a drawn character takes.
func width(cell string) int {
	n := 0
	for _, r := range cell {
		n++
		if unicode.Is(wide, r) {
			n++
		}
	}
	return n
}
