package plugin

import (
	"context"
	"fmt"
	"os"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/spf13/cobra"
)

func newUninstall(a *app.App) *cobra.Command {
	var data bool
	cmd := a.Command(app.Spec{
		Use:   "uninstall NAME [--data]",
		Short: "Remove a plugin; its service is stopped first",
		Long: `Remove a plugin; its service is stopped first. What it kept stays for the next
time that it is installed, unless --data removes that, too. Its configuration is
yours, and stays.`,
		Example: `
mobileops plugin uninstall siem-integration-plugin
mobileops plugin uninstall siem-integration-plugin --data                        # with its queue and its cursors
mobileops plugin uninstall old-plugin --quiet || test $? = 1                     # runbook: on every host, also where it is not
`,
		Args: cobra.ExactArgs(1),
		Statuses: []app.Status{
			{Code: 0, Text: "it is removed"},
			{Code: 1, Text: "no such plugin is installed"},
			{Code: 8, Text: "another plugin command runs"},
		},
		Files:    []string{installedFiles, socketFile, stateFile},
		Audited:  true,
		Complete: completeWhich(a, 1, nil),
		Run:      func(ctx context.Context, args []string) error { return runUninstall(ctx, a, args[0], data) },
	})
	cmd.Flags().BoolVar(&data, "data", false, "remove what it kept, too")
	return cmd
}

func runUninstall(ctx context.Context, a *app.App, name string, data bool) error {
	e, c, err := newEngine(a, nil)
	if err != nil {
		return err
	}
	if _, err := e.Get(ctx, name); err != nil {
		return err
	}
	stopped, err := stopIfRunning(ctx, c, name)
	if err != nil {
		return fmt.Errorf("its service could not be stopped: %w", err)
	}
	r, err := e.Uninstall(ctx, name, data)
	if r == nil {
		return err
	}
	a.SetResult("%s %s was removed", name, r.Release.Version)
	if _, failed := renew(ctx, c, name); failed != nil {
		a.Streams.Notice("mobileops: the supervisor of plugins does not know of it yet: %s", ui.Escape(failed.Error()))
	}
	if err != nil {
		return err
	}
	doc := &changed{Schema: "mobileops.plugin.uninstall/v1", Plugin: newInstalledRecord(r), Stopped: stopped, Data: &data}
	if _, gone := os.Lstat(e.DataDir(name)); gone == nil && !data { // an empty one goes with it
		doc.Next = []string{"what it kept is still in " + e.DataDir(name) + " (remove it, too: install it and uninstall it with --data)"}
	}
	done := "removed"
	if data {
		done = "removed with what it kept"
	}
	return printChanged(a, doc, done)
}
