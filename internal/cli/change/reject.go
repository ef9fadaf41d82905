package change

import (
	"context"
	"fmt"
	"time"

	"github.com/mobileops/mobileops/internal/change"
	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/state"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/spf13/cobra"
)

func newReject(a *app.App) *cobra.Command {
	var reason string
	cmd := a.Command(app.Spec{
		Use:   "reject ID --reason TEXT",
		Short: "Refuse a change, also one that was approved and not yet applied",
		Long: `Refuse a change, also one that was approved and not yet applied.

It authorises nothing from then on. An emergency change that was applied before
anybody approved it is not undone by this: a finding of high severity stays until
it is rolled back. Who asked withdraws instead.`,
		Example: `
mobileops change reject C-7Q2FM3 --reason 'not in the week of the elections'
mobileops change reject C-7Q2FM3 --reason 'nobody was asked' && mobileops rollback  # runbook: undo an emergency change
`,
		Args: cobra.ExactArgs(1),
		Statuses: []app.Status{
			{Code: 0, Text: "it is rejected"},
			{Code: 1, Text: "no change has such an ID"},
			{Code: 4, Text: "this is who asked, or a rule of the configuration file is overridden"},
			{Code: 7, Text: "the file of people is missing"},
			{Code: 8, Text: "it is over already, or another process holds the state"},
		},
		Files:    []string{stateFile, peopleFile},
		Audited:  true,
		Complete: completeIDs(a, true, change.StateRequested, change.StateApproved, change.StateApplied),
		Run:      func(ctx context.Context, args []string) error { return runReject(ctx, a, args[0], reason) },
	})
	cmd.Flags().StringVar(&reason, "reason", "", "why, in `TEXT` (required)")
	return cmd
}

func runReject(ctx context.Context, a *app.App, id, reason string) error {
	if reason == "" {
		return app.UsageError("--reason is needed: why it is refused")
	}
	folk, err := People(a)
	if err != nil {
		return err
	}
	now := time.Now()
	c, err := write(ctx, a, now, func(tx *state.Tx) (*change.Change, error) {
		return change.Reject(tx, id, Who(a), reason, folk, now)
	})
	if err != nil {
		return err
	}
	a.SetResult("%s rejected: %s", c.ID, reason)
	if done, err := printRecords(a, "reject", []*change.Change{c}, now); done || a.Streams.Quiet {
		return err
	}
	_, err = fmt.Fprintf(a.Streams.Out, "%s: rejected\n", c.ID)
	if n := next(c, now); n != "" && err == nil {
		_, err = fmt.Fprintf(a.Streams.Out, "  next: %s\n", ui.Escape(n))
	}
	return err
}
