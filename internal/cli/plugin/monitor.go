package plugin

import (
	"context"
	"errors"
	"time"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/supervise"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/spf13/cobra"
)

func newMonitor(a *app.App) *cobra.Command {
	return a.Command(app.Spec{
		Use:   "monitor [NAME]",
		Short: "Watch services of plugins: how each is, and then every change",
		Long: `Watch services of plugins: how each is now, and then every change, until Ctrl-C.
For a look and no more there is mobileops plugin status.`,
		Example: `
mobileops plugin monitor
mobileops plugin monitor siem-integration-plugin --output jsonl >> siem-states.jsonl  # for another tool
`,
		Args: cobra.MaximumNArgs(1),
		Statuses: []app.Status{
			{Code: 0, Text: "the supervisor ended, or SIGTERM or SIGHUP ended this"},
			{Code: 1, Text: "no such plugin is installed"},
			{Code: 7, Text: "no supervisor of plugins is running, or the plugin has no service or is disabled"},
			{Code: 130, Text: "ended by Ctrl-C"},
		},
		Files:    []string{socketFile},
		Complete: completeInstalled(a),
		Run:      func(ctx context.Context, args []string) error { return runMonitor(ctx, a, args) },
	})
}

// monitorRecord is one line of plugin monitor --output jsonl.
type monitorRecord struct {
	Schema string    `json:"schema"`
	Time   time.Time `json:"time"`
	*supervise.Status
}

func runMonitor(ctx context.Context, a *app.App, args []string) error {
	e, c, err := newEngine(a, nil)
	if err != nil {
		return err
	}
	client, err := supervisor(ctx, c)
	if err != nil {
		return err
	}
	name := ""
	if len(args) > 0 {
		name = args[0]
		if _, err := e.Get(ctx, name); err != nil {
			return err
		}
		_, err := client.Status(ctx, name)
		if errors.Is(err, supervise.ErrUnknown) || failure.KindOf(err) == failure.Usage {
			return failure.Errorf(failure.NotReady, "plugin %s has no service that could run: it is disabled, or has none (see: mobileops plugin info %s)", name, name)
		}
		if err != nil {
			return err
		}
	}
	signals, unhook := app.EndSignals()
	defer unhook()
	lines := a.Streams.Lines()
	feed := a.Streams.NewFeed([]int{19, 28, 11, 8, 20}, ui.Column{Title: "TIME", Drop: 1}, ui.Column{Title: "NAME", Min: 20, KeepEnd: true}, ui.Column{Title: "STATE"}, ui.Column{Title: "HEALTH", Drop: 2}, ui.Column{Title: "MESSAGE", Min: 20})
	for status, err := range client.Watch(ctx, name) {
		if ctx.Err() != nil {
			return app.EndedBy(signals)
		}
		if err != nil {
			return err
		}
		if a.Streams.Format != ui.Text {
			err = lines.Print(monitorRecord{"mobileops.plugin.monitor/v1", time.Now().UTC(), &status})
		} else {
			v := &serviceView{Status: &status, Start: true, Enabled: true}
			err = feed.Row(time.Now().Format(time.DateTime), v.Name, ui.Cell{Text: string(v.State), Style: styleOf(a.Streams.Theme(), v)}, healthWord(v), v.message())
		}
		if err == nil {
			err = lines.Flush()
		}
		if err != nil {
			return err
		}
	}
	if ctx.Err() != nil {
		return app.EndedBy(signals)
	}
	return nil
}
