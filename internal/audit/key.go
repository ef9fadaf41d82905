package audit

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/mobileops/mobileops/internal/durable"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/state"
	"github.com/zeebo/blake3"
)

// The key files are PEM as openssl reads and writes it: PKCS #8 for the private
// half, SubjectPublicKeyInfo for the public one. For ed25519 both are fixed
// bytes followed by the key (RFC 8410, sections 4 and 7).
const (
	privatePrefix = "302e020100300506032b657004220420"
	publicPrefix  = "302a300506032b6570032100"

	maxKeyFile = 4 << 10 // bytes
)

// KeyFiles returns the paths of the signing key, which the state directory
// keeps secret, and of its public half, which should be kept elsewhere too.
func (l *Log) KeyFiles() (private, public string) {
	dir := filepath.Join(l.store.Dir(), "keys")
	return filepath.Join(dir, "audit.key"), filepath.Join(dir, "audit.pub")
}

// privateKey reads the signing key. It makes one when there is none, unless
// one was used before: then a new key would hide that the old one is gone. The
// exclusive lease must be held, so that two processes do not make two keys.
func (l *Log) privateKey(mustExist bool) (ed25519.PrivateKey, error) {
	private, public := l.KeyFiles()
	b, err := readSmall(private, maxKeyFile)
	if errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Lstat(public); mustExist || err == nil {
			return nil, failure.Hint(failure.Errorf(failure.Untrustworthy, "the signing key %s is gone", private), "put it back from a backup")
		}
		return generateKey(private, public)
	}
	if err != nil {
		return nil, err
	}
	seed, err := parsePEM(b, "PRIVATE KEY", privatePrefix, ed25519.SeedSize)
	if err != nil {
		return nil, failure.Errorf(failure.Untrustworthy, "%s: %w", private, err)
	}
	key := ed25519.NewKeyFromSeed(seed)
	if _, err := os.Lstat(public); errors.Is(err, fs.ErrNotExist) { // killed between the two
		err = writePublicKey(public, key)
		return key, err
	}
	return key, nil
}

// SigningKey returns the key with which this host signs, for what other engines
// seal with it; their messages must begin otherwise than a signed head's. It
// makes one when none was ever used.
func (l *Log) SigningKey(ctx context.Context) (key ed25519.PrivateKey, err error) {
	err = l.store.Update(ctx, func(tx *state.Tx) error {
		last, err := lastSigned(tx)
		if err == nil {
			key, err = l.privateKey(last != nil)
		}
		return err
	})
	return key, err
}

func writePublicKey(path string, key ed25519.PrivateKey) error {
	return durable.WriteFile(path, formatPEM("PUBLIC KEY", publicPrefix, key.Public().(ed25519.PublicKey)), 0o644)
}

func generateKey(private, public string) (ed25519.PrivateKey, error) {
	if err := durable.MkdirAll(filepath.Dir(private), 0o700); err != nil {
		return nil, err
	}
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	// The private half first: a public half alone says that the key is gone.
	if err := durable.WriteFile(private, formatPEM("PRIVATE KEY", privatePrefix, key.Seed()), 0o600); err != nil {
		return nil, err
	}
	return key, writePublicKey(public, key)
}

// ReadPublicKey reads an ed25519 public key from a PEM file.
func ReadPublicKey(path string) (ed25519.PublicKey, error) {
	b, err := readSmall(path, maxKeyFile)
	if err != nil {
		return nil, err
	}
	key, err := parsePEM(b, "PUBLIC KEY", publicPrefix, ed25519.PublicKeySize)
	if err != nil {
		return nil, failure.Errorf(failure.Untrustworthy, "%s: %w", path, err)
	}
	return key, nil
}

func formatPEM(kind, prefix string, key []byte) []byte {
	der, err := hex.DecodeString(prefix)
	if err != nil {
		panic(err) // a constant
	}
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: append(der, key...)})
}

func parsePEM(b []byte, kind, prefix string, size int) ([]byte, error) {
	block, _ := pem.Decode(b)
	if block == nil || block.Type != kind {
		return nil, fmt.Errorf("not a PEM file with a %s", kind)
	}
	der, err := hex.DecodeString(prefix)
	if err != nil {
		panic(err) // a constant
	}
	if len(block.Bytes) != len(der)+size || !bytes.HasPrefix(block.Bytes, der) {
		return nil, errors.New("not an ed25519 key")
	}
	return block.Bytes[len(der):], nil
}

// fingerprint names a public key in messages: the first 16 hexadecimal digits
// of its BLAKE3 hash.
func fingerprint(key ed25519.PublicKey) string {
	sum := blake3.Sum256(key)
	return hex.EncodeToString(sum[:8])
}

// readSmall reads a regular file of at most limit bytes.
func readSmall(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrPermission) {
		return nil, failure.Hint(failure.Wrap(failure.NotAllowed, err), "run as root, or choose another place with --state-dir")
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = failure.Errorf(failure.Untrustworthy, "%s: larger than %d bytes", path, limit)
	}
	return b, err
}
