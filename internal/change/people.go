package change

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/mobileops/mobileops/internal/failure"
	"go.yaml.in/yaml/v3"
)

// Limits of the file of people.
const (
	maxPeopleFile = 1 << 20 // bytes
	maxPeople     = 10_000
	maxOfPerson   = 64 // accounts, and keys, of one person
)

// ErrPeople says that the file of people cannot be followed.
var ErrPeople = failure.New(failure.Usage, "the file of people is wrong")

// Person is somebody, with the accounts and keys that are theirs alone.
type Person struct {
	Name     string   `yaml:"name"`
	Accounts []string `yaml:"accounts"` // names of users, or uids
	Keys     []string `yaml:"keys"`     // fingerprints of SSH ("SHA256:…"), public keys of minisign ("RW…")
}

// People says which accounts and keys belong to one person. A nil *People knows
// nobody.
type People struct {
	list                 []Person
	byUID, byName, byKey map[string]string // → name of the person
}

// personOf returns the names of those to whom something of i belongs: usually
// one, several when i is one person's login in another one's account.
func (p *People) personOf(i *Identity) (names []string) {
	if p == nil {
		return nil
	}
	add := func(name string, ok bool) {
		if ok && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	for _, uid := range i.accounts() {
		name, ok := p.byUID[strconv.FormatInt(uid, 10)]
		add(name, ok)
	}
	for _, account := range i.names() {
		name, ok := p.byName[account]
		add(name, ok)
	}
	for _, key := range i.Keys {
		name, ok := p.byKey[key]
		add(name, ok)
	}
	return names
}

// Know notes in an identity whom it is known as.
func (p *People) Know(i Identity) Identity {
	i.Person = strings.Join(p.personOf(&i), " and ")
	return i
}

// ReadPeople reads a file of people. uid is who reads it: for root nobody else
// may be able to write it. lookup finds the uid of a user by name; users that it
// does not find are known by name alone.
func ReadPeople(path string, uid int, lookup func(name string) (uid string, ok bool)) (*People, error) {
	// Without O_NONBLOCK, opening a FIFO waits for a writer.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, failure.Hint(failure.Errorf(failure.NotReady, "there is no file of people %s", path), "the configuration names it: change.people")
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%w: %s is not a regular file", ErrPeople, path)
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok && uid == 0 && (st.Uid != 0 || info.Mode().Perm()&0o002 != 0 || info.Mode().Perm()&0o020 != 0 && st.Gid != 0) {
		return nil, failure.Hint(failure.Errorf(failure.Untrustworthy, "others than root can write %s", path), "chown root:root and chmod go-w")
	}
	data, err := io.ReadAll(io.LimitReader(f, maxPeopleFile+1))
	if err != nil {
		return nil, err
	}
	p, err := ParsePeople(data, lookup)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return p, nil
}

// ParsePeople reads the content of a file of people; lookup is as with
// ReadPeople.
func ParsePeople(data []byte, lookup func(name string) (uid string, ok bool)) (*People, error) {
	bad := func(format string, args ...any) (*People, error) {
		return nil, fmt.Errorf("%w: %s", ErrPeople, fmt.Sprintf(format, args...))
	}
	if len(data) > maxPeopleFile {
		return bad("it is larger than %d bytes", maxPeopleFile)
	}
	var file struct {
		People []Person `yaml:"people"`
	}
	dec := yaml.NewDecoder(bytes.NewReader(data))
	dec.KnownFields(true)
	if err := dec.Decode(&file); err != nil && !errors.Is(err, io.EOF) {
		return bad("%s", strings.ReplaceAll(err.Error(), "\n", " "))
	}
	if err := dec.Decode(new(any)); !errors.Is(err, io.EOF) {
		return bad("it has more than one document")
	}
	if len(file.People) > maxPeople {
		return bad("it has more than %d people", maxPeople)
	}
	p := &People{list: file.People, byUID: map[string]string{}, byName: map[string]string{}, byKey: map[string]string{}}
	known := map[string]bool{}
	for n, person := range file.People {
		if strings.TrimSpace(person.Name) == "" || validText("name", person.Name, MaxName) != nil {
			return bad("person %d has no name of at most %d bytes", n+1, MaxName)
		}
		if known[person.Name] {
			return bad("%q is there twice", person.Name)
		}
		known[person.Name] = true
		if len(person.Accounts) > maxOfPerson || len(person.Keys) > maxOfPerson {
			return bad("%q has more than %d accounts or keys", person.Name, maxOfPerson)
		}
		for _, account := range person.Accounts {
			if err := p.addAccount(person.Name, account, lookup); err != nil {
				return bad("%q: %v", person.Name, err)
			}
		}
		for _, key := range person.Keys {
			if err := p.addKey(person.Name, key); err != nil {
				return bad("%q: %v", person.Name, err)
			}
		}
	}
	return p, nil
}

func claim(m map[string]string, what, value, person string) error {
	if other, taken := m[value]; taken && other != person {
		return fmt.Errorf("%s %q is that of %q too: what two people share tells nobody apart", what, value, other)
	}
	m[value] = person
	return nil
}

func (p *People) addAccount(person, account string, lookup func(string) (string, bool)) error {
	if n, err := strconv.ParseUint(account, 10, 32); err == nil {
		return claim(p.byUID, "uid", strconv.FormatUint(n, 10), person)
	}
	if account == "" || validText("account", account, MaxName) != nil {
		return fmt.Errorf("%q is neither the name of a user nor a uid", account)
	}
	if err := claim(p.byName, "account", account, person); err != nil {
		return err
	}
	if lookup != nil {
		if uid, ok := lookup(account); ok {
			return claim(p.byUID, "uid", uid, person)
		}
	}
	return nil
}

func (p *People) addKey(person, key string) error {
	if strings.HasPrefix(key, "SHA256:") {
		if err := parseFingerprint(key); err != nil {
			return fmt.Errorf("key %q %w", key, err)
		}
	} else if _, err := parseMinisignKey(key); err != nil {
		return fmt.Errorf("key %q is neither a fingerprint of SSH (SHA256:…) nor a public key of minisign (the second line of its file, RW…)", key)
	}
	return claim(p.byKey, "key", key, person)
}
