package seal

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"github.com/mobileops/mobileops/internal/durable"
	"github.com/mobileops/mobileops/internal/failure"
)

// maxIdentityFile bounds a file of identities; those of age-keygen have 200 bytes.
const maxIdentityFile = 1 << 20

// KeyFile reads a key file: 32 random bytes, nothing else, as GenerateKeyFile
// makes it. It must be a regular file that nobody but its owner can read or
// write, and its owner must be root or the user that runs the program.
// Otherwise, and for what cannot be a random key, the error's kind is
// failure.NotAllowed or failure.NotReady and says what to do.
func KeyFile(path string) (*Key, error) {
	b, err := readSecret(path)
	if err != nil {
		return nil, err
	}
	defer clear(b)
	return keyFromFile(path, b)
}

// keyFromFile makes the key of what was read from the file path.
func keyFromFile(path string, b []byte) (*Key, error) {
	if len(b) != keySize {
		return nil, failure.Hint(failure.Errorf(failure.NotReady, "key file %s has %d bytes", path, len(b)),
			"a key file is 32 random bytes")
	}
	if !looksRandom(b) {
		return nil, failure.Hint(failure.Errorf(failure.NotReady, "key file %s is not random: a passphrase is no key", path),
			"a key file is 32 random bytes")
	}
	return newKey(b)
}

// looksRandom tells a key from a passphrase or a file that a crash left full
// of zeros. It refuses one random key in 10^13.
func looksRandom(b []byte) bool {
	printable, distinct := 0, map[byte]bool{}
	for _, c := range b {
		if c >= ' ' && c < 0x7f || c == '\n' || c == '\t' {
			printable++
		}
		distinct[c] = true
	}
	return printable < len(b) && len(distinct) > 8
}

// IdentityFile reads what opens objects from a file: a key file, or age
// identities as age-keygen writes them. What KeyFile wants of owner and
// permissions holds for both.
func IdentityFile(path string) ([]Identity, error) {
	b, err := readSecret(path)
	if err != nil {
		return nil, err
	}
	defer clear(b)
	if len(b) == keySize {
		k, err := keyFromFile(path, b)
		if err != nil {
			return nil, err
		}
		return []Identity{k}, nil
	}
	ids, err := ParseIdentities(bytes.NewReader(b))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return ids, nil
}

// GenerateKeyFile makes a key file with mode 0600 and returns its key. A file
// that exists is never replaced: what it sealed would be lost. The error is
// then fs.ErrExist.
func GenerateKeyFile(path string) (*Key, error) {
	secret := make([]byte, keySize)
	defer clear(secret)
	for rand.Read(secret); !looksRandom(secret); {
		rand.Read(secret)
	}
	f, err := durable.Create(path, 0o600)
	if err != nil {
		return nil, err
	}
	defer f.Abort()
	if _, err := f.Write(secret); err != nil {
		return nil, err
	}
	if err := f.CommitNew(); err != nil {
		return nil, fmt.Errorf("make key file: %w", err)
	}
	return newKey(secret)
}

// readSecret reads a file that is kept from everybody but its owner.
func readSecret(path string) ([]byte, error) {
	// Not blocking: a FIFO in its place must not hang a cron job.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil, failure.Wrap(failure.NotReady, err)
	}
	if errors.Is(err, os.ErrPermission) {
		return nil, failure.Wrap(failure.NotAllowed, err)
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, failure.Errorf(failure.NotReady, "%s: not a regular file", path)
	}
	if st.Mode().Perm()&0o077 != 0 {
		return nil, failure.Hint(failure.Errorf(failure.NotAllowed, "%s: others than its owner may read or write it (mode %04o)", path, st.Mode().Perm()),
			"chmod 600 "+path+", and make a new key if somebody did")
	}
	if sys, ok := st.Sys().(*syscall.Stat_t); ok && sys.Uid != 0 && int64(sys.Uid) != int64(os.Geteuid()) {
		return nil, failure.Hint(failure.Errorf(failure.NotAllowed, "%s: belongs to user %d, who is neither root nor who runs this", path, sys.Uid),
			fmt.Sprintf("chown %d %s, and make a new key if that user is not trusted", os.Geteuid(), path))
	}
	b, err := io.ReadAll(io.LimitReader(f, maxIdentityFile+1))
	if err != nil {
		return nil, err
	}
	if len(b) > maxIdentityFile {
		clear(b)
		return nil, failure.Errorf(failure.NotReady, "%s: too long for a file of keys", path)
	}
	return b, nil
}
