package ui

import (
	"bufio"
	"encoding/json"
)

// Document prints one JSON document to Out: indented for --output json, on one
// line for jsonl. Its first member is "schema".
func (s *Streams) Document(v any) error {
	w := bufio.NewWriterSize(s.Out, 64<<10)
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	if s.Format != JSONL {
		enc.SetIndent("", "  ")
	}
	if err := enc.Encode(v); err != nil {
		return err
	}
	return w.Flush()
}

// Lines prints records, one JSON value a line.
type Lines struct {
	w   *bufio.Writer
	enc *json.Encoder
}

// Lines returns a printer of records on Out. It buffers: call Flush whenever a
// reader should see what was printed, and at the end.
func (s *Streams) Lines() *Lines {
	w := bufio.NewWriterSize(s.Out, 64<<10)
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	return &Lines{w, enc}
}

// Print prints one record. An error means that Out cannot be written.
func (l *Lines) Print(v any) error { return l.enc.Encode(v) }

// Flush hands over to Out what is buffered.
func (l *Lines) Flush() error { return l.w.Flush() }
