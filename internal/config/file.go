package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"regexp"
	"strconv"
	"strings"
	"syscall"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/spelling"
	"go.yaml.in/yaml/v3"
)

// maxFileSize bounds a configuration file, in bytes. A real one has a few
// hundred.
const maxFileSize = 1 << 20

// ErrUntrusted says that somebody other than root could have written the
// configuration that root is about to follow.
var ErrUntrusted = failure.New(failure.Untrustworthy, "the configuration file is not trustworthy")

// setting is a value in a file and the line on which it stands.
type setting struct {
	value string
	line  int
}

// Problem is something wrong in a file.
type Problem struct {
	File string `json:"file"`
	Line int    `json:"line"` // from 1; 0 when it has none
	Text string `json:"text"`
}

func (p *Problem) Error() string {
	if p.Line == 0 {
		return p.File + ": " + p.Text
	}
	return fmt.Sprintf("%s:%d: %s", p.File, p.Line, p.Text)
}

// readFile reads a configuration file. When root reads it, nobody else may be
// able to write it: it decides where root writes. Owner and mode are those of
// the file that was opened, so there is no moment to swap it in.
func readFile(path string, uid int) ([]byte, error) {
	// Without O_NONBLOCK, opening a FIFO waits for a writer.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		if errors.Is(err, fs.ErrPermission) {
			return nil, failure.Wrap(failure.NotAllowed, err)
		}
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, failure.Errorf(failure.Usage, "%s is not a regular file", path)
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok && uid == 0 {
		switch {
		case st.Uid != 0:
			return nil, failure.Hint(fmt.Errorf("%w: %s belongs to user %d", ErrUntrusted, path, st.Uid), "chown root "+path)
		case info.Mode().Perm()&0o002 != 0 || info.Mode().Perm()&0o020 != 0 && st.Gid != 0:
			return nil, failure.Hint(fmt.Errorf("%w: others than root can write %s (mode %04o)", ErrUntrusted, path, info.Mode().Perm()), "chmod go-w "+path)
		}
	}
	data, err := io.ReadAll(io.LimitReader(f, maxFileSize+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxFileSize {
		return nil, failure.Errorf(failure.Usage, "%s is larger than %d bytes", path, maxFileSize)
	}
	return data, nil
}

// parseFile returns the settings in a file by key, and everything that is
// wrong with its form: syntax, unknown keys, keys without a plain value.
func parseFile(path string, data []byte) (map[string]setting, []*Problem) {
	p := &parser{path: path, settings: make(map[string]setting), known: make(map[string]bool)}
	for _, k := range Keys() {
		p.known[k.Name] = true
		p.names = append(p.names, k.Name)
	}
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var doc yaml.Node
	switch err := dec.Decode(&doc); {
	case errors.Is(err, io.EOF):
		return p.settings, nil
	case err != nil:
		return nil, []*Problem{syntaxProblem(path, err)}
	}
	p.walk("", doc.Content[0])
	var second yaml.Node
	switch err := dec.Decode(&second); {
	case err == nil:
		p.problem(second.Line, "a second document; only one is read")
	case !errors.Is(err, io.EOF):
		p.problems = append(p.problems, syntaxProblem(path, err))
	}
	return p.settings, p.problems
}

type parser struct {
	path     string
	names    []string
	known    map[string]bool
	settings map[string]setting
	problems []*Problem
}

func (p *parser) problem(line int, format string, args ...any) {
	p.problems = append(p.problems, &Problem{p.path, line, fmt.Sprintf(format, args...)})
}

// walk reads a mapping whose keys continue prefix.
func (p *parser) walk(prefix string, n *yaml.Node) {
	if n.Kind == yaml.ScalarNode && n.Tag == "!!null" {
		return // an empty file, or a part whose keys are all commented out
	}
	if n.Kind != yaml.MappingNode {
		if prefix == "" {
			p.problem(n.Line, "must be keys and values, one a line")
		} else {
			p.problem(n.Line, "%s must hold keys and values", strings.TrimSuffix(prefix, "."))
		}
		return
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		name, value := prefix+n.Content[i].Value, n.Content[i+1]
		line := n.Content[i].Line
		switch {
		case p.known[name]:
			p.scalar(name, line, value)
		case p.isPart(name):
			p.walk(name+".", value)
		default:
			hint := ""
			if near := p.nearest(prefix, name); near != "" {
				hint = fmt.Sprintf(" (did you mean %q?)", near)
			}
			p.problem(line, "unknown key %q%s", name, hint)
		}
	}
}

func (p *parser) scalar(name string, line int, value *yaml.Node) {
	switch earlier, twice := p.settings[name]; {
	case twice:
		p.problem(line, "%s is set again; the first is on line %d", name, earlier.line)
	case value.Kind == yaml.AliasNode:
		p.problem(line, "%s: aliases are not supported; write the value", name)
	case value.Kind != yaml.ScalarNode:
		p.problem(line, "%s must be a plain value", name)
	case value.Tag == "!!null":
		p.problem(line, "%s has no value (comment the line out to use the default)", name)
	default:
		p.settings[name] = setting{value.Value, line}
	}
}

func (p *parser) isPart(name string) bool {
	for _, known := range p.names {
		if strings.HasPrefix(known, name+".") {
			return true
		}
	}
	return false
}

// nearest finds what a key was meant to be: among the keys beside it, or one
// that stands in another part.
func (p *parser) nearest(prefix, name string) string {
	candidates := append([]string(nil), p.names...)
	for _, known := range p.names {
		if part, _, ok := strings.Cut(known, "."); ok {
			candidates = append(candidates, part)
		}
	}
	if near := spelling.Nearest(name, candidates); near != "" {
		return near
	}
	last := strings.TrimPrefix(name, prefix)
	for _, known := range p.names {
		if known[strings.LastIndexByte(known, '.')+1:] == last {
			return known
		}
	}
	return ""
}

// syntaxProblem takes the line number out of what the YAML library says.
func syntaxProblem(path string, err error) *Problem {
	text := strings.TrimPrefix(err.Error(), "yaml: ")
	if m := regexp.MustCompile(`^line (\d+): `).FindStringSubmatch(text); m != nil {
		line, _ := strconv.Atoi(m[1])
		return &Problem{path, line, text[len(m[0]):]}
	}
	return &Problem{path, 0, text}
}
