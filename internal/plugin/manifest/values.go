package manifest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"time"
)

// Values are what an admin set and the defaults of the rest, of a configuration
// that Options.Validate found good. The zero value has none.
type Values struct {
	options Options
	// root has, by the name of the option, what its type makes: a string, a
	// bool, an int64, a []any, a map[string]any or a *Secret, so that printing
	// what holds Values shows a pointer.
	root map[string]any
}

// Secret is the value of a secret option, or the file that it is in. It is
// never printed.
type Secret struct {
	Literal string // the value itself; "" when File is set
	File    string // absolute and clean; who reads it takes one line break from its end
}

const redacted = "(secret)"

// String hides the value, and shows the file.
func (s Secret) String() string {
	if s.File != "" {
		return "(secret in " + s.File + ")"
	}
	return redacted
}

// GoString hides the value from %#v.
func (s Secret) GoString() string { return s.String() }

// LogValue hides the value from logs.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalJSON hides the value from everything that is written as JSON.
func (s Secret) MarshalJSON() ([]byte, error) { return json.Marshal(s.String()) }

// JSON returns the values without secrets, as a plugin asks for them by
// config.get: keys in the order of the manifest, sizes in bytes, durations as
// strings that time.ParseDuration reads ("1m30s"). What is not set and has no
// default is not there.
func (v Values) JSON() []byte {
	var b bytes.Buffer
	writeObject(&b, v.options, v.root)
	return b.Bytes()
}

// MarshalJSON is JSON.
func (v Values) MarshalJSON() ([]byte, error) { return v.JSON(), nil }

// String is JSON.
func (v Values) String() string { return string(v.JSON()) }

func writeObject(b *bytes.Buffer, options Options, values map[string]any) {
	b.WriteByte('{')
	first := true
	for i := range options {
		o := &options[i]
		value, ok := values[o.Name]
		if !ok || o.isSecret() {
			continue
		}
		if !first {
			b.WriteByte(',')
		}
		first = false
		writeJSON(b, o.Name)
		b.WriteByte(':')
		writeValue(b, o, value)
	}
	b.WriteByte('}')
}

func writeValue(b *bytes.Buffer, o *Option, value any) {
	switch v := value.(type) {
	case map[string]any:
		writeObject(b, o.Properties, v)
	case []any:
		b.WriteByte('[')
		for i, item := range v {
			if i > 0 {
				b.WriteByte(',')
			}
			writeValue(b, o.Items, item)
		}
		b.WriteByte(']')
	case int64:
		if o.Type == TypeDuration {
			writeJSON(b, time.Duration(v).String())
			return
		}
		writeJSON(b, v)
	default:
		writeJSON(b, v)
	}
}

func writeJSON(b *bytes.Buffer, v any) {
	data, err := json.Marshal(v)
	if err != nil {
		panic(err) // of strings, numbers and bools, which are always written
	}
	b.Write(data)
}

// isSecret tells whether the values of an option are secrets, in lists too.
func (o *Option) isSecret() bool {
	for o.Type == TypeList && o.Items != nil {
		o = o.Items
	}
	return o.Secret
}

// Secrets returns the names of the secrets that are set, such as
// "destinations[0].token", in the order of the manifest.
func (v Values) Secrets() []string {
	var names []string
	v.eachSecret(func(name string, _ Secret) bool {
		names = append(names, name)
		return true
	})
	return names
}

// Secret returns the secret of a name that Secrets lists.
func (v Values) Secret(name string) (Secret, bool) {
	var found Secret
	ok := false
	v.eachSecret(func(n string, s Secret) bool {
		if ok = n == name; ok {
			found = s
		}
		return !ok
	})
	return found, ok
}

// eachSecret calls f until it returns false.
func (v Values) eachSecret(f func(name string, s Secret) bool) {
	var walk func(o *Option, where string, value any) bool
	object := func(options Options, where string, values map[string]any) bool {
		for i := range options {
			if value, ok := values[options[i].Name]; ok && !walk(&options[i], join(where, options[i].Name), value) {
				return false
			}
		}
		return true
	}
	walk = func(o *Option, where string, value any) bool {
		switch v := value.(type) {
		case *Secret:
			return f(where, *v)
		case map[string]any:
			return object(o.Properties, where, v)
		case []any:
			for i, item := range v {
				if !walk(o.Items, fmt.Sprintf("%s[%d]", where, i), item) {
					return false
				}
			}
		}
		return true
	}
	object(v.options, "", v.root)
}

// Lookup returns the values that a path leads to, such as
// "destinations[].address", as the configuration writes them; none when it
// leads nowhere, or to secrets.
func (v Values) Lookup(path string) []string {
	o, err := v.options.leaf(path)
	if err != nil || o.Secret {
		return nil
	}
	at := []any{map[string]any(v.root)}
	for part := range strings.SplitSeq(path, ".") {
		key := strings.TrimRight(part, "[]")
		var next []any
		for _, in := range at {
			if value, ok := in.(map[string]any)[key]; ok {
				next = append(next, value)
			}
		}
		for range strings.Count(part, "[]") {
			var items []any
			for _, list := range next {
				items = append(items, list.([]any)...)
			}
			next = items
		}
		at = next
	}
	out := make([]string, len(at))
	for i, value := range at {
		out[i] = o.formatValue(value)
	}
	return out
}
