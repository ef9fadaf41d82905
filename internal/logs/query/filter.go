package query

import (
	"fmt"

	"github.com/mobileops/mobileops/internal/logs/event"
)

// Filter is a condition that And adds to a query: what flags ask for.
type Filter struct{ n node }

// Field returns the filter that one of the values of a field is equal to one
// of the given ones, which are read as behind an =: addresses may be networks,
// and * stands for any text. Options are those of the query. Its error is an
// *Error whose column is that within the value.
func Field(name string, o Options, values ...string) (Filter, error) {
	c := &comparison{field: name, op: opEqual, fold: o.Fold || name == fieldHost}
	if nameLength(name) != len(name) || name == "" {
		return Filter{}, &Error{Column: 1, Message: fmt.Sprintf("%s is no name of a field", quote(name)), Hint: "a name has letters, digits, and _ . - @ within"}
	}
	for _, value := range values {
		p := newParser(value, o)
		v, err := p.flagValue()
		if err == nil {
			err = p.operand(0, c, &v)
		}
		if err != nil {
			return Filter{}, err
		}
		c.operands = append(c.operands, v)
	}
	if len(c.operands) == 0 {
		c.op = opHas
	}
	return Filter{c}, nil
}

// SeverityAtLeast returns the filter that events are as bad as a severity, or
// worse.
func SeverityAtLeast(s event.Severity) Filter {
	level := int(event.Debug) - int(s)
	return Filter{&comparison{field: fieldSeverity, op: opGreaterEqual, operands: []operand{{text: s.String(), kind: asSeverity, level: level}}}}
}

// SeverityNamed reads the name of a severity as the language does, or syslog's
// number of it.
func SeverityNamed(name string) (event.Severity, bool) {
	level, ok := severityLevel(name)
	return event.Severity(int(event.Debug) - level), ok
}
