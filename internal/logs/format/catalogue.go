package format

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/mobileops/mobileops/internal/logs/event"
)

// catalogue are the well-known messages of programs: who logged in, from where.
type catalogue struct {
	programs map[string][]*pattern
	any      []*pattern // of whatever program
}

func newCatalogue(list []fileMessages) (*catalogue, error) {
	c := &catalogue{programs: map[string][]*pattern{}}
	n := 0
	for _, m := range list {
		if len(m.Programs) == 0 {
			return nil, errors.New(`catalogue: an entry has no programs ("*": all)`)
		}
		for _, text := range m.Lines {
			if n++; n > maxPatterns {
				return nil, fmt.Errorf("catalogue: more than %d lines", maxPatterns)
			}
			p, err := compilePattern(text)
			if err != nil {
				return nil, fmt.Errorf("catalogue: %w", err)
			}
			if p.time >= 0 {
				return nil, fmt.Errorf("catalogue: pattern %q has a time", text)
			}
			for _, name := range m.Programs {
				if name == "*" {
					c.any = append(c.any, p)
				} else {
					c.programs[name] = append(c.programs[name], p)
				}
			}
		}
	}
	return c, nil
}

// FillMessage sets the user and the fields that the well-known messages of
// e.Program have, such as "Accepted password for root from …" of sshd. It is
// what Fill does last; readers of other formats, such as the journal, call it
// with Program and Message set.
func (f *Format) FillMessage(e *event.Event) { f.fillKnown(e) }

func (f *Format) fillKnown(e *event.Event) {
	m := e.Message
	if i := bytes.IndexByte(m, '\n'); i >= 0 {
		m = m[:i]
	}
	for _, c := range f.messages {
		if e.Program != "" && fillFrom(e, m, c.programs[e.Program]) || fillFrom(e, m, c.any) {
			return
		}
	}
}

func fillFrom(e *event.Event, m []byte, list []*pattern) bool {
	var c captures
	for _, p := range list {
		// Most patterns begin with text, and most do not fit.
		if s := &p.steps[0]; s.kind == stepText && (len(m) < len(s.text) || m[0] != s.text[0] || string(m[:len(s.text)]) != s.text) {
			continue
		}
		c.reset(len(p.names))
		if _, ok := match(p.steps, m, 0, len(m), &c); !ok {
			continue
		}
		for i, name := range p.names {
			at := c.at[i]
			if at.start < 0 || at.start == at.end {
				continue
			}
			v := m[at.start:at.end:at.end]
			switch p.roles[i] {
			case roleUser:
				e.User = known.get(v)
			case roleField:
				if len(e.Fields) < maxFields {
					e.Fields = append(e.Fields, event.Field{Name: name, Value: v})
				}
			}
		}
		return true
	}
	return false
}
