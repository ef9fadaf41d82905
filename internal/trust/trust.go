// Package trust decides whose packages are installed: it knows the public keys
// that this host trusts, reads the detached signature of a package, and makes
// such signatures.
//
// A package PKG has beside it PKG.minisig, a signature file of minisign. Its
// trusted comment is the Release: which name, version, sequence and channel the
// package is of, and until when it may be installed. Two ed25519 signatures are
// in the file: one of the BLAKE2b-512 digest of the package, and one of that
// signature together with the comment. So the comment can be proved before the
// package is read (Keys.Verifier), the package while it streams by
// (Verifier.Write), and neither can be put together with another one.
//
// Invariants: a Verifier exists only for a signature whose comment is proved by
// a trusted key that may vouch for that name and channel; Verifier.Verify
// answers for exactly the bytes that were written to it. The legacy algorithm
// "Ed" of minisign, for which a whole package would have to be held in memory,
// is refused, as is everything in a signature file beyond its four lines. Keys
// that others than root or who runs this can replace are not used.
//
// A Signer makes raw ed25519 signatures: from a file of minisign, a PEM file, a
// token that speaks PKCS #11, or a program. The same key can therefore sign
// packages and the metadata of a repository.
//
// docs/formats/release.md describes the files.
//
// Sources: the format of minisign (https://jedisct1.github.io/minisign/),
// RFC 8032 (ed25519), RFC 7693 (BLAKE2), RFC 7512 (PKCS #11 URIs), RFC 8410
// (ed25519 keys in PKCS #8).
package trust

import (
	"errors"
	"fmt"

	"github.com/mobileops/mobileops/internal/failure"
)

// Code names why something is not trusted. Codes are stable: scripts and
// findings may rely on them.
type Code string

// The reasons why a package, a signature or a key is refused.
const (
	CodeUnsigned           Code = "unsigned"            // there is no signature
	CodeNoKeys             Code = "no-keys"             // no key is trusted here; not ready rather than untrustworthy
	CodeWrongKey           Code = "wrong-key"           // signed by a key that is not trusted here
	CodeKeyScope           Code = "key-scope"           // the key is trusted, but not for packages of this name or channel
	CodeBadSignature       Code = "bad-signature"       // the package or the comment is not what was signed
	CodeLegacySignature    Code = "legacy-signature"    // signed without hashing first
	CodeMalformedSignature Code = "malformed-signature" // not a signature file of minisign
	CodeComment            Code = "comment"             // the trusted comment does not describe a release
	CodeExpired            Code = "expired"             // the release may no longer be installed
	CodeUnsafeKeys         Code = "unsafe-keys"         // others than root or who runs this can change the trusted keys, or one cannot be read as a key
)

// Error says why something is not trusted. Its kind is failure.Untrustworthy,
// or failure.NotReady for CodeNoKeys.
type Error struct {
	Code    Code
	Package string // what it is about, as the caller named it with About; may be empty
	Err     error  // what is wrong and what to do, with its kind
}

func (e *Error) Error() string {
	if e.Package == "" {
		return e.Err.Error()
	}
	return e.Package + ": " + e.Err.Error()
}

func (e *Error) Unwrap() error { return e.Err }

// About names the package in an Error of this package, and returns any other
// error, also nil, as it is.
func About(pkg string, err error) error {
	var e *Error
	if !errors.As(err, &e) {
		return err
	}
	return &Error{Code: e.Code, Package: pkg, Err: e.Err}
}

// CodeOf returns the code of err, or "" when it is not one of this package.
func CodeOf(err error) Code {
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}

// refuse makes an Error with what the operator should do.
func refuse(code Code, hint, format string, args ...any) error {
	kind := failure.Untrustworthy
	if code == CodeNoKeys {
		kind = failure.NotReady
	}
	return &Error{Code: code, Err: &failure.Error{Kind: kind, Err: fmt.Errorf(format, args...), Hint: hint}}
}
