package update

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/mobileops/mobileops/internal/change"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/state"
	"github.com/mobileops/mobileops/internal/update/store"
)

// Kinds of Event.
const (
	EventApply    = "apply"    // a package became current
	EventAdopt    = "adopt"    // a directory that was there became the first generation
	EventStage    = "stage"    // a package was laid out
	EventActivate = "activate" // a generation became current
	EventRollback = "rollback" // somebody went back
	EventUndone   = "undone"   // the host went back by itself
	EventBackup   = "backup"
	EventPrune    = "prune"
	EventFound    = "found" // current was another one than was known
)

// Event is one line of the history of an installation.
type Event struct {
	Time    time.Time     `json:"time"`
	Kind    string        `json:"event"`
	From    int           `json:"from,omitempty"` // generation; 0: none
	To      int           `json:"to,omitempty"`
	By      string        `json:"by,omitempty"`
	Change  string        `json:"change,omitempty"`
	Package *store.Origin `json:"package,omitempty"`
	Reason  string        `json:"reason,omitempty"`
	Removed []int         `json:"removed,omitempty"`
}

// Accepted is the latest release of a package that was made current here.
type Accepted struct {
	Name     string    `json:"name"`
	Channel  string    `json:"channel"`
	Sequence uint64    `json:"sequence"`
	Version  string    `json:"version"`
	At       time.Time `json:"at"`
}

const (
	bucket         = "update"
	bucketAccepted = "update_accepted"
	maxHistory     = 10_000 // events kept
)

var (
	keyCurrent = []byte("current")
	keyHistory = []byte("history")
	keySeen    = []byte("seen") // beside the installations, which have absolute paths
)

// note appends to the history, and says which generation is current by it.
func (e *Engine) note(ctx context.Context, ev Event) error {
	return e.o.State.Update(ctx, func(tx *state.Tx) error { return e.noteIn(tx, ev) })
}

func (e *Engine) noteIn(tx *state.Tx, ev Event) error {
	ev.Time = e.now()
	if ev.By == "" {
		ev.By = e.o.By
	}
	b, err := tx.CreateBucketIfNotExists([]byte(bucket))
	if err != nil {
		return err
	}
	// One that cannot be read is no reason not to go back; who applies is told.
	if seen, err := e.seenIn(tx); err == nil && ev.Time.After(seen) {
		if err := b.Put(keySeen, ev.Time.AppendFormat(nil, time.RFC3339Nano)); err != nil {
			return err
		}
	}
	if b, err = b.CreateBucketIfNotExists([]byte(e.o.Target)); err != nil {
		return err
	}
	h, err := b.CreateBucketIfNotExists(keyHistory)
	if err != nil {
		return err
	}
	data, err := json.Marshal(ev)
	if err != nil {
		return err
	}
	n, err := h.NextSequence()
	if err != nil {
		return err
	}
	if err := h.Put(binary.BigEndian.AppendUint64(nil, n), data); err != nil {
		return err
	}
	if n > maxHistory {
		if err := h.Delete(binary.BigEndian.AppendUint64(nil, n-maxHistory)); err != nil {
			return err
		}
	}
	switch ev.Kind {
	case EventApply, EventAdopt, EventActivate, EventRollback, EventUndone, EventFound:
		return b.Put(keyCurrent, binary.BigEndian.AppendUint64(nil, uint64(ev.To)))
	}
	return nil
}

// seenIn returns the latest moment at which anything was written down, of any
// installation. The last event does not tell: it may be of a clock that was set
// back. A state.db of before has events alone.
func (e *Engine) seenIn(tx *state.Tx) (seen time.Time, err error) {
	if b := tx.Bucket([]byte(bucket)); b != nil {
		if v := b.Get(keySeen); v != nil {
			if seen, err = time.Parse(time.RFC3339Nano, string(v)); err != nil {
				err = failure.Errorf(failure.Untrustworthy, "the latest moment that was seen here is damaged in state.db: %w", err)
			}
			return seen, err
		}
	}
	list, err := e.historyIn(tx, 0)
	for _, ev := range list {
		if ev.Time.After(seen) {
			seen = ev.Time
		}
	}
	return seen, err
}

// History returns what happened to the installation, the oldest first, at most
// the last most events; 0: all.
func (e *Engine) History(ctx context.Context, most int) (list []Event, err error) {
	err = e.o.State.View(ctx, func(tx *state.Tx) error {
		list, err = e.historyIn(tx, most)
		return err
	})
	return list, err
}

func (e *Engine) historyIn(tx *state.Tx, most int) (list []Event, err error) {
	b := tx.Bucket([]byte(bucket))
	if b != nil {
		b = b.Bucket([]byte(e.o.Target))
	}
	if b != nil {
		b = b.Bucket(keyHistory)
	}
	if b == nil {
		return nil, nil
	}
	c := b.Cursor()
	for k, v := c.Last(); k != nil && (most == 0 || len(list) < most); k, v = c.Prev() {
		var ev Event
		if err := json.Unmarshal(v, &ev); err != nil {
			return nil, failure.Errorf(failure.Untrustworthy, "the history of %s is damaged at event %x: %w", e.o.Target, k, err)
		}
		list = append(list, ev)
	}
	slices.Reverse(list)
	return list, nil
}

// known returns the generation that state.db says is current.
func (e *Engine) known(tx *state.Tx) (int, bool) {
	if b := tx.Bucket([]byte(bucket)); b != nil {
		if b = b.Bucket([]byte(e.o.Target)); b != nil {
			if v := b.Get(keyCurrent); len(v) == 8 {
				return int(binary.BigEndian.Uint64(v)), true
			}
		}
	}
	return 0, false
}

// settle ends a trial that nobody conducts any more, and lets state.db follow
// what is current: a crash may have come between the two.
func (e *Engine) settle(ctx context.Context, s *store.Session, n *Notice) error {
	if _, err := e.resolve(ctx, s, n); err != nil {
		return err
	}
	return e.follow(ctx, s)
}

func (e *Engine) follow(ctx context.Context, s *store.Session) error {
	current, err := s.Current()
	if err != nil || current == 0 {
		return err
	}
	known := 0
	if err := e.o.State.View(ctx, func(tx *state.Tx) error { known, _ = e.known(tx); return nil }); err != nil {
		return err
	}
	if known == current {
		return nil
	}
	g, err := s.Generation(current)
	if errors.Is(err, store.ErrDamaged) {
		g = &store.Generation{Number: current}
	} else if err != nil {
		return err
	}
	var left *store.Generation
	if known > 0 && g.Base != known { // it was gone back from
		if left, err = s.Generation(known); err != nil && !errors.Is(err, store.ErrMissing) && !errors.Is(err, store.ErrDamaged) {
			return err
		}
	}
	return e.o.State.Update(ctx, func(tx *state.Tx) error {
		if err := e.followChanges(tx, g, left); err != nil {
			return err
		}
		if err := e.noteIn(tx, Event{Kind: EventFound, From: known, To: current, Package: g.Origin, Change: g.Change, Reason: "it became current without being written down"}); err != nil {
			return err
		}
		return acceptAll(tx, g, e.now())
	})
}

// followChanges tells changes what became of them: that the generation that was
// found to be current came into force by its change, if that was never written
// down, and that the one that was left is no longer.
func (e *Engine) followChanges(tx *state.Tx, found, left *store.Generation) error {
	if err := undoneChange(tx, left, e.now()); err != nil {
		return err
	}
	if found.Change == "" {
		return nil
	}
	list, err := e.historyIn(tx, 0)
	if err != nil || slices.ContainsFunc(list, func(ev Event) bool {
		return ev.To == found.Number && ev.Change == found.Change && ev.Kind != EventStage
	}) {
		return err
	}
	if _, err := change.Applied(tx, found.Change, e.now()); err != nil && !errors.Is(err, change.ErrNotFound) {
		return err
	}
	return nil
}

// acceptAll raises what is accepted to what a generation has.
func acceptAll(tx *state.Tx, g *store.Generation, now time.Time) error {
	for _, o := range g.Packages {
		if err := accept(tx, o, now); err != nil {
			return err
		}
	}
	return nil
}

func acceptedKey(name, channel string) []byte { return []byte(name + "/" + channel) }

// accept raises the highest sequence of a package. An approved downgrade does not
// lower it: the next one has to be approved, too.
func accept(tx *state.Tx, o store.Origin, now time.Time) error {
	b, err := tx.CreateBucketIfNotExists([]byte(bucketAccepted))
	if err != nil {
		return err
	}
	old, err := acceptedIn(tx, o.Name, o.Channel)
	if err != nil || old.Sequence >= o.Sequence {
		return err
	}
	data, err := json.Marshal(Accepted{o.Name, o.Channel, o.Sequence, o.Version, now})
	if err != nil {
		return err
	}
	return b.Put(acceptedKey(o.Name, o.Channel), data)
}

func acceptedIn(tx *state.Tx, name, channel string) (a Accepted, err error) {
	b := tx.Bucket([]byte(bucketAccepted))
	if b == nil {
		return a, nil
	}
	v := b.Get(acceptedKey(name, channel))
	if v == nil {
		return a, nil
	}
	if err := json.Unmarshal(v, &a); err != nil || a.Sequence == 0 {
		return a, failure.Errorf(failure.Untrustworthy, "what was accepted of %s is damaged in state.db: %v", name, err)
	}
	return a, nil
}

// Accepted returns the highest release of each package that was accepted.
func (e *Engine) Accepted(ctx context.Context) (list []Accepted, err error) {
	err = e.o.State.View(ctx, func(tx *state.Tx) error {
		b := tx.Bucket([]byte(bucketAccepted))
		if b == nil {
			return nil
		}
		return b.ForEach(func(k, v []byte) error {
			var a Accepted
			if err := json.Unmarshal(v, &a); err != nil {
				return failure.Errorf(failure.Untrustworthy, "what was accepted of %s is damaged in state.db: %v", k, err)
			}
			list = append(list, a)
			return nil
		})
	})
	return list, err
}

// newest refuses a release that is older than one that was accepted, by state.db
// or by any generation that is here: losing one of the two opens no way back.
func (e *Engine) newest(ctx context.Context, name, channel string, sequence uint64) (highest Accepted, err error) {
	err = e.o.State.View(ctx, func(tx *state.Tx) error {
		highest, err = acceptedIn(tx, name, channel)
		return err
	})
	if err != nil {
		return highest, err
	}
	// state.db may have been lost, or be an old one that was restored.
	if highest, err = e.acceptedHere(ctx, name, channel, highest); err != nil {
		return highest, err
	}
	if sequence < highest.Sequence {
		return highest, fmt.Errorf("%w: it has sequence %d, and %s %s (sequence %d) was accepted on %s", ErrDowngrade, sequence, name, highest.Version, highest.Sequence, highest.At.Format(time.DateOnly))
	}
	return highest, nil
}
