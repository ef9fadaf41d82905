// Package change holds the commands of mobileops change: what somebody asked
// for, and who else agreed.
package change

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/mobileops/mobileops/internal/change"
	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/state"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/spf13/cobra"
)

// New returns the command change with its verbs.
func New(a *app.App) *cobra.Command {
	return a.Group("change", "Ask for changes, approve them, and see which were made",
		newRequest(a), newApprove(a), newReject(a), newWithdraw(a), newList(a), newShow(a))
}

// The lines about files in the help texts here.
const (
	stateFile  = "/var/lib/mobileops/state.db: the changes"
	peopleFile = "/etc/mobileops/people.yaml: whose accounts and keys are whose, where change.people names it"
)

// record is a change in JSON, with what follows from it at the time.
type record struct {
	*change.Change
	State      change.State `json:"state"`
	Missing    int          `json:"approvals_missing"`
	Authorises bool         `json:"authorises"`        // it may be applied at this moment
	WhyNot     string       `json:"why_not,omitempty"` // what keeps it from that
	Deadline   *time.Time   `json:"approve_until,omitempty"`
	Overdue    bool         `json:"overdue"` // it needs attention at once: a finding tells of it
}

// document is what every verb prints with --output json.
type document struct {
	Schema  string   `json:"schema"`
	Changes []record `json:"changes"`
}

func records(list []*change.Change, now time.Time) []record {
	out := []record{}
	host, _ := os.Hostname()
	for _, c := range list {
		r := record{Change: c, State: c.At(now), Missing: c.Missing(), Overdue: c.Rule(now) != ""}
		if err := cmp.Or(c.On(host), c.InForce(now)); err != nil {
			r.WhyNot = err.Error()
		} else {
			r.Authorises = true
		}
		if t, ok := c.Deadline(); ok {
			r.Deadline = &t
		}
		out = append(out, r)
	}
	return out
}

// printRecords prints changes for programs, and says whether that was asked for.
func printRecords(a *app.App, verb string, list []*change.Change, now time.Time) (bool, error) {
	switch a.Streams.Format {
	case ui.JSON:
		return true, a.Streams.Document(document{"mobileops.change." + verb + "/v1", records(list, now)})
	case ui.JSONL:
		out := a.Streams.Lines()
		for _, r := range records(list, now) {
			if err := out.Print(r); err != nil {
				return true, err
			}
		}
		return true, out.Flush()
	}
	return false, nil
}

// read runs fn on changes that are up to date: what the time has done to them is
// written down first, where there is anything.
func read(ctx context.Context, a *app.App, now time.Time, fn func(tx *state.Tx) error) error {
	store, err := a.State()
	if err != nil {
		return err
	}
	stale := false
	if err := store.View(ctx, func(tx *state.Tx) error {
		if stale, err = change.Stale(tx, now); err != nil || stale {
			return err
		}
		return fn(tx)
	}); err != nil || !stale {
		return err
	}
	return store.Update(ctx, func(tx *state.Tx) error {
		if _, err := change.Sweep(tx, now); err != nil {
			return err
		}
		return fn(tx)
	})
}

// write runs fn and brings what follows from it, findings among that, up to date
// in the same transaction.
func write(ctx context.Context, a *app.App, now time.Time, fn func(tx *state.Tx) (*change.Change, error)) (c *change.Change, err error) {
	store, err := a.State()
	if err != nil {
		return nil, err
	}
	err = store.Update(ctx, func(tx *state.Tx) error {
		if _, err := change.Sweep(tx, now); err != nil {
			return err
		}
		if c, err = fn(tx); err != nil {
			return err
		}
		_, err := change.Sweep(tx, now)
		return err
	})
	return c, err
}

// completeIDs completes the IDs of changes in one of the states, or of all.
func completeIDs(a *app.App, one bool, states ...change.State) func(context.Context, []string, string) []string {
	return func(ctx context.Context, args []string, typed string) (words []string) {
		if one && len(args) > 0 {
			return nil
		}
		store, err := a.State()
		if err != nil {
			return nil
		}
		var list []*change.Change
		now := time.Now()
		if err := store.View(ctx, func(tx *state.Tx) error {
			list, err = change.List(tx, change.Filter{States: states}, now)
			return err
		}); err != nil {
			return nil
		}
		for _, c := range list {
			if strings.HasPrefix(c.ID, strings.ToUpper(typed)) && len(words) < 200 && !slices.ContainsFunc(args, func(arg string) bool { return strings.EqualFold(arg, c.ID) }) {
				// What a shell has typed already it does not take back: the ID goes on from there.
				words = append(words, typed+c.ID[len(typed):]+"\t"+string(c.At(now))+" "+string(c.Kind)+": "+ui.Escape(c.Subject()))
			}
		}
		return words
	}
}

// severity is a risk on the scale of the theme's colours.
func severity(r change.Risk) int { return slices.Index(change.Risks(), r) + 1 }

func words[T ~string](list []T) (out []string) {
	for _, w := range list {
		out = append(out, string(w))
	}
	return out
}

// at writes a moment as people read it.
func at(t, now time.Time) string {
	return t.Local().Format("2006-01-02 15:04 -0700") + " (" + ui.Ago(t, now) + ")"
}

// next returns what has to happen until the change is done with, in one line.
func next(c *change.Change, now time.Time) string {
	switch s := c.At(now); {
	case c.Rule(now) == change.RuleUnapproved:
		return "overdue: somebody else than " + c.Requester.Describe() + " approves or rejects it: mobileops change approve " + c.ID
	case c.Rule(now) != "":
		return "undo it: mobileops rollback"
	case s == change.StateApplied && c.Missing() > 0:
		deadline, _ := c.Deadline()
		return fmt.Sprintf("somebody else than %s approves it until %s: mobileops change approve %s", c.Requester.Describe(), at(deadline, now), c.ID)
	case s == change.StateApplied:
		return ""
	case s == change.StateRequested && c.InForce(now) == nil:
		return "an emergency: " + applyCommand(c) + "; then approval within 24 hours"
	case s == change.StateRequested:
		return "somebody else than " + c.Requester.Describe() + " runs: mobileops change approve " + c.ID
	case s == change.StateApproved && now.Before(c.From):
		return "from " + at(c.From, now) + ": " + applyCommand(c)
	case s == change.StateApproved:
		return applyCommand(c)
	}
	return ""
}

// applyCommand is how a change is put into force.
func applyCommand(c *change.Change) string {
	switch c.Kind {
	case change.Other:
		return "do it"
	case change.Downgrade:
		return "mobileops update apply PACKAGE --allow-downgrade --change " + c.ID
	}
	return "mobileops update apply PACKAGE --change " + c.ID
}
