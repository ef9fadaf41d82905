package compat

import (
	"context"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/spf13/cobra"
)

func newList(a *app.App) *cobra.Command {
	var cmd *cobra.Command
	cmd = a.Command(app.Spec{
		Use:   "list",
		Short: "List the calls of the old scripts and what they have become",
		Example: `
mobileops compat list                                          # every old call
mobileops compat list --output jsonl | grep '"ready":false'    # what is not there yet
`,
		Run: func(context.Context, []string) error { return runList(a, cmd.Root()) },
	})
	return cmd
}

// listReport is the document of mobileops compat list --output json.
type listReport struct {
	Schema string       `json:"schema"`
	Calls  []listedCall `json:"calls"`
}

// listedCall is also a record of --output jsonl.
type listedCall struct {
	Script string `json:"script"`
	Old    string `json:"old"`
	New    string `json:"new"`
	Does   string `json:"does"`
	Ready  bool   `json:"ready"` // the command exists in this version
}

func runList(a *app.App, root *cobra.Command) error {
	report := listReport{Schema: "mobileops.compat.list/v1"}
	for _, s := range Scripts() {
		for _, c := range s.Calls {
			report.Calls = append(report.Calls, listedCall{s.Name, c.OldCall(s), c.NewCall(), c.Does, Exists(root, c)})
		}
	}
	switch a.Streams.Format {
	case ui.JSON:
		return a.Streams.Document(report)
	case ui.JSONL:
		lines := a.Streams.Lines()
		for _, c := range report.Calls {
			if err := lines.Print(c); err != nil {
				return err
			}
		}
		return lines.Flush()
	}
	theme := a.Streams.Theme()
	table := a.Streams.NewTable(
		ui.Column{Title: "BEFORE", Min: 14}, ui.Column{Title: "NOW", Min: 14}, ui.Column{Title: "READY"}, ui.Column{Title: "DOES", Min: 16, Drop: 1})
	for _, c := range report.Calls {
		ready := ui.Cell{Text: "yes", Style: theme.Good}
		if !c.Ready {
			ready = ui.Cell{Text: "not yet", Style: theme.Faint}
		}
		table.Row(c.Old, c.New, ready, c.Does)
	}
	return table.Print()
}
