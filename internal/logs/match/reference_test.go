package match

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// reference is what package regexp makes of a pattern, line by line.
func reference(t testing.TB, pattern string, o Options) *regexp.Regexp {
	t.Helper()
	if !o.Regex {
		pattern = regexp.QuoteMeta(pattern)
	}
	text := pattern
	if strings.LastIndex(text, `\Q`) > strings.LastIndex(text, `\E`) {
		text += `\E` // else it would quote what follows
	}
	if o.Fold {
		text = `(?i:` + text + `)`
	}
	if o.Word {
		text = `(?:^|\W)(?:` + text + `)(?:\W|$)`
	}
	return regexp.MustCompile(text)
}

func lines(text []byte) [][]byte {
	return bytes.Split(bytes.TrimSuffix(text, []byte("\n")), []byte("\n"))
}

// check compares a pattern with package regexp over one text.
func check(t testing.TB, p *Pattern, m *Matcher, ref *regexp.Regexp, text []byte) error {
	t.Helper()
	var want []string
	matched := false
	if len(text) > 0 {
		at := 0
		for _, l := range lines(text) {
			if ref.Match(l) {
				want = append(want, fmt.Sprintf("%d-%d", at, at+len(l)))
			}
			at += len(l) + 1
		}
		matched = want != nil
	} else {
		matched = ref.Match(nil)
	}
	var got []string
	for from := 0; ; {
		start, end := m.NextLine(text, from)
		if start < 0 {
			break
		}
		got = append(got, fmt.Sprintf("%d-%d", start, end))
		from = end + 1
		if !needFulfilled(p.Need(), text[start:end]) {
			return fmt.Errorf("line %q matches without what it needs: %v", text[start:end], p.Need())
		}
	}
	if !slices.Equal(got, want) {
		return fmt.Errorf("lines %v, want %v", got, want)
	}
	if n := m.CountLines(text); n != len(want) {
		return fmt.Errorf("%d lines, want %d", n, len(want))
	}
	if m.Match(text) != matched {
		return fmt.Errorf("match is %v", !matched)
	}
	for _, l := range lines(text) {
		if p.Need().Exact && needFulfilled(p.Need(), l) && !ref.Match(l) {
			return fmt.Errorf("line %q has what is exactly needed and does not match: %v", l, p.Need())
		}
	}
	return nil
}

// needFulfilled is the definition of Need, in the plainest code.
func needFulfilled(n Need, text []byte) bool {
	has := func(l Literal) bool {
		s := text
		if l.Fold {
			s = lowerASCII(s)
		}
		for i := 0; i+len(l.Text) <= len(s); i++ {
			if bytes.HasPrefix(s[i:], l.Text) {
				end := i + len(l.Text)
				if !l.Word || (i == 0 || !wordByte(s[i-1])) && (end == len(s) || !wordByte(s[end])) {
					return true
				}
			}
		}
		return false
	}
	for _, c := range n.Clauses {
		if !slices.ContainsFunc(c, has) {
			return false
		}
	}
	return true
}

// pieces are what random texts are made of; random patterns are made to meet
// them often.
var pieces = []string{
	"a", "b", "ab", "aB", "B", "_", "0", "12", " ", "  ", ".", "-", "foo", "Foo", "FOO", "bar", "foobar", "foo_bar",
	"é", "É", "ß", "k", "K", "s", "ſ", "\u212a", "日本", "日", "語", "😀", "\u0800", "\ud7ff", "\ue000", "\U00010000", "\U0010ffff",
	"\xff", "\xe6\x97", "\xc3", "\x80", "\xf0\x9f\x98", "\xed\xa0\x80", "\ufffd", "\r", "\t", "\x00", "x=1", "10.0.0.1",
	"the quick brown fox jumps over the lazy dog 0123456789",
}

func randomText(r *rand.Rand, pieces []string) []byte {
	var b []byte
	for range r.IntN(40) {
		if r.IntN(4) == 0 {
			b = append(b, '\n')
		}
		b = append(b, pieces[r.IntN(len(pieces))]...)
	}
	return b
}

var atoms = []string{
	"a", "b", "B", "foo", "bar", "ab", "0", "_", " ", ".", `\.`, "[ab]", "[^a]", "[a-z]", "[^0-9]", `\d`, `\w`, `\W`, `\s`, `\S`, `\D`,
	"é", "[é-ü]", "日", "[日語]", `\p{L}`, `\pN`, `\P{L}`, `\x{fffd}`, `[^\x{fffd}]`, "k", "s", "K", "[^k]", "(?i:k)", "(?i:foo)", "(?i:ß)", "(?s:.)",
	"^", "$", `\A`, `\z`, `\b`, `\B`, "", "(?:)", "foo|bar", "a|", "[[:upper:]]", `[^\n]`, `[\s]`, `[^\s]`, `\x00`, `[\x80-\x{7ff}]`, `\b`, `😀`, `[a-\x{10ffff}]`, `12`, "x=",
}

func randomPattern(r *rand.Rand, depth int) string {
	if depth == 0 || r.IntN(6) == 0 {
		return atoms[r.IntN(len(atoms))]
	}
	sub := func() string { return randomPattern(r, depth-1) }
	switch r.IntN(9) {
	case 0, 1, 2:
		return sub() + sub()
	case 3:
		return "(?:" + sub() + "|" + sub() + ")"
	case 4:
		return "(" + sub() + ")" + []string{"*", "+", "?", "*?", "+?", "??"}[r.IntN(6)]
	case 5:
		return "(?:" + sub() + ")" + []string{"{2}", "{1,3}", "{0,2}", "{2,}"}[r.IntN(4)]
	case 6:
		return "(?i:" + sub() + ")"
	case 7:
		return sub() + sub() + sub()
	}
	return "(?:" + sub() + ")"
}

func TestRandomExpressionsAgainstRegexp(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	n := 1000
	if testing.Short() {
		n = 300
	}
	for range n {
		pattern := randomPattern(r, 3)
		o := Options{Regex: true, Fold: r.IntN(4) == 0, Word: r.IntN(5) == 0}
		p, err := Compile(pattern, o)
		if err != nil {
			if _, re := regexp.Compile(pattern); re == nil {
				t.Fatalf("%q: %v", pattern, err)
			}
			continue
		}
		m := p.NewMatcher()
		ref := reference(t, pattern, o)
		for range 10 {
			text := randomText(r, pieces)
			if err := check(t, p, m, ref, text); err != nil {
				t.Fatalf("%q %+v over %q: %v", pattern, o, text, err)
			}
		}
	}
}

func TestRandomLiterals(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	few := []string{"a", "b", "A", "_", "-", "ab", "1"}
	for range 3000 {
		from := pieces
		if r.IntN(2) == 0 {
			from = few
		}
		var pattern string
		for range 1 + r.IntN(3) {
			pattern += from[r.IntN(len(from))]
		}
		if !utf8Valid(pattern) {
			continue // package regexp refuses it
		}
		o := Options{Fold: r.IntN(2) == 0, Word: r.IntN(2) == 0}
		ref := reference(t, pattern, o)
		if o.Fold && isASCII(pattern) {
			ref = foldASCII(pattern, o.Word)
		}
		p, err := Compile(pattern, o)
		if err != nil {
			t.Fatal(err)
		}
		m := p.NewMatcher()
		for range 10 {
			text := randomText(r, from)
			if strings.Contains(pattern, "\ufffd") && !utf8Valid(string(text)) {
				continue // text is bytes, but regexp takes what is no UTF-8 for U+FFFD
			}
			if err := check(t, p, m, ref, text); err != nil {
				t.Fatalf("%q %+v over %q: %v", pattern, o, text, err)
			}
		}
	}
}

// foldASCII is a literal of ASCII in either case, without the Kelvin sign and
// the long s.
func foldASCII(literal string, word bool) *regexp.Regexp {
	var b strings.Builder
	for _, c := range literal {
		if l := c | 0x20; 'a' <= l && l <= 'z' {
			fmt.Fprintf(&b, "[%c%c]", l, l&^0x20)
		} else {
			b.WriteString(regexp.QuoteMeta(string(c)))
		}
	}
	text := b.String()
	if word {
		text = `(?:^|\W)(?:` + text + `)(?:\W|$)`
	}
	return regexp.MustCompile(text)
}

func utf8Valid(s string) bool { return strings.ToValidUTF8(s, "") == s }

func TestFindAgainstRegexp(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	for range 700 {
		pattern := randomPattern(r, 3)
		o := Options{Regex: true, Fold: r.IntN(4) == 0}
		p, err := Compile(pattern, o)
		if err != nil {
			continue
		}
		m := p.NewMatcher()
		ref := reference(t, pattern, o)
		for range 5 {
			// One line: regexp has no way to begin in the middle, but finds all
			// that does not overlap.
			text := bytes.ReplaceAll(randomText(r, pieces), []byte("\n"), nil)
			at := 0
			for _, loc := range ref.FindAllIndex(text, -1) {
				start, end := m.Find(text, at)
				// Right behind a match regexp does not take an empty one.
				if start == at && end == at && at > 0 && start != loc[0] {
					break
				}
				if start != loc[0] || end != loc[1] {
					t.Fatalf("%q %+v over %q from %d: found %d-%d, want %v", pattern, o, text, at, start, end, loc)
				}
				if at = end; start == end {
					break
				}
			}
		}
	}
}

// An automaton that has no room for its states is given up, and the answer
// stays right.
func TestAutomatonWithoutRoom(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	for _, pattern := range []string{`(a|b)*a(a|b){12}x`, `[ab].{9}[日語]`, `\w{3,20}\b.{5}\d$`} {
		p, err := Compile(pattern, Options{Regex: true})
		if err != nil {
			t.Fatal(err)
		}
		ref := reference(t, pattern, Options{Regex: true})
		m := p.NewMatcher()
		m.dfa = newDFA(p.prog)
		m.dfa.most = 12 * p.prog.classes
		var text []byte
		for len(text) < 200_000 {
			text = append(text, randomText(r, []string{"a", "b", "ab", "日", "x", "12", "\xe6", " "})...)
		}
		if err := check(t, p, m, ref, text); err != nil {
			t.Errorf("%q: %v", pattern, err)
		}
		if !m.dfa.gaveUp {
			t.Errorf("%q: the automaton was never short of room: this tests nothing", pattern)
		}
		// With a little more room it forgets states now and then and goes on.
		m = p.NewMatcher()
		m.dfa = newDFA(p.prog)
		m.dfa.most = 3000 * p.prog.classes
		if err := check(t, p, m, ref, text); err != nil {
			t.Errorf("%q: %v", pattern, err)
		}
	}
}

func TestPairInAssemblerAndPortable(t *testing.T) {
	r := rand.New(rand.NewPCG(9, 10))
	for range 20000 {
		text := make([]byte, 1+r.IntN(400))
		for i := range text {
			text[i] = "abAB \xe1"[r.IntN(6)]
			if r.IntN(3) > 0 {
				text[i] = 'x'
			}
		}
		off := r.IntN(min(len(text), 20))
		n := len(text) - off
		b1, b2 := "abx"[r.IntN(3)], "b \xe1"[r.IntN(3)]
		m1, m2 := caseBit(b1), caseBit(b2)
		want := -1
		for i := range n {
			if text[i]|m1 == b1 && text[i+off]|m2 == b2 {
				want = i
				break
			}
		}
		if got := indexPair(text, n, off, b1, m1, b2, m2); got != want {
			t.Fatalf("indexPair(%q, %d, %d, %q, %q) = %d, want %d", text, n, off, b1, b2, got, want)
		}
		if got := indexPairSlow(text, n, off, b1, m1, b2, m2); got != want {
			t.Fatalf("indexPairSlow(%q, %d, %d, %q, %q) = %d, want %d", text, n, off, b1, b2, got, want)
		}
	}
}

func FuzzMatch(f *testing.F) {
	f.Add("a.c|foo", "abc\nfoo", uint8(0))
	f.Add(`\bk{2}[^日]`, "kK\u212a日\xe6\x97\n", uint8(3))
	f.Add(`(?i)s$`, "ſ\nS", uint8(1))
	f.Fuzz(func(t *testing.T, pattern, text string, flags uint8) {
		if len(pattern) > 200 || len(text) > 2000 {
			return
		}
		o := Options{Regex: flags&4 == 0, Fold: flags&1 != 0, Word: flags&2 != 0}
		p, err := Compile(pattern, o)
		if err != nil || !utf8Valid(pattern) {
			return
		}
		var ref *regexp.Regexp
		switch {
		case o.Regex || !o.Fold:
			ref = reference(t, pattern, o)
		case isASCII(pattern):
			ref = foldASCII(pattern, o.Word)
		default:
			ref = reference(t, pattern, o)
		}
		if !o.Regex && strings.Contains(pattern, "\ufffd") {
			return
		}
		if err := check(t, p, p.NewMatcher(), ref, []byte(text)); err != nil {
			t.Fatalf("%q %+v over %q: %v", pattern, o, text, err)
		}
	})
}

func TestWindowsInAssemblerAndPortable(t *testing.T) {
	r := rand.New(rand.NewPCG(11, 12))
	for range 20000 {
		text := make([]byte, 3+r.IntN(300))
		for i := range text {
			text[i] = "abcABC\xe1x"[r.IntN(8)]
			if r.IntN(3) > 0 {
				text[i] = 'x'
			}
		}
		var masks windowMasks
		for bucket := range 1 + r.IntN(8) {
			for k := range windowBytes {
				b := "abcABC\xe1"[r.IntN(7)]
				masks[k][0][b&15] |= 1 << bucket
				masks[k][1][b>>4] |= 1 << bucket
			}
		}
		n := len(text) - 2
		if got, want := indexWindow(text, n, &masks), indexWindowSlow(text, n, &masks); got != want {
			t.Fatalf("indexWindow(%q, %d, %v) = %d, want %d", text, n, masks, got, want)
		}
	}
}

// Choices of literals, as words and in either case, and expressions that need
// one of several.
func TestRandomChoices(t *testing.T) {
	r := rand.New(rand.NewPCG(13, 14))
	words := []string{"error", "Failed", "panic", "denied", "zzz", "abcdef", "10.0.0.1", "日本語", "x=1y", "quit", "k3s", "fail"}
	few := append([]string{"er", "ror", "fai", " ", "_", "ERROR", "panicked", "ſ"}, words...)
	seekers := map[string]int{}
	for range 700 {
		var choice []string
		for range 1 + r.IntN(6) {
			choice = append(choice, regexp.QuoteMeta(words[r.IntN(len(words))]))
		}
		pattern := strings.Join(choice, "|")
		switch r.IntN(4) {
		case 0:
			pattern = `(` + pattern + `)\d`
		case 1:
			pattern = `[a-z](` + pattern + `) `
		case 2:
			pattern = words[r.IntN(len(words))] + `\d*(` + pattern + `)`
		}
		o := Options{Regex: true, Fold: r.IntN(3) == 0, Word: r.IntN(3) == 0}
		p, err := Compile(pattern, o)
		if err != nil {
			t.Fatal(err)
		}
		seekers[fmt.Sprintf("%T %v %v", p.seeker, p.literal, p.prefix)]++
		ref := reference(t, pattern, o)
		m := p.NewMatcher()
		for range 20 {
			if err := check(t, p, m, ref, randomText(r, few)); err != nil {
				t.Fatalf("%q %+v: %v", pattern, o, err)
			}
		}
	}
	t.Log(seekers)
	if hasTeddy() && len(seekers) < 5 {
		t.Errorf("ways of searching that were met: %v", seekers)
	}
}

// Texts that nearly match everywhere take the same ways to the same end.
func TestNearlyEverywhere(t *testing.T) {
	text := append(bytes.Repeat([]byte("ab"), 20_000), "a"...)
	for _, tc := range []struct {
		pattern string
		o       Options
		at      int
	}{
		{strings.Repeat("ab", 300) + "c", Options{}, -1},
		{"ba", Options{}, 1},
		{strings.Repeat("ab", 300) + "a", Options{}, 0},
		{"bab", Options{Word: true}, -1},
		{strings.Repeat("ab", 300) + "c", Options{Fold: true}, -1},
	} {
		p, err := Compile(tc.pattern, tc.o)
		if err != nil {
			t.Fatal(err)
		}
		if start, _ := p.NewMatcher().Find(text, 0); start != tc.at {
			t.Errorf("%.20q %+v: found at %d, want %d", tc.pattern, tc.o, start, tc.at)
		}
	}
	p, err := Compile("aab", Options{Word: true})
	if err != nil {
		t.Fatal(err)
	}
	text = append(bytes.Repeat([]byte("aabaab"), 5000), " aab"...)
	if start, _ := p.NewMatcher().Find(text, 0); start != len(text)-3 {
		t.Errorf("found at %d", start)
	}
}

// Long texts with few matches are read at four places at once.
func TestSideBySide(t *testing.T) {
	r := rand.New(rand.NewPCG(15, 16))
	words := []string{"abc ", "日本", "12.5 ", "xyz", "\xe6\x97", "k=v ", "Foo_"}
	for _, pattern := range []string{`q\d+q`, `\bq[a-z]{2}\b`, `[^ -~日本\x{fffd}]`, `q.{3}$`, `^q`, `(a|b|x|y)*q(a|b|x|y){9}`, `\pN{4}q|Q`} {
		for round := range 12 {
			room := []int{0, 40, 2000}[round%3]
			sparse := []int{400, 1500, 6000, 20000}[round/3]
			p, err := Compile(pattern, Options{Regex: true})
			if err != nil {
				t.Fatal(err)
			}
			ref := reference(t, pattern, Options{Regex: true})
			var text []byte
			for len(text) < 200_000 {
				text = append(text, words[r.IntN(len(words))]...)
				switch n := r.IntN(sparse); {
				case n < sparse/30:
					text = append(text, '\n')
				case n == sparse-1:
					text = append(text, "q77q q\u0661 qab qab"...)
				case n == sparse-2:
					text = append(text, "\nq12 \nqxyzxyzab\n1234q"...)
				}
			}
			m := p.NewMatcher()
			m.dfa = newDFA(p.prog)
			if room > 0 {
				m.dfa.most = room * p.prog.classes
			}
			if err := check(t, p, m, ref, text); err != nil {
				t.Errorf("%q with room for %d states: %v", pattern, room, err)
			}
		}
	}
}
