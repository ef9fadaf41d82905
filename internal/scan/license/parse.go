package license

import (
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/mobileops/mobileops/internal/document"
	"github.com/mobileops/mobileops/internal/failure"
	"go.yaml.in/yaml/v3"
)

// PolicySchema is the first line of a policy's file.
const PolicySchema = "mobileops.license-policy/v1"

// Limits of one policy file.
const (
	maxPolicyBytes   = 1 << 20
	maxPolicyEntries = 20_000 // over all lists
	maxPolicyNesting = 50     // brackets and indentation; the YAML parser recurses
)

// ParsePolicy reads a policy. The name is what errors and rules call the file. The
// error wraps a *document.Error, and is of kind failure.Usage.
func ParsePolicy(name string, data []byte) (*Policy, error) {
	r := reader{name: name, policy: &Policy{Name: name, classes: map[Outcome]*class{}}, err: &document.Error{File: name}}
	root := r.err.Parse(data, document.Limits{What: "a policy", Bytes: maxPolicyBytes, Nesting: maxPolicyNesting})
	switch {
	case root != nil:
		r.top(root)
	case len(r.err.Problems) == 0:
		r.err.Add(document.Place{}, "the policy is empty; it begins with \"schema: %s\"", PolicySchema)
	}
	if err := r.err.Result(failure.Usage); err != nil {
		return nil, err
	}
	return r.policy, nil
}

// reader builds a policy from YAML nodes and collects what is wrong.
type reader struct {
	name    string
	policy  *Policy
	err     *document.Error
	entries int
}

func (r *reader) problem(n *yaml.Node, format string, args ...any) {
	r.err.Add(document.At(n), format, args...)
}

// mapping calls each for the keys of a mapping that are known.
func (r *reader) mapping(n *yaml.Node, what string, keys map[string]func(value *yaml.Node)) {
	if n.Kind != yaml.MappingNode {
		r.problem(n, "%s must be a mapping of keys to values", what)
		return
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		if f, ok := keys[key.Value]; ok {
			f(value)
			continue
		}
		r.problem(key, "unknown key %q in %s%s", key.Value, what, document.DidYouMean(key.Value, slices.Sorted(maps.Keys(keys))))
	}
}

func (r *reader) top(n *yaml.Node) {
	p := r.policy
	schema := false
	p.unknown = standard{Deny, Rule{r.name, 0, "unknown: deny, since the policy doesn't say"}}
	p.unknownWithText = standard{outcome: -1}
	p.none = standard{Deny, Rule{r.name, 0, "no-license: deny, since the policy doesn't say"}}
	keys := map[string]func(*yaml.Node){
		"schema": func(v *yaml.Node) {
			schema = true
			if v.Value != PolicySchema {
				r.problem(v, "the schema is %q, and this version reads %q", v.Value, PolicySchema)
			}
		},
		"attribution-required": func(v *yaml.Node) { p.attribution = r.class(v, "attribution-required") },
		"exceptions":           func(v *yaml.Node) { r.list(v, "exceptions", r.exception) },
		"licensed":             func(v *yaml.Node) { r.list(v, "licensed", r.grant) },
	}
	for _, o := range []Outcome{Allow, Review, Deny} {
		keys[o.String()] = func(v *yaml.Node) { p.classes[o] = r.class(v, o.String()) }
	}
	for key, to := range map[string]*standard{"unknown": &p.unknown, "unknown-with-text": &p.unknownWithText, "no-license": &p.none} {
		keys[key] = func(v *yaml.Node) {
			o, ok := r.outcome(v, key)
			if ok {
				*to = standard{o, Rule{r.name, v.Line, key + ": " + o.String()}}
			}
		}
	}
	r.mapping(n, "the policy", keys)
	if !schema {
		r.err.Add(document.Place{}, "the key \"schema\" is missing: \"schema: %s\"", PolicySchema)
	}
	if p.unknownWithText.outcome < 0 {
		p.unknownWithText = p.unknown
	}
	if len(p.classes) == 0 && len(r.err.Problems) == 0 {
		r.err.Add(document.Place{}, "none of allow, review and deny is there: the policy says nothing")
	}
}

func (r *reader) outcome(v *yaml.Node, key string) (Outcome, bool) {
	for _, o := range []Outcome{Allow, Review, Deny} {
		if v.Kind == yaml.ScalarNode && v.Value == o.String() {
			return o, true
		}
	}
	r.problem(v, "%s must be allow, review or deny, not %q", key, v.Value)
	return 0, false
}

func (r *reader) class(n *yaml.Node, name string) *class {
	c := &class{name: name}
	r.mapping(n, name, map[string]func(*yaml.Node){
		"licenses": func(v *yaml.Node) {
			r.list(v, name+".licenses", func(e *yaml.Node) {
				text, ok := r.text(e, name+".licenses")
				if !ok {
					return
				}
				if t, ok := r.license(text, e); ok {
					c.licenses = append(c.licenses, listed{t, e.Line})
				}
			})
		},
		"categories": func(v *yaml.Node) {
			r.list(v, name+".categories", func(e *yaml.Node) {
				text, ok := r.text(e, name+".categories")
				if !ok {
					return
				}
				if !slices.Contains(Categories(), Category(text)) {
					r.problem(e, "%q is no category; there are %v", text, Categories())
					return
				}
				c.categories = append(c.categories, listed{text, e.Line})
			})
		},
	})
	return c
}

// license checks an entry of a list: an identifier of SPDX with or without an
// exception, one of ours (LicenseRef-…), or a pattern. A GNU licence without -only
// and -or-later stands for both.
func (r *reader) license(text string, n *yaml.Node) (string, bool) {
	if strings.ContainsAny(text, "*?[") {
		if _, err := path.Match(text, ""); err != nil {
			r.problem(n, "%q is no pattern: %v", text, err)
			return "", false
		}
		for id := range catalogue() {
			if glob(strings.ToLower(text), id) {
				return text, true
			}
		}
		if !strings.HasPrefix(text, "LicenseRef-") {
			r.problem(n, "no licence is called like %q", text)
			return "", false
		}
		return text, true
	}
	e, err := Parse(text)
	if err != nil || e.Op != Leaf {
		r.problem(n, "%q is not one licence; write the identifiers one by one", text)
		return "", false
	}
	if e.Exception != "" && exceptions()[strings.ToLower(e.Exception)] == "" {
		r.problem(n, "%q is no exception that SPDX has", e.Exception)
		return "", false
	}
	if !e.Known {
		if known := ParseName(text); known.Op == Leaf && known.Known {
			r.problem(n, "%q is no identifier of SPDX; do you mean %s?", text, known)
		} else {
			r.problem(n, "%q is no identifier of SPDX; a licence of your own is called LicenseRef-…", text)
		}
		return "", false
	}
	if gnu(e.ID) && e.Exception == "" {
		if entry, ok := catalogue()[strings.ToLower(text)]; ok && family(entry.id) == entry.id {
			return entry.id, true
		}
	}
	return e.String(), true
}

// list calls each for the elements of a list.
func (r *reader) list(n *yaml.Node, what string, each func(*yaml.Node)) {
	if n.Kind == yaml.ScalarNode && n.Tag == "!!null" {
		return
	}
	if n.Kind != yaml.SequenceNode {
		r.problem(n, "%s must be a list", what)
		return
	}
	for _, e := range n.Content {
		if r.entries++; r.entries > maxPolicyEntries {
			if r.entries == maxPolicyEntries+1 {
				r.problem(e, "more than %d entries in all lists", maxPolicyEntries)
			}
			return
		}
		each(e)
	}
}

func (r *reader) text(v *yaml.Node, what string) (string, bool) {
	if v.Kind != yaml.ScalarNode || v.Tag == "!!null" || strings.TrimSpace(v.Value) == "" {
		r.problem(v, "%s must be a text", what)
		return "", false
	}
	return strings.TrimSpace(v.Value), true
}

// selector reads what exceptions and grants have in common, and the keys of extra.
func (r *reader) selector(n *yaml.Node, what string, required []string, extra map[string]func(*yaml.Node)) (s selector) {
	s.line = n.Line
	set := map[string]bool{}
	text := func(key string, to *string) func(*yaml.Node) {
		return func(v *yaml.Node) {
			if t, ok := r.text(v, what+"."+key); ok {
				*to = t
			}
			set[key] = true
		}
	}
	keys := map[string]func(*yaml.Node){
		"package": text("package", &s.pattern), "version": text("version", &s.version), "reason": text("reason", &s.reason), "owner": text("owner", &s.owner),
		"expires": func(v *yaml.Node) {
			set["expires"] = true
			day, err := time.Parse(time.DateOnly, v.Value)
			if err != nil {
				r.problem(v, "%s.expires must be a day, such as 2027-01-31, not %q", what, v.Value)
				return
			}
			s.expires = day.AddDate(0, 0, 1).Add(-time.Nanosecond)
		},
	}
	for k, f := range extra {
		keys[k] = func(v *yaml.Node) { set[k] = true; f(v) }
	}
	r.mapping(n, what, keys)
	for _, k := range required {
		if !set[k] && n.Kind == yaml.MappingNode {
			r.problem(n, "%s needs %q", what, k)
		}
	}
	for _, g := range []string{s.pattern, s.version} {
		if _, err := path.Match(g, ""); err != nil {
			r.problem(n, "%q is no pattern: %v", g, err)
		}
	}
	return s
}

func (r *reader) exception(n *yaml.Node) {
	e := exception{attribution: true}
	e.selector = r.selector(n, "an exception", []string{"package", "verdict", "reason", "owner", "expires"}, map[string]func(*yaml.Node){
		"verdict": func(v *yaml.Node) { e.outcome, _ = r.outcome(v, "verdict") },
		"attribution": func(v *yaml.Node) {
			if err := v.Decode(&e.attribution); err != nil {
				r.problem(v, "attribution must be true or false, not %q", v.Value)
			}
		},
		"licenses": func(v *yaml.Node) {
			r.list(v, "licenses", func(l *yaml.Node) {
				if text, ok := r.text(l, "licenses"); ok {
					x, err := Parse(text)
					if err != nil {
						r.problem(l, "%v", err)
						return
					}
					e.licenses = append(e.licenses, x)
				}
			})
		},
	})
	r.policy.exceptions = append(r.policy.exceptions, e)
}

func (r *reader) grant(n *yaml.Node) {
	var g grant
	set := func(to *string, what string) func(*yaml.Node) {
		return func(v *yaml.Node) { *to, _ = r.text(v, what) }
	}
	g.selector = r.selector(n, "an entry of licensed", []string{"package", "contract", "owner", "expires"}, map[string]func(*yaml.Node){
		"contract": set(&g.contract, "contract"), "licensor": set(&g.licensor, "licensor"),
	})
	r.policy.licensed = append(r.policy.licensed, g)
}
