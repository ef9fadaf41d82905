package license

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/mobileops/mobileops/internal/failure"
)

func TestParse(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"MIT", "MIT"},
		{"mit", "MIT"},
		{"MIT OR GPL-2.0-only WITH Classpath-exception-2.0", "MIT OR GPL-2.0-only WITH Classpath-exception-2.0"},
		{"mit or gpl-2.0-only with classpath-EXCEPTION-2.0", "MIT OR GPL-2.0-only WITH Classpath-exception-2.0"},
		{"A AND B OR C AND D", "LicenseRef-A AND LicenseRef-B OR LicenseRef-C AND LicenseRef-D"},
		{"MIT AND (ISC OR (Zlib))", "MIT AND (ISC OR Zlib)"},
		{"((MIT))", "MIT"},
		{"MIT OR MIT", "MIT"},
		{"GPL-2.0+", "GPL-2.0-or-later"},
		{"GPL-2.0", "GPL-2.0-only"},
		{"Apache-1.1+", "Apache-1.1+"},
		{"LicenseRef-ours AND DocumentRef-x:LicenseRef-y", "LicenseRef-ours AND DocumentRef-x:LicenseRef-y"},
		{"(MIT OR ISC) AND (Zlib OR X11)", "(MIT OR ISC) AND (Zlib OR X11)"},
	} {
		e, err := Parse(c.in)
		if err != nil {
			t.Errorf("%q: %v", c.in, err)
			continue
		}
		if e.String() != c.want {
			t.Errorf("%q is %q, want %q", c.in, e, c.want)
		}
		if again, err := Parse(e.String()); err != nil || again.String() != e.String() {
			t.Errorf("%q again is %q, %v", e, again, err)
		}
	}
}

func TestParseErrors(t *testing.T) {
	for _, c := range []struct {
		in     string
		offset int
		text   string
	}{
		{"", 0, "missing"},
		{"MIT OR", 6, "missing"},
		{"OR MIT", 0, "missing"},
		{"(MIT", 4, "closing"},
		{"MIT)", 3, "not expected"},
		{"MIT ISC", 4, "not expected"},
		{"MIT WITH", 8, "exception"},
		{"MIT/ISC", 0, "no identifier"},
		{strings.Repeat("(", 100) + "MIT", 64, "more than 64"},
		{"MIT" + strings.Repeat(" OR MIT", maxLeaves), 3 + 7*maxLeaves - 3, "more than"},
		{strings.Repeat("x", maxExpression+1), maxExpression, "longer"},
	} {
		_, err := Parse(c.in)
		var e *ExpressionError
		if !errors.As(err, &e) || e.Offset != c.offset || !strings.Contains(e.Problem, c.text) || failure.KindOf(err) != failure.Usage {
			t.Errorf("%.40q: %v, want offset %d and %q", c.in, err, c.offset, c.text)
		}
	}
}

// What people write means what data/spelling-cases.txt says.
func TestSpellings(t *testing.T) {
	data, err := os.ReadFile("data/spelling-cases.txt")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for line := range dataLines(string(data)) {
		in, want, _ := strings.Cut(line, " = ")
		if got := ParseName(in).String(); got != strings.TrimSpace(want) {
			t.Errorf("%q is %q, want %q", in, got, want)
		}
		n++
	}
	if n < 50 {
		t.Errorf("only %d cases", n)
	}
}

// Each line of the book can be read, means something known, and no name has two meanings.
func TestBook(t *testing.T) {
	meanings := map[string]string{}
	for line := range dataLines(spellingData) {
		names, means, ok := strings.Cut(line, "=")
		means = strings.TrimSpace(means)
		if !ok {
			t.Errorf("no = in %q", line)
		}
		for name := range strings.SplitSeq(names, "|") {
			name = strings.TrimSpace(name)
			if strings.HasPrefix(name, "with ") {
				if exceptions()[strings.ToLower(means)] != means {
					t.Errorf("%q is no exception of SPDX", means)
				}
				continue
			}
			if k := key(name); meanings[k] != "" && meanings[k] != means {
				t.Errorf("%q means %q and %q", name, meanings[k], means)
			}
			meanings[key(name)] = means
		}
		if strings.HasPrefix(names, "with ") {
			continue
		}
		e, err := Parse(means)
		if err != nil {
			t.Errorf("%q: %v", means, err)
			continue
		}
		for _, l := range e.Licenses() {
			if !l.Known {
				t.Errorf("%q: %q is not known", means, l.ID)
			}
		}
	}
}

func TestCatalogue(t *testing.T) {
	for line := range dataLines(licenseData) {
		id, category, _ := strings.Cut(line, " ")
		ok := false
		for _, c := range Categories() {
			ok = ok || c == Category(category)
		}
		if !ok {
			t.Errorf("%s: %q is no category", id, category)
		}
	}
	for id, want := range map[string]Category{
		"MIT": CategoryNotice, "mit": CategoryNotice, "GPL-2.0-only": CategoryRestricted, "GPL-3.0-or-later": CategoryRestricted, "LGPL-2.1+": CategoryRestricted, "AGPL-3.0-only": CategoryForbidden,
		"MPL-2.0": CategoryReciprocal, "CC0-1.0": CategoryUnencumbered, "FSFULLR": CategoryPermissive, "Aspell-RU": CategoryUnknown, "nonsense": CategoryUnknown, "GFDL-1.3-no-invariants-or-later": CategoryRestricted,
		"CC-BY-NC-4.0": CategoryForbidden, "SSPL-1.0": CategoryForbidden, "LicenseRef-public-domain": CategoryUnencumbered, "Apache-2.0": CategoryNotice,
	} {
		if got := CategoryOf(id); got != want {
			t.Errorf("%s is %s, want %s", id, got, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"MIT", "MIT OR (GPL-2.0+ AND Zlib) WITH x", "(((", "a/b or later", "GPL (>= 2) and + with with", "\x00\xff", "GPL v2 or any later version, at your option"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if e, err := Parse(s); err == nil {
			again, err := Parse(e.String())
			if err != nil {
				t.Fatalf("%q is %q, which is not read: %v", s, e, err)
			}
			if again.String() != e.String() {
				t.Fatalf("%q is %q, and that is %q", s, e, again)
			}
		}
		e := ParseName(s)
		if e == nil {
			return
		}
		if _, err := Parse(e.String()); err != nil && len(s) < maxExpression/20 {
			t.Fatalf("name %q is %q, which is not read: %v", s, e, err)
		}
	})
}
