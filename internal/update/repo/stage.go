package repo

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"aead.dev/minisign"
	"github.com/mobileops/mobileops/internal/durable"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/trust"
	"github.com/theupdateframework/go-tuf/v2/metadata"
	"golang.org/x/sys/unix"
)

// AddOptions say how a package is offered.
type AddOptions struct {
	// Release says what the package is. Nil: its signature file says so.
	Release *trust.Release
	// Keys, when there are any, have to vouch for the signature. Nil or empty:
	// it is taken as it is, and hosts find out.
	Keys *trust.Keys

	Severity   string
	Published  time.Time
	Advisories []string
	Percent    *float64 // of hosts; nil: all
	Salt       string   // "": DefaultSalt
}

// Staged is a package that will be published.
type Staged struct {
	Target
	Verified bool // whether a trusted key vouched for its signature
}

// Add stages a package, and the signature that lies beside it: the next Publish
// offers both. It is copied, so the original may go.
func (p *Publisher) Add(ctx context.Context, pkg string, o AddOptions) (*Staged, error) {
	lock, err := p.lock()
	if err != nil {
		return nil, err
	}
	defer lock.Close()
	now, err := p.published()
	if err != nil {
		return nil, err
	}
	plan, err := p.staged()
	if err != nil {
		return nil, err
	}
	name := filepath.Base(pkg)
	if err := validPath(name); err != nil {
		return nil, failure.Errorf(failure.Usage, "%q cannot be the name of a package: %w", name, err)
	}
	if err := durable.MkdirAll(p.private("packages"), 0o700); err != nil { // a copy of a repository may lack what was empty
		return nil, err
	}
	rel, signature, verifier, err := releaseOf(pkg, o)
	if err != nil {
		return nil, err
	}
	c := &custom{
		Name: rel.Name, Version: rel.Version, Sequence: rel.Sequence, Channel: rel.Channel, Expires: rel.Expires,
		Severity: o.Severity, Published: o.Published.UTC().Truncate(time.Second), Advisories: o.Advisories,
	}
	if err := c.setRollout(o.Percent, o.Salt); err != nil {
		return nil, err
	}
	if err := c.check(); err != nil {
		return nil, failure.Wrap(failure.Usage, err)
	}
	target, err := p.copyIn(ctx, pkg, verifier)
	if err != nil {
		return nil, err
	}
	target.Custom = c
	if err := collides(merged(now, plan), name, target); err != nil {
		return nil, err
	}
	plan.Changes[name] = change{target}
	if signature != nil {
		sig, err := p.put(trust.SignaturePath(name), signature)
		if err != nil {
			return nil, err
		}
		plan.Changes[trust.SignaturePath(name)] = change{sig}
	}
	if err := p.saveStaged(plan); err != nil {
		return nil, err
	}
	t, _, err := targetOf(name, target.file())
	t.Signed = signature != nil
	return &Staged{Target: t, Verified: verifier != nil}, err
}

// releaseOf says what a package is: by its signature, unless it is told.
func releaseOf(pkg string, o AddOptions) (rel trust.Release, signature []byte, v *trust.Verifier, err error) {
	signature, err = trust.ReadSignature(pkg)
	if err != nil {
		if o.Release != nil && trust.CodeOf(err) == trust.CodeUnsigned {
			return *o.Release, nil, nil, nil
		}
		return rel, nil, nil, err
	}
	if o.Keys != nil && len(o.Keys.List()) > 0 {
		if v, err = o.Keys.Verifier(signature); err != nil {
			return rel, nil, nil, trust.About(pkg, err)
		}
		rel = v.Release()
	} else {
		var s minisign.Signature
		if err := s.UnmarshalText(signature); err != nil {
			return rel, nil, nil, failure.Errorf(failure.Untrustworthy, "%s: %w", trust.SignaturePath(pkg), err)
		}
		if rel, err = trust.ParseComment(s.TrustedComment); err != nil {
			return rel, nil, nil, trust.About(pkg, err)
		}
	}
	if o.Release != nil && o.Release.Comment() != rel.Comment() {
		return rel, nil, nil, failure.Errorf(failure.Usage, "%s says that it is %s: leave the flags out, or sign it anew", trust.SignaturePath(pkg), rel.Comment())
	}
	return rel, signature, v, nil
}

func (c *custom) setRollout(percent *float64, salt string) error {
	if percent == nil && salt == "" {
		return nil
	}
	full := 100.0
	if percent == nil {
		percent = &full
	}
	if !(*percent >= 0 && *percent <= 100) {
		return failure.Errorf(failure.Usage, "%v is not a percentage of hosts: 0 to 100, with at most two decimals", *percent)
	}
	if c.Rollout != nil && salt == "" {
		salt = c.Rollout.Salt
	}
	if salt == "" {
		salt = DefaultSalt(c.release())
	}
	c.Rollout = &customRollout{BasisPoints: Rollout{Percent: *percent}.limit(), Salt: salt}
	return nil
}

// copyIn copies a package to where it waits, and measures it on the way. A
// verifier proves its signature while at it.
func (p *Publisher) copyIn(ctx context.Context, pkg string, v *trust.Verifier) (*stagedTarget, error) {
	f, err := os.OpenFile(pkg, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		return nil, failure.Errorf(failure.Usage, "%s is not a regular file", pkg)
	}
	tmp, err := durable.Create(p.private(filepath.Join("packages", filepath.Base(pkg))), 0o644)
	if err != nil {
		return nil, err
	}
	defer tmp.Abort()
	sum := sha256.New()
	to := []io.Writer{durable.Writer(ctx, tmp), sum}
	if v != nil {
		to = append(to, v)
	}
	n, err := io.CopyBuffer(io.MultiWriter(to...), struct{ io.Reader }{f}, make([]byte, transferBuffer))
	if err != nil {
		return nil, err
	}
	if v != nil {
		if err := v.Verify(); err != nil {
			return nil, trust.About(pkg, err)
		}
	}
	if err := tmp.Commit(); err != nil {
		return nil, err
	}
	t := &stagedTarget{Length: n, SHA256: hex.EncodeToString(sum.Sum(nil))}
	_, name := stagedName(filepath.Base(pkg), t.SHA256)
	return t, os.Rename(p.private(filepath.Join("packages", filepath.Base(pkg))), p.private(filepath.Join("packages", name)))
}

// put makes a small file wait.
func (p *Publisher) put(name string, data []byte) (*stagedTarget, error) {
	t := &stagedTarget{Length: int64(len(data)), SHA256: digestOf(data)}
	_, base := stagedName(name, t.SHA256)
	return t, durable.WriteFile(p.private(filepath.Join("packages", base)), data, 0o644)
}

func (t *stagedTarget) file() *metadata.TargetFiles {
	sum, _ := hex.DecodeString(t.SHA256)
	f := &metadata.TargetFiles{Length: t.Length, Hashes: metadata.Hashes{"sha256": sum}}
	if t.Custom != nil {
		f.Custom, _ = t.Custom.encode()
	}
	return f
}

// merged are the targets as they will be once plan is published.
func merged(now trusted, plan *staged) map[string]*metadata.TargetFiles {
	all := maps.Clone(now.Targets[metadata.TARGETS].Signed.Targets)
	if all == nil {
		all = map[string]*metadata.TargetFiles{}
	}
	for path, ch := range plan.Changes {
		if ch.Target == nil {
			delete(all, path)
		} else {
			all[path] = ch.Target.file()
		}
	}
	return all
}

// collides refuses what hosts could not tell apart: another content under a
// name that was given out, or a second release of a version or a sequence.
func collides(all map[string]*metadata.TargetFiles, path string, t *stagedTarget) error {
	if old := all[path]; old != nil && hex.EncodeToString(old.Hashes["sha256"]) != t.SHA256 {
		return failure.Hint(fmt.Errorf("%s %w with another content", path, ErrExists), "give the new one a name of its own, or take the old one back: mobileops update repo remove")
	}
	list, _ := packagesOf(all)
	for _, other := range list {
		r := other.Release
		if r.Name != t.Custom.Name || other.Path == path {
			continue
		}
		if r.Version == t.Custom.Version {
			return fmt.Errorf("%s %s %w as %s", r.Name, r.Version, ErrExists, other.Path)
		}
		if r.Sequence == t.Custom.Sequence {
			return failure.Hint(fmt.Errorf("the sequence %d of %s %w: that of version %s", r.Sequence, r.Name, ErrExists, r.Version), "sign it with a greater one")
		}
	}
	return nil
}

// named finds the package of a name and version.
func named(all map[string]*metadata.TargetFiles, name, version string) (Target, error) {
	list, _ := packagesOf(all)
	for _, t := range list {
		if t.Release.Name == name && t.Release.Version == version {
			return t, nil
		}
	}
	return Target{}, failure.Hint(fmt.Errorf("%w: %s %s", ErrNoPackage, name, version), "see them: mobileops update repo list")
}

// edit changes what is staged, under the lock.
func (p *Publisher) edit(fn func(now trusted, plan *staged) error) error {
	lock, err := p.lock()
	if err != nil {
		return err
	}
	defer lock.Close()
	now, err := p.published()
	if err != nil {
		return err
	}
	plan, err := p.staged()
	if err != nil {
		return err
	}
	if err := fn(now, plan); err != nil {
		return err
	}
	return p.saveStaged(plan)
}

// SetRollout stages another percentage for a package. It keeps its salt, so
// hosts that were included stay so while the percentage grows.
func (p *Publisher) SetRollout(name, version string, percent float64) (before, after Rollout, err error) {
	err = p.edit(func(now trusted, plan *staged) error {
		all := merged(now, plan)
		t, err := named(all, name, version)
		if err != nil {
			return err
		}
		c, _, err := parseCustom(*all[t.Path].Custom)
		if err != nil {
			return err
		}
		before = t.Rollout
		if err := c.setRollout(&percent, t.Rollout.Salt); err != nil {
			return err
		}
		after = Rollout{Percent: float64(c.Rollout.BasisPoints) / 100, Salt: c.Rollout.Salt}
		plan.Changes[t.Path] = change{&stagedTarget{Length: t.Length, SHA256: hex.EncodeToString(t.Hashes["sha256"]), Custom: &c}}
		return nil
	})
	return before, after, err
}

// Remove stages that a package is no longer offered. One that was only staged
// is forgotten at once.
func (p *Publisher) Remove(name, version string) (Target, error) {
	var t Target
	err := p.edit(func(now trusted, plan *staged) (err error) {
		if t, err = named(merged(now, plan), name, version); err != nil {
			return err
		}
		live := now.Targets[metadata.TARGETS].Signed.Targets
		for _, path := range []string{t.Path, trust.SignaturePath(t.Path)} {
			if live[path] != nil {
				plan.Changes[path] = change{}
			} else {
				delete(plan.Changes, path)
			}
		}
		return nil
	})
	return t, err
}

// apply makes what is staged part of the new targets, and says what differs.
func (w *writer) apply(plan *staged, pub *Publication) error {
	targets := w.targets.Signed.Targets
	if targets == nil {
		targets = map[string]*metadata.TargetFiles{}
		w.targets.Signed.Targets = targets
	}
	for _, name := range slices.Sorted(maps.Keys(plan.Changes)) {
		ch, old := plan.Changes[name], targets[name]
		switch {
		case ch.Target == nil && old != nil:
			delete(targets, name)
			pub.Removed = append(pub.Removed, name)
		case ch.Target != nil:
			if err := validPath(name); err != nil || len(ch.Target.SHA256) != 2*sha256.Size {
				return failure.Errorf(failure.Untrustworthy, "%s: what is staged as %q cannot be published", w.p.private("staged.json"), name)
			}
			f := ch.Target.file()
			if old == nil || !old.Equal(*f) || old.Length != f.Length || !sameCustom(old.Custom, f.Custom) {
				targets[name] = f
				pub.Added = append(pub.Added, name)
			}
		}
	}
	return nil
}

// sameCustom compares what two targets say of themselves, however it is laid
// out.
func sameCustom(a, b *json.RawMessage) bool {
	if a == nil || b == nil {
		return a == b
	}
	x, _, errX := parseCustom(*a)
	y, _, errY := parseCustom(*b)
	if errX != nil || errY != nil {
		return false
	}
	l, errL := json.Marshal(x)
	r, errR := json.Marshal(y)
	return errL == nil && errR == nil && string(l) == string(r)
}

func metaFile(version int64, data []byte) *metadata.MetaFiles {
	m := metadata.MetaFile(version)
	m.Length = int64(len(data))
	sum := sha256.Sum256(data)
	m.Hashes = metadata.Hashes{"sha256": sum[:]}
	return m
}

// settle forgets what is published now, and removes what neither this
// publication nor the one before it needs: hosts may be in the middle of that.
func (p *Publisher) settle(plan *staged, before map[string]bool) error {
	if len(plan.Changes) > 0 {
		if err := os.Remove(p.private("staged.json")); err != nil {
			return err
		}
	}
	waiting, err := os.ReadDir(p.private("packages"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, e := range waiting {
		if err := os.Remove(p.private(filepath.Join("packages", e.Name()))); err != nil {
			return err
		}
	}
	now, err := p.published()
	if err != nil {
		return err
	}
	keep := filesOf(now)
	maps.Copy(keep, before)
	return p.prune(keep)
}

// filesOf are the names of what a publication consists of: metadata by its name,
// packages with targets/ before.
func filesOf(set trusted) map[string]bool {
	keep := map[string]bool{
		snapshotName(set.Snapshot.Signed.Version):                 true,
		targetsName(set.Targets[metadata.TARGETS].Signed.Version): true,
	}
	for name, f := range set.Targets[metadata.TARGETS].Signed.Targets {
		dir, base := stagedName(name, hex.EncodeToString(f.Hashes["sha256"]))
		keep[path.Join("targets", dir, base)] = true
	}
	return keep
}

func (p *Publisher) prune(keep map[string]bool) error {
	entries, err := os.ReadDir(p.metadata(""))
	if err != nil {
		return err
	}
	for _, e := range entries {
		if versioned().MatchString(e.Name()) && !keep[e.Name()] {
			if err := os.Remove(p.metadata(e.Name())); err != nil {
				return err
			}
		}
	}
	return filepath.WalkDir(filepath.Join(p.dir, "targets"), func(name string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		rel, err := filepath.Rel(p.dir, name)
		sum, _, ok := strings.Cut(e.Name(), ".")
		if err != nil || !ok || len(sum) != 2*sha256.Size || keep[filepath.ToSlash(rel)] {
			return err // somebody else's files stay
		}
		if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	})
}
