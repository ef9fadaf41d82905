package query

import (
	"cmp"
	"encoding/base64"
	"encoding/json"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// Kind says what a Value is.
type Kind uint8

// The kinds of values. Nil is that of a value that is not there.
const (
	Nil Kind = iota
	String
	Number
	Time
	Duration
)

var kindNames = [...]string{"nil", "string", "number", "time", "duration"}

func (k Kind) String() string { return kindNames[k] }

// Value is one cell of a table. The zero value is that of a cell with nothing
// in it.
type Value struct {
	kind Kind
	text string
	num  float64
	ns   int64
}

// Text returns the value of a text. Its bytes need not be UTF-8.
func Text(s string) Value { return Value{kind: String, text: s} }

// Num returns the value of a number.
func Num(n float64) Value { return Value{kind: Number, num: n} }

// At returns the value of a time in nanoseconds since 1970-01-01 UTC.
func At(ns int64) Value { return Value{kind: Time, ns: ns} }

// Kind returns what the value is.
func (v Value) Kind() Kind { return v.kind }

// Number returns a number, a length of time in seconds, or a time in seconds
// since 1970-01-01; 0 for others.
func (v Value) Number() float64 {
	if v.kind == Number {
		return v.num
	}
	return float64(v.ns) / 1e9
}

// When returns a time in nanoseconds since 1970-01-01 UTC; 0 for others.
func (v Value) When() int64 {
	if v.kind == Time {
		return v.ns
	}
	return 0
}

// Format returns the value as text for people, times in a zone. Texts come as
// they are: whoever prints them escapes them. A value that is not there is "".
func (v Value) Format(zone *time.Location) string {
	switch v.kind {
	case String:
		return v.text
	case Number:
		return decimal(v.num, 3)
	case Time:
		t := time.Unix(0, v.ns).In(zone)
		if v.ns%int64(time.Second) != 0 {
			return t.Format("2006-01-02 15:04:05.000")
		}
		return t.Format(time.DateTime)
	case Duration:
		return time.Duration(v.ns).String()
	}
	return ""
}

// decimal writes a number with so many digits behind the point at most, more
// when it is small.
func decimal(n float64, digits int) string {
	if n == math.Trunc(n) || math.Abs(n) < 0.1 {
		return strconv.FormatFloat(n, 'f', -1, 64)
	}
	return strings.TrimRight(strings.TrimRight(strconv.FormatFloat(n, 'f', digits, 64), "0"), ".")
}

// exact is the value as a comparison reads it.
func (v Value) exact() string {
	switch v.kind {
	case String:
		return v.text
	case Number:
		return strconv.FormatFloat(v.num, 'f', -1, 64)
	case Time:
		return time.Unix(0, v.ns).UTC().Format(timeText)
	case Duration:
		return strconv.FormatFloat(time.Duration(v.ns).Seconds(), 'f', -1, 64)
	}
	return ""
}

// MarshalJSON writes numbers as numbers, times as RFC 3339 in UTC, lengths of
// time as seconds, and what is not there as null. A text that is not UTF-8 is
// an object with its bytes: {"base64": "…"}.
func (v Value) MarshalJSON() ([]byte, error) {
	switch v.kind {
	case String:
		if !utf8.ValidString(v.text) {
			return json.Marshal(map[string]string{"base64": base64.StdEncoding.EncodeToString([]byte(v.text))})
		}
		return json.Marshal(v.text)
	case Number:
		if math.IsInf(v.num, 0) || math.IsNaN(v.num) {
			return []byte("null"), nil
		}
		if v.num == math.Trunc(v.num) && math.Abs(v.num) < 1<<53 {
			return strconv.AppendInt(nil, int64(v.num), 10), nil
		}
		return json.Marshal(v.num)
	case Time:
		return json.Marshal(time.Unix(0, v.ns).UTC().Format(time.RFC3339Nano))
	case Duration:
		return json.Marshal(time.Duration(v.ns).Seconds())
	}
	return []byte("null"), nil
}

// compare orders values: numbers, times, texts. Texts that are numbers are in
// the order of numbers. What is not there comes last.
func (v Value) compare(o Value) int {
	a, b := v.rank(), o.rank()
	if a != b {
		return cmp.Compare(a, b)
	}
	switch a {
	case 1:
		x, y := v.num, o.num
		if v.kind == String {
			x, _ = number(v.text)
		}
		if o.kind == String {
			y, _ = number(o.text)
		}
		if c := cmp.Compare(x, y); c != 0 {
			return c
		}
	case 2:
		return cmp.Compare(v.ns, o.ns)
	}
	return cmp.Compare(v.text, o.text)
}

func (v Value) rank() int {
	switch v.kind {
	case Number:
		return 1
	case Time, Duration:
		return 2
	case String:
		if _, ok := number(v.text); ok {
			return 1
		}
		return 3
	}
	return 4
}

// Column is a column of a table.
type Column struct {
	Name string `json:"name"`
	Kind Kind   `json:"kind"`
}

// MarshalText writes the name of the kind.
func (k Kind) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// Table is what a pipeline made.
type Table struct {
	Columns []Column  `json:"columns"`
	Rows    [][]Value `json:"rows"`
	// Partial says that a limit was reached, and Why says which, and what is
	// not in the table because of it.
	Partial bool   `json:"partial"`
	Why     string `json:"why,omitempty"`
}
