package network

import (
	"context"
	"fmt"
	"time"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/spf13/cobra"
)

func newRestore(a *app.App) *cobra.Command {
	return a.Command(app.Spec{
		Use:   "restore",
		Short: "Take isolation back",
		Long: `Take isolation back.

Only the tables that isolation made are removed; rules of others are as they
were, which is compared with before. Blocks and segments stay.`,
		Example: `
mobileops network restore
mobileops network restore && mobileops network status  # runbook: last line
`,
		Statuses: []app.Status{
			notRoot,
			{Code: 0, Text: "this host is not isolated any more"},
			{Code: 1, Text: "it was not isolated"},
			{Code: 3, Text: "it is still isolated, or would be after a reboot; the message says which"},
		},
		Files:   []string{tablesFile, stateFile, lockFiles},
		Audited: true,
		Run:     func(ctx context.Context, _ []string) error { return runRestore(ctx, a) },
	})
}

// restoreReport is the document of mobileops network restore.
type restoreReport struct {
	Schema    string          `json:"schema"`
	Isolation *endedIsolation `json:"isolation,omitempty"` // unless nothing was remembered of it
	// Same says that the rules of others are those from before, unless that
	// cannot be told.
	Same *bool `json:"others_unchanged,omitempty"`
}

type endedIsolation struct {
	Since   time.Time    `json:"since"`
	Ended   time.Time    `json:"ended"`
	By      string       `json:"by"`
	Reason  string       `json:"reason,omitempty"`
	Allowed []peerRecord `json:"allowed"`
}

func runRestore(ctx context.Context, a *app.App) error {
	c, err := a.Config()
	if err != nil {
		return err
	}
	e, err := newEngine(a, c, false)
	if err != nil {
		return err
	}
	r, err := e.Restore(ctx, "restored")
	if err != nil {
		return err
	}
	a.SetResult("isolation taken back")
	if a.Streams.Format != ui.Text {
		report := restoreReport{Schema: "mobileops.network.restore/v1", Same: r.Same}
		if rec := r.Record; rec.Open() {
			report.Isolation = &endedIsolation{rec.Since.UTC(), time.Now().UTC(), rec.By, rec.Reason, peerRecords(rec.Allow)}
		}
		return a.Streams.Document(report)
	}
	if a.Streams.Quiet {
		return nil
	}
	text := "This host is not isolated any more"
	if r.Record.Open() {
		text += fmt.Sprintf("; it was for %s", time.Since(r.Record.Since).Round(time.Second))
	}
	switch {
	case r.Same == nil:
	case *r.Same:
		text += "; all other rules are as they were before"
	default:
		text += "; other rules were changed meanwhile, by others"
	}
	_, err = fmt.Fprintln(a.Streams.Out, text+".")
	return err
}
