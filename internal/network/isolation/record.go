package isolation

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/state"
)

// Record is what is remembered of isolation across a reboot. It never decides
// what is in force, which the kernel knows.
type Record struct {
	Since  time.Time `json:"since"`
	By     string    `json:"by"`
	Reason string    `json:"reason,omitempty"`
	// Profile is the name of the profile that was asked for.
	Profile string `json:"profile,omitempty"`
	Allow   []Peer `json:"allow"`
	Strict  bool   `json:"strict,omitempty"`
	// Around is what a reboot would make unknown.
	Around Remembered `json:"around"`
	// Deadline is when it lapses without confirmation; zero: it lasts.
	Deadline  time.Time `json:"deadline,omitzero"`
	Confirmed time.Time `json:"confirmed,omitzero"`
	// Mark is the comment of the tables, by which they are known to be those that
	// the record is about.
	Mark string `json:"mark,omitempty"`
	// Before is the digest of the rules of others when it began.
	Before string `json:"ruleset_before,omitempty"`
	// Ended is when it was taken back, and How: "restored", "lapsed", "undone".
	Ended time.Time `json:"ended,omitzero"`
	How   string    `json:"how,omitempty"`
}

// Lasts reports whether isolation is to be in force after a reboot.
func (r *Record) Lasts() bool {
	return r != nil && r.Ended.IsZero() && (r.Deadline.IsZero() || !r.Confirmed.IsZero())
}

// Open reports whether isolation began and is not known to have ended.
func (r *Record) Open() bool { return r != nil && r.Ended.IsZero() }

// of reports whether the record is that of what is in force, and not of another
// isolation, which may let in others.
func (r *Record) of(s *Status) bool { return r.Mark == "" || r.Mark == s.Comment }

const (
	bucket  = "network_isolation"
	current = "current"
)

// Load returns the record of the last isolation; nil when there never was one.
func Load(ctx context.Context, store *state.Store) (r *Record, err error) {
	err = store.View(ctx, func(tx *state.Tx) error {
		b := tx.Bucket([]byte(bucket))
		if b == nil {
			return nil
		}
		data := b.Get([]byte(current))
		if data == nil {
			return nil
		}
		r = new(Record)
		if err := json.Unmarshal(data, r); err != nil {
			return failure.Errorf(failure.Untrustworthy, "the record of isolation cannot be read: %w", err)
		}
		return nil
	})
	return r, err
}

// Save keeps the record.
func Save(ctx context.Context, store *state.Store, r *Record) error {
	data, err := json.Marshal(r)
	if err != nil {
		return err
	}
	err = store.Update(ctx, func(tx *state.Tx) error {
		b, err := tx.CreateBucketIfNotExists([]byte(bucket))
		if err != nil {
			return err
		}
		return b.Put([]byte(current), data)
	})
	if err != nil {
		return fmt.Errorf("record of isolation: %w", err)
	}
	return nil
}

// noteConfirmed keeps for a reboot that isolation in force lasts, and tells whether
// that was news: who confirmed it before may not have been able to write.
func (e *Engine) noteConfirmed(ctx context.Context, now time.Time) (noted bool, err error) {
	there, err := Read()
	if err != nil {
		return false, err
	}
	r, err := Load(ctx, e.Store)
	switch {
	case err != nil || r.Lasts():
		return false, err
	case !r.Open() || !r.of(&there):
		return false, failure.Hint(errors.New("nothing is remembered of it"), "have it remembered: mobileops network isolate --replace, with all flags")
	}
	r.Confirmed = now
	return true, Save(ctx, e.Store, r)
}
