package sla

import (
	"bytes"
	"encoding/json"
	"strings"
	"time"

	"github.com/mobileops/mobileops/internal/state"
)

// load returns the record of an ID, or nil when there is none.
func (b buckets) load(id string) (*Record, error) {
	if b.advisories == nil {
		return nil, nil
	}
	v := b.advisories.Get([]byte(id))
	if v == nil {
		return nil, nil
	}
	return decode([]byte(id), v)
}

func (b buckets) save(r *Record) error {
	v, err := encode(r)
	if err != nil {
		return err
	}
	return b.advisories.Put([]byte(r.ID()), v)
}

// each calls fn with every record whose ID begins with prefix, in their order.
func (b buckets) each(prefix string, fn func(*Record) error) error {
	if b.advisories == nil {
		return nil
	}
	c := b.advisories.Cursor()
	for k, v := c.Seek([]byte(prefix)); k != nil && bytes.HasPrefix(k, []byte(prefix)); k, v = c.Next() {
		r, err := decode(k, v)
		if err != nil {
			return err
		}
		if err := fn(r); err != nil {
			return err
		}
	}
	return nil
}

// looked remembers the outcome of a survey.
func (b buckets) looked(s *Survey, now time.Time) error {
	st := SourceStatus{Name: s.Source, State: "complete", Looked: now, Complete: now, AsOf: storable(s.AsOf), Problems: []string{}}
	old, err := decodeSource([]byte(s.Source), b.sources.Get([]byte(s.Source)))
	if err != nil {
		return err
	}
	if !s.Complete() {
		st.State = "incomplete"
		st.Complete = time.Time{}
		if old != nil {
			st.Complete = old.Complete
		}
		for _, p := range s.Problems {
			if len(st.Problems) < MaxProblems {
				st.Problems = append(st.Problems, clip(p, MaxText))
			}
		}
	}
	if s.Skipped != "" {
		st.State, st.Problems = "skipped", []string{clip(s.Skipped, MaxText)}
	}
	v, err := json.Marshal(storedSource{form.Version, st})
	if err != nil {
		return err
	}
	return b.sources.Put([]byte(s.Source), v)
}

// decodeSource reads what is remembered of a source; nil when that is nothing.
func decodeSource(key, v []byte) (*SourceStatus, error) {
	if v == nil {
		return nil, nil
	}
	s := new(storedSource)
	if err := form.Read(stands(key), v, s); err != nil {
		return nil, err
	}
	if s.Name != string(key) {
		return nil, state.Damaged(stands(key), -1, "its name is %q", s.Name)
	}
	if s.State != "complete" && s.State != "incomplete" && s.State != "skipped" {
		return nil, state.Damaged(stands(key), -1, "state %q is not known", s.State)
	}
	if s.Problems == nil {
		s.Problems = []string{}
	}
	return &s.SourceStatus, nil
}

// Sources returns what is remembered of every source that was looked at.
func (l Ledger) Sources(tx *state.Tx) (list []SourceStatus, err error) {
	b, err := l.open(tx)
	if err != nil || b.sources == nil {
		return nil, err
	}
	err = b.sources.ForEach(func(k, v []byte) error {
		s, err := decodeSource(k, v)
		if err == nil && s != nil {
			list = append(list, *s)
		}
		return err
	})
	return list, err
}

// matches reports whether word is a way to say which advisory r is: its whole
// ID, or the package or the advisory alone, or both.
func (r *Record) matches(word string) bool {
	id := r.ID()
	return word == id || word == r.Name || word == r.Advisory.Advisory || strings.HasSuffix(id, "/"+word)
}
