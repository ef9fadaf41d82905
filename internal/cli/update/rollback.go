package update

import (
	"context"
	"fmt"
	"strings"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/update/store"
	"github.com/spf13/cobra"
)

// NewRollback returns the command rollback, which is a noun of its own as well as
// a verb of update: it is typed in a hurry.
func NewRollback(a *app.App) *cobra.Command {
	var to string
	var self bool
	cmd := a.Command(app.Spec{
		Use:   "rollback [--to N]",
		Short: "Go back to what was before the last update",
		Long: `Go back to what was before the last update.

One rename makes the generation current that the current one was made from, or
generation N. Nothing is deleted, so it is undone in the same way. It asks nobody,
waits for no check, and ends a trial that is under way: a process that conducts it
is asked to end, and goes back by itself. Configuration is that of the generation
gone back to. Services that run keep what they have open: the hook
of the package, if it has one, restarts them.`,
		Example: `
mobileops rollback
mobileops rollback --to 5
mobileops update list && mobileops rollback --to 5  # runbook: see first what there is
mobileops rollback --self                           # mobileops itself
`,
		Args: noNumber,
		Statuses: []app.Status{
			{Code: 0, Text: "the earlier generation is current"},
			{Code: 1, Text: "there is nothing to go back to, or no such generation"},
			{Code: 3, Text: "the earlier generation is current, and its hook failed or the history could not be written, as the message says; or the disk failed, and nothing was changed"},
			{Code: 4, Text: "not allowed: this is not root"},
			{Code: 5, Text: "the store is damaged, or the installation is no longer a link to it"},
			{Code: 7, Text: "no update was applied here yet"},
			{Code: 8, Text: "another update is running, or N is current already"},
		},
		Files:   []string{targetFile, storeFiles, stateFile},
		Audited: true,
		Run: func(ctx context.Context, _ []string) error {
			number := 0
			if to != "" {
				var err error
				if number, err = numberArg(to); err != nil {
					return err
				}
			}
			e, err := chosenEngine(a, self, "rollback")
			if err != nil {
				return err
			}
			n := newNotice(a, "rollback")
			res, err := e.Rollback(ctx, number, n)
			return finish(a, e, "rollback", self, res, err)
		},
	})
	fs := cmd.Flags()
	fs.StringVar(&to, "to", "", "go back to generation `N`")
	fs.BoolVar(&self, "self", false, "go back to the mobileops before the last update self")
	a.CompleteFlag(cmd, "to", completeWhich(a, func(v *shelf, g *store.Generation) bool {
		return strings.HasPrefix(v.goBack(g), "mobileops rollback ") // not the current one, nor what never stayed live
	}))
	return cmd
}

// noNumber refuses arguments, and says how a generation is named.
func noNumber(cmd *cobra.Command, args []string) error {
	if len(args) == 1 {
		if n, err := numberArg(args[0]); err == nil {
			return failure.Hint(failure.Errorf(failure.Usage, "rollback takes no argument: %q", args[0]), fmt.Sprintf("to go back to generation %d: mobileops rollback --to %d", n, n))
		}
	}
	return cobra.NoArgs(cmd, args)
}
