package scan

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/scan/ledger"
	"github.com/mobileops/mobileops/internal/state"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/spf13/cobra"
)

type diffOptions struct{ since, until string }

func newDiff(a *app.App) *cobra.Command {
	var opts diffOptions
	cmd := a.Command(app.Spec{
		Use:   "diff ASSET [--since WHEN] [--until WHEN]",
		Short: "Show what came, went and changed between two scans",
		Long: `Show what came, went and changed between two scans.

Without --since it compares the last scan with the one before. An upgraded package
that is still vulnerable is no change; that a fix appeared, a severity became
another one, or something became known to be exploited, is one.`,
		Example: `
mobileops scan diff host:edge1
mobileops scan diff host:edge1 --since 7d                   # runbook: what is new this week?
mobileops scan diff image:registry.example.org/portal --since 2026-05-01 --until 2026-06-01
`,
		Args: cobra.ExactArgs(1),
		Statuses: []app.Status{
			{Code: 0, Text: "nothing came, went or changed"},
			{Code: 1, Text: "something did; or nothing of that name was ever scanned"},
			{Code: 7, Text: "it was scanned only once, so there is nothing to compare with"},
			governed(),
		},
		Files:    []string{stateFile},
		Run:      func(ctx context.Context, args []string) error { return runDiff(ctx, a, &opts, args[0]) },
		Complete: completeAssets(a),
	})
	fs := cmd.Flags()
	textFlag(fs, &opts.since, "since", "compare with how it was at `WHEN`: a span such as 7d, or a date (default: at the scan before the last)")
	textFlag(fs, &opts.until, "until", "up to how it was at `WHEN` (default: now)")
	app.CompleteValues(cmd, "since", "24h\tthe last day", "7d\tthe last week", "30d\tthe last month")
	return cmd
}

func runDiff(ctx context.Context, a *app.App, o *diffOptions, asset string) error {
	now := time.Now()
	from, to := time.Time{}, now
	var err error
	if o.since != "" {
		if from, err = pastFlag("since", o.since, now, false); err != nil {
			return err
		}
	}
	if o.until != "" {
		if to, err = pastFlag("until", o.until, now, true); err != nil {
			return err
		}
	}
	l, store, err := memory(a)
	if err != nil {
		return err
	}
	var d *ledger.Difference
	if err := store.View(ctx, func(tx *state.Tx) error {
		status, err := l.Asset(tx, asset)
		if err != nil {
			return err
		}
		if from.IsZero() {
			if from = status.Previous; from.IsZero() {
				return failure.Hint(failure.Errorf(failure.NotReady, "%s was scanned only once", ui.Printable(asset)), "scan it again, or say since when: --since 7d")
			}
		}
		if to.Before(from) {
			return app.UsageError("--until is before --since, or before the scan that it is compared with: say --since too")
		}
		d, err = l.Diff(tx, asset, from, to)
		return err
	}); err != nil {
		return assetError(err, asset)
	}
	if err := printDiff(a, l, d, now); err != nil {
		return err
	}
	if len(d.Appeared)+len(d.Gone)+len(d.Changed) > 0 {
		return failure.Silent(failure.No)
	}
	return nil
}

func printDiff(a *app.App, l ledger.Ledger, d *ledger.Difference, now time.Time) error {
	if a.Streams.Format != ui.Text {
		return a.Streams.Document(struct {
			Schema string `json:"schema"`
			*ledger.Difference
		}{"mobileops.scan.diff/v1", d})
	}
	table := a.Streams.NewTable(ui.Column{Title: ""}, ui.Column{Title: "SEVERITY"}, ui.Column{Title: "ID"}, ui.Column{Title: "WHAT", Min: 12, KeepEnd: true}, ui.Column{Title: "FIXED IN", Min: 8, Drop: 2}, ui.Column{Title: "NOTE", Min: 16, Drop: 1})
	add := func(sign string, i *ledger.Item, text string) {
		what, solution := i.Package, ""
		if what == "" {
			what = where(i)
		}
		if i.Class == ledger.Vulnerability {
			solution = fixed(i)
		}
		table.Row(sign, severityCell(a, i.Severity), i.ID, what, solution, text)
	}
	for n := range d.Appeared {
		i := &d.Appeared[n]
		news := "new"
		if i.Reopened > 0 {
			news = "back again"
		}
		add("+", i, note(i, news))
	}
	for n := range d.Changed {
		c := &d.Changed[n]
		var what []string
		for _, e := range c.Happened {
			what = append(what, strings.TrimSpace(string(e.What)+" "+change(e)))
		}
		add("~", &c.Item, strings.Join(what, "; "))
	}
	for n := range d.Gone {
		add("-", &d.Gone[n], "gone since "+d.Gone[n].ResolvedAt.Local().Format(time.DateOnly))
	}
	if err := table.Print(); err != nil || a.Streams.Quiet {
		return err
	}
	if n := int64(len(d.Baseline)); n > 0 {
		if _, err := fmt.Fprintf(a.Streams.Out, "%s found by the first look for their kind here, and no news (see them: mobileops scan list %s)\n", ui.Plural(n, "item was", "items were"), ui.Printable(d.Asset)); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintf(a.Streams.Out, "%s since %s: %s new, %s changed, %s gone, %s as before\n", ui.Printable(d.Asset), moment(d.From, now),
		ui.Count(int64(len(d.Appeared))), ui.Count(int64(len(d.Changed))), ui.Count(int64(len(d.Gone))), ui.Count(int64(d.Same)))
	return err
}
