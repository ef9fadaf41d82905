package format

import (
	"bytes"
	"strconv"

	"github.com/mobileops/mobileops/internal/logs/event"
)

// maxMatched is the length in bytes of the longest record that is held against
// patterns; a Reader gives none over MaxRecord.
const maxMatched = 1 << 30

// maxFields bounds the fields of an event; what is beyond stays in Raw.
const maxFields = 1000

// Fill sets host, unit, program, process, severity, user, addresses, message
// and further fields of e from e.Raw. It may be called by any number of
// goroutines for different events, uses the room of e.Fields and e.Addrs again,
// and never fails: a record that it cannot read is message as a whole.
func (f *Format) Fill(e *event.Event) {
	e.Fill = nil
	e.Host, e.Unit, e.Program, e.User = "", f.unit, f.program, ""
	e.PID, e.Severity = 0, event.NoSeverity
	e.Fields, e.Addrs = e.Fields[:0], e.Addrs[:0]
	e.Message = nil
	from := 0 // where addresses can begin
	ok := false
	switch f.kind {
	case kindJSON:
		ok = f.fillJSON(e, e.Raw)
	case kindDocker:
		ok = f.fillDocker(e)
	case kindLogfmt, kindUtmp:
		ok = f.fillLogfmt(e, e.Raw)
	default:
		from, ok = f.fillPatterns(e)
	}
	if !ok {
		from = 0
		e.Message = e.Raw
	}
	if e.Message == nil {
		e.Message = e.Raw
	}
	if f.messages != nil {
		f.fillKnown(e)
	}
	e.Addrs = AppendAddrs(e.Addrs, e.Raw[from:])
	if e.Host == "" && e.Origin != nil {
		e.Host = e.Origin.Host
	}
}

// fillPatterns sets what the first pattern that fits finds. from is the end of
// a time at the beginning.
func (f *Format) fillPatterns(e *event.Event) (from int, ok bool) {
	var c captures
	if len(e.Raw) > maxMatched {
		return 0, false
	}
	raw := bytes.TrimSuffix(e.Raw, []byte{'\r'})
	line := lineEnd(raw)
	for _, p := range f.patterns {
		c.reset(len(p.names))
		end, ok := match(p.steps, raw, 0, line, &c)
		if !ok || end != len(raw) && end != line && !(end == line-1 && raw[end] == '\r') {
			continue
		}
		f.apply(e, p, &c)
		if end < len(raw) && f.kind == kindKmsg {
			f.kmsgFields(e, raw[end:])
		}
		if p.time >= 0 && c.at[p.time].start == 0 {
			from = int(c.at[p.time].end)
		}
		switch f.kind {
		case kindAudit:
			fillAudit(e)
		case kindCRI:
			f.fillCRI(e)
		}
		return from, true
	}
	return 0, false
}

// apply puts what a pattern captured into its places.
func (f *Format) apply(e *event.Event, p *pattern, c *captures) {
	for i, name := range p.names {
		at := c.at[i]
		if at.start < 0 {
			continue
		}
		v := e.Raw[at.start:at.end:at.end]
		switch p.kinds[i] {
		case stepTime:
		case stepPriority:
			pri, _ := strconv.Atoi(string(v))
			e.Severity = event.Severity(pri & 7)
			e.Fields = append(e.Fields, event.Field{Name: "facility", Value: facility(pri >> 3)})
		case stepStatus:
			if e.Severity == event.NoSeverity {
				e.Severity = severityOfStatus(v)
			}
			f.put(e, p.roles[i], name, v)
		case stepQuoted:
			f.put(e, p.roles[i], name, unquote(v))
		case stepData:
			appendStructured(e, v)
		case stepLines:
			f.lineFields(e, v)
		case stepLogfmt:
			f.logfmtFields(e, v)
		case stepJSON:
			if !f.fillJSON(e, v) {
				e.Message = v
			}
		default:
			f.put(e, p.roles[i], name, v)
		}
	}
}

// put sets one field. A single - stands for nothing, as in RFC 5424 and in web
// logs.
func (f *Format) put(e *event.Event, r role, name string, v []byte) {
	if len(v) == 1 && v[0] == '-' && r != roleMessage {
		return
	}
	switch r {
	case roleHost:
		e.Host = known.get(v)
	case roleUnit:
		e.Unit = known.get(v)
	case roleProgram:
		e.Program = known.get(v)
	case roleUser:
		e.User = known.get(v)
	case rolePID:
		if pid, ok := number(v); ok {
			e.PID = pid
		} else {
			e.Fields = append(e.Fields, event.Field{Name: name, Value: v})
		}
	case roleSeverity:
		if s, ok := severityOf(f.severities, v); ok {
			e.Severity = s
		} else if s, ok := numericSeverity(v); ok {
			e.Severity = s
		} else if len(v) > 0 {
			e.Fields = append(e.Fields, event.Field{Name: name, Value: v})
		}
	case roleMessage:
		e.Message = v
	case roleField:
		if len(v) > 0 && len(e.Fields) < maxFields {
			e.Fields = append(e.Fields, event.Field{Name: name, Value: v})
		}
	}
}

// number reads a decimal number of up to 18 digits.
func number(v []byte) (n int64, ok bool) {
	if len(v) == 0 || len(v) > 18 {
		return 0, false
	}
	for _, c := range v {
		if !digit(c) {
			return 0, false
		}
		n = n*10 + int64(c-'0')
	}
	return n, true
}

func facility(n int) []byte {
	if n < len(facilities) {
		return facilities[n]
	}
	return nil
}

// severityOfStatus is how bad an answer of a web server is: 5xx is an error of
// the server, 4xx one of the client, as the pipelines of Datadog have it. A
// request that went well has no severity.
func severityOfStatus(v []byte) event.Severity {
	switch v[0] {
	case '5':
		return event.Error
	case '4':
		return event.Warning
	}
	return event.NoSeverity
}

// unquote takes away the meaning that \ has within quotes. Nothing is copied
// when there is none.
func unquote(v []byte) []byte {
	if bytes.IndexByte(v, '\\') < 0 {
		return v
	}
	out := make([]byte, 0, len(v))
	for i := 0; i < len(v); i++ {
		if v[i] == '\\' && i+1 < len(v) && (v[i+1] == '"' || v[i+1] == '\\' || v[i+1] == ']') {
			i++
		}
		out = append(out, v[i])
	}
	return out
}
