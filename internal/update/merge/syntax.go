package merge

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	"go.yaml.in/yaml/v3"
)

const (
	// maxChecked bounds what is parsed: a tree of YAML takes a hundred times
	// the memory of its text.
	maxChecked = 256 << 10
	maxDepth   = 200
)

var errDeep = errors.New("nested too deeply")

// breaks returns why the merged content of the file is not to be used, or "":
// lines of two well-formed documents need not make a third, for instance when
// both sides add the same key in different places. Where a side was not well
// formed before, nothing can be told, and nothing is.
func breaks(name string, mine, theirs, merged []byte) string {
	var parse func([]byte) error
	var syntax string
	switch strings.ToLower(path.Ext(name)) {
	case ".json":
		parse, syntax = parseJSON, "JSON"
	case ".yaml", ".yml":
		parse, syntax = parseYAML, "YAML"
	default:
		return ""
	}
	if len(mine) > maxChecked || len(theirs) > maxChecked || len(merged) > maxChecked {
		return "changed on both sides, and too large to see whether together they are " + syntax
	}
	if parse(mine) != nil || parse(theirs) != nil {
		return ""
	}
	if err := parse(merged); err != nil {
		return fmt.Sprintf("changed on both sides, and together they are not %s: %v", syntax, err)
	}
	return ""
}

// parseJSON reads one JSON text (RFC 8259) and refuses names that an object
// has twice.
func parseJSON(data []byte) error {
	if !json.Valid(data) {
		var v any
		return json.Unmarshal(data, &v)
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	return jsonValue(d, 0)
}

func jsonValue(d *json.Decoder, depth int) error {
	if depth > maxDepth {
		return errDeep
	}
	tok, err := d.Token()
	if err != nil {
		return err
	}
	switch tok {
	case json.Delim('{'):
		seen := map[string]bool{}
		for d.More() {
			key, err := d.Token()
			if err != nil {
				return err
			}
			if seen[key.(string)] {
				return fmt.Errorf("%q is there twice, the second time at offset %d", key, d.InputOffset())
			}
			seen[key.(string)] = true
			if err := jsonValue(d, depth+1); err != nil {
				return err
			}
		}
		_, err = d.Token()
	case json.Delim('['):
		for d.More() {
			if err := jsonValue(d, depth+1); err != nil {
				return err
			}
		}
		_, err = d.Token()
	}
	return err
}

// parseYAML reads the documents of a YAML stream (YAML 1.2) and refuses keys
// that a mapping has twice. Aliases are not followed.
func parseYAML(data []byte) (err error) {
	// The library panics on some malformed input (as it did in CVE-2022-28948).
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("the parser fails: %v", r)
		}
	}()
	d := yaml.NewDecoder(bytes.NewReader(data))
	for {
		var doc yaml.Node
		switch err := d.Decode(&doc); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
		if err := yamlNode(&doc, 0); err != nil {
			return err
		}
	}
}

func yamlNode(n *yaml.Node, depth int) error {
	if depth > maxDepth {
		return errDeep
	}
	seen := map[string]bool{}
	for i, child := range n.Content {
		if n.Kind == yaml.MappingNode && i%2 == 0 && child.Kind == yaml.ScalarNode && child.Value != "<<" {
			key := child.Tag + " " + child.Value
			if seen[key] {
				return fmt.Errorf("line %d: %q is there twice", child.Line, child.Value)
			}
			seen[key] = true
		}
		if err := yamlNode(child, depth+1); err != nil {
			return err
		}
	}
	return nil
}
