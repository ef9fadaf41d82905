// Package change is the vocabulary of changes that somebody asks for and
// somebody else approves, and the memory of them.
//
// A Change names what is to be done (its Kind, the package and its digest), how
// risky that is, why, the way back, and the window in which it may be done. It
// has a requester, and as many approvals as it requires. Responders, such as
// update apply, ask Authorize before they act and tell Applied afterwards; Sweep
// turns what is overdue into findings. Nothing here acts.
//
// Changes are kept in the bucket "changes" of state.db, by ID, as described in
// docs/formats/change.md, which also says what this protects against and what
// not. Invariants: what is stored is valid and within the limits below; the
// state of a change follows from what happened to it and is never stored; no
// stored approval is of somebody who shares an account or a key with the
// requester or with another approver; what a clock that was set back would make
// valid again stays expired and overdue, once it was seen to be.
//
// Separation of duties is that of ISO/IEC 27001:2022, control 5.3, and NIST SP
// 800-53 AC-5; login uids are those of proc_pid_loginuid(5).
package change

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/mobileops/mobileops/internal/durable"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/state"
	"golang.org/x/crypto/blake2b"
)

// Limits of what is stored. More is an error: people choose it.
const (
	MaxChanges   = 10_000               // in all; the oldest that are over make room
	MaxName      = 256                  // bytes of the name or the version of a package, of a host
	MaxText      = 4 << 10              // bytes of a reason, a plan or a comment
	MaxApprovals = 32                   // of one change
	MaxUses      = 64                   // times that a change was applied which are remembered
	MaxKeys      = 16                   // of one identity
	MaxRecord    = 256 << 10            // bytes of a stored change
	MaxWindow    = 366 * 24 * time.Hour // from its request to the end of its window
	Grace        = 24 * time.Hour       // in which an emergency change must be approved after it was applied
	clockSlack   = 5 * time.Minute      // by which clocks that are kept in time step back
	digestDigits = 2 * blake2b.Size     // of a digest in hexadecimal
	maxTime      = 253402300799         // seconds since 1970: the last that RFC 3339 can write
)

// Errors that callers tell apart.
var (
	ErrNotFound    = failure.New(failure.No, "no such change")
	ErrInvalid     = failure.New(failure.Usage, "invalid change")
	ErrNotApproved = failure.New(failure.NotAllowed, "the change is not approved")
	ErrWindow      = failure.New(failure.NotAllowed, "this is not the time of the change")
	ErrExpired     = failure.New(failure.NotAllowed, "the change has expired")
	ErrOther       = failure.New(failure.NotAllowed, "the change is about something else")
	ErrHost        = failure.New(failure.NotAllowed, "the change is for another host")
	ErrRefused     = failure.New(failure.NotAllowed, "the change was refused")
	ErrUsed        = failure.New(failure.NotAllowed, "the change was used already")
	ErrClock       = failure.New(failure.NotAllowed, "the clock was set back")
	ErrSamePerson  = failure.New(failure.NotAllowed, "who asked cannot approve")
	ErrUntold      = failure.New(failure.NotAllowed, "it cannot be told that this is somebody else")
	ErrNotYours    = failure.New(failure.NotAllowed, "only who asked can withdraw")
	ErrOver        = failure.New(failure.Busy, "the change is over")
	ErrEnough      = failure.New(failure.Busy, "the change has the approvals that it needs")
	ErrTwice       = failure.New(failure.Busy, "the same person has approved already")
)

// Kind says what a change permits, as a lower-case word.
type Kind string

// The kinds of changes.
const (
	Update    Kind = "update"    // to apply one package
	Downgrade Kind = "downgrade" // the same, also when it is older than what was accepted before
	Other     Kind = "other"     // something that is no package, once
)

// Kinds returns all kinds.
func Kinds() []Kind { return []Kind{Update, Downgrade, Other} }

// Risk says how bad it is when a change goes wrong, as a lower-case word.
type Risk string

// The risks, least first.
const (
	Low      Risk = "low"
	Medium   Risk = "medium"
	High     Risk = "high"
	Critical Risk = "critical"
)

// Risks returns all risks, least first.
func Risks() []Risk { return []Risk{Low, Medium, High, Critical} }

// State says how far a change has come, as a lower-case word. It follows from
// what happened to it and from the time.
type State string

// The states.
const (
	StateRequested State = "requested" // approvals are missing
	StateApproved  State = "approved"  // it may be applied, within its window
	StateApplied   State = "applied"   // it was; an emergency change may still need approvals
	StateRejected  State = "rejected"
	StateWithdrawn State = "withdrawn"
	StateExpired   State = "expired" // its window ended before it was applied
)

// States returns all states.
func States() []State {
	return []State{StateRequested, StateApproved, StateApplied, StateRejected, StateWithdrawn, StateExpired}
}

// Change is something that somebody asked for. Times are in UTC.
type Change struct {
	ID        string    `json:"id"`
	Kind      Kind      `json:"kind"`
	Name      string    `json:"name,omitempty"`    // of the package, or what it is about
	Version   string    `json:"version,omitempty"` // of the package
	Digest    string    `json:"digest,omitempty"`  // BLAKE2b-512 of the file of the package, 128 lower-case hexadecimal digits
	Risk      Risk      `json:"risk"`
	Reason    string    `json:"reason"`
	Rollback  string    `json:"rollback_plan,omitempty"`
	From      time.Time `json:"from"`  // it authorises nothing before,
	Until     time.Time `json:"until"` // nor at or after
	Emergency bool      `json:"emergency"`
	Host      string    `json:"host,omitempty"` // on which it was asked for; on others it authorises nothing
	Requester Identity  `json:"requester"`
	Requested time.Time `json:"requested"`
	// Required is how many different people must approve. Where it could not be
	// told who asked, one of them may be who asked: then it is one more.
	Required   int        `json:"approvals_required"`
	Untold     bool       `json:"requester_untold,omitempty"`
	Approvals  []Approval `json:"approvals,omitempty"`
	Rejection  *Decision  `json:"rejection,omitempty"`
	Withdrawal *Decision  `json:"withdrawal,omitempty"`
	Uses       []Use      `json:"uses,omitempty"`             // the first, and the latest ones, oldest first
	Expired    time.Time  `json:"expired_seen,omitzero"`      // when it was seen to be expired; zero: never
	Overdue    time.Time  `json:"overdue_seen,omitzero"`      // when it was seen to be overdue; zero: never
	Reported   string     `json:"finding_reported,omitempty"` // the rule of the finding that tells of it; "": none
}

// Approval is the consent of one person.
type Approval struct {
	By      Identity  `json:"by"` // who gave it, or with a signature who brought it here
	At      time.Time `json:"at"`
	Comment string    `json:"comment,omitempty"`
	Signed  *Signed   `json:"signed,omitempty"` // the approver is who made this signature
}

// Decision is who rejected or withdrew a change.
type Decision struct {
	By      Identity  `json:"by"`
	At      time.Time `json:"at"`
	Comment string    `json:"comment,omitempty"`
}

// Outcome is what came of applying a change, as a lower-case word.
type Outcome string

// The outcomes.
const (
	Live       Outcome = "live"        // it is in force
	RolledBack Outcome = "rolled-back" // it was, and no longer is
)

// Use is one time that a change was applied.
type Use struct {
	At      time.Time `json:"at"`
	Outcome Outcome   `json:"outcome"`
	Undone  time.Time `json:"undone,omitzero"` // when it was rolled back
	// Unauthorised says why the change did not authorise it when it was done; "":
	// it did.
	Unauthorised string `json:"unauthorised,omitempty"`
}

// At returns the state of the change at a time.
func (c *Change) At(now time.Time) State {
	switch {
	case c.Withdrawal != nil:
		return StateWithdrawn
	case c.Rejection != nil:
		return StateRejected
	case len(c.Uses) > 0:
		return StateApplied
	case !c.Expired.IsZero() || !now.Before(c.Until):
		return StateExpired
	case c.consented():
		return StateApproved
	}
	return StateRequested
}

// Missing returns how many approvals are still needed.
func (c *Change) Missing() int { return max(0, c.Required-len(c.Approvals)) }

func (c *Change) consented() bool { return len(c.Approvals) >= c.Required }

// Subject says in a few words what the change is about.
func (c *Change) Subject() string {
	s := strings.TrimSpace(c.Name + " " + c.Version)
	if s == "" {
		s = "package " + c.Digest[:min(len(c.Digest), 16)]
	}
	return s
}

// Digest returns the digest by which changes name packages: BLAKE2b-512 of all
// that r has, in lower-case hexadecimal digits.
func Digest(ctx context.Context, r io.Reader) (string, error) {
	h, err := blake2b.New512(nil)
	if err != nil {
		return "", err
	}
	if _, err := io.Copy(durable.Writer(ctx, h), r); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// ParseDigest reads a digest as b2sum(1) writes it, in any case.
func ParseDigest(s string) (string, error) {
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != blake2b.Size {
		return "", fmt.Errorf("%w: its digest is not %d hexadecimal digits (b2sum FILE writes them)", ErrInvalid, digestDigits)
	}
	return hex.EncodeToString(b), nil
}

// validate reports what keeps a change from being stored.
func (c *Change) validate() error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("%w: %s", ErrInvalid, fmt.Sprintf(format, args...))
	}
	if err := validID(c.ID); err != nil {
		return err
	}
	for _, f := range []struct {
		name, value string
		most        int
	}{{"name", c.Name, MaxName}, {"version", c.Version, MaxName}, {"host", c.Host, MaxName}, {"reason", c.Reason, MaxText}, {"plan to go back", c.Rollback, MaxText}} {
		if err := validText(f.name, f.value, f.most); err != nil {
			return err
		}
	}
	switch {
	case !slices.Contains(Kinds(), c.Kind):
		return bad("there is no kind %q", c.Kind)
	case !slices.Contains(Risks(), c.Risk):
		return bad("there is no risk %q (low, medium, high, critical)", c.Risk)
	case strings.TrimSpace(c.Reason) == "":
		return bad("it has no reason")
	case c.Kind != Other && c.Digest == "":
		return bad("it does not say which package, by its digest")
	case c.Kind == Other && c.Name == "":
		return bad("it does not say what it is about")
	case !storable(c.Requested) || !storable(c.From) || !storable(c.Until):
		return bad("one of its times cannot be written")
	case !c.From.Before(c.Until):
		return bad("its window ends before it begins")
	case c.Until.Sub(c.Requested) > MaxWindow:
		return bad("its window ends more than %d days after it was asked for", MaxWindow/(24*time.Hour))
	case c.Required < 1 || c.Required > MaxApprovals:
		return bad("it requires %d approvals, not 1 to %d", c.Required, MaxApprovals)
	case len(c.Approvals) > MaxApprovals || len(c.Uses) > MaxUses:
		return bad("it has more approvals or uses than are kept")
	}
	if c.Digest != "" {
		if d, err := ParseDigest(c.Digest); err != nil || d != c.Digest {
			return bad("its digest is not %d lower-case hexadecimal digits", digestDigits)
		}
	}
	return errors.Join(c.Requester.validate(), c.validateDecisions())
}

// validateDecisions holds what was decided against the rules that do not depend
// on who people are: a record that was written past them shows.
func (c *Change) validateDecisions() error {
	seen := []*Identity{&c.Requester}
	for n := range c.Approvals {
		a := &c.Approvals[n]
		if err := errors.Join(a.By.validate(), validText("comment", a.Comment, MaxText)); err != nil {
			return err
		}
		who := a.approver()
		if a.Signed != nil {
			if err := a.Signed.verify(c.Message()); err != nil {
				return fmt.Errorf("%w: approval %d: %w", ErrInvalid, n+1, err)
			}
		}
		for _, other := range seen {
			if r := (*People)(nil).relate(other, who); r.same {
				return fmt.Errorf("%w: approval %d is of somebody who asked for it or approved it already: %s", ErrInvalid, n+1, r.why)
			}
		}
		seen = append(seen, who)
	}
	for _, d := range []*Decision{c.Rejection, c.Withdrawal} {
		if d != nil {
			if err := errors.Join(d.By.validate(), validText("comment", d.Comment, MaxText)); err != nil {
				return err
			}
		}
	}
	for _, u := range c.Uses {
		if u.Outcome != Live && u.Outcome != RolledBack || !storable(u.At) {
			return fmt.Errorf("%w: it was applied with an outcome %q", ErrInvalid, u.Outcome)
		}
	}
	return nil
}

func storable(t time.Time) bool { return t.Unix() > 0 && t.Unix() <= maxTime }

func validText(name, value string, most int) error {
	if len(value) > most || !utf8.ValidString(value) {
		return fmt.Errorf("%w: its %s is longer than %d bytes or not UTF-8", ErrInvalid, name, most)
	}
	return nil
}

// validID reports what is wrong with an ID.
func validID(id string) error {
	if len(id) != idLength || !strings.HasPrefix(id, idPrefix) || strings.Trim(id[len(idPrefix):], state.IDAlphabet) != "" {
		return fmt.Errorf("%w: the ID %q is not such as C-7Q2FM3", ErrInvalid, id)
	}
	return nil
}
