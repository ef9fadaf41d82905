package policy

import (
	"fmt"
	"math/rand/v2"
	"path"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
)

// rulesPolicy returns a policy with start paths and one rule for each pattern.
func rulesPolicy(t testing.TB, paths []string, patterns ...string) *Policy {
	t.Helper()
	var b strings.Builder
	for _, p := range paths {
		fmt.Fprintf(&b, "- %s\n", quote(p))
	}
	text := "paths:\n" + b.String()
	if len(patterns) > 0 {
		text += "rules:\n"
	}
	for _, p := range patterns {
		text += "- " + quote(p) + "\n"
	}
	p, err := Parse("test.yaml", []byte(text))
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	return p
}

// decide walks down to path as an engine does, except that it goes on where
// the walk could stop, and checks that Prune and OnlyNames told the truth.
func decide(t testing.TB, m *Matcher, name string) *Rule {
	t.Helper()
	if name == "/" {
		return m.RootRule()
	}
	s := m.Root()
	names := strings.Split(name[1:], "/")
	stopped := ""
	for i, n := range names {
		if s.Prune() {
			stopped = "/" + strings.Join(names[:i], "/") + " is pruned"
		} else if only, ok := s.OnlyNames(); ok && !slices.Contains(only, n) {
			stopped = fmt.Sprintf("/%s has only %q", strings.Join(names[:i], "/"), only)
		}
		if i == len(names)-1 {
			break
		}
		s = s.Enter([]byte(n))
	}
	r := s.Rule([]byte(names[len(names)-1]))
	if r != nil && stopped != "" {
		t.Errorf("%s, but %s is covered by %q", stopped, name, r.Pattern)
	}
	return r
}

// reference decides with one regular expression for each pattern: slow, and
// nothing in common with the automaton.
func reference(p *Policy, name string) *Rule {
	inside := false
	for _, start := range p.Paths {
		inside = inside || start == "/" || name == start || strings.HasPrefix(name, start+"/")
	}
	if !inside {
		return nil
	}
	decides := &p.Default
	for i := range p.Rules {
		if pattern := p.Rules[i].Pattern; name == "/" && pattern != "/" {
			continue // nothing else matches the root directory
		} else if referenceRegexp(pattern).MatchString(name) {
			decides = &p.Rules[i]
		}
	}
	if decides.Exclude {
		return nil
	}
	return decides
}

// referenceCache keeps what was compiled: there are few patterns and many paths.
var referenceCache sync.Map

func referenceRegexp(pattern string) *regexp.Regexp {
	if re, ok := referenceCache.Load(pattern); ok {
		return re.(*regexp.Regexp)
	}
	re := translate(pattern)
	referenceCache.Store(pattern, re)
	return re
}

// translate writes a pattern as a regular expression over the whole path.
func translate(pattern string) *regexp.Regexp {
	if pattern == "/" {
		return regexp.MustCompile(`^/`)
	}
	re := "^"
	if !strings.HasPrefix(pattern, "/") {
		re += "(?:/[^/]+)*"
	}
	for _, part := range strings.Split(strings.TrimPrefix(pattern, "/"), "/") {
		if part == "**" {
			re += "(?:/[^/]+)*"
			continue
		}
		re += "/"
		class := false
		for i, c := range part {
			switch {
			case class:
				class = c != ']' || part[i-1] == '[' || part[i-2:i] == "[!"
				if c == '!' && part[i-1] == '[' {
					re += "^/"
				} else if strings.ContainsRune(`\^[]`, c) && class {
					re += `\` + string(c)
				} else {
					re += string(c)
				}
			case c == '[':
				class = true
				re += "["
			case c == '*':
				re += "[^/]*"
			case c == '?':
				re += "[^/]"
			case c == '{':
				re += "(?:"
			case c == ',':
				re += "|"
			case c == '}':
				re += ")"
			default:
				re += regexp.QuoteMeta(string(c))
			}
		}
	}
	if strings.HasSuffix(pattern, "**") {
		re = strings.TrimSuffix(re, "(?:/[^/]+)*") + "(?:/[^/]+)+"
	}
	return regexp.MustCompile(re + "(?:/.*)?$")
}

// tree returns all paths of a depth over some names.
func tree(names []string, depth int) []string {
	level, all := []string{""}, []string{"/"}
	for range depth {
		var next []string
		for _, p := range level {
			for _, n := range names {
				next = append(next, p+"/"+n)
			}
		}
		all = append(all, next...)
		level = next
	}
	return all
}

func TestMatcherAgainstReference(t *testing.T) {
	names := []string{"a", "b", "ab", "aab", "ba.c"}
	parts := []string{"a", "b", "ab", "*", "**", "**", "a*", "*b", "?", "?b", "[ab]", "[!a]*", "*a*b", "{a,b}", "{a*,ba.c}", "*.c", "a{,a}b", "nowhere"}
	starts := [][]string{{"/"}, {"/a"}, {"/a", "/b/ab"}, {"/a/b", "/a/a"}, {"/nowhere", "/b"}}
	paths := tree(names, 4)
	rounds := 400
	if testing.Short() {
		rounds = 50
	}
	for round := range rounds {
		rnd := rand.New(rand.NewPCG(1, uint64(round)))
		var patterns []string
		for range rnd.IntN(6) {
			var p []string
			for range 1 + rnd.IntN(3) {
				p = append(p, parts[rnd.IntN(len(parts))])
			}
			text := strings.Join(p, "/")
			if rnd.IntN(3) > 0 {
				text = "/" + text
			}
			if rnd.IntN(2) == 0 {
				text = "!" + text
			}
			patterns = append(patterns, text)
		}
		if rnd.IntN(10) == 0 {
			patterns = append([]string{"!/"}, patterns...)
		}
		p := rulesPolicy(t, starts[rnd.IntN(len(starts))], patterns...)
		m := p.Compile()
		for _, name := range paths {
			got, want := decide(t, m, name), reference(p, name)
			if e := p.Explain(name); e.Covered != (want != nil) || e.Covered && !e.Decides.equal(*want) {
				t.Errorf("Explain(%s) with %q below %q: %+v, want %+v", name, patterns, p.Paths, e.Decides, want)
			}
			if got == nil && want == nil {
				continue
			}
			if got == nil || want == nil || *got != *want {
				t.Errorf("%s with %q below %q: %+v, want %+v", name, patterns, p.Paths, got, want)
			}
		}
		if t.Failed() {
			t.Fatalf("round %d", round)
		}
	}
}

func TestDecisions(t *testing.T) {
	for _, tc := range []struct {
		paths, patterns []string
		covered, not    []string
	}{
		{
			[]string{"/etc", "/usr/bin"}, nil,
			[]string{"/etc", "/etc/x/y", "/usr/bin", "/usr/bin/ls"},
			[]string{"/", "/usr", "/usr/binx", "/usr/lib", "/etcx", "/root"},
		},
		{ // a later rule puts back what an earlier one took out, below it too
			[]string{"/"}, []string{"!/var", "/var/log/audit", "!*.gz"},
			[]string{"/", "/etc", "/var/log/audit", "/var/log/audit/a"},
			[]string{"/var", "/var/log", "/var/log/syslog", "/var/log/audit/a.gz", "/x.gz/y"},
		},
		{ // trailing ** is the inside, not the directory
			[]string{"/"}, []string{"!/tmp/**", "!/run"},
			[]string{"/tmp", "/tmpx"},
			[]string{"/tmp/a", "/tmp/a/b", "/run", "/run/a"},
		},
		{ // ** stands for no directory too
			[]string{"/"}, []string{"!/a/**/z"},
			[]string{"/a", "/a/b", "/z", "/b/a/z"},
			[]string{"/a/z", "/a/b/z", "/a/b/c/z", "/a/z/b"},
		},
		{ // a relative pattern with a slash inside matches at any depth
			[]string{"/"}, []string{"!a/b"},
			[]string{"/a", "/b", "/a/c/b"},
			[]string{"/a/b", "/x/a/b", "/x/y/a/b/z"},
		},
		{ // a dot at the beginning is nothing special; case counts
			[]string{"/"}, []string{"!/h/*", "/h/.ssh", "!*.BAK"},
			[]string{"/h", "/h/.ssh/id", "/x.bak"},
			[]string{"/h/.profile", "/h/.SSH", "/x.BAK"},
		},
		{ // names are bytes
			[]string{"/"}, []string{`!*\xff*`, "!/u/?", `!/w/[\x80-\xff]`, `!/v/\x0a`, `!/\!x`, `!/c/[é-ü]`},
			[]string{"/u", "/u/ab", "/x\xfe", "/w/é", "/x", "/c/e", "/c/\xc3"},
			[]string{"/a\xffb", "/u/é", "/u/\xfe", "/u/日", "/w/\xc3", "/v/\n", "/!x", "/c/ö"},
		},
		{ // brackets and braces
			[]string{"/"}, []string{"![]a-c]", "!/x[!0-9]", "!/{p,q{r,s*}}.{1,2}", `!/\{a,b\}`, `!/[a\]]x`, "!/lib{,32,64}", "!/a[-z]"},
			[]string{"/d", "/x1", "/p.3", "/q.1", "/qr.1x", "/lib3", "/ay"},
			[]string{"/a", "/]", "/k/b/z", "/xa", "/p.1", "/qr.2", "/qs.1", "/qsss.1", "/{a,b}", "/]x", "/lib", "/lib64", "/a-", "/az"},
		},
	} {
		p := rulesPolicy(t, tc.paths, tc.patterns...)
		m := p.Compile()
		check := func(names []string, want bool) {
			for _, n := range names {
				if got := decide(t, m, n) != nil; got != want {
					t.Errorf("%q with %q: covered %t", n, tc.patterns, got)
				}
				if got := p.Explain(n).Covered; got != want {
					t.Errorf("Explain(%q) with %q: covered %t", n, tc.patterns, got)
				}
			}
		}
		check(tc.covered, true)
		check(tc.not, false)
	}
}

func TestPruneAndOnlyNames(t *testing.T) {
	for _, tc := range []struct {
		paths, patterns []string
		dir             string
		prune           bool
		only            string // names joined by a space, "-" for all
	}{
		{[]string{"/usr/bin", "/etc"}, nil, "/", false, "etc usr"},
		{[]string{"/usr/bin", "/etc"}, nil, "/usr", false, "bin"},
		{[]string{"/usr/bin", "/etc"}, nil, "/etc", false, "-"},
		{[]string{"/usr/bin", "/etc"}, nil, "/home", true, "-"},
		{[]string{"/"}, []string{"!/proc"}, "/", false, "-"},
		{[]string{"/"}, []string{"!/proc"}, "/proc", true, "-"},
		{[]string{"/"}, []string{"!/proc/**"}, "/proc", true, "-"},
		{[]string{"/"}, []string{"!/var", "/var/{log,lib}/x"}, "/var", false, "lib log"},
		{[]string{"/"}, []string{"!/var", "/var/log", "/var/lib/dpkg"}, "/var/lib", false, "dpkg"},
		{[]string{"/"}, []string{"!/var", "/var/log", "/var/lib/dpkg"}, "/var/cache", true, "-"},
		{[]string{"/"}, []string{"!/var", "/var/l*"}, "/var", false, "-"},
		{[]string{"/"}, []string{"!/var", "*.key"}, "/var/a/b", false, "-"},
		{[]string{"/"}, []string{"!/var", "/var/log", "!/var/**"}, "/var", true, "-"},
		{[]string{"/"}, []string{"/var/log", "!/var"}, "/var", true, "-"},
		{[]string{"/"}, []string{"!**"}, "/", true, "-"},
		{[]string{"/"}, []string{"!/"}, "/", true, "-"},
		{[]string{"/"}, []string{"!/", "/etc"}, "/", false, "etc"},
		{[]string{"/srv/x"}, []string{"!/srv"}, "/", false, "srv"},
		{[]string{"/srv/x"}, []string{"!/srv"}, "/srv", true, "-"},
	} {
		s := rulesPolicy(t, tc.paths, tc.patterns...).Compile().Root()
		for n := range strings.SplitSeq(tc.dir, "/") {
			if n != "" {
				s = s.Enter([]byte(n))
			}
		}
		only := "-"
		if names, ok := s.OnlyNames(); ok {
			only = strings.Join(names, " ")
		}
		if s.Prune() != tc.prune || only != tc.only {
			t.Errorf("%s with %q: prune %t, only %q; want %t, %q", tc.dir, tc.patterns, s.Prune(), only, tc.prune, tc.only)
		}
	}
}

func TestStatesAreShared(t *testing.T) {
	s := rulesPolicy(t, []string{"/"}, "!/etc/x", "!*.bak", "!__pycache__").Compile().Root().Enter([]byte("usr"))
	if s.Enter([]byte("lib")) != s || s.Enter([]byte("a")).Enter([]byte("b")) != s {
		t.Error("directories that no pattern names have states of their own")
	}
	if n := testing.AllocsPerRun(100, func() { s.Enter([]byte("lib")) }); n != 0 {
		t.Errorf("Enter allocates %v times", n)
	}
}

func TestMatcherInParallel(t *testing.T) {
	p := rulesPolicy(t, []string{"/"}, "!a*/b*/c*", "*/b/*", "!/x/**/c")
	m := p.Compile()
	paths := tree([]string{"a", "ab", "b", "c", "x"}, 4)
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := range paths {
				name := paths[(i+g*len(paths)/4)%len(paths)]
				got, want := decide(t, m, name), reference(p, name)
				if (got == nil) != (want == nil) {
					t.Errorf("%s: %+v, want %+v", name, got, want)
				}
			}
		})
	}
	wg.Wait()
}

// TestMatchIsNotExponential runs a pattern on which backtracking over every
// star would take longer than the universe is old.
func TestMatchIsNotExponential(t *testing.T) {
	globs, err := parseComponent(strings.Repeat("*a", 60) + "*b")
	if err != nil {
		t.Fatal(err)
	}
	if globs[0].match([]byte(strings.Repeat("a", 255))) {
		t.Error("matches without a b")
	}
	deep := rulesPolicy(t, []string{"/"}, "!/"+strings.Repeat("**/*a*/", 100)+"b")
	m := deep.Compile()
	if decide(t, m, strings.Repeat("/aa", 200)+"/c") == nil || decide(t, m, strings.Repeat("/aa", 200)+"/b") != nil {
		t.Error("wrong decision")
	}
}

// FuzzMatcher compares the automaton with the reference on patterns and paths
// in ASCII, the domain in which regular expressions mean the same.
func FuzzMatcher(f *testing.F) {
	f.Add("!/a\n*.b\n!a*/**/c", "/", "/a/x.b/c")
	f.Add("!**/x\n/x/{a,b}/**", "/x", "/x/b/x")
	f.Add("!*a*a*b", "/a/b", "/a/b/aaab")
	f.Add("![!a-c]*", "/", "/d")
	f.Fuzz(func(t *testing.T, rules, start, name string) {
		for _, s := range []string{rules, start, name} {
			if len(s) > 200 || strings.ContainsFunc(s, func(c rune) bool { return c > '~' || c < ' ' && c != '\n' || c == '\\' }) {
				t.Skip()
			}
		}
		if !strings.HasPrefix(name, "/") || strings.Contains(name, "\n") {
			t.Skip()
		}
		p := &Policy{Paths: mergePaths([]string{start})}
		for line := range strings.SplitSeq(rules, "\n") {
			pattern, exclude := strings.CutPrefix(line, "!")
			if _, err := parsePattern(pattern); err != nil || strings.ContainsAny(pattern, "^") || commaOutside(pattern) {
				t.Skip()
			}
			p.Rules = append(p.Rules, Rule{Pattern: pattern, Exclude: exclude})
		}
		name = path.Clean(name)
		got, want := decide(t, p.Compile(), name), reference(p, name)
		if (got == nil) != (want == nil) || got != nil && *got != *want {
			t.Errorf("%q: %+v, want %+v", name, got, want)
		}
	})
}

// commaOutside reports a comma, brace or bracket that the simple-minded
// translation of the reference would take for one with a meaning.
func commaOutside(pattern string) bool {
	depth := 0
	for i := 0; i < len(pattern); i++ {
		switch pattern[i] {
		case '{':
			depth++
		case '}':
			depth--
		case ',':
			if depth <= 0 {
				return true
			}
		case '[':
			end := strings.IndexByte(pattern[i+1:], ']')
			inside := pattern[i+1 : i+1+max(end, 0)]
			if end < 0 || inside == "" || inside == "!" || strings.ContainsAny(inside, "[{},&~") || strings.ContainsAny(inside[1:], "!-") && !plainRange(inside) {
				return true
			}
			i += end + 1
		}
		if depth < 0 {
			return true
		}
	}
	return depth != 0
}

var rangePattern = regexp.MustCompile(`^!?[a-z]-[a-z]$`)

func plainRange(s string) bool { return rangePattern.MatchString(s) }

// usr is a tree like /usr/lib: most names are mentioned by no pattern.
func benchmarkState(b *testing.B, patterns ...string) *State {
	s := rulesPolicy(b, []string{"/"}, patterns...).Compile().Root()
	return s.Enter([]byte("usr")).Enter([]byte("lib"))
}

func BenchmarkRulePlain(b *testing.B) {
	s := benchmarkState(b, "!/etc/x", "/usr/bin")
	name := []byte("libcrypto.so.3")
	b.ReportAllocs()
	for b.Loop() {
		s.Rule(name)
	}
}

func BenchmarkRuleGlobs(b *testing.B) {
	s := benchmarkState(b, "!__pycache__", "!*.pyc", "!*~", "*.so*", "!*.cache")
	name := []byte("libcrypto.so.3")
	b.ReportAllocs()
	for b.Loop() {
		s.Rule(name)
	}
}

func BenchmarkEnter(b *testing.B) {
	s := benchmarkState(b, "!__pycache__", "!*.pyc", "!*~", "*.so*", "!*.cache")
	for _, name := range []string{"x86_64-linux-gnu", "__pycache__", "x.so"} {
		b.Run(name, func(b *testing.B) {
			n := []byte(name)
			b.ReportAllocs()
			for b.Loop() {
				s.Enter(n)
			}
		})
	}
}

func BenchmarkSystemPolicy(b *testing.B) {
	p, err := Builtin("system")
	if err != nil {
		b.Fatal(err)
	}
	s := p.Compile().Root().Enter([]byte("usr")).Enter([]byte("lib"))
	name := []byte("x86_64-linux-gnu")
	b.Run("Rule", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			s.Rule(name)
		}
	})
	b.Run("Enter", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			s.Enter(name)
		}
	})
}
