package policy

import (
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/mobileops/mobileops/internal/document"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/finding"
	"go.yaml.in/yaml/v3"
)

// Limits of one policy file.
const (
	maxFileBytes = 1 << 20
	maxRules     = 5000
	maxPaths     = 5000
	maxGlobs     = 50000 // over all rules, braces multiplied out
	maxNesting   = 200   // brackets and indentation; the YAML parser recurses
)

// Parse reads a policy file. The name is what errors call the file; without
// directory and extension it is also the name of a policy that does not give
// its own. The error wraps a *document.Error.
func Parse(name string, data []byte) (*Policy, error) {
	r := reader{policy: &Policy{}, err: &document.Error{File: name}}
	r.document(data)
	if err := r.err.Result(failure.Usage); err != nil {
		return nil, err
	}
	if r.policy.Name == "" {
		base := filepath.Base(name)
		r.policy.Name = strings.TrimSuffix(base, filepath.Ext(base))
	}
	return r.policy, nil
}

// reader builds a policy from YAML nodes and collects what is wrong.
type reader struct {
	policy *Policy
	err    *document.Error
	globs  int
}

func (r *reader) problem(n *yaml.Node, format string, args ...any) {
	r.err.Add(document.At(n), format, args...)
}

func (r *reader) document(data []byte) {
	root := r.err.Parse(data, document.Limits{What: "a policy", Bytes: maxFileBytes, Nesting: maxNesting})
	switch {
	case root != nil:
		r.top(root)
	case len(r.err.Problems) == 0:
		r.err.Add(document.Place{}, "the policy is empty; it needs at least paths")
	}
}

// fields calls f for each key of a mapping, and reports unknown keys.
func (r *reader) fields(n *yaml.Node, what string, known []string, f func(key string, value *yaml.Node)) {
	if n.Kind != yaml.MappingNode {
		r.problem(n, "%s must have keys (%s)", what, strings.Join(known, ", "))
		return
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		if !slices.Contains(known, key.Value) {
			r.problem(key, "unknown key %q in %s%s", key.Value, what, document.DidYouMean(key.Value, known))
			continue
		}
		f(key.Value, value)
	}
}

var (
	topKeys     = []string{"version", "name", "description", "extends", "paths", "cross_filesystems", "defaults", "rules"}
	defaultKeys = []string{"attributes", "severity"}
	ruleKeys    = []string{"path", "attributes", "severity", "class"}
)

func (r *reader) top(n *yaml.Node) {
	if n.Kind != yaml.MappingNode {
		r.problem(n, "a policy must have keys (%s)", strings.Join(topKeys, ", "))
		return
	}
	p := r.policy
	p.Default = Rule{Attrs: Standard, Severity: finding.Medium}
	hasPaths := false
	if v := value(n, "extends"); v != nil {
		hasPaths = true
		r.extend(v)
	}
	var rules *yaml.Node
	r.fields(n, "a policy", topKeys, func(key string, v *yaml.Node) {
		switch key {
		case "version":
			if s, ok := r.scalar(v, "version"); ok && s != "1" {
				r.problem(v, "version %q: this program knows version 1", s)
			}
		case "name":
			p.Name, _ = r.scalar(v, "name")
		case "description":
			p.Description, _ = r.scalar(v, "description")
		case "paths":
			hasPaths = true
			r.paths(v)
		case "cross_filesystems":
			s, ok := r.scalar(v, "cross_filesystems")
			if ok && s != "true" && s != "false" {
				r.problem(v, "cross_filesystems is true or false, not %q", s)
			}
			p.CrossFilesystems = s == "true"
		case "defaults":
			r.fields(v, "defaults", defaultKeys, func(key string, v *yaml.Node) {
				switch key {
				case "attributes":
					p.Default.Attrs = r.attrs(v, p.Default.Attrs)
				case "severity":
					p.Default.Severity = r.severity(v)
				}
			})
		case "rules":
			rules = v // after the defaults, wherever those stand
		}
	})
	if !hasPaths {
		r.problem(n, "a policy needs paths: where to start")
	}
	if rules != nil {
		r.rules(rules)
	}
}

// value returns the value of a key that others depend on.
func value(n *yaml.Node, key string) *yaml.Node {
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			return n.Content[i+1]
		}
	}
	return nil
}

// extend begins the policy with a built-in one.
func (r *reader) extend(n *yaml.Node) {
	name, ok := r.scalar(n, "extends")
	if !ok {
		return
	}
	base, err := Builtin(name)
	if err != nil {
		r.problem(n, "extends: %v", err)
		return
	}
	p := r.policy
	p.Paths, p.Rules = base.Paths, base.Rules
	p.CrossFilesystems, p.Default = base.CrossFilesystems, base.Default
}

// scalar returns the text of a node that must be a single value.
func (r *reader) scalar(n *yaml.Node, what string) (string, bool) {
	switch {
	case n.Kind == yaml.ScalarNode && n.Tag == "!!null":
		r.problem(n, "%s is empty", what)
	case n.Kind == yaml.ScalarNode:
		return n.Value, true
	default:
		r.problem(n, "%s must be a single value; a pattern with brackets or braces must be in quotes", what)
	}
	return "", false
}

// each calls f for the items of a list, or for a node that is no list.
func each(n *yaml.Node, f func(*yaml.Node)) {
	if n.Kind != yaml.SequenceNode {
		f(n)
		return
	}
	for _, item := range n.Content {
		f(item)
	}
}

func (r *reader) paths(n *yaml.Node) {
	var paths []string
	each(n, func(item *yaml.Node) {
		text, ok := r.scalar(item, "a path")
		if !ok {
			return
		}
		p, err := parsePath(text)
		if err != nil {
			r.problem(item, "%v", err)
			return
		}
		if clean := path.Clean(p); clean != p {
			r.problem(item, "the path %q is not clean: write %q", text, escapeName(clean))
			return
		}
		paths = append(paths, p)
	})
	switch {
	case len(paths) > maxPaths:
		r.problem(n, "more than %d paths", maxPaths)
		return
	case n.Kind == yaml.SequenceNode && len(n.Content) == 0:
		r.problem(n, "paths is empty: the policy would cover nothing")
	}
	r.policy.Paths = mergePaths(slices.Concat(r.policy.Paths, paths))
}

// attrs reads attributes: a list, or words with commas or spaces between. A
// list that begins with a minus takes away from the defaults.
func (r *reader) attrs(n *yaml.Node, defaults Attr) Attr {
	var list []string
	var at []*yaml.Node
	each(n, func(item *yaml.Node) {
		s, ok := r.scalar(item, "attributes")
		if !ok {
			return
		}
		for _, w := range strings.FieldsFunc(s, func(c rune) bool { return c == ',' || c == ' ' }) {
			list, at = append(list, w), append(at, item)
		}
	})
	if len(list) == 0 && (n.Kind == yaml.SequenceNode || n.Value == "") {
		r.problem(n, "attributes is empty; \"none\" watches for existence only")
		return 0
	}
	var a Attr
	if len(list) > 0 && list[0][0] == '-' {
		a = defaults
	}
	for i := range list {
		next, err := parseAttrs(a, list[i:i+1])
		if err != nil {
			r.problem(at[i], "%v", err)
			continue
		}
		a = next
	}
	return a
}

func (r *reader) severity(n *yaml.Node) finding.Severity {
	s, ok := r.scalar(n, "severity")
	if !ok {
		return 0
	}
	var known []string
	for _, sev := range finding.Severities() {
		if known = append(known, sev.String()); sev.String() == s {
			return sev
		}
	}
	r.problem(n, "unknown severity %q%s", s, document.DidYouMean(s, known))
	return 0
}

func (r *reader) rules(n *yaml.Node) {
	if n.Kind != yaml.SequenceNode {
		r.problem(n, "rules must be a list")
		return
	}
	for _, item := range n.Content {
		r.rule(item)
		if len(r.policy.Rules) > maxRules {
			r.problem(item, "more than %d rules", maxRules)
			return
		}
	}
}

// rule reads one item of rules: a pattern, or keys of which path may be a
// list.
func (r *reader) rule(n *yaml.Node) {
	def := r.policy.Default
	if n.Kind != yaml.MappingNode {
		r.pattern(n, def, false)
		return
	}
	rule := def
	var paths *yaml.Node
	decided := false
	r.fields(n, "a rule", ruleKeys, func(key string, v *yaml.Node) {
		decided = decided || key != "path"
		switch key {
		case "path":
			paths = v
		case "attributes":
			rule.Attrs = r.attrs(v, def.Attrs)
		case "severity":
			rule.Severity = r.severity(v)
		case "class":
			s, ok := r.scalar(v, "class")
			if ok && s != "growing" {
				r.problem(v, "unknown class %q%s", s, document.DidYouMean(s, []string{"growing"}))
			}
			rule.Growing = true
		}
	})
	if rule.Growing {
		rule.Attrs &^= growingIgnores
	}
	if paths == nil {
		r.problem(n, "the rule has no path")
		return
	}
	if paths.Kind == yaml.SequenceNode && len(paths.Content) == 0 {
		r.problem(paths, "the rule has no path")
	}
	each(paths, func(item *yaml.Node) { r.pattern(item, rule, decided) })
}

// pattern adds a rule for one pattern. Decided says that the rule was given
// attributes, a severity or a class, which an excluded path cannot have.
func (r *reader) pattern(n *yaml.Node, rule Rule, decided bool) {
	text, ok := r.scalar(n, "a pattern")
	if !ok {
		return
	}
	pattern, exclude := strings.CutPrefix(text, "!")
	if exclude {
		rule = Rule{Exclude: true}
		if decided {
			r.problem(n, "%q excludes, so it cannot have attributes, a severity or a class", text)
		}
	}
	rule.Pattern, rule.File, rule.Line = pattern, r.err.File, n.Line
	comps, err := parsePattern(pattern)
	if err != nil {
		r.problem(n, "pattern %q: %v", text, err)
		return
	}
	for _, c := range comps {
		r.globs += len(c.globs)
	}
	if r.globs > maxGlobs {
		r.problem(n, "the braces of all rules stand for more than %d names", maxGlobs)
		return
	}
	r.policy.Rules = append(r.policy.Rules, rule)
}
