package manifest

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/finding"
	"go.yaml.in/yaml/v3"
)

// Marshal writes the manifest so that Parse returns an equal one. It depends on
// the manifest alone: equal ones give the same bytes. Defaults are written out
// where they decide what a plugin may use, so that a later version of mobileops
// cannot change what was signed. The error is that of Check.
func (m *Manifest) Marshal() ([]byte, error) {
	if err := m.Check(); err != nil {
		return nil, err
	}
	top := &mapping{}
	top.text("schema", m.Schema)
	top.text("name", m.Name)
	top.text("version", m.Version)
	top.text("summary", m.Summary)
	top.text("description", m.Description)
	top.text("licence", m.Licence)
	top.text("homepage", m.Homepage)
	top.text("min_version", m.MinVersion)
	addEach(top, "commands", m.Commands, (*Command).encode)
	if m.Service != nil {
		top.add("service", m.Service.encode())
	}
	addEach(top, "hooks", m.Hooks, (*Hook).encode)
	if len(m.Config) > 0 {
		top.add("config", m.Config.encode())
	}
	top.add("permissions", m.Permissions.encode())
	if len(m.Files) > 0 {
		files := &mapping{}
		for _, name := range slices.Sorted(maps.Keys(m.Files)) {
			f := &mapping{}
			file := m.Files[name]
			f.text("digest", file.Digest)
			f.raw("size", strconv.FormatInt(file.Size, 10))
			f.flag("executable", file.Executable)
			files.add(name, f.flow())
		}
		top.add("files", files.node())
	}

	var b bytes.Buffer
	enc := yaml.NewEncoder(&b)
	enc.SetIndent(2)
	if err := enc.Encode(top.node()); err != nil {
		return nil, err
	}
	if err := enc.Close(); err != nil {
		return nil, err
	}
	if b.Len() > MaxBytes {
		return nil, failure.Errorf(failure.Untrustworthy, "%s would have %d bytes; %d are allowed (fewer or shorter names of files)", FileName, b.Len(), MaxBytes)
	}
	return b.Bytes(), nil
}

// mapping is a YAML mapping in the making. What is empty is left out, but by
// add and raw.
type mapping struct{ content []*yaml.Node }

func (m *mapping) node() *yaml.Node {
	return &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map", Content: m.content}
}

// flow is the mapping in one line.
func (m *mapping) flow() *yaml.Node {
	n := m.node()
	n.Style = yaml.FlowStyle
	return n
}

func (m *mapping) add(key string, value *yaml.Node) {
	m.content = append(m.content, textNode(key), value)
}

// raw adds a number, a size, a duration or a bool as it is written.
func (m *mapping) raw(key, value string) { m.add(key, rawNode(value)) }

func (m *mapping) text(key, value string) {
	if value != "" {
		m.add(key, textNode(value))
	}
}

func (m *mapping) flag(key string, value bool) {
	if value {
		m.raw(key, "true")
	}
}

func (m *mapping) duration(key string, d time.Duration) {
	if d != 0 {
		m.raw(key, formatDuration(d))
	}
}

// texts adds a list; an empty one that is not nil is something else than none.
func (m *mapping) texts(key string, list []string) {
	if list == nil {
		return
	}
	n := &yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq", Style: yaml.FlowStyle}
	for _, s := range list {
		n.Content = append(n.Content, textNode(s))
	}
	m.add(key, n)
}

// textNode is a string, which the encoder quotes where YAML would take it for
// something else.
func textNode(s string) *yaml.Node {
	n := &yaml.Node{}
	n.SetString(s)
	return n
}

func rawNode(s string) *yaml.Node { return &yaml.Node{Kind: yaml.ScalarNode, Value: s} }

// addEach adds a list of mappings.
func addEach[T any](m *mapping, key string, list []T, encode func(*T) *yaml.Node) {
	if len(list) == 0 {
		return
	}
	n := &yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq"}
	for i := range list {
		n.Content = append(n.Content, encode(&list[i]))
	}
	m.add(key, n)
}

func (c *Command) encode() *yaml.Node {
	m := &mapping{}
	m.add("name", textNode(c.Name))
	m.text("summary", c.Summary)
	m.text("usage", c.Usage)
	if a := c.Args; a.Min != 0 || a.Max != 0 || a.Complete != "" {
		args := &mapping{}
		args.raw("min", strconv.Itoa(a.Min))
		args.raw("max", strconv.Itoa(a.Max))
		args.text("complete", a.Complete)
		args.texts("words", a.Words)
		m.add("args", args.flow())
	}
	addEach(m, "flags", c.Flags, (*Flag).encode)
	m.texts("examples", c.Examples)
	return m.node()
}

func (f *Flag) encode() *yaml.Node {
	m := &mapping{}
	m.text("name", f.Name)
	m.text("short", f.Short)
	m.text("type", f.Type)
	m.text("default", f.Default)
	m.texts("choices", f.Choices)
	m.text("summary", f.Summary)
	m.flag("required", f.Required)
	return m.flow()
}

func (s *Service) encode() *yaml.Node {
	m := &mapping{}
	m.texts("args", s.Args)
	m.duration("ready_timeout", s.ReadyTimeout)
	m.duration("stop_timeout", s.StopTimeout)
	m.text("restart", s.Restart)
	m.duration("watchdog", s.Watchdog)
	return m.node()
}

func (h *Hook) encode() *yaml.Node {
	m := &mapping{}
	m.text("on", h.On)
	m.duration("every", h.Every)
	m.texts("commands", h.Commands)
	m.texts("args", h.Args)
	m.duration("timeout", h.Timeout)
	if h.MinSeverity != finding.Info {
		m.text("min_severity", h.MinSeverity.String())
	}
	m.texts("sources", h.Sources)
	m.flag("refuse", h.Refuse)
	return m.flow()
}

func (p *Permissions) encode() *yaml.Node {
	m := &mapping{}
	for _, l := range p.places() {
		m.texts(l.kind, l.list)
	}
	m.raw("memory", formatSize(p.Memory))
	m.raw("cpu", formatDuration(p.CPU))
	m.raw("processes", strconv.Itoa(p.Processes))
	m.raw("files", strconv.Itoa(p.Files))
	m.raw("file_size", formatSize(p.FileSize))
	m.text("run_as", p.RunAs)
	m.texts("findings", p.Findings)
	m.texts("findings_from", p.FindingsFrom)
	m.texts("audit", p.Audit)
	return m.node()
}

func (os Options) encode() *yaml.Node {
	m := &mapping{}
	for i := range os {
		m.add(os[i].Name, os[i].encode())
	}
	return m.node()
}

func (o *Option) encode() *yaml.Node {
	m := &mapping{}
	m.text("type", o.Type)
	m.text("summary", o.Summary)
	if o.Default != nil {
		m.add("default", o.valueNode(o.Default))
	}
	m.flag("required", o.Required)
	m.flag("secret", o.Secret)
	m.texts("choices", o.Choices)
	if o.Min != nil {
		m.raw("min", o.format(*o.Min))
	}
	if o.Max != nil {
		m.raw("max", o.format(*o.Max))
	}
	m.text("pattern", o.Pattern)
	if o.Items != nil {
		m.add("items", o.Items.encode())
	}
	if len(o.Properties) > 0 {
		m.add("properties", o.Properties.encode())
	}
	return m.node()
}

// valueNode is a value of the option, or a list of such, in one line.
func (o *Option) valueNode(v any) *yaml.Node {
	switch v := v.(type) {
	case string:
		return textNode(v)
	case []any:
		n := &yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq", Style: yaml.FlowStyle}
		for _, item := range v {
			n.Content = append(n.Content, o.Items.valueNode(item))
		}
		return n
	}
	return rawNode(o.formatValue(v))
}

// inline writes a node in one line.
func inline(n *yaml.Node) string {
	data, err := yaml.Marshal(n)
	if err != nil {
		return fmt.Sprintf("(%v)", err) // a node of text that YAML cannot hold
	}
	return strings.TrimSuffix(string(data), "\n")
}
