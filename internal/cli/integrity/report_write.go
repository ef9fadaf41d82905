package integrity

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"time"

	"github.com/mobileops/mobileops/internal/buildinfo"
	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/durable"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/finding/export"
	engine "github.com/mobileops/mobileops/internal/integrity"
	"github.com/mobileops/mobileops/internal/integrity/history"
	"github.com/mobileops/mobileops/internal/integrity/htmlreport"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/spf13/cobra"
)

const (
	formatHTML = "html"
	reportFile = "integrity/NAME.ID.report in the state directory: the stored reports"
)

type reportOptions struct {
	name, report string
	format       string
	out          string
	force        bool
}

func newReport(a *app.App) *cobra.Command {
	var opts reportOptions
	cmd := a.Command(app.Spec{
		Use:   "report [--report ID] [--format FORMAT] [--out FILE] [flags]",
		Short: "Write what a check found as a page, or for another tool",
		Long: `Write what a check or verify found as a page, or for another tool.

Every check and verify is remembered; the last 20 of a name with every change.
This writes one of them, by default the latest, and looks at no file of the
host. With --format html it is one file that stands alone: a verdict in words,
the development over the last reports, changes by whose they are, evidence, and
whether the baseline itself can be trusted. It asks for nothing over the network
and has no script. sarif, junit, cef, csv and jsonl have one finding for each
change and each entry that could not be read; text and json are what the check
itself printed.`,
		Example: `
mobileops integrity report
mobileops integrity report --format html --out /srv/www/integrity.html --force
mobileops integrity report --report 3f2a --format sarif > integrity.sarif
0 6 * * 1 root mobileops integrity report --format html --out /srv/reports/integrity.html --force --quiet  # cron: a page each Monday
`,
		Statuses: []app.Status{
			{Code: 0, Text: "the report was written, whatever is in it"},
			{Code: 3, Text: "FILE could not be written; it is as it was"},
			{Code: 5, Text: "the stored report is damaged, or the state is"},
			{Code: 7, Text: "there is no such report, or its changes are no longer kept"},
			{Code: 8, Text: "FILE exists; --force replaces it"},
		},
		Files: []string{reportFile, stateFile, "FILE: the report, readable by its owner alone"},
		Run:   func(ctx context.Context, _ []string) error { return runReport(ctx, a, &opts) },
	})
	opts.addFlags(a, cmd)
	cmd.AddCommand(newReportList(a))
	return cmd
}

func (o *reportOptions) addFlags(a *app.App, cmd *cobra.Command) {
	nameFlag(a, cmd, &o.name, "a report about the baseline `NAME`")
	fs := cmd.Flags()
	fs.StringVar(&o.report, "report", engine.Latest, "the report whose id begins with `ID`, or latest")
	formats := []string{string(ui.Text), string(ui.JSON), formatHTML}
	for _, f := range export.Formats() {
		formats = append(formats, string(f))
	}
	app.Choice(cmd, fs, &o.format, "format", "", formats, "write it as `FORMAT` (default: as --output says)")
	fs.StringVar(&o.out, "out", "", "write it to `FILE` instead of standard output")
	fs.BoolVar(&o.force, "force", false, "replace FILE if it exists")
	app.CompleteFiles(cmd, "out")
	a.CompleteFlag(cmd, "report", func(ctx context.Context, _ []string, _ string) []string { return completeReports(ctx, a, o.name) })
}

func runReport(ctx context.Context, a *app.App, o *reportOptions) error {
	format := o.format
	if format == "" {
		format = string(a.Streams.Format)
	}
	if format == formatHTML && o.out == "" && a.Streams.OutTTY {
		return failure.Hint(app.UsageError("a page is nothing to read in a terminal"), "write it to a file: --out FILE")
	}
	if o.out != "" && !o.force {
		if _, err := os.Lstat(o.out); err == nil {
			return exists(o.out)
		}
	}
	e, _, err := newEngine(a)
	if err != nil {
		return err
	}
	r, entry, err := e.LoadReport(ctx, o.name, o.report)
	if err != nil {
		return err
	}
	write := func(w io.Writer) error {
		switch format {
		case formatHTML:
			return writePage(ctx, w, e, r, entry)
		case string(ui.Text), string(ui.JSON):
			return printAs(a, w, ui.Format(format), r)
		}
		meta := export.Meta{Version: buildinfo.Get().Version, Host: hostName(), Started: r.Started}
		return export.Write(w, export.Format(format), meta, r.Records())
	}
	if o.out == "" {
		return write(a.Streams.Out)
	}
	size, err := writeFile(o.out, o.force, write)
	if err != nil {
		return err
	}
	if !a.Streams.Quiet {
		a.Streams.Notice("wrote %s, %s", o.out, ui.Bytes(size))
	}
	return nil
}

func exists(path string) error {
	return failure.Hint(failure.Errorf(failure.Busy, "%s exists", path), "replace it: --force")
}

// writeFile makes a file appear whole, for its owner alone: a report tells an
// intruder what was noticed.
func writeFile(path string, replace bool, write func(io.Writer) error) (size int64, err error) {
	f, err := durable.Create(path, 0o600)
	if err != nil {
		return 0, failure.Wrap(failure.Failed, err)
	}
	defer f.Abort()
	if err := write(f); err != nil {
		return 0, err
	}
	if size, err = f.Seek(0, io.SeekCurrent); err != nil {
		return 0, err
	}
	if replace {
		return size, f.Commit()
	}
	err = f.CommitNew()
	if errors.Is(err, fs.ErrExist) {
		err = exists(path)
	}
	return size, err
}

// printAs prints a report as the check did, to another place.
func printAs(a *app.App, w io.Writer, format ui.Format, r *engine.Report) error {
	own := app.New(&ui.Streams{Out: w, Err: a.Streams.Err, Format: format, Quiet: a.Streams.Quiet}, a.Getenv)
	if w == a.Streams.Out {
		own.Streams.OutTTY, own.Streams.Width, own.Streams.Color = a.Streams.OutTTY, a.Streams.Width, a.Streams.Color
	}
	return printReport(own, r)
}

func hostName() string {
	name, err := os.Hostname()
	if err != nil {
		return "localhost"
	}
	return name
}

// writePage writes the report as HTML.
func writePage(ctx context.Context, w io.Writer, e *engine.Engine, r *engine.Report, entry engine.ReportEntry) error {
	past, err := e.Reports(ctx, entry.Baseline)
	if err != nil {
		return err
	}
	// The chart ends with the report that the page is about.
	if at := slices.IndexFunc(past, func(o engine.ReportEntry) bool { return o.ID == entry.ID }); at > 0 {
		past = past[at:]
	}
	p := &htmlreport.Page{Report: r, Entry: entry, Past: past, Host: hostName(), Tool: e.Tool, Now: time.Now()}
	if r.Trust == nil {
		// What is on this host is looked at; anchors are left to the checks, which
		// also bring them up to date.
		here := *e
		here.Anchors = nil
		if p.Trust, err = here.Trust(ctx); err != nil {
			if ctx.Err() != nil {
				return err
			}
			p.Trust = &engine.Trust{Problems: []history.Problem{{What: "the history could not be looked at: " + err.Error()}}}
		}
	}
	var page bytes.Buffer
	if err := htmlreport.Write(&page, p); err != nil {
		return fmt.Errorf("write the page: %w", err)
	}
	_, err = page.WriteTo(w)
	return err
}
