package packages

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"testing"
)

func sha256Hex(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:])
}

func asCorrupt(err error, c **CorruptError) bool {
	return errors.As(err, c) && errors.Is(err, ErrDamaged)
}

// TestSipHash compares with the vectors of the reference implementation: the
// key 00…0f, and inputs 00, 00 01, and so on.
func TestSipHash(t *testing.T) {
	k0, k1 := uint64(0x0706050403020100), uint64(0x0f0e0d0c0b0a0908)
	var in []byte
	for i := range 16 {
		in = append(in, byte(i))
	}
	for n, want := range map[int]uint64{0: 0x726fdb47dd0e0e31, 1: 0x74f839c593dc67fd, 7: 0xab0200f58b01d137, 8: 0x93f5f5799a932462, 15: 0xa129ca6149be45e5} {
		if got := sipHash(k0, k1, in[:n]); got != want {
			t.Errorf("%d bytes: %x, want %x", n, got, want)
		}
	}
}

func TestDigest(t *testing.T) {
	for algorithm, size := range map[string]int{"md5": 16, "sha1": 20, "sha224": 28, "sha256": 32, "sha384": 48, "sha512": 64} {
		d := Digest{Algorithm: algorithm}
		h := d.New()
		if h == nil || h.Size() != size || !d.IsZero() || d.Equal(nil) {
			t.Errorf("%s: %v", algorithm, h)
			continue
		}
		d.Sum = h.Sum(nil)
		if !d.Equal(h.Sum(nil)) || d.Equal(d.Sum[1:]) || d.IsZero() {
			t.Errorf("%s: not equal to itself", algorithm)
		}
	}
	if s := (Digest{"md5", []byte{1, 0xff}}).String(); s != "md5:01ff" {
		t.Error(s)
	}
	if s := (Package{Dpkg, "openssl", "3.0.1-1", "amd64"}).String(); s != "openssl 3.0.1-1 (dpkg)" {
		t.Error(s)
	}
}
