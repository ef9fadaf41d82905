package sla

import (
	"fmt"
	"strings"
	"time"

	"github.com/mobileops/mobileops/internal/change"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/state"
)

// complete names what a waiver lacks.
func (w *Waiver) complete() error {
	for _, field := range []struct{ what, text string }{
		{"an owner, who answers for it", w.Owner}, {"a reason, which is told to those who ask", w.Reason},
	} {
		if strings.TrimSpace(field.text) == "" {
			return fmt.Errorf("%w: a waiver needs %s", ErrInvalid, field.what)
		}
		if len(field.text) > MaxText {
			return fmt.Errorf("%w: %s, has %d bytes, more than %d", ErrInvalid, field.what, len(field.text), MaxText)
		}
	}
	if w.Until.IsZero() {
		return fmt.Errorf("%w: a waiver needs an end", ErrInvalid)
	}
	return nil
}

// Waive asks that an advisory need not be installed until w.Until, on the
// responsibility of w.Owner and for w.Reason. Nothing is waived by that:
// another person has to approve it. word names the advisory as for Find. A
// request that waits already is replaced; a waiver in force goes on until then.
func (l Ledger) Waive(tx *state.Tx, word string, w Waiver, by change.Identity, now time.Time) (*Record, error) {
	now = storable(now)
	w = Waiver{Owner: w.Owner, Reason: w.Reason, Until: storable(w.Until), Requested: person(by, now)}
	if err := w.complete(); err != nil {
		return nil, err
	}
	if !w.Until.After(now) {
		return nil, fmt.Errorf("%w: the waiver would end on %s, which is in the past", ErrInvalid, w.Until.Format(time.RFC3339))
	}
	if w.Until.Sub(now) > MaxWaiver {
		return nil, fmt.Errorf("%w: the waiver would last longer than %d days: ask for it again when it ends", ErrInvalid, int(MaxWaiver/(24*time.Hour)))
	}
	return l.decide(tx, word, func(r *Record) error {
		w.Severity = r.Severity
		r.Request = &w
		r.event(now, w.Requested.By.Describe(), "waiver asked for until %s, owner %s: %s", w.Until.Format(time.DateOnly), w.Owner, w.Reason)
		return nil
	})
}

// Approve puts the waiver that was asked for into force. Whoever asked for it, or
// answers for it as its owner, is refused with change.ErrSamePerson, and who
// cannot be told from them with change.ErrUntold; people says which accounts are
// one person.
func (l Ledger) Approve(tx *state.Tx, word string, by change.Identity, people *change.People, now time.Time) (*Record, error) {
	now = storable(now)
	return l.decide(tx, word, func(r *Record) error {
		w := r.Request
		if w == nil {
			return failure.Hint(failure.Errorf(failure.No, "no waiver of %s waits for approval", r.ID()), "ask for one: mobileops update sla waive "+r.ID())
		}
		if !w.Until.After(now) {
			return failure.Errorf(failure.No, "the waiver of %s would have ended on %s", r.ID(), w.Until.Format(time.RFC3339))
		}
		if r.Severity.rank() > w.Severity.rank() {
			return failure.Hint(failure.Errorf(failure.No, "%s has become %s since the waiver was asked for", r.ID(), r.Severity), "ask for it again")
		}
		approver := person(people.Know(by), now)
		if err := people.Apart(people.Know(w.Requested.By), approver.By); err != nil {
			return err
		}
		if owns(w.Owner, approver.By) {
			return failure.Hint(fmt.Errorf("%w: %s answers for it as its owner", change.ErrSamePerson, w.Owner), "somebody else approves it")
		}
		approved := *w
		approved.Approved = &approver
		r.Waiver, r.Request = &approved, nil
		r.event(now, approver.By.Describe(), "waiver approved until %s", w.Until.Format(time.DateOnly))
		return nil
	})
}

// Unwaive takes back a waiver and a request for one. Anybody may: it only makes
// things stricter.
func (l Ledger) Unwaive(tx *state.Tx, word, reason string, by change.Identity, now time.Time) (*Record, error) {
	now = storable(now)
	if strings.TrimSpace(reason) == "" || len(reason) > MaxText {
		return nil, fmt.Errorf("%w: a reason of at most %d bytes is needed", ErrInvalid, MaxText)
	}
	return l.decide(tx, word, func(r *Record) error {
		if r.Request == nil && !r.waived(now) {
			return failure.Errorf(failure.Busy, "nothing to take back: %s is not waived", r.ID())
		}
		r.Waiver, r.Request = nil, nil
		r.event(now, by.Describe(), "waiver taken back: %s", reason)
		return nil
	})
}

func (l Ledger) decide(tx *state.Tx, word string, apply func(*Record) error) (*Record, error) {
	b, err := l.open(tx)
	if err != nil {
		return nil, err
	}
	r, err := b.find(word)
	if err != nil {
		return nil, err
	}
	if !r.FixedAt.IsZero() {
		return nil, fmt.Errorf("%w: %s since %s", ErrFixed, r.ID(), r.FixedAt.Format(time.DateOnly))
	}
	if err := apply(r); err != nil {
		return nil, err
	}
	return r, b.save(r)
}

func person(by change.Identity, now time.Time) Person { return Person{By: by, At: now} }

// owns reports whether the owner of a waiver, a name in free words, is written
// like one of the names of who acts. Root that was reached from a login is
// nobody's name.
func owns(owner string, by change.Identity) bool {
	names := append(strings.Split(by.Person, " and "), by.LoginUser, by.Name())
	if by.LoginUID < 0 || by.LoginUID == int64(by.UID) {
		names = append(names, by.User)
	}
	owner = strings.TrimSpace(owner)
	for _, name := range names {
		if name != "" && strings.EqualFold(owner, name) {
			return true
		}
	}
	return false
}
