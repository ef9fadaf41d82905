package pack

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/mobileops/mobileops/internal/archive"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/trust"
)

// The codes that packages of plugins, and what is installed of them, have
// beside those of package archive. They are stable.
// docs/formats/plugin-package.md has them in prose.
const (
	CodeNotPackage   archive.Code = "not-a-package" // it does not begin with plugin.yaml
	CodeUnsigned     archive.Code = "unsigned"      // plugin.yaml.minisig is not there
	CodeWrongKey     archive.Code = "wrong-key"     // signed by a key that is not trusted here
	CodeNoKeys       archive.Code = "no-keys"       // no key is trusted here: not ready rather than untrustworthy
	CodeBadSignature archive.Code = "bad-signature" // plugin.yaml is not what was signed
	CodeExpired      archive.Code = "expired"       // the release may no longer be installed
	CodeNameMismatch archive.Code = "name-mismatch" // the signature is about another name or version than plugin.yaml
	CodeDigest       archive.Code = "digest"        // a file is not the one whose digest and size were signed
	CodeMode         archive.Code = "mode"          // a file has other permissions than it must have
	CodeMissingFile  archive.Code = "missing-file"  // a file that plugin.yaml lists is not there, or not in its place
	CodeExtraFile    archive.Code = "extra-file"    // something that plugin.yaml does not list
	CodeOwner        archive.Code = "owner"         // what is installed belongs to somebody else
	CodeWritable     archive.Code = "writable"      // others may write what nobody else should change
)

// Codes lists every code by which packages are refused: those of this package,
// of package archive, and of the signatures that package trust reads.
func Codes() []archive.Code {
	return append([]archive.Code{
		CodeNotPackage, CodeUnsigned, CodeWrongKey, CodeNoKeys, CodeBadSignature, CodeExpired, CodeNameMismatch,
		CodeDigest, CodeMode, CodeMissingFile, CodeExtraFile, CodeOwner, CodeWritable,
		archive.Code(trust.CodeKeyScope), archive.Code(trust.CodeLegacySignature),
		archive.Code(trust.CodeMalformedSignature), archive.Code(trust.CodeComment),
	}, archive.Codes()...)
}

// Error is a package refused, or a file of an installed plugin that is not what
// was signed. Its kind is failure.Untrustworthy, or failure.NotReady for
// CodeNoKeys. What is wrong with an archive as such is an *archive.Error;
// CodeOf knows both.
type Error struct {
	Code  archive.Code
	Entry string // the file within the package; "" when it is about all of it
	Err   error  // what is wrong
	Hint  string // what the operator does next
}

func (e *Error) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "plugin refused: %s: ", e.Code)
	if e.Entry != "" {
		b.WriteString(strconv.QuoteToASCII(archive.Abridge(e.Entry)) + ": ")
	}
	fmt.Fprintf(&b, "%v", e.Err)
	if e.Hint != "" {
		fmt.Fprintf(&b, " (%s)", e.Hint)
	}
	return b.String()
}

// Unwrap gives the error its kind.
func (e *Error) Unwrap() error {
	kind := failure.Untrustworthy
	if e.Code == CodeNoKeys {
		kind = failure.NotReady
	}
	return &failure.Error{Kind: kind, Err: e.Err}
}

// CodeOf returns the code of a refusal by this package, package archive or
// package trust, and "" for any other error.
func CodeOf(err error) archive.Code {
	var own *Error
	var packed *archive.Error
	var signed *trust.Error
	switch {
	case errors.As(err, &own):
		return own.Code
	case errors.As(err, &packed):
		return packed.Code
	case errors.As(err, &signed):
		return archive.Code(signed.Code)
	}
	return ""
}

// Hints of errors about packages that are to be installed, and about plugins
// that are.
const (
	hintPackage   = "get the package again; if it stays so, somebody changed it: do not install it"
	hintPublisher = "ask its publisher to build it with: mobileops plugin pack"
	hintInstalled = "find out who changed it, then install the plugin again"
)

// refuse makes an Error about a package.
func refuse(code archive.Code, entry, hint, format string, args ...any) *Error {
	return &Error{Code: code, Entry: entry, Hint: hint, Err: fmt.Errorf(format, args...)}
}

// signatureError says of a signature that is refused what helps for plugins:
// package trust speaks of packages of any kind.
func signatureError(err error) error {
	var e *trust.Error
	if !errors.As(err, &e) {
		return err
	}
	out := &Error{Code: archive.Code(e.Code), Entry: "", Err: e.Err}
	var f *failure.Error
	if errors.As(e.Err, &f) && f.Err != nil {
		out.Err, out.Hint = f.Err, f.Hint
	}
	switch out.Code {
	case CodeNoKeys, CodeWrongKey:
		out.Hint = "if that key is one that you trust: mobileops plugin trust add FILE.pub"
	case CodeUnsigned:
		out.Hint = hintPublisher
	case CodeExpired:
		out.Hint = "get a newer release, or have its publisher sign this one again with a later end"
	case archive.Code(trust.CodeComment), archive.Code(trust.CodeLegacySignature), archive.Code(trust.CodeMalformedSignature):
		out.Hint = hintPublisher
	}
	return out
}
