package integrity

import (
	"errors"
	"io/fs"

	"github.com/mobileops/mobileops/internal/integrity/baseline"
	"github.com/mobileops/mobileops/pkg/filehash"
	"golang.org/x/sys/unix"
)

// ProblemKind says why something could not be compared.
type ProblemKind string

// The kinds of problems.
const (
	Unreadable ProblemKind = "unreadable" // no permission, or an I/O error
	Unstable   ProblemKind = "unstable"   // it changed each time it was read
)

// Problem is something that could not be read, so nothing is known of it.
type Problem struct {
	Path   []byte
	Kind   ProblemKind
	Reason string
	Dir    bool // nothing below it is known either
	Denied bool // it is for other users to read
	Before bool // it was not read when the baseline was taken, so a new one is wanted
}

func problem(dir []byte, e *filehash.Entry) (Problem, bool) {
	switch {
	case e.Content == filehash.Unstable:
		return Problem{Path: baseline.JoinPath(dir, e.Name), Kind: Unstable, Reason: "changed each time it was read"}, true
	case e.Err != nil:
		return Problem{Path: baseline.JoinPath(dir, e.Name), Kind: Unreadable, Reason: reason(e.Err), Denied: errors.Is(e.Err, fs.ErrPermission)}, true
	}
	return Problem{}, false
}

func dirProblem(b *filehash.Batch) Problem {
	return Problem{Path: append([]byte(nil), b.Dir...), Kind: Unreadable, Reason: reason(b.Err), Dir: true, Denied: errors.Is(b.Err, fs.ErrPermission)}
}

// reason says in an admin's words why something cannot be read.
func reason(err error) string {
	switch {
	case errors.Is(err, fs.ErrPermission):
		return "permission denied"
	case errors.Is(err, unix.EIO):
		return "input/output error: is the disk failing?"
	}
	return err.Error()
}
