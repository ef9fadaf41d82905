package match

import (
	"errors"
	"strings"
	"testing"
)

func TestErrorsSayWhere(t *testing.T) {
	for _, tc := range []struct {
		pattern string
		o       Options
		want    string
	}{
		{"a(b", Options{Regex: true}, "missing closing )"},
		{"é[z-a]", Options{Regex: true}, `column 3: invalid character class range`},
		{"ab**", Options{Regex: true}, "column 3: invalid nested repetition operator"},
		{`a\y`, Options{Regex: true}, `column 2: invalid escape sequence`},
		{`a(?=b)`, Options{Regex: true}, `column 2: invalid or unsupported Perl syntax`},
		{"a\\nb", Options{Regex: true}, "column 2: a newline in the pattern"},
		{"a\nb", Options{}, "column 2: a newline in the pattern"},
		{"x{2000}", Options{Regex: true}, "column 2: invalid repeat count"},
	} {
		_, err := Compile(tc.pattern, tc.o)
		var e *Error
		if !errors.As(err, &e) || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%q: %v, want %q", tc.pattern, err, tc.want)
		}
	}
}

func TestNeeds(t *testing.T) {
	show := func(n Need) string {
		var b strings.Builder
		for i, c := range n.Clauses {
			if i > 0 {
				b.WriteString(" and ")
			}
			for j, l := range c {
				if j > 0 {
					b.WriteString(" or ")
				}
				b.Write(l.Text)
				if l.Fold {
					b.WriteString("/i")
				}
				if l.Word {
					b.WriteString("/w")
				}
			}
		}
		if n.Exact {
			b.WriteString(" exactly")
		}
		return b.String()
	}
	for _, tc := range []struct {
		pattern string
		o       Options
		want    string
	}{
		{"Foo", Options{}, "Foo exactly"},
		{"Foo", Options{Fold: true}, "foo/i exactly"},
		{"10.0", Options{Fold: true, Word: true}, "10.0/w exactly"},
		{"Ä", Options{Fold: true}, "Ä or ä exactly"},
		{"foo|bar", Options{Regex: true}, "foo or bar exactly"},
		{"foo|bar", Options{Regex: true, Word: true}, "foo/w or bar/w exactly"},
		{`\bfoo\b`, Options{Regex: true}, "foo/w exactly"},
		{`\b-foo\b`, Options{Regex: true}, "-foo"},
		{`error.*code=\d+ (denied|refused)`, Options{Regex: true}, "error and code= and  denied or  refused"},
		{`(Failed|Accepted) password`, Options{Regex: true}, "Failed password or Accepted password exactly"},
		{`(invalid user )?root from`, Options{Regex: true}, "root from exactly"},
		{`x(foo)+y`, Options{Regex: true}, "foo"},
		{`^foo$`, Options{Regex: true}, "foo"},
		{`\d+`, Options{Regex: true}, ""},
		{`a*`, Options{Regex: true}, " exactly"},
		{`(?i)disk`, Options{Regex: true}, "disk/i or dis\u212a/i or di\u017fk/i or di\u017f\u212a/i exactly"},
		{`[Ee]rror`, Options{Regex: true}, "error/i"},
	} {
		p, err := Compile(tc.pattern, tc.o)
		if err != nil {
			t.Fatal(err)
		}
		if got := show(p.Need()); got != tc.want {
			t.Errorf("%q %+v needs %q, want %q", tc.pattern, tc.o, got, tc.want)
		}
	}
}
