package trust

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/mobileops/mobileops/internal/durable"
	"github.com/mobileops/mobileops/internal/failure"
)

// Errors about adding and removing trusted keys.
var (
	ErrTrusted = failure.New(failure.Busy, "the key is trusted already")
	ErrNoKey   = failure.New(failure.No, "no such key is trusted")
)

// Add has key trusted from now on, within scope, as the file ID.pub of the
// directory, which is made when there is none. A key whose id is there already
// is ErrTrusted.
func (k *Keys) Add(key PublicKey, scope Scope) (Key, error) {
	if err := key.check(); err != nil {
		return Key{}, failure.Wrap(failure.Untrustworthy, err)
	}
	if err := scope.Check(); err != nil {
		return Key{}, failure.Wrap(failure.Usage, err)
	}
	for _, other := range k.list {
		if other.Number == key.Number && !other.Ed25519.Equal(key.Ed25519) {
			return Key{}, refuse(CodeUnsafeKeys, "see whose it is: mobileops update key list", "another key with the id %s is trusted already: %s", key.ID(), other.Path)
		}
		if other.Ed25519.Equal(key.Ed25519) {
			return Key{}, failure.Hint(ErrTrusted, "to change what it may vouch for, remove it first: mobileops update key remove "+other.ID())
		}
	}
	if len(k.list) >= maxKeys {
		return Key{}, failure.Errorf(failure.No, "%d keys are trusted, and there cannot be more", maxKeys)
	}
	if err := durable.MkdirAll(k.dir, 0o755); err != nil {
		return Key{}, access(err)
	}
	if err := checkPath(k.dir); err != nil {
		return Key{}, err
	}
	added := Key{PublicKey: key, Path: filepath.Join(k.dir, key.ID()+keyEnding), Scope: scope}
	if _, err := os.Lstat(added.Path); err == nil { // a file of that name with another key in it
		return Key{}, failure.Hint(failure.Errorf(failure.Untrustworthy, "%s holds another key", added.Path), "see whose it is: mobileops update key list")
	}
	// The limits come first and go last: at no moment is the key trusted for more.
	limits := added.limits()
	if err := os.Remove(limits); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return Key{}, access(err)
	}
	if !scope.All() {
		text, err := scope.file()
		if err != nil {
			return Key{}, err
		}
		if err := durable.WriteFile(limits, text, 0o644); err != nil {
			return Key{}, access(err)
		}
	}
	if err := durable.WriteFile(added.Path, key.File(), 0o644); err != nil {
		return Key{}, access(err)
	}
	k.list = append(k.list, added)
	return added, nil
}

// limits is the path of the file that says what the key may vouch for.
func (k Key) limits() string { return strings.TrimSuffix(k.Path, keyEnding) + scopeEnding }

// Remove has the key of that id trusted no longer. An id that is not there is
// ErrNoKey.
func (k *Keys) Remove(id string) (Key, error) {
	for i, key := range k.list {
		if !strings.EqualFold(key.ID(), id) {
			continue
		}
		if err := os.Remove(key.Path); err != nil {
			return Key{}, access(err)
		}
		if err := durable.SyncDir(k.dir); err != nil {
			return Key{}, err
		}
		if err := os.Remove(key.limits()); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return Key{}, access(err)
		}
		k.list = append(k.list[:i:i], k.list[i+1:]...)
		return key, durable.SyncDir(k.dir)
	}
	return Key{}, failure.Hint(ErrNoKey, "see them: mobileops update key list")
}
