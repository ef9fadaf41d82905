package trust

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Limits of what a release says of itself, in bytes.
const (
	MaxName    = 64
	MaxVersion = 64
	MaxComment = 512
)

// MaxSequence is the greatest sequence number of a release.
const MaxSequence = math.MaxInt64

// commentTime is the only form in which a comment writes a moment: RFC 3339 in
// UTC, to the second, so that each release has one comment.
const commentTime = "2006-01-02T15:04:05Z"

// Release is what a signature says of a package in its trusted comment.
type Release struct {
	Name     string    // of the package: lower case letters, digits, ".", "_", "-"
	Version  string    // for people; the order of releases is that of Sequence
	Sequence uint64    // 1 to MaxSequence; each release of a name has a greater one than those before
	Channel  string    // such as "stable"; written like a name
	Expires  time.Time // may not be installed from then on; whole seconds, UTC
}

// ParseComment reads the trusted comment of a package's signature: the five
// fields
//
//	name=platform version=2.4.1 sequence=17 channel=stable expires=2027-01-01T00:00:00Z
//
// in any order, each once, separated by one space. The error is an *Error with
// CodeComment, which names the byte where the trouble is, from 0.
func ParseComment(comment string) (Release, error) {
	var r Release
	if len(comment) > MaxComment {
		return Release{}, badComment(MaxComment, "it is longer than %d bytes", MaxComment)
	}
	seen := make(map[string]bool, 5)
	for offset := 0; ; {
		field, rest, more := strings.Cut(comment[offset:], " ")
		key, value, assigned := strings.Cut(field, "=")
		switch {
		case field == "":
			return Release{}, badComment(offset, "a field is empty; between two fields is one space")
		case !assigned:
			return Release{}, badComment(offset, "%.80q is not a field such as name=platform", field)
		case seen[key]:
			return Release{}, badComment(offset, "%.80q is there twice", key)
		}
		seen[key] = true
		if err := r.set(key, value); err != nil {
			return Release{}, badComment(offset, "%w", err)
		}
		if !more {
			break
		}
		offset = len(comment) - len(rest)
	}
	for _, key := range commentKeys() {
		if !seen[key] {
			return Release{}, badComment(len(comment), "%s is missing", key)
		}
	}
	return r, nil
}

// commentKeys are the fields in the order in which Comment writes them.
func commentKeys() []string { return []string{"name", "version", "sequence", "channel", "expires"} }

func badComment(offset int, format string, args ...any) error {
	return refuse(CodeComment, "sign it with: mobileops update sign, or minisign -S -t 'name=NAME version=VERSION sequence=N channel=CHANNEL expires=2027-01-01T00:00:00Z'",
		"the trusted comment does not describe a release: at byte %d: %w", offset, fmt.Errorf(format, args...))
}

// set takes over one field.
func (r *Release) set(key, value string) error {
	switch key {
	case "name":
		r.Name = value
		return CheckName(value)
	case "version":
		r.Version = value
		return CheckVersion(value)
	case "sequence":
		n, err := strconv.ParseUint(value, 10, 64)
		if err != nil || n < 1 || n > MaxSequence || strconv.FormatUint(n, 10) != value {
			return fmt.Errorf("the sequence %.40q is not a whole number from 1 to %d", value, uint64(MaxSequence))
		}
		r.Sequence = n
		return nil
	case "channel":
		r.Channel = value
		return CheckChannel(value)
	case "expires":
		t, err := time.Parse(commentTime, value)
		if err != nil || t.Format(commentTime) != value {
			return fmt.Errorf("the end %.40q is not a moment such as 2027-01-01T00:00:00Z", value)
		}
		r.Expires = t
		return nil
	}
	return fmt.Errorf("%.80q is not a field of a release", key)
}

// Comment returns the trusted comment that says what r says. It is one that
// ParseComment reads when Check finds nothing wrong.
func (r Release) Comment() string {
	return fmt.Sprintf("name=%s version=%s sequence=%d channel=%s expires=%s",
		r.Name, r.Version, r.Sequence, r.Channel, r.Expires.UTC().Format(commentTime))
}

// Check returns what is wrong with r, such as a name that no package can have.
// Its error is an *Error with CodeComment.
func (r Release) Check() error {
	back, err := ParseComment(r.Comment())
	if err != nil {
		return err
	}
	if !back.Expires.Equal(r.Expires) {
		return badComment(0, "the end %s is not a whole second", r.Expires.UTC().Format(time.RFC3339Nano))
	}
	return nil
}

// Current returns nil while r may be installed, and an *Error with CodeExpired
// from r.Expires on. The later one of now and seen counts: seen is the latest
// moment that is known to have been on this host, such as the time of the last
// update, or the zero time. So winding the clock back does not make an old
// release current again.
func (r Release) Current(now, seen time.Time) error {
	if now.Before(seen) {
		if seen.Before(r.Expires) {
			return nil
		}
		return refuse(CodeExpired, "set the clock of this host, and get a newer release",
			"%s %s expired at %s; the clock says %s, but it was %s here already", r.Name, r.Version,
			r.Expires.UTC().Format(commentTime), now.UTC().Format(commentTime), seen.UTC().Format(commentTime))
	}
	if now.Before(r.Expires) {
		return nil
	}
	return refuse(CodeExpired, "get a newer release, or have this one signed again with a later end: mobileops update sign",
		"%s %s expired at %s", r.Name, r.Version, r.Expires.UTC().Format(commentTime))
}

// CheckName returns what is wrong with the name of a package: it has 1 to
// MaxName characters, lower case letters, digits, ".", "_" and "-", and begins
// with a letter or digit.
func CheckName(s string) error { return checkWord("name", s) }

// CheckChannel returns what is wrong with the name of a channel, which is
// written like that of a package.
func CheckChannel(s string) error { return checkWord("channel", s) }

func checkWord(what, s string) error {
	good := s != "" && len(s) <= MaxName
	for i := 0; good && i < len(s); i++ {
		c := s[i]
		good = 'a' <= c && c <= 'z' || '0' <= c && c <= '9' || i > 0 && (c == '.' || c == '_' || c == '-')
	}
	if !good {
		return fmt.Errorf("the %s %.80q is not 1 to %d of a-z, 0-9, \".\", \"_\" and \"-\", beginning with a letter or digit", what, s, MaxName)
	}
	return nil
}

// CheckVersion returns what is wrong with a version: it has 1 to MaxVersion
// characters, letters, digits, ".", "_", "-", "+", "~" and ":", and begins with a
// letter or digit. That holds versions of semver.org and of Debian.
func CheckVersion(s string) error {
	good := s != "" && len(s) <= MaxVersion
	for i := 0; good && i < len(s); i++ {
		c := s[i]
		good = 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' ||
			i > 0 && strings.IndexByte("._-+~:", c) >= 0
	}
	if !good {
		return fmt.Errorf("the version %.80q is not 1 to %d letters, digits, \".\", \"_\", \"-\", \"+\", \"~\" and \":\", beginning with a letter or digit", s, MaxVersion)
	}
	return nil
}
