package scan

import (
	"context"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/scan/protocol"
	"github.com/spf13/cobra"
)

func newRootfs(a *app.App) *cobra.Command {
	opts := targetOptions{kind: protocol.Rootfs}
	cmd := a.Command(app.Spec{
		Use:   "rootfs DIR [flags]",
		Short: "Scan the tree of an installed system, such as a mounted disk",
		Long: `Scan the tree of an installed system, such as a mounted disk.

It looks for what is installed, as mobileops scan host does, and not for lock
files of projects, as mobileops scan fs does.`,
		Example: `
mobileops scan rootfs /mnt/image
mobileops scan rootfs /mnt/evidence --no-remember --output json > case17.json  # runbook: leave no trace in the memory
mobileops scan rootfs /srv/golden --scanners vuln,license --notice NOTICE.txt
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
