package archive

import (
	"bytes"
	"strconv"
	"strings"
	"time"
)

// eachRecord calls f for the records of a pax extended header: a length in
// decimal digits that counts the record with itself and the newline, a space,
// key=value, a newline.
func eachRecord(data []byte, offset int64, f func(key, value string) *Error) error {
	seen := map[string]bool{}
	for len(data) > 0 {
		digits, _, ok := bytes.Cut(data, []byte(" "))
		n, err := strconv.ParseUint(string(digits), 10, 31)
		if !ok || err != nil || n > uint64(len(data)) || n < uint64(len(digits)+len(" =\n")) || digits[0] == '0' || digits[0] == '+' || data[n-1] != '\n' {
			return refuse(CodeFormat, "", offset, "a pax record without a proper length")
		}
		key, value, ok := strings.Cut(string(data[len(digits)+1:n-1]), "=")
		if !ok || key == "" {
			return refuse(CodeFormat, "", offset, "a pax record without a key")
		}
		if seen[key] {
			return refuse(CodeFormat, "", offset, "two pax records %q for one entry", Abridge(key))
		}
		seen[key] = true
		if e := f(key, value); e != nil {
			return e
		}
		data = data[n:]
	}
	return nil
}

// readPax takes what pax records say of an entry.
func (x *extended) readPax(data []byte, offset int64) error {
	return eachRecord(data, offset, func(key, value string) *Error {
		switch key {
		case "path", "linkpath":
			if value == "" || strings.IndexByte(value, 0) >= 0 {
				return refuse(CodePathBytes, value, offset, "the pax record %s is empty or has a NUL", key)
			}
			if key == "path" {
				x.name = &value
			} else {
				x.link = &value
			}
			return nil
		case "size":
			n, err := strconv.ParseUint(value, 10, 63)
			if err != nil {
				return refuse(CodeFormat, "", offset, "the pax record size is not a number that makes sense")
			}
			x.size = int64(n)
			return nil
		case "mtime":
			t, ok := paxTime(value)
			if !ok {
				return refuse(CodeFormat, "", offset, "the pax record mtime is not a time")
			}
			x.mtime = &t
			return nil
		}
		return checkRecord(key, value, offset)
	})
}

// checkPaxAll looks at a header for all entries that follow. There may be a
// remark, as git archive makes one; what would give every entry a name, size
// or time is refused, for not every program heeds it.
func checkPaxAll(data []byte, offset int64) error {
	return eachRecord(data, offset, func(key, value string) *Error {
		switch key {
		case "path", "linkpath", "size", "mtime", "uid", "gid", "uname", "gname", "atime", "ctime":
			return refuse(CodeFormat, "", offset, "a pax record %s for all entries", key)
		}
		return checkRecord(key, value, offset)
	})
}

// ignored are keys of pax records that say nothing about what is installed:
// owners, other times, where the file was, remarks.
var ignored = map[string]bool{
	"atime": true, "ctime": true, "comment": true,
	"uid": true, "gid": true, "uname": true, "gname": true,
	"SCHILY.dev": true, "SCHILY.ino": true, "SCHILY.nlink": true,
	"LIBARCHIVE.creationtime": true, "LIBARCHIVE.symlinktype": true,
}

// checkRecord looks at records that set nothing here. Those that are not known
// are refused: they may change what other programs make of the entry.
func checkRecord(key, value string, offset int64) *Error {
	switch {
	case ignored[key]:
		return nil
	case key == "charset" || key == "hdrcharset":
		// Names are checked to be UTF-8 whatever is said here.
		if value == "BINARY" || value == "ISO-IR 10646 2000 UTF-8" {
			return nil
		}
		return refuse(CodeFormat, "", offset, "names in the character set %q; they must be UTF-8", Abridge(value))
	}
	for _, prefix := range []string{"SCHILY.xattr.", "SCHILY.acl.", "SCHILY.fflags", "LIBARCHIVE.xattr.", "LIBARCHIVE.fflags", "RHT.security.", "security."} {
		if strings.HasPrefix(key, prefix) {
			return refuse(CodeXattr, "", offset, "the pax record %q", Abridge(key))
		}
	}
	if strings.HasPrefix(key, "GNU.sparse.") || key == "SCHILY.realsize" {
		return refuse(CodeType, "", offset, "a sparse file (the pax record %q); build the package without --sparse", Abridge(key))
	}
	return refuse(CodeFormat, "", offset, "the pax record %q, of unknown meaning", Abridge(key))
}

// paxTime reads decimal seconds with a fraction.
func paxTime(s string) (time.Time, bool) {
	whole, fraction, dot := strings.Cut(s, ".")
	seconds, err := strconv.ParseInt(whole, 10, 64)
	if err != nil || dot && fraction == "" || whole[0] == '+' {
		return time.Time{}, false
	}
	var ns int64
	for i := range max(9, len(fraction)) {
		digit := int64(0)
		if i < len(fraction) {
			if fraction[i] < '0' || fraction[i] > '9' {
				return time.Time{}, false
			}
			digit = int64(fraction[i] - '0')
		}
		if i < 9 {
			ns = ns*10 + digit
		}
	}
	return clampTime(seconds, ns), true // a fraction before 1970 is clamped with its seconds
}
