package repo

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"time"

	"github.com/mobileops/mobileops/internal/durable"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/trust"
	"github.com/theupdateframework/go-tuf/v2/metadata"
	"github.com/theupdateframework/go-tuf/v2/metadata/trustedmetadata"
)

// PublishOptions say how a publication is signed.
type PublishOptions struct {
	// Signers returns the keys of a role. It is asked only for roles that have
	// something to sign.
	Signers func(role string) ([]trust.Signer, error)
	// Lifetime is how long the timestamp is good; 0: as the repository says.
	Lifetime time.Duration
	// Root says that the root is signed anew, too, under the same keys, so that
	// it ends later.
	Root bool
}

// Publication is what came of publishing.
type Publication struct {
	Roles   []Role   // as they are now
	Signed  []string // the roles that were signed anew
	Added   []string // paths of targets that are new or changed
	Removed []string // paths of targets that went
	// Due are roles that end before half of their lifetime is left again and
	// could not be signed, with the reason.
	Due []Due
}

// Due is a role that has to be signed anew.
type Due struct {
	Role   Role
	Reason error
	// Urgent says that it ends before the timestamp that was just signed: hosts
	// will refuse the repository then.
	Urgent bool
}

// Publish offers hosts what is staged, and signs the timestamp anew in any
// case. Targets and snapshot are signed anew when something changed or half of
// their lifetime is over. Killed at any moment it leaves what was published
// before, or the whole new publication, and the next Publish goes on.
func (p *Publisher) Publish(ctx context.Context, o PublishOptions) (*Publication, error) {
	lock, err := p.lock()
	if err != nil {
		return nil, err
	}
	defer lock.Close()
	set, err := p.settings()
	if err != nil {
		return nil, err
	}
	now, err := p.published()
	if err != nil {
		return nil, err
	}
	plan, err := p.staged()
	if err != nil {
		return nil, err
	}
	pub, before := new(Publication), filesOf(now)
	w := newWriter(p, set, now) // which changes now
	w.life = o.Lifetime
	if err := w.apply(plan, pub); err != nil {
		return nil, err
	}
	changed := len(pub.Added)+len(pub.Removed) > 0
	due := map[string]error{}
	for _, role := range []string{metadata.TARGETS, metadata.SNAPSHOT} {
		needed := changed || role == metadata.SNAPSHOT && w.signs[metadata.TARGETS] || !w.holds(role)
		if !needed && !w.ageing(role) {
			continue
		}
		switch err := w.ask(role, o.Signers); {
		case err == nil:
		case needed:
			return nil, err
		default:
			due[role] = err
		}
	}
	if err := w.ask(metadata.TIMESTAMP, o.Signers); err != nil {
		return nil, err
	}
	if err := p.renewRoot(ctx, w, o, due); err != nil {
		return nil, err
	}
	if w.signs[metadata.TARGETS] {
		if err := p.reveal(w.targets); err != nil {
			return nil, err
		}
	}
	if err := w.write(ctx); err != nil {
		return nil, err
	}
	if err := p.settle(plan, before); err != nil {
		return nil, err
	}
	return w.report(pub, due), nil
}

// renewRoot signs a root that ends soon, or on demand.
func (p *Publisher) renewRoot(ctx context.Context, w *writer, o PublishOptions, due map[string]error) error {
	if !o.Root {
		if w.ageing(metadata.ROOT) {
			due[metadata.ROOT] = errors.New("sign it with: mobileops update repo publish --root")
		}
		return nil
	}
	if err := w.ask(metadata.ROOT, o.Signers); err != nil {
		return err
	}
	old := w.root
	next, err := nextRoot(old, p.expiry(w.set, metadata.ROOT))
	if err != nil {
		return err
	}
	if err := sign(ctx, next, w.signers[metadata.ROOT]); err != nil {
		return err
	}
	if err := follows(old, next); err != nil {
		return err
	}
	if err := writeRole(p, rootName(next.Signed.Version), next); err != nil {
		return err
	}
	w.root = next
	return nil
}

// nextRoot is a copy of a root with the next version.
func nextRoot(old *metadata.Metadata[metadata.RootType], expires time.Time) (*metadata.Metadata[metadata.RootType], error) {
	data, err := old.ToBytes(false)
	if err != nil {
		return nil, err
	}
	next, err := metadata.Root().FromBytes(data)
	if err != nil {
		return nil, err
	}
	next.Signed.Version++
	next.Signed.Expires = expires
	return next, nil
}

// follows makes sure that hosts will accept a root after the old one.
func follows(old, next *metadata.Metadata[metadata.RootType]) error {
	data, err := next.ToBytes(false)
	if err != nil {
		return err
	}
	set := &trustedmetadata.TrustedMetadata{Root: old}
	_, err = set.UpdateRoot(data)
	var u *metadata.ErrUnsignedMetadata
	if errors.As(err, &u) {
		return failure.Hint(failure.Errorf(failure.NotAllowed, "the new root needs %d signatures of the old root keys and %d of the new ones",
			old.Signed.Roles[metadata.ROOT].Threshold, next.Signed.Roles[metadata.ROOT].Threshold), "name more keys: --root-key KEY, once for each")
	}
	return err
}

// writer makes one publication.
type writer struct {
	p         *Publisher
	set       *settings
	root      *metadata.Metadata[metadata.RootType]
	targets   *metadata.Metadata[metadata.TargetsType]
	snapshot  *metadata.Metadata[metadata.SnapshotType]
	timestamp *metadata.Metadata[metadata.TimestampType]
	signers   map[string][]trust.Signer
	signs     map[string]bool // roles that get a new version
	life      time.Duration   // of the timestamp; 0: as the settings say
}

func newWriter(p *Publisher, set *settings, now trusted) *writer {
	return &writer{
		p: p, set: set, root: now.Root, targets: now.Targets[metadata.TARGETS], snapshot: now.Snapshot, timestamp: now.Timestamp,
		signers: map[string][]trust.Signer{}, signs: map[string]bool{},
	}
}

func (w *writer) expires(role string) time.Time {
	switch role {
	case metadata.ROOT:
		return w.root.Signed.Expires
	case metadata.TARGETS:
		return w.targets.Signed.Expires
	case metadata.SNAPSHOT:
		return w.snapshot.Signed.Expires
	}
	return w.timestamp.Signed.Expires
}

// ageing reports whether half of a role's lifetime is over.
func (w *writer) ageing(role string) bool {
	return w.expires(role).Sub(w.p.now()) < w.p.lifetime(w.set, role)/2
}

// ask gets the keys of a role, which then gets a new version.
func (w *writer) ask(role string, keys func(string) ([]trust.Signer, error)) error {
	signers, err := keys(role)
	if err != nil {
		return fmt.Errorf("key of %s: %w", role, err)
	}
	if len(signers) == 0 {
		return failure.Errorf(failure.Usage, "there is no key for %s", role)
	}
	// While a key is replaced both are known, and only one of them serves.
	var serve []trust.Signer
	for _, s := range signers {
		if err = mayServe(w.root, role, s); err == nil {
			serve = append(serve, s)
		}
	}
	if len(serve) == 0 {
		return err
	}
	w.signers[role] = serve
	if role != metadata.ROOT && !w.signs[role] {
		w.signs[role] = true
		w.bump(role)
	}
	return nil
}

func (w *writer) bump(role string) {
	switch role {
	case metadata.TARGETS:
		w.targets.Signed.Version++
	case metadata.SNAPSHOT:
		w.snapshot.Signed.Version++
	case metadata.TIMESTAMP:
		w.timestamp.Signed.Version++
	}
}

// write signs and writes the roles that have something new, timestamp.json
// last. Before that it verifies all of it as a host would, so that nothing is
// offered that every host refuses.
func (w *writer) write(ctx context.Context) error {
	if w.signs[metadata.TARGETS] {
		w.targets.Signed.Expires = w.p.expiry(w.set, metadata.TARGETS)
		if err := sign(ctx, w.targets, w.signers[metadata.TARGETS]); err != nil {
			return err
		}
		data, err := w.targets.ToBytes(true)
		if err != nil {
			return err
		}
		data = append(data, '\n')
		if int64(len(data)) > DefaultLimits().Targets {
			return failure.Errorf(failure.Failed, "the metadata of all packages has %d bytes, and hosts take %d: remove old ones", len(data), DefaultLimits().Targets)
		}
		if err := durable.WriteFile(w.p.metadata(targetsName(w.targets.Signed.Version)), data, 0o644); err != nil {
			return err
		}
		w.snapshot.Signed.Meta["targets.json"] = metaFile(w.targets.Signed.Version, data)
	}
	if w.signs[metadata.SNAPSHOT] {
		w.snapshot.Signed.Expires = w.p.expiry(w.set, metadata.SNAPSHOT)
		if err := sign(ctx, w.snapshot, w.signers[metadata.SNAPSHOT]); err != nil {
			return err
		}
		data, err := w.snapshot.ToBytes(true)
		if err != nil {
			return err
		}
		data = append(data, '\n')
		if err := durable.WriteFile(w.p.metadata(snapshotName(w.snapshot.Signed.Version)), data, 0o644); err != nil {
			return err
		}
		w.timestamp.Signed.Meta["snapshot.json"] = metaFile(w.snapshot.Signed.Version, data)
	}
	w.timestamp.Signed.Expires = w.p.expiry(w.set, metadata.TIMESTAMP)
	if w.life > 0 {
		w.timestamp.Signed.Expires = w.p.now().UTC().Add(w.life).Truncate(time.Second)
	}
	if err := sign(ctx, w.timestamp, w.signers[metadata.TIMESTAMP]); err != nil {
		return err
	}
	if err := w.verify(); err != nil {
		return err
	}
	return writeRole(w.p, timestampName, w.timestamp)
}

func (w *writer) verify() error {
	for _, role := range []string{metadata.TARGETS, metadata.SNAPSHOT, metadata.TIMESTAMP} {
		if err := w.root.VerifyDelegate(role, w.role(role)); err != nil {
			return verdict(role, err)
		}
	}
	return nil
}

// holds reports whether what is published of a role is good under the root.
// It is not when a key was replaced without the old one, and that was killed
// half-way.
func (w *writer) holds(role string) bool { return w.root.VerifyDelegate(role, w.role(role)) == nil }

func (w *writer) role(role string) any {
	switch role {
	case metadata.TARGETS:
		return w.targets
	case metadata.SNAPSHOT:
		return w.snapshot
	}
	return w.timestamp
}

func (w *writer) report(pub *Publication, due map[string]error) *Publication {
	pub.Roles = []Role{
		{metadata.ROOT, w.root.Signed.Version, w.root.Signed.Expires},
		{metadata.TIMESTAMP, w.timestamp.Signed.Version, w.timestamp.Signed.Expires},
		{metadata.SNAPSHOT, w.snapshot.Signed.Version, w.snapshot.Signed.Expires},
		{metadata.TARGETS, w.targets.Signed.Version, w.targets.Signed.Expires},
	}
	for _, r := range pub.Roles {
		if len(w.signers[r.Name]) > 0 {
			pub.Signed = append(pub.Signed, r.Name)
		}
		if reason := due[r.Name]; reason != nil {
			pub.Due = append(pub.Due, Due{Role: r, Reason: reason, Urgent: r.Expires.Before(w.timestamp.Signed.Expires)})
		}
	}
	return pub
}

// stagedName is where a file waits, and how it is called once it is published.
func stagedName(p, sum string) (dir, name string) {
	dir, base := path.Split(p)
	return dir, sum + "." + base
}

// reveal moves staged packages to where they are published. Nothing names them
// yet. One that is there already was moved by a run that was killed.
func (p *Publisher) reveal(t *metadata.Metadata[metadata.TargetsType]) error {
	for name, f := range t.Signed.Targets {
		dir, base := stagedName(name, hex.EncodeToString(f.Hashes["sha256"]))
		from, to := p.private(filepath.Join("packages", base)), filepath.Join(p.dir, "targets", filepath.FromSlash(dir), base)
		if _, err := os.Lstat(from); errors.Is(err, fs.ErrNotExist) {
			if _, err := os.Lstat(to); err != nil {
				return failure.Hint(failure.Wrap(failure.Failed, err), "stage it again: mobileops update repo add "+p.dir+" PACKAGE")
			}
			continue
		}
		if err := durable.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			return err
		}
		if err := os.Rename(from, to); err != nil {
			return err
		}
		if err := durable.SyncDir(filepath.Dir(to)); err != nil {
			return err
		}
	}
	return nil
}
