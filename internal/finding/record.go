package finding

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
)

// State says what has been decided about a finding. The zero value is Open.
type State int

// The states.
const (
	Open         State = iota // needs attention
	Acknowledged              // somebody knows and works on it; open again when its severity rises
	Waived                    // accepted by an owner until a date; open again after it or when its severity rises
	Resolved                  // the last complete scan of every scope did not find it
)

// States returns all states in their order.
func States() []State { return []State{Open, Acknowledged, Waived, Resolved} }

// String returns the state as a lower-case word.
func (s State) String() string {
	switch s {
	case Open:
		return "open"
	case Acknowledged:
		return "acknowledged"
	case Waived:
		return "waived"
	case Resolved:
		return "resolved"
	}
	return fmt.Sprintf("state(%d)", int(s))
}

func (s State) valid() bool { return s >= Open && s <= Resolved }

// ParseState reads a state in upper or lower case, by its word. An unknown
// word is a failure.Usage error that lists the known ones.
func ParseState(word string) (State, error) {
	for _, s := range States() {
		if strings.EqualFold(word, s.String()) {
			return s, nil
		}
	}
	return Open, failure.Errorf(failure.Usage, "unknown state %q (one of open, acknowledged, waived, resolved)", word)
}

// MarshalText writes the state as its word, in JSON and elsewhere.
func (s State) MarshalText() ([]byte, error) {
	if !s.valid() {
		return nil, fmt.Errorf("no such state: %d", int(s))
	}
	return []byte(s.String()), nil
}

// UnmarshalText reads what MarshalText wrote.
func (s *State) UnmarshalText(b []byte) (err error) {
	*s, err = ParseState(string(b))
	return err
}

// Change is one change of a record's state.
type Change struct {
	At       time.Time `json:"at"`
	Who      string    `json:"who"` // a user, or the source whose scan brought it about
	From     State     `json:"from"`
	To       State     `json:"to"`
	Severity Severity  `json:"severity"` // of the finding at that time: what a decision was about
	Why      string    `json:"why"`
}

// Record is what is remembered about one finding. Its Finding is the latest
// report of it.
type Record struct {
	Finding
	Fingerprint Fingerprint
	FirstSeen   time.Time
	LastSeen    time.Time
	TimesSeen   uint64 // number of scans that found it
	State       State
	Owner       string    // who answers for the waiver
	Reason      string    // why it was acknowledged or waived
	WaivedUntil time.Time // when a waiver ends; zero in every other state
	Scopes      []string  // the scopes whose latest scan found it, sorted
	History     []Change  // oldest first, at most MaxHistory
	Forgotten   uint64    // changes dropped from History after its first one, to bound it
	Truncated   bool      // the finding exceeded a limit and was cut
}

// ID returns the short id of the record. See Fingerprint.ID.
func (r *Record) ID() string { return r.Fingerprint.ID() }

// Changed returns when the state last changed, or when the finding was first
// seen if it never did.
func (r *Record) Changed() time.Time {
	if n := len(r.History); n > 0 {
		return r.History[n-1].At
	}
	return r.FirstSeen
}

// recordWire is the JSON form of a Record: flat, with the fields of the
// finding beside those of the record.
type recordWire struct {
	ID          string      `json:"id"`
	Fingerprint Fingerprint `json:"fingerprint"`
	State       State       `json:"state"`
	wire
	FirstSeen   time.Time `json:"first_seen"`
	LastSeen    time.Time `json:"last_seen"`
	TimesSeen   uint64    `json:"times_seen"`
	Owner       string    `json:"owner,omitempty"`
	Reason      string    `json:"reason,omitempty"`
	WaivedUntil time.Time `json:"waived_until,omitzero"`
	Scopes      []string  `json:"scopes,omitempty"`
	History     []Change  `json:"history,omitempty"`
	Forgotten   uint64    `json:"history_forgotten,omitempty"`
	Truncated   bool      `json:"truncated,omitempty"`
}

// MarshalJSON writes the record as one flat object.
func (r Record) MarshalJSON() ([]byte, error) {
	return json.Marshal(recordWire{
		ID: r.ID(), Fingerprint: r.Fingerprint, State: r.State, wire: r.Finding.wire(),
		FirstSeen: r.FirstSeen, LastSeen: r.LastSeen, TimesSeen: r.TimesSeen,
		Owner: r.Owner, Reason: r.Reason, WaivedUntil: r.WaivedUntil, Scopes: r.Scopes,
		History: r.History, Forgotten: r.Forgotten, Truncated: r.Truncated,
	})
}

// UnmarshalJSON reads what MarshalJSON wrote.
func (r *Record) UnmarshalJSON(b []byte) error {
	var w recordWire
	if err := json.Unmarshal(b, &w); err != nil {
		return err
	}
	*r = Record{
		Finding: w.finding(), Fingerprint: w.Fingerprint,
		FirstSeen: w.FirstSeen, LastSeen: w.LastSeen, TimesSeen: w.TimesSeen,
		State: w.State, Owner: w.Owner, Reason: w.Reason, WaivedUntil: w.WaivedUntil,
		Scopes: w.Scopes, History: w.History, Forgotten: w.Forgotten, Truncated: w.Truncated,
	}
	return nil
}

// MaxHistory is how many changes a record keeps: the first one and the latest
// ones. The audit chain has every decision a person took.
const MaxHistory = 64

// change moves the record to a state, for a reason that History keeps.
func (r *Record) change(to State, at time.Time, who, why string) {
	r.History = append(r.History, Change{At: at.UTC(), Who: who, From: r.State, To: to, Severity: r.Severity, Why: why})
	if drop := len(r.History) - MaxHistory; drop > 0 {
		r.History = append(r.History[:1], r.History[1+drop:]...)
		r.Forgotten += uint64(drop)
	}
	r.State = to
	if to != Waived {
		r.Owner, r.WaivedUntil = "", time.Time{}
	}
	if to != Waived && to != Acknowledged {
		r.Reason = ""
	}
}

// expire makes a waiver that has ended by now an open finding.
func (r *Record) expire(now time.Time) {
	if r.State == Waived && !now.Before(r.WaivedUntil) {
		r.change(Open, r.WaivedUntil, r.Owner, "the waiver ended")
	}
}

// decided returns the severity the record had when it was acknowledged or
// waived.
func (r *Record) decided() Severity {
	if n := len(r.History); n > 0 {
		return r.History[n-1].Severity
	}
	return r.Severity
}
