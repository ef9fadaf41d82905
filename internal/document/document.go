// Package document reads what people write in YAML (policies, zones, manifests)
// strictly: one document, in which nothing says more than it shows, and of which
// everything that is wrong is told at once, each with its line.
package document

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Limits of one document.
type Limits struct {
	What    string // what it is in messages, such as "a policy"
	Bytes   int
	Nesting int // brackets, dashes and indentation; the YAML parser recurses
}

// Parse returns the value of the one document that data holds. It refuses what
// could be read in two ways or says something that does not stand where it holds:
// further documents, aliases, anchors, merge keys, tags, keys that are no words and
// repeated keys. The node is nil when a problem, which e then has, leaves nothing to
// read, and also of a file without a value, of which it says nothing.
func (e *Error) Parse(data []byte, l Limits) *yaml.Node {
	if len(data) > l.Bytes {
		e.Add(Place{}, "larger than %d bytes: this is not %s", l.Bytes, l.What)
		return nil
	}
	if line := tooDeep(data, l.Nesting); line > 0 {
		e.Add(Place{Line: line}, "nested more than %d deep", l.Nesting)
		return nil
	}
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var doc, second yaml.Node
	if err := dec.Decode(&doc); errors.Is(err, io.EOF) || err == nil && len(doc.Content) == 0 {
		return nil
	} else if err != nil {
		e.syntax(err, data)
		return nil
	}
	if err := dec.Decode(&second); err == nil {
		e.Add(At(&second), "a second YAML document: a file holds one")
		return nil
	} else if !errors.Is(err, io.EOF) {
		e.syntax(err, data)
		return nil
	}
	if root := doc.Content[0]; e.plain(root) {
		return root
	}
	return nil
}

// plain reports what makes a document say more, or something else, than it shows,
// and whether it can be read on. A repeated key and an item of a list are taken out,
// so that what else is wrong is told at the same time.
func (e *Error) plain(n *yaml.Node) bool {
	problem := ""
	switch {
	case n.Kind == yaml.AliasNode:
		problem = "an alias (*name): write the value; a value that begins with * must be in quotes"
	case n.Anchor != "":
		problem = "an anchor (&name): write the value where it is needed; a value that begins with & must be in quotes"
	case n.Tag == "!!merge":
		problem = "a merge key (<<): write the keys where they are needed"
	case n.Style&yaml.TaggedStyle != 0 || n.Tag == "!!binary":
		problem = "a tag (!name): leave it out; a value that begins with ! must be in quotes"
	}
	if problem != "" {
		e.Add(At(n), "%s", problem)
	}
	good := problem == ""
	if len(e.Problems) > MaxProblems {
		return false // enough; a file may have as many as it has bytes
	}
	switch n.Kind {
	case yaml.MappingNode:
		good = e.plainKeys(n) && good
	case yaml.SequenceNode:
		n.Content = slices.DeleteFunc(n.Content, func(item *yaml.Node) bool { return !e.plain(item) })
	}
	return good
}

func (e *Error) plainKeys(n *yaml.Node) bool {
	good := true
	lines, once := make(map[string]int, len(n.Content)/2), n.Content[:0]
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		line, again := lines[key.Value]
		switch {
		case key.Kind != yaml.ScalarNode && key.Kind != yaml.AliasNode:
			e.Add(At(key), "a key must be a word")
			good = false
		case !e.plain(key):
			good = false
		case again:
			e.Add(At(key), "%s stands in line %d already", strconv.Quote(Abridge(key.Value)), line)
			e.plain(value)
		default:
			lines[key.Value] = key.Line
			once = append(once, key, value)
			good = e.plain(value) && good
		}
	}
	n.Content = once
	return good
}

// syntax reports an error of the YAML parser under its line.
func (e *Error) syntax(err error, data []byte) {
	text := strings.TrimPrefix(strings.ReplaceAll(err.Error(), "\n", " "), "yaml: ")
	line := 0
	if rest, ok := strings.CutPrefix(text, "line "); ok {
		if number, message, ok := strings.Cut(rest, ": "); ok {
			line, _ = strconv.Atoi(number) // else the whole file
			text = message
		}
	}
	// The name of an anchor may be a password that should be in quotes.
	if rest, ok := strings.CutPrefix(text, "unknown anchor '"); ok {
		name, _, _ := strings.Cut(rest, "'")
		before, _, _ := bytes.Cut(data, []byte("*"+name)) // of this the parser tells no line
		line = 1 + bytes.Count(before, []byte("\n"))
		text = "an alias without an anchor"
	}
	if strings.Contains(text, "anchor") || strings.Contains(text, "alphabetic or numeric character") {
		text += "; a value that begins with * or & must be in quotes"
	}
	e.Add(Place{Line: line}, "%s", Printable(text))
}

// tooDeep returns the first line that opens more brackets, begins with more dashes,
// question marks and colons, or is indented further than any document of people; 0
// when there is none. It only has to keep hostile files from the recursive YAML
// parser, so it may count brackets in comments and strings.
func tooDeep(data []byte, most int) int {
	depth, line := 0, 1
	for text := range bytes.Lines(data) {
		content := bytes.TrimLeft(text, "-?: \t")
		begin := text[:len(text)-len(content)]
		marks := len(begin) - bytes.Count(begin, []byte(" ")) - bytes.Count(begin, []byte("\t"))
		if indent := len(text) - len(bytes.TrimLeft(text, " ")); indent > 16*most || marks > most {
			return line
		}
		for _, c := range content {
			switch c {
			case '[', '{':
				depth++
			case ']', '}':
				depth = max(0, depth-1)
			}
			if depth > most {
				return line
			}
		}
		line++
	}
	return 0
}

// Printable makes a text that has words of a document safe to print.
func Printable(s string) string {
	quoted := strconv.Quote(Abridge(s))
	return strings.ReplaceAll(quoted[1:len(quoted)-1], `\"`, `"`)
}

// Abridge leaves the beginning and the end of a text that is too long for a message.
func Abridge(s string) string {
	const most = 160
	if len(s) <= most {
		return s
	}
	return fmt.Sprintf("%s…%s", s[:most/2], s[len(s)-most/2:])
}
