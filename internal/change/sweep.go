package change

import (
	"fmt"
	"time"

	"github.com/mobileops/mobileops/internal/finding"
	"github.com/mobileops/mobileops/internal/state"
)

// Source is that of the findings, and the rules are theirs.
const (
	Source           = "change"
	RuleUnapproved   = "emergency-unapproved" // applied in an emergency, and not approved in time
	RuleRejected     = "emergency-rejected"   // applied in an emergency, rejected, and still in force
	RuleUnauthorised = "unauthorised"         // applied although the change did not authorise it, and still in force
)

// Deadline returns until when an emergency change that was applied must be
// approved; false when nothing is waited for.
func (c *Change) Deadline() (time.Time, bool) {
	if !c.Emergency || len(c.Uses) == 0 || c.consented() || c.Rejection != nil {
		return time.Time{}, false
	}
	return c.Uses[0].At.Add(Grace), true
}

// live says whether what the change brought is in force.
func (c *Change) live() bool { return len(c.Uses) > 0 && c.Uses[len(c.Uses)-1].Outcome == Live }

// Rule returns the rule of the finding that tells of the change at a time; "":
// there is nothing to tell.
func (c *Change) Rule(now time.Time) string {
	if deadline, waits := c.Deadline(); waits {
		// Before it was applied, by a clock that was set back, is no time to wait.
		if !c.Overdue.IsZero() || !now.Before(deadline) || now.Before(c.Uses[0].At.Add(-clockSlack)) {
			return RuleUnapproved
		}
		return ""
	}
	switch {
	case c.live() && c.Emergency && c.Rejection != nil:
		return RuleRejected
	case c.live() && c.Uses[len(c.Uses)-1].Unauthorised != "":
		return RuleUnauthorised
	}
	return ""
}

// settle brings what follows from the time up to date, and says whether that
// altered the change.
func (c *Change) settle(now time.Time) (altered bool) {
	now = now.UTC().Round(0)
	if c.Expired.IsZero() && c.At(now) == StateExpired {
		c.Expired, altered = now, true
	}
	rule := c.Rule(now)
	if rule == RuleUnapproved && c.Overdue.IsZero() {
		c.Overdue, altered = now, true
	}
	if rule != c.Reported {
		c.Reported, altered = rule, true
	}
	return altered
}

// Stale says whether Sweep would write anything, so that who only reads need not
// ask for the right to write.
func Stale(tx *state.Tx, now time.Time) (stale bool, err error) {
	err = each(tx, func(c *Change) error {
		stale = c.settle(now) || stale
		return nil
	})
	return stale, err
}

// Sweep notes which changes have expired, and brings the findings about those
// that were applied without the consent that they need up to date: what has been
// approved, or rolled back, since is resolved. It returns the findings that hold
// now. In a transaction that only reads it writes nothing.
func Sweep(tx *state.Tx, now time.Time) (found []finding.Finding, err error) {
	var altered []*Change
	told := false
	if err := each(tx, func(c *Change) error {
		before := c.Reported
		if c.settle(now) {
			altered = append(altered, c) // saved afterwards: a cursor does not survive changes
			told = told || c.Reported != before
		}
		if c.Reported != "" {
			found = append(found, c.finding(now))
		}
		return nil
	}); err != nil || !tx.Writable() {
		return found, err
	}
	for _, c := range altered {
		if err := save(tx, c); err != nil {
			return nil, err
		}
	}
	if told {
		_, err = finding.Report(tx, Source, "", found, now)
	}
	return found, err
}

// finding says in the common vocabulary what is wrong with the change.
func (c *Change) finding(now time.Time) finding.Finding {
	first := c.Uses[0].At.UTC().Format(time.RFC3339)
	f := finding.Finding{
		Source: Source, Rule: c.Reported, Severity: finding.High, Subject: c.ID, Observed: now,
		Evidence: map[string]string{"subject": c.Subject(), "applied": first, "requester": c.Requester.Describe(), "reason": c.Reason, "risk": string(c.Risk)},
		Tags:     []string{"change-management"},
	}
	if c.Digest != "" {
		f.Evidence["digest"] = c.Digest
	}
	switch c.Reported {
	case RuleUnapproved:
		f.Title = fmt.Sprintf("Emergency change %s was applied and not approved within %d hours", c.ID, int(Grace.Hours()))
		f.Evidence["due"] = c.Uses[0].At.Add(Grace).UTC().Format(time.RFC3339)
		f.Evidence["approvals_missing"] = fmt.Sprint(c.Missing())
		f.Remediation = "Somebody else than who asked looks at it (mobileops change show " + c.ID + ") and approves or rejects it: mobileops change approve " + c.ID
	case RuleRejected:
		f.Title = "Emergency change " + c.ID + " was applied, was rejected, and is still in force"
		f.Evidence["rejection"] = c.Rejection.Comment
		f.Remediation = "Undo it: mobileops rollback. Where it has been undone otherwise, say so: mobileops finding waive"
	case RuleUnauthorised:
		f.Title = "Change " + c.ID + " was applied although it did not authorise that"
		f.Evidence["why"] = c.Uses[len(c.Uses)-1].Unauthorised
		f.Remediation = "Undo it: mobileops rollback. Or request it again and apply it anew"
	}
	return f
}
