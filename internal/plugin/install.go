package plugin

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/mobileops/mobileops/internal/durable"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/plugin/host"
	"github.com/mobileops/mobileops/internal/plugin/pack"
	"github.com/mobileops/mobileops/internal/state"
)

// noTime asks for no expiry.
var noTime time.Time

// Consent is what somebody agreed to who saw a Plan.
type Consent struct {
	Permissions bool   // all of Plan.Grew
	Unenforced  bool   // all of Plan.Unenforced
	Downgrade   bool   // an older one than there was
	Disabled    bool   // one that was not there stays disabled until Enable
	By          string // who
}

// check says what is missing, and which flag answers it.
func (p *Plan) check(c Consent) error {
	var missing []error
	if p.Downgrade && !c.Downgrade {
		missing = append(missing, failure.Errorf(failure.Untrustworthy, "%s %s (sequence %d) is older than what was installed here (if that is meant: --allow-downgrade)", p.Manifest.Name, p.Manifest.Version, p.Release.Sequence))
	}
	if len(p.Grew) > 0 && !c.Permissions {
		var what []string
		for _, g := range p.Grew {
			what = append(what, g.Meaning)
		}
		missing = append(missing, failure.Errorf(failure.Usage, "%s %s wants permissions that nobody accepted: it %s (accept them: --accept-permissions)", p.Manifest.Name, p.Manifest.Version, strings.Join(what, "; ")))
	}
	for _, g := range p.Unenforced() {
		if !c.Unenforced {
			missing = append(missing, failure.Errorf(failure.NotReady, "%s cannot be enforced on this host: %s (to do without: --accept-unenforced)", g.Permission, g.Why))
		}
	}
	return errors.Join(missing...)
}

// Install installs what was inspected, and keeps the version before for
// Rollback. After an error without a record nothing has changed; with one it is
// installed, and something that came after that failed.
func (e *Engine) Install(ctx context.Context, p *Plan, c Consent) (*Record, error) {
	if err := p.check(c); err != nil {
		return nil, err
	}
	name := p.Manifest.Name
	lock, err := e.lock("plugin install " + name)
	if err != nil {
		return nil, err
	}
	defer lock.Release()
	// What was planned may have been asked about for hours. Until the lock is
	// given back only a restored state can change it.
	if err := e.opts.State.View(ctx, func(tx *state.Tx) error { _, err := p.still(tx); return err }); err != nil {
		return nil, err
	}
	if err := e.sweep(ctx); err != nil { // what is left takes room, and data that was to go would be its own
		return nil, err
	}
	if len(p.Manifest.Config) > 0 {
		// A convenience for who writes the configuration next.
		_ = durable.MkdirAll(e.opts.ConfigDir, 0o755)
	}
	if err := e.makeDirs(name); err != nil {
		return nil, errors.Join(err, e.tidy(name))
	}
	release := Release{
		Version: p.Manifest.Version, Sequence: p.Release.Sequence, Key: string(p.pkg.Key.File()), KeyID: p.KeyID, Bundled: p.Source.Pinned != nil,
		Source: p.Source.Text, Manifest: p.digest, Installed: e.opts.Now().UTC().Truncate(time.Second), By: c.By, Accepted: p.Manifest.PermissionsDigest(),
	}
	for _, g := range p.Unenforced() {
		release.Without = append(release.Without, g.Layer)
	}
	for _, l := range p.without { // what was accepted before stays accepted
		if !slices.Contains(release.Without, l) {
			release.Without = append(release.Without, l)
		}
	}
	err = e.lay(ctx, p, &release)
	var r *Record
	if err == nil {
		r, err = e.record(ctx, p, release, !c.Disabled)
	}
	if err != nil {
		return nil, errors.Join(err, e.sweep(context.WithoutCancel(ctx)))
	}
	return r, errors.Join(e.writeIndex(ctx), e.sweep(ctx))
}

// tidy removes the directory of a plugin when there is nothing in it.
func (e *Engine) tidy(name string) error {
	err := os.Remove(e.installedDir(name))
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, os.ErrExist) {
		return nil
	}
	return err
}

// still returns the record that a plan was made for; errStale when it is not
// what is there any more, or is a downgrade by now.
func (p *Plan) still(tx *state.Tx) (*Record, error) {
	name := p.Manifest.Name
	now, err := get(tx, name)
	if err != nil && !isNone(err) {
		return nil, err
	}
	known, err := recall(tx, name)
	if err != nil {
		return nil, err
	}
	if !sameRecord(now, p.Installed) || known.Sequence > p.Release.Sequence && !p.Downgrade {
		return nil, errStale
	}
	return now, nil
}

// sameRecord tells whether two records are of the same releases; nil: of none.
func sameRecord(a, b *Record) bool {
	if a == nil || b == nil {
		return a == b
	}
	return sameRelease(&a.Release, &b.Release) && sameRelease(a.Previous, b.Previous)
}

func sameRelease(a, b *Release) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.Manifest == b.Manifest && a.Sequence == b.Sequence && a.Accepted == b.Accepted
}

// lay puts the package where its release is.
func (e *Engine) lay(ctx context.Context, p *Plan, r *Release) error {
	name := p.Manifest.Name
	dst := e.packageDir(name, r)
	if now := p.Installed; now != nil {
		// Going back to the version before by installing it, say. It is there,
		// with the same manifest, and must not be missing at any moment.
		for _, there := range []*Release{&now.Release, now.Previous} {
			if there == nil || e.packageDir(name, there) != dst || there.Key != r.Key {
				continue
			}
			if _, err := e.open(ctx, name, there); err == nil {
				return nil
			}
		}
	}
	partial := filepath.Join(e.installedDir(name), fmt.Sprintf("%s%d", partialPrefix, os.Getpid()))
	if err := pack.Discard(partial); err != nil {
		return err
	}
	if err := p.pkg.Unpack(ctx, partial); err != nil {
		return err
	}
	// What is there is of no record, or damaged.
	err := pack.Discard(dst)
	if err == nil {
		err = os.Rename(partial, dst)
	}
	if err != nil {
		return errors.Join(err, pack.Discard(partial))
	}
	return durable.SyncDir(e.installedDir(name))
}

// record makes the release what runs.
func (e *Engine) record(ctx context.Context, p *Plan, release Release, enabled bool) (*Record, error) {
	r := &Record{Name: p.Manifest.Name, Release: release, Enabled: enabled}
	err := e.opts.State.Update(ctx, func(tx *state.Tx) error {
		now, err := p.still(tx)
		if err != nil {
			return err
		}
		if now != nil {
			before := now.Release
			r.Previous, r.Enabled, r.Start = &before, now.Enabled, now.Start
			if before.Manifest == release.Manifest { // it was damaged and is whole again, or was signed anew
				r.Previous = now.Previous
			}
		}
		if r.Account, err = e.assign(tx, r.Name, p.Manifest); err != nil {
			return err
		}
		// A plugin that cannot have a place for its data is not installed.
		if err := e.makeData(r); err != nil {
			return err
		}
		if err := remember(tx, r.Name, release.Sequence, r.Account); err != nil {
			return err
		}
		return put(tx, r)
	})
	if err != nil {
		return nil, err
	}
	return r, nil
}

// Rollback makes the version before the one that runs. Its permissions were
// accepted when it was installed.
func (e *Engine) Rollback(ctx context.Context, name string) (*Record, error) {
	r, err := e.Get(ctx, name)
	if err != nil {
		return nil, err
	}
	if r.Previous == nil {
		return nil, failure.Errorf(failure.No, "no version of %s before %s is kept", name, r.Release.Version)
	}
	if _, err := e.open(ctx, name, r.Previous); err != nil {
		return nil, fmt.Errorf("%s %s: %w", name, r.Previous.Version, err)
	}
	from := r
	return e.change(ctx, name, "plugin rollback "+name, func(tx *state.Tx, r *Record) error {
		if !sameRecord(r, from) {
			return errStale
		}
		before := *r.Previous
		now := r.Release
		r.Release, r.Previous = before, &now
		// Who it runs as is that of the version, too.
		m, err := e.manifestOf(r)
		if err != nil {
			return err
		}
		if r.Account, err = e.assign(tx, name, m); err != nil {
			return err
		}
		if err := e.makeData(r); err != nil {
			return err
		}
		return remember(tx, name, 0, r.Account)
	})
}

// Uninstall removes a plugin, and with data what it kept. Its service must not
// run.
func (e *Engine) Uninstall(ctx context.Context, name string, data bool) (*Record, error) {
	lock, err := e.lock("plugin uninstall " + name)
	if err != nil {
		return nil, err
	}
	defer lock.Release()
	var r *Record
	err = e.opts.State.Update(ctx, func(tx *state.Tx) (err error) {
		if r, err = get(tx, name); err != nil {
			return err
		}
		if data {
			if err := errors.Join(host.Forget(tx, name), condemn(tx, name)); err != nil {
				return err
			}
		}
		return tx.Bucket([]byte(bucket)).Delete([]byte(name))
	})
	if err != nil {
		return nil, err
	}
	// Sweeping comes first: on a full disk the index finds the room that it makes.
	return r, errors.Join(e.sweep(ctx), e.writeIndex(ctx))
}
