package history

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"aead.dev/minisign"
	"github.com/mobileops/mobileops/internal/durable"
	"github.com/mobileops/mobileops/internal/failure"
)

// maxKeyFile bounds what is read as a key or a signature, in bytes.
const maxKeyFile = 4 << 10

// keys are those that this host has.
type keys struct {
	private    *minisign.PrivateKey // nil: not here
	public     *minisign.PublicKey  // nil: none yet
	configured bool                 // public is the one that the configuration names
}

// publicText returns the public key in minisign's base64, "" for none.
func (k *keys) publicText() string {
	if k.public == nil {
		return ""
	}
	return k.public.String()
}

// elsewhere tells whether the public key's private half is not here.
func (k *keys) elsewhere() bool {
	return k.private == nil || publicOf(k.private).String() != k.publicText()
}

func publicOf(k *minisign.PrivateKey) minisign.PublicKey { return k.Public().(minisign.PublicKey) }

// keyName is the id by which minisign's messages call a key: 16 hexadecimal
// digits.
func keyName(text string) string {
	k, err := ParsePublicKey(text)
	if err != nil {
		return "(none)"
	}
	return fmt.Sprintf("%016X", k.ID())
}

// KeyID returns the id by which the minisign tool calls a public key, which is
// given in minisign's base64: 16 hexadecimal digits.
func KeyID(text string) string { return keyName(text) }

// ParsePublicKey reads minisign's base64 of a public key.
func ParsePublicKey(text string) (minisign.PublicKey, error) {
	var k minisign.PublicKey
	// UnmarshalText would also take what has line ends in it.
	if raw, err := base64.StdEncoding.Strict().DecodeString(text); err != nil || base64.StdEncoding.EncodeToString(raw) != text {
		return k, errors.New("not a public key of minisign")
	}
	err := k.UnmarshalText([]byte(text))
	return k, err
}

// ReadPublicKey reads a minisign public key file.
func ReadPublicKey(path string) (minisign.PublicKey, error) {
	var k minisign.PublicKey
	b, err := readSmall(path)
	if err != nil {
		return k, err
	}
	if err := k.UnmarshalText(bytes.TrimRight(b, "\r\n")); err != nil {
		return k, failure.Errorf(failure.Untrustworthy, "%s is not a public key of minisign: %w", path, err)
	}
	return k, nil
}

// EncryptedKeyError says that a private key needs a password.
type EncryptedKeyError struct{ Path string }

func (e *EncryptedKeyError) Error() string { return e.Path + " is encrypted: its password is needed" }

// ReadPrivateKey reads a minisign secret key file. For an encrypted one
// password is asked, which may be nil; then the error is *EncryptedKeyError.
func ReadPrivateKey(path string, password func() (string, error)) (*minisign.PrivateKey, error) {
	b, err := readSmall(path)
	if err != nil {
		return nil, err
	}
	b = bytes.TrimRight(b, "\r\n")
	k := new(minisign.PrivateKey)
	if minisign.IsEncrypted(b) {
		if password == nil {
			return nil, &EncryptedKeyError{path}
		}
		word, err := password()
		if err != nil {
			return nil, err
		}
		if *k, err = minisign.DecryptKey(word, b); err != nil {
			return nil, failure.Errorf(failure.NotAllowed, "%s: the password is wrong, or the file is damaged", path)
		}
	} else if err := k.UnmarshalText(b); err != nil {
		return nil, failure.Errorf(failure.Untrustworthy, "%s is not a secret key of minisign: %w", path, err)
	}
	if err := proveKey(k); err != nil {
		return nil, failure.Errorf(failure.Untrustworthy, "%s: %w", path, err)
	}
	return k, nil
}

// proveKey checks that both halves in a secret key belong together: signing
// with a wrong public half would give the secret one away.
func proveKey(k *minisign.PrivateKey) error {
	probe := []byte("mobileops")
	if !minisign.Verify(publicOf(k), probe, minisign.Sign(*k, probe)) {
		return errors.New("its halves do not belong together; it is damaged")
	}
	return nil
}

// readKeys reads the keys that are there.
func (l *Log) readKeys() (k keys, err error) {
	private, public := l.KeyFiles()
	if path := l.opts.PublicKey; path != "" {
		pub, err := ReadPublicKey(path)
		if errors.Is(err, fs.ErrNotExist) {
			return k, failure.Hint(failure.Errorf(failure.NotReady, "there is no %s, which integrity.public_key names", path), "copy the public key there, or unset the key in the configuration")
		}
		if err != nil {
			return k, err
		}
		k.public, k.configured = &pub, true
	} else if pub, err := ReadPublicKey(public); err == nil {
		k.public = &pub
	} else if !errors.Is(err, fs.ErrNotExist) {
		return k, err
	}
	st, err := os.Stat(private)
	if errors.Is(err, fs.ErrNotExist) {
		return k, nil
	}
	if err != nil {
		return k, denied(err)
	}
	if st.Mode().Perm()&0o077 != 0 {
		return k, failure.Hint(failure.Errorf(failure.Untrustworthy, "others than its owner can read the signing key %s (mode %04o)", private, st.Mode().Perm()),
			"chmod 600 "+private+", and, when somebody may have read it: mobileops integrity key rotate")
	}
	if uid, strange := foreign(st, l.store.Dir()); strange {
		return k, failure.Hint(failure.Errorf(failure.Untrustworthy, "the signing key %s belongs to another user (uid %d), who can read and replace it", private, uid),
			fmt.Sprintf("chown %d %s, and then: mobileops integrity key rotate", os.Geteuid(), private))
	}
	if k.private, err = ReadPrivateKey(private, nil); err != nil {
		return k, err
	}
	if k.public == nil { // killed between the two files
		pub := publicOf(k.private)
		k.public = &pub
		return k, writePublicKey(public, pub)
	}
	return k, nil
}

// foreign tells whether a file belongs to a user who is neither root, nor who
// runs this, nor whose the state directory is.
func foreign(st fs.FileInfo, stateDir string) (uid uint32, yes bool) {
	file, ok := st.Sys().(*syscall.Stat_t)
	if !ok || file.Uid == 0 || int(file.Uid) == os.Geteuid() {
		return 0, false
	}
	if dir, err := os.Stat(stateDir); err == nil {
		if of, ok := dir.Sys().(*syscall.Stat_t); ok && of.Uid == file.Uid {
			return 0, false
		}
	}
	return file.Uid, true
}

// generate makes the first key of a state directory.
func (l *Log) generate() (keys, error) {
	private, _ := l.KeyFiles()
	if err := durable.MkdirAll(filepath.Dir(private), 0o700); err != nil {
		return keys{}, denied(err)
	}
	pub, key, err := minisign.GenerateKey(rand.Reader)
	if err != nil {
		return keys{}, err
	}
	return keys{private: &key, public: &pub}, l.writeKeys(&key, pub)
}

// writeKeys writes both halves, the private one first: the public one alone
// says that the private one is gone.
func (l *Log) writeKeys(key *minisign.PrivateKey, pub minisign.PublicKey) error {
	private, public := l.KeyFiles()
	if err := writePrivateKey(private, key); err != nil {
		return err
	}
	return writePublicKey(public, pub)
}

// writePrivateKey writes a secret key without encryption, as minisign -G -W
// does.
func writePrivateKey(path string, key *minisign.PrivateKey) error {
	text, err := key.MarshalText()
	if err != nil {
		return err
	}
	return denied(durable.WriteFile(path, append(text, '\n'), 0o600))
}

func writePublicKey(path string, pub minisign.PublicKey) error {
	return denied(durable.WriteFile(path, publicKeyFile(pub), 0o644))
}

// publicKeyFile is the content of a public key file.
func publicKeyFile(pub minisign.PublicKey) []byte {
	return fmt.Appendf(nil, "untrusted comment: minisign public key %016X\n%s\n", pub.ID(), pub.String())
}

// publicBytes returns the 32 bytes of the ed25519 key.
func publicBytes(pub minisign.PublicKey) []byte {
	raw, err := base64.StdEncoding.DecodeString(pub.String())
	if err != nil || len(raw) != 2+8+32 || binary.LittleEndian.Uint16(raw) != minisign.EdDSA {
		panic("history: a public key of minisign has another form than its own") // String makes it
	}
	return raw[10:]
}

// denied says what helps against missing rights.
func denied(err error) error {
	if errors.Is(err, fs.ErrPermission) {
		return failure.Hint(failure.Wrap(failure.NotAllowed, err), "run as root, or choose another place with --state-dir")
	}
	return err
}

// readSmall reads a regular file of at most maxKeyFile bytes. It does not wait
// for the other end of a FIFO: a check that hangs there would find nothing.
func readSmall(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, denied(err)
	}
	defer f.Close()
	if st, err := f.Stat(); err != nil {
		return nil, err
	} else if !st.Mode().IsRegular() {
		return nil, failure.Errorf(failure.Untrustworthy, "%s is not a regular file", path)
	}
	b, err := io.ReadAll(io.LimitReader(f, maxKeyFile+1))
	if err == nil && len(b) > maxKeyFile {
		err = failure.Errorf(failure.Untrustworthy, "%s is larger than %d bytes: it is no key or signature", path, maxKeyFile)
	}
	return b, err
}

// PublicKeyFile returns the content of a file that the minisign tool reads,
// for a public key in its base64; nil when it is none.
func PublicKeyFile(text string) []byte {
	k, err := ParsePublicKey(text)
	if err != nil {
		return nil
	}
	return publicKeyFile(k)
}
