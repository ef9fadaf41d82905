package scan

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/mobileops/mobileops/internal/cli/app"
	moments "github.com/mobileops/mobileops/internal/cli/moment"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/scan/ledger"
	"github.com/mobileops/mobileops/internal/state"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/spf13/cobra"
)

type slaOptions struct {
	within string
	limit  int
}

func newSLA(a *app.App) *cobra.Command {
	var opts slaOptions
	cmd := a.Command(app.Spec{
		Use:   "sla [ASSET] [--within SPAN]",
		Short: "Show until when what scans found must be mended, and what is overdue",
		Long: `Show until when what scans found must be mended, and what is overdue.

Critical and high vulnerabilities are due 30 days after a fix was first known here,
medium ones after 90 (scan.sla_critical and so on in the configuration); with
scan.sla_basis first-seen it counts from when they were first seen, fix or not. What
CISA knows to be exploited is due when CISA says, if that is earlier. What is waived
or not affected is not due. Overdue items are findings.`,
		Example: `
mobileops scan sla
mobileops scan sla host:edge1 --within 7d
45 6 * * * root mobileops scan sla --quiet                              # cron: mails what is overdue
mobileops scan sla --output json | jq '.statistics[-1].percent_in_time' # runbook: for the auditor
`,
		Args: cobra.MaximumNArgs(1),
		Statuses: []app.Status{
			{Code: 0, Text: "nothing is overdue"},
			{Code: 1, Text: "something is overdue or, with --within, due soon; or nothing of that name was ever scanned"},
			{Code: 7, Text: "nothing was ever scanned"},
			governed(),
		},
		Files:    []string{stateFile},
		Run:      func(ctx context.Context, args []string) error { return runSLA(ctx, a, &opts, args) },
		Complete: completeAssets(a),
	})
	fs := cmd.Flags()
	textFlag(fs, &opts.within, "within", "only what is overdue or due within `SPAN`, such as 7d; status 1 when there is any")
	limitFlag(fs, &opts.limit)
	app.CompleteValues(cmd, "within", "1d", "7d", "14d")
	return cmd
}

func runSLA(ctx context.Context, a *app.App, o *slaOptions, args []string) error {
	now := time.Now()
	asset, err := assetArgument(args)
	if err != nil {
		return err
	}
	var within time.Duration
	if o.within != "" {
		var ok bool
		if within, ok = moments.Span(o.within); !ok || within == 0 {
			return app.UsageError("bad value %q for --within: a span such as 7d", o.within)
		}
	}
	l, store, err := memory(a)
	if err != nil {
		return err
	}
	var all []ledger.Deadline
	if err := store.Update(ctx, func(tx *state.Tx) error {
		assets, err := l.Assets(tx)
		if err != nil {
			return err
		}
		if len(assets) == 0 {
			return neverScanned()
		}
		if asset != "" {
			if _, err := l.Asset(tx, asset); err != nil {
				return err
			}
		}
		// What became overdue since the last scan is a finding from now on.
		for i := range assets {
			if _, err := l.Report(tx, assets[i].ID, now); err != nil {
				return err
			}
		}
		if _, err := l.ReportWaivers(tx, now); err != nil {
			return err
		}
		all, err = l.SLA(tx, ledger.Filter{Asset: asset}, now)
		return err
	}); err != nil {
		return assetError(err, asset)
	}
	attention := func(d *ledger.Deadline) bool {
		left, ever := d.Left(now)
		return d.DueState == ledger.Overdue || within > 0 && d.State == ledger.Open && ever && left <= within
	}
	list := slices.DeleteFunc(slices.Clone(all), func(d ledger.Deadline) bool {
		if within > 0 || a.Streams.Quiet {
			return !attention(&d)
		}
		return d.DueState != ledger.Overdue && d.DueState != ledger.DueSoon && d.DueState != ledger.Due
	})
	if err := printSLA(a, all, list, o.limit, now); err != nil {
		return err
	}
	if slices.ContainsFunc(all, func(d ledger.Deadline) bool { return attention(&d) }) {
		return failure.Silent(failure.No)
	}
	return nil
}

func printSLA(a *app.App, all, list []ledger.Deadline, limit int, now time.Time) error {
	stats := ledger.Count(all)
	switch a.Streams.Format {
	case ui.JSON:
		return a.Streams.Document(struct {
			Schema     string              `json:"schema"`
			Generated  time.Time           `json:"generated"`
			Items      []ledger.Deadline   `json:"items"`
			Statistics []ledger.Statistics `json:"statistics"`
		}{"mobileops.scan.sla/v1", now.UTC(), append([]ledger.Deadline{}, list...), stats})
	case ui.JSONL:
		return printDeadlines(a, "", list, true, 0)
	}
	limit = rowLimit(a, limit)
	table := a.Streams.NewTable(ui.Column{Title: "DUE"}, ui.Column{Title: "LEFT", Right: true, Drop: 3}, ui.Column{Title: "SEVERITY"}, ui.Column{Title: "ASSET", Min: 10, Drop: 1, KeepEnd: true}, ui.Column{Title: "ID"},
		ui.Column{Title: "WHAT", Min: 12, KeepEnd: true}, ui.Column{Title: "FIXED IN", Min: 8, Drop: 2}, ui.Column{Title: "COUNTED FROM", Drop: 4})
	for n := range list {
		if limit > 0 && n == limit {
			break
		}
		d := &list[n]
		left, _ := d.Left(now)
		what, solution := d.Package, ""
		if what == "" {
			what = where(&d.Item)
		}
		if d.Class == ledger.Vulnerability {
			solution = fixed(&d.Item)
		}
		table.Row(due(a, d), fmt.Sprintf("%dd", int(left.Hours()/24)), severityCell(a, d.Severity), d.Asset, d.ID, what, solution, d.From)
	}
	if err := table.Print(); err != nil || a.Streams.Quiet {
		return err
	}
	if limit > 0 && len(list) > limit {
		if _, err := fmt.Fprintf(a.Streams.Out, "… and %s more (all: --limit 0)\n", ui.Count(int64(len(list)-limit))); err != nil {
			return err
		}
	}
	t := stats[len(stats)-1]
	parts := []string{}
	for _, p := range []struct {
		n    int
		word string
	}{{t.Overdue, "overdue"}, {t.Pending, "not yet overdue"}, {t.NoFix, "without a fix"}, {t.Waived, "waived"}, {t.Excluded, "not affected"}} {
		if p.n > 0 {
			parts = append(parts, ui.Count(int64(p.n))+" "+p.word)
		}
	}
	line := "nothing is due"
	if len(parts) > 0 {
		line = strings.Join(parts, ", ")
	}
	if t.Percent != nil {
		line += fmt.Sprintf("; %.0f %% in time", *t.Percent)
	}
	_, err := fmt.Fprintln(a.Streams.Out, line)
	return err
}
