package update

import (
	"context"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/update/store"
	"github.com/spf13/cobra"
)

func newUnpin(a *app.App) *cobra.Command {
	return a.Command(app.Spec{
		Use:   "unpin N",
		Short: "Let a pinned generation be pruned again",
		Long: `Let a pinned generation be pruned again. Backups are pinned when they are made:
this is how one is let go.`,
		Example: `
mobileops update unpin 4
mobileops update unpin 4 && mobileops update prune  # runbook: a backup is needed no more
`,
		Args: cobra.ExactArgs(1),
		Statuses: []app.Status{
			{Code: 0, Text: "it is not pinned any more"},
			{Code: 1, Text: "there is no such generation"},
			{Code: 4, Text: "not allowed: this is not root"},
			{Code: 5, Text: "what describes it is damaged"},
			{Code: 7, Text: "no update was applied here yet"},
			{Code: 8, Text: "it is not pinned; or another update is running"},
		},
		Files:    []string{storeFiles},
		Audited:  true,
		Complete: completeWhich(a, func(_ *shelf, g *store.Generation) bool { return g.Pinned != nil }),
		Run:      func(ctx context.Context, args []string) error { return runUnpin(ctx, a, args[0]) },
	})
}

func runUnpin(ctx context.Context, a *app.App, arg string) error {
	return setPin(ctx, a, "unpin", arg, func(g *store.Generation) (*store.Pin, error) {
		if g.Pinned == nil {
			return nil, failure.Errorf(failure.Busy, "generation %d is not pinned", g.Number)
		}
		return nil, nil
	})
}
