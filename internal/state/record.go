package state

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"fmt"

	"github.com/mobileops/mobileops/internal/failure"
)

// Form is how a kind of record is kept: as JSON with a member "v", the version.
type Form struct {
	Version  int // that is written, and the latest that is read
	MaxBytes int
	// Strict refuses members that are unknown. Without it what an older mobileops
	// could not pass over needs a new version.
	Strict bool
}

// DecodeError says that a record is damaged, was tampered with, or is from a newer
// mobileops.
type DecodeError struct {
	What   string // "change C-7Q2FM3"
	Offset int64  // byte within the record; -1: none in particular
	Reason string
}

func (e *DecodeError) Error() string {
	if e.Offset < 0 {
		return e.What + ": " + e.Reason
	}
	return fmt.Sprintf("%s: byte %d: %s", e.What, e.Offset, e.Reason)
}

// Damaged returns a *DecodeError as the failure that it is for a command.
func Damaged(what string, offset int64, format string, args ...any) error {
	err := &DecodeError{what, offset, fmt.Sprintf(format, args...)}
	return failure.Hint(failure.Wrap(failure.Untrustworthy, err), "look: mobileops state check")
}

// Read decodes a record of this form into v, which has a member for the version if the
// form is strict. What is for messages: it must be safe
// to print. The error is that of Damaged.
func (f Form) Read(what string, b []byte, v any) error {
	var head struct {
		Version int `json:"v"`
	}
	if err := ReadJSON(what, f.MaxBytes, b, &head); err != nil {
		return err
	}
	switch {
	case head.Version > f.Version:
		return Damaged(what, -1, "format %d was written by a newer mobileops", head.Version)
	case head.Version < 1:
		return Damaged(what, -1, "it has no version")
	case !f.Strict:
		return ReadJSON(what, f.MaxBytes, b, v)
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	return notJSON(what, dec.Decode(v))
}

// ReadJSON decodes a record, or a part of one, that has no version of its own. What is
// for messages, as with Form.Read.
func ReadJSON(what string, maxBytes int, b []byte, v any) error {
	if len(b) > maxBytes {
		return Damaged(what, -1, "%d bytes are more than it may have", len(b))
	}
	return notJSON(what, json.Unmarshal(b, v))
}

// notJSON is the failure for what package json says of a record; nil stays nil.
func notJSON(what string, err error) error {
	offset := int64(-1)
	switch e := err.(type) {
	case nil:
		return nil
	case *json.SyntaxError:
		offset = e.Offset
	case *json.UnmarshalTypeError:
		offset = e.Offset
	}
	return Damaged(what, offset, "%v", err)
}

// NewID makes an ID that people read to each other and type, such as C-7Q2FM3: the
// prefix and 30 random bits in Crockford's base 32, of which no letter looks like a
// digit.
func NewID(prefix string) string {
	var b [6]byte
	rand.Read(b[:])
	for i := range b {
		b[i] = IDAlphabet[b[i]&31]
	}
	return prefix + string(b[:])
}

// IDAlphabet is what an ID of NewID has after its prefix.
const IDAlphabet = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
