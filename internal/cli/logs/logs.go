// Package logs holds the commands of mobileops logs.
package logs

import (
	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/spf13/cobra"
)

// New returns mobileops logs.
func New(a *app.App) *cobra.Command {
	return a.Group("logs", "Collect, search and keep logs",
		newCollect(a),
		newSearch(a),
		newSources(a),
		newStatus(a),
		newVerify(a),
		newRotate(a),
		newHold(a),
		newRelease(a),
		newHolds(a),
		newKey(a),
		newAudit(a),
	)
}
