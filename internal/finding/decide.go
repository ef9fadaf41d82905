package finding

import (
	"fmt"
	"strings"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/state"
)

// Errors of Ack, Waive and Reopen.
var (
	// ErrAlready says that the finding is in the wanted state already.
	ErrAlready = failure.New(failure.Busy, "nothing to change")
	// ErrResolved says that the finding is resolved, so there is nothing to
	// decide about.
	ErrResolved = failure.New(failure.No, "the finding is resolved")
)

// Decision is who decides about a finding, when and why. Who and Reason must
// not be empty.
type Decision struct {
	Who    string
	Reason string
	At     time.Time
}

func (d Decision) check() error {
	return firstError(required("who", d.Who), required("reason", d.Reason))
}

func required(what, text string) error {
	if strings.TrimSpace(text) == "" {
		return failure.Errorf(failure.Usage, "the %s must not be empty", what)
	}
	if len(text) > MaxText {
		return failure.Errorf(failure.Usage, "the %s has %d bytes, more than %d", what, len(text), MaxText)
	}
	return nil
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// Ack acknowledges the finding with the given id prefix: somebody knows and
// works on it. It stays so until it is resolved, reopened, or more severe.
func Ack(tx *state.Tx, id string, d Decision) (*Record, error) {
	return decide(tx, id, d, func(r *Record) error {
		if r.State == Acknowledged {
			c := r.History[len(r.History)-1]
			return fmt.Errorf("%w: %s was acknowledged by %s on %s", ErrAlready, r.ID(), c.Who, c.At.Format(time.DateOnly))
		}
		r.change(Acknowledged, d.At, d.Who, d.Reason)
		r.Reason = d.Reason
		return nil
	})
}

// Waive accepts the finding with the given id prefix until a time, on the
// responsibility of owner. All of them are required. A new waiver replaces the
// one in force.
func Waive(tx *state.Tx, id string, d Decision, owner string, until time.Time) (*Record, error) {
	if err := required("owner", owner); err != nil {
		return nil, err
	}
	if !until.After(d.At) {
		return nil, failure.Errorf(failure.Usage, "the waiver would end on %s, which is in the past", until.Format(time.RFC3339))
	}
	if !storable(until) {
		return nil, failure.Errorf(failure.Usage, "the waiver would end after the year 9999")
	}
	return decide(tx, id, d, func(r *Record) error {
		r.change(Waived, d.At, d.Who, d.Reason)
		r.Owner, r.Reason, r.WaivedUntil = owner, d.Reason, until.UTC()
		return nil
	})
}

// Reopen takes back an acknowledgement or a waiver.
func Reopen(tx *state.Tx, id string, d Decision) (*Record, error) {
	return decide(tx, id, d, func(r *Record) error {
		if r.State == Open {
			return fmt.Errorf("%w: %s is open", ErrAlready, r.ID())
		}
		r.change(Open, d.At, d.Who, d.Reason)
		return nil
	})
}

func decide(tx *state.Tx, id string, d Decision, apply func(*Record) error) (*Record, error) {
	if err := d.check(); err != nil {
		return nil, err
	}
	b, err := openBuckets(tx)
	if err != nil {
		return nil, err
	}
	r, err := b.get(id, d.At)
	if err != nil {
		return nil, err
	}
	if r.State == Resolved {
		return nil, failure.Hint(fmt.Errorf("%w: %s was last seen on %s", ErrResolved, r.ID(), r.LastSeen.Format(time.DateOnly)),
			"it opens by itself when a scan finds it again")
	}
	if err := apply(r); err != nil {
		return nil, err
	}
	if err := b.record(r, eventOf(r.State), d.At); err != nil {
		return nil, err
	}
	return r, b.log.flush()
}
