package plugin

import (
	"context"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/plugin"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/spf13/cobra"
)

func newEnable(a *app.App) *cobra.Command {
	return a.Command(app.Spec{
		Use:   "enable NAME",
		Short: "Let the commands, hooks and service of a plugin be used",
		Long: `Let the commands, hooks and service of a plugin be used. Its service is not
started by this, even if it ran before it was disabled: mobileops plugin start
does that.`,
		Example: `
mobileops plugin enable siem-integration-plugin
mobileops plugin enable siem-integration-plugin --quiet || test $? = 8   # runbook: also where it is enabled
`,
		Args: cobra.ExactArgs(1),
		Statuses: []app.Status{
			{Code: 0, Text: "it is enabled"},
			{Code: 1, Text: "no such plugin is installed"},
			{Code: 8, Text: "it is enabled already, or another plugin command runs"},
		},
		Files:    []string{installedFiles, socketFile, stateFile},
		Audited:  true,
		Complete: completeWhich(a, 1, func(r *plugin.Record) bool { return !r.Enabled }),
		Run:      func(ctx context.Context, args []string) error { return runEnable(ctx, a, args[0], true) },
	})
}

// runEnable enables a plugin, or disables it.
func runEnable(ctx context.Context, a *app.App, name string, on bool) error {
	e, c, err := newEngine(a, nil)
	if err != nil {
		return err
	}
	verb := map[bool]string{true: "enable", false: "disable"}[on]
	r, err := e.Enable(ctx, name, on)
	if r == nil {
		return err
	}
	a.SetResult("%s is %sd", name, verb)
	doc := &changed{Schema: "mobileops.plugin." + verb + "/v1", Plugin: newInstalledRecord(r)}
	if !on { // after it was disabled, so that nobody starts it in between
		stopped, failed := stopIfRunning(ctx, c, name)
		if doc.Stopped = stopped; failed != nil && err == nil {
			err = failed
		}
	}
	if _, failed := renew(ctx, c, name); failed != nil && err == nil {
		a.Streams.Notice("mobileops: the supervisor of plugins does not know of it yet: %s", ui.Escape(failed.Error()))
	}
	if err != nil {
		return err
	}
	if on && r.Start {
		doc.Next = []string{"start its service again: mobileops plugin start " + name}
	}
	return printChanged(a, doc, verb+"d")
}
