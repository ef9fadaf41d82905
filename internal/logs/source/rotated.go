package source

import "strings"

// compressions are the endings that compressed files of rotated logs have.
// What a file really is, is found by its content.
var compressions = [...]string{".gz", ".xz", ".zst", ".bz2", ".z", ".Z", ".lzma", ".lz4"}

// kept are endings that people and savelog(8) give to what they keep.
var kept = [...]string{".bak", ".old", ".orig", ".prev", ".save", ".saved", "~"}

// Stem returns the name of the log that a file is a rotated version of, and
// whether it is one by its name: auth.log for auth.log.1, auth.log.2.gz,
// auth.log-20261122 (logrotate's dateext), auth.log.20261122-061010 (kubelet)
// and auth-20261122.log (dateext with extension). A name without a directory
// or a path can be given.
func Stem(name string) (stem string, rotated bool) {
	dir, base := "", name
	if i := strings.LastIndexByte(name, '/'); i >= 0 {
		dir, base = name[:i+1], name[i+1:]
	}
	s := base
	for {
		t := strip(s)
		if t == s || t == "" {
			break
		}
		s = t
	}
	if s == base {
		// The date is before the extension.
		if i := strings.LastIndexByte(base, '.'); i > 0 {
			if t := stripDate(base[:i]); t != base[:i] && t != "" {
				s = t + base[i:]
			}
		}
	} else if i := strings.LastIndexByte(s, '.'); i > 0 {
		if t := stripDate(s[:i]); t != s[:i] && t != "" {
			s = t + s[i:]
		}
	}
	return dir + s, s != base
}

// strip takes one mark of rotation off the end of a name.
func strip(s string) string {
	for _, ext := range compressions {
		if t, ok := strings.CutSuffix(s, ext); ok {
			return t
		}
	}
	for _, ext := range kept {
		if t, ok := strings.CutSuffix(s, ext); ok {
			return t
		}
	}
	digits := len(s) - len(strings.TrimRight(s, "0123456789"))
	if digits >= 1 && digits <= 4 && strings.HasSuffix(s[:len(s)-digits], ".") {
		return s[:len(s)-digits-1]
	}
	return stripDate(s)
}

// stripDate takes -20261122, .2026-11-22, -20261122-061010, -20261122-1763790000 and
// -1700000000 off the end of a name.
func stripDate(s string) string {
	i, digits := len(s), 0
	for i > 0 {
		switch c := s[i-1]; {
		case c >= '0' && c <= '9':
			digits++
		case (c == '-' || c == '_' || c == 'T' || c == ':') && i < len(s) && isDigit(s[i]) && i >= 2 && isDigit(s[i-2]):
		default:
			goto end
		}
		i--
	}
end:
	if digits < 8 || digits > 20 || i < 2 || !strings.ContainsRune("-._", rune(s[i-1])) {
		return s
	}
	if y := s[i:]; !strings.HasPrefix(y, "19") && !strings.HasPrefix(y, "20") && !(digits == 10 && y[0] == '1') {
		return s
	}
	return s[:i-1]
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }
