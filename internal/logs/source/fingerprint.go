package source

import (
	"encoding/hex"
	"errors"
	"io"

	"github.com/zeebo/blake3"
)

// printBytes is how much of a file its fingerprints are made of.
const printBytes = 1024

// fingerprint is the digest of some bytes of a file: its first ones, or those
// right before a position.
type fingerprint struct {
	Len  int    `json:"len"`
	Hash string `json:"blake3"` // 16 bytes, as hexadecimal digits
}

func fingerprintOf(b []byte) fingerprint {
	sum := blake3.Sum256(b)
	return fingerprint{len(b), hex.EncodeToString(sum[:16])}
}

// of reports whether the fingerprint is that of the first bytes of b.
func (f fingerprint) of(b []byte) bool {
	return len(b) >= f.Len && f == fingerprintOf(b[:f.Len])
}

// readFull reads as much of b at an offset as there is.
func readFull(r io.ReaderAt, b []byte, offset int64) (int, error) {
	n, err := r.ReadAt(b, offset)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return n, err
}

// beginning reads the first bytes of a file, up to as many as a fingerprint
// has, into a buffer of at least that length.
func beginning(r io.ReaderAt, buf []byte) ([]byte, error) {
	n, err := readFull(r, buf[:printBytes], 0)
	return buf[:n], err
}

// tailOf returns the part of what has been read that a fingerprint before a
// position is made of: the last bytes of before followed by read.
func tailOf(before, read []byte) []byte {
	if len(read) >= printBytes {
		return append(before[:0], read[len(read)-printBytes:]...)
	}
	if drop := len(before) + len(read) - printBytes; drop > 0 {
		before = before[:copy(before, before[drop:])]
	}
	return append(before, read...)
}
