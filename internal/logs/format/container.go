package format

import (
	"bytes"

	"github.com/mobileops/mobileops/internal/logs/event"
)

// fillDocker sets the fields of a record of docker's json-file driver. The text
// of all its parts together is the message.
func (f *Format) fillDocker(e *event.Event) bool {
	raw := e.Raw
	n := lineEnd(raw)
	if !f.fillJSON(e, raw[:n]) {
		return false
	}
	message := e.Message
	if n < len(raw) {
		message = bytes.Clone(message)
		for n < len(raw) {
			raw = raw[n+1:]
			n = lineEnd(raw)
			message = append(message, logText(raw[:n])...)
		}
	}
	e.Message = bytes.TrimSuffix(message, []byte{'\n'})
	return e.Message != nil
}

// logText returns the text of one part.
func logText(line []byte) []byte {
	o := openObject(line)
	for {
		key, val, ok := o.next()
		if !ok {
			return nil
		}
		if string(key) == "log" {
			return text(val)
		}
	}
}

// fillCRI joins the parts of a message. Each line has a header of four words.
func (f *Format) fillCRI(e *event.Event) {
	raw := e.Raw
	n := lineEnd(raw)
	if n == len(raw) {
		return
	}
	message := bytes.Clone(e.Message[:min(len(e.Message), lineEnd(e.Message))])
	for n < len(raw) {
		raw = raw[n+1:]
		n = lineEnd(raw)
		part := raw[:n]
		for range 3 {
			i := bytes.IndexByte(part, ' ')
			part = part[i+1:]
		}
		message = append(message, part...)
	}
	e.Message = message
}

// kmsgFields reads the lines " NAME=value" that follow a record of /dev/kmsg.
func (f *Format) kmsgFields(e *event.Event, rest []byte) {
	for len(rest) > 0 {
		n := lineEnd(rest)
		line := bytes.TrimPrefix(rest[:n], []byte{' '})
		if name, val, ok := bytes.Cut(line, []byte{'='}); ok && len(name) > 0 && len(e.Fields) < maxFields {
			e.Fields = append(e.Fields, event.Field{Name: known.get(name), Value: val})
		}
		rest = rest[min(n+1, len(rest)):]
	}
}
