package integrity

import (
	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/integrity/facts"
	"github.com/spf13/cobra"
)

func newContainers(a *app.App) *cobra.Command {
	return aspectCommand(a, aspectSpec{
		aspect: facts.Containers,
		short:  "Report which containers and images differ from the baseline, and which give rights away",
		long: `Report which containers and images differ from the baseline, and which give
rights away: privileged ones, those that mount directories of the host or the
socket of a runtime, that share its network or processes, or have powerful
capabilities or devices.

Docker, podman and containerd are asked at their sockets, podman and docker of
users at theirs; integrity.runtimes names others. Which runtimes were found is
said, and one that does not answer is never taken for one without containers.
How a container was made is compared, not whether it runs.`,
		example: `
mobileops integrity containers
mobileops integrity containers --list                    # as they are now, no baseline needed
mobileops integrity containers --fail-on high            # status 1 only for rights over the host
0 * * * * root mobileops integrity containers --quiet    # cron: mails only what differs
`,
	})
}
