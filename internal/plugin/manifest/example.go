package manifest

import (
	"strings"
	"time"
)

// Example returns a configuration to start from, as YAML with comments: every
// option with its summary and what it takes. What is required stands there
// without a value, and Validate says so; everything else is commented out, with
// its default where it has one. Prose has a space behind its #, an option that
// is commented out has none.
func (os Options) Example() []byte {
	var b strings.Builder
	for i, line := range os.exampleLines() {
		if i > 0 || line != "" {
			b.WriteString(line)
			b.WriteByte('\n')
		}
	}
	return []byte(b.String())
}

func (os Options) exampleLines() []string {
	var out []string
	for i := range os {
		if i > 0 {
			out = append(out, "")
		}
		o := &os[i]
		if o.Summary != "" {
			out = append(out, "# "+o.Summary)
		}
		out = append(out, "# ("+o.describe()+")")
		lines := o.example()
		if !o.Required {
			for i := range lines {
				lines[i] = "#" + lines[i]
			}
		}
		out = append(out, lines...)
	}
	return out
}

// describe says in a few words what an option takes.
func (o *Option) describe() string {
	words := []string{o.Type}
	switch {
	case o.Secret:
		words[0] = "secret: the value itself, or {file: /path/to/it}"
	case o.Type == TypeSize:
		words[0] = "size such as 64MiB"
	case o.Type == TypeDuration:
		words[0] = "duration such as 30s, 12h or 7d"
	case o.Type == TypeList && o.Items != nil && o.Items.Type != TypeObject:
		words[0] = "list; each: " + o.Items.describe()
	}
	if len(o.Choices) > 0 {
		words = append(words, "one of "+strings.Join(o.Choices, ", "))
	}
	of := map[string]string{TypeString: " characters", TypeList: " items"}[o.Type]
	for _, bound := range []struct {
		words string
		n     *int64
	}{{"at least ", o.Min}, {"at most ", o.Max}} {
		if bound.n == nil {
			continue
		}
		unit := of
		if *bound.n == 1 {
			unit = strings.TrimSuffix(unit, "s")
		}
		words = append(words, bound.words+o.format(*bound.n)+unit)
	}
	if o.Pattern != "" {
		words = append(words, "matches "+o.Pattern)
	}
	if o.Default != nil {
		words = append(words, "default "+inline(o.valueNode(o.Default)))
	}
	if o.Required {
		words = append(words, "required")
	}
	return strings.Join(words, "; ")
}

// example returns the lines of one option. What is required and has no value
// is left for the admin.
func (o *Option) example() []string {
	switch {
	case o.Type == TypeObject:
		return append([]string{o.Name + ":"}, indent(o.Properties.exampleLines())...)
	case o.Type == TypeList && o.Default == nil && o.Items != nil && o.Items.Type == TypeObject:
		lines := append([]string{"-"}, indent(o.Items.Properties.exampleLines())...)
		return append([]string{o.Name + ":"}, indent(lines)...)
	case o.Type == TypeList && o.Required:
		return []string{o.Name + ":", "  -"}
	case o.Required:
		return []string{o.Name + ":"}
	case o.Default != nil:
		return []string{o.Name + ": " + inline(o.valueNode(o.Default))}
	}
	return []string{o.Name + ": " + o.placeholder()}
}

// placeholder is a value of the right type.
func (o *Option) placeholder() string {
	switch {
	case o.Secret:
		return "{file: /path/to/it}"
	case o.Type == TypeList:
		return "[]"
	case o.Type == TypeBool:
		return "false"
	case len(o.Choices) > 0:
		return inline(o.valueNode(o.Choices[0]))
	case o.Type == TypeString:
		return `""`
	}
	n := map[string]int64{TypeSize: 1 << 20, TypeDuration: int64(30 * time.Second)}[o.Type]
	if o.Max != nil {
		n = min(n, *o.Max)
	}
	if o.Min != nil {
		n = max(n, *o.Min)
	}
	return o.format(n)
}

func indent(lines []string) []string {
	out := make([]string, len(lines))
	for i, l := range lines {
		if l != "" {
			l = "  " + l
		}
		out[i] = l
	}
	return out
}
