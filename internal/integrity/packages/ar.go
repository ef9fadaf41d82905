package packages

import (
	"fmt"
	"io"
	"strconv"
	"strings"
)

const (
	arMagic      = "!<arch>\n"
	arHeader     = 60
	maxArMembers = 64
)

// arMember is a member of an ar archive (ar(5), as deb(5) uses it).
type arMember struct {
	name   string
	offset int64 // of its content
	size   int64
}

// readAr lists the members of an archive of the given size. Their contents
// are not touched. Errors are *CorruptError.
func readAr(r io.ReaderAt, size int64) ([]arMember, error) {
	bad := func(offset int64, format string, args ...any) error {
		return &CorruptError{Offset: offset, Reason: fmt.Sprintf(format, args...)}
	}
	var h [arHeader]byte
	if n, err := r.ReadAt(h[:len(arMagic)], 0); n < len(arMagic) || string(h[:n]) != arMagic {
		if err != nil && err != io.EOF {
			return nil, err
		}
		return nil, bad(0, "not an ar archive")
	}
	var list []arMember
	for at := int64(len(arMagic)); at < size; {
		n, err := r.ReadAt(h[:], at)
		if n < len(h) {
			if err != nil && err != io.EOF {
				return nil, err
			}
			return nil, bad(at, "a member's header is cut off")
		}
		length, err := strconv.ParseInt(strings.TrimRight(string(h[48:58]), " "), 10, 64)
		switch {
		case string(h[58:]) != "`\n" || err != nil || length < 0:
			return nil, bad(at, "not a member's header")
		case length > size-at-arHeader:
			return nil, bad(at, "a member claims %d bytes, and %d are left", length, size-at-arHeader)
		case len(list) == maxArMembers:
			return nil, bad(at, "more than %d members", maxArMembers)
		}
		name := strings.TrimSuffix(strings.TrimRight(string(h[:16]), " "), "/")
		list = append(list, arMember{name, at + arHeader, length})
		at += arHeader + length + length&1 // members begin at even offsets
	}
	return list, nil
}
