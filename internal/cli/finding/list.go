package finding

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/mobileops/mobileops/internal/buildinfo"
	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/finding"
	"github.com/mobileops/mobileops/internal/finding/export"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/spf13/cobra"
)

type listOptions struct {
	sources  []string
	rules    []string
	tags     []string
	states   []string
	severity string
	subject  string
	since    string
	failOn   string
}

func newList(a *app.App) *cobra.Command {
	var opts listOptions
	cmd := a.Command(app.Spec{
		Use:   "list [flags]",
		Short: "List findings, the most severe first",
		Long: `List findings, the most severe first, then by subject.

Without --state it lists what is open or acknowledged; with --quiet only what
is open. Beside the usual formats --output takes those of other tools: sarif
(2.1.0, for code scanning and vulnerability managers), junit (for CI servers),
cef (for SIEMs) and csv (for spreadsheets).

The status is 0 whatever is listed, unless --fail-on is given: then it is 1
when an open finding of that severity or above is among those listed.`,
		Example: `
mobileops finding list                                   # what needs attention
mobileops finding list --severity high --since 24h       # high and critical, seen in the last day
mobileops finding list --source integrity --subject '/etc/*'  # of one sensor, about some paths
mobileops finding list --state all --output sarif > mobileops.sarif  # everything, for another tool
0 7 * * * mobileops finding list --quiet --fail-on high  # cron: mails open findings only
`,
		Statuses: []app.Status{
			{Code: 0, Text: "the findings were listed, however many"},
			{Code: 1, Text: "with --fail-on: an open finding of that severity or above is among them"},
			{Code: 5, Text: "the stored findings are damaged"},
			{Code: 8, Text: "another process holds the state"},
		},
		Files: []string{stateFile},
		Run:   func(ctx context.Context, _ []string) error { return runList(ctx, a, &opts) },
	})
	opts.addFlags(a, cmd)
	return cmd
}

func (o *listOptions) addFlags(a *app.App, cmd *cobra.Command) {
	fs := cmd.Flags()
	formats := []string{string(ui.Text), string(ui.JSON)}
	for _, f := range export.Formats() {
		formats = append(formats, string(f))
	}
	app.Choice(cmd, fs, &o.severity, "severity", "", severityWords(), "at least as severe as `SEVERITY`")
	fs.StringSliceVar(&o.states, "state", nil, "in `STATE`: open, acknowledged, waived, resolved or all; may be repeated (default open,acknowledged)")
	fs.StringSliceVar(&o.sources, "source", nil, "from the sensor `SOURCE`; may be repeated")
	fs.StringSliceVar(&o.rules, "rule", nil, "by the rule `RULE`; may be repeated")
	fs.StringSliceVar(&o.tags, "tag", nil, "tagged `TAG`; may be repeated")
	fs.StringVar(&o.subject, "subject", "", "about `TEXT`: a part of the subject, or with * and ? a pattern for all of it")
	fs.StringVar(&o.since, "since", "", "seen since `WHEN`: a span such as 24h or 7d, or a date")
	app.Choice(cmd, fs, &o.failOn, "fail-on", "", severityWords(), "status 1 when an open finding is at least as severe as `SEVERITY`")
	app.Choice(cmd, fs, (*string)(&a.Streams.Format), "output", string(ui.Text), formats, "print findings as `FORMAT`")
	app.CompleteValues(cmd, "state", "all", "open", "acknowledged", "waived", "resolved")
	a.CompleteFlag(cmd, "source", completeStored(a, func(r *finding.Record) []string { return []string{r.Source} }))
	a.CompleteFlag(cmd, "rule", completeStored(a, func(r *finding.Record) []string { return []string{r.Rule} }))
	a.CompleteFlag(cmd, "tag", completeStored(a, func(r *finding.Record) []string { return r.Tags }))
	app.CompleteValues(cmd, "since", "1h\tthe last hour", "24h\tthe last day", "7d\tthe last week", "30d\tthe last month")
}

// filter returns what List is asked for, and the states that are shown of it.
func (o *listOptions) filter(now time.Time, quiet bool) (f finding.Filter, states []finding.State, err error) {
	f = finding.Filter{Sources: o.sources, Rules: o.rules, Tags: o.tags, Subject: o.subject}
	if o.severity != "" {
		if f.MinSeverity, err = finding.ParseSeverity(o.severity); err != nil {
			return f, nil, err
		}
	}
	if o.since != "" {
		if f.Since, err = parseSince(o.since, now); err != nil {
			return f, nil, err
		}
	}
	for _, word := range o.states {
		if strings.EqualFold(word, "all") {
			return f, finding.States(), nil
		}
		s, err := finding.ParseState(word)
		if err != nil {
			return f, nil, err
		}
		states = append(states, s)
	}
	switch {
	case len(states) > 0:
	case quiet:
		states = []finding.State{finding.Open}
	default:
		states = []finding.State{finding.Open, finding.Acknowledged}
	}
	return f, states, nil
}

// listReport is the document of finding list --output json.
type listReport struct {
	Schema    string            `json:"schema"`
	Generated time.Time         `json:"generated"`
	Summary   map[string]int    `json:"summary"`   // findings listed, by severity
	NotShown  map[string]int    `json:"not_shown"` // findings that only --state kept out, by state
	Findings  []*finding.Record `json:"findings"`
}

func runList(ctx context.Context, a *app.App, o *listOptions) error {
	now := time.Now().Round(0)
	filter, states, err := o.filter(now, a.Streams.Quiet)
	if err != nil {
		return err
	}
	list, err := all(ctx, a, filter, now)
	if err != nil {
		return err
	}
	report := &listReport{Schema: "mobileops.finding.list/v1", Generated: now.UTC(), Summary: map[string]int{}, NotShown: map[string]int{}, Findings: []*finding.Record{}}
	for _, s := range finding.Severities() {
		report.Summary[s.String()] = 0
	}
	for _, r := range list {
		if slices.Contains(states, r.State) {
			report.Summary[r.Severity.String()]++
			report.Findings = append(report.Findings, r)
		} else {
			report.NotShown[r.State.String()]++
		}
	}
	if err := printList(a, report, now); err != nil {
		return err
	}
	return o.verdict(report.Findings)
}

// verdict is the status that --fail-on asks for.
func (o *listOptions) verdict(list []*finding.Record) error {
	if o.failOn == "" {
		return nil
	}
	limit, err := finding.ParseSeverity(o.failOn)
	if err != nil {
		return err
	}
	if slices.ContainsFunc(list, func(r *finding.Record) bool { return r.State == finding.Open && r.Severity >= limit }) {
		return failure.Silent(failure.No)
	}
	return nil
}

func printList(a *app.App, report *listReport, now time.Time) error {
	switch a.Streams.Format {
	case ui.Text:
		return printTable(a, report, now)
	case ui.JSON:
		return a.Streams.Document(report)
	}
	host, err := os.Hostname()
	if err != nil {
		host = "localhost"
	}
	meta := export.Meta{Version: buildinfo.Get().Version, Host: host, Started: now}
	return export.Write(a.Streams.Out, export.Format(a.Streams.Format), meta, slices.Values(report.Findings))
}

func printTable(a *app.App, report *listReport, now time.Time) error {
	theme := a.Streams.Theme()
	table := a.Streams.NewTable(
		ui.Column{Title: "ID"}, ui.Column{Title: "SEVERITY"}, ui.Column{Title: "STATE", Drop: 3}, ui.Column{Title: "AGE", Drop: 2},
		ui.Column{Title: "SOURCE", Drop: 4}, ui.Column{Title: "SUBJECT", Min: 16, KeepEnd: true}, ui.Column{Title: "TITLE", Min: 20, Drop: 1})
	for _, r := range report.Findings {
		table.Row(
			r.ID(),
			ui.Cell{Text: r.Severity.String(), Style: func(s string) string { return theme.Severity(int(r.Severity), s) }},
			r.State.String(), strings.TrimSuffix(ui.Ago(r.FirstSeen, now), " ago"), r.Source, r.Subject, r.Title)
	}
	if err := table.Print(); err != nil || a.Streams.Quiet {
		return err
	}
	var parts []string
	for _, word := range severityWords() {
		if n := report.Summary[word]; n > 0 {
			parts = append(parts, ui.Count(int64(n))+" "+word)
		}
	}
	line := "no findings"
	if len(parts) > 0 {
		line = ui.Plural(int64(len(report.Findings)), "finding", "findings") + ": " + strings.Join(parts, ", ")
	}
	var hidden []string
	for _, s := range finding.States() {
		if n := report.NotShown[s.String()]; n > 0 {
			hidden = append(hidden, ui.Count(int64(n))+" "+s.String())
		}
	}
	if len(hidden) > 0 {
		line += "; not shown: " + strings.Join(hidden, ", ") + " (see them: --state all)"
	}
	_, err := fmt.Fprintln(a.Streams.Err, line)
	return err
}
