package format

import (
	"bytes"

	"github.com/mobileops/mobileops/internal/logs/event"
)

// pairs reads name=value pairs one after the other. Values are bare words,
// or between quotes.
type pairs struct {
	b []byte
	i int
	// unclosed says that a quote has no end: then no later one has, and none is
	// looked for again.
	unclosed bool
}

// quoted returns the position after the string that begins at i, or -1.
func (p *pairs) quoted(i int) int {
	if p.unclosed {
		return -1
	}
	end := stringEnd(p.b, i)
	p.unclosed = end < 0
	return end
}

// next returns the next pair; quoted says that the value was between double
// quotes, which are taken away. Words without = are left out.
func (p *pairs) next() (name, val []byte, quoted, ok bool) {
	b := p.b
	i := p.i
	for {
		for i < len(b) && (b[i] <= ' ' || b[i] == enriched || b[i] == ',') {
			i++
		}
		from := i
		for i < len(b) && b[i] > ' ' && b[i] != '=' && b[i] != '"' && b[i] != enriched {
			i++
		}
		switch {
		case i == len(b):
			p.i = i
			return nil, nil, false, false
		case b[i] == '"':
			if end := p.quoted(i); end > 0 {
				i = end
			} else {
				i++
			}
		case b[i] == '=' && i > from:
			name = b[from:i]
			i++
			if i < len(b) && b[i] == '"' {
				if end := p.quoted(i); end > 0 {
					p.i = end
					return name, b[i+1 : end-1], true, true
				}
			}
			from = i
			for i < len(b) && b[i] > ' ' && b[i] != enriched {
				i++
			}
			p.i = i
			return name, b[from:i:i], false, true
		default:
			i++
		}
	}
}

// enriched separates what auditd adds to a record (ENRICHED, auditd.conf(5)).
const enriched = 0x1d

// fillLogfmt sets the fields of e from name=value pairs.
func (f *Format) fillLogfmt(e *event.Event, b []byte) bool {
	return f.logfmtFields(e, b) > 0
}

func (f *Format) logfmtFields(e *event.Event, b []byte) (n int) {
	p := pairs{b: b}
	var have uint16
	for {
		name, val, quoted, ok := p.next()
		if !ok {
			return n
		}
		n++
		r := f.keys[string(name)]
		if r == roleTime {
			continue
		}
		if quoted && bytes.IndexByte(val, '\\') >= 0 {
			val = unescape(val)
		}
		if r == roleField || have&(1<<r) != 0 {
			if len(e.Fields) < maxFields {
				e.Fields = append(e.Fields, event.Field{Name: known.get(name), Value: val})
			}
			continue
		}
		have |= 1 << r
		f.put(e, r, known.get(name), val)
	}
}

// logfmtTime finds the first pair that is a time. It may stand beside others
// of its name.
func (f *Format) logfmtTime(b []byte, c *captures) bool {
	p := pairs{b: b[:lineEnd(b)]}
	for {
		name, val, _, ok := p.next()
		if !ok {
			return false
		}
		if f.keys[string(name)] == roleTime && f.valueTime(val, c) {
			return true
		}
	}
}

// lineFields makes fields of lines of the form "Name: value".
func (f *Format) lineFields(e *event.Event, b []byte) {
	for len(b) > 0 && len(e.Fields) < maxFields {
		n := lineEnd(b)
		line := bytes.TrimSuffix(b[:n], []byte{'\r'})
		if name, val, ok := bytes.Cut(line, []byte(": ")); ok && len(name) > 0 {
			f.put(e, f.keys[string(name)], known.get(name), val)
		}
		b = b[min(n+1, len(b)):]
	}
}

// structuredEnd returns the position after the structured data of RFC 5424
// (section 6.3) that begins at i, or -1.
func structuredEnd(b []byte, i int) int {
	if i < len(b) && b[i] == '-' {
		return i + 1
	}
	start := i
	for i < len(b) && b[i] == '[' {
		for i++; ; {
			n := bytes.IndexAny(b[i:], `"]`)
			if n < 0 {
				return -1
			}
			i += n
			if b[i] == ']' {
				i++
				break
			}
			if i = quotedEnd(b, i); i < 0 {
				return -1
			}
		}
	}
	if i == start {
		return -1
	}
	return i
}

// appendStructured makes fields of structured data: [id name="value"] is the
// field id.name, and an element without parameters a field without a value.
func appendStructured(e *event.Event, b []byte) {
	var room [128]byte
	for len(b) > 0 && b[0] == '[' && len(e.Fields) < maxFields {
		i := 1
		for i < len(b) && b[i] != ' ' && b[i] != ']' {
			i++
		}
		name := append(room[:0], b[1:i]...)
		if i < len(b) && b[i] == ']' {
			e.Fields = append(e.Fields, event.Field{Name: known.get(name), Value: b[i:i]})
			b = b[i+1:]
			continue
		}
		name = append(name, '.')
		n := len(name)
		for i < len(b) && b[i] == ' ' {
			for i < len(b) && b[i] == ' ' {
				i++
			}
			eq := bytes.IndexByte(b[i:], '=')
			if eq < 0 {
				return
			}
			name = append(name[:n], b[i:i+eq]...)
			end := quotedEnd(b, i+eq+1)
			if end < 0 {
				return
			}
			if len(e.Fields) < maxFields {
				e.Fields = append(e.Fields, event.Field{Name: known.get(name), Value: unquote(b[i+eq+2 : end-1])})
			}
			i = end
		}
		if i >= len(b) || b[i] != ']' {
			return
		}
		b = b[i+1:]
	}
}
