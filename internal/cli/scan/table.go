package scan

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/scan/ledger"
	"github.com/mobileops/mobileops/internal/scan/protocol"
	"github.com/mobileops/mobileops/internal/ui"
)

// printText prints a report for a person: tables by class, the most urgent first,
// and what came of it in the last lines, which a terminal shows.
func (v *view) printText(a *app.App, limit int) error {
	limit = rowLimit(a, limit)
	if !a.Streams.Quiet {
		if err := v.printHead(a); err != nil {
			return err
		}
	}
	left, shown := limit, v.shown
	if a.Streams.Quiet { // what somebody decided about needs nobody's attention
		shown = v.open()
	}
	for _, c := range ledger.Classes() {
		rows := ofClass(shown, c)
		if len(rows) == 0 {
			continue
		}
		more := 0
		if limit > 0 && len(rows) > left {
			rows, more = rows[:left], len(rows)-left
		}
		left -= len(rows)
		if err := v.printClass(a, c, rows, more); err != nil {
			return err
		}
	}
	printProblems(a, v.Scanned.Problems)
	if a.Streams.Quiet {
		if v.Stale { // the status says so as well, but a mail needs words
			a.Streams.Notice("%s", v.outdated())
		}
		return nil
	}
	return v.printFoot(a)
}

func ofClass(list []ledger.Deadline, c ledger.Class) (out []ledger.Deadline) {
	for i := range list {
		if list[i].Class == c {
			out = append(out, list[i])
		}
	}
	return out
}

func (v *view) printHead(a *app.App) error {
	theme, r := a.Streams.Theme(), v.Scanned
	parts := []string{}
	if r.OS != nil {
		parts = append(parts, strings.TrimSpace(r.OS.Family+" "+r.OS.Name))
	}
	if n := packages(r); n > 0 {
		parts = append(parts, ui.Plural(int64(n), "package", "packages"))
	}
	if r.Stats.Files > 0 {
		parts = append(parts, ui.Plural(r.Stats.Files, "file", "files"))
	}
	if v.Database != nil {
		parts = append(parts, "database of "+ui.Ago(v.Database.UpdatedAt, v.now))
	}
	parts = append(parts, ui.Duration(v.Took))
	_, err := fmt.Fprintf(a.Streams.Out, "%s  %s\n\n", theme.Heading(ui.Printable(v.Asset.ID)), ui.Escape(strings.Join(parts, ", ")))
	return err
}

// printClass prints the items of one class.
func (v *view) printClass(a *app.App, c ledger.Class, rows []ledger.Deadline, more int) error {
	if len(rows) > 0 {
		table := newTable(a, c)
		for i := range rows {
			row(a, table, &rows[i], v.newsNote(&rows[i].Item))
		}
		if err := table.Print(); err != nil {
			return err
		}
	}
	if more > 0 {
		_, many := words(c)
		if _, err := fmt.Fprintf(a.Streams.Out, "… and %s more %s (all: --limit 0)\n", ui.Count(int64(more)), many); err != nil {
			return err
		}
	}
	if a.Streams.Quiet {
		return nil
	}
	_, err := fmt.Fprintln(a.Streams.Out)
	return err
}

// newTable is the table of items of one class.
func newTable(a *app.App, c ledger.Class) *ui.Table {
	severity, note := ui.Column{Title: "SEVERITY"}, ui.Column{Title: "NOTE", Min: 16, Drop: 1}
	switch c {
	case ledger.Vulnerability:
		return a.Streams.NewTable(severity, ui.Column{Title: "ID"}, ui.Column{Title: "PACKAGE", Min: 12}, ui.Column{Title: "INSTALLED", Min: 8, Drop: 3},
			ui.Column{Title: "FIXED IN", Min: 8}, ui.Column{Title: "DUE", Drop: 2}, note)
	case ledger.Secret:
		return a.Streams.NewTable(severity, ui.Column{Title: "RULE", Min: 10}, ui.Column{Title: "WHERE", Min: 16, KeepEnd: true}, note)
	case ledger.Misconfiguration:
		return a.Streams.NewTable(severity, ui.Column{Title: "CHECK"}, ui.Column{Title: "WHERE", Min: 16, KeepEnd: true}, note)
	}
	return a.Streams.NewTable(severity, ui.Column{Title: "LICENCE", Min: 10}, ui.Column{Title: "PACKAGE", Min: 12}, note)
}

// severityCell styles the severity of an item.
func severityCell(a *app.App, s ledger.Severity) ui.Cell {
	theme := a.Streams.Theme()
	return ui.Cell{Text: strings.ToLower(string(s)), Style: func(t string) string { return theme.Severity(int(s.Finding()), t) }}
}

// row adds an item to the table of its class.
func row(a *app.App, table *ui.Table, i *ledger.Deadline, news string) {
	severity, text := severityCell(a, i.Severity), note(&i.Item, news)
	switch i.Class {
	case ledger.Vulnerability:
		table.Row(severity, i.ID, i.Package, strings.Join(i.Installed, ", "), fixed(&i.Item), due(a, i), text)
	case ledger.Secret, ledger.Misconfiguration:
		table.Row(severity, i.ID, where(&i.Item), text)
	default:
		subject := i.Package
		if subject == "" {
			subject = where(&i.Item)
		}
		table.Row(severity, i.ID, subject, text)
	}
}

// fixed says in which versions a vulnerability is mended, or why in none.
func fixed(i *ledger.Item) string {
	switch {
	case len(i.Fixed) > 0:
		return strings.Join(i.Fixed, ", ")
	case i.Status == "" || i.Status == "affected":
		return "-"
	}
	return "- (" + strings.ReplaceAll(i.Status, "_", " ") + ")"
}

// due says until when something must be mended.
func due(a *app.App, i *ledger.Deadline) ui.Cell {
	text := i.Due.Local().Format(time.DateOnly)
	switch i.DueState {
	case ledger.Overdue:
		return ui.Cell{Text: text + "!", Style: a.Streams.Theme().Bad}
	case ledger.DueSoon:
		return ui.Cell{Text: text, Style: a.Streams.Theme().Warn}
	case ledger.Due:
		return ui.Cell{Text: text}
	}
	return ui.Cell{Text: "-"}
}

// where is the place of an item in the target.
func where(i *ledger.Item) string {
	if len(i.Paths) == 0 {
		return i.Subject
	}
	at := i.Paths[0]
	if i.StartLine > 0 {
		at += ":" + strconv.Itoa(i.StartLine)
	}
	if n := len(i.Paths) - 1 + i.MorePaths; n > 0 {
		at += fmt.Sprintf(" (+%d)", n)
	}
	return at
}

// newsNote is the news of an item that a table tells: where all is new, nothing is.
func (v *view) newsNote(i *ledger.Item) string {
	if v.Changes == nil || v.Changes.Previous.IsZero() || i.State != ledger.Open {
		return ""
	}
	return v.news(i)
}

// note says first what makes an item special, then what it is.
func note(i *ledger.Item, news string) string {
	var parts []string
	switch {
	case i.Waiver != nil && i.State == ledger.Waived:
		parts = append(parts, "waived until "+i.Waiver.Until.Local().Format(time.DateOnly)+" by "+i.Waiver.Owner+": "+i.Waiver.Reason)
	case i.State == ledger.Expected:
		parts = append(parts, "expected: "+i.Expected)
	case i.VEX != nil && i.State != ledger.Open:
		parts = append(parts, strings.ReplaceAll(string(i.State), "-", " ")+" according to "+i.VEX.Author)
	case news != "":
		parts = append(parts, news)
	}
	if i.KEV != nil {
		parts = append(parts, "exploited")
	}
	if i.EPSS != nil && i.EPSS.Score >= 0.1 {
		parts = append(parts, fmt.Sprintf("EPSS %.2f", i.EPSS.Score))
	}
	text := i.Title
	if i.Message != "" && i.Class != ledger.Vulnerability {
		text = i.Message
	}
	if text != "" {
		parts = append(parts, text)
	}
	return strings.Join(parts, "; ")
}

// printProblems lists what could not be looked at.
func printProblems(a *app.App, list []protocol.Problem) {
	const most = 20
	for n, p := range list {
		if n == most {
			a.Streams.Notice("… and %s more (all: --output json)", ui.Plural(int64(len(list)-most), "problem", "problems"))
			break
		}
		path := ""
		if p.Path != "" {
			path = ui.Escape(p.Path) + ": "
		}
		a.Streams.Notice("%s: %s%s", p.Kind, path, ui.Printable(p.Detail))
	}
}

// unsearched says which files were not searched for secrets.
func unsearched(s protocol.Skipped) string {
	var parts []string
	if s.Binary > 0 {
		parts = append(parts, ui.Plural(s.Binary, "file", "files")+" without text")
	}
	if s.Pattern > 0 {
		parts = append(parts, ui.Plural(s.Pattern, "file", "files")+" left out by name")
	}
	if len(parts) == 0 {
		return ""
	}
	return "Not searched for secrets: " + strings.Join(parts, ", ") + "."
}

// outdated says what a database that is too old means.
func (v *view) outdated() string {
	return "The vulnerability database is of " + moment(v.Database.UpdatedAt, v.now) + ": what became known since is missing."
}

// printFoot says what came of it.
func (v *view) printFoot(a *app.App) error {
	theme := a.Streams.Theme()
	lines := []string{theme.Heading(strings.ToUpper(v.summary()[:1]) + v.summary()[1:] + ".")}
	if line := v.since(); line != "" {
		lines = append(lines, line)
	}
	if line := v.firstLook(); line != "" {
		lines = append(lines, line)
	}
	if v.hidden > 0 {
		lines = append(lines, ui.Plural(int64(v.hidden), "other is", "others are")+" not shown, as the flags ask.")
	}
	if line := unsearched(v.Scanned.Skipped); line != "" {
		lines = append(lines, line)
	}
	if r := v.Scanned; r.OS != nil && r.OS.EndOfLife {
		lines = append(lines, theme.Bad(ui.Escape(r.OS.Family+" "+r.OS.Name)+" gets no security updates any more: what is not listed is not safe by that."))
	}
	for _, n := range v.Scanned.Notes {
		lines = append(lines, "Note: "+ui.Printable(n)+".")
	}
	if v.Stale {
		lines = append(lines, theme.Warn(v.outdated()))
	}
	if n := len(v.Scanned.Problems); n > 0 {
		lines = append(lines, theme.Warn("Incomplete: "+ui.Plural(int64(n), "thing", "things")+" could not be looked at; there may be more."))
	}
	_, err := fmt.Fprintln(a.Streams.Out, strings.Join(lines, "\n"))
	return err
}
