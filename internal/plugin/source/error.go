package source

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"

	"github.com/mobileops/mobileops/internal/failure"
)

// Code names why a package could not be had. Codes never change once given
// out: programs compare them.
type Code string

// The codes. Those of the first group mean that what was offered is not to be
// trusted (failure.Untrustworthy).
const (
	CodeRollback  Code = "rollback"  // an index that is older than one accepted before, or another one of the same serial
	CodeExpired   Code = "expired"   // an index that its publisher no longer vouches for
	CodeMalformed Code = "malformed" // an index, a manifest or a package that is not one
	CodeDigest    Code = "digest"    // not the bytes that were promised
	CodeTooLarge  Code = "too-large" // more bytes than allowed or promised
	CodeRedirect  Code = "redirect"  // a server that sends where we do not go
	CodeMediaType Code = "type"      // something in a registry that is not a plugin

	CodeSpec        Code = "spec"        // what was asked for cannot be understood
	CodePlainHTTP   Code = "plain-http"  // unencrypted, and nobody allowed it
	CodeAmbiguous   Code = "ambiguous"   // several indexes have the name
	CodeUnreachable Code = "unreachable" // no connection, or an answer that is an error
	CodeStalled     Code = "stalled"     // a server that sends nothing, or too slowly
	CodeTruncated   Code = "truncated"   // the transfer ended early
	CodeMissing     Code = "missing"     // not there
	CodeNotFound    Code = "not-found"   // in no index
	CodeTooNew      Code = "too-new"     // needs a newer mobileops
	CodeDenied      Code = "denied"      // the server wants credentials, or others
	CodeNoIndex     Code = "no-index"    // no index is configured, or none was ever fetched
	CodeDisk        Code = "disk"        // what was fetched cannot be written
)

func (c Code) kind() failure.Kind {
	switch c {
	case CodeSpec, CodePlainHTTP, CodeAmbiguous:
		return failure.Usage
	case CodeUnreachable, CodeStalled, CodeTruncated, CodeMissing, CodeDisk:
		return failure.Failed
	case CodeNotFound, CodeNoIndex, CodeTooNew:
		return failure.NotReady
	case CodeDenied:
		return failure.NotAllowed
	}
	return failure.Untrustworthy
}

// Error is a package or an index that was refused or could not be had.
type Error struct {
	Code Code
	Msg  string // lower case, with the address where there is one, never with a password
	Hint string // what to do next; may be empty
	Err  error  // the cause, or nil
}

func (e *Error) Error() string { return e.Unwrap().Error() }

// Unwrap is the same as a failure, of the kind that the code has.
func (e *Error) Unwrap() error {
	return &failure.Error{Kind: e.Code.kind(), Msg: e.Msg, Hint: e.Hint, Err: e.Err}
}

// CodeOf returns the code of err, or "" when it is not one of this package.
func CodeOf(err error) Code {
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}

func refuse(code Code, hint, format string, args ...any) *Error {
	return &Error{Code: code, Hint: hint, Msg: fmt.Sprintf(format, args...)}
}

// failed makes an Error of what a transfer ended with. The reason for which we
// gave up ourselves counts more than what the connection made of it.
func failed(ctx context.Context, where string, err error) error {
	var own *Error
	if errors.As(err, &own) {
		return err
	}
	if cause := context.Cause(ctx); cause != nil {
		if errors.As(cause, &own) || errors.Is(cause, context.Canceled) {
			return cause
		}
		return &Error{Code: CodeStalled, Msg: where, Err: cause}
	}
	if errors.Is(err, context.Canceled) {
		return err
	}
	var u *url.Error
	if errors.As(err, &u) { // its text would repeat the URL, with what is secret in it
		err = u.Err
	}
	// The transport waits for an answer as long as watch does, and may be the
	// first to give up; a connection that does not come about is something else.
	var late net.Error
	var dial *net.OpError
	if errors.As(err, &late) && late.Timeout() && !(errors.As(err, &dial) && dial.Op == "dial") {
		return &Error{Code: CodeStalled, Msg: where, Err: err, Hint: "try again"}
	}
	return &Error{Code: CodeUnreachable, Msg: where, Err: err, Hint: "look at the address, the proxy and the network"}
}
