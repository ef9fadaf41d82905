package change

import (
	"context"
	"fmt"
	"time"

	"github.com/mobileops/mobileops/internal/change"
	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/state"
	"github.com/spf13/cobra"
)

func newWithdraw(a *app.App) *cobra.Command {
	var reason string
	cmd := a.Command(app.Spec{
		Use:   "withdraw ID [--reason TEXT]",
		Short: "Take back a change that you asked for",
		Long: `Take back a change that you asked for.

It authorises nothing from then on. What was applied cannot be withdrawn, and
what somebody else asked for is rejected instead.`,
		Example: `
mobileops change withdraw C-7Q2FM3
mobileops change withdraw C-7Q2FM3 --reason 'the package is rebuilt'
`,
		Args: cobra.ExactArgs(1),
		Statuses: []app.Status{
			{Code: 0, Text: "it is withdrawn"},
			{Code: 1, Text: "no change has such an ID"},
			{Code: 4, Text: "somebody else asked for it, or a rule of the configuration file is overridden"},
			{Code: 7, Text: "the file of people is missing"},
			{Code: 8, Text: "it was applied or is over, or another process holds the state"},
		},
		Files:    []string{stateFile, peopleFile},
		Audited:  true,
		Complete: completeIDs(a, true, change.StateRequested, change.StateApproved),
		Run:      func(ctx context.Context, args []string) error { return runWithdraw(ctx, a, args[0], reason) },
	})
	cmd.Flags().StringVar(&reason, "reason", "", "why, in `TEXT`")
	return cmd
}

func runWithdraw(ctx context.Context, a *app.App, id, reason string) error {
	folk, err := People(a)
	if err != nil {
		return err
	}
	now := time.Now()
	c, err := write(ctx, a, now, func(tx *state.Tx) (*change.Change, error) {
		return change.Withdraw(tx, id, Who(a), reason, folk, now)
	})
	if err != nil {
		return err
	}
	a.SetResult("%s withdrawn", c.ID)
	if done, err := printRecords(a, "withdraw", []*change.Change{c}, now); done || a.Streams.Quiet {
		return err
	}
	_, err = fmt.Fprintf(a.Streams.Out, "%s: withdrawn\n", c.ID)
	return err
}
