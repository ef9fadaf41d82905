package supervise

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"time"
	"unicode/utf8"
)

// Line is a line of a log: "TIME STREAM TEXT", where TIME is as RFC 3339 has
// it, with up to nine digits of a second, in UTC. A line that is longer than
// MaxLine is several, and all but the last have a '+' after the stream.
type Line struct {
	Time   time.Time // zero: the line is not as the supervisor writes it
	Stream string    // Stdout, Stderr, Remark; "" as above
	More   bool      // the next line of the stream goes on where this one ends
	Text   []byte    // any bytes but a newline; not escaped
}

// append adds the line, and its newline, as it is in the file.
func (l Line) append(b []byte) []byte {
	b = l.Time.UTC().AppendFormat(b, time.RFC3339Nano)
	b = append(b, ' ')
	b = append(b, l.Stream...)
	if l.More {
		b = append(b, '+')
	}
	b = append(b, ' ')
	b = append(b, l.Text...)
	return append(b, '\n')
}

// ParseLine reads a line as the file has it, without its newline. What is none
// becomes a Line that has a text alone.
func ParseLine(b []byte) Line {
	stamp, rest, ok1 := bytes.Cut(b, []byte{' '})
	stream, text, ok2 := bytes.Cut(rest, []byte{' '})
	t, err := time.Parse(time.RFC3339Nano, string(stamp))
	name, more := strings.CutSuffix(string(stream), "+")
	if !ok1 || !ok2 || err != nil || name != Stdout && name != Stderr && name != Remark {
		return Line{Text: bytes.Clone(b)}
	}
	return Line{Time: t.UTC(), Stream: name, More: more, Text: bytes.Clone(text)}
}

// lineJSON is a Line in JSON. Text that is not valid UTF-8 is in Raw, by which
// nothing is lost.
type lineJSON struct {
	Time   *time.Time `json:"time,omitempty"`
	Stream string     `json:"stream,omitempty"`
	More   bool       `json:"more,omitempty"`
	Text   *string    `json:"text,omitempty"`
	Raw    []byte     `json:"raw,omitempty"` // base64
}

// MarshalJSON implements json.Marshaler.
func (l Line) MarshalJSON() ([]byte, error) {
	j := lineJSON{Stream: l.Stream, More: l.More}
	if !l.Time.IsZero() {
		j.Time = &l.Time
	}
	if utf8.Valid(l.Text) {
		text := string(l.Text)
		j.Text = &text
	} else {
		j.Raw = l.Text
	}
	return json.Marshal(j)
}

// UnmarshalJSON implements json.Unmarshaler.
func (l *Line) UnmarshalJSON(b []byte) error {
	var j lineJSON
	if err := json.Unmarshal(b, &j); err != nil {
		return err
	}
	*l = Line{Stream: j.Stream, More: j.More, Text: j.Raw}
	if j.Time != nil {
		l.Time = *j.Time
	}
	switch {
	case j.Text != nil && j.Raw != nil:
		return errors.New("a line has a text or raw bytes, not both")
	case j.Text != nil:
		l.Text = []byte(*j.Text)
	}
	return nil
}
