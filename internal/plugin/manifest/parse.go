package manifest

import (
	"time"

	"github.com/mobileops/mobileops/internal/document"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/finding"
	"go.yaml.in/yaml/v3"
)

// Times that hold when a manifest has none.
const (
	defaultReadyTimeout = 10 * time.Second
	defaultStopTimeout  = 10 * time.Second
	defaultHookTimeout  = 10 * time.Second // OnFinding, OnAudit
	defaultCronTimeout  = time.Minute      // OnSchedule
	defaultWaitTimeout  = 2 * time.Second  // OnBefore, OnAfter: a command waits for them
)

// Parse reads plugin.yaml, of at most MaxBytes, fills in defaults and checks
// everything that Check does. A source tree that was not packaged yet may have
// no files. The error wraps a *document.Error, and is of kind
// failure.Untrustworthy.
func Parse(data []byte) (*Manifest, error) {
	r := newReader(FileName)
	m := r.manifest(data)
	if len(r.err.Problems) == 0 {
		m.check(r.check())
	}
	if err := r.err.Result(failure.Untrustworthy); err != nil {
		return nil, err
	}
	return m, nil
}

func (r *reader) manifest(data []byte) *Manifest {
	n := r.document(data)
	if n == nil {
		if len(r.err.Problems) == 0 {
			r.err.Add(document.Place{}, "it is empty; a manifest begins with schema: %s", Schema)
		}
		return nil
	}
	if n.Kind == yaml.MappingNode {
		// A later schema has fields that are unknown here. Which schema it is
		// says more than a list of them.
		for i := 0; i+1 < len(n.Content); i += 2 {
			if v := n.Content[i+1]; n.Content[i].Value == "schema" && v.Kind == yaml.ScalarNode && v.Value != Schema {
				r.problem(v, "schema is %s; this version of mobileops reads %s", quote(v.Value), Schema)
				return nil
			}
		}
	}
	m := &Manifest{Permissions: DefaultPermissions()}
	r.fields(n, "",
		field{"schema", r.text(&m.Schema)},
		field{"name", r.text(&m.Name)},
		field{"version", r.text(&m.Version)},
		field{"summary", r.text(&m.Summary)},
		field{"description", r.text(&m.Description)},
		field{"licence", r.text(&m.Licence)},
		field{"homepage", r.text(&m.Homepage)},
		field{"min_version", r.text(&m.MinVersion)},
		field{"commands", r.commands(&m.Commands)},
		field{"service", r.service(&m.Service)},
		field{"hooks", r.hooks(&m.Hooks)},
		field{"config", r.options(&m.Config, 0)},
		field{"permissions", r.permissions(&m.Permissions)},
		field{"files", r.files(&m.Files)},
	)
	return m
}

func (r *reader) commands(to *[]Command) reading {
	return func(n *yaml.Node, where string) {
		r.each(n, where, func(_ int, n *yaml.Node, where string) {
			var c Command
			r.fields(n, where,
				field{"name", r.text(&c.Name)},
				field{"summary", r.text(&c.Summary)},
				field{"usage", r.text(&c.Usage)},
				field{"args", r.args(&c.Args)},
				field{"flags", r.flags(&c.Flags)},
				field{"examples", r.texts(&c.Examples)},
			)
			*to = append(*to, c)
		})
	}
}

func (r *reader) args(to *Args) reading {
	return func(n *yaml.Node, where string) {
		*to = Args{Max: -1}
		r.fields(n, where,
			field{"min", r.number(&to.Min)},
			field{"max", r.number(&to.Max)},
			field{"complete", r.text(&to.Complete)},
			field{"words", r.texts(&to.Words)},
		)
		if to.Complete == CompleteNone {
			to.Complete = ""
		}
		if len(to.Words) == 0 {
			to.Words = nil
		}
	}
}

func (r *reader) flags(to *[]Flag) reading {
	return func(n *yaml.Node, where string) {
		r.each(n, where, func(_ int, n *yaml.Node, where string) {
			var f Flag
			r.fields(n, where,
				field{"name", r.text(&f.Name)},
				field{"short", r.text(&f.Short)},
				field{"type", r.text(&f.Type)},
				field{"default", r.text(&f.Default)},
				field{"choices", r.texts(&f.Choices)},
				field{"summary", r.text(&f.Summary)},
				field{"required", r.flag(&f.Required)},
			)
			*to = append(*to, f)
		})
	}
}

func (r *reader) service(to **Service) reading {
	return func(n *yaml.Node, where string) {
		s := &Service{ReadyTimeout: defaultReadyTimeout, StopTimeout: defaultStopTimeout, Restart: RestartOnFailure}
		r.fields(n, where,
			field{"args", r.texts(&s.Args)},
			field{"ready_timeout", r.duration(&s.ReadyTimeout)},
			field{"stop_timeout", r.duration(&s.StopTimeout)},
			field{"restart", r.text(&s.Restart)},
			field{"watchdog", r.duration(&s.Watchdog)},
		)
		*to = s
	}
}

func (r *reader) hooks(to *[]Hook) reading {
	return func(n *yaml.Node, where string) {
		r.each(n, where, func(_ int, n *yaml.Node, where string) {
			h := Hook{Timeout: -1} // which nobody can write
			r.fields(n, where,
				field{"on", r.text(&h.On)},
				field{"args", r.texts(&h.Args)},
				field{"timeout", r.duration(&h.Timeout)},
				field{"min_severity", parsed(r, &h.MinSeverity, parseSeverity)},
				field{"sources", r.texts(&h.Sources)},
				field{"every", r.duration(&h.Every)},
				field{"commands", r.texts(&h.Commands)},
				field{"refuse", r.flag(&h.Refuse)},
			)
			if h.Timeout < 0 {
				h.Timeout = h.defaultTimeout()
			}
			*to = append(*to, h)
		})
	}
}

func (h *Hook) defaultTimeout() time.Duration {
	switch h.On {
	case OnBefore, OnAfter:
		return defaultWaitTimeout
	case OnSchedule:
		return defaultCronTimeout
	}
	return defaultHookTimeout
}

// parseSeverity takes lower case alone: a manifest is written in one way.
func parseSeverity(s string) (finding.Severity, error) {
	v, err := finding.ParseSeverity(s)
	if err != nil || v.String() != s {
		return v, errSeverity
	}
	return v, nil
}

func (r *reader) permissions(to *Permissions) reading {
	return func(n *yaml.Node, where string) {
		r.fields(n, where,
			field{"network", r.texts(&to.Network)},
			field{"unix", r.texts(&to.Unix)},
			field{"read", r.texts(&to.Read)},
			field{"write", r.texts(&to.Write)},
			field{"exec", r.texts(&to.Exec)},
			field{"memory", r.size(&to.Memory)},
			field{"cpu", r.duration(&to.CPU)},
			field{"processes", r.number(&to.Processes)},
			field{"files", r.number(&to.Files)},
			field{"file_size", r.size(&to.FileSize)},
			field{"run_as", r.text(&to.RunAs)},
			field{"findings", r.texts(&to.Findings)},
			field{"findings_from", r.texts(&to.FindingsFrom)},
			field{"audit", r.texts(&to.Audit)},
		)
		// An empty list gives nothing, as none does; but of findings_from none
		// means all, so an empty one stays, for Check to refuse.
		for _, list := range []*[]string{&to.Network, &to.Unix, &to.Read, &to.Write, &to.Exec, &to.Findings, &to.Audit} {
			if len(*list) == 0 {
				*list = nil
			}
		}
	}
}

func (r *reader) files(to *map[string]File) reading {
	return func(n *yaml.Node, where string) {
		files := map[string]File{}
		r.entries(n, where, func(key, value *yaml.Node, where string) {
			var f File
			r.fields(value, where,
				field{"digest", r.text(&f.Digest)},
				field{"size", parsed(r, &f.Size, parseInt)},
				field{"executable", r.flag(&f.Executable)},
			)
			files[key.Value] = f
		})
		if len(files) > 0 {
			*to = files
		}
	}
}

// options reads the keys of a configuration, or of an object at a depth within
// it.
func (r *reader) options(to *Options, depth int) reading {
	return func(n *yaml.Node, where string) {
		r.entries(n, where, func(key, value *yaml.Node, where string) {
			o := r.option(value, where, depth)
			o.Name = key.Value
			*to = append(*to, o)
		})
	}
}

// option reads an option. What depends on its type, which may stand after it,
// is read at the end.
func (r *reader) option(n *yaml.Node, where string, depth int) (o Option) {
	if depth >= maxOptionDepth {
		r.problem(n, "%s: options within options, more than %d deep", document.Printable(where), maxOptionDepth)
		return o
	}
	var def, least, most *yaml.Node
	keep := func(to **yaml.Node) reading { return func(n *yaml.Node, _ string) { *to = n } }
	r.fields(n, where,
		field{"type", r.text(&o.Type)},
		field{"summary", r.text(&o.Summary)},
		field{"default", keep(&def)},
		field{"required", r.flag(&o.Required)},
		field{"secret", r.flag(&o.Secret)},
		field{"choices", r.texts(&o.Choices)},
		field{"min", keep(&least)},
		field{"max", keep(&most)},
		field{"pattern", r.text(&o.Pattern)},
		field{"items", func(n *yaml.Node, where string) {
			items := r.option(n, where, depth+1)
			o.Items = &items
		}},
		field{"properties", r.options(&o.Properties, depth+1)},
	)
	for _, b := range []struct {
		key string
		n   *yaml.Node
		to  **int64
	}{{"min", least, &o.Min}, {"max", most, &o.Max}} {
		if b.n != nil {
			*b.to = new(int64)
			parsed(r, *b.to, o.parseBound)(b.n, join(where, b.key))
		}
	}
	if def != nil {
		o.Default = r.defaultOf(&o, def, join(where, "default"))
	}
	return o
}

// defaultOf reads a default of an option's type. What the option demands of
// values is left to check.
func (r *reader) defaultOf(o *Option, n *yaml.Node, where string) any {
	if o.Type == TypeList && o.Items != nil {
		out := []any{}
		r.each(n, where, func(_ int, n *yaml.Node, where string) {
			out = append(out, r.defaultOf(o.Items, n, where))
		})
		return out
	}
	var v any
	parsed(r, &v, o.parseScalar)(n, where)
	return v
}
