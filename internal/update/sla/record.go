package sla

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/mobileops/mobileops/internal/change"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/state"
)

// State says how an advisory stands at a moment, as a lower-case word.
type State string

// The states. Only Fixed follows from what is stored alone; the others from the
// moment as well.
const (
	Pending State = "pending" // not installed, and not yet due
	Overdue State = "overdue" // not installed, and should be
	Waived  State = "waived"  // not installed, and a waiver is in force
	Fixed   State = "fixed"   // installed, or what it is an update of is gone
)

// Outcome says of a fixed advisory whether that was in time.
type Outcome string

// The outcomes.
const (
	InTime      Outcome = "in-time"
	Late        Outcome = "late"
	UnderWaiver Outcome = "under-waiver" // after it was due, but a waiver was in force
)

// Person is who decided something, and when.
type Person struct {
	By change.Identity `json:"by"`
	At time.Time       `json:"at"`
}

// Waiver accepts that an update is not installed until a moment.
type Waiver struct {
	Owner     string    `json:"owner"`  // who answers for it
	Reason    string    `json:"reason"` // what is told to those who ask
	Until     time.Time `json:"until"`
	Severity  Severity  `json:"severity"` // that it was asked for
	Requested Person    `json:"requested"`
	Approved  *Person   `json:"approved,omitempty"` // nil: it is not in force
}

// Event is something that happened to an advisory.
type Event struct {
	At   time.Time `json:"at"`
	What string    `json:"what"`
	Who  string    `json:"who,omitempty"` // "": a survey
}

// Record is what is stored of an advisory.
type Record struct {
	Advisory
	FirstKnown time.Time `json:"first_known"` // here
	LastSeen   time.Time `json:"last_seen"`   // by a survey
	// Of a fixed one: when a survey first did not see it any more, when it was
	// due by the policy of that day, and whether that was in time.
	FixedAt  time.Time `json:"fixed_at,omitzero"`
	FixedDue time.Time `json:"fixed_due,omitzero"`
	Outcome  Outcome   `json:"outcome,omitempty"`
	// Waiver is the one that was approved, in force or ended; Request one that
	// waits for approval.
	Waiver  *Waiver `json:"waiver,omitempty"`
	Request *Waiver `json:"request,omitempty"`
	Events  []Event `json:"events"`
}

// Due returns when the advisory is due, or was when it was fixed; zero: never.
func (r *Record) Due(p Policy) time.Time {
	if !r.FixedAt.IsZero() {
		return r.FixedDue
	}
	return p.due(r.Severity, r.FirstKnown)
}

// State returns how the advisory stands at a moment.
func (r *Record) State(p Policy, now time.Time) State {
	due := r.Due(p)
	switch {
	case !r.FixedAt.IsZero():
		return Fixed
	case r.waived(now):
		return Waived
	case !due.IsZero() && now.After(due):
		return Overdue
	}
	return Pending
}

// waived reports whether a waiver is in force.
func (r *Record) waived(now time.Time) bool {
	w := r.Waiver
	return w != nil && w.Approved != nil && !now.After(w.Until) && r.Severity.rank() <= w.Severity.rank()
}

// event appends to what happened. Of too many, those in the middle go.
func (r *Record) event(at time.Time, who, format string, args ...any) {
	if len(r.Events) >= MaxEvents {
		r.Events = append(r.Events[:MaxEvents/2], r.Events[MaxEvents/2+1:]...)
	}
	r.Events = append(r.Events, Event{At: at, Who: clip(who, MaxName), What: clip(fmt.Sprintf(format, args...), 2*MaxText)})
}

type stored struct {
	Version int `json:"v"`
	Record
}

func encode(r *Record) ([]byte, error) {
	b, err := json.Marshal(stored{form.Version, *r})
	if err == nil && len(b) > MaxRecord {
		err = failure.Errorf(failure.Failed, "%s: %d bytes are more than %d", r.ID(), len(b), MaxRecord)
	}
	return b, err
}

// decode reads a stored advisory. What it returns satisfies the invariants of
// the package.
func decode(key, b []byte) (*Record, error) {
	s := new(stored)
	if err := form.Read(stands(key), b, s); err != nil {
		return nil, err
	}
	r := &s.Record
	wrong := func(format string, args ...any) (*Record, error) {
		return nil, state.Damaged(stands(key), -1, format, args...)
	}
	if err := r.check(); err != nil {
		return wrong("%v", err)
	}
	switch {
	case r.ID() != string(key):
		return wrong("its ID is %q", r.ID())
	case r.Severity != ParseSeverity(string(r.Severity)):
		return wrong("severity %q is not known", r.Severity)
	case r.FirstKnown.IsZero() || r.LastSeen.IsZero():
		return wrong("it does not say since when it is known")
	case r.FixedAt.IsZero() != (r.Outcome == "") || r.Outcome != "" && r.Outcome != InTime && r.Outcome != Late && r.Outcome != UnderWaiver:
		return wrong("outcome %q does not go with when it was fixed", r.Outcome)
	case len(r.Packages) > MaxPackages || len(r.Events) > MaxEvents:
		return wrong("it has more packages or events than an advisory may have")
	case r.Waiver != nil && r.Waiver.Approved == nil || r.Request != nil && r.Request.Approved != nil:
		return wrong("a waiver without approval, or a request with one")
	}
	for _, w := range []*Waiver{r.Waiver, r.Request} {
		if w == nil {
			continue
		}
		if w.Severity != ParseSeverity(string(w.Severity)) {
			return wrong("severity %q of a waiver is not known", w.Severity)
		}
		if err := w.complete(); err != nil {
			return wrong("%v", err)
		}
		if w.Approved != nil && errors.Is((*change.People)(nil).Apart(w.Requested.By, w.Approved.By), change.ErrSamePerson) {
			return wrong("a waiver was approved by who asked for it")
		}
	}
	return r, nil
}

// form passes over members that it does not know; it is that of sources, too.
var form = state.Form{Version: 1, MaxBytes: MaxRecord}

// stands says under which key something stands in the bucket.
func stands(key []byte) string { return fmt.Sprintf("update_sla %q", clip(string(key), MaxText)) }
