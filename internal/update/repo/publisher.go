package repo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/mobileops/mobileops/internal/durable"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/trust"
	"github.com/theupdateframework/go-tuf/v2/metadata"
	"github.com/theupdateframework/go-tuf/v2/metadata/trustedmetadata"
	"golang.org/x/sys/unix"
)

// Roles returns the names of the roles, in the order in which a host asks for
// them.
func Roles() []string {
	return []string{metadata.ROOT, metadata.TIMESTAMP, metadata.SNAPSHOT, metadata.TARGETS}
}

// DefaultLifetimes returns how long what a role signs is good, unless the
// repository was made with others. A host that hears of nothing newer notices
// when the timestamp ends, so that is short, and has to be signed anew as often.
func DefaultLifetimes() map[string]time.Duration {
	const day = 24 * time.Hour
	return map[string]time.Duration{
		metadata.ROOT: 365 * day, metadata.TARGETS: 90 * day, metadata.SNAPSHOT: 30 * day, metadata.TIMESTAMP: 7 * day,
	}
}

// Publisher is the publisher's side of a repository: a directory with
//
//	metadata/    what is published; see the package comment
//	targets/     the packages that are published
//	.publisher/  for the publisher alone (mode 0700): keys by name, lifetimes,
//	             and what will be published next
//
// A web server may serve the directory at any time: every file but
// timestamp.json has a name of its own for each version, and timestamp.json is
// replaced last.
type Publisher struct {
	dir string
	now func() time.Time
}

// OpenPublisher returns the publisher of the repository in a directory. It
// reads nothing. now may be nil.
func OpenPublisher(dir string, now func() time.Time) *Publisher {
	if now == nil {
		now = time.Now
	}
	return &Publisher{dir: dir, now: now}
}

// Errors that callers tell apart.
var (
	// ErrNoRepository says that a directory is not a repository.
	ErrNoRepository = failure.New(failure.NotReady, "there is no repository")
	// ErrExists says that there is a repository, or a package, already.
	ErrExists = failure.New(failure.Busy, "is there already")
	// ErrNoPackage says that a repository has no such package.
	ErrNoPackage = failure.New(failure.No, "no such package")
	// ErrWrongKey says that a key may not sign for a role.
	ErrWrongKey = failure.New(failure.NotAllowed, "the key may not sign for this role")
)

const (
	configSchema = "mobileops.update.publisher/v1"
	stagedSchema = "mobileops.update.staged/v1"
	maxConfig    = 1 << 20  // bytes
	maxStaged    = 16 << 20 // bytes
)

// settings are what a publisher keeps for itself: no secrets, but where they
// are.
type settings struct {
	Schema    string              `json:"schema"`
	Keys      map[string][]string `json:"keys"`      // of each role: specifications for trust.OpenSigner
	Lifetimes map[string]int64    `json:"lifetimes"` // of each role, in seconds
}

// change is what will happen to a target. A nil Target removes it.
type change struct {
	Target *stagedTarget `json:"target"`
}

type stagedTarget struct {
	Length int64   `json:"length"`
	SHA256 string  `json:"sha256"`
	Custom *custom `json:"custom,omitempty"`
}

type staged struct {
	Schema  string            `json:"schema"`
	Changes map[string]change `json:"changes"` // by path
}

func (p *Publisher) private(name string) string { return filepath.Join(p.dir, ".publisher", name) }
func (p *Publisher) metadata(name string) string {
	return filepath.Join(p.dir, "metadata", name)
}

// RootPath is where the first root.json of the repository is: what hosts pin.
func (p *Publisher) RootPath() string { return p.metadata(rootName(1)) }

// KeySpecs returns the specifications of the keys of a role, as they were given
// when the repository was made or the keys replaced.
func (p *Publisher) KeySpecs(role string) ([]string, error) {
	s, err := p.settings()
	if err != nil {
		return nil, err
	}
	return s.Keys[role], nil
}

func (p *Publisher) settings() (*settings, error) {
	s := new(settings)
	err := readJSON(p.private("repository.json"), maxConfig, s)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, failure.Hint(fmt.Errorf("%w in %s", ErrNoRepository, p.dir), "make one: mobileops update repo init "+p.dir+" --key KEY")
	}
	if err == nil && s.Schema != configSchema {
		err = failure.Errorf(failure.Untrustworthy, "%s is a %.60q, which this mobileops does not know", p.private("repository.json"), s.Schema)
	}
	return s, err
}

func (p *Publisher) lifetime(s *settings, role string) time.Duration {
	if n := s.Lifetimes[role]; n > 0 {
		return time.Duration(n) * time.Second
	}
	return DefaultLifetimes()[role]
}

func (p *Publisher) staged() (*staged, error) {
	s := &staged{Schema: stagedSchema}
	err := readJSON(p.private("staged.json"), maxStaged, s)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	if err == nil && s.Schema != stagedSchema {
		err = failure.Errorf(failure.Untrustworthy, "%s is a %.60q, which this mobileops does not know", p.private("staged.json"), s.Schema)
	}
	if s.Changes == nil {
		s.Changes = map[string]change{}
	}
	return s, err
}

func (p *Publisher) saveStaged(s *staged) error { return writeJSON(p.private("staged.json"), s) }

func readJSON(path string, limit int64, into any) error {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	data, err := readLimited(f, path, limit)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, into); err != nil {
		return failure.Errorf(failure.Untrustworthy, "%s: %w", path, err)
	}
	return nil
}

func writeJSON(path string, from any) error {
	data, err := json.MarshalIndent(from, "", "  ")
	if err != nil {
		return err
	}
	return durable.WriteFile(path, append(data, '\n'), 0o600)
}

// lock keeps other publishers out until the file is closed.
func (p *Publisher) lock() (*os.File, error) {
	f, err := os.OpenFile(p.private("lock"), os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if errors.Is(err, fs.ErrNotExist) {
		_, err = p.settings()
		return nil, err
	}
	if err != nil {
		return nil, err
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		err = failure.Errorf(failure.Busy, "another process changes the repository in %s", p.dir)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// published reads and verifies what hosts are offered now, whether it has
// expired or not. When a key was replaced without the old one, and that was
// killed half-way, the newest root is ahead of what is signed: then that counts
// as published which is good under the root before.
func (p *Publisher) published() (trusted, error) {
	if _, err := p.settings(); err != nil {
		return nil, err
	}
	roots, err := p.roots()
	if err != nil {
		return nil, err
	}
	newest := roots[len(roots)-1]
	set, err := p.publishedUnder(newest)
	if CodeOf(err) == CodeSignature && len(roots) > 1 {
		if before, berr := p.publishedUnder(roots[len(roots)-2]); berr == nil {
			before.Root = newest
			return before, nil
		}
	}
	return set, err
}

// roots follows the chain of roots from the first.
func (p *Publisher) roots() ([]*metadata.Metadata[metadata.RootType], error) {
	var set trusted
	var chain []*metadata.Metadata[metadata.RootType]
	for n := int64(1); ; n++ {
		data, err := p.readMetadata(rootName(n), DefaultLimits().Root)
		if n > 1 && errors.Is(err, fs.ErrNotExist) {
			return chain, nil
		}
		if err != nil {
			return nil, err
		}
		err = guarded(func() (err error) {
			if n == 1 {
				set, err = trustedmetadata.New(data)
			} else {
				_, err = set.UpdateRoot(data)
			}
			return err
		})
		if err != nil {
			return nil, verdict(metadata.ROOT, err)
		}
		chain = append(chain, set.Root)
	}
}

func (p *Publisher) publishedUnder(root *metadata.Metadata[metadata.RootType]) (trusted, error) {
	set := &trustedmetadata.TrustedMetadata{Root: root, Targets: map[string]*metadata.Metadata[metadata.TargetsType]{}}
	limits := DefaultLimits()
	step := func(role, name string, limit int64, verify func([]byte) error) error {
		data, err := p.readMetadata(name, limit)
		if err != nil {
			return &Error{Code: CodeMalformed, Role: role, Msg: "the repository in " + p.dir + " is incomplete", Err: err}
		}
		return verdict(role, guarded(func() error { return verify(data) }))
	}
	if err := step(metadata.TIMESTAMP, timestampName, limits.Timestamp, func(b []byte) error { _, err := set.UpdateTimestamp(b); return err }); err != nil {
		return nil, err
	}
	meta := set.Timestamp.Signed.Meta["snapshot.json"]
	if meta == nil {
		return nil, refuse(CodeMalformed, metadata.TIMESTAMP, "the timestamp names no snapshot")
	}
	if err := step(metadata.SNAPSHOT, snapshotName(meta.Version), limits.Snapshot, func(b []byte) error { _, err := set.UpdateSnapshot(b, false); return err }); err != nil {
		return nil, err
	}
	if meta = set.Snapshot.Signed.Meta["targets.json"]; meta == nil {
		return nil, refuse(CodeMalformed, metadata.SNAPSHOT, "the snapshot names no targets")
	}
	err := step(metadata.TARGETS, targetsName(meta.Version), limits.Targets, func(b []byte) error { _, err := set.UpdateTargets(b); return err })
	return set, err
}

func (p *Publisher) readMetadata(name string, limit int64) ([]byte, error) {
	f, err := os.Open(p.metadata(name))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readLimited(f, name, limit)
}

// InitOptions say how a repository is made.
type InitOptions struct {
	// Keys sign for each role. Root may have several; the others have one.
	Keys map[string][]trust.Signer
	// Threshold is how many root keys have to sign a root; 0: 1.
	Threshold int
	// Lifetimes are those of the roles; what is missing is as in
	// DefaultLifetimes.
	Lifetimes map[string]time.Duration
}

// Init makes a repository without packages, already published. The directory
// may exist, but not have a repository in it.
func (p *Publisher) Init(ctx context.Context, o InitOptions) error {
	for _, role := range Roles() {
		switch n := len(o.Keys[role]); {
		case n == 0:
			return failure.Errorf(failure.Usage, "the role %s has no key", role)
		case n > 1 && role != metadata.ROOT:
			return failure.Errorf(failure.Usage, "the role %s has %d keys, and takes one", role, n)
		}
	}
	o.Threshold = max(o.Threshold, 1)
	if _, err := os.Lstat(p.metadata(timestampName)); err == nil {
		return fmt.Errorf("%s: a repository %w", p.dir, ErrExists)
	}
	set := &settings{Schema: configSchema, Keys: map[string][]string{}, Lifetimes: map[string]int64{}}
	for _, role := range Roles() {
		life := DefaultLifetimes()[role]
		if o.Lifetimes[role] > 0 {
			life = o.Lifetimes[role]
		}
		set.Lifetimes[role] = int64(life / time.Second)
		for _, s := range o.Keys[role] {
			set.Keys[role] = append(set.Keys[role], s.String())
		}
	}
	root := metadata.Root(p.expiry(set, metadata.ROOT))
	for _, role := range Roles() {
		for _, s := range o.Keys[role] {
			k, err := tufKey(s)
			if err == nil {
				err = root.Signed.AddKey(k, role)
			}
			if err != nil {
				return err
			}
		}
	}
	root.Signed.Roles[metadata.ROOT].Threshold = o.Threshold
	if n := len(root.Signed.Roles[metadata.ROOT].KeyIDs); n < o.Threshold {
		return failure.Errorf(failure.Usage, "%d of the root keys have to sign, and there are %d different ones", o.Threshold, n)
	}
	if err := sign(ctx, root, o.Keys[metadata.ROOT]); err != nil {
		return err
	}
	for dir, perm := range map[string]fs.FileMode{p.dir: 0o755, p.metadata(""): 0o755, filepath.Join(p.dir, "targets"): 0o755} {
		if err := durable.MkdirAll(dir, perm); err != nil {
			return err
		}
	}
	if err := durable.MkdirAll(p.private("packages"), 0o700); err != nil {
		return err
	}
	if err := os.Chmod(p.private(""), 0o700); err != nil {
		return err
	}
	lock, err := p.lock()
	if err != nil {
		return err
	}
	defer lock.Close()
	// What a killed run of init left is of no use to anybody: nothing was
	// published, which is what timestamp.json would show.
	if err := writeJSON(p.private("repository.json"), set); err != nil {
		return err
	}
	if err := writeRole(p, rootName(1), root); err != nil {
		return err
	}
	w := &writer{p: p, set: set, root: root, signers: o.Keys}
	w.targets, w.snapshot, w.timestamp = metadata.Targets(), metadata.Snapshot(), metadata.Timestamp()
	w.signs = map[string]bool{metadata.TARGETS: true, metadata.SNAPSHOT: true, metadata.TIMESTAMP: true}
	return w.write(ctx)
}

// expiry is when what a role signs now ends: whole seconds, as TUF writes them.
func (p *Publisher) expiry(s *settings, role string) time.Time {
	return p.now().UTC().Add(p.lifetime(s, role)).Truncate(time.Second)
}

func writeRole[T metadata.Roles](p *Publisher, name string, m *metadata.Metadata[T]) error {
	data, err := m.ToBytes(true)
	if err != nil {
		return err
	}
	return durable.WriteFile(p.metadata(name), append(data, '\n'), 0o644)
}

// mayServe returns an error unless a signer is one of the keys of a role.
func mayServe(root *metadata.Metadata[metadata.RootType], role string, s trust.Signer) error {
	id, err := keyID(s)
	if err != nil {
		return err
	}
	if !slices.Contains(root.Signed.Roles[role].KeyIDs, id) {
		return failure.Hint(fmt.Errorf("%w: %s for %s", ErrWrongKey, s, role), "see whose keys may: mobileops update repo show")
	}
	return nil
}
