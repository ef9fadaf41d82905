package export

import (
	"fmt"
	"net/url"
	"path"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/mobileops/mobileops/internal/finding/export"
)

// Longest texts in a report, in bytes before anything is spelled out. A path on
// Linux has at most 4,096. What formats allow is less at places, and said there.
const (
	longestName  = 512
	longestPath  = 1024
	longestText  = 4000
	longestShort = 300
)

// visible spells out what a reader could not see or would be misled by, and
// cuts a long text with a note of how much is missing.
func visible(s string, longest int) string {
	cut := ""
	if kept := clip(s, longest); len(kept) < len(s) {
		cut = fmt.Sprintf(" … and %s more bytes", count(len(s)-len(kept)))
		s = kept
	}
	return export.Visible(s) + cut
}

// prose is visible for text of several lines, which stay several: what else
// does not show is spelled out.
func prose(s string, longest int) string {
	lines := strings.Split(strings.ReplaceAll(strings.TrimSpace(s), "\r\n", "\n"), "\n")
	for i := range lines {
		lines[i] = strings.TrimRight(strings.ReplaceAll(lines[i], "\t", "    "), " ")
	}
	s = strings.Join(lines, "\n")
	cut := ""
	if kept := clip(s, longest); len(kept) < len(s) {
		cut, s = " …", kept
	}
	lines = strings.Split(s, "\n")
	for i := range lines {
		lines[i] = export.Visible(lines[i])
	}
	return strings.Join(lines, "\n") + cut
}

// clip cuts s to at most limit bytes without cutting within a character.
func clip(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	for end := limit; end > limit-utf8.UTFMax && end > 0; end-- {
		if utf8.RuneStart(s[end]) {
			return s[:end]
		}
	}
	return s[:limit]
}

// count writes a number with separated thousands.
func count(n int) string {
	s := strconv.Itoa(n)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// plural writes a number and the word for what is counted.
func plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return count(n) + " " + many
}

// lasted writes how long something took.
func lasted(d time.Duration) string {
	switch {
	case d < time.Second:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	case d < time.Minute:
		return fmt.Sprintf("%.1f seconds", d.Seconds())
	}
	return strings.TrimSuffix(d.Round(time.Second).String(), "0s")
}

// age writes how old something is, in the unit that a person would use.
func age(d time.Duration) string {
	switch {
	case d < 0:
		return "not yet"
	case d < time.Hour:
		return "less than an hour"
	case d < 48*time.Hour:
		return plural(int(d/time.Hour), "hour", "hours")
	}
	return plural(int(d/(24*time.Hour)), "day", "days")
}

// day formats a date, and the zero time as nothing.
func day(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.DateOnly)
}

// stamp formats a time, and the zero time as nothing.
func stamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}

// joined joins the texts that are not empty.
func joined(sep string, texts ...string) string {
	kept := texts[:0:0]
	for _, t := range texts {
		if t != "" {
			kept = append(kept, t)
		}
	}
	return strings.Join(kept, sep)
}

// webLink returns an address that may be made a link of, or "": one of the web,
// with a host and without credentials, in which nothing is hidden.
func webLink(s string) string {
	if s == "" || len(s) > 2000 {
		return ""
	}
	// What is not ASCII may look like another address, and what has to be escaped
	// is none.
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c >= 0x7f || strings.IndexByte("<>\"\\^`{|}", c) >= 0 {
			return ""
		}
	}
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.User != nil {
		return ""
	}
	return u.String()
}

// relativeURI returns a path below the scanned target as a relative reference
// (RFC 3986): every byte but the unreserved ones and the slash is
// percent-encoded, so any name passes, and none is taken for a scheme, a host
// or a way out of the target. "" stays "".
func relativeURI(p string) string {
	if p == "" {
		return ""
	}
	p = strings.TrimPrefix(path.Clean("/"+p), "/")
	b := make([]byte, 0, len(p)+8)
	for i := range len(p) {
		c := p[i]
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', strings.IndexByte("-._~/", c) >= 0:
			b = append(b, c)
		default:
			b = append(b, '%', "0123456789ABCDEF"[c>>4], "0123456789ABCDEF"[c&15])
		}
	}
	return string(b)
}
