// Package seal keeps files encrypted at rest: log segments, assets, models.
//
// A sealed object is a header and a payload. The payload is the plaintext in
// segments of 1 MiB, each sealed with AES-256-GCM. They are sealed and opened
// in parallel, and any of them can be opened on its own, so an object is read
// at random as a plain file is. Each object has a random data key of its own.
// The header holds that key wrapped for those who may read: for age
// recipients, or with a key file. A new set of readers (Rewrap) is a new
// header of the same length, written in place; the payload is not touched and
// needs no decryption.
//
// # What is guaranteed
//
// Who has none of the keys learns the length, the context, the number of
// readers and the ids of key files, nothing else. Who can write the file but
// has no key cannot change what is read: a bit that differs, segments that
// were reordered, doubled, dropped, cut off, appended or taken from another
// object, and a header that is not of this object are a *CorruptError. Open
// authenticates the header and the last segment, so a length that it reports
// is true; every segment is authenticated before a byte of it is handed out.
//
// # What is not
//
// Whoever can open an object knows its data key: they can make another object
// with the same key, and a former reader who kept the data key or an old
// header can read the payload after Rewrap. To lock such a reader out, seal
// the plaintext anew. A whole old object put in the place of a new one of the
// same context is not noticed here: catalogues hold digests for that, over
// what Fixed returns.
//
// Memory is plain memory: keys and plaintext can reach swap.
//
// The format is in docs/formats/seal.md, byte by byte. Sources: Hoang,
// Reyhanitabar, Rogaway, Vizár, "Online Authenticated-Encryption and its
// Nonce-Reuse Misuse-Resistance" (2015), section 7 (STREAM); NIST SP 800-38D
// (GCM); RFC 5869 (HKDF); the age specification, C2SP age.md.
package seal

import (
	"fmt"

	"github.com/mobileops/mobileops/internal/failure"
)

// SegmentSize is the plaintext of every segment but the last, in bytes. Reads
// that begin and end at its multiples open nothing twice.
const SegmentSize = 1 << 20

// tagSize is what a sealed segment is longer than its plaintext: the tag of GCM.
const tagSize = 16

// maxSegments bounds an object at 16 TiB. GCM under one key stays far from its
// limits there: 2^40 blocks are distinguishable with probability 2^-49.
const maxSegments = 1 << 24

// Errors that callers tell apart.
var (
	// ErrNoKey is returned when no identity opens the object.
	ErrNoKey = failure.New(failure.NotAllowed, "no key opens it")
	// ErrNotSealed is returned for a file that does not begin as a sealed one.
	ErrNotSealed = failure.New(failure.Untrustworthy, "not a sealed file")
	// ErrNewer is returned for a version that this program does not know.
	ErrNewer = failure.New(failure.Untrustworthy, "sealed by a newer mobileops")
	// ErrCorrupt is what every CorruptError wraps.
	ErrCorrupt = failure.New(failure.Untrustworthy, "sealed file is damaged or was altered")
)

// CorruptError says where a sealed object is not what was sealed. It wraps
// ErrCorrupt, whose kind is failure.Untrustworthy.
type CorruptError struct {
	Segment int64  // number of the segment, from 0; -1: the header
	Offset  int64  // where that begins in the sealed file, in bytes
	What    string // what is wrong with it
}

func (e *CorruptError) Error() string {
	where := "header"
	if e.Segment >= 0 {
		where = fmt.Sprintf("segment %d", e.Segment)
	}
	return fmt.Sprintf("%v: %s at byte %d: %s", ErrCorrupt, where, e.Offset, e.What)
}

func (e *CorruptError) Unwrap() error { return ErrCorrupt }

// corruptHeader returns the error for a header that is wrong at an offset.
func corruptHeader(offset int, format string, args ...any) error {
	return &CorruptError{Segment: -1, Offset: int64(offset), What: fmt.Sprintf(format, args...)}
}

// IsSealed reports whether a file that begins with prefix is, or claims to be,
// a sealed object. It needs the first 16 bytes.
func IsSealed(prefix []byte) bool {
	return len(prefix) >= len(magic) && string(prefix[:len(magic)]) == magic
}
