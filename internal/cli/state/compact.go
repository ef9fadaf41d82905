package state

import (
	"context"
	"fmt"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/spf13/cobra"
)

func newCompact(a *app.App) *cobra.Command {
	return a.Command(app.Spec{
		Use:   "compact",
		Short: "Give the free space within the state back to the disk",
		Long: `Give the free space within the state back to the disk.

A copy without free pages is written, checked, and put in the place of state.db.
Others wait meanwhile, a second for some hundred megabytes. Until the copy is in
place nothing has changed.`,
		Example: `
mobileops state compact
30 3 1 * * root mobileops state compact --quiet
`,
		Statuses: statuses(
			app.Status{Code: 0, Text: "done, or there is no state yet"},
			app.Status{Code: 3, Text: "the copy could not be written; the state is as it was"},
			app.Status{Code: 5, Text: "the state is damaged, foreign, or of a newer mobileops; nothing was changed"},
		),
		Files:   []string{database},
		Audited: true,
		Run:     func(ctx context.Context, _ []string) error { return runCompact(ctx, a) },
	})
}

// compactReport is the document of mobileops state compact --output json.
type compactReport struct {
	Schema      string `json:"schema"`
	BeforeBytes int64  `json:"before_bytes"` // 0: there is no state
	AfterBytes  int64  `json:"after_bytes"`
}

func runCompact(ctx context.Context, a *app.App) error {
	store, err := a.State()
	if err != nil {
		return err
	}
	before, after, err := store.Compact(ctx)
	if err != nil {
		return err
	}
	if before == 0 {
		a.OnlyLooked()
	}
	a.SetResult("%d bytes became %d", before, after)
	if a.Streams.Format != ui.Text {
		return a.Streams.Document(compactReport{"mobileops.state.compact/v1", before, after})
	}
	switch {
	case a.Streams.Quiet:
	case before == 0:
		_, err = fmt.Fprintf(a.Streams.Out, "there is no %s yet\n", ui.Escape(store.Path()))
	default:
		_, err = fmt.Fprintf(a.Streams.Out, "%s: %s became %s\n", ui.Escape(store.Path()), ui.Bytes(before), ui.Bytes(after))
	}
	return err
}
