package update

import (
	"context"
	"encoding/csv"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/cli/moment"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/mobileops/mobileops/internal/update/sla"
	"github.com/spf13/cobra"
)

const slaCSV = "csv"

func newSLAReport(a *app.App) *cobra.Command {
	var since string
	cmd := a.Command(app.Spec{
		Use:   "report [--since WHEN]",
		Short: "Report which security updates were installed in time, for auditors",
		Long: `Report which security updates were installed in time, for auditors.

It reads what mobileops update sla stored, and does not look itself. An update
counts as fixed from the look that first did not miss it any more, so let cron
look every day. The percentage is of those of which it is decided: fixed in
time, fixed late, or overdue now. Waived ones are listed with their reason, owner
and approver, and do not count.`,
		Example: `
mobileops update sla report
mobileops update sla report --since 90d --output csv > patches.csv         # runbook: for the auditor, each quarter
mobileops update sla report --output json | jq '.statistics[-1].percent_in_time'
`,
		Statuses: []app.Status{
			{Code: 0, Text: "it was reported, whatever it says"},
			{Code: 4, Text: "the configuration file sets a deadline, and a flag or the environment says otherwise; or the state belongs to another user"},
			{Code: 6, Text: "it was reported, but the latest look could not read a source completely"},
			{Code: 7, Text: "nobody has looked yet, or there was nothing to look at"},
		},
		Files: []string{slaState},
		Run:   func(ctx context.Context, _ []string) error { return runSLAReport(ctx, a, since) },
	})
	fs := cmd.Flags()
	fs.StringVar(&since, "since", "", "of those that are fixed, only what was from `WHEN` on: a span such as 90d, or a date")
	app.CompleteValues(cmd, "since", "30d", "90d", "365d")
	app.Choice(cmd, fs, (*string)(&a.Streams.Format), "output", string(ui.Text), []string{string(ui.Text), string(ui.JSON), string(ui.JSONL), slaCSV}, "print it as `FORMAT`")
	return cmd
}

func runSLAReport(ctx context.Context, a *app.App, since string) error {
	v, c, err := newSLAView(a)
	if err != nil {
		return err
	}
	v.history = true
	if since != "" {
		var ok bool
		if v.since, ok = moment.Past(since, v.now, false); !ok {
			return app.UsageError("bad value %q for --since: a span such as 90d, or a date such as 2026-05-01", since)
		}
	}
	store, err := a.State()
	if err != nil {
		return err
	}
	if err := store.View(ctx, v.read); err != nil {
		return err
	}
	v.tooOld(c.Update.SLA.ListsAge)
	switch a.Streams.Format {
	case ui.JSON:
		err = a.Streams.Document(v.document("mobileops.update.sla.report/v1"))
	case ui.JSONL:
		err = printSLALines(a, slaRecords(v.list, v.now))
	case slaCSV:
		err = v.csv(a)
	default:
		err = v.printReport(a)
	}
	if err != nil {
		return err
	}
	return failure.Silent(v.completeness())
}

func (v *slaView) printReport(a *app.App) error {
	v.printProblems(a)
	if err := v.table(a, v.list).Print(); err != nil {
		return err
	}
	if len(v.list) > 0 {
		if _, err := fmt.Fprintln(a.Streams.Out); err != nil {
			return err
		}
	}
	number := func(f *float64, format string) string {
		if f == nil {
			return ""
		}
		return fmt.Sprintf(format, *f)
	}
	table := a.Streams.NewTable(ui.Column{Title: "SEVERITY"}, ui.Column{Title: "DUE AFTER", Right: true}, ui.Column{Title: "IN TIME", Right: true}, ui.Column{Title: "LATE", Right: true}, ui.Column{Title: "UNDER WAIVER", Right: true, Drop: 2},
		ui.Column{Title: "OVERDUE", Right: true}, ui.Column{Title: "WAIVED", Right: true}, ui.Column{Title: "PENDING", Right: true}, ui.Column{Title: "% IN TIME", Right: true},
		ui.Column{Title: "MEAN DAYS", Right: true, Drop: 1}, ui.Column{Title: "MOST DAYS", Right: true, Drop: 3})
	for _, s := range sla.Count(v.all) {
		name, after := string(s.Severity), ""
		if name == "" {
			name = "all"
		} else if d := v.ledger.Policy.Within(s.Severity); d == 0 {
			after = "never"
		} else {
			after = days(d)
		}
		table.Row(name, after, s.InTime, s.Late, s.UnderWaiver, s.Overdue, s.Waived, s.Pending, number(s.Percent, "%.1f"), number(s.MeanDays, "%.1f"), number(s.MaxDays, "%.1f"))
	}
	if err := table.Print(); err != nil || a.Streams.Quiet {
		return err
	}
	for _, s := range v.sources {
		a.Streams.Notice("%s: %s, latest look %s, latest complete one %s", s.Name, s.State, v.at(s.Looked), orNever(v.at(s.Complete)))
	}
	return nil
}

func orNever(s string) string {
	if s == "" {
		return "never"
	}
	return s
}

// csv writes RFC 4180. A field that a spreadsheet would take for a formula has an
// apostrophe in front.
func (v *slaView) csv(a *app.App) error {
	w := csv.NewWriter(a.Streams.Out)
	w.UseCRLF = true
	utc := func(t time.Time) string {
		if t.IsZero() {
			return ""
		}
		return t.UTC().Format(time.RFC3339)
	}
	row := func(fields ...string) error {
		for i, f := range fields {
			if f = ui.Escape(f); f != "" && strings.ContainsRune("=+-@", rune(f[0])) {
				f = "'" + f
			}
			fields[i] = f
		}
		return w.Write(fields)
	}
	if err := row("id", "source", "package", "advisory", "severity", "state", "outcome", "published", "first_known", "due", "fixed", "days", "installed", "fixed_in", "packages", "note",
		"waiver_owner", "waiver_reason", "waiver_until", "waiver_requested_by", "waiver_approved_by", "waiver_approved_at"); err != nil {
		return err
	}
	for i := range v.list {
		e := &v.list[i]
		until := v.now
		if e.State == sla.Fixed {
			until = e.FixedAt
		}
		fields := []string{e.ID(), e.Source, e.Name, e.Advisory.Advisory, string(e.Severity), string(e.State), string(e.Outcome), utc(e.Published), utc(e.FirstKnown), utc(e.Due), utc(e.FixedAt),
			strconv.FormatFloat(max(0, until.Sub(e.FirstKnown).Hours()/24), 'f', 1, 64), e.Installed, e.FixedIn, strings.Join(e.Packages, " "), e.Note}
		if w := e.Waiver; w != nil {
			fields = append(fields, w.Owner, w.Reason, utc(w.Until), w.Requested.By.Describe(), w.Approved.By.Describe(), utc(w.Approved.At))
		} else {
			fields = append(fields, "", "", "", "", "", "")
		}
		if err := row(fields...); err != nil {
			return err
		}
	}
	w.Flush()
	return w.Error()
}
