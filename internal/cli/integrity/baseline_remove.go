package integrity

import (
	"context"
	"fmt"
	"slices"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/failure"
	engine "github.com/mobileops/mobileops/internal/integrity"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/spf13/cobra"
)

func newBaselineRemove(a *app.App) *cobra.Command {
	var yes bool
	var why engine.By
	cmd := a.Command(app.Spec{
		Use:   "remove NAME[@ID] [flags]",
		Short: "Remove a baseline, or all of a name",
		Long: `Remove a baseline. A name alone stands for all baselines of that name, former
ones included, NAME@ID for one.`,
		Example: `
mobileops integrity baseline remove app
mobileops integrity baseline remove default@3f2a81c0 --yes  # in a script: do not ask
`,
		Args: cobra.ExactArgs(1),
		Statuses: []app.Status{
			{Code: 1, Text: "you said no; nothing was removed"},
			{Code: 7, Text: "there is no such baseline"},
			{Code: 8, Text: "it is being used"},
		},
		Files:    []string{baselineFile, stateFile},
		Audited:  true,
		Run:      func(ctx context.Context, args []string) error { return runBaselineRemove(ctx, a, args[0], yes, why) },
		Complete: func(ctx context.Context, args []string, _ string) []string { return completeReference(ctx, a, args) },
	})
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	reasonFlags(cmd, &why.Reason, &why.Ticket)
	return cmd
}

func runBaselineRemove(ctx context.Context, a *app.App, ref string, yes bool, why engine.By) error {
	e, _, err := newEngine(a)
	if err != nil {
		return err
	}
	b, err := e.Find(ctx, ref)
	if err != nil {
		return err
	}
	if !yes {
		question := fmt.Sprintf("Remove baseline %s, taken %s?", ref, stamp(b.Finished))
		list, err := e.List(ctx)
		if err != nil {
			return err
		}
		list = slices.DeleteFunc(list, func(c engine.Entry) bool { return c.Name != ref })
		if n := len(list); n > 1 { // a name alone stands for the former ones, too
			question = fmt.Sprintf("Remove all %d baselines named %s, the newest taken %s?", n, ref, stamp(b.Finished))
		}
		ok, err := a.Streams.Confirm(ctx, question, "--yes")
		if err != nil {
			return err
		}
		if !ok {
			a.OnlyLooked()
			a.Streams.Notice("nothing was removed")
			return failure.Silent(failure.No)
		}
	}
	e.By.Reason, e.By.Ticket = why.Reason, why.Ticket
	gone, err := e.Remove(ctx, ref)
	if err != nil {
		return err
	}
	a.SetResult("%d baselines removed", len(gone))
	if a.Streams.Format != ui.Text {
		err = a.Streams.Document(listReport{"mobileops.integrity.baseline.remove/v1", gone})
	} else if !a.Streams.Quiet {
		_, err = fmt.Fprintf(a.Streams.Out, "%s removed.\n", ui.Plural(int64(len(gone)), "baseline", "baselines"))
	}
	if err != nil {
		return err
	}
	return keepAnchors(ctx, a, e)
}
