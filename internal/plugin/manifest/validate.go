package manifest

import (
	"regexp"

	"github.com/mobileops/mobileops/internal/document"
	"github.com/mobileops/mobileops/internal/failure"
	"go.yaml.in/yaml/v3"
)

// maxValue is the greatest length of one value of a configuration, in bytes.
const maxValue = 64 << 10

// Validate reads a configuration, of at most MaxBytes, and fills in defaults.
// Nothing at all is one, too. The options must have passed Check. The error
// wraps a *document.Error, is of kind failure.Usage, and never has a secret in it.
func (os Options) Validate(data []byte) (Values, error) { return os.ValidateFile("", data) }

// ValidateFile is Validate with errors that begin with the name of a file.
func (os Options) ValidateFile(file string, data []byte) (Values, error) {
	v := validator{reader: newReader(file), patterns: map[string]*regexp.Regexp{}}
	root := map[string]any{}
	if n := v.document(data); n != nil {
		v.object(n, "", os, root)
	} else if len(v.err.Problems) == 0 {
		v.complete("", os, root)
	}
	if err := v.err.Result(failure.Usage); err != nil {
		return Values{}, err
	}
	return Values{options: os, root: root}, nil
}

// validator reads a configuration by its options.
type validator struct {
	*reader
	patterns map[string]*regexp.Regexp
}

// compile compiles each pattern once.
func (v *validator) compile(pattern string) (*regexp.Regexp, error) {
	if re, ok := v.patterns[pattern]; ok {
		return re, nil
	}
	re, err := compilePattern(pattern)
	if err == nil {
		v.patterns[pattern] = re
	}
	return re, err
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.Tag == "!!null" }

// object reads the values of options into into. One whose keys are all
// commented out is null to YAML, and has none here.
func (v *validator) object(n *yaml.Node, where string, options Options, into map[string]any) {
	if !isNull(n) {
		known := make([]field, len(options))
		for i := range options {
			o := &options[i]
			known[i] = field{o.Name, func(n *yaml.Node, where string) {
				// What was refused is there: it is not missing, too.
				into[o.Name] = v.value(n, where, o)
			}}
		}
		v.fields(n, where, known...)
		if n.Kind != yaml.MappingNode {
			return
		}
	}
	v.complete(where, options, into)
}

// complete fills in defaults, and reports what is missing.
func (v *validator) complete(where string, options Options, into map[string]any) {
	for i := range options {
		o := &options[i]
		if _, there := into[o.Name]; there {
			continue
		}
		path := join(where, o.Name)
		switch {
		case o.Required:
			v.check()(path, "is required, and not there")
		case o.Default != nil:
			into[o.Name] = o.Default
		case o.Type == TypeObject && !o.Properties.needs():
			inner := map[string]any{}
			if v.complete(path, o.Properties, inner); len(inner) > 0 {
				into[o.Name] = inner
			}
		}
	}
}

// needs tells whether an object cannot be made of defaults alone.
func (os Options) needs() bool {
	for i := range os {
		if os[i].Required {
			return true
		}
	}
	return false
}

func (v *validator) value(n *yaml.Node, where string, o *Option) any {
	switch {
	case o.Type == TypeObject:
		inner := map[string]any{}
		v.object(n, where, o.Properties, inner)
		return inner
	case isNull(n):
		hint := "write one, or comment the line out"
		if o.Required {
			hint = "it is required"
		}
		v.problem(n, "%s has no value; %s", document.Printable(where), hint)
		return nil
	case o.Type == TypeList:
		return v.list(n, where, o)
	case o.Secret:
		return v.secret(n, where)
	}
	return v.single(n, where, o)
}

func (v *validator) list(n *yaml.Node, where string, o *Option) []any {
	out := []any{}
	if n.Kind == yaml.SequenceNode && len(n.Content) > maxItems {
		v.problem(n, "%s has %d items; %d are allowed", document.Printable(where), len(n.Content), maxItems)
		return out
	}
	v.each(n, where, func(_ int, n *yaml.Node, where string) {
		out = append(out, v.value(n, where, o.Items))
	})
	if n.Kind == yaml.SequenceNode {
		if err := o.acceptsLength(int64(len(out)), "items"); err != nil {
			v.problem(n, "%s %v", document.Printable(where), err)
		}
	}
	return out
}

// single reads a value that is no secret.
func (v *validator) single(n *yaml.Node, where string, o *Option) any {
	s, ok := v.scalar(n, where)
	if !ok {
		return nil
	}
	if len(s) > maxValue {
		v.problem(n, "%s has %d bytes; %d are allowed", document.Printable(where), len(s), maxValue)
		return nil
	}
	value, err := o.parseScalar(s)
	if err == nil {
		err = o.accepts(value, v.compile)
	}
	if err != nil {
		v.problem(n, "%s: %s %v", document.Printable(where), quote(s), err)
		return nil
	}
	return value
}

// secret reads a secret: its value, or {file: PATH}. Nothing of it goes into a
// message.
func (v *validator) secret(n *yaml.Node, where string) *Secret {
	s := new(Secret)
	const form = "a secret is its value, or {file: /path/to/it}"
	if n.Kind == yaml.ScalarNode {
		switch s.Literal = n.Value; {
		case s.Literal == "":
			v.problem(n, "%s is empty; %s", document.Printable(where), form)
		case len(s.Literal) > maxValue:
			v.problem(n, "%s has %d bytes; %d are allowed", document.Printable(where), len(s.Literal), maxValue)
		}
		return s
	}
	if n.Kind != yaml.MappingNode || len(n.Content) != 2 || n.Content[0].Value != "file" || n.Content[1].Kind != yaml.ScalarNode {
		v.problem(n, "%s: %s", document.Printable(where), form)
		return s
	}
	path := n.Content[1]
	if err := checkPath(path.Value); err != nil {
		v.problem(path, "%s: %s %v", document.Printable(join(where, "file")), quote(path.Value), err)
	}
	s.File = path.Value
	return s
}
