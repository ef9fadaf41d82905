package ui

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Escape makes bytes that somebody else chose, such as a file name, safe to
// print: control characters, characters that change the direction of writing,
// characters without a width and bytes that are not UTF-8 become C-like
// escapes (\n \t \\ \x1b \u202e); everything else stays as it is. Two
// different inputs never look the same, and the bytes can be had back.
func Escape[T ~string | ~[]byte](s T) string { return escape(string(s), true) }

// Printable is Escape for a message that has been worded already: a backslash
// in it stays a backslash.
func Printable(s string) string { return escape(s, false) }

func escape(s string, backslash bool) string {
	i := 0
	for i < len(s) && s[i] >= 0x20 && s[i] < 0x7f && !(backslash && s[i] == '\\') {
		i++
	}
	if i == len(s) {
		return s
	}
	var b strings.Builder
	b.Grow(len(s) + 8)
	b.WriteString(s[:i])
	for i < len(s) {
		r, size := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case r == '\\' && backslash:
			b.WriteString(`\\`)
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\t':
			b.WriteString(`\t`)
		case r == '\r':
			b.WriteString(`\r`)
		case r < 0x80 && unicode.IsControl(r):
			fmt.Fprintf(&b, `\x%02x`, r)
		case !visible(r) && r < 0x10000:
			fmt.Fprintf(&b, `\u%04x`, r)
		case !visible(r):
			fmt.Fprintf(&b, `\U%08x`, r)
		default:
			b.WriteString(s[i : i+size])
		}
		i += size
	}
	return b.String()
}

// visible reports whether a character takes part in what a reader sees, in the
// order in which it stands.
func visible(r rune) bool {
	return r < 0x7f || unicode.IsGraphic(r) && !unicode.In(r,
		unicode.Zl, unicode.Zp, unicode.Bidi_Control, unicode.Variation_Selector,
		unicode.Other_Default_Ignorable_Code_Point)
}
