package update

import (
	"context"
	"fmt"
	"time"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/mobileops/mobileops/internal/update"
	"github.com/spf13/cobra"
)

func newHistory(a *app.App) *cobra.Command {
	var limit int
	cmd := a.Command(app.Spec{
		Use:   "history [--limit N]",
		Short: "Show what happened to the installation, the latest last",
		Long: `Show what happened to the installation, the latest last: which package was applied
or staged, who went back and why, and when the host did so by itself ("undone").
It tells of generations that are gone as well. Who ran which command stands in the
audit chain, too.`,
		Example: `
mobileops update history
mobileops update history --limit 10
mobileops update history --output jsonl | jq 'select(.event == "undone")'
mobileops update history --limit 1 --output json  # runbook: what was the last thing that changed?
`,
		Statuses: []app.Status{
			{Code: 0, Text: "it was shown; it may be empty"},
			{Code: 5, Text: "the history is damaged"},
		},
		Files: []string{stateFile},
		Run:   func(ctx context.Context, _ []string) error { return runHistory(ctx, a, limit) },
	})
	cmd.Flags().IntVar(&limit, "limit", 0, "only the last `N` events")
	app.CompleteValues(cmd, "limit", "1", "10", "100")
	return cmd
}

// historyDocument is the document of update history.
type historyDocument struct {
	Schema string         `json:"schema"`
	Target string         `json:"target"`
	Events []update.Event `json:"events"` // the oldest first
}

func runHistory(ctx context.Context, a *app.App, limit int) error {
	if limit < 0 {
		return app.UsageError("--limit %d: write a number of events", limit)
	}
	e, _, err := newEngine(a, "update history")
	if err != nil {
		return err
	}
	list, err := e.History(ctx, limit)
	if err != nil {
		return err
	}
	switch a.Streams.Format {
	case ui.JSON:
		return a.Streams.Document(historyDocument{"mobileops.update.history/v1", e.Store().Target(), append([]update.Event{}, list...)})
	case ui.JSONL:
		return printLines(a.Streams, list)
	}
	if len(list) == 0 {
		if !a.Streams.Quiet {
			a.Streams.Notice("nothing happened here yet (begin: mobileops update apply PKG)")
		}
		return nil
	}
	return printHistory(a, list)
}

func printHistory(a *app.App, list []update.Event) error {
	theme := a.Streams.Theme()
	table := a.Streams.NewTable(ui.Column{Title: "TIME"}, ui.Column{Title: "EVENT"}, ui.Column{Title: "FROM", Right: true, Drop: 5}, ui.Column{Title: "TO", Right: true},
		ui.Column{Title: "PACKAGE", Min: 10, Drop: 1}, ui.Column{Title: "BY", Min: 6, Drop: 3}, ui.Column{Title: "CHANGE", Drop: 4}, ui.Column{Title: "REASON", Min: 12, Drop: 2})
	for i := range list {
		ev := &list[i]
		if a.Streams.Quiet && ev.Kind != update.EventUndone && ev.Kind != update.EventFound {
			continue // nobody has to look at it
		}
		event := ui.Cell{Text: ev.Kind}
		if ev.Kind == update.EventUndone || ev.Kind == update.EventFound {
			event.Style = theme.Warn
		}
		product := ""
		if ev.Package != nil {
			product = ev.Package.Name + " " + ev.Package.Version
		}
		reason := ev.Reason
		if len(ev.Removed) > 0 {
			if reason != "" {
				reason = " (" + reason + ")"
			}
			reason = "removed " + numbered(ev.Removed) + reason
		}
		table.Row(ev.Time.Local().Format(time.DateTime), event, generationNumber(ev.From), generationNumber(ev.To), product, ev.By, ev.Change, reason)
	}
	return table.Print()
}

func generationNumber(n int) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprint(n)
}
