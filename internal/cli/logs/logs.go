// Package logs holds the commands of mobileops logs.
package logs

import (
	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/spf13/cobra"
)

// New returns mobileops logs.
func New(a *app.App) *cobra.Command {
	return a.Group("logs", "Show what was logged",
		newAudit(a),
	)
}
