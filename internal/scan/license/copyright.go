package license

import (
	"bytes"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Limits of what is read of one file.
const (
	maxCopyrightText  = 1 << 20 // bytes that are looked at
	maxCopyrightLines = 200
	maxCopyrightLine  = 300 // bytes
)

// Copyrights returns the lines of a text that say whose it is, without the signs of
// comments around them, each once, in their order: "Copyright (c) 2019 A. Author".
// Left out are lines that only have a place for a name ("Copyright [yyyy]"), that
// speak about copyright, and those of a licence's own text, which belongs to
// somebody else than what is under it. At most 200 lines of 300 bytes are returned.
func Copyrights(content []byte) []string {
	content = content[:min(len(content), maxCopyrightText)]
	var out []string
	before := false // the line before was a statement
	for len(content) > 0 && len(out) < maxCopyrightLines {
		var line []byte
		line, content, _ = bytes.Cut(content, []byte("\n"))
		after := before
		before = false
		if len(line) > 4*maxCopyrightLine {
			continue
		}
		if !mayBeCopyright(line) {
			// "Copyright (C) 1995 A. Author," and below it "2000, 2001 B. Author"
			if s := bare(line); after && len(s) > 8 && len(s) <= maxCopyrightLine && hasYear(s[:5]) && isYearList(s) && !slices.Contains(out, s) {
				out = append(out, s)
				before = true
			}
			continue
		}
		s := statement(UTF8(line))
		if s == "" || slices.Contains(out, s) || verbatimOnly(content) {
			continue
		}
		out = append(out, s)
		before = true
	}
	return out
}

// isYearList reports whether a line begins with a year that a list, a span or a name
// follows: "2000, 2001 B. Author" and not "2000.txt".
func isYearList(s string) bool { return strings.ContainsRune(", -–", rune(s[4])) || s[4] == 0xe2 }

// bare returns a line without the signs of comments around it.
func bare(line []byte) string {
	s := strings.TrimLeft(UTF8(line), " \t\r\v\f/*#;%!<>-=|\"'+~_`.:@")
	s = strings.TrimRight(strings.TrimSuffix(strings.TrimRight(s, " \t\r\v\f"), "-->"), " \t\r\v\f/*#;%!-=|\"'+~_`:@")
	return strings.Join(strings.Fields(s), " ")
}

// mayBeCopyright is a quick look at a line.
func mayBeCopyright(line []byte) bool {
	for i, c := range line {
		switch c {
		case 'c', 'C':
			if len(line)-i >= 9 && bytes.EqualFold(line[i:i+9], []byte("copyright")) || i > 0 && line[i-1] == '(' && i+1 < len(line) && line[i+1] == ')' {
				return true
			}
		case 0xa9: // the sign in Latin-1, and the last byte of it in UTF-8
			return true
		}
	}
	return false
}

// statement returns what a line says of whose the file is, "" when it doesn't.
func statement(line string) string {
	line = bare([]byte(line))
	lower := strings.ToLower(line)
	for _, word := range []string{"dnl ", "rem ", "copyright: ", "spdx-filecopyrighttext: ", "*/"} {
		if strings.HasPrefix(lower, word) && (word != "copyright: " || startsStatement(lower[len(word):])) {
			line = strings.TrimSpace(line[len(word):])
			lower = strings.ToLower(line)
		}
	}
	if !startsStatement(lower) {
		return ""
	}
	if strings.HasPrefix(lower, "copyright") && !hasYear(lower) && !hasSign(lower) {
		return ""
	}
	for _, place := range []string{"[yyyy]", "{yyyy}", "<year>", "[year]", "(year)", "{{", "yyyy ", "<name", "[name", "[fullname]", "<copyright", "<owner>", "%year%"} {
		if strings.Contains(lower, place) {
			return ""
		}
	}
	line = strings.Join(strings.Fields(line), " ")
	if len(line) > maxCopyrightLine {
		line = strings.ToValidUTF8(line[:maxCopyrightLine], "") + "…"
	}
	if strings.IndexFunc(line, func(r rune) bool { return unicode.IsControl(r) || r == utf8.RuneError }) >= 0 {
		return ""
	}
	return line
}

// startsStatement reports whether a line begins as a statement does. "(c)" alone
// is also a point of a list, so that a year must follow it.
func startsStatement(lower string) bool {
	for _, p := range []string{"portions ", "parts ", "some parts ", "original ", "modifications ", "all ", "this file is ", "contributions ", "the code is "} {
		lower = strings.TrimPrefix(lower, p)
	}
	if rest, ok := strings.CutPrefix(lower, "copyright"); ok {
		if rest == "" || isLower(rest[0]) {
			return rest == ""
		}
		word, _, _ := strings.Cut(strings.TrimSpace(rest), " ")
		switch strings.Trim(word, ".,;:()") {
		case "and", "assignment", "disclaimer", "header", "holder", "holders", "in", "information", "interest", "is", "law", "laws", "licence", "license", "line", "lines",
			"notice", "notices", "of", "on", "or", "owner", "owners", "protection", "statement", "statements", "terms", "to", "treaty":
			return false
		}
		return true
	}
	if rest, ok := strings.CutPrefix(lower, "(c)"); ok {
		rest = strings.TrimSpace(rest)
		return strings.HasPrefix(rest, "copyright") || len(rest) >= 4 && hasYear(rest[:min(len(rest), 12)])
	}
	return strings.HasPrefix(lower, "©")
}

func isLower(c byte) bool { return 'a' <= c && c <= 'z' }

func hasSign(s string) bool { return strings.Contains(s, "(c)") || strings.Contains(s, "©") }

// hasYear reports whether a year of our time stands in s.
func hasYear(s string) bool {
	digits := 0
	for i := 0; i <= len(s); i++ {
		if i < len(s) && '0' <= s[i] && s[i] <= '9' {
			digits++
			continue
		}
		if y := s[i-digits : i]; digits == 4 && (strings.HasPrefix(y, "19") || strings.HasPrefix(y, "20")) {
			return true
		}
		digits = 0
	}
	return false
}

// verbatimOnly reports whether the next lines allow verbatim copies of the document
// only: then the line before is about the licence's own text, as in GNU's licences.
func verbatimOnly(rest []byte) bool {
	rest = rest[:min(len(rest), 400)]
	for range 4 {
		var line []byte
		line, rest, _ = bytes.Cut(rest, []byte("\n"))
		if bytes.Contains(line, []byte("verbatim cop")) {
			return true
		}
	}
	return false
}

// UTF8 returns a text in UTF-8. One that isn't is taken for ISO 8859-1, in which
// the older copyright files are.
func UTF8(b []byte) string {
	if utf8.Valid(b) {
		return string(b)
	}
	var s strings.Builder
	for _, c := range b {
		s.WriteRune(rune(c))
	}
	return s.String()
}
