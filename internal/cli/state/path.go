package state

import (
	"context"
	"fmt"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/spf13/cobra"
)

func newPath(a *app.App) *cobra.Command {
	return a.Command(app.Spec{
		Use:   "path",
		Short: "Print where the state is",
		Long: `Print where the state is.

It is the path of state.db, which need not exist yet. Nothing is opened.`,
		Example: `
mobileops state path
ls -l "$(mobileops state path)"*   # with its checksums, and what restore kept
`,
		Statuses: []app.Status{
			{Code: 4, Text: "the configuration may not be read"},
			{Code: 5, Text: "others than root can write root's configuration"},
		},
		Run: func(context.Context, []string) error { return runPath(a) },
	})
}

// pathReport is the document of mobileops state path --output json.
type pathReport struct {
	Schema    string `json:"schema"`
	Directory string `json:"directory"`
	Database  string `json:"database"`
}

func runPath(a *app.App) error {
	store, err := a.State()
	if err != nil {
		return err
	}
	if a.Streams.Format != ui.Text {
		return a.Streams.Document(pathReport{"mobileops.state.path/v1", store.Dir(), store.Path()})
	}
	_, err = fmt.Fprintln(a.Streams.Out, ui.Escape(store.Path()))
	return err
}
