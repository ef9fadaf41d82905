package manifest

import (
	"encoding/json"
	"fmt"
)

// Types of options.
const (
	TypeString   = "string"
	TypeInt      = "int"
	TypeBool     = "bool"
	TypeDuration = "duration"
	TypeSize     = "size"
	TypeList     = "list"
	TypeObject   = "object"
)

// Options are the keys of a configuration, or of an object within it, in the
// order of the manifest.
type Options []Option

// Option is one key of a configuration.
type Option struct {
	Name    string `json:"name,omitempty"` // "" of the items of a list
	Type    string `json:"type"`           // TypeString and so on
	Summary string `json:"summary,omitempty"`
	// Default is nil, a string, a bool, an int64 (of a size bytes, of a
	// duration nanoseconds), or a []any of these.
	Default  any  `json:"default,omitempty"`
	Required bool `json:"required,omitempty"`
	Secret   bool `json:"secret,omitempty"` // of a string: never among the values
	// Choices are the values that a string may have.
	Choices []string `json:"choices,omitempty"`
	// Min and Max bound an int, a size (bytes), a duration (nanoseconds), the
	// characters of a string and the items of a list.
	Min        *int64  `json:"min,omitempty"`
	Max        *int64  `json:"max,omitempty"`
	Pattern    string  `json:"pattern,omitempty"` // RE2, found anywhere in a string unless it has ^ and $
	Items      *Option `json:"items,omitempty"`   // of a list
	Properties Options `json:"properties,omitempty"`
}

// UnmarshalJSON reads what encoding/json wrote. Without it, a Default would
// come back as whatever JSON has for it: a duration as a floating number.
func (o *Option) UnmarshalJSON(data []byte) error {
	type plain Option // without this method
	in := struct {
		*plain
		Default json.RawMessage `json:"default"`
	}{plain: (*plain)(o)}
	if err := json.Unmarshal(data, &in); err != nil || in.Default == nil {
		return err
	}
	v, err := o.defaultOfJSON(in.Default)
	o.Default = v
	return err
}

func (o *Option) defaultOfJSON(data []byte) (any, error) {
	var err error
	switch o.Type {
	case TypeString:
		var s string
		err = json.Unmarshal(data, &s)
		return s, err
	case TypeBool:
		var b bool
		err = json.Unmarshal(data, &b)
		return b, err
	case TypeInt, TypeSize, TypeDuration:
		var n int64
		err = json.Unmarshal(data, &n)
		return n, err
	}
	var list []json.RawMessage
	if err = json.Unmarshal(data, &list); err != nil || o.Items == nil {
		return nil, fmt.Errorf("default of %s: no list of values", quote(o.Name))
	}
	out := make([]any, len(list))
	for i, item := range list {
		if out[i], err = o.Items.defaultOfJSON(item); err != nil {
			return nil, err
		}
	}
	return out, nil
}
