package ui

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

func TestEscape(t *testing.T) {
	for in, want := range map[string]string{
		"":                    "",
		"/usr/bin/ls":         "/usr/bin/ls",
		"a b":                 "a b",
		"größe 文件 🚀":          "größe 文件 🚀",
		`back\slash`:          `back\\slash`,
		"new\nline\ttab\r":    `new\nline\ttab\r`,
		"\x1b[31mred\x7f\x00": `\x1b[31mred\x7f\x00`,
		"gpj\u202egpj.exe":    `gpj\u202egpj.exe`,
		"zero\u200bwidth":     `zero\u200bwidth`,
		"\ufeffbom":           `\ufeffbom`,
		"c1\u009b31m":         `c1\u009b31m`,
		"line\u2028sep":       `line\u2028sep`,
		"bad\xff\xfeutf8":     `bad\xff\xfeutf8`,
		"tag\U000e0041":       `tag\U000e0041`,
		"hangul\u3164filler":  `hangul\u3164filler`,
		"e\u0301":             "e\u0301",
	} {
		if got := Escape(in); got != want {
			t.Errorf("Escape(%q) = %s, want %s", in, got, want)
		}
		if got, err := unescape(Escape(in)); err != nil || string(got) != in {
			t.Errorf("%q comes back as %q (%v)", in, got, err)
		}
	}
	if got := Printable("C:\\x \x1b[2J\n"); got != `C:\x \x1b[2J\n` {
		t.Errorf("Printable: %s", got)
	}
}

func TestUnescapeRefuses(t *testing.T) {
	for _, s := range []string{`\`, `\q`, `\x1`, `\xgg`, `\u12`, `\ud800`, `\U00110000`} {
		if got, err := unescape(s); err == nil {
			t.Errorf("unescape(%s) = %q", s, got)
		}
	}
}

func FuzzEscape(f *testing.F) {
	for _, seed := range []string{"", "a", "\\x41", "\x1b[0m", "\u202e", "\xff\xc3", "\\", "\U000e0001", "\xed\xa0\x80"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		out := Escape(in)
		back, err := unescape(out)
		if err != nil || !bytes.Equal(back, in) {
			t.Fatalf("%q became %s and came back as %q (%v)", in, out, back, err)
		}
		if !utf8.ValidString(out) || strings.ContainsFunc(out, unicode.IsControl) || strings.ContainsFunc(out, func(r rune) bool { return unicode.Is(unicode.Cf, r) }) {
			t.Fatalf("%q became %q, which is not safe to print", in, out)
		}
	})
}

func FuzzUnescape(f *testing.F) {
	for _, seed := range []string{"", `\n`, `\x00`, `\u202e`, `\U0001f600`, `\`, `a\\b`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) { unescape(s) })
}

// unescape returns what Escape was given.
func unescape(s string) ([]byte, error) {
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
