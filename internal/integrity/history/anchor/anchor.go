// Package anchor keeps the end of a history where an attacker on the host does
// not reach it.
//
// A chain of signed records proves that nothing in it was changed, but a whole
// state directory that is put back to an earlier copy is a valid chain, too. An
// anchor is one line of text that names the last record: whoever has a line
// with a counter that this host does not know any more knows that it was
// rolled back. A line is short enough for a QR code or a syslog message.
//
//	mobileops-anchor/v1 HOST COUNTER DIGEST TIME SIGNATURE
//
// The fields are separated by one space: the host id of the records, the
// counter and the BLAKE3 digest of the record, the time of the anchor (RFC
// 3339, UTC), and the base64 of an ed25519 signature of everything before it
// (without the space), or "-". The signature is made by the key that signs the
// history; it keeps others who can write to the place from inventing anchors.
//
// A Place is where anchors are kept: a file, an HTTP resource, or a syslog.
//
// Sources: RFC 8032 (ed25519), RFC 5424, 5426 and 6587 (syslog), RFC 9110.
package anchor

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/mobileops/mobileops/internal/integrity/baseline"
)

// Version is the first field of a line.
const Version = "mobileops-anchor/v1"

// MaxLine bounds a line, in bytes.
const MaxLine = 512

// Anchor names a record of a history.
type Anchor struct {
	Host      string        `json:"host"` // as in the records
	Counter   uint64        `json:"counter"`
	Digest    baseline.Hash `json:"digest"`    // of the record
	Time      time.Time     `json:"time"`      // when the anchor was made; UTC, whole seconds
	Signature []byte        `json:"signature"` // 64 bytes; nil: none
}

// Message returns what is signed: the line up to the signature.
func (a *Anchor) Message() []byte {
	return fmt.Appendf(nil, "%s %s %d %s %s", Version, a.Host, a.Counter, a.Digest, a.Time.Format(time.RFC3339))
}

// String returns the line, without a newline.
func (a *Anchor) String() string {
	signature := "-"
	if a.Signature != nil {
		signature = base64.StdEncoding.EncodeToString(a.Signature)
	}
	return string(a.Message()) + " " + signature
}

// ParseError says where a line is no anchor.
type ParseError struct {
	Offset int // in bytes
	What   string
}

func (e *ParseError) Error() string {
	return fmt.Sprintf("not an anchor: %s at byte %d", e.What, e.Offset)
}

// Parse reads a line, with or without its newline, and nothing else: each
// anchor has one form. Its error is a *ParseError.
func Parse(line string) (Anchor, error) {
	line = strings.TrimSuffix(line, "\n")
	line = strings.TrimSuffix(line, "\r")
	if len(line) > MaxLine {
		return Anchor{}, &ParseError{MaxLine, "the line is too long"}
	}
	fields := strings.Split(line, " ")
	offset := 0
	wrong := func(n int, what string) (Anchor, error) {
		for _, f := range fields[:n] {
			offset += len(f) + 1
		}
		return Anchor{}, &ParseError{offset, what}
	}
	if fields[0] != Version {
		return wrong(0, "it does not begin with "+Version)
	}
	if len(fields) != 6 {
		return wrong(0, fmt.Sprintf("%d fields instead of 6", len(fields)))
	}
	var a Anchor
	var err error
	if a.Host = fields[1]; !validHost(a.Host) {
		return wrong(1, "no host id")
	}
	if a.Counter, err = strconv.ParseUint(fields[2], 10, 64); err != nil || a.Counter == 0 || strconv.FormatUint(a.Counter, 10) != fields[2] {
		return wrong(2, "no counter")
	}
	digest, err := hex.DecodeString(fields[3])
	if err != nil || len(digest) != len(a.Digest) || hex.EncodeToString(digest) != fields[3] {
		return wrong(3, "no digest")
	}
	copy(a.Digest[:], digest)
	if a.Time, err = time.Parse(time.RFC3339, fields[4]); err != nil || a.Time.UTC().Format(time.RFC3339) != fields[4] {
		return wrong(4, "no time in UTC")
	}
	a.Time = a.Time.UTC()
	if fields[5] != "-" {
		a.Signature, err = base64.StdEncoding.Strict().DecodeString(fields[5])
		if err != nil || len(a.Signature) != ed25519.SignatureSize || base64.StdEncoding.EncodeToString(a.Signature) != fields[5] {
			return wrong(5, "no signature")
		}
	}
	return a, nil
}

// validHost tells whether a host id can stand in a line.
func validHost(s string) bool {
	for _, c := range []byte(s) {
		if c <= ' ' || c >= 0x7F {
			return false
		}
	}
	return s != "" && len(s) <= 255
}

// Last returns the last anchor of a host in a text of lines, and how many lines
// are neither anchors nor empty nor comments that begin with "#". Anchors of
// other hosts may stand between them. Nil: there is none.
func Last(text, host string) (last *Anchor, strange int) {
	for line := range strings.Lines(text) {
		bare := strings.TrimSpace(line)
		if bare == "" || bare[0] == '#' {
			continue
		}
		a, err := Parse(bare)
		if err != nil {
			strange++
		} else if a.Host == host {
			last = &a
		}
	}
	return last, strange
}

// Pasted returns the last anchor of a host in what somebody pasted or piped:
// the lines of a file, lines of a log with something in front, a line that is
// quoted, or one that was broken into several. When there is none of the host,
// it is the last one of another. The error is a *ParseError, also when the last
// one is not whole: an older one in its place would prove less than it seems.
func Pasted(text, host string) (Anchor, error) {
	const begin = Version + " "
	var found, other *Anchor
	at := strings.Index(text, begin)
	if at < 0 {
		return Anchor{}, &ParseError{0, "there is no " + Version}
	}
	for at >= 0 {
		rest := text[at+len(begin):]
		next := strings.Index(rest, begin)
		part := rest
		if next >= 0 {
			part = rest[:next]
		}
		a, err := parseBroken(part)
		switch {
		case err != nil && next < 0:
			return Anchor{}, &ParseError{at, err.What}
		case err != nil:
		case a.Host == host:
			found = &a
		default:
			other = &a
		}
		if at += len(begin) + next; next < 0 {
			break
		}
	}
	if found == nil {
		found = other
	}
	return *found, nil
}

// maxBreaks bounds into how many lines more than one an anchor may be broken.
const maxBreaks = 5

// parseBroken reads what follows the version. A line end in it may stand for
// the space that was there, or for nothing; the form of an anchor tells.
func parseBroken(text string) (Anchor, *ParseError) {
	lines := strings.SplitN(strings.ReplaceAll(text, "\r", ""), "\n", maxBreaks+2)
	lines = lines[:min(len(lines), maxBreaks+1)]
	var first *ParseError
	for joined := range 1 << (len(lines) - 1) {
		var b strings.Builder
		for i, line := range lines {
			if i > 0 && joined&(1<<(i-1)) == 0 {
				b.WriteByte(' ')
			}
			b.WriteString(strings.TrimSpace(line))
		}
		fields := strings.Fields(b.String())
		fields = fields[:min(len(fields), 5)]
		for i := range fields {
			fields[i] = strings.Trim(fields[i], "\"'`")
		}
		a, err := Parse(Version + " " + strings.Join(fields, " "))
		if err == nil {
			return a, nil
		}
		if first == nil {
			errors.As(err, &first)
		}
	}
	return Anchor{}, first
}
