package match

import "testing"

func TestLines(t *testing.T) {
	for _, tc := range []struct {
		pattern string
		o       Options
		text    string
		lines   int
	}{
		{"foo", Options{}, "a foo\nfo\nfoo", 2},
		{"FOO", Options{Fold: true}, "a foo\nfo\nFoo\n", 2},
		{"foo", Options{Word: true}, "a foo\nfoobar\n_foo\n(foo)\n", 2},
		{"a.c", Options{}, "abc\na.c\n", 1},
		{"a.c", Options{Regex: true}, "abc\na.c\na\nc\n", 2},
		{"^b", Options{Regex: true}, "abc\nbc\nb", 2},
		{"c$", Options{Regex: true}, "abc\nbc\nb", 2},
		{"", Options{}, "a\n\nb", 3},
	} {
		p, err := Compile(tc.pattern, tc.o)
		if err != nil {
			t.Fatal(err)
		}
		if n := p.NewMatcher().CountLines([]byte(tc.text)); n != tc.lines {
			t.Errorf("%q %+v: %d lines of %q match, want %d", tc.pattern, tc.o, n, tc.text, tc.lines)
		}
	}
}
