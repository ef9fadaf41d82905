package format

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/mobileops/mobileops/internal/logs/event"
)

// A pattern is a line of text with fields in it, as docs/formats/log-format.md
// describes: "{time:bsd} {host:word} {program:[^ :[]}(([{pid:int}])): {message}".
// It is compiled into a sequence of steps that are run without going back,
// except out of an optional group.
type pattern struct {
	steps []step
	names []string // of the captured fields, by capture
	roles []role   // what they are, by capture
	kinds []stepKind
	time  int // capture of the time, or -1
	// before are the steps up to the time and what follows it: enough to know
	// when a record was written.
	before []step
	weak   bool // fits much else too: not to find out a format
	lines  bool // spans several lines
}

type stepKind uint8

const (
	stepText     stepKind = iota // literal text
	stepUntil                    // up to the literal text that follows
	stepLast                     // up to the last occurrence of that text in the line
	stepNewline                  // the end of a line within a record
	stepWord                     // bytes other than blanks and controls
	stepInt                      // decimal digits, with a sign or without
	stepHex                      // hexadecimal digits
	stepClass                    // bytes of a set
	stepQuoted                   // what is between double quotes, \ takes away meaning
	stepLine                     // the rest of the line
	stepRest                     // the rest of the record, with all its lines
	stepTime                     // a time
	stepPriority                 // PRI of syslog: facility and severity
	stepSeverity                 // a word that is a severity
	stepChoice                   // one of several words
	stepStatus                   // a status of HTTP, three digits
	stepData                     // structured data of RFC 5424
	stepLines                    // the rest, lines of "Name: value"
	stepLogfmt                   // the rest, name=value pairs
	stepJSON                     // the rest, an object of JSON
	stepBlanks                   // any number of blanks and tabs, without a field
	stepGroup                    // an optional group
)

type step struct {
	kind    stepKind
	empty   bool // may be empty
	capture int  // -1: not kept
	text    string
	set     *[256]bool
	words   map[string]event.Severity // of the format
	layouts []*layout
	choice  []string
	group   []step
}

// role is where the value of a field goes.
type role uint8

const (
	roleField role = iota
	roleTime
	roleHost
	roleUnit
	roleProgram
	rolePID
	roleSeverity
	roleUser
	roleMessage
	roleFields // more fields within: logfmt, JSON, structured data
)

var roleNames = map[string]role{
	"time": roleTime, "host": roleHost, "unit": roleUnit, "program": roleProgram, "pid": rolePID,
	"severity": roleSeverity, "user": roleUser, "message": roleMessage, "fields": roleFields,
}

// maxCaptures bounds the fields of a pattern, maxPattern its length and
// maxNesting that of its groups.
const (
	maxCaptures = 24
	maxPattern  = 4096
	maxNesting  = 8
)

var stepKinds = map[string]stepKind{
	"word": stepWord, "int": stepInt, "hex": stepHex, "quoted": stepQuoted, "line": stepLine, "rest": stepRest,
	"pri": stepPriority, "severity": stepSeverity, "status": stepStatus, "data": stepData,
	"logfmt": stepLogfmt, "json": stepJSON, "lines": stepLines, "last": stepLast,
}

// compilePattern compiles text.
func compilePattern(text string) (*pattern, error) {
	if len(text) > maxPattern {
		return nil, fmt.Errorf("a pattern has at most %d bytes", maxPattern)
	}
	c := patternCompiler{text: text, pattern: &pattern{time: -1}}
	steps, err := c.sequence(0)
	if err == nil {
		err = c.link(steps, nil)
	}
	if err == nil && len(steps) == 0 {
		err = errors.New("the pattern is empty")
	}
	if err != nil {
		return nil, fmt.Errorf("pattern %q, byte %d: %w", text, c.at, err)
	}
	p := c.pattern
	p.steps = steps
	p.lines = hasNewline(steps)
	for i := range steps {
		if steps[i].kind == stepTime {
			end := i + 1
			if end < len(steps) && steps[end].kind == stepText {
				end++
			}
			p.before = steps[:end]
		}
	}
	if p.time >= 0 && p.before == nil {
		return nil, fmt.Errorf("pattern %q: the time is within an optional group", text)
	}
	return p, nil
}

func hasNewline(steps []step) bool {
	return slices.ContainsFunc(steps, func(s step) bool { return s.kind == stepNewline || hasNewline(s.group) })
}

type patternCompiler struct {
	text    string
	at      int
	pattern *pattern
}

// sequence reads steps up to the end, or to the end of a group.
func (c *patternCompiler) sequence(depth int) (steps []step, err error) {
	var lit []byte
	flush := func() {
		if len(lit) > 0 {
			steps = append(steps, step{kind: stepText, capture: -1, text: string(lit)})
			lit = nil
		}
	}
	for c.at < len(c.text) {
		rest := c.text[c.at:]
		switch {
		case rest[0] == '\\' && len(rest) > 1:
			b := rest[1]
			if b == 'n' {
				flush()
				steps = append(steps, step{kind: stepNewline, capture: -1})
				c.at += 2
				continue
			}
			if b == 't' {
				b = '\t'
			}
			lit = append(lit, b)
			c.at += 2
		case strings.HasPrefix(rest, "))") && depth > 0:
			flush()
			c.at += 2
			if len(steps) == 0 {
				return nil, errors.New("a group is empty")
			}
			return steps, nil
		case strings.HasPrefix(rest, "(("):
			flush()
			if depth == maxNesting {
				return nil, fmt.Errorf("groups are nested more than %d deep", maxNesting)
			}
			c.at += 2
			group, err := c.sequence(depth + 1)
			if err != nil {
				return nil, err
			}
			steps = append(steps, step{kind: stepGroup, capture: -1, group: group})
		case rest[0] == '{':
			flush()
			s, err := c.field()
			if err != nil {
				return nil, err
			}
			steps = append(steps, s)
		default:
			lit = append(lit, rest[0])
			c.at++
		}
	}
	if depth > 0 {
		return nil, errors.New("a group begins with (( and has no end ))")
	}
	flush()
	return steps, nil
}

// field reads one {name:kind}.
func (c *patternCompiler) field() (s step, err error) {
	end := strings.IndexByte(c.text[c.at:], '}')
	if end < 0 {
		return s, errors.New("{ has no } (write \\{ for the character)")
	}
	name, kind, typed := strings.Cut(c.text[c.at+1:c.at+end], ":")
	if typed && strings.HasPrefix(kind, "[") { // a set may contain }
		text := c.text[c.at:]
		e, optional := strings.Index(text, "]}"), strings.Index(text, "]?}")
		switch {
		case e < 0 && optional < 0:
			return s, errors.New("[ has no ]}")
		case e < 0 || optional >= 0 && optional < e:
			end = optional + 2
		default:
			end = e + 1
		}
		_, kind, _ = strings.Cut(text[1:end], ":")
	}
	s = step{kind: stepUntil, capture: -1}
	if name == "" && kind == "blanks" {
		s.kind = stepBlanks
		c.at += end + 1
		return s, nil
	}
	if strings.HasSuffix(kind, "?") {
		kind, s.empty = strings.TrimSuffix(kind, "?"), true
	} else if !typed && strings.HasSuffix(name, "?") {
		name, s.empty = strings.TrimSuffix(name, "?"), true
	}
	r, special := roleNames[name]
	switch {
	case name == "":
		return s, errors.New("a field has no name (use {_} for what is not kept)")
	case name == "time":
		if !typed {
			return s, errors.New("write the layout of the time: {time:rfc3339}")
		}
		s.kind = stepTime
		for _, text := range strings.Split(kind, "|") {
			l, err := newLayout(text)
			if err != nil {
				return s, err
			}
			s.layouts = append(s.layouts, l)
		}
	case strings.HasPrefix(kind, "["):
		s.kind = stepClass
		if s.set, err = parseSet(kind); err != nil {
			return s, err
		}
	case strings.Contains(kind, "|"):
		s.kind, s.choice = stepChoice, strings.Split(kind, "|")
	case typed:
		var ok bool
		if s.kind, ok = stepKinds[kind]; !ok {
			return s, fmt.Errorf("no kind of field is called %q", kind)
		}
	}
	if (name == "fields") != (s.kind == stepData || s.kind == stepLogfmt || s.kind == stepJSON || s.kind == stepLines) {
		return s, errors.New("logfmt, json, lines and data are kinds of {fields:…}, and of nothing else")
	}
	if name != "_" {
		p := c.pattern
		if special && slices.Contains(p.roles, r) || !special && slices.Contains(p.names, name) {
			return s, fmt.Errorf("there are two fields called %s", name)
		}
		if len(p.names) == maxCaptures {
			return s, fmt.Errorf("a pattern has at most %d fields", maxCaptures)
		}
		s.capture = len(p.names)
		if name == "time" {
			p.time = s.capture
		}
		p.names, p.roles, p.kinds = append(p.names, name), append(p.roles, r), append(p.kinds, s.kind)
	}
	c.at += end + 1
	return s, nil
}

// link tells every field that ends at a literal which one that is. after is
// what follows the sequence.
func (c *patternCompiler) link(steps, after []step) error {
	for i := range steps {
		next := after
		if i+1 < len(steps) {
			next = steps[i+1:]
		}
		switch s := &steps[i]; s.kind {
		case stepGroup:
			if err := c.link(s.group, next); err != nil {
				return err
			}
		case stepUntil, stepLast:
			switch {
			case len(next) == 0 && s.kind == stepUntil:
				s.kind, s.empty = stepRest, true
				if s.capture >= 0 {
					c.pattern.kinds[s.capture] = stepRest
				}
			case len(next) > 0 && next[0].kind == stepText:
				s.text = next[0].text
			default:
				return errors.New("a field without a kind must be followed by text, or be the last")
			}
		}
	}
	return nil
}

// name tells the steps that read severities the words of their format.
func (p *pattern) name(words map[string]event.Severity) { nameSteps(p.steps, words) }

func nameSteps(steps []step, words map[string]event.Severity) {
	for i := range steps {
		steps[i].words = words
		nameSteps(steps[i].group, words)
	}
}

// parseSet reads "[a-z]" or "[^ :]", \ takes away meaning.
func parseSet(text string) (*[256]bool, error) {
	body, ok := strings.CutSuffix(strings.TrimPrefix(text, "["), "]")
	if !ok || body == "" || body == "^" {
		return nil, fmt.Errorf("%q is no set of characters", text)
	}
	body, not := strings.CutPrefix(body, "^")
	var chars []byte
	var ranges []bool // a range begins at this character
	for i := 0; i < len(body); i++ {
		switch {
		case body[i] == '\\' && i+1 < len(body):
			i++
			b := body[i]
			if b == 't' {
				b = '\t'
			}
			chars, ranges = append(chars, b), append(ranges, false)
		case body[i] == '-' && len(chars) > 0 && i+1 < len(body):
			ranges[len(ranges)-1] = true
		default:
			chars, ranges = append(chars, body[i]), append(ranges, false)
		}
	}
	set := new([256]bool)
	for i, b := range chars {
		set[b] = true
		if ranges[i] {
			if i+1 == len(chars) || chars[i+1] < b {
				return nil, fmt.Errorf("%q has a range that ends before it begins", text)
			}
			for v := int(b); v <= int(chars[i+1]); v++ {
				set[v] = true
			}
		}
	}
	if not {
		for i := range set {
			set[i] = !set[i]
		}
		set['\n'] = false
	}
	return set, nil
}
