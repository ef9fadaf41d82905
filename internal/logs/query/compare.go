package query

import (
	"slices"
	"strings"

	"github.com/mobileops/mobileops/internal/logs/match"
	"github.com/mobileops/mobileops/internal/spelling"
)

// operatorAt is the operator that s begins with, or "".
func operatorAt(s string) string {
	for _, op := range [...]string{"==", "=~", "!=", "!~", "<=", ">=", ":=", "=", ":", "<", ">", "~"} {
		if strings.HasPrefix(s, op) {
			return op
		}
	}
	return ""
}

// comparison reads the comparison of a field, or returns nil when what stands
// there is a plain word. Logs are full of name=value and name:value, so that a
// name that is not one of Fields is text before = and :, while == always means
// a field. docs/query.md lists the cases.
func (p *parser) comparison() (node, error) {
	at := p.pos
	name := p.name(at)
	if name == "" {
		return nil, nil
	}
	after := at + len(name)
	if name == "has" && after < len(p.src) && p.src[after] == '(' {
		return p.has()
	}
	sure := known(name) || fromJournal(name) || p.columns != nil
	if op := operatorAt(p.src[after:]); op != "" {
		if !p.direct(name, op, after+len(op), sure) {
			if sure || op != "=" && op != ":" {
				return nil, nil
			}
			p.note(name, op, p.src[at:at+p.wordLength(at)])
			return nil, nil
		}
		p.pos = after + len(op)
		return p.compared(at, name, op)
	}
	p.pos = after
	p.skip()
	if p.pos == after {
		p.pos = at
		return nil, nil
	}
	op := operatorAt(p.rest())
	switch {
	case op == ":" || op == "~" && p.columns == nil:
	case op != "" && (p.ends(p.pos+len(op)) || p.columns != nil):
		operatorPos := p.pos
		p.pos += len(op)
		p.skip()
		if p.end() || p.src[p.pos] == ')' || p.src[p.pos] == '|' {
			break
		}
		value := p.src[p.pos : p.pos+p.wordLength(p.pos)]
		if _, number := quantity(value); !sure && (op == "=" || !number && strings.ContainsAny(op, "<>")) {
			return nil, p.failf(operatorPos, "for the field: "+name+"=="+value+"; for the text: "+quote(name+" "+op+" "+value),
				"%s %s %s can be read in two ways", name, op, value)
		}
		return p.compared(at, name, op)
	case strings.HasPrefix(p.rest(), "in") || strings.HasPrefix(p.rest(), "IN"):
		if n, err := p.in(at, name); n != nil || err != nil {
			return n, err
		}
	}
	p.pos = at
	return nil, nil
}

// name reads the name of a field at a byte, or of a column: sum(bytes).
func (p *parser) name(at int) string {
	n := nameLength(p.src[at:])
	if p.columns != nil && n > 0 && at+n < len(p.src) && p.src[at+n] == '(' && p.src[at:at+n] != "has" {
		if end := strings.IndexByte(p.src[at+n:], ')'); end >= 0 {
			n += end + 1
		}
	}
	return p.src[at : at+n]
}

// direct decides whether name and operator, with the value right behind them,
// are a comparison or a text.
func (p *parser) direct(name, op string, value int, sure bool) bool {
	if p.columns != nil {
		return true
	}
	empty := p.ends(value)
	switch op {
	case ":", ":=":
		return sure && !empty
	case "=":
		return sure
	case "==", "!=":
		return !empty
	case "~", "=~", "!~":
		return sure && !empty || !empty && (p.src[value] == '"' || p.src[value] == '\'' || p.regexLength(value) > 0)
	}
	if sure || empty {
		return sure && !empty
	}
	word := strings.Trim(p.src[value:value+p.wordLength(value)], `"'`)
	_, number := quantity(word)
	_, date := moment(word, p.opts.Now, p.opts.Zone)
	return number || date
}

// note remembers that a word that looks like a comparison is read as text.
func (p *parser) note(name, op, word string) {
	_, value, _ := strings.Cut(word, op)
	if len(p.notes) >= 8 || value == "" || strings.HasPrefix(value, "//") {
		return
	}
	meant := name + "==" + value
	if s := spelling.Nearest(name, FieldNames()); s != "" && s[0] == name[0] { // uid is no misspelt pid
		meant = s + op + value + ", or " + meant
	}
	p.notes = append(p.notes, word+" is looked for as text; for the field write "+meant)
}

// has reads has(field).
func (p *parser) has() (node, error) {
	p.pos += len("has(")
	p.skip()
	c, err := p.columnName(p.columns)
	if err != nil {
		return nil, err
	}
	p.skip()
	if p.peek(0) != ')' {
		return nil, p.fail(p.pos, `")" expected`, "has(field) asks whether an event has a field; to find the text put it between quotes")
	}
	if p.pos++; !p.ends(p.pos) {
		return nil, p.fail(p.pos, `a space is expected behind ")"`, "")
	}
	return &comparison{field: c.name, op: opHas}, nil
}

// argument reads the name of a field where nothing else can stand.
func (p *parser) argument() (string, error) {
	if c := p.peek(0); c == '"' || c == '\'' {
		at := p.pos
		s, err := p.quoted()
		if err == nil && s == "" {
			return "", p.fail(at, "the name of a field is expected", "")
		}
		return s, err
	}
	n := nameLength(p.rest())
	if n == 0 {
		return "", p.fail(p.pos, "the name of a field is expected", "fields of every event: "+strings.Join(FieldNames(), ", "))
	}
	p.pos += n
	return p.src[p.pos-n : p.pos], nil
}

// column is the name of the column that somebody wrote.
func (p *parser) column(at int, name string) (string, error) {
	var names []string
	for _, c := range p.columns {
		if c.Name == name || c.Name == strings.TrimSuffix(strings.ReplaceAll(name, " ", ""), "()") {
			return c.Name, nil
		}
		names = append(names, c.Name)
	}
	hint := "columns: " + columnNames(p.columns)
	if s := spelling.Nearest(name, names); s != "" {
		hint = "did you mean " + s + "?"
	}
	return "", p.failf(at, hint, "there is no column %s here", quote(name))
}

// compared reads the value of a comparison and makes its node.
func (p *parser) compared(at int, name, op string) (node, error) {
	if p.columns != nil {
		var err error
		if name, err = p.column(at, name); err != nil {
			return nil, err
		}
	}
	c := &comparison{field: name, fold: p.opts.Fold || name == fieldHost}
	if op == "~" || op == "=~" || op == "!~" {
		n, err := p.fieldRegex(c)
		if err == nil && op == "!~" {
			n = negate(n)
		}
		return n, err
	}
	valueAt := p.pos
	if p.end() || p.ends(p.pos) {
		word := p.src[at:p.pos]
		return nil, p.failf(valueAt, "for events without one: "+name+`=""; to find the text: `+quote(word), "a value is expected behind %s", word)
	}
	if p.src[p.pos] == '[' && (op == ":" || op == "=" || op == "==") {
		if n, err := p.between(c); n != nil || err != nil {
			return n, err
		}
	}
	if p.src[p.pos] == '(' && sureList(name) {
		return nil, p.failf(valueAt, name+" in (a, b) is the comparison with several values", "a value is expected behind %s%s", name, op)
	}
	o, err := p.value("")
	if err != nil {
		return nil, err
	}
	switch op {
	case ":":
		c.op = opContains
		if o.glob != nil || slices.Contains([]string{fieldTime, fieldPID, fieldSeverity, fieldClock}, name) {
			c.op = opEqual
		}
	case "<":
		c.op = opLess
	case "<=":
		c.op = opLessEqual
	case ">":
		c.op = opGreater
	case ">=":
		c.op = opGreaterEqual
	default:
		c.op = opEqual
	}
	if o.text == "" && o.glob == nil {
		if c.op != opEqual && c.op != opContains {
			return nil, p.fail(valueAt, "a value is expected here", "")
		}
		c.op, c.operands = opHas, nil
		if op == "!=" {
			return c, nil
		}
		return negate(c), nil
	}
	if len(o.glob) == 2 && o.glob[0] == "" && o.glob[1] == "" {
		c.op, c.operands = opHas, nil // field=* asks whether it is there
	} else if err := p.operand(valueAt, c, &o); err != nil {
		return nil, err
	} else {
		c.operands = []operand{o}
	}
	if op == "!=" {
		return negate(c), nil
	}
	return c, nil
}

// sureList says that a ( behind the operator is the beginning of a list that
// somebody expected to work.
func sureList(name string) bool { return known(name) }

// fieldRegex reads the regular expression of a comparison: between slashes, or
// between quotes as Loki's and Prometheus' users write it.
func (p *parser) fieldRegex(c *comparison) (node, error) {
	at := p.pos
	c.op = opRegex
	switch q := p.peek(0); {
	case q == '"' || q == '\'':
		s, err := p.quoted()
		if err != nil {
			return nil, err
		}
		c.source = s
	case p.regexLength(at) > 0:
		c.source, c.ownFold = p.regex(p.regexLength(at))
	default:
		return nil, p.failf(at, c.field+"~/ssh.*/; slashes within are written \\/", "a regular expression between slashes is expected behind %s~", c.field)
	}
	if !p.ends(p.pos) {
		return nil, p.fail(p.pos, "a space is expected behind the regular expression", "")
	}
	var err error
	if c.source == "" {
		return nil, p.fail(at, "the regular expression is empty", "has("+c.field+") asks whether there is a value")
	}
	c.pattern, err = p.compile(at, c.source, match.Options{Regex: true, Fold: c.ownFold || c.fold})
	return c, err
}

// in reads a list of values, or the network behind `addr in`. It returns nil
// when the word in is no operator here.
func (p *parser) in(at int, name string) (node, error) {
	p.pos += 2
	behind := p.pos
	p.skip()
	c := &comparison{field: name, op: opEqual, fold: p.opts.Fold || name == fieldHost}
	if p.peek(0) != '(' {
		if p.end() || p.pos == behind || name != fieldAddr {
			return nil, nil
		}
		valueAt := p.pos
		o, err := p.value("")
		if err != nil || p.operand(valueAt, c, &o) != nil || o.kind != asAddress {
			return nil, nil
		}
		c.operands = []operand{o}
		return c, nil
	}
	if p.columns != nil {
		var err error
		if c.field, err = p.column(at, name); err != nil {
			return nil, err
		}
	}
	for separator := byte('('); ; separator = ',' {
		if p.peek(0) != separator {
			return nil, p.failf(p.pos, "write "+name+" in (a, b)", `"," or ")" expected`)
		}
		p.pos++
		p.skip()
		valueAt := p.pos
		if p.end() || p.ends(p.pos) || p.src[p.pos] == ',' {
			return nil, p.fail(p.pos, "a value is expected here", "write "+name+" in (a, b)")
		}
		o, err := p.value(",")
		if err == nil && o.text == "" && o.glob == nil {
			err = p.fail(valueAt, "an empty value in a list", `events without one: `+name+`=""`)
		}
		if err == nil {
			err = p.operand(valueAt, c, &o)
		}
		if err != nil {
			return nil, err
		}
		if c.operands = append(c.operands, o); len(c.operands) > maxItems {
			return nil, p.failf(valueAt, "", "more than %d values in one list", maxItems)
		}
		if p.skip(); p.peek(0) == ')' {
			break
		}
	}
	if p.pos++; !p.ends(p.pos) {
		return nil, p.fail(p.pos, `a space is expected behind ")"`, "")
	}
	return c, nil
}

// between reads a range: [a..b] or [a TO b], both ends included, and each may
// be left out. It returns nil when there is no range behind the bracket.
func (p *parser) between(c *comparison) (node, error) {
	at := p.pos
	c.op = opBetween
	p.pos++
	for len(c.operands) < 2 {
		p.skip()
		end := operand{open: true}
		valueAt := p.pos
		if mark := p.peek(0); mark == '"' || mark == '\'' {
			s, err := p.quoted()
			if err != nil {
				return nil, err
			}
			end = operand{text: s}
		} else if n := strings.IndexAny(p.rest()+"]", "] \t\n|"); n > 0 {
			word := p.rest()[:n]
			if i := strings.Index(word, ".."); i >= 0 && len(c.operands) == 0 {
				word = word[:i]
			}
			p.pos += len(word)
			end = operand{text: word, open: word == "" || word == "*"}
		}
		if !end.open {
			if err := p.operand(valueAt, c, &end); err != nil {
				if len(c.operands) == 0 && !strings.HasPrefix(p.rest(), "..") {
					break // a text that happens to begin with a bracket
				}
				return nil, err
			}
		}
		if c.operands = append(c.operands, end); len(c.operands) == 2 {
			break
		}
		if p.skip(); strings.HasPrefix(p.rest(), "..") {
			p.pos += 2
		} else if strings.HasPrefix(p.rest(), "TO ") {
			p.pos += 3
		} else {
			break
		}
	}
	if len(c.operands) < 2 {
		p.pos, c.operands = at, nil
		return nil, nil
	}
	if p.skip(); p.peek(0) != ']' {
		return nil, p.fail(p.pos, `"]" expected`, c.field+":[a..b]")
	}
	if p.pos++; !p.ends(p.pos) {
		return nil, p.fail(p.pos, `a space is expected behind "]"`, "")
	}
	return c, p.joinEnds(at, c)
}
