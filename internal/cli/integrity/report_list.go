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

func newReportList(a *app.App) *cobra.Command {
	var name string
	cmd := a.Command(app.Spec{
		Use:   "list [--name NAME]",
		Short: "List what the checks of a baseline found, the newest first",
		Long: `List what the checks and verifies of a baseline found, the newest first.

Runs in a row that found the same are one report, whatever runs of another kind
lie between them. Of old ones only the numbers are kept.`,
		Example: `
mobileops integrity report list
mobileops integrity report list --output json | jq '.reports[] | {last, status}'
`,
		Statuses: []app.Status{{Code: 0, Text: "the reports were listed, however many"}},
		Files:    []string{stateFile},
		Run:      func(ctx context.Context, _ []string) error { return runReportList(ctx, a, name) },
	})
	nameFlag(a, cmd, &name, "reports about the baseline `NAME`")
	return cmd
}

// reportListReport is the document of integrity report list.
type reportListReport struct {
	Schema  string               `json:"schema"`
	Reports []engine.ReportEntry `json:"reports"`
}

// foundText says in a few words what a run found.
func foundText(r *engine.ReportEntry) string {
	text := "clean"
	if n := r.Summary.Differences() + int64(r.Drift); n > 0 {
		text = ui.Plural(n, "change", "changes")
	}
	if n := r.Summary.Unreadable + r.Summary.Unstable; n > 0 {
		text += ", " + ui.Count(n) + " not read"
	}
	return text
}

func runReportList(ctx context.Context, a *app.App, name string) error {
	if err := engine.CheckName(name); err != nil {
		return err
	}
	e, _, err := newEngine(a)
	if err != nil {
		return err
	}
	list, err := e.Reports(ctx, name)
	if err != nil {
		return err
	}
	if a.Streams.Format != ui.Text {
		if list == nil {
			list = []engine.ReportEntry{}
		}
		return a.Streams.Document(reportListReport{"mobileops.integrity.report.list/v1", list})
	}
	now := time.Now()
	theme := a.Streams.Theme()
	table := a.Streams.NewTable(ui.Column{Title: "ID"}, ui.Column{Title: "LAST RUN"}, ui.Column{Title: "MODE", Drop: 2},
		ui.Column{Title: "RUNS", Right: true, Drop: 1}, ui.Column{Title: "FOUND", Min: 12}, ui.Column{Title: "SUSPICIOUS", Right: true, Drop: 3}, ui.Column{Title: "BASELINE", Drop: 4})
	for i := range list {
		r := &list[i]
		if a.Streams.Quiet && r.Status == 0 {
			continue
		}
		found := ui.Cell{Text: foundText(r), Style: theme.Warn}
		if r.Status == 0 {
			found.Style = theme.Good
		}
		suspicious := ui.Cell{Text: ui.Count(int64(r.Classes[engine.Suspicious]))}
		if r.Classes[engine.Suspicious] > 0 {
			suspicious.Style = theme.Bad
		}
		table.Row(r.ID[:min(8, len(r.ID))], ui.Ago(r.Last, now), r.Mode(), ui.Count(int64(max(r.Runs, 1))), found, suspicious, r.BaselineID[:min(8, len(r.BaselineID))])
	}
	if len(list) == 0 && !a.Streams.Quiet {
		fmt.Fprintf(a.Streams.Err, "no reports about baseline %q (make one: mobileops integrity check --name %s)\n", name, name)
	}
	return table.Print()
}
