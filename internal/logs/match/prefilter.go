package match

import (
	"regexp"
	"strings"
	"unicode/utf8"
)

// Pattern returns a pattern that matches every line that fulfils the need, and
// others: lines without it need not be looked at. It returns nil when the need
// excludes nothing that could be looked for.
func (n Need) Pattern() *Pattern {
	c := rarest(n.Clauses)
	if len(c) == 1 && len(c[0].Text) > 0 {
		return compileLiteral(c[0])
	}
	var choices []string
	for _, l := range c {
		if len(l.Text) == 0 || !utf8.Valid(l.Text) {
			return nil
		}
		choice := regexp.QuoteMeta(string(l.Text))
		if l.Fold {
			choice = "(?i:" + choice + ")"
		}
		choices = append(choices, choice)
	}
	p, err := Compile(strings.Join(choices, "|"), Options{Regex: true})
	if len(choices) == 0 || err != nil {
		return nil
	}
	return p
}
