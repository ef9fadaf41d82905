package network

import (
	"context"
	"fmt"
	"time"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/spf13/cobra"
)

func newConfirm(a *app.App) *cobra.Command {
	return a.Command(app.Spec{
		Use:   "confirm",
		Short: "Make isolation last that would lapse",
		Long: `Make isolation last that would lapse.

It is done in one transaction, which fails when the time was over: then this
host is not isolated any more.`,
		Example: `
mobileops network confirm
mobileops network isolate --confirm 60s && mobileops network confirm  # runbook: from a second session, if the first still answers
`,
		Statuses: []app.Status{
			notRoot,
			{Code: 0, Text: "isolation lasts"},
			{Code: 1, Text: "it has lapsed, or there was none"},
			{Code: 6, Text: "isolation lasts, but could not be kept for a reboot"},
			{Code: 8, Text: "it is confirmed already"},
		},
		Files:   []string{tablesFile, stateFile, lockFiles},
		Audited: true,
		Run:     func(ctx context.Context, _ []string) error { return runConfirm(ctx, a) },
	})
}

func runConfirm(ctx context.Context, a *app.App) error {
	c, err := a.Config()
	if err != nil {
		return err
	}
	e, err := newEngine(a, c, true)
	if err != nil {
		return err
	}
	if err := e.Confirm(ctx, time.Now()); err != nil {
		return err
	}
	a.SetResult("isolation confirmed")
	if a.Streams.Format != ui.Text {
		return a.Streams.Document(struct {
			Schema string `json:"schema"`
		}{"mobileops.network.confirm/v1"})
	}
	if a.Streams.Quiet {
		return nil
	}
	_, err = fmt.Fprintln(a.Streams.Out, "Isolation lasts until: mobileops network restore")
	return err
}
