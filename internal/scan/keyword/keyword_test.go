package keyword

import (
	"bytes"
	"cmp"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// naive finds what Find should, byte by byte.
func naive(patterns []Sequence, b []byte) []Hit {
	var hits []Hit
	for end := range len(b) + 1 {
		for p, seq := range patterns {
			if start := end - len(seq); start >= 0 && seq.at(b[start:end]) {
				hits = append(hits, Hit{int32(p), int32(end)})
			}
		}
	}
	return hits
}

func (s Sequence) at(b []byte) bool {
	for i := range s {
		if !s[i].Has(b[i]) {
			return false
		}
	}
	return true
}

func sorted(hits []Hit) []Hit {
	slices.SortFunc(hits, func(a, b Hit) int { return cmp.Or(cmp.Compare(a.End, b.End), cmp.Compare(a.Pattern, b.Pattern)) })
	return hits
}

func mustCompile(t testing.TB, patterns []Sequence) *Automaton {
	t.Helper()
	a, err := Compile(patterns)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// check holds what Find says of b against the naive way.
func check(t *testing.T, a *Automaton, patterns []Sequence, b []byte) {
	t.Helper()
	want := naive(patterns, b)
	if got := sorted(a.Find(b, nil)); !slices.Equal(got, want) {
		t.Fatalf("%v in %q: Find says %v, not %v", patterns, b, got, want)
	}
}

func TestFind(t *testing.T) {
	hex := func(n int) (s Sequence) {
		for range n {
			var set Bytes
			for _, c := range []byte("0123456789abcdef") {
				set.Add(c)
			}
			s = append(s, set)
		}
		return s
	}
	patterns := []Sequence{Word("key"), Word("KEYS"), Word("ey"), Exact("SK"), append(Exact("SK"), hex(3)...), Word("-----"), Word("key"), Exact("\xc5\xbf"), Word("a"), append(hex(2), Word("x")...)}
	a := mustCompile(t, patterns)
	for _, s := range []string{"", "k", "key", "xKeYs", "SKsk", "SK0aF SK0af", "-------", "\xc5\xbf\xff\x00", "SKSKabcSKkeyskeys"} {
		check(t, a, patterns, []byte(s))
		for _, pad := range []int{60, 64, 255, 256, 257, 300, 1000} { // so that lanes begin everywhere
			for shift := range 12 {
				b := append(bytes.Repeat([]byte("k"), pad+shift), s...)
				check(t, a, patterns, append(b, bytes.Repeat([]byte("5e"), pad)...))
			}
		}
	}
}

func TestRandom(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	letter := func() byte { return "abABc\xff\x00-"[random.IntN(8)] }
	for range 300 {
		var patterns []Sequence
		for range 1 + random.IntN(12) {
			seq := make(Sequence, 1+random.IntN(5))
			for i := range seq {
				for range 1 + random.IntN(3) {
					seq[i].Add(letter())
				}
			}
			patterns = append(patterns, seq)
		}
		a := mustCompile(t, patterns)
		b := make([]byte, random.IntN(700))
		for i := range b {
			b[i] = letter()
		}
		check(t, a, patterns, b)
		// The same in a table that is too large to be narrow.
		wide := *a
		if wide.narrow != nil {
			for _, to := range wide.narrow {
				wide.wide = append(wide.wide, uint32(to))
			}
			wide.narrow = nil
		}
		check(t, &wide, patterns, b)
	}
}

func TestEveryByteIsInAPattern(t *testing.T) {
	var all Bytes
	for c := range 256 {
		all.Add(byte(c))
	}
	patterns := []Sequence{{all, all}, Exact("x")}
	check(t, mustCompile(t, patterns), patterns, []byte("axb\x00\xff"))
	var single []Sequence // as many classes as there are bytes
	for c := range 256 {
		single = append(single, Exact(string([]byte{byte(c)})))
	}
	b := make([]byte, 1000)
	for i := range b {
		b[i] = byte(i * 7)
	}
	check(t, mustCompile(t, single), single, b)
}

func TestNoPatterns(t *testing.T) {
	a := mustCompile(t, nil)
	if hits := a.Find(bytes.Repeat([]byte("abc"), 1000), nil); len(hits) != 0 {
		t.Fatal(hits)
	}
}

func TestManyPatterns(t *testing.T) {
	var patterns []Sequence
	for i := range 600 {
		patterns = append(patterns, Word(fmt.Sprintf("%x-word-%d", i*2654435761, i)))
	}
	a := mustCompile(t, patterns)
	if a.narrow != nil {
		t.Fatal("the wide table isn't covered")
	}
	for i := range 600 {
		hits := a.Find(fmt.Appendf(nil, "... %X-WORD-%d ...", i*2654435761, i), nil)
		if !slices.ContainsFunc(hits, func(h Hit) bool { return int(h.Pattern) == i }) {
			t.Fatalf("%d: %v", i, hits)
		}
	}
}

func TestRefuses(t *testing.T) {
	if _, err := Compile([]Sequence{{}}); err == nil {
		t.Error("an empty pattern is taken")
	}
	var any Bytes
	for c := range 128 {
		any.Add(byte(c))
	}
	// a, then anything: as many states as subsets.
	explosive := Sequence{}
	for i := range 40 {
		explosive = append(explosive, any)
		if i == 0 {
			explosive[0] = Exact("a")[0]
		}
	}
	if _, err := Compile([]Sequence{explosive}); err == nil {
		t.Error("a pattern of endless states is taken")
	}
}

// FuzzFind: patterns and text are cut out of one input.
func FuzzFind(f *testing.F) {
	f.Add([]byte("key\nawS\n--"), []byte("the KEY of aws -----"))
	f.Add([]byte("a\nab\nabc\nb"), bytes.Repeat([]byte("abcab"), 80))
	f.Fuzz(func(t *testing.T, words, text []byte) {
		var patterns []Sequence
		for i, w := range bytes.Split(words, []byte("\n")) {
			if len(w) == 0 || len(w) > 20 || len(patterns) == 20 {
				continue
			}
			if i%2 == 0 {
				patterns = append(patterns, Word(string(w)))
			} else {
				patterns = append(patterns, Exact(string(w)))
			}
		}
		if len(text) > 2000 {
			text = text[:2000]
		}
		check(t, mustCompile(t, patterns), patterns, text)
	})
}

// source is some source code: that of Go itself.
func source(b *testing.B) []byte {
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		b.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(strings.TrimSpace(string(root)), "src/net/http/*.go"))
	if err != nil {
		b.Fatal(err)
	}
	var all []byte
	for _, name := range files {
		content, err := os.ReadFile(name)
		if err != nil {
			b.Fatal(err)
		}
		all = append(all, content...)
	}
	if len(all) == 0 {
		b.Skip("the source of Go isn't installed")
	}
	return all[:min(len(all), 1<<20)]
}

func BenchmarkFind(b *testing.B) {
	text := source(b)
	var patterns []Sequence
	for _, w := range []string{"private", "facebook", "twitter", "adobe", "p8e-", "ltai", "alibaba", "asana", "atlassian", "bitbucket", "beamer", "clojars_", "contentful", "databricks", "dapi", "discord", "dropbox", "duffel_", "dt0c01.", "fastly", "finicity", "flwseck_", "fio-u-", "live_", "eyjrijoi", "atlasv1.", "hubspot", "intercom", "ionic", ".eyj", "lin_api", "linear", "mailchimp", "mailgun", "messagebird", "nrak-", "newrelic", "npm_", "pscale_", "packagist_", "pmak-", "pul-", "rubygems_", "xkeysib-", "shippo_", "linkedin", "twitch", "typeform", "dockerc", "accountkey", "azuredevops", "azurecr.io", "azconfig.io"} {
		patterns = append(patterns, Word(w))
	}
	a := mustCompile(b, patterns)
	b.Log(a)
	var hits []Hit
	for _, size := range []int{1 << 10, 16 << 10, 1 << 20} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			part := text[:min(size, len(text))]
			b.SetBytes(int64(len(part)))
			for b.Loop() {
				hits = a.Find(part, hits[:0])
			}
		})
	}
	b.Run("ToLower and Contains", func(b *testing.B) {
		b.SetBytes(int64(len(text)))
		for b.Loop() {
			lower := bytes.ToLower(text)
			for _, w := range []string{"private", "facebook", "twitter", "adobe"} { // of the 53
				bytes.Contains(lower, []byte(w))
			}
		}
	})
}
