//go:build goexperiment.jsonv2

package secret

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aquasecurity/trivy/pkg/fanal/analyzer"
	trivysecret "github.com/aquasecurity/trivy/pkg/fanal/analyzer/secret"
	"github.com/aquasecurity/trivy/pkg/fanal/secret"
	ftypes "github.com/aquasecurity/trivy/pkg/fanal/types"
)

// atOnce is a reader that says that it is at its end with what it reads, so that
// Trivy's scanner takes content smaller than its buffer as one chunk. With other
// readers it looks at the last 4 KiB of every file a second time.
type atOnce struct{ content []byte }

func (r *atOnce) Read(b []byte) (int, error) {
	n := copy(b, r.content)
	r.content = r.content[n:]
	if len(r.content) == 0 {
		return n, io.EOF
	}
	return n, nil
}

// file is a fs.FileInfo of content in memory.
type file struct {
	name string
	size int
}

func (f file) Name() string     { return filepath.Base(f.name) }
func (f file) Size() int64      { return int64(f.size) }
func (file) Mode() fs.FileMode  { return 0o644 }
func (file) ModTime() time.Time { return time.Time{} }
func (file) IsDir() bool        { return false }
func (file) Sys() any           { return nil }

func mustAnalyzer(t testing.TB, o Options) *SecretAnalyzer {
	t.Helper()
	a, err := Analyzer(o)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func input(path string, content []byte) analyzer.AnalysisInput {
	return analyzer.AnalysisInput{Dir: "/root", FilePath: path, Info: file{path, len(content)}, Content: bytes.NewReader(content)}
}

// search returns what our analyzer finds.
func find(t testing.TB, a *SecretAnalyzer, path string, content []byte) []ftypes.SecretFinding {
	t.Helper()
	r, err := a.Analyze(t.Context(), input(path, content))
	if err != nil {
		t.Fatal(err)
	}
	return list(r)
}

func list(r *analyzer.AnalysisResult) []ftypes.SecretFinding {
	if r == nil || len(r.Secrets) == 0 {
		return nil
	}
	return r.Secrets[0].Findings
}

// same fails unless two lists hold the same findings; Trivy's order of equal ones is
// that of an unstable sort.
func same(t testing.TB, what string, ours, theirs []ftypes.SecretFinding, content []byte) {
	t.Helper()
	byPlace := func(l []ftypes.SecretFinding) []ftypes.SecretFinding {
		l = slices.Clone(l)
		slices.SortFunc(l, func(a, b ftypes.SecretFinding) int {
			return cmp.Or(cmp.Compare(a.RuleID, b.RuleID), cmp.Compare(a.Match, b.Match), cmp.Compare(a.Offset, b.Offset), cmp.Compare(a.EndLine, b.EndLine))
		})
		return l
	}
	if !slices.IsSortedFunc(ours, func(a, b ftypes.SecretFinding) int {
		return cmp.Or(cmp.Compare(a.RuleID, b.RuleID), cmp.Compare(a.Match, b.Match))
	}) {
		t.Fatalf("%s: not in order", what)
	}
	o, th := byPlace(ours), byPlace(theirs)
	if len(o)+len(th) == 0 || reflect.DeepEqual(o, th) {
		return
	}
	show := func(l []ftypes.SecretFinding) (s string) {
		for _, f := range l {
			s += fmt.Sprintf("    %s %d-%d at %d: %q %+v\n", f.RuleID, f.StartLine, f.EndLine, f.Offset, f.Match, f.Code)
		}
		return s
	}
	if len(content) > 3000 {
		content = content[:3000]
	}
	t.Fatalf("%s:\n  ours\n%s  Trivy's\n%s  in %q", what, show(o), show(th), content)
}

// TestSameAsTrivy makes texts for every rule and compares what both find in them.
func TestSameAsTrivy(t *testing.T) {
	a := mustAnalyzer(t, Options{})
	trivy := secret.NewScanner(nil)
	large := secret.NewScanner(nil, secret.WithBufferSize(1<<20))
	g := generator{rand.New(rand.NewPCG(1, 2))}
	rules := secret.GetBuiltinRules()
	found := map[string]int{}
	for round := range 25 {
		for n, r := range rules {
			path := "src/app/config.go"
			if r.Path != nil {
				path = []string{"home/.m2/settings.xml", "home/.m2/settings-security.xml", "other.xml"}[g.IntN(3)]
			}
			end := []string{"\n", "\r\n", "\n", "\r", ""}[round%5]
			size := []int{0, 30, 300, 3000}[g.IntN(4)]
			if (round+n)%97 == 0 {
				size = 120_000
			}
			var b strings.Builder
			for range 1 + g.IntN(3) {
				b.WriteString(g.noise(g.IntN(size+1), end))
				s := g.sample(r.Regex.String())
				if g.IntN(4) == 0 {
					s = g.sample(rules[g.IntN(len(rules))].Regex.String())
				}
				if g.IntN(3) == 0 {
					s = g.spoil(s)
				}
				b.WriteString(s)
			}
			b.WriteString(g.noise(g.IntN(size+1), end))
			if g.IntN(40) == 0 {
				b.WriteString([]string{"\u017f", "\u212a", "\u0130"}[g.IntN(3)])
			}
			content := []byte(strings.Repeat(" ", max(0, minSize-b.Len())) + b.String())
			if binaryHead(content[:min(len(content), headSize)]) {
				content = append(bytes.Repeat([]byte("text "), headSize/5), content...)
			}
			scanner := &trivy
			if len(content) >= secret.DefaultBufferSize {
				scanner = &large
			}
			theirs := scanner.Scan(secret.ScanArgs{FilePath: path, Content: &atOnce{content}}).Findings
			ours := find(t, a, path, bytes.Clone(content))
			same(t, fmt.Sprintf("round %d of %s", round, r.ID), ours, theirs, content)
			for _, f := range ours {
				found[f.RuleID]++
			}
		}
	}
	for _, r := range rules {
		if found[r.ID] == 0 {
			t.Errorf("%s was never found: it isn't covered", r.ID)
		}
	}
}

// TestSameAsTrivyWithConfiguration does the same with rules of somebody's own.
func TestSameAsTrivyWithConfiguration(t *testing.T) {
	config := filepath.Join(t.TempDir(), "secret.yaml")
	if err := os.WriteFile(config, []byte(`
disable-rules: [private-key, twilio-api-key]
disable-allow-rules: [tests]
rules:
  - {id: no-keywords, category: own, title: None, severity: high, regex: 'pin[0-9]{4}'}
  - {id: anything, category: own, title: Any, severity: odd, regex: '[^ ]{60}x', keywords: [needle]}
  - {id: not-ascii, category: own, title: É, severity: low, regex: 'clé [a-z]+', keywords: ["CLÉ"]}
  - {id: folded, category: own, title: K, regex: '(?i)kiss[0-9]', keywords: [kis]}
  - {id: group, category: own, title: G, regex: 'gg(?P<a>x)?(?P<b>y)', secret-group-name: b, keywords: [gg]}
  - {id: no-such-group, category: own, title: G, regex: 'gg', secret-group-name: c, keywords: [gg]}
  - {id: paths, category: own, title: P, regex: 'path[0-9]', path: '\.conf$', keywords: [path], allow-rules: [{id: p, path: 'skip'}, {id: r, regex: '7'}]}
  - {id: edge, category: own, title: E, regex: '^edge|edge$|\bedge\b', keywords: [edge]}
  - {id: lines, category: own, title: L, regex: "begin\n.*\n?end", keywords: [begin]}
  - {id: no-regex, category: own, title: N, keywords: [pin]}
allow-rules:
  - {id: own, regex: 'pin0'}
  - {id: own-path, path: 'fixtures'}
exclude-block:
  regexes: ['<skip>[^<]*</skip>']
`), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := secret.ParseConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	a := mustAnalyzer(t, Options{Config: config})
	trivy := secret.NewScanner(c)
	own := []string{
		"pin", "1234", "0000", "needle", strings.Repeat("z", 61) + "x", "clé abc", "CLÉ", "kiss1", "KISS2", "\u212aiss3", "ki\u017fs4", "ggxy", "ggy", "gg", "path1", "path7", "edge", "begin\n", "end", "x\nend", "<skip>", "</skip>", " ", "\n", "x", "\u0130", "7",
	}
	g := generator{rand.New(rand.NewPCG(3, 4))}
	found := map[string]int{}
	for round := range 3000 {
		b := []byte("some text ")
		for range g.IntN(30) {
			b = append(b, own[g.IntN(len(own))]...)
		}
		if g.IntN(5) == 0 {
			b = append(b, g.noise(500, "\n")...)
		}
		if binaryHead(b[:min(len(b), headSize)]) {
			continue
		}
		path := []string{"a.conf", "skip.conf", "a.txt"}[g.IntN(3)]
		theirs := trivy.Scan(secret.ScanArgs{FilePath: path, Content: &atOnce{b}}).Findings
		ours := find(t, a, path, bytes.Clone(b))
		same(t, fmt.Sprint("round ", round), ours, theirs, b)
		for _, f := range ours {
			found[f.RuleID]++
		}
	}
	for _, id := range []string{"no-keywords", "anything", "not-ascii", "folded", "group", "paths", "edge", "lines"} {
		if found[id] == 0 {
			t.Errorf("%s was never found: it isn't covered", id)
		}
	}
	if found["private-key"]+found["no-such-group"]+found["no-regex"] != 0 {
		t.Errorf("%v", found)
	}
}

// TestSameAnalyzer compares the analyzers: filters of paths, binary files, sizes.
func TestSameAnalyzer(t *testing.T) {
	config := filepath.Join(t.TempDir(), "rules", "secret.yaml")
	if err := os.MkdirAll(filepath.Dir(config), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{
		"", "disable-allow-rules: [examples]\nskip-patterns: []\n",
		"skip-patterns: ['**/*.tar.gz', 'a/*', '**/x[12]', '**/{b,c}/**', '**/deep/er/**', '**/*.x*', 'go.mod', '**/', '**/a b', '!a', '**/..', '**/né', '**/?']\n",
	} {
		if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if text == "" {
			os.Remove(config)
		}
		ours := mustAnalyzer(t, Options{Config: config})
		theirs := trivysecret.NewSecretAnalyzer(secret.Scanner{}, "")
		if err := theirs.Init(analyzer.AnalyzerOptions{SecretScannerOption: analyzer.SecretScannerOption{ConfigPath: config}}); err != nil {
			t.Fatal(err)
		}
		g := generator{rand.New(rand.NewPCG(5, 6))}
		parts := []string{
			"a", "b", "c", "test", "Testing", "x_test", "a-test", "x.test", "example", "my-examples", "vendor", "usr", "share", "lib", "include", "local", "locale", "locales", "go", "python3.11", "opt", "yarn-v1.2", "var", "log", "anaconda", "wordpress", "src", "gems", ".git", ".gitignore", "node_modules", "x.dist-info", "rules", "deep", "er", "né", "x1", "\u017f", "te\u017ft", "a b",
			"go.mod", "go.sum", "yarn.lock", "Pipfile.lock", "a.jpg", ".jpg", "a.JPG", "a.tar.gz", "a.tar", "b.pyc", "README.md", "x.md5", "settings.xml", "secret.yaml", "a.bin", "bin", "a.", "x.xml", "", "..", "a.gz.txt", "locales.txt",
		}
		content := [][]byte{
			[]byte("short"), []byte("tenletters"),
			[]byte("\x00\x01 binary token " + g.sample(`ghp_[0-9a-zA-Z]{36}`) + "\x00\x02 abcd \x01 \xe9\xe9\xe9\xe9\xe9 ads\xad\xa0 end"),
			[]byte("text with token " + g.sample(`ghp_[0-9a-zA-Z]{36}`) + " and more\n"),
			bytes.Repeat([]byte("\x01\x02"), 200),
		}
		yes, skipped := 0, 0
		for range 4000 {
			var names []string
			for range 1 + g.IntN(4) {
				names = append(names, parts[g.IntN(len(parts))])
			}
			path := strings.Join(names, "/")
			if path == "" {
				continue
			}
			c := content[g.IntN(len(content))]
			info := file{path, len(c)}
			o, th := ours.Required(path, info), theirs.Required(path, info)
			if o != th {
				t.Fatalf("%q with %q: required %v, by Trivy %v", path, text, o, th)
			}
			if !o {
				skipped++
				continue
			}
			for _, dir := range []string{"", "/dir"} {
				in, again := input(path, c), input(path, c)
				in.Dir, again.Dir = dir, dir
				r, err := ours.Analyze(t.Context(), in)
				if err != nil {
					t.Fatal(err)
				}
				tr, err := theirs.Analyze(t.Context(), again)
				if err != nil {
					t.Fatal(err)
				}
				same(t, fmt.Sprintf("%q in %q", path, dir), list(r), list(tr), c)
				if r != nil {
					yes++
					if r.Secrets[0].FilePath != tr.Secrets[0].FilePath {
						t.Fatalf("%q and %q", r.Secrets[0].FilePath, tr.Secrets[0].FilePath)
					}
				}
			}
		}
		s := ours.Stats()
		if yes == 0 || skipped == 0 || s.Binary == 0 || s.Small == 0 || s.Pattern == 0 || s.Searched == 0 || s.Bytes == 0 {
			t.Errorf("%d findings, %d skipped, %+v: not all is covered", yes, skipped, s)
		}
	}
}
