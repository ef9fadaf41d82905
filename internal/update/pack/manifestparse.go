package pack

import (
	"bytes"
	"errors"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/mobileops/mobileops/internal/archive"
	"github.com/mobileops/mobileops/internal/document"
	"github.com/mobileops/mobileops/internal/failure"
)

// maxNesting is deeper than any manifest, and shallow enough for a parser that
// recurses.
const maxNesting = 32

// ParseManifest reads a manifest, of at most Limits.ManifestBytes, and
// validates it. Unknown and repeated keys, aliases, anchors and further
// documents are refused. Its errors are of archive.CodeManifest; their Offset is the
// line.
func ParseManifest(data []byte, l archive.Limits) (*Manifest, error) {
	m, err := parseManifest(data, l)
	if err != nil {
		refused := RefuseManifest(err)
		refused.Offset = lineOf(err)
		return nil, refused
	}
	return m, nil
}

func parseManifest(data []byte, l archive.Limits) (*Manifest, error) {
	shape := &document.Error{}
	root := shape.Parse(data, document.Limits{What: "a manifest", Bytes: l.ManifestBytes, Nesting: maxNesting})
	if err := shape.Result(failure.Usage); err != nil {
		return nil, shape.Problems[0] // that of the package has one reason
	}
	if root == nil {
		return nil, errors.New("it is empty")
	}
	if root.Kind != yaml.MappingNode {
		return nil, errors.New("line 1: it must be a list of keys and values, such as schema: " + ManifestSchema)
	}
	m := new(Manifest)
	strict := yaml.NewDecoder(bytes.NewReader(data))
	strict.KnownFields(true)
	if err := strict.Decode(m); err != nil {
		return nil, clearer(err)
	}
	if m.Kind == "" {
		m.Kind = KindOverlay
	}
	for _, h := range []*Hook{m.Hooks.Before, m.Hooks.After} {
		if h != nil && h.Timeout == 0 {
			h.Timeout = DefaultHookTimeout
		}
	}
	if m.Health != nil && m.Health.Deadline == 0 {
		m.Health.Deadline = DefaultHealthDeadline
	}
	if err := m.validate(l); err != nil {
		return nil, err
	}
	return m, nil
}

// encode writes the manifest as a package carries it.
func (m *Manifest) encode() ([]byte, error) {
	var b bytes.Buffer
	enc := yaml.NewEncoder(&b)
	enc.SetIndent(2)
	if err := enc.Encode(m); err != nil {
		return nil, err
	}
	return b.Bytes(), enc.Close()
}

// clearer takes the name of the parser and line breaks from its messages, and
// the type of Go that a key was not found in.
func clearer(err error) error {
	text := strings.ReplaceAll(err.Error(), "\n", " ")
	text = strings.TrimPrefix(strings.TrimPrefix(text, "yaml: "), "unmarshal errors:")
	if i := strings.Index(text, " in type pack."); i >= 0 {
		text = text[:i]
	}
	text = strings.TrimSpace(text)
	if strings.Contains(text, "unknown anchor") || strings.Contains(text, "alphabetic or numeric character") {
		text += "; a pattern that begins with * must be in quotes"
	}
	switch {
	case strings.Contains(text, "into time.Duration"):
		text += "; a time has a unit, such as 30s"
	case strings.HasPrefix(text, "parsing time"):
		text = "a date is not one like 2026-11-01"
	}
	text = strings.ReplaceAll(text, "into pack.", "into ")
	quoted := strconv.QuoteToASCII(archive.Abridge(text)) // it may have bytes of the manifest
	return errors.New(strings.ReplaceAll(quoted[1:len(quoted)-1], `\"`, `"`))
}

// lineOf finds the line in a message, 0 when there is none.
func lineOf(err error) int64 {
	rest, ok := strings.CutPrefix(err.Error(), "line ")
	if !ok {
		return 0
	}
	digits, _, _ := strings.Cut(rest, ":")
	n, _ := strconv.ParseInt(digits, 10, 64) // none: the whole file
	return n
}
