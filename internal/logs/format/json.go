package format

import (
	"bytes"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/mobileops/mobileops/internal/logs/event"
)

// object reads the members of an object of JSON one after the other, without
// regard to what their values mean.
type object struct {
	b   []byte
	i   int
	bad bool
}

// open steps into the object at the beginning of b.
func openObject(b []byte) object {
	o := object{b: b}
	o.blanks()
	if o.i >= len(b) || b[o.i] != '{' {
		o.bad = true
		return o
	}
	o.i++
	o.blanks()
	return o
}

func (o *object) blanks() {
	for o.i < len(o.b) {
		switch o.b[o.i] {
		case ' ', '\t', '\r', '\n':
			o.i++
			continue
		}
		return
	}
}

// next returns the next member: its name and its value as they are written, the
// name without its quotes. ok is false at the end of the object, or when it is
// none (bad).
func (o *object) next() (key, val []byte, ok bool) {
	if o.bad || o.i >= len(o.b) {
		o.bad = true
		return nil, nil, false
	}
	if o.b[o.i] == ',' {
		o.i++
		o.blanks()
	}
	if o.i < len(o.b) && o.b[o.i] == '}' {
		o.i++
		return nil, nil, false
	}
	end := stringEnd(o.b, o.i)
	if end < 0 {
		o.bad = true
		return nil, nil, false
	}
	key = o.b[o.i+1 : end-1]
	o.i = end
	o.blanks()
	if o.i >= len(o.b) || o.b[o.i] != ':' {
		o.bad = true
		return nil, nil, false
	}
	o.i++
	o.blanks()
	end = valueEnd(o.b, o.i)
	if end < 0 {
		o.bad = true
		return nil, nil, false
	}
	val = o.b[o.i:end]
	o.i = end
	o.blanks()
	if o.i < len(o.b) && o.b[o.i] != ',' && o.b[o.i] != '}' {
		o.bad = true
		return nil, nil, false
	}
	return key, val, true
}

// closed reports whether the object ended, with nothing but blanks behind it.
func (o *object) closed() bool {
	if o.bad {
		return false
	}
	o.blanks()
	return o.i == len(o.b)
}

// stringEnd returns the position after the string that begins at i, or -1.
func stringEnd(b []byte, i int) int {
	if i >= len(b) || b[i] != '"' {
		return -1
	}
	for j := i + 1; ; {
		n := bytes.IndexByte(b[j:], '"')
		if n < 0 {
			return -1
		}
		e := j + n
		k := e
		for k > j && b[k-1] == '\\' {
			k--
		}
		if (e-k)%2 == 0 {
			return e + 1
		}
		j = e + 1
	}
}

// valueEnd returns the position after the value that begins at i, or -1.
func valueEnd(b []byte, i int) int {
	if i >= len(b) {
		return -1
	}
	switch c := b[i]; {
	case c == '"':
		return stringEnd(b, i)
	case c == '{' || c == '[':
		depth := 0
		for j := i; j < len(b); j++ {
			switch b[j] {
			case '"':
				if j = stringEnd(b, j) - 1; j < 0 {
					return -1
				}
			case '{', '[':
				depth++
			case '}', ']':
				if depth--; depth == 0 {
					return j + 1
				}
			}
		}
		return -1
	}
	j := i
	for j < len(b) && (digit(b[j]) || letter(b[j]) || b[j] == '-' || b[j] == '+' || b[j] == '.') {
		j++
	}
	if j == i {
		return -1
	}
	return j
}

// text returns what a value means: the text of a string, or how it is written.
func text(val []byte) []byte {
	if len(val) >= 2 && val[0] == '"' {
		return unescape(val[1 : len(val)-1])
	}
	return val
}

// unescape decodes the escapes of a string of JSON. Nothing is copied when
// there are none. A lone surrogate becomes U+FFFD; an escape that is none stays.
func unescape(s []byte) []byte {
	i := bytes.IndexByte(s, '\\')
	if i < 0 {
		return s[:len(s):len(s)]
	}
	out := make([]byte, 0, len(s))
	for {
		out = append(out, s[:i]...)
		s = s[i:]
		if len(s) < 2 {
			return append(out, s...)
		}
		n := 2
		switch c := s[1]; c {
		case '"', '\\', '/':
			out = append(out, c)
		case 'n':
			out = append(out, '\n')
		case 't':
			out = append(out, '\t')
		case 'r':
			out = append(out, '\r')
		case 'b':
			out = append(out, '\b')
		case 'f':
			out = append(out, '\f')
		case 'u':
			r, ok := hex4(s[2:])
			if !ok {
				out = append(out, s[:2]...)
				break
			}
			n = 6
			if utf16.IsSurrogate(r) {
				r2, ok := rune(0), false
				if len(s) >= 8 && s[6] == '\\' && s[7] == 'u' {
					r2, ok = hex4(s[8:])
				}
				if r = utf16.DecodeRune(r, r2); ok && r != utf8.RuneError {
					n = 12
				}
			}
			out = utf8.AppendRune(out, r)
		default:
			out = append(out, s[:2]...)
		}
		s = s[n:]
		if i = bytes.IndexByte(s, '\\'); i < 0 {
			return append(out, s...)
		}
	}
}

func hex4(s []byte) (rune, bool) {
	if len(s) < 4 {
		return 0, false
	}
	v, err := strconv.ParseUint(string(s[:4]), 16, 32)
	return rune(v), err == nil
}

// fillJSON sets the fields of e from an object. A nested one is flattened once:
// {"log":{"level":"info"}} has a field log.level.
func (f *Format) fillJSON(e *event.Event, b []byte) bool {
	o := openObject(b)
	var have uint16 // roles that are set
	var room [128]byte
	for {
		key, val, ok := o.next()
		if !ok {
			break
		}
		if val[0] == '{' && len(val) > 2 {
			in := openObject(val)
			name := append(append(room[:0], key...), '.')
			n := len(name)
			for {
				k, v, ok := in.next()
				if !ok {
					break
				}
				name = append(name[:n], k...)
				f.member(e, name, v, &have)
			}
			if !in.bad {
				continue
			}
		}
		f.member(e, key, val, &have)
	}
	if !o.closed() {
		e.Host, e.Unit, e.Program, e.User, e.PID, e.Severity = "", f.unit, f.program, "", 0, event.NoSeverity
		e.Fields, e.Message = e.Fields[:0], nil
		return false
	}
	return true
}

// member puts one member of an object where it belongs. The first one for a
// place is taken; further ones are fields.
func (f *Format) member(e *event.Event, key, val []byte, have *uint16) {
	if len(val) == 4 && string(val) == "null" {
		return
	}
	if len(key) > 0 && bytes.IndexByte(key, '\\') >= 0 {
		key = unescape(key)
	}
	r := f.keys[string(key)]
	if r == roleTime {
		return
	}
	v := text(val)
	if r == roleField || *have&(1<<r) != 0 || val[0] == '{' || val[0] == '[' {
		if len(e.Fields) < maxFields {
			e.Fields = append(e.Fields, event.Field{Name: known.get(key), Value: v})
		}
		return
	}
	*have |= 1 << r
	f.put(e, r, known.get(key), v)
}

// numericSeverity reads the numbers that loggers write instead of words: 0 to 7
// are those of syslog, 10 to 60 those of bunyan and pino.
func numericSeverity(v []byte) (event.Severity, bool) {
	n, ok := number(v)
	switch {
	case !ok:
	case n <= 7:
		return event.Severity(n), true
	case n == 10 || n == 20:
		return event.Debug, true
	case n == 30:
		return event.Info, true
	case n == 40:
		return event.Warning, true
	case n == 50:
		return event.Error, true
	case n == 60:
		return event.Critical, true
	}
	return event.NoSeverity, false
}

// jsonTime finds the first member that is a time.
func (f *Format) jsonTime(b []byte, c *captures) bool {
	o := openObject(b)
	var room [128]byte
	for {
		key, val, ok := o.next()
		if !ok {
			return false
		}
		if val[0] == '{' && len(val) > 2 {
			in := openObject(val)
			name := append(append(room[:0], key...), '.')
			n := len(name)
			for {
				k, v, ok := in.next()
				if !ok {
					break
				}
				name = append(name[:n], k...)
				if f.keys[string(name)] == roleTime && f.valueTime(text(v), c) {
					return true
				}
			}
			continue
		}
		if f.keys[string(key)] == roleTime && f.valueTime(text(val), c) {
			return true
		}
	}
}

// valueTime reads a value that is nothing but a time.
func (f *Format) valueTime(v []byte, c *captures) bool {
	for _, l := range f.times {
		if t, n, ok := l.Parse(v); ok && n == len(v) {
			c.time, c.used = t, l
			return true
		}
	}
	return false
}
