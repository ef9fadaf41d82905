package integrity

import (
	"context"
	"path/filepath"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/integrity/history/anchor"
	"github.com/spf13/cobra"
)

func newAnchorFile(a *app.App) *cobra.Command {
	var force bool
	cmd := a.Command(app.Spec{
		Use:   "file PATH",
		Short: "Keep the end of the history in a file on another mount",
		Long: `Keep the end of the history in a file on another mount: a USB stick, a network
share, a disk that is mounted append-only. The line is added to the file, which
so keeps all anchors of any number of hosts, and may have the attribute
append-only (chattr +a). When the last anchor of this host in it speaks against
the history, nothing is written.

To have it done after every change, set integrity.anchors in the configuration.`,
		Example: `
mobileops integrity anchor file /mnt/safe/anchors
mobileops integrity anchor check --file /mnt/safe/anchors
`,
		Args:     cobra.ExactArgs(1),
		Statuses: anchorStatuses(),
		Files:    []string{stateFile, historyFile, "PATH: one anchor a line"},
		Audited:  true,
		Run:      func(ctx context.Context, args []string) error { return runAnchorFile(ctx, a, args[0], force) },
		Complete: func(context.Context, []string, string) []string { return app.Files() },
	})
	cmd.Flags().BoolVar(&force, "force", false, "add the line whatever the file says: an older state was restored on purpose")
	return cmd
}

func runAnchorFile(ctx context.Context, a *app.App, path string, force bool) error {
	e, _, err := newEngine(a)
	if err != nil {
		return err
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return failure.Wrap(failure.Failed, err)
	}
	return keepAnchor(ctx, a, e, "file", force, &anchor.File{Path: abs})
}
