package change

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/mobileops/mobileops/internal/change"
	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/state"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/spf13/cobra"
)

type listOptions struct {
	states, kinds []string
	name          string
}

func newList(a *app.App) *cobra.Command {
	var opts listOptions
	cmd := a.Command(app.Spec{
		Use:   "list [flags]",
		Short: "List changes about which something is left to do, the latest first",
		Long: `List changes about which something is left to do, the latest first.

Those are the ones that wait for approval, that may be applied, and emergency
changes that were applied before they were approved; --state lists others. With
--quiet only emergency changes that wait for their approval, and whatever else
was applied without the consent that it needs.

The status is 1 when one of these is overdue: an emergency change that nobody
approved within 24 hours, or that was rejected and is still in force. This is
also what brings the findings about them up to date.`,
		Example: `
mobileops change list
mobileops change list --state all --output jsonl | jq -r 'select(.emergency) | .id'
0 * * * * root mobileops change list --quiet  # cron: mails what was applied and not approved
`,
		Statuses: []app.Status{
			{Code: 0, Text: "nothing is overdue"},
			{Code: 1, Text: "a change was applied and lacks, or was refused, the approval that it needs"},
			{Code: 5, Text: "a stored change is damaged, or was written past the rules"},
		},
		Files: []string{stateFile},
		Run:   func(ctx context.Context, _ []string) error { return runList(ctx, a, &opts) },
	})
	fs := cmd.Flags()
	fs.StringSliceVar(&opts.states, "state", nil, "in `STATE`: "+strings.Join(words(change.States()), ", ")+" or all; may be repeated")
	fs.StringSliceVar(&opts.kinds, "kind", nil, "of `KIND`: update, downgrade or other; may be repeated")
	fs.StringVar(&opts.name, "name", "", "about the package `NAME`")
	app.CompleteValues(cmd, "state", append(words(change.States()), "all")...)
	app.CompleteValues(cmd, "kind", words(change.Kinds())...)
	return cmd
}

func (o *listOptions) filter() (f change.Filter, err error) {
	f = change.Filter{Name: o.name}
	for _, w := range o.kinds {
		k := change.Kind(strings.ToLower(w))
		if !slices.Contains(change.Kinds(), k) {
			return f, app.UsageError("bad value %q for --kind: %s", w, strings.Join(words(change.Kinds()), ", "))
		}
		f.Kinds = append(f.Kinds, k)
	}
	for _, w := range o.states {
		s := change.State(strings.ToLower(w))
		if s == "all" {
			f.States = change.States()
			break
		}
		if !slices.Contains(change.States(), s) {
			return f, app.UsageError("bad value %q for --state: %s or all", w, strings.Join(words(change.States()), ", "))
		}
		f.States = append(f.States, s)
	}
	return f, nil
}

// open says whether something is left to do about a change.
func open(c *change.Change, now time.Time) bool {
	s := c.At(now)
	return s == change.StateRequested || s == change.StateApproved || urgent(c, now)
}

// urgent says whether the change was applied without the consent that it needs.
func urgent(c *change.Change, now time.Time) bool {
	_, waits := c.Deadline()
	return waits || c.Rule(now) != ""
}

func runList(ctx context.Context, a *app.App, o *listOptions) error {
	now := time.Now()
	f, err := o.filter()
	if err != nil {
		return err
	}
	var list []*change.Change
	overdue := false
	if err := read(ctx, a, now, func(tx *state.Tx) error {
		all, err := change.List(tx, change.Filter{}, now)
		for _, c := range all {
			overdue = overdue || c.Rule(now) != ""
		}
		if err != nil {
			return err
		}
		list, err = change.List(tx, f, now)
		return err
	}); err != nil {
		return err
	}
	if len(f.States) == 0 {
		list = slices.DeleteFunc(list, func(c *change.Change) bool {
			return a.Streams.Quiet && !urgent(c, now) || !open(c, now)
		})
	}
	var outcome error
	if overdue {
		outcome = failure.Silent(failure.No)
	}
	if done, err := printRecords(a, "list", list, now); done {
		if err != nil {
			return err
		}
		return outcome
	}
	if err := printTable(a, list, now); err != nil {
		return err
	}
	return outcome
}

func printTable(a *app.App, list []*change.Change, now time.Time) error {
	theme := a.Streams.Theme()
	table := a.Streams.NewTable(
		ui.Column{Title: "ID"}, ui.Column{Title: "STATE"}, ui.Column{Title: "RISK"}, ui.Column{Title: "KIND", Drop: 4}, ui.Column{Title: "SUBJECT", Min: 12},
		ui.Column{Title: "APPROVED"}, ui.Column{Title: "REQUESTER", Drop: 3}, ui.Column{Title: "UNTIL", Drop: 2}, ui.Column{Title: "REASON", Min: 12, Drop: 1})
	for _, c := range list {
		status, until := string(c.At(now)), c.Until
		if c.Emergency {
			status += ", emergency"
		}
		if deadline, waits := c.Deadline(); waits {
			until = deadline
		}
		if c.Rule(now) != "" {
			status += ", overdue"
		}
		cell := ui.Cell{Text: status}
		if urgent(c, now) {
			cell.Style = theme.Bad
		}
		table.Row(c.ID, cell, ui.Cell{Text: string(c.Risk), Style: func(s string) string { return theme.Severity(severity(c.Risk), s) }},
			string(c.Kind), c.Subject(), fmt.Sprintf("%d of %d", len(c.Approvals), c.Required), c.Requester.Describe(), ui.Ago(until, now), c.Reason)
	}
	if table.Len() == 0 && !a.Streams.Quiet {
		a.Streams.Notice("no changes are open (ask for one: mobileops change request --package FILE --reason TEXT)")
	}
	return table.Print()
}
