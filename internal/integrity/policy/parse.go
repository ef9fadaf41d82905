package policy

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

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
	maxProblems  = 50    // reported; a file with more is no policy
	maxNesting   = 200   // brackets and indentation; the YAML parser recurses
)

// Problem is one thing that is wrong with a policy file.
type Problem struct {
	File string `json:"file"`
	Line int    `json:"line,omitempty"` // from 1; 0 when it concerns the whole file
	Text string `json:"message"`
}

// Error returns the problem as compilers put it: "policy.yaml:12: unknown …".
func (p *Problem) Error() string {
	if p.Line == 0 {
		return p.File + ": " + p.Text
	}
	return fmt.Sprintf("%s:%d: %s", p.File, p.Line, p.Text)
}

// ParseError is everything that is wrong with a policy file, in the order of
// its lines. Its failure kind is Usage.
type ParseError struct {
	Name     string
	Problems []*Problem
}

// Error returns one line for each problem.
func (e *ParseError) Error() string { return errors.Join(e.Unwrap()...).Error() }

// Unwrap returns the problems as errors of their own, as errors.Join does, so
// that each is printed on its own line.
func (e *ParseError) Unwrap() []error {
	out := make([]error, len(e.Problems))
	for i, p := range e.Problems {
		out[i] = p
	}
	return out
}

// Parse reads a policy file. The name is what errors call the file; without
// directory and extension it is also the name of a policy that does not give
// its own. The error wraps a *ParseError.
func Parse(name string, data []byte) (*Policy, error) {
	r := reader{policy: &Policy{}, err: &ParseError{Name: name}}
	r.document(data)
	if len(r.err.Problems) > 0 {
		slices.SortStableFunc(r.err.Problems, func(a, b *Problem) int { return a.Line - b.Line })
		if n := len(r.err.Problems); n > maxProblems {
			r.err.Problems = append(r.err.Problems[:maxProblems], &Problem{File: name, Text: fmt.Sprintf("and %d more", n-maxProblems)})
		}
		return nil, failure.Wrap(failure.Usage, r.err)
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
	err    *ParseError
	globs  int
}

func (r *reader) problem(line int, format string, args ...any) {
	r.err.Problems = append(r.err.Problems, &Problem{r.err.Name, line, fmt.Sprintf(format, args...)})
}

func (r *reader) document(data []byte) {
	if len(data) > maxFileBytes {
		r.problem(0, "larger than %d bytes: this is not a policy", maxFileBytes)
		return
	}
	if line := tooDeep(data); line > 0 {
		r.problem(line, "nested more than %d deep", maxNesting)
		return
	}
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var doc, second yaml.Node
	if err := dec.Decode(&doc); errors.Is(err, io.EOF) {
		r.problem(0, "the policy is empty; it needs at least paths")
		return
	} else if err != nil {
		r.syntax(err)
		return
	}
	if err := dec.Decode(&second); err == nil {
		r.problem(second.Line, "a second YAML document: a policy is one")
		return
	} else if !errors.Is(err, io.EOF) {
		r.syntax(err)
		return
	}
	r.top(doc.Content[0])
}

// syntax reports an error of the YAML parser under its line.
func (r *reader) syntax(err error) {
	text := strings.TrimPrefix(strings.ReplaceAll(err.Error(), "\n", " "), "yaml: ")
	line := 0
	if rest, ok := strings.CutPrefix(text, "line "); ok {
		if number, message, ok := strings.Cut(rest, ": "); ok {
			line, _ = strconv.Atoi(number) // else the whole file
			text = message
		}
	}
	if strings.Contains(text, "unknown anchor") || strings.Contains(text, "alphabetic or numeric character") {
		text += "; a pattern that begins with * or & must be in quotes"
	}
	r.problem(line, "%s", text)
}

// tooDeep returns the first line that opens more brackets or has more list
// dashes than any policy does, 0 when there is none. It only has to keep
// hostile files from the recursive YAML parser, so it may count brackets in
// comments and strings.
func tooDeep(data []byte) int {
	depth, line := 0, 1
	for l := range bytes.Lines(data) {
		dashes := 0
		for i, c := range l {
			switch c {
			case '[', '{':
				depth++
			case ']', '}':
				depth = max(0, depth-1)
			case '-', '?', ':':
				if i+1 < len(l) && (l[i+1] == ' ' || l[i+1] == '\t') {
					dashes++
				}
			}
			if depth > maxNesting || dashes > maxNesting {
				return line
			}
		}
		line++
	}
	return 0
}

// fields calls f for each key of a mapping, and reports unknown and repeated
// keys.
func (r *reader) fields(n *yaml.Node, what string, known []string, f func(key string, value *yaml.Node)) {
	if n.Kind != yaml.MappingNode {
		r.problem(n.Line, "%s must have keys (%s)", what, strings.Join(known, ", "))
		return
	}
	seen := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		switch first, again := seen[key.Value]; {
		case key.Kind != yaml.ScalarNode:
			r.problem(key.Line, "a key of %s must be a word", what)
		case again:
			r.problem(key.Line, "%q stands in line %d already", key.Value, first)
		case !slices.Contains(known, key.Value):
			r.problem(key.Line, "unknown key %q in %s%s", key.Value, what, didYouMean(key.Value, known))
		default:
			seen[key.Value] = key.Line
			f(key.Value, value)
		}
	}
}

var (
	topKeys     = []string{"version", "name", "description", "extends", "paths", "cross_filesystems", "defaults", "rules"}
	defaultKeys = []string{"attributes", "severity"}
	ruleKeys    = []string{"path", "attributes", "severity", "class"}
)

func (r *reader) top(n *yaml.Node) {
	if n.Kind != yaml.MappingNode {
		r.problem(n.Line, "a policy must have keys (%s)", strings.Join(topKeys, ", "))
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
				r.problem(v.Line, "version %q: this program knows version 1", s)
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
				r.problem(v.Line, "cross_filesystems is true or false, not %q", s)
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
		r.problem(n.Line, "a policy needs paths: where to start")
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
		r.problem(n.Line, "extends: %v", err)
		return
	}
	p := r.policy
	p.Paths, p.Rules = base.Paths, base.Rules
	p.CrossFilesystems, p.Default = base.CrossFilesystems, base.Default
}

// scalar returns the text of a node that must be a single value.
func (r *reader) scalar(n *yaml.Node, what string) (string, bool) {
	switch {
	case n.Kind == yaml.AliasNode:
		r.problem(n.Line, "%s: aliases are not supported; a pattern that begins with * must be in quotes", what)
	case n.Kind == yaml.ScalarNode && strings.HasPrefix(n.Tag, "!") && !strings.HasPrefix(n.Tag, "!!"):
		r.problem(n.Line, "%s: put it in quotes, YAML takes an unquoted ! for a tag: %q", what, n.Tag)
	case n.Kind == yaml.ScalarNode && n.Tag == "!!null":
		r.problem(n.Line, "%s is empty", what)
	case n.Kind == yaml.ScalarNode && n.Tag != "!!binary":
		return n.Value, true
	default:
		r.problem(n.Line, "%s must be a single value; a pattern with brackets or braces must be in quotes", what)
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
			r.problem(item.Line, "%v", err)
			return
		}
		if clean := path.Clean(p); clean != p {
			r.problem(item.Line, "the path %q is not clean: write %q", text, escapeName(clean))
			return
		}
		paths = append(paths, p)
	})
	switch {
	case len(paths) > maxPaths:
		r.problem(n.Line, "more than %d paths", maxPaths)
		return
	case n.Kind == yaml.SequenceNode && len(n.Content) == 0:
		r.problem(n.Line, "paths is empty: the policy would cover nothing")
	}
	r.policy.Paths = mergePaths(slices.Concat(r.policy.Paths, paths))
}

// attrs reads attributes: a list, or words with commas or spaces between. A
// list that begins with a minus takes away from the defaults.
func (r *reader) attrs(n *yaml.Node, defaults Attr) Attr {
	var list []string
	var lines []int
	each(n, func(item *yaml.Node) {
		s, ok := r.scalar(item, "attributes")
		if !ok {
			return
		}
		for _, w := range strings.FieldsFunc(s, func(c rune) bool { return c == ',' || c == ' ' }) {
			list, lines = append(list, w), append(lines, item.Line)
		}
	})
	if len(list) == 0 && (n.Kind == yaml.SequenceNode || n.Value == "") {
		r.problem(n.Line, "attributes is empty; \"none\" watches for existence only")
		return 0
	}
	var a Attr
	if len(list) > 0 && list[0][0] == '-' {
		a = defaults
	}
	for i := range list {
		next, err := extendAttrs(a, list[i:i+1])
		if err != nil {
			r.problem(lines[i], "%v", err)
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
	r.problem(n.Line, "unknown severity %q%s", s, didYouMean(s, known))
	return 0
}

func (r *reader) rules(n *yaml.Node) {
	if n.Kind != yaml.SequenceNode {
		r.problem(n.Line, "rules must be a list")
		return
	}
	for _, item := range n.Content {
		r.rule(item)
		if len(r.policy.Rules) > maxRules {
			r.problem(item.Line, "more than %d rules", maxRules)
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
				r.problem(v.Line, "unknown class %q%s; the only class is \"growing\"", s, didYouMean(s, []string{"growing"}))
			}
			rule.Growing = true
		}
	})
	if rule.Growing {
		rule.Attrs &^= growingIgnores
	}
	if paths == nil {
		r.problem(n.Line, "the rule has no path")
		return
	}
	if paths.Kind == yaml.SequenceNode && len(paths.Content) == 0 {
		r.problem(paths.Line, "the rule has no path")
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
			r.problem(n.Line, "%q excludes, so it cannot have attributes, a severity or a class", text)
		}
	}
	rule.Pattern, rule.File, rule.Line = pattern, r.err.Name, n.Line
	comps, err := parsePattern(pattern)
	if err != nil {
		r.problem(n.Line, "pattern %q: %v", text, err)
		return
	}
	for _, c := range comps {
		r.globs += len(c.globs)
	}
	if r.globs > maxGlobs {
		r.problem(n.Line, "the braces of all rules stand for more than %d names", maxGlobs)
		return
	}
	r.policy.Rules = append(r.policy.Rules, rule)
}
