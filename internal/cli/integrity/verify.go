package integrity

import (
	"context"

	"github.com/mobileops/mobileops/internal/cli/app"
	engine "github.com/mobileops/mobileops/internal/integrity"
	"github.com/spf13/cobra"
)

func newVerify(a *app.App) *cobra.Command {
	var opts compareOptions
	cmd := a.Command(app.Spec{
		Use:   "verify [flags]",
		Short: "Read every byte again and report what has changed since the baseline",
		Long: `Read every byte again and report what has changed since the baseline.

This also finds what left no trace in the filesystem: writes to the block
device beneath it, a failing disk, and pages changed in the cache. What was
found is kept, see mobileops finding list.

First the baseline itself is proved, as by every check: the history with its
signatures, the catalogue, and the anchors that are configured or given.`,
		Example: `
mobileops integrity verify
mobileops integrity verify --anchor /mnt/safe/anchors    # and prove that nothing was put back
mobileops integrity verify --idle --io-limit 50MB/s      # on a busy host
30 3 * * 0 root mobileops integrity verify --idle --quiet  # cron: every Sunday night
mobileops integrity verify --root /mnt/disk --name web1  # a suspect's disk, mounted elsewhere
`,
		Statuses: comparedStatuses(),
		Files:    []string{baselineFile, stateFile, "integrity/ID.reads in the state directory: when each file was last read"},
		Audited:  true,
		Run: func(ctx context.Context, _ []string) error {
			return runCompare(ctx, a, &opts, engine.CompareOptions{Verify: true})
		},
	})
	opts.addFlags(a, cmd)
	anchorFlag(cmd, &opts.anchors)
	return cmd
}
