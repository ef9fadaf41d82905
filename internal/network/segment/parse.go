package segment

import (
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/mobileops/mobileops/internal/document"
	"github.com/mobileops/mobileops/internal/failure"
	"go.yaml.in/yaml/v3"
)

// Limits of one document.
const (
	maxFileBytes    = 1 << 20
	maxNesting      = 100 // brackets and indentation; the YAML parser recurses
	maxZones        = 256
	maxWorkloads    = 4096
	maxPortsOfZone  = 1000 // a bridge of the kernel has 1023
	maxFlows        = 4096
	maxSubnets      = 8 // of one zone
	maxRemotes      = 256
	maxTargets      = 1024 // of one egress policy
	maxReservations = 4096
	maxRecords      = 10000
	maxLabels       = 32
	maxInternal     = 1024
)

// Parse reads a document. The name is what errors call the file; without
// directory and extension it is also the name of a document that does not give
// its own. The error wraps a *document.Error, and is of kind failure.Usage.
func Parse(name string, data []byte) (*Document, error) {
	r := reader{doc: &Document{}, err: &document.Error{File: name}, places: map[string]document.Place{}}
	r.document(data)
	if len(r.err.Problems) == 0 {
		if r.doc.Name == "" {
			base := filepath.Base(name)
			r.doc.Name = strings.TrimSuffix(base, filepath.Ext(base))
			if !word(r.doc.Name, "_.-", 63) {
				r.err.Add(document.Place{}, "the document needs a name: the name of its file is not fit for one (lower-case letters, digits and _ . -)")
			}
		}
		check(r.doc, func(where string, format string, args ...any) { r.err.Add(r.at(where), format, args...) })
	}
	if err := r.err.Result(failure.Usage); err != nil {
		return nil, err
	}
	return r.doc, nil
}

// reader builds a document from YAML nodes and collects what is wrong.
type reader struct {
	doc    *Document
	err    *document.Error
	places map[string]document.Place // of what check speaks of: "zone dev", "flow 3"
}

func (r *reader) problem(n *yaml.Node, format string, args ...any) {
	r.err.Add(document.At(n), format, args...)
}

// at returns where something stands, or the nearest thing around it: the place
// of "zone dev dhcp" is that of "zone dev" when the zone has no key dhcp.
func (r *reader) at(where string) document.Place {
	for where != "" {
		if p, ok := r.places[where]; ok {
			return p
		}
		where = where[:max(0, strings.LastIndexByte(where, ' '))]
	}
	return document.Place{}
}

func (r *reader) mark(n *yaml.Node, where string) { r.places[where] = document.At(n) }

func (r *reader) document(data []byte) {
	root := r.err.Parse(data, document.Limits{What: "a document of segments", Bytes: maxFileBytes, Nesting: maxNesting})
	switch {
	case root != nil:
		r.top(root)
	case len(r.err.Problems) == 0:
		r.err.Add(document.Place{}, "the document is empty; it needs at least version and zones")
	}
}

// fields calls f for each key of a mapping, and reports unknown and repeated
// keys.
func (r *reader) fields(n *yaml.Node, what string, known []string, f func(key string, value *yaml.Node)) {
	r.entries(n, what, maxFileBytes, func(key, value *yaml.Node) {
		for _, k := range known {
			if k == key.Value {
				f(k, value)
				return
			}
		}
		r.problem(key, "unknown key %q in %s%s", key.Value, what, document.DidYouMean(key.Value, known))
	})
}

// entries calls f for each key of a mapping whose keys are names.
func (r *reader) entries(n *yaml.Node, what string, most int, f func(key, value *yaml.Node)) {
	switch {
	case n.Kind != yaml.MappingNode:
		r.problem(n, "%s must have keys, each with a colon after it", what)
	case len(n.Content)/2 > most:
		r.problem(n, "%s: more than %d", what, most)
	default:
		for i := 0; i+1 < len(n.Content); i += 2 {
			f(n.Content[i], n.Content[i+1])
		}
	}
}

// scalar returns the text of a node that must be a single value.
func (r *reader) scalar(n *yaml.Node, what string) (string, bool) {
	switch {
	case n.Kind == yaml.ScalarNode && (n.Tag == "!!null" || n.Value == ""):
		r.problem(n, "%s is empty", what)
	case n.Kind == yaml.ScalarNode:
		return n.Value, true
	default:
		r.problem(n, "%s must be a single value", what)
	}
	return "", false
}

// list calls f with the text of each item of a list, or of a node that is a
// single value.
func (r *reader) list(n *yaml.Node, what string, most int, f func(n *yaml.Node, text string)) {
	items := []*yaml.Node{n}
	if n.Kind == yaml.SequenceNode {
		items = n.Content
	}
	if len(items) > most {
		r.problem(n, "%s: more than %d", what, most)
		return
	}
	for _, item := range items {
		if text, ok := r.scalar(item, what); ok {
			f(item, text)
		}
	}
}

// items calls f for each item of a list of mappings.
func (r *reader) items(n *yaml.Node, what string, most int, f func(i int, n *yaml.Node)) {
	switch {
	case n.Kind != yaml.SequenceNode:
		r.problem(n, "%s must be a list: each entry begins with a dash", what)
	case len(n.Content) > most:
		r.problem(n, "%s: more than %d", what, most)
	default:
		for i, item := range n.Content {
			f(i, item)
		}
	}
}

func (r *reader) bool(n *yaml.Node, what string) bool {
	s, ok := r.scalar(n, what)
	if ok && s != "true" && s != "false" {
		r.problem(n, "%s is true or false, not %q", what, s)
	}
	return s == "true"
}

// number reads a whole number from least to most.
func (r *reader) number(n *yaml.Node, what string, least, most int) int {
	s, ok := r.scalar(n, what)
	if !ok {
		return 0
	}
	v, err := strconv.Atoi(s)
	if err != nil || v < least || v > most {
		r.problem(n, "%s is a number from %d to %d, not %q", what, least, most, s)
		return 0
	}
	return v
}

func (r *reader) addr(n *yaml.Node, what string) netip.Addr {
	s, ok := r.scalar(n, what)
	if !ok {
		return netip.Addr{}
	}
	return take(r, n, what, s, parseAddr)
}

func (r *reader) addrs(n *yaml.Node, what string, most int) (out []netip.Addr) {
	r.list(n, what, most, func(n *yaml.Node, s string) {
		if a := take(r, n, what, s, parseAddr); a.IsValid() {
			out = append(out, a)
		}
	})
	return out
}

func (r *reader) device(n *yaml.Node, what string) string {
	s, ok := r.scalar(n, what)
	if !ok {
		return ""
	}
	if err := checkInterface(s); err != nil {
		r.problem(n, "%s: %v", what, err)
		return ""
	}
	return s
}

// take parses a text, and reports what is wrong with it.
func take[T any](r *reader, n *yaml.Node, what, text string, parse func(string) (T, error)) T {
	v, err := parse(text)
	if err != nil {
		r.problem(n, "%s: %v", what, err)
	}
	return v
}

var topKeys = []string{"version", "name", "description", "internal", "zones", "workloads", "flows"}

func (r *reader) top(n *yaml.Node) {
	version := false
	r.fields(n, "a document", topKeys, func(key string, v *yaml.Node) {
		switch key {
		case "version":
			version = true
			if s, ok := r.scalar(v, "version"); ok && s != "1" {
				r.problem(v, "version %q: this program knows version 1", s)
			}
		case "name":
			if s, ok := r.scalar(v, "name"); ok && !word(s, "_.-", 63) {
				r.problem(v, "name: lower-case letters, digits and _ . - make it, at most 63, not %q", s)
			} else {
				r.doc.Name = s
			}
		case "description":
			r.doc.Description, _ = r.scalar(v, "description")
		case "internal":
			r.list(v, "internal", maxInternal, func(n *yaml.Node, s string) {
				r.doc.Internal = append(r.doc.Internal, take(r, n, "internal", s, ParseNetwork))
			})
		case "zones":
			r.entries(v, "zones", maxZones, r.zone)
		case "workloads":
			r.entries(v, "workloads", maxWorkloads, r.workload)
		case "flows":
			r.items(v, "flows", maxFlows, r.flow)
		}
	})
	switch {
	case n.Kind != yaml.MappingNode:
	case !version:
		r.problem(n, "the document does not say its version: begin it with version: 1")
	case len(r.doc.Zones) == 0 && len(r.err.Problems) == 0:
		r.problem(n, "the document has no zones")
	}
}
