package archive

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/mobileops/mobileops/internal/failure"
)

// Code says why an archive is refused. Codes are stable: scripts and monitoring
// match on them. docs/formats/package.md has them in prose. A kind of package
// may have codes of its own beside these.
type Code string

// The codes.
const (
	CodeTruncated     Code = "truncated"                  // the package ends before its end
	CodeTrailing      Code = "trailing-data"              // bytes after its end, or a second member or frame
	CodeCorrupt       Code = "corrupt"                    // a checksum is wrong, or what is packed cannot be unpacked
	CodeFormat        Code = "format"                     // not a package, or a header that programs read differently
	CodeBomb          Code = "bomb"                       // much more comes out than such a package can hold
	CodeTooLarge      Code = "too-large"                  // a file, all files, a header or the window
	CodeTooMany       Code = "too-many"                   // entries
	CodePathLength    Code = "path-length"                // a name is empty or too long
	CodePathBytes     Code = "path-bytes"                 // control characters, backslashes, invalid UTF-8
	CodeAbsolute      Code = "absolute"                   // a name begins with a slash
	CodeTraversal     Code = "traversal"                  // "." or ".." or nothing between slashes
	CodeDepth         Code = "depth"                      // too many directories deep
	CodeSymlinkEscape Code = "symlink-escape"             // a link that could leave the tree
	CodeHardLink      Code = "hardlink"                   // any hard link
	CodeDevice        Code = "device"                     // devices and pipes
	CodeSetID         Code = "setid"                      // setuid or setgid bits that nothing allows
	CodeXattr         Code = "xattr"                      // extended attributes, access control lists, file flags
	CodeType          Code = "type"                       // any other type: sparse files, volumes, or a kind that may not be there
	CodeDuplicate     Code = "duplicate"                  // a name twice
	CodeCaseClash     Code = "case-clash"                 // names that differ by case alone
	CodeParentNotDir  Code = "parent-not-dir"             // an entry beneath a file or link
	CodeDirOverFile   Code = "directory-in-place-of-file" // a directory with the name of a file or link
	CodeFileOverDir   Code = "file-in-place-of-directory" // a file or link with the name of a directory
	CodeManifest      Code = "manifest"                   // what a package says of itself is bad, is not first, or names what is not there
)

// Codes lists every code of this package.
func Codes() []Code {
	return []Code{
		CodeTruncated, CodeTrailing, CodeCorrupt, CodeFormat, CodeBomb, CodeTooLarge, CodeTooMany,
		CodePathLength, CodePathBytes, CodeAbsolute, CodeTraversal, CodeDepth, CodeSymlinkEscape,
		CodeHardLink, CodeDevice, CodeSetID, CodeXattr, CodeType, CodeDuplicate, CodeCaseClash,
		CodeParentNotDir, CodeDirOverFile, CodeFileOverDir, CodeManifest,
	}
}

// advice is what the operator does next.
func (c Code) advice() string {
	switch c {
	case CodeTruncated, CodeCorrupt:
		return "fetch the package again, and compare its digest with the publisher's"
	case CodeTrailing:
		return "fetch the package again; packages are one gzip member or one zstd frame with one archive in it"
	case CodeFormat:
		return "packages are .tar.gz or .tar.zst as GNU tar and bsdtar make them"
	case CodeBomb, CodeTooLarge, CodeTooMany:
		return "do not unpack it by hand; ask its publisher for a smaller package"
	case CodeSymlinkEscape:
		return "links are relative and stay within the tree; ask the publisher to build it again"
	case CodeHardLink:
		return "have the publisher build it again with tar --hard-dereference"
	case CodeSetID:
		return "ask the publisher to build it again without such bits"
	case CodeXattr:
		return "have the publisher build it again without --xattrs, --acls and --selinux"
	case CodeManifest:
		return "correct what it says of itself, or ask the publisher to"
	default:
		return "ask the publisher to build it again without that entry"
	}
}

// Error is an archive refused. It is of the kind failure.Untrustworthy, exit
// status 5.
type Error struct {
	Code  Code
	Entry string // the name as it is in the package; "" when it is about all of it
	// Offset is where it was found: the byte of the unpacked archive at which
	// the entry's header begins, or, if Packed, about that byte of the package.
	// It is a line of the manifest for its errors.
	Offset int64
	Packed bool
	Advice string // what the operator does next; the usual one for Code when ""
	Err    error  // what is wrong
}

func (e *Error) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "package refused: %s: ", e.Code)
	if e.Entry != "" {
		b.WriteString(strconv.QuoteToASCII(Abridge(e.Entry)) + ": ")
	}
	fmt.Fprintf(&b, "%v", e.Err)
	switch {
	case e.Packed:
		fmt.Fprintf(&b, ", near byte %d of the package", e.Offset)
	case e.Code != CodeManifest && e.Offset > 0:
		fmt.Fprintf(&b, ", at byte %d of the archive", e.Offset)
	}
	advice := e.Advice
	if advice == "" {
		advice = e.Code.advice()
	}
	fmt.Fprintf(&b, " (%s)", advice)
	return b.String()
}

// Unwrap gives the error its kind.
func (e *Error) Unwrap() error {
	return &failure.Error{Kind: failure.Untrustworthy, Err: e.Err}
}

// Abridge keeps what a hostile archive says short: about 200 bytes.
func Abridge(s string) string {
	const most = 200
	if len(s) <= most {
		return s
	}
	return s[:most/2] + "…" + s[len(s)-most/2:]
}

// refuse makes an Error about an entry.
func refuse(code Code, entry string, offset int64, format string, args ...any) *Error {
	return &Error{Code: code, Entry: entry, Offset: offset, Err: fmt.Errorf(format, args...)}
}

// refusePacked makes an Error about the packing.
func refusePacked(code Code, offset int64, format string, args ...any) *Error {
	return &Error{Code: code, Offset: offset, Packed: true, Err: fmt.Errorf(format, args...)}
}
