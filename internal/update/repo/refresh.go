package repo

import (
	"context"
	"errors"
	"path/filepath"
	"time"

	"github.com/mobileops/mobileops/internal/durable"
	"github.com/theupdateframework/go-tuf/v2/metadata"
	"github.com/theupdateframework/go-tuf/v2/metadata/trustedmetadata"
	"golang.org/x/sys/unix"
)

// trusted is go-tuf's verification of a publication.
type trusted = *trustedmetadata.TrustedMetadata

// workflow is one walk through the roles. Expiry is looked at here and not in
// go-tuf, which would not let an expired publication be looked at, and does not
// say since when.
type workflow struct {
	c      *Client
	online bool
	v      *verified
	rec    *record // what was accepted before; nil: nothing
}

// refresh walks through the roles with the source, and keeps what it finds.
func (c *Client) refresh(ctx context.Context) (*verified, error) {
	w, err := c.walk(ctx, true)
	if err != nil {
		return nil, err
	}
	w.v.checked = c.opts.Now()
	if err := c.keep(ctx, w.v); err != nil {
		return nil, err
	}
	return w.v, nil
}

// load walks through the roles with what is here alone.
func (c *Client) load(ctx context.Context) (*verified, error) {
	w, err := c.walk(ctx, false)
	if err != nil {
		return nil, err
	}
	w.v.offline = true
	if w.rec != nil {
		w.v.checked = w.rec.Checked
	}
	return w.v, nil
}

func (c *Client) walk(ctx context.Context, online bool) (*workflow, error) {
	w := &workflow{c: c, online: online, v: &verified{bytes: map[string][]byte{}, digests: map[int64]string{}}}
	err := guarded(func() (err error) {
		w.v.set, err = trustedmetadata.New(c.opts.Root)
		return err
	})
	if err != nil {
		return nil, &Error{Code: CodeRoot, Role: metadata.ROOT, Msg: "the pinned root metadata cannot be used", Err: err,
			Hint: "update.repository_root is the root.json of the repository, as mobileops update repo init wrote it"}
	}
	w.v.set.RefTime = time.Time{}
	w.accept(metadata.ROOT, "", c.opts.Root)
	if err := w.roots(ctx); err != nil {
		return nil, err
	}
	if w.rec, err = c.readRecord(ctx, w.v.digests); err != nil {
		return nil, err
	}
	steps := []func(context.Context) error{w.root, w.timestamp, w.snapshot, w.targets}
	for _, step := range steps {
		if err := step(ctx); err != nil {
			return nil, err
		}
	}
	return w, nil
}

// accept remembers the bytes of what was verified.
func (w *workflow) accept(role, name string, data []byte) {
	if role == metadata.ROOT {
		v := w.v.set.Root.Signed.Version
		w.v.digests[v] = digestOf(data)
		name = rootName(v)
	}
	w.v.bytes[name] = data
}

// try verifies what is here of a role, if there is any.
func (w *workflow) try(name string, limit int64, verify func([]byte) error) bool {
	data := w.c.local.read(name, limit)
	if data == nil || guarded(func() error { return verify(data) }) != nil {
		return false
	}
	w.accept("", name, data)
	return true
}

// fetch gets a file of metadata from the source and verifies it.
func (w *workflow) fetch(ctx context.Context, role, remote, name string, limit int64, verify func([]byte) error) error {
	if !w.online {
		return neverSeen()
	}
	data, err := w.c.src.fetch(ctx, "metadata/"+remote, limit)
	var e *Error
	if errors.As(err, &e) && e.Role == "" {
		e.Role = role
	}
	if err != nil {
		return err
	}
	if err := guarded(func() error { return verify(data) }); err != nil {
		return verdict(role, err)
	}
	w.accept(role, name, data)
	return nil
}

func neverSeen() *Error {
	e := refuse(CodeNever, "", "nothing that was verified of the repository is here, or not all of it")
	e.Hint = "mobileops update check, while the repository can be reached"
	return e
}

// roots follows the chain of roots from the pinned one (TUF 5.3).
func (w *workflow) roots(ctx context.Context) error {
	update := func(data []byte) error { _, err := w.v.set.UpdateRoot(data); return err }
	for range w.c.opts.Limits.Rotations {
		next := rootName(w.v.set.Root.Signed.Version + 1)
		if data := w.c.local.read(next, w.c.opts.Limits.Root); data != nil && guarded(func() error { return update(data) }) == nil {
			w.accept(metadata.ROOT, next, data)
			continue
		}
		if !w.online {
			return nil
		}
		err := w.fetch(ctx, metadata.ROOT, next, next, w.c.opts.Limits.Root, update)
		if CodeOf(err) == CodeMissing {
			return nil
		}
		if err != nil {
			return err
		}
	}
	return refuse(CodeTooLarge, metadata.ROOT, "the repository has more than %d roots after the pinned one", w.c.opts.Limits.Rotations)
}

// floor refuses a version below the one that was accepted.
func (w *workflow) floor(role string, version int64) error {
	least := w.rec.version(role, w.v.set.Root)
	switch {
	case version >= least:
		return nil
	case w.online:
		return rolledBack(role, version, least)
	}
	return neverSeen() // older files were put back here: no news from the repository
}

// inTime refuses an expired role. What is only looked at may be expired.
func (w *workflow) inTime(role string, expires time.Time) error {
	if now := w.c.opts.Now(); w.online && now.After(expires) {
		return expired(role, expires, now)
	}
	return nil
}

func (w *workflow) root(context.Context) error {
	s := w.v.set.Root.Signed
	if err := w.floor(metadata.ROOT, s.Version); err != nil {
		return err
	}
	return w.inTime(metadata.ROOT, s.Expires)
}

// timestamp takes the one that is here first, below which go-tuf accepts none
// afterwards, and then the one of the source (TUF 5.4).
func (w *workflow) timestamp(ctx context.Context) error {
	update := func(data []byte) error { _, err := w.v.set.UpdateTimestamp(data); return err }
	here := w.try(timestampName, w.c.opts.Limits.Timestamp, update)
	if !here {
		w.v.set.Timestamp = nil
	}
	if w.online || !here {
		err := w.fetch(ctx, metadata.TIMESTAMP, timestampName, timestampName, w.c.opts.Limits.Timestamp, func(data []byte) error {
			err := update(data)
			switch {
			case here && errors.Is(err, &metadata.ErrEqualVersionNumber{}):
				return errSame
			case here && errors.Is(err, &metadata.ErrBadVersionNumber{}):
				return older(w.v.set.Timestamp, data)
			}
			return err
		})
		if err != nil && !errors.Is(err, errSame) {
			return err
		}
	}
	s := w.v.set.Timestamp.Signed
	if s.Meta["snapshot.json"] == nil {
		return refuse(CodeMalformed, metadata.TIMESTAMP, "the timestamp of the repository names no snapshot")
	}
	if err := w.floor(metadata.TIMESTAMP, s.Version); err != nil {
		return err
	}
	if err := w.floor(metadata.SNAPSHOT, s.Meta["snapshot.json"].Version); err != nil {
		return err
	}
	return w.inTime(metadata.TIMESTAMP, s.Expires)
}

// older says which role it is that a timestamp takes back. Its signature was
// verified before its version.
func older(here *metadata.Metadata[metadata.TimestampType], data []byte) error {
	got, err := metadata.Timestamp().FromBytes(data)
	if err != nil {
		return err
	}
	if got.Signed.Version < here.Signed.Version {
		return rolledBack(metadata.TIMESTAMP, got.Signed.Version, here.Signed.Version)
	}
	return rolledBack(metadata.SNAPSHOT, got.Signed.Meta["snapshot.json"].Version, here.Signed.Meta["snapshot.json"].Version)
}

// errSame says that the source has the timestamp that is here already.
var errSame = &Error{Code: CodeMix, Msg: "the timestamp is the same"}

// snapshot is the one that the timestamp names (TUF 5.5).
func (w *workflow) snapshot(ctx context.Context) error {
	meta := w.v.set.Timestamp.Signed.Meta["snapshot.json"]
	update := func(data []byte) error {
		w.v.set.Snapshot = nil // go-tuf keeps one that it refused
		_, err := w.v.set.UpdateSnapshot(data, false)
		return err
	}
	name := snapshotName(meta.Version)
	if limit := w.c.opts.Limits.Snapshot; !w.try(name, limit, update) {
		if err := w.fetch(ctx, metadata.SNAPSHOT, w.remote(name, "snapshot.json"), name, least(limit, meta.Length), update); err != nil {
			return err
		}
	}
	s := w.v.set.Snapshot.Signed
	if s.Meta["targets.json"] == nil {
		return refuse(CodeMalformed, metadata.SNAPSHOT, "the snapshot of the repository names no targets")
	}
	if err := w.floor(metadata.TARGETS, s.Meta["targets.json"].Version); err != nil {
		return err
	}
	return w.inTime(metadata.SNAPSHOT, s.Expires)
}

// targets are those that the snapshot names (TUF 5.6).
func (w *workflow) targets(ctx context.Context) error {
	meta := w.v.set.Snapshot.Signed.Meta["targets.json"]
	update := func(data []byte) error { _, err := w.v.set.UpdateTargets(data); return err }
	name := targetsName(meta.Version)
	if limit := w.c.opts.Limits.Targets; !w.try(name, limit, update) {
		if err := w.fetch(ctx, metadata.TARGETS, w.remote(name, "targets.json"), name, least(limit, meta.Length), update); err != nil {
			return err
		}
	}
	return w.inTime(metadata.TARGETS, w.v.set.Targets[metadata.TARGETS].Signed.Expires)
}

// remote is how the source calls a file of metadata.
func (w *workflow) remote(consistent, plain string) string {
	if w.v.set.Root.Signed.ConsistentSnapshot {
		return consistent
	}
	return plain
}

// least bounds a file by the length that signed metadata gives it, if any.
func least(limit, length int64) int64 {
	if length > 0 {
		return min(limit, length)
	}
	return limit
}

// keep writes what was verified, then the record of it. Processes that do it at
// the same time wait for each other, and one that comes with less than was
// accepted meanwhile is told so before it writes anything.
func (c *Client) keep(ctx context.Context, v *verified) error {
	if err := durable.MkdirAll(c.opts.Dir, 0o700); err != nil {
		return &Error{Code: CodeDisk, Err: err}
	}
	f, err := lockFile(ctx, filepath.Join(c.opts.Dir, "lock"))
	if err != nil {
		return &Error{Code: CodeDisk, Err: err}
	}
	defer f.Close()
	rec, err := c.readRecord(ctx, v.digests)
	if err != nil {
		return err
	}
	for role, version := range v.versions() {
		if before := rec.version(role, v.set.Root); version < before {
			return rolledBack(role, version, before)
		}
	}
	if err := c.local.save(v); err != nil {
		return &Error{Code: CodeDisk, Msg: "keep the metadata of the repository", Err: err, Hint: diskHint(err)}
	}
	return c.writeRecord(ctx, v)
}

func diskHint(err error) string {
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return "make room, and try again"
	}
	return ""
}
