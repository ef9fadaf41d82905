package change

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/state"
)

// bucket holds every change: its ID → stored.
const bucket = "changes"

// form is strict: a member that is unknown may be a reason why the change authorises
// nothing.
var form = state.Form{Version: 1, MaxBytes: MaxRecord, Strict: true}

type stored struct {
	Version int `json:"v"`
	Change
}

func encode(c *Change) ([]byte, error) {
	b, err := json.Marshal(stored{form.Version, *c})
	if err == nil && len(b) > MaxRecord {
		err = fmt.Errorf("%w: %d bytes are more than %d", ErrInvalid, len(b), MaxRecord)
	}
	return b, err
}

func decode(key, b []byte) (*Change, error) {
	what := fmt.Sprintf("change %q", key)
	var s stored
	if err := form.Read(what, b, &s); err != nil {
		return nil, err
	}
	if s.ID != string(key) {
		return nil, state.Damaged(what, -1, "its ID is %q", s.ID)
	}
	if err := s.validate(); err != nil {
		return nil, state.Damaged(what, -1, "%v", err)
	}
	return &s.Change, nil
}

const (
	idPrefix = "C-"
	idLength = len(idPrefix) + 6
)

func save(tx *state.Tx, c *Change) error {
	if err := c.validate(); err != nil {
		return err
	}
	b, err := tx.CreateBucketIfNotExists([]byte(bucket))
	if err != nil {
		return err
	}
	v, err := encode(c)
	if err != nil {
		return err
	}
	return b.Put([]byte(c.ID), v)
}

// each calls f with every change, in the order of their IDs.
func each(tx *state.Tx, f func(c *Change) error) error {
	b := tx.Bucket([]byte(bucket))
	if b == nil {
		return nil
	}
	return b.ForEach(func(k, v []byte) error {
		c, err := decode(k, v)
		if err != nil {
			return err
		}
		return f(c)
	})
}

// Filter says which changes List returns. A zero field lets everything pass.
type Filter struct {
	States []State // any of these
	Kinds  []Kind
	Digest string
	Name   string // of the package
}

// List returns the changes that pass, the latest request first.
func List(tx *state.Tx, f Filter, now time.Time) (list []*Change, err error) {
	err = each(tx, func(c *Change) error {
		if (len(f.States) == 0 || slices.Contains(f.States, c.At(now))) &&
			(len(f.Kinds) == 0 || slices.Contains(f.Kinds, c.Kind)) &&
			(f.Digest == "" || f.Digest == c.Digest) && (f.Name == "" || f.Name == c.Name) {
			list = append(list, c)
		}
		return nil
	})
	slices.SortStableFunc(list, func(a, b *Change) int { return b.Requested.Compare(a.Requested) })
	return list, err
}

// minPrefix is how much of an ID has to be typed.
const minPrefix = 4

// Get returns the change with an ID, in any case, or the only one that begins
// so: "c-7q" finds C-7Q2FM3.
func Get(tx *state.Tx, id string) (*Change, error) {
	missing := failure.Hint(fmt.Errorf("%w: %q", ErrNotFound, id), "see them: mobileops change list --state all")
	key := []byte(strings.ToUpper(id))
	b := tx.Bucket([]byte(bucket))
	if b == nil || len(key) < minPrefix || len(key) > idLength {
		return nil, missing
	}
	c := b.Cursor()
	k, v := c.Seek(key)
	if k == nil || !strings.HasPrefix(string(k), string(key)) {
		return nil, missing
	}
	if next, _ := c.Next(); next != nil && strings.HasPrefix(string(next), string(key)) {
		return nil, failure.Hint(failure.Errorf(failure.Usage, "several changes have an ID that begins with %q", id), "type more of it")
	}
	return decode(k, v)
}
