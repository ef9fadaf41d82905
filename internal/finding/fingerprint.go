package finding

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"

	"github.com/zeebo/blake3"
)

// fingerprintContext separates these hashes from every other use of BLAKE3.
// It is part of the format: another string makes every finding a new one.
const fingerprintContext = "mobileops 2026 finding fingerprint v1"

// Fingerprint says whether two findings are the same one: 128 bits of BLAKE3,
// in its key derivation mode, over source, rule and subject, each preceded by
// its length in bytes as a 64-bit little-endian number. Time, severity, title
// and evidence do not count, so a finding keeps its identity, and what was
// decided about it, while these change.
type Fingerprint [16]byte

// Fingerprint returns the fingerprint of the finding.
func (f *Finding) Fingerprint() Fingerprint {
	return newFingerprinter().of(f.Source, f.Rule, f.Subject)
}

// String returns the fingerprint as 32 lower-case hexadecimal digits.
func (p Fingerprint) String() string { return hex.EncodeToString(p[:]) }

// ID returns the short form that people type: the first ten hexadecimal
// digits. Among 20,000 findings two have the same with a chance of 1 in 5,000;
// then Get says so and longer prefixes tell them apart.
func (p Fingerprint) ID() string { return hex.EncodeToString(p[:5]) }

// MarshalText writes the fingerprint as String does.
func (p Fingerprint) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText reads 32 hexadecimal digits.
func (p *Fingerprint) UnmarshalText(b []byte) error {
	var q Fingerprint
	if len(b) != 2*len(q) {
		return fmt.Errorf("a fingerprint has %d hexadecimal digits, this has %d", 2*len(q), len(b))
	}
	if _, err := hex.Decode(q[:], b); err != nil {
		return fmt.Errorf("fingerprint: %w", err)
	}
	*p = q
	return nil
}

// fingerprinter computes many fingerprints with one hasher and one buffer.
type fingerprinter struct {
	h   *blake3.Hasher
	buf []byte
}

func newFingerprinter() *fingerprinter {
	return &fingerprinter{h: blake3.NewDeriveKey(fingerprintContext)}
}

func (p *fingerprinter) of(parts ...string) (sum Fingerprint) {
	p.buf = p.buf[:0]
	for _, s := range parts {
		p.buf = binary.LittleEndian.AppendUint64(p.buf, uint64(len(s)))
		p.buf = append(p.buf, s...)
	}
	p.h.Reset()
	p.h.Write(p.buf)
	p.h.Digest().Read(sum[:])
	return sum
}
