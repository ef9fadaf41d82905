package trust

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"syscall"

	"aead.dev/minisign"
	"github.com/mobileops/mobileops/internal/failure"
)

// fileSigner signs with a private key in memory.
type fileSigner struct {
	path    string
	public  PublicKey
	private ed25519.PrivateKey
}

func (s *fileSigner) Public() PublicKey { return s.public }

func (s *fileSigner) String() string { return s.path }

func (s *fileSigner) Sign(_ context.Context, message []byte) ([]byte, error) {
	return proved(s, message, ed25519.Sign(s.private, message))
}

// openKeyFile reads a secret key file of minisign or a PEM file.
func openKeyFile(path string, password func() ([]byte, error)) (Signer, error) {
	text, private, err := readSecret(path)
	if err != nil {
		return nil, err
	}
	defer clear(text)
	encrypted := minisign.IsEncrypted(bytes.TrimRight(text, "\r\n"))
	if !private && !encrypted {
		return nil, failure.Hint(failure.Errorf(failure.NotAllowed, "others than its owner may read or write %s, and it is not encrypted", path),
			"chmod 600 "+path+", and make a new key if somebody did")
	}
	s, err := parseKeyFile(path, text, encrypted, password)
	if err != nil {
		return nil, err
	}
	if err := probe(context.Background(), s); err != nil {
		return nil, failure.Errorf(failure.Untrustworthy, "%s is damaged: its halves do not belong together", path)
	}
	return s, nil
}

func parseKeyFile(path string, text []byte, encrypted bool, password func() ([]byte, error)) (*fileSigner, error) {
	if block, _ := pem.Decode(text); block != nil {
		defer clear(block.Bytes)
		return parsePEM(path, block)
	}
	text = bytes.TrimRight(text, "\r\n")
	var key minisign.PrivateKey
	if encrypted {
		word, err := password()
		if err != nil {
			return nil, err
		}
		defer clear(word)
		if key, err = minisign.DecryptKey(string(word), text); err != nil {
			return nil, failure.Errorf(failure.NotAllowed, "%s: the password is wrong, or the file is damaged", path)
		}
	} else if err := key.UnmarshalText(text); err != nil {
		return nil, failure.Hint(failure.Errorf(failure.Untrustworthy, "%s is not a secret key", path),
			"wanted is one of mobileops update key generate, of minisign -G, or of openssl genpkey -algorithm ed25519")
	}
	return newMinisignSigner(path, key)
}

// newMinisignSigner takes the ed25519 key out of one of minisign.
func newMinisignSigner(path string, key minisign.PrivateKey) (*fileSigner, error) {
	public, err := ParsePublicKey([]byte(key.Public().(minisign.PublicKey).String()))
	if err != nil {
		return nil, failure.Errorf(failure.Untrustworthy, "%s: %w", path, err)
	}
	// The library gives the key away only in the form of a file.
	plain, err := key.MarshalText()
	if err != nil {
		return nil, err
	}
	defer clear(plain)
	_, line, _ := bytes.Cut(plain, []byte("\n"))
	raw, err := base64.StdEncoding.AppendDecode(nil, line)
	if err != nil || len(raw) < secretAt+ed25519.PrivateKeySize {
		return nil, fmt.Errorf("%s: a secret key of minisign has another form than its own", path)
	}
	return &fileSigner{path, public, ed25519.PrivateKey(raw[secretAt : secretAt+ed25519.PrivateKeySize])}, nil
}

// secretAt is where the ed25519 key begins in a secret key of minisign: after
// three algorithms of 2 bytes, salt, two limits and the number. A checksum of 32
// bytes comes after it.
const (
	secretAt   = 3*2 + 32 + 2*8 + 8
	secretSize = secretAt + ed25519.PrivateKeySize + 32
)

func parsePEM(path string, block *pem.Block) (*fileSigner, error) {
	switch block.Type {
	case "PRIVATE KEY":
	case "ENCRYPTED PRIVATE KEY":
		return nil, failure.Hint(failure.Errorf(failure.NotReady, "%s is encrypted, which is not read in PEM", path),
			"use a key of mobileops update key generate, which can be encrypted, or exec:PROGRAM with openssl pkeyutl")
	default:
		return nil, failure.Errorf(failure.Untrustworthy, "%s holds a %.40q, not a private key", path, block.Type)
	}
	any, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, failure.Errorf(failure.Untrustworthy, "%s: %w", path, err)
	}
	private, ok := any.(ed25519.PrivateKey)
	if !ok {
		return nil, failure.Hint(failure.Errorf(failure.Untrustworthy, "%s is a key of another kind than ed25519", path), "make one: openssl genpkey -algorithm ed25519")
	}
	public, err := NewPublicKey(private.Public().(ed25519.PublicKey))
	if err != nil {
		return nil, failure.Errorf(failure.Untrustworthy, "%s: %w", path, err)
	}
	return &fileSigner{path, public, private}, nil
}

// readSecret reads a file that holds a secret, and tells whether it is kept
// from everybody but its owner.
func readSecret(path string) (text []byte, private bool, err error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
	if err != nil {
		return nil, false, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, false, err
	}
	text, err = readOpen(f, maxKeyFile)
	if errors.Is(err, errTooLarge) || errors.Is(err, errNotRegular) {
		err = failure.Errorf(failure.Untrustworthy, "%s is not a secret key: %w", path, err)
	}
	return text, st.Mode().Perm()&0o077 == 0, err
}

// SecretKeyFile makes a new key and returns the content of its secret key file,
// encrypted when password is not empty, and its public half. The minisign tool
// reads both. Encrypting takes 1 GiB of memory for some seconds (scrypt, with
// what minisign asks of it).
func SecretKeyFile(password []byte) (secret []byte, public PublicKey, err error) {
	pub, key, err := minisign.GenerateKey(nil)
	if err != nil {
		return nil, PublicKey{}, err
	}
	if public, err = ParsePublicKey([]byte(pub.String())); err != nil {
		return nil, PublicKey{}, err
	}
	if len(password) > 0 {
		secret, err = minisign.EncryptKey(string(password), key)
	} else {
		secret, err = key.MarshalText()
	}
	return append(secret, '\n'), public, err
}
