package manifest

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"

	"github.com/mobileops/mobileops/internal/document"
)

// maxNesting is deeper than any manifest or configuration, and shallow enough
// for a parser that recurses.
const maxNesting = 100

// reader reads a document node by node, and collects what is wrong with it.
type reader struct {
	err    *document.Error
	places map[string]document.Place // of the value at each path that was read
}

// reading takes over a node that stands at a path.
type reading func(n *yaml.Node, where string)

func newReader(file string) *reader {
	return &reader{err: &document.Error{File: file}, places: map[string]document.Place{}}
}

func (r *reader) problem(n *yaml.Node, format string, args ...any) {
	r.err.Add(document.At(n), format, args...)
}

// check returns a report that knows the lines of the document. What is missing
// is reported at what it is missing in.
func (r *reader) check() report {
	return func(where, format string, args ...any) {
		r.err.Add(r.at(where), "%s", problemAt(where, format, args))
	}
}

func (r *reader) at(where string) document.Place {
	for where != "" {
		if p, ok := r.places[where]; ok {
			return p
		}
		where = where[:max(0, strings.LastIndexAny(where, ".["))]
	}
	return r.places[""]
}

// problemAt is the text of a problem with what stands at a path.
func problemAt(where, format string, args []any) string {
	text := fmt.Sprintf(format, args...)
	if where == "" {
		return text
	}
	return document.Printable(where) + ": " + text
}

// document reads data up to a tree in which every value is a text that shows what
// it says. It returns nil when it reported a problem, and also of a document without
// a value, of which it reports nothing.
func (r *reader) document(data []byte) *yaml.Node {
	root := r.err.Parse(data, document.Limits{What: "a manifest or a configuration", Bytes: MaxBytes, Nesting: maxNesting})
	if root == nil {
		return nil
	}
	r.legible(root)
	r.places[""] = document.Place{Line: root.Line}
	return root
}

// legible reports values with characters that displays and other programs take for
// something else.
func (r *reader) legible(n *yaml.Node) {
	if n.Kind == yaml.ScalarNode {
		if err := checkText(n.Value, true); err != nil {
			r.problem(n, "%v in a value; it cannot be there", err)
		}
	}
	for _, c := range n.Content {
		r.legible(c)
	}
}

// checkText says which character of a text displays and other programs take
// for something else.
func checkText(s string, lines bool) error {
	for i, c := range s {
		switch {
		case c == utf8.RuneError && !strings.HasPrefix(s[i:], "\uFFFD"):
			return errors.New("a byte that is not UTF-8")
		case lines && (c == '\n' || c == '\t'):
		case unicode.IsControl(c):
			return fmt.Errorf("the control character %U", c)
		case unicode.Is(unicode.Cf, c), c == '\u2028', c == '\u2029': // format: bidi, zero width, tags
			return fmt.Errorf("the character %U, which turns or hides text,", c)
		}
	}
	return nil
}

// quote is a value in a message.
func quote(s string) string { return strconv.Quote(document.Abridge(s)) }

// field is a key that a mapping may have.
type field struct {
	key  string
	read reading
}

// fields reads a mapping whose keys are known.
func (r *reader) fields(n *yaml.Node, where string, known ...field) {
	r.entries(n, where, func(key, value *yaml.Node, path string) {
		names := make([]string, len(known))
		for i, f := range known {
			if f.key == key.Value {
				f.read(value, path)
				return
			}
			names[i] = f.key
		}
		in := ""
		if where != "" {
			in = " in " + document.Printable(where)
		}
		r.problem(key, "unknown field %s%s%s", quote(key.Value), in, document.DidYouMean(key.Value, names))
	})
}

// entries calls f for each key of a mapping, with the path of its value.
func (r *reader) entries(n *yaml.Node, where string, f func(key, value *yaml.Node, path string)) {
	if n.Kind != yaml.MappingNode {
		what := document.Printable(where)
		if where == "" {
			what = "the document"
		}
		r.problem(n, "%s must have keys, each with a colon and a space after it", what)
		return
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		path := join(where, key.Value)
		if at := value; at.Kind == yaml.ScalarNode {
			r.places[path] = document.At(at)
		} else { // which begins on the next line
			r.places[path] = document.At(key)
		}
		f(key, value, path)
	}
}

// each calls f for each item of a list.
func (r *reader) each(n *yaml.Node, where string, f func(i int, n *yaml.Node, where string)) {
	if n.Kind != yaml.SequenceNode {
		r.problem(n, "%s must be a list: each item begins with a dash, or it is [one, two]", document.Printable(where))
		return
	}
	for i, item := range n.Content {
		path := fmt.Sprintf("%s[%d]", where, i)
		r.places[path] = document.At(item)
		f(i, item, path)
	}
}

// scalar returns the text of a node that must be a single value.
func (r *reader) scalar(n *yaml.Node, where string) (string, bool) {
	switch {
	case n.Kind != yaml.ScalarNode:
		r.problem(n, "%s must be a single value", document.Printable(where))
	case n.Tag == "!!null":
		r.problem(n, "%s has no value; leave the key out instead", document.Printable(where))
	default:
		return n.Value, true
	}
	return "", false
}

// text reads a string.
func (r *reader) text(to *string) reading {
	return func(n *yaml.Node, where string) { *to, _ = r.scalar(n, where) }
}

// texts reads a list of strings.
func (r *reader) texts(to *[]string) reading {
	return func(n *yaml.Node, where string) {
		*to = []string{}
		r.each(n, where, func(_ int, n *yaml.Node, where string) {
			s, _ := r.scalar(n, where)
			*to = append(*to, s)
		})
	}
}

// parsed reads a value of which parse makes what is wanted.
func parsed[T any](r *reader, to *T, parse func(string) (T, error)) reading {
	return func(n *yaml.Node, where string) {
		s, ok := r.scalar(n, where)
		if !ok {
			return
		}
		v, err := parse(s)
		if err != nil {
			r.problem(n, "%s: %s %v", document.Printable(where), quote(s), err)
			return
		}
		*to = v
	}
}

func (r *reader) flag(to *bool) reading              { return parsed(r, to, parseBool) }
func (r *reader) size(to *int64) reading             { return parsed(r, to, parseSize) }
func (r *reader) duration(to *time.Duration) reading { return parsed(r, to, parseDuration) }
func (r *reader) number(to *int) reading {
	return parsed(r, to, func(s string) (int, error) {
		n, err := parseInt(s)
		return int(n), err
	})
}
