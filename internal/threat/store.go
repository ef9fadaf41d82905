package threat

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/finding"
	"github.com/mobileops/mobileops/internal/state"
)

// bucket holds every threat: its ID in lower case → stored.
const bucket = "threats"

// form passes over members that it does not know.
var form = state.Form{Version: 1, MaxBytes: MaxRecord}

type stored struct {
	Version int `json:"v"`
	Threat
}

func encode(t *Threat) ([]byte, error) {
	b, err := json.Marshal(stored{form.Version, *t})
	if err == nil && len(b) > MaxRecord {
		err = fmt.Errorf("%w: %d bytes are more than %d", ErrInvalid, len(b), MaxRecord)
	}
	return b, err
}

func decode(key, b []byte) (*Threat, error) {
	what := fmt.Sprintf("threat %q", key)
	var s stored
	if err := form.Read(what, b, &s); err != nil {
		return nil, err
	}
	if strings.ToLower(s.ID) != string(key) {
		return nil, state.Damaged(what, -1, "its ID is %q", s.ID)
	}
	if err := s.validate(); err != nil {
		return nil, state.Damaged(what, -1, "%v", err)
	}
	return &s.Threat, nil
}

// Add stores a threat that is not there yet. Without an ID it gets one; times
// of zero are set to now. The error is ErrExists when the ID is taken.
func Add(tx *state.Tx, t Threat, now time.Time) (*Threat, error) {
	b, err := tx.CreateBucketIfNotExists([]byte(bucket))
	if err != nil {
		return nil, err
	}
	if t.ID == "" {
		for t.ID = state.NewID("T-"); b.Get(key(t.ID)) != nil; t.ID = state.NewID("T-") {
		}
	}
	now = now.UTC().Round(0)
	if t.FirstSeen.IsZero() {
		t.FirstSeen = now
	}
	if t.LastSeen.IsZero() {
		t.LastSeen = t.FirstSeen
	}
	if t.State == "" {
		t.State = Active
	}
	t.FirstSeen, t.LastSeen, t.Expires = t.FirstSeen.UTC(), t.LastSeen.UTC(), t.Expires.UTC()
	var list []Indicator
	for _, i := range t.Indicators {
		if i, err = NewIndicator(i.Type, i.Value); err != nil {
			return nil, err
		}
		if !slices.Contains(list, i) {
			list = append(list, i)
		}
	}
	t.Indicators = list
	if err := t.validate(); err != nil {
		return nil, err
	}
	if b.Get(key(t.ID)) != nil {
		return nil, failure.Hint(fmt.Errorf("%w: %s", ErrExists, t.ID), "look: mobileops threat show "+t.ID)
	}
	if n := b.Stats().KeyN; n >= MaxThreats {
		return nil, failure.Hint(failure.Errorf(failure.Failed, "%d threats are stored already", n), "remove some: mobileops threat remove ID")
	}
	data, err := encode(&t)
	if err != nil {
		return nil, err
	}
	return &t, b.Put(key(t.ID), data)
}

func key(id string) []byte { return []byte(strings.ToLower(id)) }

// Filter says which threats List returns. A zero field lets everything pass.
type Filter struct {
	States      []State // any of these
	Kinds       []string
	Types       []Type // with an indicator of any of these
	MinSeverity finding.Severity
}

// List returns the threats that pass, the most severe first, then by ID.
func List(tx *state.Tx, f Filter, now time.Time) ([]*Threat, error) {
	b := tx.Bucket([]byte(bucket))
	if b == nil {
		return nil, nil
	}
	var list []*Threat
	err := b.ForEach(func(k, v []byte) error {
		t, err := decode(k, v)
		if err != nil {
			return err
		}
		if t.Severity >= f.MinSeverity &&
			(len(f.States) == 0 || slices.Contains(f.States, t.At(now))) &&
			(len(f.Kinds) == 0 || slices.Contains(f.Kinds, t.Kind)) &&
			(len(f.Types) == 0 || slices.ContainsFunc(t.Indicators, func(i Indicator) bool { return slices.Contains(f.Types, i.Type) })) {
			list = append(list, t)
		}
		return nil
	})
	slices.SortStableFunc(list, func(a, b *Threat) int { return int(b.Severity) - int(a.Severity) })
	return list, err
}

// minPrefix is how much of an ID has to be typed, unless it is the whole.
const minPrefix = 4

// Get returns the threat with an ID, in any case, or with the only one that
// begins so: "T-7Q" finds T-7Q2FM3.
func Get(tx *state.Tx, id string) (*Threat, error) {
	missing := failure.Hint(fmt.Errorf("%w: %q", ErrNotFound, id), "see them: mobileops threat list --state all")
	b := tx.Bucket([]byte(bucket))
	if err := validID(id); err != nil {
		return nil, err
	}
	if b == nil {
		return nil, missing
	}
	if v := b.Get(key(id)); v != nil {
		return decode(key(id), v)
	}
	if len(id) < minPrefix {
		return nil, missing
	}
	c := b.Cursor()
	k, v := c.Seek(key(id))
	if k == nil || !strings.HasPrefix(string(k), string(key(id))) {
		return nil, missing
	}
	if next, _ := c.Next(); next != nil && strings.HasPrefix(string(next), string(key(id))) {
		return nil, failure.Hint(failure.Errorf(failure.Usage, "several threats have an ID that begins with %q", id), "type more of it")
	}
	return decode(k, v)
}

// Remove forgets the threat with an ID, as Get finds it, and returns it.
func Remove(tx *state.Tx, id string) (*Threat, error) {
	t, err := Get(tx, id)
	if err != nil {
		return nil, err
	}
	return t, tx.Bucket([]byte(bucket)).Delete(key(t.ID))
}
