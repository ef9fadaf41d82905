package document

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/spelling"
)

// MaxProblems are reported of one document; a file with more is something else.
const MaxProblems = 50

// Problem is one thing that is wrong with a document.
type Problem struct {
	File   string `json:"file,omitempty"`
	Line   int    `json:"line,omitempty"`   // from 1; 0 when it concerns the whole file
	Column int    `json:"column,omitempty"` // from 1, in characters; 0 when it concerns the whole line
	Text   string `json:"message"`
}

// Error returns the problem as compilers put it: "policy.yaml:12:3: unknown …".
func (p *Problem) Error() string {
	switch {
	case p.Line == 0 && p.File == "":
		return p.Text
	case p.Line == 0:
		return p.File + ": " + p.Text
	case p.File == "":
		return fmt.Sprintf("line %d: %s", p.Line, p.Text)
	case p.Column == 0:
		return fmt.Sprintf("%s:%d: %s", p.File, p.Line, p.Text)
	}
	return fmt.Sprintf("%s:%d:%d: %s", p.File, p.Line, p.Column, p.Text)
}

// Error is everything that is wrong with a document, in the order of the file once
// it is a Result.
type Error struct {
	File     string // what messages call it; may be empty
	Problems []*Problem
}

// Error returns one line for each problem.
func (e *Error) Error() string { return errors.Join(e.Unwrap()...).Error() }

// Unwrap returns the problems as errors of their own, as errors.Join does, so that
// each is printed on its own line.
func (e *Error) Unwrap() []error {
	out := make([]error, len(e.Problems))
	for i, p := range e.Problems {
		out[i] = p
	}
	return out
}

// Place is where something stands in a file, both from 1; zero is the whole file, or
// the whole line.
type Place struct{ Line, Column int }

// At returns the place of a node.
func At(n *yaml.Node) Place { return Place{n.Line, n.Column} }

// Add reports a problem. Whoever words it quotes what it cites of the document, so
// that no control character gets into a message.
func (e *Error) Add(at Place, format string, args ...any) {
	e.Problems = append(e.Problems, &Problem{e.File, at.Line, at.Column, fmt.Sprintf(format, args...)})
}

// Result returns what a reader returns: nil without problems, else an error of the
// kind that wraps e, with the first 50 problems in the order of the file.
func (e *Error) Result(kind failure.Kind) error {
	if len(e.Problems) == 0 {
		return nil
	}
	slices.SortStableFunc(e.Problems, func(a, b *Problem) int {
		return cmp.Or(a.Line-b.Line, a.Column-b.Column)
	})
	if n := len(e.Problems); n > MaxProblems {
		e.Problems = append(e.Problems[:MaxProblems], &Problem{File: e.File, Text: fmt.Sprintf("and %d more", n-MaxProblems)})
	}
	return failure.Wrap(kind, e)
}

// DidYouMean is the end of a message about a word that nobody knows: the one that
// was probably meant, or all known ones if they are few.
func DidYouMean(typed string, known []string) string {
	if s := spelling.Nearest(typed, known); s != "" && s != typed {
		return fmt.Sprintf("; did you mean %q?", s)
	}
	if len(known) == 0 || len(known) > 20 {
		return ""
	}
	return " (known: " + strings.Join(known, ", ") + ")"
}
