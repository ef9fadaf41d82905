package store

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"

	"github.com/mobileops/mobileops/internal/durable"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/state"
)

// catalogueFile keeps, in a store that was set aside, what state.db said of it.
const catalogueFile = "catalogue.json"

// AsideSchema names the format of the catalogue of a store that was set aside.
const AsideSchema = "mobileops.logs.catalogue/v1"

// asideCatalogue is the catalogue as it is kept.
type asideCatalogue struct {
	Schema   string          `json:"schema"`
	Store    string          `json:"store"`
	Leaves   uint64          `json:"leaves"`
	Root     Hash            `json:"root"`
	Seal     *Seal           `json:"seal,omitempty"`
	Holds    []Hold          `json:"holds"`
	Segments []SegmentRecord `json:"segments"`
}

// SetAside keeps a store that cannot be trusted any more as evidence, under
// the name that it returns, so that collecting can begin anew. The catalogue
// goes with it. Cursors stay: sources are read on from where segments were made
// of them, so that what was only in the write-ahead log is taken in again. The
// error is Busy while a collector is at work.
func (s *Store) SetAside(ctx context.Context) (kept string, err error) {
	writing, err := s.opts.State.Lock("logs", "logs set aside")
	if err != nil {
		return "", err
	}
	defer writing.Release()
	lock, err := s.exclusive(ctx, "logs set aside")
	if err != nil {
		return "", err
	}
	defer lock.Release()
	x, err := s.mustIndex(ctx)
	if err != nil {
		return "", err
	}
	c := asideCatalogue{Schema: AsideSchema, Store: x.store.String(), Leaves: x.tree.size, Root: x.tree.root(), Seal: x.seal, Holds: x.holds}
	for i := range x.entries {
		c.Segments = append(c.Segments, x.entries[i].SegmentRecord)
	}
	b, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return "", err
	}
	if err := durable.WriteFile(filepath.Join(s.opts.Dir, catalogueFile), append(b, '\n'), 0o600); err != nil {
		return "", access(err)
	}
	kept = s.opts.Dir + ".aside-" + s.opts.Now().UTC().Format("20060102T150405.000Z")
	if _, err := os.Lstat(kept); err == nil {
		return "", failure.Errorf(failure.Failed, "%s is there already", kept)
	}
	// Killed between the two, nothing is collected until somebody moves the
	// directory away by hand, as the error then says; nothing is lost.
	err = s.opts.State.Update(ctx, func(tx *state.Tx) error {
		for _, name := range []string{storeBucket, catalogueBucket} {
			if tx.Bucket([]byte(name)) == nil {
				continue
			}
			if err := tx.DeleteBucket([]byte(name)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return "", err
	}
	if err := os.Rename(s.opts.Dir, kept); err != nil {
		return "", access(err)
	}
	return kept, durable.SyncDir(filepath.Dir(kept))
}

// History calls fn with each record of the Merkle log and its number, from the
// beginning. It does not verify seals; that the log cannot be followed is
// ErrTampered.
func (s *Store) History(ctx context.Context, fn func(leaf uint64, r *Record) error) error {
	x, err := s.index(ctx)
	if err != nil || x == nil {
		return err
	}
	leaf := uint64(0)
	return s.history(ctx, x, func(op *operation) error {
		for _, r := range op.records {
			if r.Seal != nil {
				r.Seal.Store = x.store.String()
			}
			if err := fn(leaf, r); err != nil {
				return err
			}
			leaf++
		}
		return nil
	})
}

// MarshalText makes the kind its name in JSON.
func (k Kind) MarshalText() ([]byte, error) {
	if k.String() == "unknown" {
		return nil, errors.New("no kind of record")
	}
	return []byte(k.String()), nil
}
