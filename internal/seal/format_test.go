package seal

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"testing"
)

// TestTheDocumentedFormat opens a file by what docs/formats/seal.md says and
// by nothing of this package: the numbers stand here a second time.
func TestTheDocumentedFormat(t *testing.T) {
	secret := sha256.Sum256([]byte{1}) // of key(t, 1)
	for _, size := range []int{0, 10, 1 << 20, 3<<20 + 5} {
		data := random(size, 1)
		to, _ := ageKeys(t)
		b := sealed(t, data, "a context", append(to, key(t, 1))...)
		got, err := byTheBook(b, secret[:])
		if err != nil || !bytes.Equal(got, data) {
			t.Errorf("%d bytes: %v", size, err)
		}
	}
}

func byTheBook(b, keyFile []byte) ([]byte, error) {
	derive := func(secret, salt []byte, info string, n int) []byte {
		k, err := hkdf.Key(sha256.New, secret, salt, info, n)
		if err != nil {
			panic(err)
		}
		return k
	}
	gcm := func(key []byte) cipher.AEAD {
		block, err := aes.NewCipher(key)
		if err != nil {
			panic(err)
		}
		g, err := cipher.NewGCM(block)
		if err != nil {
			panic(err)
		}
		return g
	}
	be := binary.BigEndian
	preamble, nonce := b[:3584], b[32:64]
	if string(b[:16]) != "mobileops.seal\r\n" || be.Uint16(b[16:]) != 1 || be.Uint32(b[20:]) != 1<<20 ||
		string(b[64:64+be.Uint16(b[28:])]) != "a context" || string(b[3584:3592]) != "whole\x00\x00\x00" {
		return nil, errors.New("preamble")
	}
	s := int(be.Uint32(b[24:]))
	slot := b[4096 : 4096+s]
	if !bytes.Equal(slot, b[4096+s:4096+2*s]) || string(slot[:8]) != "slot\x00\x00\x00\x01" || be.Uint64(slot[8:]) != 1 {
		return nil, errors.New("slot")
	}
	var dataKey []byte
	rest := slot[24 : 24+be.Uint32(slot[20:])]
	id := derive(keyFile, nil, "mobileops.seal/v1 key id", 8)
	for range be.Uint16(slot[16:]) {
		kind, n := be.Uint16(rest), be.Uint16(rest[2:])
		body := rest[4 : 4+n]
		rest = rest[4+n:]
		if kind != 2 || !bytes.Equal(body[:8], id) {
			continue
		}
		var err error
		wrap := derive(keyFile, nonce, "mobileops.seal/v1 wrap", 32)
		if dataKey, err = gcm(wrap).Open(nil, body[8:20], body[20:], id); err != nil {
			return nil, err
		}
	}
	if len(rest) != 0 || len(dataKey) != 32 {
		return nil, errors.New("stanzas")
	}
	mac := hmac.New(sha256.New, derive(dataKey, nonce, "mobileops.seal/v1 header", 32))
	mac.Write(preamble)
	mac.Write(slot[:s-32])
	if !hmac.Equal(mac.Sum(nil), slot[s-32:]) {
		return nil, errors.New("MAC")
	}
	sum := sha256.Sum256(preamble)
	g := gcm(derive(dataKey, nonce, "mobileops.seal/v1 payload"+string(sum[:]), 32))
	var plain []byte
	for i, at := 0, 4096+2*s; ; i, at = i+1, at+1_048_592 {
		last := at+1_048_592 >= len(b)
		n := make([]byte, 12)
		be.PutUint32(n[7:], uint32(i)) // the low bytes of the eleven
		if last {
			n[11] = 1
		}
		var err error
		if plain, err = g.Open(plain, n, b[at:min(at+1_048_592, len(b))], nil); err != nil || last {
			return plain, err
		}
	}
}
