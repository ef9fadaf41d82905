package change

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/state"
)

// Request stores a change that Requester asks for and returns it with its ID.
// Of c these count: Kind, Name, Version, Digest, Risk, Reason, Rollback, From,
// Until, Emergency, Host, Requester and Required. From of zero is now.
func Request(tx *state.Tx, c Change, people *People, now time.Time) (*Change, error) {
	now = now.UTC().Round(0)
	c = Change{
		Kind: c.Kind, Name: c.Name, Version: c.Version, Digest: strings.ToLower(c.Digest), Risk: c.Risk, Reason: c.Reason, Rollback: c.Rollback,
		From: c.From.UTC().Round(0), Until: c.Until.UTC().Round(0), Emergency: c.Emergency, Host: c.Host,
		Requester: people.Know(c.Requester), Requested: now, Required: c.Required,
	}
	if c.From.IsZero() {
		c.From = now
	}
	if c.Untold = !people.tells(&c.Requester); c.Untold {
		c.Required++
	}
	if !c.Until.After(now) {
		return nil, fmt.Errorf("%w: its window has ended already", ErrInvalid)
	}
	b, err := tx.CreateBucketIfNotExists([]byte(bucket))
	if err != nil {
		return nil, err
	}
	if b.Stats().KeyN >= MaxChanges {
		if err := makeRoom(tx, now); err != nil {
			return nil, err
		}
	}
	for c.ID = state.NewID(idPrefix); b.Get([]byte(c.ID)) != nil; c.ID = state.NewID(idPrefix) {
	}
	return &c, save(tx, &c)
}

// makeRoom forgets the oldest change about which nothing is left to do.
func makeRoom(tx *state.Tx, now time.Time) error {
	var oldest *Change
	err := each(tx, func(c *Change) error {
		over := false
		switch c.At(now) {
		case StateRejected, StateWithdrawn, StateExpired:
			over = c.Reported == ""
		case StateApplied:
			over = c.consented() && !now.Before(c.Until) && c.Reported == ""
		}
		if over && (oldest == nil || c.Requested.Before(oldest.Requested)) {
			oldest = c
		}
		return nil
	})
	if err != nil {
		return err
	}
	if oldest == nil {
		return failure.Hint(failure.Errorf(failure.Failed, "%d changes are stored, and none is over", MaxChanges), "withdraw some: mobileops change withdraw ID")
	}
	return tx.Bucket([]byte(bucket)).Delete([]byte(oldest.ID))
}

// Consent is what an approver brings.
type Consent struct {
	By        Identity // whose process this is
	Comment   string
	Signature []byte // a signature of minisign over Message: then who made it approves; nil: By does
}

// Approve adds the approval of one person to a change, as Get finds it. The
// error is ErrSamePerson when that is who asked, ErrTwice when they approved
// already, ErrUntold when it cannot be told, ErrOver or ErrExpired when there is
// nothing to approve. An emergency change that was applied can be approved
// whatever the time.
func Approve(tx *state.Tx, id string, consent Consent, people *People, now time.Time) (*Change, error) {
	c, err := Get(tx, id)
	if err != nil {
		return nil, err
	}
	now = now.UTC().Round(0)
	switch s := c.At(now); {
	case s == StateRejected || s == StateWithdrawn:
		return nil, fmt.Errorf("%w: it was %s", ErrOver, s)
	case s == StateExpired:
		return nil, failure.Hint(fmt.Errorf("%w on %s", ErrExpired, c.Until.Format(time.RFC3339)), "request it again")
	case s != StateApplied && now.Before(c.Requested.Add(-clockSlack)):
		return nil, fmt.Errorf("%w: it was requested on %s", ErrClock, c.Requested.Format(time.RFC3339))
	}
	if c.consented() {
		return nil, failure.Hint(fmt.Errorf("%w: %d of %d", ErrEnough, len(c.Approvals), c.Required), "see what comes next: mobileops change show "+c.ID)
	}
	a := Approval{By: people.Know(consent.By), At: now, Comment: consent.Comment}
	if len(consent.Signature) > 0 {
		if a.Signed, err = people.findSigner(consent.Signature, c.Message()); err != nil {
			return nil, err
		}
	}
	who := a.approver()
	help := howToTell
	if a.Signed != nil {
		help = "name them in the file of people: change.people in the configuration"
	}
	switch r := people.relate(&c.Requester, who); {
	case r.same:
		return nil, failure.Hint(fmt.Errorf("%w: %s", ErrSamePerson, r.why), "somebody else approves "+c.ID)
	case r.untold && !c.Untold:
		return nil, failure.Hint(fmt.Errorf("%w than who asked: %s", ErrUntold, r.why), help)
	case r.untold && a.Signed == nil && (who.LoginUID < 0 || !people.tells(who)):
		// Who asked may be among the approvers, and is outvoted; but each of these
		// must be told from the others.
		return nil, failure.Hint(fmt.Errorf("%w: %s", ErrUntold, r.why), help)
	}
	for n := range c.Approvals {
		other := c.Approvals[n].approver()
		switch r := people.relate(other, who); {
		case r.same:
			return nil, failure.Hint(fmt.Errorf("%w: %s", ErrTwice, r.why), fmt.Sprintf("%d more must approve, each somebody else", c.Missing()))
		case r.untold:
			return nil, failure.Hint(fmt.Errorf("%w than %s, who approved already: %s", ErrUntold, other.Describe(), r.why), help)
		}
	}
	c.Approvals = append(c.Approvals, a)
	return c, save(tx, c)
}

// Reject refuses a change: it authorises nothing any more. An emergency change
// that was applied and not yet approved can be rejected, too; any other that was
// applied cannot. Who asked withdraws instead.
func Reject(tx *state.Tx, id string, by Identity, comment string, people *People, now time.Time) (*Change, error) {
	c, err := Get(tx, id)
	if err != nil {
		return nil, err
	}
	if r := people.relate(&c.Requester, &by); r.same {
		return nil, failure.Hint(fmt.Errorf("%w nor reject: %s", ErrSamePerson, r.why), "withdraw it: mobileops change withdraw "+c.ID)
	}
	if strings.TrimSpace(comment) == "" {
		return nil, fmt.Errorf("%w: a rejection needs a reason", ErrInvalid)
	}
	switch s := c.At(now); {
	case s == StateApplied && c.consented():
		return nil, failure.Hint(fmt.Errorf("%w: it was approved and applied", ErrOver), "undo what it did: mobileops rollback")
	case s == StateRejected || s == StateWithdrawn || s == StateExpired:
		return nil, fmt.Errorf("%w: it is %s", ErrOver, s)
	}
	c.Rejection = &Decision{By: people.Know(by), At: now.UTC().Round(0), Comment: comment}
	return c, save(tx, c)
}

// Withdraw takes a change back that was not applied. Only who asked can.
func Withdraw(tx *state.Tx, id string, by Identity, comment string, people *People, now time.Time) (*Change, error) {
	c, err := Get(tx, id)
	if err != nil {
		return nil, err
	}
	if r := people.relate(&c.Requester, &by); !r.same {
		return nil, failure.Hint(fmt.Errorf("%w: that was %s", ErrNotYours, c.Requester.Describe()), "reject it: mobileops change reject "+c.ID)
	}
	if s := c.At(now); slices.Contains([]State{StateApplied, StateRejected, StateWithdrawn, StateExpired}, s) {
		return nil, fmt.Errorf("%w: it is %s", ErrOver, s)
	}
	c.Withdrawal = &Decision{By: people.Know(by), At: now.UTC().Round(0), Comment: comment}
	return c, save(tx, c)
}
