// Package config holds the commands of mobileops config: what is configured,
// where it comes from, and whether it is right.
package config

import (
	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/spf13/cobra"
)

// New returns mobileops config.
func New(a *app.App) *cobra.Command {
	return a.Group("config", "Show, create and check the configuration",
		newShow(a), newInit(a), newValidate(a), newPath(a),
	)
}

// files are what every one of these commands may read.
func files() []string {
	return []string{
		"/etc/mobileops/config.yaml: the configuration of root",
		"~/.config/mobileops/config.yaml: the configuration of others",
	}
}
