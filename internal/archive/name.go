package archive

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Problem is what is wrong with an entry, before it is known where.
type Problem struct {
	Code Code
	Err  error
}

// Trouble makes a Problem.
func Trouble(code Code, format string, args ...any) *Problem {
	return &Problem{code, fmt.Errorf(format, args...)}
}

// CleanName makes the name of an entry what Entry.Name promises. It is "" for
// the root of the tree. A slash at the end must have been taken off: it means
// something for directories alone.
func CleanName(name string, l *Limits) (string, *Problem) {
	if name == "" {
		return "", Trouble(CodePathLength, "an entry without a name")
	}
	if len(name) > l.PathBytes+len("./") {
		return "", Trouble(CodePathLength, "a name of %d bytes; %d are allowed", len(name), l.PathBytes)
	}
	if err := CheckBytes(name); err != nil {
		return "", &Problem{CodePathBytes, err}
	}
	if name[0] == '/' {
		return "", Trouble(CodeAbsolute, "the name begins with a slash")
	}
	name = strings.TrimPrefix(name, "./")
	if name == "" || name == "." {
		return "", nil
	}
	if len(name) > l.PathBytes {
		return "", Trouble(CodePathLength, "a name of %d bytes; %d are allowed", len(name), l.PathBytes)
	}
	depth := 0
	for part := range strings.SplitSeq(name, "/") {
		switch {
		case part == "" || part == "." || part == "..":
			return "", Trouble(CodeTraversal, "%q is a part of the name", part)
		case len(part) > l.NameBytes:
			return "", Trouble(CodePathLength, "a part of the name has %d bytes; %d are allowed", len(part), l.NameBytes)
		}
		depth++
	}
	if depth > l.Depth {
		return "", Trouble(CodeDepth, "%d directories deep; %d are allowed", depth, l.Depth)
	}
	return name, nil
}

// CheckBytes refuses what displays and other programs take for something else:
// control characters, marks that turn the direction of writing, backslashes
// and invalid UTF-8.
func CheckBytes(s string) error {
	ascii := true
	for i := range len(s) {
		c := s[i]
		switch {
		case c < 0x20 || c == 0x7f:
			return errors.New("a control character")
		case c == '\\':
			return errors.New("a backslash")
		case c >= utf8.RuneSelf:
			ascii = false
		}
	}
	if ascii {
		return nil
	}
	if !utf8.ValidString(s) {
		return errors.New("not valid UTF-8")
	}
	for _, r := range s {
		if unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) || r == '\u2028' || r == '\u2029' {
			return fmt.Errorf("the character %U", r)
		}
	}
	return nil
}

// checkLink says what is wrong with the target of the link with a clean name,
// and else to which clean name it leads, "" for the top of the tree.
//
// A target is resolved from the directory that the link lies in, and that is
// one: nothing lies beneath a link. So each ".." at its beginning goes up one
// part of the name. After that come names only; if one of them is a link, the
// same holds for its target. A ".." after a name would be resolved from
// wherever that name leads, and no check of text can tell where that is.
func checkLink(name, target string, l *Limits) (resolved string, p *Problem) {
	if target == "" || len(target) > l.PathBytes {
		return "", Trouble(CodePathLength, "the target of the link has %d bytes; 1 to %d are allowed", len(target), l.PathBytes)
	}
	if err := CheckBytes(target); err != nil {
		return "", Trouble(CodePathBytes, "the target of the link has %w", err)
	}
	if target[0] == '/' {
		return "", Trouble(CodeSymlinkEscape, "the link points to the absolute path %q", Abridge(target))
	}
	dir := strings.Split(name, "/")
	dir = dir[:len(dir)-1]
	names := false
	for part := range strings.SplitSeq(target, "/") {
		switch part {
		case "", ".":
		case "..":
			if names {
				return "", Trouble(CodeSymlinkEscape, `the link points to %q: ".." after a name leads wherever that name does`, Abridge(target))
			}
			if len(dir) == 0 {
				return "", Trouble(CodeSymlinkEscape, "the link points to %q, outside of the tree", Abridge(target))
			}
			dir = dir[:len(dir)-1]
		default:
			if len(part) > l.NameBytes {
				return "", Trouble(CodePathLength, "a part of the target of the link has %d bytes; %d are allowed", len(part), l.NameBytes)
			}
			names = true
			dir = append(dir, part)
		}
	}
	return strings.Join(dir, "/"), nil
}

// Within tells whether a clean path is dir or lies beneath it.
func Within(path, dir string) bool {
	rest, ok := strings.CutPrefix(path, dir)
	return ok && (rest == "" || rest[0] == '/')
}
