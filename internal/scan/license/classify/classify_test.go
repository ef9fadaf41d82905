package classify

import (
	"bytes"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"unicode"
	"unicode/utf8"

	classifier "github.com/google/licenseclassifier/v2"
	"github.com/google/licenseclassifier/v2/assets"
)

// plain is what Trivy does with each file: both passes through one classifier. It
// also says "Copyright", which is no licence.
func plain(t testing.TB, c *classifier.Classifier, content []byte) map[string]float64 {
	t.Helper()
	found := map[string]float64{}
	for _, m := range c.Match(c.Normalize(content)).Matches {
		if _, ok := found[m.Name]; !ok && m.Confidence > 0.9 && m.MatchType != "Copyright" {
			found[m.Name] = m.Confidence
		}
	}
	return found
}

func findings(r Result) map[string]float64 {
	found := map[string]float64{}
	for _, f := range r.Findings {
		found[f.Name] = f.Confidence
	}
	return found
}

// sources are real files: of Go's own distribution, and of the module cache.
func sources(t *testing.T, limit int) [][]byte {
	t.Helper()
	var roots []string
	for _, args := range [][]string{{"env", "GOROOT"}, {"list", "-m", "-f", "{{.Dir}}", "github.com/google/licenseclassifier/v2", "github.com/zeebo/blake3", "golang.org/x/text", "github.com/spf13/cobra"}} {
		out, err := exec.Command("go", args...).Output()
		if err != nil {
			t.Logf("go %v: %v", args, err)
		}
		roots = append(roots, strings.Fields(string(out))...)
	}
	var files [][]byte
	for _, root := range roots {
		n := 0
		_ = filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
			if err != nil || n >= limit/len(roots) {
				return fs.SkipAll
			}
			switch filepath.Ext(p) {
			case ".c", ".h", ".js", ".html", ".md", ".txt", ".sh", ".py", ".css", "":
			default:
				return nil
			}
			if info, err := d.Info(); err == nil && d.Type().IsRegular() && info.Size() < 100<<10 {
				if b, err := os.ReadFile(p); err == nil && utf8.Valid(b) {
					files = append(files, b)
					n++
				}
			}
			return nil
		})
	}
	if len(files) < 20 {
		t.Skipf("only %d source files on this machine: neither Go's own nor the module cache", len(files))
	}
	return files
}

// What is found is what the classifier finds by itself, for all its own texts, for
// pieces of them, and for real files.
func TestEqualToClassifier(t *testing.T) {
	direct, err := assets.DefaultClassifier()
	if err != nil {
		t.Fatal(err)
	}
	own := New(0.9)
	// The race detector makes each comparison twenty times slower.
	number, each := 400, 9
	if raceEnabled {
		number, each = 100, 90
	}
	files := sources(t, number)
	all := texts(t)
	for i, name := range slices.Sorted(maps.Keys(all)) {
		if i%each != 0 {
			continue
		}
		b := all[name]
		files = append(files, b, b[:len(b)*9/10], append([]byte("/* Copyright: 2020-present A. Body\n"), bytes.ReplaceAll(b, []byte("\n"), []byte("\n * "))...))
	}
	found := 0
	for _, content := range files {
		want := plain(t, direct, content)
		got, err := own.Classify(content)
		if err != nil {
			t.Fatal(err)
		}
		if !maps.Equal(want, findings(got)) {
			t.Errorf("%.80q: %v, want %v", content, findings(got), want)
		}
		if len(want) > 0 {
			found++
		}
		if got.Kind != "" && len(got.Findings) == 0 {
			t.Errorf("%.80q: kind %q of %v", content, got.Kind, got.Findings)
		}
	}
	s := own.Stats()
	t.Logf("%d files, %d with licences, %d looked at by the classifier", len(files), found, s.Classified)
	if found < 360/each || s.Sieved != int64(len(files)) || s.Classified == s.Sieved {
		t.Errorf("%d files with licences, %+v", found, s)
	}
}

// Several files are classified at the same time, with equal results.
func TestParallel(t *testing.T) {
	c := New(0.9)
	all := texts(t)
	names := slices.Sorted(maps.Keys(all))[:12]
	want := map[string]Result{}
	for _, n := range names {
		r, err := c.Classify(all[n])
		if err != nil {
			t.Fatal(err)
		}
		want[n] = r
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for _, n := range names {
				if got, err := c.Classify(all[n]); err != nil || !reflect.DeepEqual(got, want[n]) {
					t.Errorf("%s: %v, %v, want %v", n, got, err, want[n])
				}
			}
		})
	}
	wg.Wait()
}

// FuzzWords: each word that the classifier keeps is seen by the sieve too, as often.
func FuzzWords(f *testing.F) {
	for _, s := range []string{
		"Permission is hereby granted, free of charge, to any person\nobtaining a copy",
		"https://www.apache.org/licenses/LICENSE-2.0 licence &amp;licence &#65;pache &quot;x\n",
		"sub-\n   licen-\nse 2.0-\nfoo 3-\n\nb ar\n", "a-\n\nb c -\n-d", "*a*b ·c d·e © §x ‒y", "1. a) b: iv. foo\nCopyright 2020- x\nCopyright: (c) 2021",
		"\xe2\x80", "x\xffy\xc3", "ÄÖÜ Straße\u2028ſtrange İstanbul", "httpss://httpsfoo HTTPS://X", "http0ssA Http0ssA Httpss AHttp0ss Httpshttpss", strings.Repeat("long ", 500) + "ende\xc3",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		seen := map[string]int{}
		if !new(token).words(content, func(w []byte) { seen[string(w)]++ }) {
			return // the classifier decides
		}
		normalize := func(b []byte) []byte { return classifier.NewClassifier(threshold).Normalize(b) }
		kept := map[string]int{}
		for w := range strings.FieldsSeq(string(normalize(normalize(content)))) {
			if r, _ := utf8.DecodeRuneInString(w); unicode.IsLetter(r) {
				// The second pass of Match writes the first letter in lower case before
				// it looks for https in the word, and that of Normalize does not.
				if lower := strings.Map(unicode.ToLower, w); lower != w {
					w = lower
					if after, ok := strings.CutPrefix(lower, "https"); ok {
						w = "http" + after
					}
				}
				kept[string(sameWord([]byte(w)))]++
			}
		}
		for w, n := range kept {
			if seen[w] < n {
				t.Errorf("%q: %q is seen %d times, kept %d times", content, w, seen[w], n)
			}
		}
	})
}

// FuzzIndex: a damaged index is an error, nothing else.
func FuzzIndex(f *testing.F) {
	f.Add(encodeIndex(index{words: []string{"a", "word"}, texts: []indexText{{distinct: 3, free: 1, words: map[uint32]int{0: 1, 1: 2}}}}))
	f.Add([]byte{1, 200})
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 1<<16 {
			return
		}
		if s, err := decodeIndex(data); err == nil {
			s.May([]byte("a word, a word"))
		}
	})
}

func BenchmarkSieve(b *testing.B) {
	s, err := NewSieve()
	if err != nil {
		b.Fatal(err)
	}
	content := bytes.Repeat([]byte("The Software shall, in the way of all things, be used for Good; not for evil (see https://example.org/).\n"), 100)
	b.SetBytes(int64(len(content)))
	for b.Loop() {
		s.May(content)
	}
}
