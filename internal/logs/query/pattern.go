package query

import "github.com/mobileops/mobileops/internal/logs/match"

// Pattern returns what the filter looks for when it is one text, word or
// regular expression and nothing else; otherwise nil.
func (q *Query) Pattern() *match.Pattern {
	if t, ok := q.filter.(*text); ok {
		return t.pattern
	}
	return nil
}
