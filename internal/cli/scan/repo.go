package scan

import (
	"context"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/scan/protocol"
	"github.com/spf13/cobra"
)

func newRepo(a *app.App) *cobra.Command {
	opts := targetOptions{kind: protocol.Repository}
	cmd := a.Command(app.Spec{
		Use:   "repo DIR [flags]",
		Short: "Scan the work tree of a git repository",
		Long: `Scan the work tree of a git repository.

It looks for the same as mobileops scan fs, but for packages of languages alone.
Only what is checked out is read, not the history. It is remembered by its path;
where every run has another one, as in a pipeline, give it a name with --asset.`,
		Example: `
mobileops scan repo . --fail-on high
mobileops scan repo ~/src/portal --new-only --output sarif > portal.sarif  # runbook: what the last change brought in
`,
		Args:     cobra.ExactArgs(1),
		Statuses: statuses(),
		Files:    targetFiles(),
		Audited:  true,
		Run:      func(ctx context.Context, args []string) error { return runTarget(ctx, a, &opts, args[0]) },
		Complete: completeTarget(opts.kind),
	})
	opts.addFlags(a, cmd)
	return cmd
}
