package format

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/mobileops/mobileops/internal/logs/event"
)

// catalogue are the well-known messages of programs: who logged in, from where.
type catalogue struct {
	programs map[string]*messages
	any      messages // of whatever program
}

// messages are patterns by the bytes with which messages begin that they may
// fit, each list in the order of the file.
type messages [256][]*pattern

func (m *messages) add(p *pattern) {
	if s := &p.steps[0]; s.kind == stepText {
		m[s.text[0]] = append(m[s.text[0]], p)
		return
	}
	for i := range m {
		m[i] = append(m[i], p)
	}
}

func newCatalogue(list []fileMessages) (*catalogue, error) {
	c := &catalogue{programs: map[string]*messages{}}
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
			for i, r := range p.roles {
				if r != roleUser && r != roleField && p.kinds[i] != stepLogfmt {
					return nil, fmt.Errorf("catalogue: pattern %q sets %s; messages have users, fields and {fields:logfmt}", text, p.names[i])
				}
			}
			for _, name := range m.Programs {
				if name == "*" {
					c.any.add(p)
					continue
				}
				if c.programs[name] == nil {
					c.programs[name] = new(messages)
				}
				c.programs[name].add(p)
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
	if len(m) > maxMatched {
		return
	}
	if i := bytes.IndexByte(m, '\n'); i >= 0 {
		m = m[:i]
	}
	if len(m) == 0 {
		return
	}
	for _, c := range f.messages {
		if p := c.programs[e.Program]; p != nil && f.fillFrom(e, m, p[m[0]]) || f.fillFrom(e, m, c.any[m[0]]) {
			return
		}
	}
}

func (f *Format) fillFrom(e *event.Event, m []byte, list []*pattern) bool {
	if len(list) == 0 {
		return false
	}
	var c captures
	for _, p := range list {
		// Most patterns begin with text, and most do not fit.
		if s := &p.steps[0]; s.kind == stepText && (len(m) < len(s.text) || string(m[:len(s.text)]) != s.text) {
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
			case roleFields:
				if p.kinds[i] == stepLogfmt {
					f.logfmtFields(e, v)
				}
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
