package plugin

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/plugin/manifest"
	"github.com/mobileops/mobileops/internal/plugin/pack"
	"github.com/mobileops/mobileops/internal/plugin/sandbox"
	"github.com/mobileops/mobileops/internal/state"
	"github.com/mobileops/mobileops/internal/trust"
	"github.com/mobileops/mobileops/pkg/filehash"
)

// Source says where a package came from.
type Source struct {
	Text string // for people and for the record
	// Pinned is the key of packages that come with mobileops; nil: the keys
	// that are trusted on this host decide.
	Pinned *trust.PublicKey
}

// Plan is what an installation would do, for somebody to agree to.
type Plan struct {
	Manifest  *manifest.Manifest `json:"manifest"`
	Release   trust.Release      `json:"release"`
	KeyID     string             `json:"key_id"`
	Source    Source             `json:"-"`
	Installed *Record            `json:"installed,omitempty"` // what is there now
	Downgrade bool               `json:"downgrade"`           // it is older than what was installed here once
	// May is what the plugin may do, and Grew what of that is more than what
	// was accepted before. Without a version before, Grew is everything. That
	// somebody else signed it than the version before is news as well.
	May  []manifest.Line   `json:"may"`
	Grew []manifest.Change `json:"grew"`
	// Gaps are permissions that this host cannot enforce, and that nobody
	// accepted yet.
	Gaps []sandbox.Gap `json:"gaps"`

	pkg     *pack.Package
	digest  string
	without []sandbox.Layer // that somebody accepted to do without before
}

// Inspect proves a package and says what installing it would do. The package
// stays open: close the plan.
func (e *Engine) Inspect(ctx context.Context, pkg *pack.Package, src Source) (*Plan, error) {
	var keys pack.Verifier
	if src.Pinned != nil {
		keys = trust.Pinned(*src.Pinned)
	} else {
		k, err := trust.OpenKeys(e.opts.KeysDir)
		if err != nil {
			return nil, err
		}
		keys = k
	}
	if err := pkg.Verify(keys, e.opts.Now()); err != nil {
		return nil, err
	}
	m := pkg.Manifest
	if err := m.CheckPackaged(); err != nil {
		return nil, err
	}
	if err := m.CheckAgainst(e.opts.Reserved); err != nil {
		return nil, err
	}
	if src.Pinned == nil && slices.Contains(e.opts.Bundled, m.Name) {
		return nil, failure.Errorf(failure.Untrustworthy, "%s is the name of a plugin that comes with mobileops, and this is not that one (its author has to give it another name)", m.Name)
	}
	if err := m.CheckProduct(e.opts.Product); err != nil {
		return nil, err
	}
	if err := e.fence(m.Name, m.Permissions.Write, m.Permissions.Unix); err != nil {
		return nil, err
	}
	p := &Plan{Manifest: m, Release: pkg.Release, KeyID: pkg.Key.ID(), Source: src, May: m.List(), pkg: pkg, digest: digest(pkg.ManifestBytes)}
	var top uint64
	err := e.opts.State.View(ctx, func(tx *state.Tx) (err error) {
		if p.Installed, err = get(tx, m.Name); err != nil && !isNone(err) {
			return err
		}
		known, err := recall(tx, m.Name)
		top = known.Sequence
		return err
	})
	if err != nil {
		return nil, err
	}
	p.Downgrade = p.Release.Sequence < top
	accepted, err := e.accepted(ctx, p)
	if err != nil {
		return nil, err
	}
	if accepted == nil {
		for _, line := range p.May {
			p.Grew = append(p.Grew, manifest.Change{Kind: line.Kind, What: line.What, Meaning: line.Meaning})
		}
	} else {
		p.Grew = m.Grew(accepted)
		// What somebody did without for another account they might not for this.
		if accepted.Permissions.RunAs == m.Permissions.RunAs {
			p.without = p.Installed.Without
		}
	}
	if by := p.otherSigner(); by != nil {
		p.Grew = append(p.Grew, *by)
	}
	policy := e.policyOutline(m)
	for _, gap := range sandbox.Detect().Gaps(&policy) {
		if !slices.Contains(p.without, gap.Layer) {
			p.Gaps = append(p.Gaps, gap)
		}
	}
	return p, nil
}

// accepted returns the manifest of which everything was accepted; nil: nothing
// was, or nobody can say what. It refuses what is installed already, unless that
// is damaged.
func (e *Engine) accepted(ctx context.Context, p *Plan) (*manifest.Manifest, error) {
	r, name := p.Installed, p.Manifest.Name
	if r == nil {
		return nil, nil
	}
	for _, other := range []*Release{&r.Release, r.Previous} {
		if other != nil && other.Sequence == p.Release.Sequence && other.Manifest != p.digest {
			return nil, failure.Errorf(failure.Untrustworthy, "two packages of %s have sequence %d and differ: %s is installed, and this is %s (ask its author which one is meant)", name, other.Sequence, other.Version, p.Manifest.Version)
		}
	}
	if r.Manifest == p.digest && r.Sequence == p.Release.Sequence {
		_, err := e.open(ctx, name, &r.Release)
		if err == nil && r.Accepted != p.Manifest.PermissionsDigest() {
			return nil, nil // another mobileops saw other permissions in it
		}
		if err == nil {
			return nil, failure.Hint(failure.Errorf(failure.Busy, "%s %s is installed already", name, p.Manifest.Version), "prove it: mobileops plugin verify "+name)
		}
		if failure.KindOf(err) != failure.Untrustworthy {
			return nil, fmt.Errorf("what is installed of %s: %w", name, err)
		}
	}
	before, err := e.manifestOf(r)
	if err != nil || r.Accepted != before.PermissionsDigest() {
		return nil, nil // it is damaged, and cannot tell what it asked for
	}
	return before, nil
}

// Close gives back what the package takes.
func (p *Plan) Close() error { return p.pkg.Close() }

// otherSigner says that somebody else vouches for the package than for what is
// installed; nil: it is the same one, or nothing is. A key that is trusted for
// every name could otherwise take over a plugin by a higher sequence.
func (p *Plan) otherSigner() *manifest.Change {
	r := p.Installed
	if r == nil || r.Bundled && p.Source.Pinned != nil { // each build may have a key of its own
		return nil
	}
	before, err := trust.ParsePublicKey([]byte(r.Key))
	if err == nil && r.Bundled == (p.Source.Pinned != nil) && before.Ed25519.Equal(p.pkg.Key.Ed25519) {
		return nil
	}
	c := &manifest.Change{Kind: "signer", What: p.KeyID, Before: r.KeyID, Meaning: "is signed by another key than before, " + p.KeyID}
	if r.Bundled {
		c.Before, c.Meaning = "mobileops", c.Meaning+", and does not come with mobileops any more"
	}
	if p.Source.Pinned != nil {
		c.What, c.Meaning = "mobileops", "comes with mobileops now, and is not of who signed it before"
	}
	return c
}

// Unenforced are the gaps that somebody has to accept: those that are more than
// a weaker limit.
func (p *Plan) Unenforced() (gaps []sandbox.Gap) {
	for _, g := range p.Gaps {
		if !g.Weaker {
			gaps = append(gaps, g)
		}
	}
	return gaps
}

// digest is the BLAKE3 digest of a manifest.
func digest(data []byte) string {
	sum := filehash.SumBytes(data)
	return hex.EncodeToString(sum[:])
}

// open opens an installed release and proves it: by the key that signed it when
// it was installed, which must still be trusted, and down to every file of it.
// One that another command takes away meanwhile is no alarm.
func (e *Engine) open(ctx context.Context, name string, r *Release) (*manifest.Manifest, error) {
	for try := 0; ; try++ {
		m, err := e.prove(ctx, name, r)
		if err == nil || failure.KindOf(err) != failure.Untrustworthy {
			return m, err
		}
		now, gone := e.Get(ctx, name)
		switch {
		case gone != nil:
			return nil, gone
		case !sameRelease(&now.Release, r) && !sameRelease(now.Previous, r):
			return nil, errStale
		case try > 0: // it was not removed and installed again meanwhile
			return nil, err
		}
	}
}

func (e *Engine) prove(ctx context.Context, name string, r *Release) (*manifest.Manifest, error) {
	dir := e.packageDir(name, r)
	if err := e.checkPlaces(name); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	pkg, err := pack.Open(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, failure.Errorf(failure.Untrustworthy, "%s is not there any more (install the plugin again, or go back: mobileops plugin rollback %s)", dir, name)
	}
	if err != nil {
		return nil, err
	}
	defer pkg.Close()
	key, err := trust.ParsePublicKey([]byte(r.Key))
	if err != nil {
		return nil, failure.Errorf(failure.Untrustworthy, "the key that %s was signed by: %w", name, err)
	}
	keys := trust.Pinned(key)
	if !r.Bundled {
		if keys, err = trust.OpenKeys(e.opts.KeysDir); err != nil {
			return nil, err
		}
	}
	// Zero: it was current when it was installed.
	if err := pkg.Verify(keys, noTime); err != nil {
		return nil, err
	}
	switch {
	case digest(pkg.ManifestBytes) != r.Manifest:
		return nil, failure.Errorf(failure.Untrustworthy, "%s is signed, but it is not what was installed (install the plugin again)", filepath.Join(dir, manifest.FileName))
	case pkg.Manifest.Name != name:
		return nil, failure.Errorf(failure.Untrustworthy, "%s has plugin %q", dir, pkg.Manifest.Name)
	}
	// mobileops may be older than it was when that was installed.
	if err := pkg.Manifest.CheckProduct(e.opts.Product); err != nil {
		return nil, err
	}
	return pkg.Manifest, pack.VerifyDir(ctx, dir, pkg.Manifest)
}

// manifestOf reads the manifest of what is installed without proving more than
// that it is the one that was.
func (e *Engine) manifestOf(r *Record) (*manifest.Manifest, error) {
	return e.releaseManifest(r.Name, &r.Release)
}

func (e *Engine) releaseManifest(name string, r *Release) (*manifest.Manifest, error) {
	path := filepath.Join(e.packageDir(name, r), manifest.FileName)
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, failure.Wrap(failure.Untrustworthy, err)
	}
	if digest(data) != r.Manifest {
		return nil, failure.Errorf(failure.Untrustworthy, "%s is not what was installed (prove it: mobileops plugin verify %s)", path, name)
	}
	return manifest.Parse(data)
}

// Manifest reads the manifest of a plugin that is installed.
func (e *Engine) Manifest(ctx context.Context, name string) (*manifest.Manifest, *Record, error) {
	r, err := e.Get(ctx, name)
	if err != nil {
		return nil, nil, err
	}
	m, err := e.manifestOf(r)
	return m, r, err
}

// Verify proves a plugin that is installed: key, signature, manifest and every
// file, and that its configuration is valid.
func (e *Engine) Verify(ctx context.Context, name string) (*Record, error) {
	r, err := e.Get(ctx, name)
	if err != nil {
		return nil, err
	}
	m, err := e.open(ctx, name, &r.Release)
	if err != nil {
		return r, err
	}
	_, _, err = e.configured(m)
	return r, err
}
