package integrity

import (
	"context"

	"github.com/mobileops/mobileops/internal/cli/app"
	engine "github.com/mobileops/mobileops/internal/integrity"
	"github.com/spf13/cobra"
)

func newBaselineImport(a *app.App) *cobra.Command {
	var name, reason, ticket string
	cmd := a.Command(app.Spec{
		Use:   "import FILE [flags]",
		Short: "Take over a baseline that was exported",
		Long: `Take over a baseline that was exported, here or on another host, and make it
the current one of its name. All of it is read and checked first. Compare the
root that is printed with the one that was written down: a file can be whole
and yet not be yours.`,
		Example: `
mobileops integrity baseline import /media/usb/web1.baseline
mobileops integrity baseline import golden.baseline --name golden  # under another name
`,
		Args: cobra.ExactArgs(1),
		Statuses: []app.Status{
			{Code: 5, Text: "FILE is damaged, or no baseline"},
			{Code: 8, Text: "the same baseline is there already, or its name is being used"},
		},
		Files:   []string{baselineFile, stateFile},
		Audited: true,
		Run: func(ctx context.Context, args []string) error {
			return runBaselineImport(ctx, a, args[0], name, engine.By{Reason: reason, Ticket: ticket})
		},
		Complete: func(context.Context, []string, string) []string { return app.Files() },
	})
	cmd.Flags().StringVar(&name, "name", "", "import it as `NAME` (default: its own name)")
	reasonFlags(cmd, &reason, &ticket)
	return cmd
}

func runBaselineImport(ctx context.Context, a *app.App, path, name string, why engine.By) error {
	e, _, err := newEngine(a)
	if err != nil {
		return err
	}
	e.By.Reason, e.By.Ticket = why.Reason, why.Ticket
	b, err := e.Import(ctx, path, name)
	if err != nil {
		return err
	}
	a.SetResult("%s@%s imported, root %s", b.Name, b.ID, b.Root)
	if err := printTransferred(a, "imported", b); err != nil {
		return err
	}
	return keepAnchors(ctx, a, e)
}
