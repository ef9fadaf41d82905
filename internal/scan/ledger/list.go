package ledger

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/finding"
	"github.com/mobileops/mobileops/internal/state"
)

// Filter says which items List returns. A zero member lets everything pass.
type Filter struct {
	Asset      string // its id
	States     []State
	Classes    []Class
	Severities []Severity
	ID         string    // with * for any characters; also of an alias
	Package    string    // the same
	Since      time.Time // first seen, or come back, at or after it
}

func (f *Filter) header(h *header) bool {
	gone := slices.Contains(f.States, Resolved)
	return (len(f.Classes) == 0 || slices.Contains(f.Classes, h.class)) &&
		(len(f.Severities) == 0 || slices.Contains(f.Severities, h.severity)) &&
		(len(f.States) == 0 || gone && (h.standing == resolved || len(f.States) > 1) || !gone && h.standing != resolved)
}

func (f *Filter) item(i *Item) bool {
	if len(f.States) > 0 && !slices.Contains(f.States, i.State) ||
		!f.Since.IsZero() && later(i.FirstSeen, i.ReopenedAt).Before(f.Since) ||
		!wildcard(f.Package, i.Package) && !wildcard(f.Package, i.Subject) {
		return false
	}
	return wildcard(f.ID, i.ID) || slices.ContainsFunc(i.Aliases, func(a string) bool { return wildcard(f.ID, a) })
}

// List returns the items that pass the filter as they stand at now, in order of
// urgency.
func (l Ledger) List(tx *state.Tx, f Filter, now time.Time) ([]Item, error) {
	list := []Item{}
	err := shelves(tx, f.Asset, func(s *shelf) error {
		d, err := loadDecisions(tx, s, now)
		if err != nil {
			return err
		}
		return s.items.ForEach(func(k, v []byte) error {
			h, err := readHeader(k, v)
			if err != nil || !f.header(&h) {
				return err
			}
			i, err := s.read(k, v, d)
			if err == nil && f.item(&i) {
				list = append(list, i)
			}
			return err
		})
	})
	Sort(list, now)
	return list, err
}

// read returns a stored item with what is decided about it.
func (s *shelf) read(k, v []byte, d *decisions) (Item, error) {
	r, err := readRecord(k, v)
	if err != nil {
		return Item{}, err
	}
	i, err := r.item(s)
	if err != nil {
		return i, err
	}
	return i, d.note(&i)
}

// MinPrefix is how many digits of a key people have to type at least.
const MinPrefix = 4

// Find returns the item whose key begins with a prefix of at least MinPrefix
// hexadecimal digits. Several are a usage error.
func (l Ledger) Find(tx *state.Tx, prefix string, now time.Time) (*Item, error) {
	low := strings.ToLower(prefix)
	if len(low) < MinPrefix || len(low) > 32 || strings.Trim(low, "0123456789abcdef") != "" {
		return nil, failure.Errorf(failure.Usage, "%q is no key of an item: it has %d to 32 hexadecimal digits", clip(prefix, 64), MinPrefix)
	}
	var found []Item
	err := shelves(tx, "", func(s *shelf) error {
		d, err := loadDecisions(tx, s, now)
		if err != nil {
			return err
		}
		return s.items.ForEach(func(k, v []byte) error {
			if !strings.HasPrefix(fmt.Sprintf("%x", k), low) {
				return nil
			}
			i, err := s.read(k, v, d)
			found = append(found, i)
			return err
		})
	})
	switch {
	case err != nil:
		return nil, err
	case len(found) == 0:
		return nil, fmt.Errorf("%w: no key begins with %q", ErrNotFound, low)
	case len(found) > 1:
		return nil, failure.Errorf(failure.Usage, "%q can mean %d items: type more of it", low, len(found))
	}
	Sort(found, now)
	return &found[0], nil
}

// Forget removes everything that is known of an asset, and resolves the findings
// about it. Waivers and documents stay.
func (l Ledger) Forget(tx *state.Tx, asset string, now time.Time) error {
	if _, err := find(tx, asset); err != nil {
		return err
	}
	b, err := top(tx, assetBucket)
	if err != nil {
		return err
	}
	if err := b.DeleteBucket([]byte(asset)); err != nil {
		return err
	}
	for _, scope := range []string{scopeOf("", asset), scopeOf(overdueScope, asset)} {
		if _, err := finding.Report(tx, FindingSource, scope, nil, now); err != nil {
			return err
		}
	}
	return nil
}
