// Package threat is the vocabulary of what threatens hosts, and the memory of
// it: where it comes from, what it is known by, and until when that holds.
//
// A Threat has Indicators: addresses, networks, ports, users, control groups,
// processes, containers, interfaces and domains. Sensors, feeds and people add
// threats; responders, such as network isolate-threat, act on their indicators.
// Nothing here acts.
//
// Threats are kept in the bucket "threats" of state.db, by ID, as described in
// docs/formats/threat.md. Invariants: what is stored is valid and within the
// limits below; two threats never have IDs that differ in case alone; an
// expired threat is expired on every read, whether or not anything was written.
package threat

import (
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/finding"
)

// Limits of what is stored. More is an error: people and feeds choose it.
const (
	MaxThreats    = 100_000 // in all
	MaxIndicators = 256     // of one threat
	MaxID         = 64      // bytes
	MaxKind       = 64      // bytes
	MaxText       = 4 << 10 // bytes of a source, reason or name
	MaxValue      = 1 << 10 // bytes of the value of an indicator
	MaxRecord     = 1 << 20 // bytes of a stored threat
)

// Errors that callers tell apart.
var (
	ErrNotFound = failure.New(failure.No, "no such threat")
	ErrExists   = failure.New(failure.Busy, "there is a threat of that ID already")
	ErrInvalid  = failure.New(failure.Usage, "invalid threat")
)

// State says what has been decided about a threat, as a lower-case word.
type State string

// The states. Expired is never stored: it follows from the time.
const (
	Active  State = "active"
	Closed  State = "closed"
	Expired State = "expired"
)

// States returns all states.
func States() []State { return []State{Active, Expired, Closed} }

// Threat is something that hosts are to be protected from.
type Threat struct {
	ID         string           `json:"id"`
	Kind       string           `json:"kind"` // a word: "scanner", "c2", "malware"
	Indicators []Indicator      `json:"indicators"`
	Severity   finding.Severity `json:"severity"`
	// Source is who says so: the fingerprint of a finding, the name of a feed,
	// a person.
	Source    string    `json:"source"`
	Reason    string    `json:"reason"`
	FirstSeen time.Time `json:"first_seen"`
	LastSeen  time.Time `json:"last_seen"`
	Expires   time.Time `json:"expires,omitzero"` // zero: never
	State     State     `json:"state"`
}

// At returns the state of the threat at a time.
func (t *Threat) At(now time.Time) State {
	if t.State == Active && !t.Expires.IsZero() && !now.Before(t.Expires) {
		return Expired
	}
	return t.State
}

// validate reports what keeps a threat from being stored.
func (t *Threat) validate() error {
	if err := validID(t.ID); err != nil {
		return err
	}
	for _, f := range []struct {
		name, value string
		most        int
	}{{"kind", t.Kind, MaxKind}, {"source", t.Source, MaxText}, {"reason", t.Reason, MaxText}} {
		if len(f.value) > f.most || !utf8.ValidString(f.value) {
			return fmt.Errorf("%w: its %s is longer than %d bytes or not UTF-8", ErrInvalid, f.name, f.most)
		}
	}
	if t.Kind == "" || strings.ContainsFunc(t.Kind, func(r rune) bool { return !word(r) }) {
		return fmt.Errorf("%w: its kind %q is not a word such as scanner", ErrInvalid, t.Kind)
	}
	if len(t.Indicators) == 0 || len(t.Indicators) > MaxIndicators {
		return fmt.Errorf("%w: it has %d indicators, not 1 to %d", ErrInvalid, len(t.Indicators), MaxIndicators)
	}
	for _, i := range t.Indicators {
		if _, err := NewIndicator(i.Type, i.Value); err != nil {
			return err
		}
	}
	if t.State != Active && t.State != Closed {
		return fmt.Errorf("%w: its state is %q", ErrInvalid, t.State)
	}
	if t.Severity < finding.Info || t.Severity > finding.Critical {
		return fmt.Errorf("%w: its severity is %d", ErrInvalid, t.Severity)
	}
	return nil
}

// word tells whether a kind or an ID may have the character.
func word(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_.", r)
}

// validID reports what is wrong with an ID.
func validID(id string) error {
	if id == "" || len(id) > MaxID || strings.ContainsFunc(id, func(r rune) bool { return !word(r) }) || strings.ContainsAny(id[:1], "-_.") {
		return fmt.Errorf("%w: the ID %q is not 1 to %d letters, digits and - _ . that begin with a letter or digit", ErrInvalid, id, MaxID)
	}
	return nil
}
