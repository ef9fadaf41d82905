package integrity

import (
	"context"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/spf13/cobra"
)

func newKeyShow(a *app.App) *cobra.Command {
	return a.Command(app.Spec{
		Use:   "show",
		Short: "Show the public key that signs the history",
		Long: `Show the public key that signs the history. Write it down, or keep its file on
another host: who has it can verify an exported history without this host.`,
		Example: `
mobileops integrity key show
mobileops integrity key show --output json
`,
		Statuses: []app.Status{{Code: 5, Text: "the key is not the one that the history names"}},
		Files:    []string{stateFile, historyFile},
		Run:      func(ctx context.Context, _ []string) error { return runKeyShow(ctx, a) },
	})
}

func runKeyShow(ctx context.Context, a *app.App) error {
	e, _, err := newEngine(a)
	if err != nil {
		return err
	}
	r, v, err := newKeyReport(ctx, e, "show")
	if err != nil {
		return err
	}
	if err := printKey(a, r); err != nil {
		return err
	}
	if len(v.Problems) > 0 {
		writeProblems(a.Streams.Err, a.Streams.Theme(), v.Problems)
		return failure.Silent(failure.Untrustworthy)
	}
	return nil
}
