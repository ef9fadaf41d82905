package plugin

import (
	"context"
	"errors"
	"fmt"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/plugin"
	"github.com/spf13/cobra"
)

func newRollback(a *app.App) *cobra.Command {
	return a.Command(app.Spec{
		Use:   "rollback NAME",
		Short: "Go back to the version of a plugin before the one that is installed",
		Long: `Go back to the version of a plugin before the one that is installed. It is proved
again first, and may do what was accepted for it. When its service runs it is
started anew. What the plugin keeps stays as it is. The same command once more goes
forward again.`,
		Example: `
mobileops plugin rollback siem-integration-plugin
mobileops plugin rollback siem-integration-plugin && mobileops plugin status   # runbook: after an upgrade that does not work
`,
		Args: cobra.ExactArgs(1),
		Statuses: []app.Status{
			{Code: 0, Text: "the version before is installed"},
			{Code: 1, Text: "no such plugin is installed, or no version before it is kept"},
			{Code: 3, Text: "the version before is installed, and its service did not start"},
			{Code: 5, Text: "the version before is not what was signed, or its key is not trusted any more; nothing was changed"},
			{Code: 8, Text: "another plugin command runs"},
		},
		Files:    []string{installedFiles, keyFiles, socketFile, stateFile},
		Audited:  true,
		Complete: completeWhich(a, 1, func(r *plugin.Record) bool { return r.Previous != nil }),
		Run:      func(ctx context.Context, args []string) error { return runRollback(ctx, a, args[0]) },
	})
}

func runRollback(ctx context.Context, a *app.App, name string) error {
	if err := a.Govern("plugin.keys"); err != nil {
		return err
	}
	e, c, err := newEngine(a, nil)
	if err != nil {
		return err
	}
	r, err := e.Rollback(ctx, name)
	if r == nil {
		return err
	}
	doc := &changed{Schema: "mobileops.plugin.rollback/v1", Plugin: newInstalledRecord(r), From: r.Previous.Version}
	a.SetResult("%s %s is installed again, before it %s", name, r.Release.Version, doc.From)
	restarted, failed := renew(ctx, c, name)
	if doc.Restarted = restarted; failed != nil {
		failed = failure.Hint(fmt.Errorf("%s %s is installed again, and its service did not start anew: %w", name, r.Release.Version, failed), "see why: mobileops plugin logs "+name)
	}
	doc.Next = []string{"go forward again: mobileops plugin rollback " + name}
	return errors.Join(err, printChanged(a, doc, "installed again"), failed)
}
