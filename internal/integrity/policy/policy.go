// Package policy says which paths are under the integrity baseline, which of
// their attributes count, and how bad a change is.
//
// A policy is a YAML file. Its paths say where walks start; everything at and
// below them is covered. Its rules say how, and what is left out:
//
//	paths: [/etc, /usr/bin]
//	defaults: {attributes: standard, severity: medium}
//	rules:
//	  - "!/etc/mtab"
//	  - {path: "/etc/ssh/*_key", severity: critical}
//	  - {path: /var/log, class: growing}
//
// Rules are ordered, and the last one that matches decides alone: nothing is
// merged from the ones before. A rule that matches a directory covers
// everything beneath it, so a later rule can take part of it out and a still
// later one can put part of that back. An entry that no rule matches gets the
// defaults.
//
// A pattern is a slash-separated path. In a component, "*" is any number of
// characters, "?" one, "[a-z]" and "[!a]" one of a class, "{a,b}" one of
// several; a name that begins with a dot is nothing special. A component "**"
// is any number of directories; at the end it is everything inside. With a
// leading slash a pattern begins at the root, without one it matches at any
// depth. A leading "!" excludes. A backslash takes away the meaning of the
// next character, and \xHH is the byte of that value: names are bytes, and
// need not be UTF-8.
//
// A policy can begin with the rules of a built-in one ("extends: system"): its
// paths and rules are then added, and its defaults apply to what no rule of
// either matches.
//
// The form follows gitignore(5) with two differences: "!" takes out instead
// of putting back, and a pattern with a slash inside but none in front matches
// at any depth too.
//
// Parse validates, and reports everything that is wrong at once with line
// numbers. Compile turns a policy into a Matcher, a lazily built automaton
// over directories, which is what a walk of hundreds of thousands of entries
// uses. Encode gives the canonical form that is kept inside a baseline.
package policy

import (
	"cmp"
	"path"
	"slices"
	"strings"

	"github.com/mobileops/mobileops/internal/finding"
)

// Rule is one line of a policy: what it matches and what follows.
type Rule struct {
	Pattern  string           // as written, without the "!"
	Exclude  bool             // the pattern was written with "!"
	Attrs    Attr             // what is compared; 0 for excluded entries
	Growing  bool             // a log: it may grow, what was there must stay; Attrs never has Mtime and Ctime
	Severity finding.Severity // of a change
	File     string           // the policy file it stands in: "system.yaml" for a built-in one
	Line     int              // in File, from 1; 0 when it has none
}

// growingIgnores are the attributes that every line written to a log changes.
const growingIgnores = Mtime | Ctime

// Policy is a validated policy.
type Policy struct {
	Name             string
	Description      string
	Paths            []string // where walks start: absolute, clean, sorted, none below another; bytes, not necessarily UTF-8
	CrossFilesystems bool     // descend into file systems mounted below Paths
	Default          Rule     // for entries below Paths that no rule matches; its Pattern is empty
	Rules            []Rule   // the last one that matches decides
}

// WithPaths returns the policy with the same rules and other start paths. A
// path that is not absolute is taken to begin at the root.
func (p *Policy) WithPaths(paths []string) *Policy {
	q := *p
	q.Rules = slices.Clone(p.Rules)
	q.Paths = mergePaths(paths)
	return &q
}

// Equal reports whether two policies decide and describe the same; the line
// numbers of their rules and the files they came from do not count.
func (p *Policy) Equal(q *Policy) bool {
	return p.Name == q.Name && p.Description == q.Description &&
		p.CrossFilesystems == q.CrossFilesystems &&
		slices.Equal(p.Paths, q.Paths) && p.Default.equal(q.Default) &&
		slices.EqualFunc(p.Rules, q.Rules, Rule.equal)
}

func (r Rule) equal(s Rule) bool {
	r.File, s.File = "", ""
	r.Line, s.Line = 0, 0
	return r == s
}

// mergePaths cleans and sorts start paths, and drops those below another.
func mergePaths(paths []string) []string {
	clean := make([]string, 0, len(paths))
	for _, p := range paths {
		clean = append(clean, path.Clean("/"+p))
	}
	// In the order of their components, a directory comes right before
	// everything below it: "/a", "/a/b", "/a-b".
	slices.SortFunc(clean, func(a, b string) int {
		return slices.Compare(strings.Split(a, "/"), strings.Split(b, "/"))
	})
	var out []string
	for _, p := range clean {
		if len(out) == 0 || !below(p, out[len(out)-1]) {
			out = append(out, p)
		}
	}
	slices.SortFunc(out, cmp.Compare)
	return out
}

// below reports whether the clean path p is dir or lies beneath it.
func below(p, dir string) bool {
	return dir == "/" || p == dir || strings.HasPrefix(p, dir) && p[len(dir)] == '/'
}
