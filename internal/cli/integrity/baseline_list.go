package integrity

import (
	"context"
	"fmt"
	"time"

	"github.com/mobileops/mobileops/internal/cli/app"
	engine "github.com/mobileops/mobileops/internal/integrity"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/spf13/cobra"
)

func newBaselineList(a *app.App) *cobra.Command {
	return a.Command(app.Spec{
		Use:   "list",
		Short: "List the baselines, the newest of each name first",
		Example: `
mobileops integrity baseline list
mobileops integrity baseline list --output json     # with roots and counts
`,
		Statuses: []app.Status{{Code: 0, Text: "the baselines were listed, however many"}},
		Files:    []string{stateFile},
		Run:      func(ctx context.Context, _ []string) error { return runBaselineList(ctx, a) },
	})
}

// listReport is the document of integrity baseline list and show.
type listReport struct {
	Schema    string         `json:"schema"`
	Baselines []engine.Entry `json:"baselines"`
}

func runBaselineList(ctx context.Context, a *app.App) error {
	e, _, err := newEngine(a)
	if err != nil {
		return err
	}
	list, err := e.List(ctx)
	if err != nil {
		return err
	}
	if a.Streams.Format != ui.Text {
		if list == nil {
			list = []engine.Entry{}
		}
		return a.Streams.Document(listReport{"mobileops.integrity.baseline.list/v1", list})
	}
	now := time.Now()
	table := a.Streams.NewTable(
		ui.Column{Title: "NAME", Min: 6}, ui.Column{Title: "ID"}, ui.Column{Title: "USE"}, ui.Column{Title: "TAKEN"},
		ui.Column{Title: "ENTRIES", Right: true, Drop: 1}, ui.Column{Title: "CONTENT", Right: true, Drop: 2},
		ui.Column{Title: "POLICY", Drop: 3}, ui.Column{Title: "TREE", Min: 4, Drop: 4}, ui.Column{Title: "HOST", Min: 6, Drop: 5})
	for _, b := range list {
		use := "former"
		if b.Current {
			use = "current"
		}
		table.Row(b.Name, b.ID[:8], use, ui.Ago(b.Finished, now), ui.Count(b.Entries), ui.Bytes(b.Bytes), b.PolicyName, b.Tree, b.Host)
	}
	if table.Len() == 0 && !a.Streams.Quiet {
		fmt.Fprintln(a.Streams.Err, "no baselines (take one: mobileops integrity baseline)")
	}
	return table.Print()
}
