// Package integrity holds the commands of mobileops integrity: what is
// watched, what it was, and what has changed since.
package integrity

import (
	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/spf13/cobra"
)

// New returns mobileops integrity.
func New(a *app.App) *cobra.Command {
	return a.Group("integrity", "Know when files of this host change",
		newPolicy(a),
	)
}
