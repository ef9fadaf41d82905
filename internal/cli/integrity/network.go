package integrity

import (
	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/integrity/facts"
	"github.com/spf13/cobra"
)

func newNetwork(a *app.App) *cobra.Command {
	return aspectCommand(a, aspectSpec{
		aspect: facts.Network,
		short:  "Report what about the network of this host differs from the baseline",
		long: `Report what about the network of this host differs from the baseline: which
sockets listen, and for which program and user; the ruleset of the firewall;
who answers for names; routes and the rules that choose among them; interfaces
with their addresses; and the switches of the kernel that decide about all of
that.

The kernel is asked, not ss, nft or ip. Counters, handles, leases, learned
routes, neighbours, and elements of dynamic sets are left out: they change by
themselves. A program that was restarted and listens on another port of the
dynamic range is one change of severity info. A program that takes packets
without a port of its own, as ping and resolvers do, is told once, and not when
it stops. UNIX sockets and the networks of
containers are not looked at.

Only root sees the firewall and the programs of other users.`,
		example: `
mobileops integrity network
mobileops integrity network --list                       # as it is now, no baseline needed
mobileops integrity network --output json | jq -r '.drift[].id'  # for integrity accept
*/5 * * * * root mobileops integrity network --quiet     # cron: mails only what differs
`,
	})
}
