// Package match finds text in the raw bytes of log records: literals, whole
// words and regular expressions, with or without regard to case.
//
// What a pattern needs (Need) lets a reader leave out whole blocks of a store
// without looking at a record: bytes that every match contains.
package match

// Literal is a run of bytes that occurs in every record that matches.
type Literal struct {
	Text []byte
	// Fold says that letters of ASCII match in either case. Text is lower case
	// then.
	Fold bool
	// Word says that no letter, digit or underscore is right before or after.
	Word bool
}

// Clause is a choice: one of its literals occurs in every match. An empty
// clause is never part of a Need.
type Clause []Literal

// Need is what the bytes of every match contain: at least one literal of each
// clause. An empty Need excludes nothing.
type Need struct {
	Clauses []Clause
	// Exact says that the converse holds too: what has a literal of each clause
	// matches, so that it need not be looked at again.
	Exact bool
}
