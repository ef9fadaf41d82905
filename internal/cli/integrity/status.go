package integrity

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/finding"
	engine "github.com/mobileops/mobileops/internal/integrity"
	"github.com/mobileops/mobileops/internal/integrity/schedule"
	"github.com/mobileops/mobileops/internal/state"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/spf13/cobra"
)

func newStatus(a *app.App) *cobra.Command {
	var name string
	cmd := a.Command(app.Spec{
		Use:   "status [--name NAME]",
		Short: "Say when each baseline was last checked, and what is open",
		Long: `Say when each baseline was last checked and its files last really read, what
is open about it, when it is checked next, and whether a schedule was missed.

It reads what mobileops remembers and no file of the host, so it is quick; it
verifies nothing. What is open or missed gives status 1. With --quiet it prints
only that.`,
		Example: `
mobileops integrity status
mobileops integrity status --output json | jq '.baselines[] | {name, attention}'
0 8 * * 1-5 root mobileops integrity status --quiet   # cron: mails what is open or was missed
`,
		Statuses: []app.Status{
			{Code: 0, Text: "all is well"},
			{Code: 1, Text: "a finding is open, the last check was incomplete, or a schedule was missed or cannot run"},
			{Code: 7, Text: "there is no baseline, or none of that name"},
		},
		Files: []string{stateFile, unitFiles, cronFile},
		Run:   func(ctx context.Context, _ []string) error { return runStatus(ctx, a, name) },
	})
	cmd.Flags().StringVar(&name, "name", "", "only of the baseline `NAME` (default: all)")
	a.CompleteFlag(cmd, "name", func(ctx context.Context, _ []string, _ string) []string { return completeNames(ctx, a, false) })
	return cmd
}

// statusReport is the document of integrity status.
type statusReport struct {
	Schema    string          `json:"schema"`
	At        time.Time       `json:"at"`
	Well      bool            `json:"well"`
	Baselines []statusEntry   `json:"baselines"`
	Strays    []scheduleEntry `json:"strays"` // schedules about baselines that there are none of
	Attention []string        `json:"attention"`
}

type statusEntry struct {
	Name         string           `json:"name"`
	ID           string           `json:"id"`
	Taken        time.Time        `json:"taken"`
	By           string           `json:"by"`
	Host         string           `json:"host"`
	Tree         string           `json:"tree"`
	Entries      int64            `json:"entries"`
	Former       int              `json:"former"`
	Recorded     bool             `json:"recorded"` // the history knows it
	Signed       bool             `json:"signed"`   // a signature covers the record; whether it is right, verify says
	LastCheck    *statusRun       `json:"last_check"`
	LastVerify   *statusRun       `json:"last_verify"`
	OldestRead   time.Time        `json:"oldest_read"`
	Open         map[string]int   `json:"open"` // findings, by severity
	Acknowledged int              `json:"acknowledged"`
	Schedules    []statusSchedule `json:"schedules"`
	Watch        *state.Holder    `json:"watch"`   // who watches; null: nobody
	Running      *state.Holder    `json:"running"` // who takes, checks or verifies it now
	Attention    []string         `json:"attention"`
}

type statusRun struct {
	At         time.Time `json:"at"`
	Report     string    `json:"report"`
	BaselineID string    `json:"baseline_id"`
	ElapsedMS  int64     `json:"elapsed_ms"`
	Status     int       `json:"status"` // exit status, with every change counted
	Changes    int64     `json:"changes"`
	NotRead    int64     `json:"not_read"`
}

type statusSchedule struct {
	scheduleEntry
	Missed *missedRun `json:"missed"`
}

type missedRun struct {
	Due  time.Time  `json:"due"`
	Last *time.Time `json:"last"`
}

func newStatusReport(s *engine.Status) *statusReport {
	doc := &statusReport{
		Schema: "mobileops.integrity.status/v1", At: s.At.UTC(), Baselines: []statusEntry{}, Strays: []scheduleEntry{}, Attention: []string{},
	}
	for i := range s.Baselines {
		b := &s.Baselines[i]
		e := statusEntry{
			Name: b.Entry.Name, ID: b.Entry.ID, Taken: b.Entry.Finished, By: takenBy(b), Host: b.Entry.Host, Tree: b.Entry.Tree,
			Entries: b.Entry.Entries, Former: b.Former, Recorded: b.Record != nil, Signed: b.Signed,
			LastCheck: newStatusRun(b.Check), LastVerify: newStatusRun(b.Verify), OldestRead: b.OldestRead,
			Open: map[string]int{}, Acknowledged: b.Acknowledged, Schedules: []statusSchedule{}, Watch: b.Watch, Running: b.Running,
			Attention: attention(b),
		}
		for _, sev := range finding.Severities() {
			e.Open[sev.String()] = b.Open[sev]
		}
		for n := range b.Schedules {
			e.Schedules = append(e.Schedules, newStatusSchedule(&b.Schedules[n]))
		}
		doc.Attention = append(doc.Attention, prefixed(b.Entry.Name, e.Attention)...)
		doc.Baselines = append(doc.Baselines, e)
	}
	for n := range s.Strays {
		st := &s.Strays[n]
		doc.Strays = append(doc.Strays, newScheduleEntry(&st.Schedule, st.Files, st.Last))
		doc.Attention = append(doc.Attention, fmt.Sprintf("schedule %s runs for nothing: there is no baseline %q", st.Name, st.Baseline))
	}
	if open := openText(s.Other); open != "" {
		doc.Attention = append(doc.Attention, open+" open about no baseline (mobileops finding list --source integrity)")
	}
	doc.Well = len(doc.Attention) == 0
	return doc
}

func newStatusRun(r *engine.ReportEntry) *statusRun {
	if r == nil {
		return nil
	}
	s := &r.Summary
	return &statusRun{r.Last, r.ID, r.BaselineID, r.Elapsed.Milliseconds(), r.Status, s.Differences() + int64(r.Drift), s.Unreadable + s.Unstable}
}

func newStatusSchedule(s *engine.ScheduleStatus) statusSchedule {
	out := statusSchedule{scheduleEntry: newScheduleEntry(&s.Schedule, s.Files, s.Last)}
	if s.Missed != nil {
		out.Missed = &missedRun{Due: s.Missed.Due}
		if !s.Missed.Last.IsZero() {
			out.Missed.Last = &s.Missed.Last
		}
	}
	return out
}

// prefixed names the baseline that lines are about.
func prefixed(name string, lines []string) []string {
	out := make([]string, len(lines))
	for i, l := range lines {
		out[i] = "baseline " + name + ": " + l
	}
	return out
}

// takenBy names who took or accepted a baseline.
func takenBy(b *engine.BaselineStatus) string {
	if b.Record == nil {
		return fmt.Sprintf("uid %d", b.Entry.UID)
	}
	who := b.Record.Actor.User
	if who == "" {
		who = fmt.Sprintf("uid %d", b.Record.Actor.UID)
	}
	if login := b.Record.Actor.LoginUID; login >= 0 && login != int64(b.Record.Actor.UID) {
		who += fmt.Sprintf(" (login uid %d)", login)
	}
	if b.Record.Actor.Remote != "" {
		who += " from " + b.Record.Actor.Remote
	}
	return who
}

// attention is what is not well about a baseline, in words.
func attention(b *engine.BaselineStatus) []string {
	lines := []string{}
	if open := openText(b.Open); open != "" {
		lines = append(lines, open+" open")
	}
	if last := b.Last(); last != nil && last.Summary.Unreadable+last.Summary.Unstable > 0 {
		lines = append(lines, fmt.Sprintf("the last %s was incomplete: %s not read", last.Mode(), ui.Plural(last.Summary.Unreadable+last.Summary.Unstable, "entry", "entries")))
	}
	if last := b.Last(); last != nil && last.Status == failure.Untrustworthy.Status() {
		lines = append(lines, "the last "+last.Mode()+" found that the baseline itself cannot be trusted (mobileops integrity verify)")
	}
	for i := range b.Schedules {
		s := &b.Schedules[i]
		if s.Missed != nil {
			last := "it has not run since it was made " + ui.Ago(s.Installed, time.Now())
			if !s.Missed.Last.IsZero() {
				last = "it last ran " + ui.Ago(s.Missed.Last, time.Now())
			}
			lines = append(lines, fmt.Sprintf("schedule %s (%s) was missed: %s, and was due %s", s.Name, s.Timing, last, stamp(s.Missed.Due)))
		}
		if (&scheduleNow{Schedule: s.Schedule, states: s.Files}).worst() == schedule.Missing {
			lines = append(lines, fmt.Sprintf("schedule %s cannot run: a file of it is gone (mobileops integrity schedule show %s)", s.Name, s.Name))
		}
	}
	return lines
}

// openText counts open findings by severity, the worst first: "2 high, 1 low".
func openText(open map[finding.Severity]int) string {
	var parts []string
	list := finding.Severities()
	for i := len(list) - 1; i >= 0; i-- {
		if n := open[list[i]]; n > 0 {
			parts = append(parts, ui.Count(int64(n))+" "+list[i].String())
		}
	}
	return strings.Join(parts, ", ")
}

func runStatus(ctx context.Context, a *app.App, name string) error {
	e, _, err := newEngine(a)
	if err != nil {
		return err
	}
	s, err := e.Status(ctx, name, time.Now())
	if err != nil {
		return err
	}
	doc := newStatusReport(s)
	if a.Streams.Format != ui.Text {
		err = a.Streams.Document(doc)
	} else {
		err = printStatus(a, s, doc)
	}
	if err != nil || doc.Well {
		return err
	}
	return failure.Silent(failure.No)
}

func printStatus(a *app.App, s *engine.Status, doc *statusReport) error {
	theme := a.Streams.Theme()
	var b strings.Builder
	if !a.Streams.Quiet {
		for i := range s.Baselines {
			for _, row := range statusRows(&s.Baselines[i], s.At) {
				writeRow(&b, a, row[0], row[1])
			}
			b.WriteByte('\n')
		}
	}
	for _, line := range doc.Attention {
		writeFolded(&b, a, theme.Bad("!"), 2, line)
	}
	if doc.Well && !a.Streams.Quiet {
		fmt.Fprintf(&b, "%s\n", theme.Good("All is well."))
	}
	_, err := fmt.Fprint(a.Streams.Out, b.String())
	return err
}

// labelWidth is the column of the labels of rows.
const labelWidth = 12

// writeRow writes a label and a text, folded to the terminal.
func writeRow(b *strings.Builder, a *app.App, label, text string) {
	writeFolded(b, a, a.Streams.Theme().Heading(fmt.Sprintf("%-*s", labelWidth-1, label)), labelWidth, text)
}

// writeFolded writes a text behind a head and a blank, which together take some
// columns, folded to the terminal.
func writeFolded(b *strings.Builder, a *app.App, head string, columns int, text string) {
	text = ui.Escape(text)
	if a.Streams.OutTTY && a.Streams.Width > 0 {
		text = strings.TrimLeft(strings.TrimRight(ui.Fold(text, a.Streams.Width, strings.Repeat(" ", columns)), "\n"), " ")
	}
	b.WriteString(head + " " + text + "\n")
}

// statusRows is what is known of a baseline, a label and a text each.
func statusRows(b *engine.BaselineStatus, now time.Time) [][2]string {
	c := &b.Entry
	signed := "signed"
	switch {
	case b.Record == nil:
		signed = "not in the history"
	case !b.Signed:
		signed = "not signed"
	}
	taken := fmt.Sprintf("%s, %s, by %s, %s", stamp(c.Finished), ui.Ago(c.Finished, now), takenBy(b), signed)
	if b.Record != nil && b.Record.Reason != "" {
		taken += ": " + b.Record.Reason
	}
	open := openText(b.Open)
	if open == "" {
		open = "none"
	}
	if b.Acknowledged > 0 {
		open += fmt.Sprintf("; %s acknowledged", ui.Count(int64(b.Acknowledged)))
	}
	watch := "nobody"
	if b.Watch != nil {
		watch = b.Watch.String()
	}
	covers := c.Aspects
	if c.Entries > 0 {
		covers = append([]string{ui.Plural(c.Entries, "entry", "entries")}, covers...)
	}
	rows := [][2]string{
		{"Baseline", fmt.Sprintf("%s@%s of %s on %s, %s", c.Name, c.ID[:8], c.Tree, c.Host, strings.Join(covers, ", "))},
		{"Taken", taken},
		{"Last check", runText(b.Check, c, now)},
		{"Last verify", runText(b.Verify, c, now)},
	}
	if c.Entries > 0 {
		rows = append(rows, [2]string{"Really read", "every file since " + stamp(b.OldestRead) + ", " + ui.Ago(b.OldestRead, now)})
	}
	rows = append(rows, [2]string{"Findings", open})
	if len(b.Schedules) == 0 {
		rows = append(rows, [2]string{"Schedule", "none (make one: mobileops integrity schedule --daily 03:00)"})
	}
	for i := range b.Schedules {
		s := &b.Schedules[i]
		rows = append(rows, [2]string{"Schedule", fmt.Sprintf("%s %s by %s, next %s", s.Mode(), s.Timing, s.Via, nextText(&s.Schedule, now))})
	}
	rows = append(rows, [2]string{"Watched by", watch})
	if b.Running != nil {
		rows = append(rows, [2]string{"Now", b.Running.String()})
	}
	return rows
}

// runText says in words what a run found.
func runText(r *engine.ReportEntry, c *engine.Entry, now time.Time) string {
	if r == nil {
		return "never"
	}
	text := fmt.Sprintf("%s, %s, in %s: %s", stamp(r.Last), ui.Ago(r.Last, now), ui.Duration(r.Elapsed), foundText(r))
	if r.BaselineID != c.ID {
		text += " (against the former baseline " + r.BaselineID[:8] + ")"
	}
	return text
}
