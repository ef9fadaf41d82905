// Package wellformed tells whether a configuration file can be parsed at all.
//
// Who looks for misconfigurations takes a file that cannot be parsed for one that
// is of no interest, so that a broken file passes for a good one. JSON is read as
// RFC 8259 and, more mildly, with the comments and trailing commas that many
// programs allow; YAML as version 1.2, any number of documents.
package wellformed

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"go.yaml.in/yaml/v3"
)

// MaxSize is the size in bytes from which on files are not looked at: parsing
// takes many times that in memory, and nobody writes configuration as large.
const MaxSize = 4 << 20

// JSON returns what is wrong with a JSON document, with its line, or nil. Several
// documents one after the other are none.
func JSON(content []byte) error {
	content = bytes.TrimPrefix(content, []byte("\xef\xbb\xbf"))
	err := values(content)
	if err == nil {
		return nil
	}
	mild := strip(content)
	if milder := values(mild); milder == nil {
		return nil
	}
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) {
		return fmt.Errorf("line %d: %w", line(content, syntax.Offset), err)
	}
	return err
}

func values(content []byte) error {
	dec := json.NewDecoder(bytes.NewReader(content))
	for {
		var v json.RawMessage
		switch err := dec.Decode(&v); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
	}
}

func line(content []byte, offset int64) int {
	return 1 + bytes.Count(content[:min(int(offset), len(content))], []byte("\n"))
}

// strip puts blanks in the place of comments and of commas before a closing
// bracket, so that lines stay what they are.
func strip(content []byte) []byte {
	out := bytes.Clone(content)
	comma := -1 // the last comma after which nothing but blanks came
	for i := 0; i < len(out); i++ {
		switch c := out[i]; {
		case c == '"':
			comma = -1
			for i++; i < len(out) && out[i] != '"'; i++ {
				if out[i] == '\\' {
					i++
				}
			}
		case c == '/' && i+1 < len(out) && out[i+1] == '/':
			for ; i < len(out) && out[i] != '\n'; i++ {
				out[i] = ' '
			}
		case c == '/' && i+1 < len(out) && out[i+1] == '*':
			end := bytes.Index(out[i+2:], []byte("*/"))
			if end < 0 {
				return out
			}
			for stop := i + 2 + end + 2; i < stop; i++ {
				if out[i] != '\n' {
					out[i] = ' '
				}
			}
			i--
		case c == ',':
			comma = i
		case c == '}' || c == ']':
			if comma >= 0 {
				out[comma] = ' '
			}
			comma = -1
		case c != ' ' && c != '\t' && c != '\r' && c != '\n':
			comma = -1
		}
	}
	return out
}

// YAML returns what is wrong with a YAML file, with its line, or nil. What is
// made into YAML by a template first ("{{", "{%") is taken for good.
func YAML(content []byte) (err error) {
	if bytes.Contains(content, []byte("{{")) || bytes.Contains(content, []byte("{%")) {
		return nil
	}
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("yaml: %v", r)
		}
	}()
	dec := yaml.NewDecoder(bytes.NewReader(content))
	for {
		var n yaml.Node // aliases stay what they are, so none of them can be a bomb
		switch err := dec.Decode(&n); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
	}
}

// RepeatedKey returns what names the first key, with its line, that a mapping of a
// YAML file has twice, which YAML does not allow (1.2, section 3.2.1.1); nil when
// there is none, or when it is no YAML. Parsers tell of each pair of equal keys, in
// memory that grows with the square of their number: this looks at each once.
func RepeatedKey(content []byte) (err error) {
	defer func() { _ = recover() }() // the parser's; others will say so
	dec := yaml.NewDecoder(bytes.NewReader(content))
	for {
		var n yaml.Node
		if dec.Decode(&n) != nil {
			return nil
		}
		for pending := []*yaml.Node{&n}; len(pending) > 0; {
			at := pending[len(pending)-1]
			pending = append(pending[:len(pending)-1], at.Content...)
			if at.Kind != yaml.MappingNode {
				continue
			}
			seen := make(map[string]bool, len(at.Content)/2)
			for i := 0; i+1 < len(at.Content); i += 2 {
				key := at.Content[i]
				if key.Kind != yaml.ScalarNode {
					continue
				}
				id := key.Tag + " " + key.Value
				if seen[id] {
					return fmt.Errorf("line %d: a key is there twice: %.100q", key.Line, key.Value)
				}
				seen[id] = true
			}
		}
	}
}
