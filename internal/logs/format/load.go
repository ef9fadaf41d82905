package format

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/mobileops/mobileops/internal/logs/event"
	"go.yaml.in/yaml/v3"
)

// Limits of a format file and of a directory of them.
const (
	maxFormatFile = 256 << 10
	maxFormats    = 1000
	maxPatterns   = 200
	maxWords      = 500
)

// file is a format file as it is written.
type file struct {
	Version     int                 `yaml:"version"`
	Name        string              `yaml:"name"`
	Description string              `yaml:"description"`
	Kind        string              `yaml:"kind"`
	Rank        int                 `yaml:"rank"`
	Paths       []string            `yaml:"paths"`
	Lines       []string            `yaml:"lines"`
	Fallback    []string            `yaml:"fallback"`
	Join        []string            `yaml:"join"`
	Zone        string              `yaml:"zone"`
	Set         map[string]string   `yaml:"set"`
	Severities  map[string]string   `yaml:"severities"`
	Keys        map[string][]string `yaml:"keys"`
	Require     []string            `yaml:"require"`
	Times       []string            `yaml:"times"`
	Messages    []string            `yaml:"messages"`
	Catalogue   []fileMessages      `yaml:"catalogue"`
}

// fileMessages are the well-known messages of some programs.
type fileMessages struct {
	Programs []string `yaml:"programs"`
	Lines    []string `yaml:"lines"`
}

// load adds the formats of the *.yaml files of a directory.
func (s *Set) load(fsys fs.FS) error {
	entries, err := fs.ReadDir(fsys, ".")
	if err != nil {
		return fmt.Errorf("cannot list the formats: %w", err)
	}
	var files []file
	for _, e := range entries {
		name := e.Name()
		if e.IsDir() || !strings.HasSuffix(name, ".yaml") || strings.HasSuffix(name, ".cases.yaml") {
			continue
		}
		if len(files) == maxFormats {
			return fmt.Errorf("more than %d formats", maxFormats)
		}
		f, err := readFile(fsys, name)
		if err != nil {
			return fmt.Errorf("format file %s: %w", name, err)
		}
		files = append(files, *f)
	}
	// Catalogues first: formats name them.
	for _, f := range files {
		if f.Catalogue != nil {
			c, err := newCatalogue(f.Catalogue)
			if err != nil {
				return fmt.Errorf("format file %s.yaml: %w", f.Name, err)
			}
			s.catalogue[f.Name] = c
		}
	}
	for _, f := range files {
		if f.Catalogue == nil {
			built, err := f.build(s)
			if err != nil {
				return fmt.Errorf("format file %s.yaml: %w", f.Name, err)
			}
			s.formats[f.Name] = built
		}
	}
	return nil
}

// readFile reads one file with all its limits, and checks its name.
func readFile(fsys fs.FS, name string) (*file, error) {
	r, err := fsys.Open(name)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	data, err := io.ReadAll(io.LimitReader(r, maxFormatFile+1))
	if err != nil {
		return nil, err
	}
	f, err := parseFile(data)
	if err != nil {
		return nil, err
	}
	if f.Name+".yaml" != path.Base(name) {
		return nil, fmt.Errorf("name: %q is not the name of the file", f.Name)
	}
	return f, nil
}

// parseFile decodes a format file strictly: unknown and repeated keys and
// aliases are errors.
func parseFile(data []byte) (*file, error) {
	if len(data) > maxFormatFile {
		return nil, fmt.Errorf("more than %d KiB", maxFormatFile>>10)
	}
	if err := withoutAliases(data); err != nil {
		return nil, err
	}
	f := new(file)
	dec := yaml.NewDecoder(bytes.NewReader(data))
	dec.KnownFields(true)
	if err := dec.Decode(f); err != nil {
		return nil, err
	}
	if err := dec.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return nil, errors.New("a format file holds one document")
	}
	if f.Version != 1 {
		return nil, fmt.Errorf("version: %d is not known (write 1)", f.Version)
	}
	if !validName(f.Name) {
		return nil, fmt.Errorf("name: %q is not made of letters, digits, - and _", f.Name)
	}
	return f, nil
}

// withoutAliases refuses aliases, by which a small file becomes a large one.
func withoutAliases(data []byte) error {
	var n yaml.Node
	if err := yaml.Unmarshal(data, &n); err != nil {
		return err
	}
	var visit func(n *yaml.Node) error
	visit = func(n *yaml.Node) error {
		if n.Kind == yaml.AliasNode {
			return fmt.Errorf("line %d: aliases are not allowed", n.Line)
		}
		for _, c := range n.Content {
			if err := visit(c); err != nil {
				return err
			}
		}
		return nil
	}
	return visit(&n)
}

func validName(name string) bool {
	if name == "" || len(name) > 64 {
		return false
	}
	return !strings.ContainsFunc(name, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_')
	}) && name[0] != '-'
}

// build compiles a format.
func (f *file) build(s *Set) (*Format, error) {
	out := &Format{name: f.Name, description: f.Description, rank: f.Rank, zone: f.Zone, require: f.Require}
	var ok bool
	if out.kind, ok = kindNames[f.Kind]; !ok && f.Kind != "" {
		return nil, fmt.Errorf("kind: %q is none", f.Kind)
	}
	if f.Rank < 0 || f.Rank > 100 {
		return nil, fmt.Errorf("rank: %d is not between 0 and 100", f.Rank)
	}
	if len(f.Lines)+len(f.Fallback) > maxPatterns || len(f.Severities)+len(f.Keys)+len(f.Require)+len(f.Times)+len(f.Paths) > maxWords {
		return nil, errors.New("too many entries")
	}
	if f.Zone != "" && f.Zone != "UTC" {
		if _, err := time.LoadLocation(f.Zone); err != nil {
			return nil, fmt.Errorf("zone: %w", err)
		}
	}
	for _, p := range f.Paths {
		if _, err := path.Match(p, "x"); err != nil {
			return nil, fmt.Errorf("paths: %q: %w", p, err)
		}
	}
	out.paths = f.Paths
	for i, text := range slices.Concat(f.Lines, f.Fallback) {
		p, err := compilePattern(text)
		if err != nil {
			return nil, fmt.Errorf("lines: %w", err)
		}
		p.weak = i >= len(f.Lines)
		out.patterns = append(out.patterns, p)
	}
	if err := out.join.parse(f.Join); err != nil {
		return nil, fmt.Errorf("join: %w", err)
	}
	for word, name := range f.Severities {
		v, ok := severityByName(name)
		if !ok {
			return nil, fmt.Errorf("severities: %s: %q is no severity", word, name)
		}
		if out.severities == nil {
			out.severities = map[string]event.Severity{}
		}
		out.severities[strings.ToLower(word)] = v
	}
	for _, p := range out.patterns {
		p.name(out.severities)
	}
	for place, v := range f.Set {
		switch place {
		case "program":
			out.program = v
		case "unit":
			out.unit = v
		default:
			return nil, fmt.Errorf("set: %q is neither program nor unit", place)
		}
	}
	for name, keys := range f.Keys {
		r, ok := roleNames[name]
		if !ok || r == roleFields {
			return nil, fmt.Errorf("keys: %q is no place of an event", name)
		}
		for _, k := range keys {
			if out.keys == nil {
				out.keys = map[string]role{}
			}
			if _, twice := out.keys[k]; twice {
				return nil, fmt.Errorf("keys: %q has two places", k)
			}
			out.keys[k] = r
		}
	}
	for _, text := range f.Times {
		l, err := newLayout(text)
		if err != nil {
			return nil, fmt.Errorf("times: %w", err)
		}
		out.times = append(out.times, l)
	}
	for _, name := range f.Messages {
		c, ok := s.catalogue[name]
		if !ok {
			return nil, fmt.Errorf("messages: there is no catalogue %q", name)
		}
		out.messages = append(out.messages, c)
	}
	return out, out.check()
}

// check holds the parts of a format against its kind.
func (f *Format) check() error {
	values := f.kind == kindJSON || f.kind == kindLogfmt || f.kind == kindDocker || f.kind == kindUtmp
	if values && len(f.patterns) > 0 {
		return errors.New("lines: only kinds of lines have them")
	}
	if (f.kind == kindCRI || f.kind == kindKmsg || f.kind == kindAudit) && len(f.patterns) == 0 {
		return errors.New("lines: the kind needs at least one")
	}
	if f.join.untimed && !slices.ContainsFunc(f.patterns, func(p *pattern) bool { return p.time >= 0 }) {
		return errors.New("join: untimed needs a pattern with a time")
	}
	return nil
}

// severityByName reads the name of one of the eight severities.
func severityByName(name string) (event.Severity, bool) {
	for s := event.Emergency; s <= event.Debug; s++ {
		if s.String() == name {
			return s, true
		}
	}
	return event.NoSeverity, name == "none"
}
