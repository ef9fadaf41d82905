package ledger

import (
	"path"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// cleanPath brings a path of a scan into the one form in which paths are
// compared: relative to the target, without "./" and "..". "": the target itself,
// or nothing that can be compared.
func cleanPath(p string) string {
	if p == "" {
		return ""
	}
	return strings.TrimPrefix(path.Clean("/"+p), "/")
}

// printable escapes what cannot be typed or shown, as in a string of Go.
func printable(s string) string {
	if utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsGraphic(r) }) {
		return s
	}
	q := strconv.QuoteToGraphic(s)
	return strings.ReplaceAll(q[1:len(q)-1], `\"`, `"`)
}
