package integrity

import (
	"context"
	"fmt"

	"github.com/mobileops/mobileops/internal/cli/app"
	engine "github.com/mobileops/mobileops/internal/integrity"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/spf13/cobra"
)

type exportOptions struct {
	name  string
	force bool
}

func newBaselineExport(a *app.App) *cobra.Command {
	var opts exportOptions
	cmd := a.Command(app.Spec{
		Use:   "export FILE [flags]",
		Short: "Copy a baseline to a file, to keep it elsewhere",
		Long: `Copy a baseline to a file, after proving that it is whole. Keep the copy where
an intruder on this host cannot reach it, and compare its root.`,
		Example: `
mobileops integrity baseline export /media/usb/web1.baseline
mobileops integrity baseline export --name app --force app.baseline
`,
		Args: cobra.ExactArgs(1),
		Statuses: []app.Status{
			{Code: 2, Text: "FILE exists and --force was not given; nothing was done"},
			{Code: 5, Text: "the baseline or the state is damaged, or the baseline is not the one in the catalogue"},
			{Code: 7, Text: "there is no such baseline"},
		},
		Files:    []string{baselineFile, stateFile},
		Audited:  true,
		Run:      func(ctx context.Context, args []string) error { return runBaselineExport(ctx, a, &opts, args[0]) },
		Complete: func(context.Context, []string, string) []string { return app.Files() },
	})
	nameFlag(a, cmd, &opts.name, "export the baseline `NAME[@ID]`")
	cmd.Flags().BoolVar(&opts.force, "force", false, "replace FILE when it exists")
	return cmd
}

func runBaselineExport(ctx context.Context, a *app.App, o *exportOptions, path string) error {
	e, _, err := newEngine(a)
	if err != nil {
		return err
	}
	b, err := e.Export(ctx, o.name, path, o.force)
	if err != nil {
		return err
	}
	a.SetResult("%s@%s exported, root %s", b.Name, b.ID, b.Root)
	return printTransferred(a, "exported", b)
}

// printTransferred says what was exported or imported.
func printTransferred(a *app.App, what string, b engine.Entry) error {
	if a.Streams.Format != ui.Text {
		return a.Streams.Document(listReport{"mobileops.integrity.baseline." + what + "/v1", []engine.Entry{b}})
	}
	if a.Streams.Quiet {
		return nil
	}
	_, err := fmt.Fprintf(a.Streams.Out, "Baseline %s@%s %s: %s, taken %s on %s. Its root:\n  %s\n",
		b.Name, b.ID[:8], what, ui.Plural(b.Entries, "entry", "entries"), stamp(b.Finished), ui.Escape(b.Host), b.Root)
	return err
}
