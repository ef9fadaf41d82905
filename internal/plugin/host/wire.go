package host

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Limits of what a plugin sends.
const (
	MaxLine   = 1 << 20 // bytes of a line, its newline not counted
	maxDepth  = 32      // objects and arrays within each other
	maxName   = 128     // bytes of the name of a plugin, or of a reader of events
	maxMethod = 64      // bytes
	readSize  = 64 << 10
)

// Code says why a request was refused.
type Code string

// The codes of version 1.
const (
	Denied   Code = "denied"    // the permissions do not have it
	Invalid  Code = "invalid"   // the request makes no sense
	Unknown  Code = "unknown"   // there is no such method
	NotFound Code = "not-found" // there is no such thing
	Busy     Code = "busy"      // try again later
	Failed   Code = "failed"    // it was tried, and failed
	TooLarge Code = "too-large" // it exceeds a limit
)

// Refusal is the answer to a request that is not granted.
type Refusal struct {
	Code    Code   `json:"code"`
	Message string `json:"message"`
}

func (r *Refusal) Error() string { return fmt.Sprintf("%s (%s)", r.Message, r.Code) }

func refuse(code Code, format string, args ...any) *Refusal {
	return &Refusal{code, fmt.Sprintf(format, args...)}
}

// ProtocolError says what a plugin sent that it must not. It is a
// failure.Untrustworthy error.
type ProtocolError struct {
	Line   uint64 // from 1
	Reason string
}

func (e *ProtocolError) Error() string {
	return fmt.Sprintf("%v: line %d: %s", errProtocol, e.Line, e.Reason)
}

func (e *ProtocolError) Unwrap() error { return errProtocol }

// message is any line of the protocol.
type message struct {
	ID     *uint64         `json:"id"`
	Method string          `json:"method"`
	Params json.RawMessage `json:"params"`
	Result json.RawMessage `json:"result"`
	Error  *Refusal        `json:"error"`
}

// parse reads a line. What it returns refers to the line.
func parse(line []byte) (m message, err error) {
	if !utf8.Valid(line) {
		return m, fmt.Errorf("it is not UTF-8")
	}
	if depth(line) > maxDepth {
		return m, fmt.Errorf("it is nested more than %d deep", maxDepth)
	}
	if trimmed := bytes.TrimLeft(line, " \t\r"); len(trimmed) == 0 || trimmed[0] != '{' {
		return m, fmt.Errorf("it is no JSON object")
	}
	if err := json.Unmarshal(line, &m); err != nil {
		return m, fmt.Errorf("it is not a message: %s", notJSON(err))
	}
	switch {
	case m.ID != nil && *m.ID == 0:
		return m, fmt.Errorf("the id is 0")
	case len(m.Method) > maxMethod:
		return m, fmt.Errorf("the method has more than %d bytes", maxMethod)
	case m.Method == "" && m.ID == nil:
		return m, fmt.Errorf("it has neither a method nor an id")
	}
	return m, nil
}

// notJSON says why JSON was not taken, in words of the protocol and not of Go.
func notJSON(err error) string {
	if bad, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		value, _, _ := strings.Cut(bad.Value, " ") // "number 1e3"
		if bad.Field == "" {
			return fmt.Sprintf("they are of type %s, not an object", value)
		}
		return fmt.Sprintf("%s: what is there (of type %s) it cannot be", quoted(bad.Field), value)
	}
	return clean(err.Error(), 200)
}

// depth returns how many objects and arrays are open at once at most, so that
// nothing else needs to fear a line of brackets.
func depth(line []byte) int {
	now, most, text := 0, 0, false
	for i := 0; i < len(line); i++ {
		switch c := line[i]; {
		case text:
			if c == '\\' {
				i++
			} else if c == '"' {
				text = false
			}
		case c == '"':
			text = true
		case c == '{' || c == '[':
			now++
			most = max(most, now)
		case c == '}' || c == ']':
			now--
		}
	}
	return most
}

// clean returns text as one line without characters that do not show, and of
// at most limit bytes.
func clean(text string, limit int) string {
	if len(text) > limit {
		for limit > 0 && !utf8.RuneStart(text[limit]) {
			limit--
		}
		text = text[:limit]
	}
	if !hasHidden(text) && utf8.ValidString(text) {
		return text
	}
	return string(bytes.Map(func(r rune) rune {
		if hidden(r) {
			return ' '
		}
		return r
	}, bytes.ToValidUTF8([]byte(text), []byte("\uFFFD"))))
}

// hidden reports whether r is a control character, one that changes how others
// show (bidi marks), or a separator of lines.
func hidden(r rune) bool {
	return unicode.IsControl(r) || unicode.Is(unicode.Cf, r) || r == '\u2028' || r == '\u2029'
}

func hasHidden(text string) bool {
	for _, r := range text {
		if hidden(r) {
			return true
		}
	}
	return false
}

// lineReader cuts a stream into lines of at most MaxLine bytes.
type lineReader struct {
	r          io.Reader
	buf        []byte
	start, end int    // buf[start:end] is unread
	line       uint64 // number of the line that was returned last
}

// next returns the next line without its newline, valid until the next call.
// What a plugin had half written when it died is no line. A line that is too
// long is a *ProtocolError.
func (l *lineReader) next() ([]byte, error) {
	scanned := l.start
	for {
		if i := bytes.IndexByte(l.buf[scanned:l.end], '\n'); i >= 0 {
			line := l.buf[l.start : scanned+i]
			l.start = scanned + i + 1
			l.line++
			if len(line) > MaxLine {
				break
			}
			return line, nil
		}
		if l.end-l.start > MaxLine {
			l.line++
			break
		}
		held := l.end - l.start
		l.room(held)
		scanned = l.start + held
		n, err := l.r.Read(l.buf[l.end:])
		l.end += n
		if err != nil && n == 0 {
			return nil, err
		}
	}
	return nil, &ProtocolError{l.line, fmt.Sprintf("it has more than %d bytes", MaxLine)}
}

// room moves what is held to the front of a buffer that has space behind it: a
// buffer that grows with a long line, and shrinks after it.
func (l *lineReader) room(held int) {
	size := len(l.buf)
	switch {
	case size == 0, held < readSize/2 && size > readSize:
		size = readSize
	case held > size/2:
		size = min(2*size, MaxLine+readSize)
	}
	to := l.buf
	if size != len(to) {
		to = make([]byte, size)
	}
	copy(to, l.buf[l.start:l.end])
	l.buf, l.start, l.end = to, 0, held
}
