package repo

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/trust"
	"github.com/theupdateframework/go-tuf/v2/metadata"
)

// RotateOptions say which key replaces which.
type RotateOptions struct {
	Roles []string // for which the key is replaced
	// Old is the key that goes. When it is lost, OldID says which one it is: its
	// TUF key ID, or the first 8 digits of it or more.
	Old   trust.Signer
	OldID string
	New   trust.Signer
	// Root are the root keys that sign the new root, beside Old and New.
	Root []trust.Signer
	// Signers returns the keys of the other roles that have something to sign.
	Signers func(role string) ([]trust.Signer, error)
}

// Rotation is what came of replacing a key.
type Rotation struct {
	Root  Role
	OldID string // TUF key IDs
	NewID string
	Roles []string
	// Gap says that hosts refuse the repository between two steps, some
	// milliseconds long: the old key was not there to bridge them.
	Gap bool
}

// Rotate replaces a key. The new root is signed by the threshold of the old one
// and of the new one. What the roles had signed is signed by both keys before
// the new root appears, so that hosts with the old root and with the new one
// accept it at any moment, also when this is killed in between.
func (p *Publisher) Rotate(ctx context.Context, o RotateOptions) (*Rotation, error) {
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
	r := &Rotation{Roles: o.Roles}
	if r.OldID, err = o.oldID(now.Root); err != nil {
		return nil, err
	}
	if r.NewID, err = keyID(o.New); err != nil {
		return nil, err
	}
	next, err := replaceKey(p, set, now.Root, o, r)
	if err != nil {
		return nil, err
	}
	signers := o.Root
	if slices.Contains(o.Roles, metadata.ROOT) {
		signers = append(slices.Clone(signers), o.New)
		if o.Old != nil {
			signers = append(signers, o.Old)
		}
	}
	if err := sign(ctx, next, signers); err != nil {
		return nil, err
	}
	if err := follows(now.Root, next); err != nil {
		return nil, err
	}
	w := newWriter(p, set, now)
	if err := w.bridge(o, r); err != nil {
		return nil, err
	}
	// Until all is done the new key and the old one are known, so that a
	// publication finds one that serves, wherever this is killed.
	for _, role := range o.Roles {
		set.Keys[role] = append(set.Keys[role], o.New.String())
	}
	if err := writeJSON(p.private("repository.json"), set); err != nil {
		return nil, err
	}
	name := rootName(next.Signed.Version)
	if r.Gap {
		w.root = next
		err = writeRole(p, name, next)
	}
	if err == nil && len(w.signs) > 0 {
		err = w.write(ctx)
	}
	if err == nil && !r.Gap {
		err = writeRole(p, name, next)
	}
	if err != nil {
		return nil, err
	}
	for _, role := range o.Roles {
		set.Keys[role] = forgetSpec(set.Keys[role], o, role)
	}
	r.Root = Role{metadata.ROOT, next.Signed.Version, next.Signed.Expires}
	return r, writeJSON(p.private("repository.json"), set)
}

// oldID finds the key that goes among those of the root.
func (o *RotateOptions) oldID(root *metadata.Metadata[metadata.RootType]) (string, error) {
	if o.Old != nil {
		return keyID(o.Old)
	}
	var found []string
	for id := range root.Signed.Keys {
		if len(o.OldID) >= 8 && strings.HasPrefix(id, strings.ToLower(o.OldID)) {
			found = append(found, id)
		}
	}
	if len(found) != 1 {
		return "", failure.Hint(failure.Errorf(failure.Usage, "%q is neither a key that can be opened nor 8 or more digits of the ID of one key of the repository", o.OldID),
			"see them: mobileops update repo show")
	}
	return found[0], nil
}

// replaceKey makes the next root, without signatures.
func replaceKey(p *Publisher, set *settings, root *metadata.Metadata[metadata.RootType], o RotateOptions, r *Rotation) (*metadata.Metadata[metadata.RootType], error) {
	next, err := nextRoot(root, p.expiry(set, metadata.ROOT))
	if err != nil {
		return nil, err
	}
	k, err := tufKey(o.New)
	if err != nil {
		return nil, err
	}
	if len(o.Roles) == 0 {
		return nil, failure.Errorf(failure.Usage, "no role was named: %s", strings.Join(Roles(), ", "))
	}
	for _, role := range o.Roles {
		if next.Signed.Roles[role] == nil || !slices.Contains(Roles(), role) {
			return nil, failure.Errorf(failure.Usage, "%q is none of the roles %s", role, strings.Join(Roles(), ", "))
		}
		if slices.Contains(next.Signed.Roles[role].KeyIDs, r.NewID) {
			return nil, failure.Errorf(failure.Busy, "%s has the key %s already", role, o.New)
		}
		if err := next.Signed.RevokeKey(r.OldID, role); err != nil {
			return nil, failure.Hint(failure.Errorf(failure.Usage, "%s does not have the key %s", role, r.OldID[:16]), "see whose keys it has: mobileops update repo show")
		}
		if err := next.Signed.AddKey(k, role); err != nil {
			return nil, err
		}
	}
	return next, nil
}

// bridge makes new versions of what the roles had signed, by both keys.
func (w *writer) bridge(o RotateOptions, r *Rotation) error {
	var again []string // roles that sign anew: what names a new version is a new version, too
	for _, role := range []string{metadata.TARGETS, metadata.SNAPSHOT, metadata.TIMESTAMP} {
		if slices.Contains(o.Roles, role) || len(again) > 0 {
			again = append(again, role)
		}
	}
	for _, role := range again {
		if !slices.Contains(o.Roles, role) {
			if err := w.ask(role, o.Signers); err != nil {
				return err
			}
			continue
		}
		w.signs[role] = true
		w.bump(role)
		w.signers[role] = []trust.Signer{o.New}
		if o.Old == nil {
			r.Gap = true
			continue
		}
		if err := mayServe(w.root, role, o.Old); err != nil {
			return fmt.Errorf("the old key: %w", err)
		}
		w.signers[role] = append(w.signers[role], o.Old)
	}
	return nil
}

// forgetSpec leaves the old key out of the specifications of a role. Which one
// it is can be told only when it could be opened; of a role with one key it is
// all but the new one.
func forgetSpec(specs []string, o RotateOptions, role string) []string {
	fresh := o.New.String()
	return slices.DeleteFunc(slices.Compact(slices.Clone(specs)), func(s string) bool {
		if o.Old != nil {
			return s == o.Old.String() && s != fresh
		}
		return s != fresh && role != metadata.ROOT
	})
}
