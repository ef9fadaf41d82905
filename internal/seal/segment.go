package seal

import (
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// payloadCipher returns the cipher of the segments. Its key comes from the
// data key, the nonce of the object and the digest of the fixed preamble: that
// binds magic, version, sizes and context to each segment, and is independent
// of whom the data key is wrapped for.
func payloadCipher(p *preamble, dataKey []byte) (cipher.AEAD, error) {
	sum := sha256.Sum256(p.encode())
	key, err := hkdf.Key(sha256.New, dataKey, p.nonce[:], labelPayload+string(sum[:]), keySize)
	if err != nil {
		return nil, err
	}
	defer clear(key)
	return newGCM(key)
}

// segmentNonce is that of STREAM: the number of the segment as 11 bytes, big
// endian, and 1 for the last segment or 0. A segment in another place, and one
// that became the last, are not authentic.
func segmentNonce(index int64, last bool) []byte {
	var n [12]byte
	binary.BigEndian.PutUint64(n[3:11], uint64(index))
	if last {
		n[11] = 1
	}
	return n[:]
}

// geometry returns the number of segments in a payload of so many bytes, and
// the bytes of plaintext in all of them. Only an empty object has an empty
// segment; ok is false for a length that no payload has.
func geometry(payload int64) (segments, plain int64, ok bool) {
	full, rest := payload/(SegmentSize+tagSize), payload%(SegmentSize+tagSize)
	segments = full
	if rest > 0 {
		segments++
	}
	plain = payload - segments*tagSize
	ok = segments >= 1 && segments <= maxSegments && (rest == 0 || rest > tagSize || payload == tagSize)
	return segments, plain, ok
}

// payload is the sealed segments of an object.
type payload struct {
	r        io.ReaderAt
	aead     cipher.AEAD
	offset   int64 // of the first segment in r
	segments int64
	size     int64 // of the plaintext, in bytes
}

// plainLen returns the bytes of plaintext in a segment.
func (p *payload) plainLen(index int64) int {
	if index == p.segments-1 {
		return int(p.size - index*SegmentSize)
	}
	return SegmentSize
}

// at returns where a segment begins in the sealed file.
func (p *payload) at(index int64) int64 { return p.offset + index*(SegmentSize+tagSize) }

// open reads a segment into buf, which has room for SegmentSize+tagSize bytes,
// and opens it into dst, which has room for its plaintext or is nil for
// opening it in place. It returns the plaintext.
func (p *payload) open(index int64, dst, buf []byte) ([]byte, error) {
	want := p.plainLen(index) + tagSize
	n, err := p.r.ReadAt(buf[:want], p.at(index))
	if n < want {
		if err == nil || errors.Is(err, io.EOF) {
			return nil, &CorruptError{index, p.at(index), fmt.Sprintf("only %d of %d bytes are left of it", n, want)}
		}
		return nil, fmt.Errorf("read segment %d of a sealed file: %w", index, err)
	}
	if dst == nil {
		dst = buf
	}
	plain, err := p.aead.Open(dst[:0], segmentNonce(index, index == p.segments-1), buf[:want], nil)
	if err != nil {
		return nil, &CorruptError{index, p.at(index), "not authentic: altered, cut off behind it, moved, or of another object"}
	}
	return plain, nil
}
