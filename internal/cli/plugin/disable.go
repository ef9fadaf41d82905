package plugin

import (
	"context"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/plugin"
	"github.com/spf13/cobra"
)

func newDisable(a *app.App) *cobra.Command {
	return a.Command(app.Spec{
		Use:   "disable NAME",
		Short: "Keep a plugin from being used, without removing it",
		Long: `Keep a plugin from being used, without removing it: its commands are gone, its
hooks do not run, and its service is stopped. mobileops plugin enable takes that
back, and mobileops plugin start starts the service again.`,
		Example: `
mobileops plugin disable siem-integration-plugin
mobileops plugin disable siem-integration-plugin --quiet || test $? = 8   # runbook: it keeps commands from running
`,
		Args: cobra.ExactArgs(1),
		Statuses: []app.Status{
			{Code: 0, Text: "it is disabled"},
			{Code: 1, Text: "no such plugin is installed"},
			{Code: 8, Text: "it is disabled already, or another plugin command runs"},
		},
		Files:    []string{installedFiles, socketFile, stateFile},
		Audited:  true,
		Complete: completeWhich(a, 1, func(r *plugin.Record) bool { return r.Enabled }),
		Run:      func(ctx context.Context, args []string) error { return runEnable(ctx, a, args[0], false) },
	})
}
