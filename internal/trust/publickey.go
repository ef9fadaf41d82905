package trust

import (
	"bytes"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"aead.dev/minisign"
	"github.com/mobileops/mobileops/internal/failure"
	"golang.org/x/crypto/blake2b"
)

// PublicKey is an ed25519 public key with the number by which minisign calls it.
type PublicKey struct {
	Number  uint64 // of minisign; see ID
	Ed25519 ed25519.PublicKey
}

// NewPublicKey returns a key that minisign has not numbered, such as one of a
// PEM file or of a token. Its number is the first 8 bytes of its BLAKE2b-256
// digest, little endian, so it is the same wherever it is computed.
func NewPublicKey(key ed25519.PublicKey) (PublicKey, error) {
	sum := blake2b.Sum256(key)
	p := PublicKey{binary.LittleEndian.Uint64(sum[:8]), key}
	return p, p.check()
}

// ID returns the name by which the minisign tool calls the key: 16 hexadecimal
// digits, upper case.
func (p PublicKey) ID() string { return formatID(p.Number) }

func formatID(number uint64) string { return fmt.Sprintf("%016X", number) }

// Equal reports whether both are the same key under the same number.
func (p PublicKey) Equal(other PublicKey) bool {
	return p.Number == other.Number && p.Ed25519.Equal(other.Ed25519)
}

// String returns the key in minisign's base64, as minisign -P takes it.
func (p PublicKey) String() string {
	b := binary.LittleEndian.AppendUint16(make([]byte, 0, 42), minisign.EdDSA)
	b = binary.LittleEndian.AppendUint64(b, p.Number)
	return base64.StdEncoding.EncodeToString(append(b, p.Ed25519...))
}

// File returns the content of a public key file that the minisign tool reads.
func (p PublicKey) File() []byte {
	return fmt.Appendf(nil, "untrusted comment: minisign public key %s\n%s\n", p.ID(), p)
}

// verify reports whether signature is one of message by p.
func (p PublicKey) verify(message, signature []byte) bool {
	return len(p.Ed25519) == ed25519.PublicKeySize && ed25519.Verify(p.Ed25519, message, signature)
}

// check refuses a key that vouches for everything: with one of a small order
// anybody can make signatures.
func (p PublicKey) check() error {
	if len(p.Ed25519) != ed25519.PublicKeySize {
		return fmt.Errorf("a key of %d bytes is not one of ed25519", len(p.Ed25519))
	}
	b := bytes.Clone(p.Ed25519)
	b[31] &= 0x7f // the sign of x
	if slices.Contains(smallOrder(), hex.EncodeToString(b)) {
		return errors.New("the key is one of those for which anybody can make signatures")
	}
	return nil
}

// smallOrder are the y coordinates of the points of order 1, 2, 4 and 8 on
// edwards25519, little endian, with the encodings above the prime 2^255-19.
func smallOrder() []string {
	return []string{
		"0000000000000000000000000000000000000000000000000000000000000000",
		"0100000000000000000000000000000000000000000000000000000000000000",
		"26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
		"c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
		"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
		"edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
		"eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	}
}

// ParsePublicKey reads a public key: a file of minisign, its base64 alone, or
// an ed25519 key in PEM ("BEGIN PUBLIC KEY").
func ParsePublicKey(text []byte) (PublicKey, error) {
	if block, rest := pem.Decode(text); block != nil {
		if len(bytes.TrimSpace(rest)) > 0 {
			return PublicKey{}, errors.New("there is more than one key in it")
		}
		return publicFromPKIX(block.Type, block.Bytes)
	}
	lines := strings.Split(strings.TrimRight(string(text), "\r\n"), "\n")
	if len(lines) == 2 && strings.HasPrefix(lines[0], "untrusted comment:") {
		lines = lines[1:]
	}
	if len(lines) != 1 {
		return PublicKey{}, errors.New("it is neither a public key of minisign nor one in PEM")
	}
	raw, ok := decodeLine(strings.TrimRight(lines[0], "\r"))
	if ok && len(raw) == secretSize {
		return PublicKey{}, errors.New("it is a secret key, which stays where it is; the public one lies beside it, with the ending .pub")
	}
	if !ok || len(raw) != 2+8+ed25519.PublicKeySize {
		return PublicKey{}, errors.New("it is neither a public key of minisign nor one in PEM")
	}
	if binary.LittleEndian.Uint16(raw) != minisign.EdDSA {
		return PublicKey{}, fmt.Errorf("it is a key of the unknown algorithm %q", raw[:2])
	}
	p := PublicKey{binary.LittleEndian.Uint64(raw[2:]), ed25519.PublicKey(raw[10:])}
	return p, p.check()
}

func publicFromPKIX(kind string, der []byte) (PublicKey, error) {
	if kind != "PUBLIC KEY" {
		return PublicKey{}, fmt.Errorf("it holds a %.40q, not a public key", kind)
	}
	any, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		return PublicKey{}, err
	}
	key, ok := any.(ed25519.PublicKey)
	if !ok {
		return PublicKey{}, errors.New("it is a key of another kind than ed25519")
	}
	return NewPublicKey(key)
}

// ReadPublicKey reads the public key in a file, in a form that ParsePublicKey
// reads.
func ReadPublicKey(path string) (PublicKey, error) {
	text, err := readRegular(path, maxKeyFile)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return PublicKey{}, failure.Wrap(failure.NotReady, err)
	case errors.Is(err, fs.ErrPermission):
		return PublicKey{}, failure.Wrap(failure.NotAllowed, err)
	case errors.Is(err, errTooLarge), errors.Is(err, errNotRegular):
		return PublicKey{}, failure.Errorf(failure.Untrustworthy, "%s is not a public key: %w", path, err)
	case err != nil:
		return PublicKey{}, err
	}
	key, err := ParsePublicKey(text)
	if err != nil {
		return PublicKey{}, failure.Errorf(failure.Untrustworthy, "%s is not a public key: %w", path, err)
	}
	return key, nil
}
