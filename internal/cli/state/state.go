// Package state holds the commands of mobileops state: they look after
// state.db, the file in which mobileops remembers.
package state

import (
	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/spf13/cobra"
)

// New returns mobileops state.
func New(a *app.App) *cobra.Command {
	return a.Group("state", "Check, back up, restore and compact the state",
		newCheck(a), newBackup(a), newRestore(a), newCompact(a), newPath(a),
	)
}

const database = "/var/lib/mobileops/state.db: the state of root; others have theirs in ~/.local/state/mobileops"

// statuses are those that every command which opens the state can return.
func statuses(more ...app.Status) []app.Status {
	return append(more,
		app.Status{Code: 4, Text: "the state belongs to another user"},
		app.Status{Code: 8, Text: "another process holds the state for longer than --lock-timeout"},
	)
}
