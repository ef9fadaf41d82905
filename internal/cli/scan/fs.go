package scan

import (
	"context"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/scan/protocol"
	"github.com/spf13/cobra"
)

func newFS(a *app.App) *cobra.Command {
	opts := targetOptions{kind: protocol.Filesystem}
	cmd := a.Command(app.Spec{
		Use:   "fs PATH [flags]",
		Short: "Scan a directory or file: lock files, secrets, licences, configuration",
		Long: `Scan a directory or file: lock files, secrets, licences, configuration.

It reads what projects say that they need (package-lock.json, go.mod, pom.xml,
requirements.txt and others). For what is installed in a tree there is mobileops
scan rootfs. Only changed files are searched for secrets and licences a second
time.`,
		Example: `
mobileops scan fs .
mobileops scan fs --scanners secret,misconfig --fail-on high /srv/deploy   # a gate in a pipeline
mobileops scan fs --scanners license --fail-on any --output junit . > licences.xml
0 5 * * * root mobileops scan fs --quiet --scanners secret --fail-on any /etc  # cron: mails when a secret lies about
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
