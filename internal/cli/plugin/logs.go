package plugin

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/supervise"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/spf13/cobra"
)

func newLogs(a *app.App) *cobra.Command {
	var follow bool
	var count int
	cmd := a.Command(app.Spec{
		Use:   "logs NAME",
		Short: "Show what the service of a plugin printed",
		Long: `Show what the service of a plugin printed: the last lines, and with --follow those
that come, also when the log is rotated or the service starts again.

Control characters are escaped. Logs are kept up to 10 MiB, and two older files of
each.`,
		Example: `
mobileops plugin logs siem-integration-plugin
mobileops plugin logs siem-integration-plugin --follow --lines 0
mobileops plugin logs siem-integration-plugin --output jsonl | jq -r .text   # runbook: why did it fail?
`,
		Args: cobra.ExactArgs(1),
		Statuses: []app.Status{
			{Code: 0, Text: "the lines were shown"},
			{Code: 1, Text: "no such plugin is installed, or its service never printed anything"},
			{Code: 130, Text: "ended by Ctrl-C"},
		},
		Files:    []string{logFiles},
		Complete: completeInstalled(a),
		Run:      func(ctx context.Context, args []string) error { return runLogs(ctx, a, args[0], count, follow) },
	})
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on with lines as they come")
	cmd.Flags().IntVarP(&count, "lines", "n", 100, "show the last `N` lines; -1: all")
	return cmd
}

// logRecord is one line of plugin logs --output jsonl.
type logRecord struct {
	Schema string    `json:"schema"`
	Time   time.Time `json:"time"`
	Stream string    `json:"stream"`
	Text   string    `json:"text"`
}

func runLogs(ctx context.Context, a *app.App, name string, count int, follow bool) error {
	e, c, err := newEngine(a, nil)
	if err != nil {
		return err
	}
	if count < -1 {
		return app.UsageError("--lines %d: a number of lines, or -1 for all", count)
	}
	if count < 0 {
		count = int(^uint(0) >> 1)
	}
	// What was removed may still have a log; what never was has none.
	_, gone := e.Get(ctx, name)
	if gone != nil && failure.KindOf(gone) != failure.No {
		return gone
	}
	signals, unhook := app.EndSignals()
	defer unhook()
	lines, shown := a.Streams.Lines(), false
	for line, err := range supervise.TailLog(ctx, filepath.Join(logDir(c), name+".log"), count, follow) {
		if err != nil {
			if ctx.Err() != nil {
				break
			}
			return err
		}
		shown = true
		if a.Streams.Format != ui.Text {
			err = lines.Print(logRecord{"mobileops.plugin.logs/v1", line.Time, line.Stream, string(line.Text)})
		} else {
			_, err = fmt.Fprintf(a.Streams.Out, "%s %-6s %s\n", line.Time.Local().Format(time.DateTime), line.Stream, ui.Escape(string(line.Text)))
		}
		if err == nil && follow {
			err = lines.Flush()
		}
		if err != nil {
			return err
		}
	}
	if err := lines.Flush(); err != nil {
		return err
	}
	switch {
	case ctx.Err() != nil:
		return app.EndedBy(signals)
	case shown || count == 0:
		return nil
	case gone != nil:
		return gone
	}
	return failure.Errorf(failure.No, "the service of %s has printed nothing yet", name)
}
