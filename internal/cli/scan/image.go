package scan

import (
	"context"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/scan/protocol"
	"github.com/spf13/cobra"
)

func newImage(a *app.App) *cobra.Command {
	opts := targetOptions{kind: protocol.Image}
	cmd := a.Command(app.Spec{
		Use:   "image TAR|OCI-DIR|REF [flags]",
		Short: "Scan a container image: an archive, an OCI layout, or by its name",
		Long: `Scan a container image: an archive, an OCI layout, or by its name.

An archive is what docker save and podman save write. What is no path is taken
for a name, which is looked for in Docker, containerd and Podman on this host and
then in the registry that the name begins with: that is the only scan that uses
the network. It is remembered by its name without tag and digest, so that a newer
build of it is compared with the older one; an archive by its path, whatever it calls
itself, or by --asset image:NAME.`,
		Example: `
mobileops scan image portal.tar
mobileops scan image registry.example.org/portal:1.4 --fail-on critical --ignore-unfixed   # a gate before a rollout
mobileops scan image ./oci-layout --scanners license --notice NOTICE.md     # runbook: what must be delivered with it
30 5 * * 1 root mobileops scan image registry.example.org/portal:stable --quiet --new-only  # cron: mails only news
`,
		Args: cobra.ExactArgs(1),
		Statuses: append(statuses(),
			app.Status{Code: 4, Text: "the registry wants to know who asks; or the state or the configuration belongs to another user"}),
		Files:    append(targetFiles(), "~/.docker/config.json: who may read from the registry"),
		Audited:  true,
		Run:      func(ctx context.Context, args []string) error { return runTarget(ctx, a, &opts, args[0]) },
		Complete: completeTarget(opts.kind),
	})
	opts.addFlags(a, cmd)
	fs := cmd.Flags()
	fs.BoolVar(&opts.remote, "remote", false, "take the argument for a name, even if there is such a path")
	fs.BoolVar(&opts.insecure, "insecure", false, "talk to a registry without TLS, or with a certificate that nobody vouches for")
	fs.StringVar(&opts.platform, "platform", "", "of an image for several, scan that for `OS/ARCH`, such as linux/arm64")
	app.CompleteValues(cmd, "platform", "linux/amd64", "linux/arm64", "linux/arm/v7")
	return cmd
}
