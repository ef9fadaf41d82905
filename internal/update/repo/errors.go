package repo

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/theupdateframework/go-tuf/v2/metadata"
)

// Code names what is wrong with a repository, and never changes once it was
// given out: programs compare it.
type Code string

// The codes. Those of the first group mean that the repository is not to be
// trusted (failure.Untrustworthy); the others that it cannot be used now.
const (
	CodeRollback  Code = "rollback"      // a role of a lower version than was accepted before
	CodeExpired   Code = "expired"       // a role that nobody signed anew in time: a freeze, or a publisher asleep
	CodeMix       Code = "mix-and-match" // parts of different publications
	CodeSignature Code = "signature"     // no signature by a key of the role
	CodeThreshold Code = "threshold"     // fewer signatures than the role needs
	CodeHash      Code = "hash"          // a package that is not the one that was published
	CodeLength    Code = "length"        // a package that is longer or shorter than published
	CodeTooLarge  Code = "too-large"     // more metadata than anybody needs
	CodeMalformed Code = "malformed"     // metadata that cannot be read
	CodeRedirect  Code = "redirect"      // the server sends elsewhere
	CodeRoot      Code = "root"          // the pinned root cannot be used
	CodeRecord    Code = "record"        // the record of what was accepted cannot be read

	CodeUnreachable Code = "unreachable" // no connection, no directory
	CodeStalled     Code = "stalled"     // a server that sends nothing, or next to nothing
	CodeMissing     Code = "missing"     // a file that is not there
	CodeNotFound    Code = "not-found"   // no such package in the repository
	CodeDisk        Code = "disk"        // what was fetched cannot be written
	CodeNever       Code = "never"       // nothing was ever verified here
)

// kinds are the kinds of failure that are not Untrustworthy.
func (c Code) kind() failure.Kind {
	switch c {
	case CodeUnreachable, CodeStalled, CodeMissing, CodeDisk:
		return failure.Failed
	case CodeNotFound:
		return failure.No
	case CodeNever:
		return failure.NotReady
	}
	return failure.Untrustworthy
}

// Error is a repository, or a part of one, that was refused or could not be
// had.
type Error struct {
	Code    Code
	Role    string    // root, timestamp, snapshot or targets; "": not about a role
	Expired time.Time // when the role expired, with CodeExpired
	Msg     string    // lower case; may be empty when Err says it all
	Hint    string    // what to do next; may be empty
	Err     error     // the cause, or nil
}

func (e *Error) Error() string { return e.Unwrap().Error() }

// Unwrap is the same as a failure, of the kind that the code has.
func (e *Error) Unwrap() error {
	return &failure.Error{Kind: e.Code.kind(), Msg: e.Msg, Hint: e.Hint, Err: e.Err}
}

// CodeOf returns the code of err, or "" when a repository has no part in it.
func CodeOf(err error) Code {
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}

func refuse(code Code, role, format string, args ...any) *Error {
	return &Error{Code: code, Role: role, Msg: fmt.Sprintf(format, args...)}
}

// expired says that a role is too old to be believed.
func expired(role string, at, now time.Time) *Error {
	e := refuse(CodeExpired, role, "the %s of the repository expired %s ago, at %s", role, age(now.Sub(at)), at.UTC().Format(time.RFC3339))
	e.Expired = at
	e.Hint = "who runs it has to publish anew: mobileops update repo publish; or somebody keeps news from this host; or its clock is wrong"
	return e
}

// age writes a duration as a person says it.
func age(d time.Duration) string {
	switch {
	case d >= 48*time.Hour:
		return fmt.Sprintf("%d days", int(d/(24*time.Hour)))
	case d >= 2*time.Hour:
		return fmt.Sprintf("%d hours", int(d/time.Hour))
	case d >= 2*time.Minute:
		return fmt.Sprintf("%d minutes", int(d/time.Minute))
	}
	return fmt.Sprintf("%d seconds", max(0, int(d/time.Second)))
}

// verdict makes an Error of what go-tuf says about the metadata of a role.
func verdict(role string, err error) error {
	var own *Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &own), errors.Is(err, context.Canceled):
		return err
	case errors.Is(err, &metadata.ErrUnsignedMetadata{}):
		return unsigned(role, err)
	case errors.Is(err, &metadata.ErrBadVersionNumber{}) && role == metadata.ROOT:
		return refuse(CodeRollback, role, "the %s of the repository has not the version that its name says", role)
	case errors.Is(err, &metadata.ErrBadVersionNumber{}) && role == metadata.TIMESTAMP:
		return refuse(CodeRollback, role, "the %s of the repository is older than the one that was accepted before", role)
	case errors.Is(err, &metadata.ErrBadVersionNumber{}), errors.Is(err, &metadata.ErrLengthOrHashMismatch{}):
		e := refuse(CodeMix, role, "the %s of the repository belongs to another publication", role)
		e.Hint = "a mirror in the middle of a copy looks like that, too: try again later"
		return e
	}
	e := refuse(CodeMalformed, role, "the %s of the repository cannot be read", role)
	e.Err = err
	return e
}

// unsigned tells none of the right signatures from too few. go-tuf says how
// many it found in its message alone; should that ever read otherwise, too few
// count as none.
func unsigned(role string, err error) *Error {
	var u *metadata.ErrUnsignedMetadata
	var got, want int
	if errors.As(err, &u) {
		_, _ = fmt.Sscanf(u.Msg, "Verifying "+role+" failed, not enough signatures, got %d, want %d", &got, &want)
	}
	if got > 0 {
		return refuse(CodeThreshold, role, "the %s of the repository has %d good signatures and needs %d", role, got, want)
	}
	return refuse(CodeSignature, role, "the %s of the repository is signed by no key that is trusted for it", role)
}

// guarded runs a step of go-tuf. Signed metadata with holes in it, such as a
// timestamp without a snapshot, makes the library panic.
func guarded(step func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%v", p)
		}
	}()
	return step()
}
