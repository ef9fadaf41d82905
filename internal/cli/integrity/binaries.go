package integrity

import (
	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/integrity/facts"
	"github.com/spf13/cobra"
)

func newBinaries(a *app.App) *cobra.Command {
	return aspectCommand(a, aspectSpec{
		aspect: facts.Binaries,
		short:  "Report which critical programs, and which with rights of others, are not as they should be",
		long: `Report which critical programs, and which with rights of others, are not as
they should be: every program that is setuid, setgid or has capabilities, on
every local filesystem that is not mounted nosuid, and the programs and
libraries that everything rests on, compared with the baseline and with the
package that each belongs to.

A program needs a look when it is not in the baseline or differs from it, when
it is of no package or not as packaged, when others than root can write it or
its directory, and when it lies on a filesystem for data. What the baseline has
like that is known, and said only without --quiet. The package database is
root's to write; the baseline is not.

The layers of containers are left out, see mobileops integrity containers.`,
		example: `
mobileops integrity binaries
mobileops integrity binaries --list                      # against packages alone, no baseline needed
mobileops integrity binaries --output json | jq '.drift'
30 4 * * * root mobileops integrity binaries --quiet     # cron: mails only what differs
`,
	})
}
