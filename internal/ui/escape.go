package ui

import (
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Escape makes bytes that somebody else chose, such as a file name, safe to
// print: control characters, characters that change the direction of writing,
// characters without a width and bytes that are not UTF-8 become C-like
// escapes (\n \t \\ \x1b \u202e); everything else stays as it is. Two
// different inputs never look the same, and Unescape gives the bytes back.
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

// Unescape returns what Escape was given.
func Unescape(s string) ([]byte, error) {
	out := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' {
			out = append(out, s[i])
			continue
		}
		i++
		if i == len(s) {
			return nil, fmt.Errorf("offset %d: a backslash with nothing behind it", i-1)
		}
		digits := 0
		switch s[i] {
		case '\\':
			out = append(out, '\\')
		case 'n':
			out = append(out, '\n')
		case 't':
			out = append(out, '\t')
		case 'r':
			out = append(out, '\r')
		case 'x':
			digits = 2
		case 'u':
			digits = 4
		case 'U':
			digits = 8
		default:
			return nil, fmt.Errorf("offset %d: unknown escape \\%c", i-1, s[i])
		}
		if digits == 0 {
			continue
		}
		if i+digits >= len(s) {
			return nil, fmt.Errorf("offset %d: the escape is cut short", i-1)
		}
		n, err := strconv.ParseUint(s[i+1:i+1+digits], 16, 32)
		if err != nil {
			return nil, fmt.Errorf("offset %d: %w", i-1, err)
		}
		if digits == 2 {
			out = append(out, byte(n))
		} else if !utf8.ValidRune(rune(n)) {
			return nil, fmt.Errorf("offset %d: no such character", i-1)
		} else {
			out = utf8.AppendRune(out, rune(n))
		}
		i += digits
	}
	return out, nil
}
