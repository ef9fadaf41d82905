package manifest

import (
	"errors"
	"fmt"
	"regexp"
	"regexp/syntax"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/mobileops/mobileops/internal/document"
)

// How much a configuration may have.
const (
	maxOptions     = 512 // with those of objects
	maxOptionDepth = 8
	maxItems       = 10_000 // of a list in a configuration
	maxPattern     = 512
	maxPatternSize = 1000 // instructions; repetitions multiply them
)

// errType is of an option whose type takes no single value.
var errType = errors.New("cannot be read: the type of the option is unknown, or has no single values")

// parseScalar reads a value as the type of the option has it: a string, a bool
// or an int64.
func (o *Option) parseScalar(s string) (any, error) {
	switch o.Type {
	case TypeString:
		return s, nil
	case TypeBool:
		v, err := parseBool(s)
		return v, err
	case TypeInt, TypeSize, TypeDuration:
		n, err := o.parseNumber(s)
		return n, err
	}
	return nil, errType
}

func (o *Option) parseNumber(s string) (int64, error) {
	switch o.Type {
	case TypeSize:
		return parseSize(s)
	case TypeDuration:
		d, err := parseDuration(s)
		return int64(d), err
	}
	return parseInt(s)
}

// parseBound reads a min or max.
func (o *Option) parseBound(s string) (int64, error) {
	n, err := o.parseNumber(s)
	if err == nil && n < 0 && (o.Type == TypeString || o.Type == TypeList) {
		return 0, errors.New("is less than nothing")
	}
	return n, err
}

// format writes a number as the type has it.
func (o *Option) format(n int64) string {
	switch o.Type {
	case TypeSize:
		return formatSize(n)
	case TypeDuration:
		return formatDuration(time.Duration(n))
	}
	return fmt.Sprint(n)
}

func (o *Option) bounded() bool {
	return slices.Contains([]string{TypeInt, TypeSize, TypeDuration, TypeString, TypeList}, o.Type)
}

// compilePattern compiles a pattern, if it is one that stays small.
func compilePattern(pattern string) (*regexp.Regexp, error) {
	if len(pattern) > maxPattern {
		return nil, fmt.Errorf("has %d bytes; %d are allowed", len(pattern), maxPattern)
	}
	parsed, err := syntax.Parse(pattern, syntax.Perl)
	if err != nil {
		return nil, fmt.Errorf("is no expression of RE2: %s", document.Printable(strings.TrimPrefix(err.Error(), "error parsing regexp: ")))
	}
	program, err := syntax.Compile(parsed.Simplify())
	if err != nil {
		return nil, fmt.Errorf("is no expression of RE2: %s", document.Printable(err.Error()))
	}
	if len(program.Inst) > maxPatternSize {
		return nil, errors.New("repeats too much")
	}
	return regexp.Compile(pattern)
}

func (os Options) check(bad report) {
	n := 0
	os.checkAt(bad, "config", 0, &n)
	if n > maxOptions {
		bad("config", "has %d options; %d are allowed", n, maxOptions)
	}
}

func (os Options) checkAt(bad report, where string, depth int, n *int) {
	if depth >= maxOptionDepth {
		bad(where, "options within options, more than %d deep", maxOptionDepth)
		return
	}
	seen := map[string]bool{}
	for i := range os {
		o, at := &os[i], join(where, os[i].Name)
		switch {
		case !isKey(o.Name) || len(o.Name) > maxKey:
			bad(at, "the name of an option is 1 to %d lower-case letters, digits and underscores, a letter first", maxKey)
		case seen[o.Name]:
			bad(at, "is there twice")
		}
		seen[o.Name] = true
		o.checkAt(bad, at, depth, n)
	}
}

func (o *Option) checkAt(bad report, where string, depth int, n *int) {
	if *n++; *n > maxOptions {
		return // reported at the end
	}
	checkSummary(bad, join(where, "summary"), o.Summary, false)
	if !checkChoice(bad, join(where, "type"), o.Type, TypeString, TypeInt, TypeBool, TypeDuration, TypeSize, TypeList, TypeObject) {
		return
	}
	for _, only := range []struct {
		key   string
		there bool
		ok    bool
		of    string
	}{
		{"secret", o.Secret, o.Type == TypeString, "type: string"},
		{"choices", o.Choices != nil, o.Type == TypeString, "type: string"},
		{"pattern", o.Pattern != "", o.Type == TypeString, "type: string"},
		{"min", o.Min != nil, o.bounded(), "numbers, strings and lists"},
		{"max", o.Max != nil, o.bounded(), "numbers, strings and lists"},
		{"items", o.Items != nil, o.Type == TypeList, "type: list"},
		{"properties", o.Properties != nil, o.Type == TypeObject, "type: object"},
		{"default", o.Default != nil, o.Type != TypeObject, "other types than object; give its properties defaults"},
	} {
		if only.there && !only.ok {
			bad(join(where, only.key), "is for %s", only.of)
			return
		}
	}
	if o.Secret && (o.Default != nil || o.Choices != nil || o.Pattern != "" || o.Min != nil || o.Max != nil) {
		bad(join(where, "secret"), "a secret may be in a file, where only the plugin's start reads it: it has no default, choices, pattern, min and max")
	}
	sound := o.checkValues(bad, where)
	switch o.Type {
	case TypeList:
		if o.Items == nil {
			bad(join(where, "items"), "is missing: it says what the list is of")
			break
		}
		if items := join(where, "items"); o.Items.Required || o.Items.Default != nil || o.Items.Name != "" {
			bad(items, "what is in a list is there, so it has neither default nor required")
		}
		if depth+1 >= maxOptionDepth {
			bad(where, "options within options, more than %d deep", maxOptionDepth)
			break
		}
		o.Items.checkAt(bad, join(where, "items"), depth+1, n)
	case TypeObject:
		if len(o.Properties) == 0 {
			bad(join(where, "properties"), "is missing: an object has some")
		}
		o.Properties.checkAt(bad, join(where, "properties"), depth+1, n)
	}
	if o.Default != nil && sound {
		o.checkDefault(bad, join(where, "default"))
	}
}

// checkValues reports what is wrong with what is demanded of values, and
// returns whether values can be held against it.
func (o *Option) checkValues(bad report, where string) bool {
	if o.Choices != nil {
		if len(o.Choices) == 0 {
			bad(join(where, "choices"), "is empty: nothing could be chosen")
		}
		checkChoices(bad, join(where, "choices"), o.Choices)
	}
	if o.Pattern != "" {
		if _, err := compilePattern(o.Pattern); err != nil {
			bad(join(where, "pattern"), "%s %v", quote(o.Pattern), err)
			return false
		}
	}
	if o.Min != nil && o.Max != nil && *o.Min > *o.Max {
		bad(join(where, "max"), "is %s, less than min (%s)", o.format(*o.Max), o.format(*o.Min))
		return false
	}
	return true
}

// checkDefault reports a default that the option would refuse as a value.
func (o *Option) checkDefault(bad report, where string) {
	if o.Required {
		bad(where, "makes no sense of an option that is required")
		return
	}
	if list, ok := o.Default.([]any); ok && o.Type == TypeList && o.Items != nil {
		if o.Items.Secret || o.Items.Type == TypeList || o.Items.Type == TypeObject {
			bad(where, "is for lists of single values that are no secrets")
			return
		}
		for i, v := range list {
			if err := o.Items.accepts(v, compilePattern); err != nil {
				bad(fmt.Sprintf("%s[%d]", where, i), "%s %v", quote(o.Items.formatValue(v)), err)
			}
		}
		if err := o.acceptsLength(int64(len(list)), "items"); err != nil {
			bad(where, "%v", err)
		}
		return
	}
	if err := o.accepts(o.Default, compilePattern); err != nil {
		bad(where, "%s %v", quote(o.formatValue(o.Default)), err)
	}
}

// compiler makes an expression of a pattern.
type compiler func(pattern string) (*regexp.Regexp, error)

// accepts says why the option refuses a single value, which parseScalar made.
func (o *Option) accepts(v any, compile compiler) error {
	switch v := v.(type) {
	case bool:
		if o.Type != TypeBool {
			return errType
		}
		return nil
	case int64:
		if o.Type != TypeInt && o.Type != TypeSize && o.Type != TypeDuration {
			return errType
		}
		if o.Min != nil && v < *o.Min {
			return fmt.Errorf("is less than %s", o.format(*o.Min))
		}
		if o.Max != nil && v > *o.Max {
			return fmt.Errorf("is more than %s", o.format(*o.Max))
		}
		return nil
	case string:
		if o.Type != TypeString {
			return errType
		}
		return o.acceptsString(v, compile)
	}
	return errType
}

func (o *Option) acceptsString(s string, compile compiler) error {
	if o.Choices != nil && !slices.Contains(o.Choices, s) {
		return fmt.Errorf("is not one of %s%s", strings.Join(o.Choices, ", "), meant(s, o.Choices))
	}
	if o.Pattern != "" {
		re, err := compile(o.Pattern)
		if err != nil {
			return err // of Options that Check never saw
		}
		if !re.MatchString(s) {
			return fmt.Errorf("does not match %s", quote(o.Pattern))
		}
	}
	return o.acceptsLength(int64(utf8.RuneCountInString(s)), "characters")
}

// acceptsLength holds a number of characters or items against min and max.
func (o *Option) acceptsLength(n int64, of string) error {
	if o.Min != nil && n < *o.Min {
		return fmt.Errorf("has %d %s; at least %d are needed", n, of, *o.Min)
	}
	if o.Max != nil && n > *o.Max {
		return fmt.Errorf("has %d %s; %d are allowed", n, of, *o.Max)
	}
	return nil
}

// formatValue writes a single value as a configuration has it.
func (o *Option) formatValue(v any) string {
	if n, ok := v.(int64); ok {
		return o.format(n)
	}
	return fmt.Sprint(v)
}
