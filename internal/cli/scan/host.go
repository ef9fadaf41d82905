package scan

import (
	"context"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/scan/protocol"
	"github.com/spf13/cobra"
)

func newHost(a *app.App) *cobra.Command {
	opts := targetOptions{kind: protocol.Rootfs, host: true}
	cmd := a.Command(app.Spec{
		Use:   "host [flags]",
		Short: "Scan this host for vulnerable packages and secrets",
		Long: `Scan this host for vulnerable packages and secrets.

It looks at the packages of the distribution, at programs and at packages of
languages that are installed anywhere, and at every text file, without network:
the vulnerability database is what mobileops vulndb brought here. What is found
is remembered, so that the next scan can say what is new. The most urgent comes
first: what is known to be exploited, then by the likelihood that it will be
(EPSS), then by its score (CVSS).

What mobileops itself keeps in its state directory is left out. With --root it looks
at another tree, and remembers it by its path. Run it as root, or
files that only root can read make the answer incomplete.`,
		Example: `
mobileops scan host
mobileops scan host --scanners vuln --severity high --ignore-unfixed   # runbook: what can be mended now
30 4 * * * root mobileops scan host --quiet --new-only --fail-on high  # cron: mails only news
mobileops scan host --output html > host.html
`,
		Statuses: statuses(),
		Files:    append(targetFiles(), "/: it is only read"),
		Audited:  true,
		Run: func(ctx context.Context, _ []string) error {
			c, err := a.Config()
			if err != nil {
				return err
			}
			return runTarget(ctx, a, &opts, c.Root)
		},
	})
	opts.addFlags(a, cmd)
	return cmd
}
