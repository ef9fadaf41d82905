package integrity

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/integrity/baseline"
	"github.com/mobileops/mobileops/internal/integrity/history"
	"github.com/mobileops/mobileops/internal/state"
)

// ErrNoBaseline is wrapped when a name has no baseline.
var ErrNoBaseline = failure.New(failure.NotReady, "no baseline")

// Entry is a baseline in the catalogue.
type Entry struct {
	baseline.Header
	Root      baseline.Hash `json:"root"` // Merkle root
	FileBytes int64         `json:"file_bytes"`
	Imported  bool          `json:"imported,omitempty"` // taken elsewhere
	Current   bool          `json:"current"`            // the one that check and verify use for its name
	Sequence  uint64        `json:"sequence"`           // order in which they were catalogued
	Owners    baseline.Hash `json:"owners,omitzero"`    // BLAKE3 of the table of packages beside it; zero: there is none
	Facts     baseline.Hash `json:"facts,omitzero"`     // BLAKE3 of the facts beside it, of the aspects below; zero: there are none
	Aspects   []string      `json:"aspects,omitempty"`  // beside files
}

// The catalogue in state.db: bucket "integrity.baselines" has the id of each
// baseline → Entry as JSON, "integrity.current" name → id. "integrity.pending"
// has id → name of files that may exist without being in the catalogue. Other
// files that are not in it are left alone: after a state.db was lost or
// restored they are all that is left, and can be imported again.
var (
	catalogBucket = []byte("integrity.baselines")
	currentBucket = []byte("integrity.current")
	pendingBucket = []byte("integrity.pending")
)

// List returns the baselines, those of one name from the newest to the oldest.
func (e *Engine) List(ctx context.Context) ([]Entry, error) {
	var list []Entry
	err := e.Store.View(ctx, func(tx *state.Tx) (err error) {
		list, err = entries(tx)
		return err
	})
	slices.SortFunc(list, func(a, b Entry) int {
		return cmp.Or(strings.Compare(a.Name, b.Name), cmp.Compare(b.Sequence, a.Sequence))
	})
	return list, err
}

func entries(tx *state.Tx) ([]Entry, error) {
	b, current := tx.Bucket(catalogBucket), tx.Bucket(currentBucket)
	if b == nil || current == nil {
		return nil, nil
	}
	var list []Entry
	err := b.ForEach(func(k, v []byte) error {
		var e Entry
		if err := json.Unmarshal(v, &e); err != nil {
			return failure.Errorf(failure.Untrustworthy, "catalogue: baseline %s: %w", k, err)
		}
		e.Current = bytes.Equal(current.Get([]byte(e.Name)), k)
		list = append(list, e)
		return nil
	})
	return list, err
}

// Find returns the baseline that name stands for: the current one of that
// name, or the one whose id begins with the part behind an "@", as in
// "default@3f2a".
func (e *Engine) Find(ctx context.Context, name string) (Entry, error) {
	// A name that no baseline can have, such as that of an empty variable in a
	// script, is a mistake, and no reason to take a baseline.
	if bare, _, _ := strings.Cut(name, "@"); CheckName(bare) != nil {
		return Entry{}, CheckName(bare)
	}
	list, err := e.List(ctx)
	if err != nil {
		return Entry{}, err
	}
	c, err := find(list, name)
	if errors.Is(err, ErrNoBaseline) && !strings.Contains(name, "@") {
		// To "create one" would be the wrong advice when somebody took it away.
		if _, v, pastErr := e.Past(ctx); pastErr == nil {
			if want := v.Current(name); want != nil {
				return Entry{}, failure.Hint(failure.Errorf(failure.Untrustworthy, "the baseline %s@%.8s of record %d is gone from the catalogue, and no record says who removed it", name, want.ID, want.Counter),
					findWho+name)
			}
			if v.Head == nil && len(v.Problems) > 0 {
				p := v.Problems[0]
				return Entry{}, failure.Hint(failure.Errorf(failure.Untrustworthy, "no baseline named %q, and the history that would know of one cannot be followed: %s", name, p.What), p.Next)
			}
		}
	}
	return c, err
}

func find(list []Entry, ref string) (Entry, error) {
	name, id, byID := strings.Cut(ref, "@")
	var found []Entry
	for _, c := range list {
		if c.Name == name && (byID && strings.HasPrefix(c.ID, id) || !byID && c.Current) {
			found = append(found, c)
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		hint := "create one: mobileops integrity baseline"
		if name != DefaultName {
			hint += " --name " + name
		}
		if len(list) > 0 {
			hint += "; existing ones: mobileops integrity baseline list"
		}
		return Entry{}, failure.Hint(&noBaselineError{ref}, hint)
	}
	return Entry{}, failure.Errorf(failure.Usage, "%q stands for several baselines: write more digits of the id", ref)
}

// DefaultName is the name of the baseline that is meant when none is given.
const DefaultName = "default"

type noBaselineError struct{ name string }

func (e *noBaselineError) Error() string { return fmt.Sprintf("no baseline named %q", e.name) }
func (e *noBaselineError) Unwrap() error { return ErrNoBaseline }

// CheckName tells whether a name can be given to a baseline: up to 64 letters,
// digits and "-_.", beginning with a letter or a digit.
func CheckName(name string) error {
	ok := name != "" && len(name) <= 64
	for i, c := range []byte(name) {
		alnum := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		ok = ok && (alnum || i > 0 && (c == '-' || c == '_' || c == '.'))
	}
	if !ok {
		return failure.Errorf(failure.Usage, "%q cannot be a baseline's name: use up to 64 letters, digits, '-', '_' and '.'", name)
	}
	return nil
}

// Open opens a catalogued baseline and verifies it against its Merkle root, and
// its entry against its header.
func (e *Engine) Open(c Entry) (*baseline.Reader, error) {
	r, err := e.open(c)
	if err != nil {
		return nil, err
	}
	if p := c.restore(&r.Header); p != nil {
		r.Close()
		return nil, failure.Hint(fmt.Errorf("%w: %s", baseline.ErrDamaged, p.What), p.Next)
	}
	return r, nil
}

// open is Open without a look at the entry.
func (e *Engine) open(c Entry) (*baseline.Reader, error) {
	r, err := baseline.Open(e.file(c), c.Root)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, failure.Hint(fmt.Errorf("%w: its file %s is missing", baseline.ErrDamaged, e.file(c)),
			"import a copy: mobileops integrity baseline import")
	}
	return r, err
}

// restore gives an entry the header that is in the baseline's file. The
// catalogue has a copy of it, which says where the tree is, what of it could
// not be read, and how much there is; only the one in the file is below the
// root, so a copy that differs was altered, which is a problem. The name is the
// history's affair: an import may change it.
func (c *Entry) restore(h *baseline.Header) *history.Problem {
	there := *h
	there.ID, there.Name = c.ID, c.Name
	a, err := json.Marshal(&c.Header)
	b, err2 := json.Marshal(&there)
	if errors.Join(err, err2) == nil && bytes.Equal(a, b) && h.ID == c.ID {
		return nil
	}
	c.Header = there
	return &history.Problem{
		What: fmt.Sprintf("the entry of baseline %s@%.8s in the catalogue says something else than its file: it was altered", c.Name, c.ID),
		Next: findWho + c.Name,
	}
}

// findWho is what to do about an altered catalogue; the name belongs behind it.
const findWho = "find out who did that; then take a new baseline: mobileops integrity baseline --name "

func (e *Engine) file(c Entry) string { return e.path(c.ID + baseline.Ext) }

// catalogue makes a finished baseline the current one of its name, with a
// record of it in the history, and drops the oldest of that name beyond e.Keep.
func (e *Engine) catalogue(ctx context.Context, c *Entry, act Act) error {
	keep := e.Keep
	if keep <= 0 {
		keep = 3
	}
	if act.Kind == history.Acceptance {
		// It builds on what the history vouches for; a baseline begins afresh.
		if _, v, err := e.Past(ctx); err != nil {
			return err
		} else if len(v.Problems) > 0 {
			return failure.Hint(fmt.Errorf("%w: %s", history.ErrBroken, v.Problems[0].What), "nothing was accepted; see mobileops integrity history")
		}
	}
	pen, err := e.History().Pen(ctx)
	if err != nil {
		return err
	}
	var old []Entry
	err = e.Store.Update(ctx, func(tx *state.Tx) error {
		if err := e.adopt(tx, pen); err != nil {
			return err
		}
		b, err := tx.CreateBucketIfNotExists(catalogBucket)
		if err != nil {
			return err
		}
		current, err := tx.CreateBucketIfNotExists(currentBucket)
		if err != nil {
			return err
		}
		pending, err := tx.CreateBucketIfNotExists(pendingBucket)
		if err != nil {
			return err
		}
		if b.Get([]byte(c.ID)) != nil {
			return failure.Errorf(failure.Busy, "baseline %s@%s is in the catalogue already", c.Name, c.ID)
		}
		if c.Sequence, err = b.NextSequence(); err != nil {
			return err
		}
		v, err := json.Marshal(c)
		if err != nil {
			return err
		}
		if err := errors.Join(b.Put([]byte(c.ID), v), current.Put([]byte(c.Name), []byte(c.ID))); err != nil {
			return err
		}
		list, err := entries(tx)
		if err != nil {
			return err
		}
		list = slices.DeleteFunc(list, func(o Entry) bool { return o.Name != c.Name })
		slices.SortFunc(list, func(a, b Entry) int { return cmp.Compare(b.Sequence, a.Sequence) })
		old = list[min(keep, len(list)):]
		for _, o := range old {
			if err := b.Delete([]byte(o.ID)); err != nil {
				return err
			}
		}
		if err := e.record(tx, pen, *c, act); err != nil {
			return err
		}
		return errors.Join(setPending(tx, old...), pending.Delete([]byte(c.ID)))
	})
	if err != nil {
		return err
	}
	c.Current = true
	e.removeFiles(old)
	return nil
}

// filesOf returns the paths of a baseline's file and of those beside it that go
// with it.
func (e *Engine) filesOf(c Entry) []string {
	return []string{e.file(c), e.readsFile(c), e.ownersFile(c), e.contentsFile(c), e.factsFile(c)}
}

// removeFiles removes the files of baselines that are no longer catalogued.
// They are pending, so one that stays behind goes with the next run.
func (e *Engine) removeFiles(list []Entry) {
	for _, c := range list {
		for _, path := range e.filesOf(c) {
			os.Remove(path)
		}
	}
}

// Remove drops the baseline that ref stands for; when that is a plain name,
// all of that name. It returns what was dropped.
func (e *Engine) Remove(ctx context.Context, ref string) ([]Entry, error) {
	name, _, byID := strings.Cut(ref, "@")
	l, err := e.lock(ctx, name, "integrity baseline remove")
	if err != nil {
		return nil, err
	}
	defer l.Release()
	pen, err := e.History().Pen(ctx)
	if err != nil {
		return nil, err
	}
	var gone []Entry
	err = e.Store.Update(ctx, func(tx *state.Tx) error {
		if err := e.adopt(tx, pen); err != nil {
			return err
		}
		list, err := entries(tx)
		if err != nil {
			return err
		}
		c, err := find(list, ref)
		if err != nil {
			return err
		}
		gone = []Entry{c}
		if !byID {
			gone = slices.DeleteFunc(list, func(o Entry) bool { return o.Name != name })
		}
		for _, o := range gone {
			if err := tx.Bucket(catalogBucket).Delete([]byte(o.ID)); err != nil {
				return err
			}
			if o.Current {
				if err := tx.Bucket(currentBucket).Delete([]byte(name)); err != nil {
					return err
				}
			}
			if err := e.record(tx, pen, o, Act{Kind: history.Removal}); err != nil {
				return err
			}
		}
		return setPending(tx, gone...)
	})
	if err != nil {
		return nil, err
	}
	e.removeFiles(gone)
	return gone, nil
}
