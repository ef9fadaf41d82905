// Package failure is the vocabulary of how things go wrong.
//
// Engines say what kind of trouble they met by wrapping or creating errors
// with a Kind; the command line turns the kind into an exit status. That table
// stands here once, so that no engine knows numbers and no command invents
// one. See docs/reference for the same table in prose.
package failure

import (
	"context"
	"errors"
	"fmt"
)

// Kind says what sort of failure an error is. Kinds are ordered: when several
// apply to one run, the greater one decides (see Worse).
type Kind int

// The kinds, each with the exit status it becomes.
const (
	None          Kind = iota // 0: done; clean; a match was found
	No                        // 1: the answer is no: changes, findings, differences, no match
	Usage                     // 2: unknown command or flag, bad value; nothing was done
	Failed                    // 3: I/O, network, kernel; nothing is left half done
	NotAllowed                // 4: not authenticated, not authorised, not root
	Untrustworthy             // 5: bad signature, broken chain, corrupt or foreign state, downgrade
	Incomplete                // 6: the result is partial; never reported as clean
	NotReady                  // 7: a prerequisite is missing, and its name is said
	Busy                      // 8: another operation holds the lock, or it is already in force
	Interrupted               // 130: interrupted; state is as before, or as said
)

// Status returns the exit status of the kind.
func (k Kind) Status() int {
	if k == Interrupted {
		return 130
	}
	return int(k)
}

// OfStatus returns the kind that becomes an exit status, such as that of a
// program which keeps to the same table.
func OfStatus(status int) (k Kind, ok bool) {
	for k := None; k <= Interrupted; k++ {
		if k.Status() == status {
			return k, true
		}
	}
	return Failed, false
}

// Worse returns the kind that decides when both apply.
func Worse(a, b Kind) Kind { return max(a, b) }

// Error is an error with a kind, and with a hint that tells the operator what
// to do next.
type Error struct {
	Kind Kind
	Msg  string // lower case, no trailing dot; empty when Err says it all
	Hint string // shown in parentheses after the message, such as "create one: mobileops integrity baseline"
	Err  error  // what caused it, or nil
}

func (e *Error) Error() string {
	s := e.Msg
	if e.Err != nil {
		if s != "" {
			s += ": "
		}
		s += e.Err.Error()
	}
	if e.Hint != "" {
		s += " (" + e.Hint + ")"
	}
	return s
}

func (e *Error) Unwrap() error { return e.Err }

// New returns an error of a kind. Engines use it for their sentinel errors.
func New(k Kind, msg string) error { return &Error{Kind: k, Msg: msg} }

// Errorf is fmt.Errorf with a kind; %w works as it does there.
func Errorf(k Kind, format string, args ...any) error {
	return &Error{Kind: k, Err: fmt.Errorf(format, args...)}
}

// Wrap gives err a kind, and returns nil for a nil error.
func Wrap(k Kind, err error) error {
	if err == nil {
		return nil
	}
	return &Error{Kind: k, Err: err}
}

// Hint adds to err what the operator should do next, keeping its kind.
// It returns nil for a nil error.
func Hint(err error, hint string) error {
	if err == nil {
		return nil
	}
	return &Error{Kind: KindOf(err), Err: err, Hint: hint}
}

// Silent is an outcome of a kind about which everything has been said already,
// such as "changes were found" after the report was printed.
func Silent(k Kind) error {
	if k == None {
		return nil
	}
	return &silent{k}
}

type silent struct{ kind Kind }

func (s *silent) Error() string { return fmt.Sprintf("exit status %d", s.kind.Status()) }

// IsSilent reports whether err was made by Silent, so nothing is to be printed.
func IsSilent(err error) bool {
	var s *silent
	return errors.As(err, &s)
}

// KindOf returns the kind of err: that of the outermost Error or Silent in its
// chain, Interrupted for a cancelled context, Failed for any other error and
// None for nil.
func KindOf(err error) Kind {
	if err == nil {
		return None
	}
	var s *silent
	if errors.As(err, &s) {
		return s.kind
	}
	if errors.Is(err, context.Canceled) {
		return Interrupted
	}
	var e *Error
	if errors.As(err, &e) {
		return e.Kind
	}
	return Failed
}

// Meaning is an exit status and what it means in every command.
type Meaning struct {
	Status  int
	Meaning string
}

// Table returns every exit status, in the order in which the later one decides
// when several apply.
func Table() []Meaning {
	return []Meaning{
		{None.Status(), "done; clean; a match was found"},
		{No.Status(), "the answer is no: changes, findings, differences, no match"},
		{Usage.Status(), "unknown command or flag, or a bad value; nothing was done"},
		{Failed.Status(), "failed: input or output, network, kernel; what was and was not done is said"},
		{NotAllowed.Status(), "not allowed: not authenticated, not authorised, not root"},
		{Untrustworthy.Status(), "not trustworthy: bad signature, broken audit chain, corrupt or foreign state, downgrade"},
		{Incomplete.Status(), "incomplete: the result is partial, and is never reported as clean"},
		{NotReady.Status(), "not ready: a prerequisite is missing, and its name is said"},
		{Busy.Status(), "busy: another operation holds the lock, or the thing asked for is already in force"},
		{Interrupted.Status(), "interrupted: state is as before, or as said"},
	}
}
