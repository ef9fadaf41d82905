package trust

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/mobileops/mobileops/internal/failure"
)

// Limits of a directory of trusted keys.
const (
	maxKeys    = 64
	maxEntries = 1024    // of the directory, whatever they are
	maxKeyFile = 4 << 10 // bytes of a key or of its limits
)

const (
	keyEnding   = ".pub"
	scopeEnding = ".yaml"
)

// Key is a public key that is trusted here.
type Key struct {
	PublicKey
	Path  string // of its file
	Scope Scope  // what it may vouch for
}

// Keys are the public keys that are trusted on this host: the files *.pub of a
// directory. A file *.yaml of the same name limits what a key may vouch for.
// Every other file in it is left alone.
type Keys struct {
	dir  string
	list []Key
}

// OpenKeys reads the keys in dir. A directory that does not exist holds none.
// A directory or a key that others than root or who runs this can change is
// refused, as is a file *.pub that is no key, and a key that is there twice:
// *Error with CodeUnsafeKeys.
func OpenKeys(dir string) (*Keys, error) {
	if dir == "" {
		return nil, failure.New(failure.Usage, "no directory of trusted keys is configured")
	}
	k := &Keys{dir: dir}
	if err := checkPath(dir); errors.Is(err, fs.ErrNotExist) {
		return k, nil
	} else if err != nil {
		return nil, access(err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, access(err)
	}
	defer root.Close()
	names, err := keyNames(root, dir)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		key, err := readKey(root, dir, name)
		if err != nil {
			return nil, err
		}
		for _, other := range k.list {
			// The same key under another number might be limited otherwise.
			if other.Number == key.Number || other.Ed25519.Equal(key.Ed25519) {
				return nil, refuse(CodeUnsafeKeys, "remove one of them", "%s and %s are the same key, or have the same id", other.Path, key.Path)
			}
		}
		k.list = append(k.list, key)
	}
	return k, nil
}

// Pinned are keys that are trusted without a directory: those that are part of
// the program, or that were noted when something was installed.
func Pinned(keys ...PublicKey) *Keys {
	k := &Keys{}
	for _, key := range keys {
		k.list = append(k.list, Key{PublicKey: key})
	}
	return k
}

// Dir returns the directory of the keys, "" of pinned ones.
func (k *Keys) Dir() string { return k.dir }

// List returns the keys in the order of the names of their files.
func (k *Keys) List() []Key { return slices.Clone(k.list) }

// ids lists the trusted keys for a message.
func (k *Keys) ids() string {
	var ids []string
	for _, key := range k.list {
		ids = append(ids, key.ID())
	}
	return strings.Join(ids, ", ")
}

// keyNames returns the names of the key files, sorted.
func keyNames(root *os.Root, dir string) ([]string, error) {
	d, err := root.Open(".")
	if err != nil {
		return nil, access(err)
	}
	defer d.Close()
	st, err := d.Stat()
	if err != nil {
		return nil, err
	}
	if err := checkOwner(dir, st, false); err != nil {
		return nil, err
	}
	entries, err := d.ReadDir(maxEntries + 1)
	if len(entries) > maxEntries {
		return nil, refuse(CodeUnsafeKeys, "move what is not a key elsewhere", "%s has more than %d files", dir, maxEntries)
	}
	if err != nil && len(entries) > 0 {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if name := e.Name(); strings.HasSuffix(name, keyEnding) && !strings.HasPrefix(name, ".") {
			names = append(names, name)
		}
	}
	if len(names) > maxKeys {
		return nil, refuse(CodeUnsafeKeys, "remove those that are not needed any more", "%s has more than %d keys", dir, maxKeys)
	}
	slices.Sort(names)
	return names, nil
}

func readKey(root *os.Root, dir, name string) (Key, error) {
	path := filepath.Join(dir, name)
	text, err := readTrusted(root, path, name)
	if err != nil {
		return Key{}, err
	}
	pub, err := ParsePublicKey(text)
	if err != nil {
		return Key{}, refuse(CodeUnsafeKeys, "remove it, or replace it by a public key of minisign", "%s is not a public key: %w", path, err)
	}
	limits := strings.TrimSuffix(name, keyEnding) + scopeEnding
	text, err = readTrusted(root, filepath.Join(dir, limits), limits)
	if errors.Is(err, fs.ErrNotExist) {
		return Key{PublicKey: pub, Path: path}, nil
	}
	if err != nil {
		return Key{}, err
	}
	scope, err := parseScope(text)
	if err != nil {
		return Key{}, refuse(CodeUnsafeKeys, "correct it, or remove and add the key again", "%s: %w", filepath.Join(dir, limits), err)
	}
	return Key{PublicKey: pub, Path: path, Scope: scope}, nil
}

// readTrusted reads a file of the directory that nobody else can change. It
// does not follow a symbolic link: where that points others may write.
func readTrusted(root *os.Root, path, name string) ([]byte, error) {
	st, err := root.Lstat(name)
	if err != nil {
		return nil, access(err)
	}
	if !st.Mode().IsRegular() {
		return nil, refuse(CodeUnsafeKeys, "put the file itself there", "%s is not a regular file", path)
	}
	f, err := root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return nil, access(err)
	}
	defer f.Close()
	if st, err = f.Stat(); err != nil {
		return nil, err
	}
	if err := checkOwner(path, st, false); err != nil {
		return nil, err
	}
	b, err := readOpen(f, maxKeyFile)
	if errors.Is(err, errTooLarge) || errors.Is(err, errNotRegular) {
		return nil, refuse(CodeUnsafeKeys, "remove it, or replace it by a public key of minisign", "%s is not a public key: %w", path, err)
	}
	return b, err
}

// checkPath makes sure that nobody else can put another directory in place of
// dir: none of the directories above it, and of those that symbolic links on
// the way lead through, may be writable by others.
func checkPath(dir string) error {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	resolved, err := filepath.EvalSymlinks(abs)
	if err != nil {
		return err
	}
	for _, start := range slices.Compact([]string{abs, resolved}) {
		for p := start; ; p = filepath.Dir(p) {
			st, err := os.Lstat(p)
			if err != nil {
				return err
			}
			if err := checkOwner(p, st, p != resolved); err != nil {
				return err
			}
			if p == filepath.Dir(p) {
				break
			}
		}
	}
	st, err := os.Stat(dir)
	if err == nil && !st.IsDir() {
		err = refuse(CodeUnsafeKeys, "make it a directory, or name another with update.keys", "%s is not a directory", dir)
	}
	return err
}

// checkOwner refuses what others than root or who runs this can change. In a
// directory above with the sticky bit, such as /tmp, others cannot rename what
// is not theirs.
func checkOwner(path string, st fs.FileInfo, above bool) error {
	sys, ok := st.Sys().(*syscall.Stat_t)
	if !ok {
		return fmt.Errorf("%s: its owner is not known", path)
	}
	if sys.Uid != 0 && int64(sys.Uid) != int64(os.Geteuid()) {
		return refuse(CodeUnsafeKeys, fmt.Sprintf("look at the keys, then: chown %d %s", os.Geteuid(), path),
			"%s belongs to user %d, who could replace the trusted keys", path, sys.Uid)
	}
	mode := st.Mode()
	switch {
	case mode&fs.ModeSymlink != 0: // its mode says nothing, its directory is looked at
	case above && mode&fs.ModeSticky != 0:
	case mode.Perm()&0o002 != 0, mode.Perm()&0o020 != 0 && sys.Gid != 0:
		return refuse(CodeUnsafeKeys, "look at the keys, then: chmod go-w "+path,
			"others can replace the trusted keys: they may write %s (mode %04o)", path, mode.Perm())
	}
	return nil
}

// access says what helps against missing rights.
func access(err error) error {
	if errors.Is(err, fs.ErrPermission) {
		return failure.Hint(failure.Wrap(failure.NotAllowed, err), "run as root, or name another directory with update.keys")
	}
	return err
}
