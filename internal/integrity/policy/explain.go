package policy

import (
	"path"
	"strings"

	"github.com/mobileops/mobileops/internal/finding"
)

// Explanation is how a policy comes to its decision about one path.
type Explanation struct {
	Path     string  // clean
	Start    string  // the entry of Paths at or below which it lies; empty when outside
	Matches  []Match // the rules that match, in their order: the last one decides
	Decides  *Rule   // nil when the path is outside, the policy's Default when no rule matches
	Covered  bool    // inside and not excluded
	Attrs    Attr
	Growing  bool
	Severity finding.Severity
}

// Match is a rule that matches a path, or a directory above it.
type Match struct {
	Rule *Rule
	At   string // the shortest part of the path that the pattern matches: the path itself, or an ancestor
}

// Explain says which rules match path, which of them decides, and with what
// result. It looks at names alone, not at the file system: whether the path
// exists, or an ancestor is a symbolic link or a mount point, is not its
// business. A path that is not absolute is taken to begin at the root.
func (p *Policy) Explain(name string) Explanation {
	e := Explanation{Path: path.Clean("/" + name)}
	for _, start := range p.Paths {
		if below(e.Path, start) {
			e.Start = start
		}
	}
	var names []string
	if e.Path != "/" {
		names = strings.Split(e.Path[1:], "/")
	}
	for i := range p.Rules {
		r := &p.Rules[i]
		comps, err := parsePattern(r.Pattern)
		if err != nil {
			continue // as in Compile, it cannot be
		}
		if n := shortestMatch(comps, names); n >= 0 {
			e.Matches = append(e.Matches, Match{r, "/" + strings.Join(names[:n], "/")})
		}
	}
	if e.Start == "" {
		return e
	}
	e.Decides = &p.Default
	if n := len(e.Matches); n > 0 {
		e.Decides = e.Matches[n-1].Rule
	}
	if !e.Decides.Exclude {
		e.Covered = true
		e.Attrs, e.Growing, e.Severity = e.Decides.Attrs, e.Decides.Growing, e.Decides.Severity
	}
	return e
}

// shortestMatch returns how many of the names the pattern takes to match, -1
// when it does not.
func shortestMatch(comps []component, names []string) int {
	if len(comps) == 0 {
		return 0
	}
	// reached[i]: the components before i have matched the names so far.
	reached := make([]bool, len(comps))
	reached[0] = true
	for n, name := range names {
		next := make([]bool, len(comps))
		for i := range comps {
			if !reached[i] {
				continue
			}
			c := &comps[i]
			next[i] = next[i] || c.deep
			for j := range c.globs {
				if !c.globs[j].match([]byte(name)) {
					continue
				}
				if i == len(comps)-1 {
					return n + 1
				}
				next[i+1] = true
			}
		}
		reached = next
	}
	return -1
}
