package scan

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/mobileops/mobileops/internal/cli/app"
	moments "github.com/mobileops/mobileops/internal/cli/moment"
	"github.com/mobileops/mobileops/internal/scan/ledger"
	"github.com/mobileops/mobileops/internal/state"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/spf13/cobra"
)

type trendOptions struct{ since, step string }

func newTrend(a *app.App) *cobra.Command {
	var opts trendOptions
	cmd := a.Command(app.Spec{
		Use:   "trend [ASSET] [--since WHEN] [--step SPAN]",
		Short: "Show how many there were over time, and how long they took to mend",
		Long: `Show how many there were over time, and how long they took to mend.

Without ASSET it adds up everything that was scanned. Each line is how it stood at
the end of a step; - is before the first scan.`,
		Example: `
mobileops scan trend
mobileops scan trend host:edge1 --since 90d --step 7d
mobileops scan trend --since 365d --step 30d --output json > trend.json   # runbook: for the auditor, each year
`,
		Args:     cobra.MaximumNArgs(1),
		Statuses: []app.Status{{Code: 0, Text: "it was shown"}, {Code: 1, Text: "nothing of that name was ever scanned"}, {Code: 7, Text: "nothing was ever scanned"}, governed()},
		Files:    []string{stateFile},
		Run:      func(ctx context.Context, args []string) error { return runTrend(ctx, a, &opts, args) },
		Complete: completeAssets(a),
	})
	fs := cmd.Flags()
	fs.StringVar(&opts.since, "since", "30d", "from `WHEN` on: a span such as 90d, or a date")
	textFlag(fs, &opts.step, "step", "one line for each `SPAN` (default: so that there are about fifteen)")
	app.CompleteValues(cmd, "since", "30d", "90d", "365d")
	app.CompleteValues(cmd, "step", "1d", "7d", "30d")
	return cmd
}

// maxSteps bounds the lines of a trend.
const maxSteps = 1000

func runTrend(ctx context.Context, a *app.App, o *trendOptions, args []string) error {
	now := time.Now()
	asset, err := assetArgument(args)
	if err != nil {
		return err
	}
	since, ok := moments.Past(o.since, now, false)
	if !ok || !since.Before(now) {
		return app.UsageError("bad value %q for --since: a span such as 90d, or a date such as 2026-05-01", o.since)
	}
	step := defaultStep(now.Sub(since))
	if o.step != "" {
		if step, ok = moments.Span(o.step); !ok || step <= 0 {
			return app.UsageError("bad value %q for --step: a span such as 1d or 7d", o.step)
		}
	}
	if now.Sub(since)/step > maxSteps {
		return app.UsageError("--step %s since %s makes more than %d lines", o.step, o.since, maxSteps)
	}
	l, store, err := memory(a)
	if err != nil {
		return err
	}
	var periods []ledger.Period
	var first time.Time // before it, nothing is known
	if err := store.View(ctx, func(tx *state.Tx) error {
		if asset != "" {
			if _, err := l.Asset(tx, asset); err != nil {
				return err
			}
		}
		assets, err := l.Assets(tx)
		if err != nil {
			return err
		}
		if len(assets) == 0 {
			return neverScanned()
		}
		for i := range assets {
			if at := assets[i].First; (asset == "" || assets[i].ID == asset) && (first.IsZero() || at.Before(first)) {
				first = at
			}
		}
		periods, err = l.Trend(tx, asset, since, now, step)
		return err
	}); err != nil {
		return assetError(err, asset)
	}
	switch a.Streams.Format {
	case ui.JSONL:
		return printLines(a, periods)
	case ui.JSON:
		return a.Streams.Document(struct {
			Schema  string          `json:"schema"`
			Asset   string          `json:"asset,omitempty"`
			Periods []ledger.Period `json:"periods"`
		}{"mobileops.scan.trend/v1", asset, append([]ledger.Period{}, periods...)})
	}
	return printTrend(a, periods, first)
}

// defaultStep is a round step that makes about fifteen lines.
func defaultStep(span time.Duration) time.Duration {
	const day = 24 * time.Hour
	for _, step := range []time.Duration{time.Hour, 6 * time.Hour, day, 2 * day, 7 * day, 30 * day} {
		if span/step <= 20 {
			return step
		}
	}
	return 90 * day
}

func printTrend(a *app.App, periods []ledger.Period, first time.Time) error {
	columns := []ui.Column{{Title: "UNTIL"}}
	for _, s := range ledger.Severities() {
		columns = append(columns, ui.Column{Title: string(s), Right: true})
	}
	table := a.Streams.NewTable(append(columns, ui.Column{Title: "NEW", Right: true, Drop: 1}, ui.Column{Title: "GONE", Right: true, Drop: 2}, ui.Column{Title: "MENDED IN", Right: true, Drop: 4}, ui.Column{Title: "OPEN", Drop: 3})...)
	widest := 24
	if a.Streams.OutTTY && a.Streams.Width > 0 { // a bar that is cut would say something else
		widest = max(4, min(widest, a.Streams.Width-67))
	}
	most := 1
	for i := range periods {
		most = max(most, periods[i].Counts.Total())
	}
	for i := range periods {
		p := &periods[i]
		row := []any{p.Until.Local().Format("2006-01-02 15:04")}
		if p.Until.Before(first) { // not looked at is not the same as nothing found
			for range len(ledger.Severities()) + 3 {
				row = append(row, "-")
			}
			table.Row(row...)
			continue
		}
		for _, s := range ledger.Severities() {
			row = append(row, ui.Count(int64(p.Counts.Open[s])))
		}
		mended := "-"
		if p.MeanResolve > 0 {
			mended = ui.Duration(p.MeanResolve)
		}
		table.Row(append(row, ui.Count(int64(p.New+p.Reopened)), ui.Count(int64(p.Resolved)), mended, bar(p.Counts.Total(), most, widest))...)
	}
	if table.Len() == 0 && !a.Streams.Quiet {
		_, err := fmt.Fprintln(a.Streams.Out, "Nothing was scanned in that time.")
		return err
	}
	return table.Print()
}

// bar draws a number beside the greatest one.
func bar(n, most, width int) string {
	return strings.Repeat("#", (n*width+most-1)/most)
}
