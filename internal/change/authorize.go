package change

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/state"
)

// Wanted is what somebody is about to do.
type Wanted struct {
	Digest    string // of the file of the package, as Digest computes it
	Name      string // of the package; "": not known
	Version   string
	Downgrade bool   // it is older than what was accepted before
	Other     bool   // it is no package: Name says what
	Host      string // on which; "": not known
}

// Authorize returns nil when the change permits what is wanted at this moment.
// Otherwise the error, of kind failure.NotAllowed, says why not and what to do
// next: ErrNotApproved, ErrWindow, ErrExpired, ErrOther, ErrHost, ErrRefused,
// ErrUsed, ErrClock. It changes nothing: call Applied in the transaction that makes it so.
// The same package may be applied again within the window.
func Authorize(tx *state.Tx, id string, want Wanted, now time.Time) error {
	c, err := Get(tx, id)
	if err != nil {
		return err
	}
	return c.authorizes(want, now)
}

func (c *Change) authorizes(want Wanted, now time.Time) error {
	if err := c.covers(want); err != nil {
		return err
	}
	return c.InForce(now)
}

// covers says whether the change is about what is wanted.
func (c *Change) covers(want Wanted) error {
	other := func(format string, args ...any) error {
		return failure.Hint(fmt.Errorf("%w: %s", ErrOther, fmt.Sprintf(format, args...)), "see it: mobileops change show "+c.ID)
	}
	switch {
	case want.Other != (c.Kind == Other):
		return other("%s is of the kind %s", c.ID, c.Kind)
	case c.Digest != "" && want.Digest != c.Digest:
		return other("%s is about the package with digest %.16s…, this one has %.16s…", c.ID, c.Digest, want.Digest)
	case c.Name != "" && want.Name != "" && want.Name != c.Name:
		return other("%s is about %q, this is %q", c.ID, c.Name, want.Name)
	case c.Version != "" && want.Version != "" && want.Version != c.Version:
		return other("%s is about version %q, this is %q", c.ID, c.Version, want.Version)
	case want.Downgrade && c.Kind != Downgrade:
		return failure.Hint(fmt.Errorf("%w: %s permits no downgrade", ErrOther, c.ID), "request one that does: mobileops change request --kind downgrade")
	}
	return c.On(want.Host)
}

// On returns ErrHost when the change was asked for on another host: its state came
// here in a copy, as with an image or a backup, and nobody has agreed to anything
// here. A name without a domain is that of the host in any domain. Where either
// name is not known there is nothing to compare.
func (c *Change) On(host string) error {
	name, domain, _ := strings.Cut(strings.ToLower(host), ".")
	askedOn, askedIn, _ := strings.Cut(strings.ToLower(c.Host), ".")
	if name == "" || askedOn == "" || name == askedOn && (domain == askedIn || domain == "" || askedIn == "") {
		return nil
	}
	return failure.Hint(fmt.Errorf("%w: %s was asked for on %q, and this is %q", ErrHost, c.ID, c.Host, host), "ask for it here: mobileops change request")
}

// InForce returns nil when the change authorises what it is about at a time, and
// otherwise the error that Authorize returns.
func (c *Change) InForce(now time.Time) error {
	day := func(t time.Time) string { return t.UTC().Format(time.RFC3339) }
	latest := c.Requested
	for n := range c.Approvals {
		if at := c.Approvals[n].At; at.After(latest) {
			latest = at
		}
	}
	for _, u := range c.Uses {
		if u.At.After(latest) {
			latest = u.At
		}
	}
	switch {
	case c.Withdrawal != nil:
		return fmt.Errorf("%w: %s was withdrawn", ErrRefused, c.ID)
	case c.Rejection != nil:
		return fmt.Errorf("%w: %s was rejected: %s", ErrRefused, c.ID, c.Rejection.Comment)
	case !c.Expired.IsZero() || !now.Before(c.Until):
		return failure.Hint(fmt.Errorf("%w: the window of %s ended on %s", ErrExpired, c.ID, day(c.Until)), "request it again: mobileops change request")
	case now.Before(latest.Add(-clockSlack)):
		return failure.Hint(fmt.Errorf("%w: the latest that happened to %s was on %s", ErrClock, c.ID, day(latest)), "set the clock")
	case now.Before(c.From):
		return fmt.Errorf("%w: the window of %s begins on %s", ErrWindow, c.ID, day(c.From))
	case c.Kind == Other && len(c.Uses) > 0:
		return fmt.Errorf("%w: %s, on %s", ErrUsed, c.ID, day(c.Uses[0].At))
	case c.consented():
		return nil
	case !c.Emergency:
		return failure.Hint(fmt.Errorf("%w: %s lacks %d of %d approvals", ErrNotApproved, c.ID, c.Missing(), c.Required), "somebody else runs: mobileops change approve "+c.ID)
	case !now.Before(c.Requested.Add(Grace)) || !c.Overdue.IsZero():
		return failure.Hint(fmt.Errorf("%w: as an emergency %s could be applied without approval until %s", ErrNotApproved, c.ID, day(c.Requested.Add(Grace))), "somebody else runs: mobileops change approve "+c.ID)
	}
	return nil
}

// Applied notes that the change was applied. It never refuses what has happened:
// what the change did not authorise at this moment is noted as such, and Sweep
// tells of it. Changes that are applied more often than MaxUses keep the first
// time and the latest ones.
func Applied(tx *state.Tx, id string, now time.Time) (*Change, error) {
	c, err := Get(tx, id)
	if err != nil {
		return nil, err
	}
	u := Use{At: now.UTC().Round(0), Outcome: Live}
	if err := c.InForce(now); err != nil {
		u.Unauthorised = err.Error()
		u.Unauthorised = u.Unauthorised[:min(len(u.Unauthorised), MaxName)]
	}
	if c.Uses = append(c.Uses, u); len(c.Uses) > MaxUses {
		c.Uses = slices.Delete(c.Uses, 1, 2)
	}
	return c, save(tx, c)
}

// Undone notes that what a change brought is no longer in force. It does nothing
// when it was not.
func Undone(tx *state.Tx, id string, now time.Time) (*Change, error) {
	c, err := Get(tx, id)
	if err != nil || len(c.Uses) == 0 {
		return c, err
	}
	if u := &c.Uses[len(c.Uses)-1]; u.Outcome == Live {
		u.Outcome, u.Undone = RolledBack, now.UTC().Round(0)
	}
	return c, save(tx, c)
}

// Redone notes that what a change brought is in force again, since somebody went
// back to it. That is no new use: what was not authorised about the latest one,
// or was refused since, counts again.
func Redone(tx *state.Tx, id string) (*Change, error) {
	c, err := Get(tx, id)
	if err != nil || len(c.Uses) == 0 {
		return c, err
	}
	u := &c.Uses[len(c.Uses)-1]
	u.Outcome, u.Undone = Live, time.Time{}
	return c, save(tx, c)
}
