package update

import (
	"context"
	"slices"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/update/store"
	"github.com/spf13/cobra"
)

func newActivate(a *app.App) *cobra.Command {
	return a.Command(app.Spec{
		Use:   "activate [N]",
		Short: "Make a staged generation live",
		Long: `Make a staged generation live.

Without N it is the latest one that was staged. Any other generation can be made
live again, too. Hooks and health check are those of mobileops update apply. What
was edited in the configuration since it was staged is merged.`,
		Example: `
mobileops update activate
mobileops update activate 7                     # forward again, after a rollback
0 4 * * * root mobileops update activate -q     # cron: what was staged by day goes live at night
`,
		Args: cobra.MaximumNArgs(1),
		Statuses: append([]app.Status{
			{Code: 0, Text: "it is live"},
			{Code: 1, Text: "there is no such generation, none is staged, of which --quiet says nothing; or it was made from another one than the current"},
			{Code: 5, Text: "its package has expired, or a newer one was accepted, or the store is damaged"},
			{Code: 7, Text: "no update was applied here yet"},
			{Code: 8, Text: "it is current already; or " + otherUpdate},
		}, trialStatuses...),
		Files:    []string{targetFile, storeFiles, stateFile},
		Audited:  true,
		Complete: completeNumbers(a),
		Run: func(ctx context.Context, args []string) error {
			number := 0
			if len(args) > 0 {
				var err error
				if number, err = numberArg(args[0]); err != nil {
					return err
				}
			}
			if err := a.Govern("update.require_change"); err != nil {
				return err
			}
			e, _, err := newEngine(a, "update activate")
			if err != nil {
				return err
			}
			if number == 0 && a.Streams.Quiet && nothingStaged(e.Store()) { // most nights, and no news
				return failure.Silent(failure.No)
			}
			n := newNotice(a, "update activate")
			res, err := e.Activate(ctx, number, n)
			return finish(a, e, "activate", false, res, err)
		},
	})
}

// nothingStaged reports whether no generation of a package waits to be made live.
// Where that cannot be told, the engine says why.
func nothingStaged(s *store.Store) bool {
	list, err := s.List()
	return err == nil && len(list) > 0 && !slices.ContainsFunc(list, func(g *store.Generation) bool { return g.Staged && g.Kind == store.Updated })
}
