package window

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/mobileops/mobileops/internal/scan/keyword"
)

// find does what a user of the package does: anchors by automaton, then FindAll.
func find(t testing.TB, re *regexp.Regexp, text []byte) (found [][]int, anchored bool) {
	t.Helper()
	e := New(re)
	if len(e.Anchors) == 0 {
		return re.FindAllSubmatchIndex(text, -1), false
	}
	a, err := keyword.Compile(slices.Concat(e.Anchors, Exotic()))
	if err != nil {
		return re.FindAllSubmatchIndex(text, -1), false
	}
	var ends []int
	for _, h := range a.Find(text, nil) {
		ends = append(ends, int(h.End))
	}
	slices.Sort(ends)
	return e.FindAll(text, ends), true
}

func check(t testing.TB, expression string, text []byte) bool {
	t.Helper()
	re, err := regexp.Compile(expression)
	if err != nil {
		return false
	}
	want := re.FindAllSubmatchIndex(text, -1)
	got, anchored := find(t, re, text)
	if len(want)+len(got) > 0 && !reflect.DeepEqual(got, want) {
		e := New(re)
		t.Fatalf("%s in %q:\n  in windows %v\n  everywhere %v\n  anchors %v, reach %d", expression, text, got, want, e.Anchors, e.reach.bounded)
	}
	return anchored && len(want) > 0
}

// expressions have what makes windows difficult: edges, loops, alternatives, case.
var expressions = []string{
	`([^0-9a-zA-Z_]|^)(?P<secret>ghp_[0-9a-zA-Z]{6})`,
	`([^0-9a-zA-Z_]|^)(hf_[A-Za-z0-9]{4,8})([^0-9a-zA-Z_]|$)`,
	`(?i)["']?aws_?["']?(sec(ret)?)?_?(access)?_?key["']?\s*(:|=>|=)?\s*["']?(?P<secret>[A-Za-z0-9\/\+=]{10})["']?[.,]?(\s+|$)`,
	`(?i)-----\s*?BEGIN[ A-Z0-9_-]*?PRIVATE KEY( BLOCK)?\s*?-----[\s]*?(?P<secret>[A-Za-z0-9=+/\\][A-Za-z0-9=+/\\\s]{3,}[A-Za-z0-9=+/\\])[\s]*?-----\s*?END[ A-Z0-9_-]*? PRIVATE KEY( BLOCK)?\s*?-----`,
	`(?i)(?P<key>lob[a-z0-9_ .\-,]{0,5})(=|>|:=|\|\|:|<=|=>|:).{0,5}['\"](?P<secret>(live|test)_[a-f0-9]{5})['\"]`,
	`(?:[^a-zA-Z0-9_~.\-]|\A)(?P<secret>[a-zA-Z0-9_~.\-]{3}8Q~[a-zA-Z0-9_~.\-]{4})(?:[^a-zA-Z0-9_~.\-]|\z)`,
	`shp(ss|at|ca|pa)_[a-f]{3}`,
	`(A3T[A-Z0-9]|AKIA|AGPA|AIDA|ASIA)[A-Z]{3}`,
	`sv=\d{4}(?:[&;][a-z]+=[^&\s'"]*){1,12}[&;]sig=(?P<secret>[A-Za-z0-9%+/=]{4,})`,
	`\bkey\b`, `\Bkey\B`, `^key`, `key$`, `(?m)^key$`, `\Akey\z`, `(?s)key.{0,3}aws`, `key.{0,3}aws`, `k.*y`, `(?s)key.*aws`,
	`key[^<]+aws`, `(key|aws)+`, `(?:key){2,}`, `(a|b)*key(a|b)*`, `key(x)?|aws`, `(?U)key[a-z]*`, `key[^a]`, `[^a]key`, `é{2}key`, `(?i)é+k`, `[\x{80}-\x{10ffff}]key.`,
}

// words are what texts are made of, so that there are matches and near ones.
var words = []string{
	"ghp_", "hf_", "aws", "AWS_SECRET_ACCESS_KEY", "key", "Key", "KEY", "\u212aey", "aw\u017f", "\u017f", "PRIVATE \u212aEY", "-----", "-----BEGIN RSA PRIVATE KEY-----", "-----END PRIVATE KEY-----", "PRIVATE KEY", "END", "lob", "'live_", `"test_`, "8Q~", "abc8Q~abcd",
	"shpss_", "AKIA", "ASIA", "A3T", "sv=2020", "&a=b", "&sig=", " ", "\n", "\r\n", "=", ":", `"`, "'", "_", ".", "<", "a", "b", "f", "x", "0", "7", "Z", "é", "ø", "\xff", "\x80", "\xc3", "\xe2\x84", "€", "😀", "\xf0\x9f",
	"aaaaa", "abcdef", "0123456789", "          ", strings.Repeat("ab01", 30), strings.Repeat(" ", 50), strings.Repeat("\n", 30), strings.Repeat("\x80", 9), strings.Repeat("<>", 40), strings.Repeat("é", 20),
}

func text(random *rand.Rand, n int) []byte {
	var b []byte
	for range n {
		b = append(b, words[random.IntN(len(words))]...)
	}
	return b
}

func TestSameAsEverywhere(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 1))
	anchored := make(map[string]int)
	for range 800 {
		b := text(random, random.IntN(60))
		for _, e := range expressions {
			if check(t, e, b) {
				anchored[e]++
			}
		}
	}
	for _, e := range expressions[:9] {
		// A sample of its own, so that there is something to find.
		for range 300 {
			b := append(text(random, 10), sample(t, random, e)...)
			b = append(b, text(random, 10)...)
			if check(t, e, b) {
				anchored[e]++
			}
		}
		if anchored[e] == 0 {
			t.Errorf("%s was never found in windows: it isn't covered", e)
		}
	}
}

// sample writes text that an expression of the list matches, or nearly.
func sample(t *testing.T, random *rand.Rand, expression string) string {
	t.Helper()
	hex := func(n int) string { return strings.Repeat(string("abcdef"[random.IntN(6)]), n) }
	switch slices.Index(expressions, expression) {
	case 0:
		return " ghp_" + hex(6)
	case 1:
		return "\nhf_" + hex(6)
	case 2:
		return `aws_secret_access_key = "` + hex(10) + `" `
	case 3:
		return "-----BEGIN PRIVATE KEY-----\n" + hex(20+random.IntN(400)) + "\n-----END RSA PRIVATE KEY-----"
	case 4:
		return "lobapi: 'live_" + hex(5) + "'"
	case 5:
		return " abc8Q~" + hex(4) + " "
	case 6:
		return "shpat_" + hex(3)
	case 7:
		return "AKIA" + strings.ToUpper(hex(3))
	case 8:
		return "sv=2020&a=" + strings.Repeat("x", random.IntN(300)) + "&sig=" + hex(7)
	}
	t.Fatal("no sample")
	return ""
}

// TestRandomExpressions makes expressions up.
func TestRandomExpressions(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	var expression func(depth int) string
	expression = func(depth int) string {
		if depth == 0 {
			return []string{"a", "b", "ab", "k", "[ab]", "[^a]", ".", `\s`, `\b`, "^", "$", "(?i:ak)", "é", `\B`, "[a-cé]", "(?i:kk)", "(?m:$)", "aab", "bka"}[random.IntN(19)]
		}
		a, b := expression(depth-1), expression(depth-1)
		switch random.IntN(9) {
		case 0:
			return a + "|" + b
		case 1:
			return "(" + a + ")*"
		case 2:
			return "(?:" + a + ")?" + b
		case 3:
			return "(" + a + "){2,3}"
		case 4:
			return "(?:" + a + ")+" + b
		case 5:
			return "(?:" + a + ")*?" + b
		case 6:
			return "(" + a + "|" + b + ")"
		default:
			return a + b
		}
	}
	letters := []string{"a", "b", "k", "A", "K", "\u212a", " ", "\n", "é", "\xff", "\xc3", "c", "aab", "bka", strings.Repeat(" ", 25), strings.Repeat("c", 30), strings.Repeat("é", 15)}
	covered := 0
	for range 8000 {
		e := expression(1 + random.IntN(3))
		var b []byte
		for range random.IntN(80) {
			b = append(b, letters[random.IntN(len(letters))]...)
		}
		if check(t, e, b) {
			covered++
		}
	}
	if covered < 400 {
		t.Errorf("only %d of the expressions were found in windows", covered)
	}
}

func TestAnchors(t *testing.T) {
	for _, c := range []struct {
		expression string
		yes, no    string
	}{
		{expressions[0], "ghp_0a", "ghp"},
		{expressions[2], "aWs", "key"},
		{expressions[3], "ATE KEY PRIVATE KEY", "-----"},
		{expressions[4], "'live_a", "lob"},
		{`SK[0-9a-fA-F]{32}`, "SK0aF0", "skeleton SKIP"},
	} {
		e := New(regexp.MustCompile(c.expression))
		a, err := keyword.Compile(e.Anchors)
		if err != nil || len(e.Anchors) == 0 {
			t.Fatalf("%s: %v", c.expression, err)
		}
		if len(a.Find([]byte(c.yes), nil)) == 0 {
			t.Errorf("%s: %q holds no anchor", c.expression, c.yes)
		}
		if len(a.Find([]byte(c.no), nil)) != 0 {
			t.Errorf("%s: %q holds an anchor", c.expression, c.no)
		}
	}
	for _, none := range []string{`.*`, `a?`, `[^a]+`, `(a|.)`, ``, `\b`} {
		if e := New(regexp.MustCompile(none)); len(e.Anchors) != 0 && e.Rarity < 1e-4 {
			t.Errorf("%q has anchors: %v", none, e.Anchors)
		}
	}
}

func TestRun(t *testing.T) {
	var set keyword.Bytes
	set.Add('x')
	random := rand.New(rand.NewPCG(5, 6))
	for range 20_000 {
		r := run{set, 1 + random.IntN(6)}
		b := make([]byte, random.IntN(40))
		for i := range b {
			b[i] = "xxxxx-"[random.IntN(6)]
		}
		if want := strings.Contains(string(b), strings.Repeat("x", r.length)); r.in(b) != want {
			t.Fatalf("%d in %q: not %v", r.length, b, want)
		}
	}
}

// TestLinear: anchors everywhere and loops over everything don't make it quadratic.
func TestLinear(t *testing.T) {
	e := New(regexp.MustCompile(`(?i)begin[ a-z-]*private key[a-z \n]*end[0-9]{32}`))
	b := bytes.Repeat([]byte("private key "), 400_000)
	a, err := keyword.Compile(e.Anchors)
	if err != nil {
		t.Fatal(err)
	}
	var ends []int
	for _, h := range a.Find(b, nil) {
		ends = append(ends, int(h.End))
	}
	slices.Sort(ends)
	if len(ends) < 1000 {
		t.Skipf("%d anchors: the case isn't covered", len(ends))
	}
	if got := e.FindAll(b, ends); got != nil {
		t.Fatal(got)
	}
}

func FuzzFindAll(f *testing.F) {
	random := rand.New(rand.NewPCG(7, 8))
	for _, e := range expressions {
		f.Add(e, text(random, 20))
	}
	f.Add(fmt.Sprintf("a{%d}", 200), bytes.Repeat([]byte("a"), 500))
	f.Fuzz(func(t *testing.T, expression string, text []byte) {
		if len(expression) > 200 || len(text) > 5000 {
			return
		}
		check(t, expression, text)
	})
}
