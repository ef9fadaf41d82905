//go:build goexperiment.jsonv2

package secret

import (
	"regexp"
	"slices"
	"strings"

	"github.com/aquasecurity/trivy/pkg/fanal/secret"

	"github.com/mobileops/mobileops/internal/scan/keyword"
	"github.com/mobileops/mobileops/internal/scan/keyword/window"
)

// paths decides by path: is a file searched, and by which rules. All expressions for
// paths share an automaton, as those for content do.
type paths struct {
	skips     skips
	automaton *keyword.Automaton
	owners    [][]int // expressions by pattern; none: all have to be asked
	all       []*regexp.Regexp
	always    []int
	allow     []int       // expressions of paths that nothing is searched in
	rules     []condition // of the rules that have one
}

// condition is what a rule asks of the path: that it matches, and is not allowed.
// They are numbers of expressions.
type condition struct {
	rule  *secret.Rule
	path  int // -1: none
	allow []int
}

func newPaths(global *secret.Global) (*paths, error) {
	p := &paths{skips: newSkips(global.SkipPatterns)}
	allow := func(rules secret.AllowRules) (numbers []int) {
		for _, r := range rules {
			if r.Path != nil && r.Path.Regexp != nil {
				numbers = append(numbers, p.number(r.Path.Regexp))
			}
		}
		return numbers
	}
	p.allow = allow(global.AllowRules)
	for i := range global.Rules {
		r := &global.Rules[i]
		c := condition{rule: r, path: -1, allow: allow(r.AllowRules)}
		if r.Path != nil && r.Path.Regexp != nil {
			c.path = p.number(r.Path.Regexp)
		}
		if c.path >= 0 || len(c.allow) > 0 {
			p.rules = append(p.rules, c)
		}
	}
	patterns := window.Exotic()
	p.owners = make([][]int, len(patterns))
	for i, re := range p.all {
		anchors := window.New(re).Anchors
		if len(anchors) == 0 {
			p.always = append(p.always, i)
		}
		for _, a := range anchors {
			patterns, p.owners = append(patterns, a), append(p.owners, []int{i})
		}
	}
	var err error
	p.automaton, err = keyword.Compile(patterns)
	return p, err
}

// number enters an expression, once.
func (p *paths) number(re *regexp.Regexp) int {
	i := slices.IndexFunc(p.all, func(o *regexp.Regexp) bool { return o.String() == re.String() })
	if i < 0 {
		i = len(p.all)
		p.all = append(p.all, re)
	}
	return i
}

// location is what is known of a path.
type location struct {
	allowed bool           // nothing is searched in it
	without []*secret.Rule // rules that do not apply to it
	rules   string         // the same, as text
}

// applies tells whether a rule is for the path.
func (l *location) applies(r *rule) bool {
	return len(l.without) == 0 || !slices.Contains(l.without, r.Rule)
}

// profile is all that a result depends on beside the content.
func (l *location) profile(path string) string {
	if textInBinary(path) {
		return l.rules + "b"
	}
	return l.rules
}

// skipped tells whether a pattern leaves a path out.
func (p *paths) skipped(path string) bool { return p.skips.match(path) }

// look asks all expressions for paths.
func (p *paths) look(path string) (l location) {
	var buf [32]keyword.Hit
	hits := p.automaton.Find([]byte(path), buf[:0])
	var matches []int // expressions that match; few if any
	ask := func(i int) {
		if !slices.Contains(matches, i) && p.all[i].MatchString(path) {
			matches = append(matches, i)
		}
	}
	for _, i := range p.always {
		ask(i)
	}
	for _, h := range hits {
		if len(p.owners[h.Pattern]) == 0 {
			for i := range p.all {
				ask(i)
			}
		}
		for _, i := range p.owners[h.Pattern] {
			ask(i)
		}
	}
	any := func(list []int) bool {
		return slices.ContainsFunc(list, func(i int) bool { return slices.Contains(matches, i) })
	}
	if l.allowed = len(matches) > 0 && any(p.allow); l.allowed {
		return l
	}
	if len(p.rules) == 0 {
		return l
	}
	profile := make([]byte, len(p.rules), len(p.rules)+1)
	for n, c := range p.rules {
		profile[n] = '1'
		if c.path >= 0 && !slices.Contains(matches, c.path) || any(c.allow) {
			profile[n] = '0'
			l.without = append(l.without, c.rule)
		}
	}
	l.rules = string(profile)
	return l
}

// skips are patterns of paths that are left out. Asking for each is slow, so those
// of the usual forms are told by name.
type skips struct {
	names      map[string]bool // "**/NAME"
	directory  map[string]bool // "**/NAME/**"
	extensions map[string]bool // "**/*.EXT"
	others     secret.Global
}

func newSkips(patterns []string) skips {
	s := skips{names: map[string]bool{}, directory: map[string]bool{}, extensions: map[string]bool{}}
	simple := func(name string) bool {
		return name != "" && name != "." && name != ".." && !strings.ContainsAny(name, `*?[]{}\/!^`)
	}
	for _, p := range patterns {
		rest, any := strings.CutPrefix(p, "**/")
		below, isDirectory := strings.CutSuffix(rest, "/**")
		extension, isExtension := strings.CutPrefix(rest, "*.")
		switch {
		case any && simple(rest):
			s.names[rest] = true
		case any && isDirectory && simple(below):
			s.directory[below] = true
		case any && isExtension && simple(extension) && !strings.Contains(extension, "."):
			s.extensions[extension] = true
		default:
			s.others.SkipPatterns = append(s.others.SkipPatterns, p)
		}
	}
	return s
}

func (s *skips) match(path string) bool {
	base := path[strings.LastIndexByte(path, '/')+1:]
	if s.names[base] {
		return true
	}
	if dot := strings.LastIndexByte(base, '.'); dot >= 0 && s.extensions[base[dot+1:]] {
		return true
	}
	if len(s.directory) > 0 {
		for rest := path; ; {
			name, below, more := strings.Cut(rest, "/")
			if s.directory[name] {
				return true
			}
			if !more {
				break
			}
			rest = below
		}
	}
	return len(s.others.SkipPatterns) > 0 && s.others.IsSkipped(path)
}
