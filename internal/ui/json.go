package ui

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"unicode/utf16"
	"unicode/utf8"
)

// Document prints one JSON document to Out: indented for --output json, on one
// line for jsonl. Its first member is "schema".
func (s *Streams) Document(v any) error {
	w := bufio.NewWriterSize(s.Out, 64<<10)
	enc := newEncoder(w)
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
	return &Lines{w, newEncoder(w)}
}

// Print prints one record. An error means that Out cannot be written.
func (l *Lines) Print(v any) error { return l.enc.Encode(v) }

// Flush hands over to Out what is buffered.
func (l *Lines) Flush() error { return l.w.Flush() }

func newEncoder(w io.Writer) *json.Encoder {
	enc := json.NewEncoder(visibleJSON{w})
	enc.SetEscapeHTML(false)
	return enc
}

// visibleJSON writes JSON in which every character that a terminal could obey
// or hide, such as U+009B or a bidi mark in a file name, is \uHHHH: the same
// value, but harmless to look at. encoding/json does that below U+0020 only.
// Each Write must end between characters, as those of a json.Encoder do.
type visibleJSON struct{ w io.Writer }

func (v visibleJSON) Write(p []byte) (int, error) {
	out, done := []byte(nil), 0 // p[:done] is in out
	for i := 0; i < len(p); {
		if p[i] < 0x7f {
			i++
			continue
		}
		r, size := utf8.DecodeRune(p[i:])
		if r == 0x7f || !visible(r) {
			out = append(out, p[done:i]...)
			if high, low := utf16.EncodeRune(r); high != utf8.RuneError {
				out = fmt.Appendf(out, `\u%04x\u%04x`, high, low)
			} else {
				out = fmt.Appendf(out, `\u%04x`, r)
			}
			done = i + size
		}
		i += size
	}
	if done > 0 {
		if _, err := v.w.Write(append(out, p[done:]...)); err != nil {
			return 0, err
		}
		return len(p), nil
	}
	return v.w.Write(p)
}
