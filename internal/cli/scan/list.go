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

type listOptions struct {
	states, classes []string
	severity        []string
	pkg, id, since  string
	failOn          string
	limit           int
}

func newList(a *app.App) *cobra.Command {
	var opts listOptions
	cmd := a.Command(app.Spec{
		Use:   "list [ASSET]",
		Short: "List what scans found, without scanning again",
		Long: `List what scans found, without scanning again, the most urgent first.

Without ASSET it lists what was found anywhere.`,
		Example: `
mobileops scan list
mobileops scan list host:edge1 --severity high
mobileops scan list --id CVE-2021-44228 --state all      # runbook: where do we have log4j?
mobileops scan list --state resolved --since 30d         # what was mended
`,
		Args: cobra.MaximumNArgs(1),
		Statuses: []app.Status{
			{Code: 0, Text: "it was listed, however much"},
			{Code: 1, Text: "nothing of that name was ever scanned; with --fail-on: something open is listed that is as bad"},
			{Code: 7, Text: "with --fail-on: nothing was ever scanned; with --fail-on kev: there is no list of what is exploited"},
			governed(),
		},
		Files:    []string{stateFile},
		Run:      func(ctx context.Context, args []string) error { return runList(ctx, a, &opts, args) },
		Complete: completeAssets(a),
	})
	fs := cmd.Flags()
	fs.StringSliceVar(&opts.states, "state", nil, "in `STATE`: open, waived, not-affected, fixed, expected, resolved or all; may be repeated (default: all but resolved)")
	fs.StringSliceVar(&opts.classes, "class", nil, "of `CLASS`: vulnerability, secret, misconfiguration or license; may be repeated")
	fs.StringSliceVar(&opts.severity, "severity", nil, "at least as severe as `SEVERITY`, and unknown ones; a list shows exactly these")
	textFlag(fs, &opts.id, "id", "of one `ID`, such as CVE-2026-1234, or a pattern with *")
	textFlag(fs, &opts.pkg, "package", "in packages whose name matches `PATTERN`")
	textFlag(fs, &opts.since, "since", "first seen, or back again, since `WHEN`: a span such as 7d, or a date")
	limitFlag(fs, &opts.limit)
	app.Choice(cmd, fs, &opts.failOn, "fail-on", "", failWords(), "status 1 when anything open that is listed is at least as severe as `WORD`, or exploited (kev), or overdue")
	a.CompleteFlag(cmd, "state", completeList("all", "open", "waived", "not-affected", "fixed", "expected", "resolved"))
	a.CompleteFlag(cmd, "class", completeList(classWords()...))
	a.CompleteFlag(cmd, "severity", completeList(severityWords()...))
	app.CompleteValues(cmd, "since", "24h\tthe last day", "7d\tthe last week", "30d\tthe last month")
	return cmd
}

// filter is what the flags ask the ledger for.
func (o *listOptions) filter(asset string, now time.Time) (f ledger.Filter, err error) {
	f = ledger.Filter{Asset: asset, ID: o.id, Package: o.pkg, States: present()}
	if len(o.states) > 0 {
		f.States = nil
	}
	for _, w := range o.states {
		if strings.EqualFold(w, "all") {
			f.States = ledger.States()
			continue
		}
		s, ok := oneOf(w, ledger.States())
		if !ok {
			return f, app.UsageError("bad value %q for --state: open, waived, not-affected, fixed, expected, resolved or all", w)
		}
		f.States = append(f.States, s)
	}
	for _, w := range o.classes {
		c, ok := oneOf(w, ledger.Classes())
		if !ok {
			return f, app.UsageError("bad value %q for --class: vulnerability, secret, misconfiguration or license", w)
		}
		f.Classes = append(f.Classes, c)
	}
	words, err := (&targetOptions{severity: o.severity}).severities()
	if err != nil {
		return f, err
	}
	for _, w := range words {
		f.Severities = append(f.Severities, ledger.SeverityOf(w))
	}
	if o.since != "" {
		if f.Since, err = pastFlag("since", o.since, now, false); err != nil {
			return f, err
		}
	}
	return f, nil
}

// oneOf finds a word that somebody typed among those there are.
func oneOf[T ~string](word string, list []T) (T, bool) {
	for _, v := range list {
		if strings.EqualFold(word, string(v)) {
			return v, true
		}
	}
	return "", false
}

func runList(ctx context.Context, a *app.App, o *listOptions, args []string) error {
	now := time.Now()
	asset, err := assetArgument(args)
	if err != nil {
		return err
	}
	f, err := o.filter(asset, now)
	if err != nil {
		return err
	}
	l, store, err := memory(a)
	if err != nil {
		return err
	}
	if o.failOn == "kev" {
		if err := knowsKEV(a); err != nil {
			return err
		}
	}
	var list []ledger.Deadline
	never := false
	if err := store.View(ctx, func(tx *state.Tx) error {
		if asset != "" {
			if _, err := l.Asset(tx, asset); err != nil {
				return err
			}
		} else if assets, err := l.Assets(tx); err != nil {
			return err
		} else if never = len(assets) == 0; never && o.failOn != "" {
			return neverScanned()
		}
		items, err := l.List(tx, f, now)
		list = l.Policy.Deadlines(items, now)
		return err
	}); err != nil {
		return assetError(err, asset)
	}
	if never && a.Streams.Format == ui.Text {
		if !a.Streams.Quiet {
			_, err = fmt.Fprintln(a.Streams.Out, "nothing was ever scanned (begin with: mobileops scan host)")
		}
		return err
	}
	if err := printDeadlines(a, "mobileops.scan.list/v1", list, asset == "", o.limit); err != nil {
		return err
	}
	if o.failOn != "" {
		for i := range list {
			if list[i].State == ledger.Open && fails(&list[i], o.failOn) {
				return failure.Silent(failure.No)
			}
		}
	}
	return nil
}

// itemsDocument is what list and show print as JSON.
type itemsDocument struct {
	Schema string            `json:"schema"`
	Items  []ledger.Deadline `json:"items"`
}

// printDeadlines prints items as the ledger gave them, tables by class.
func printDeadlines(a *app.App, schema string, list []ledger.Deadline, assets bool, limit int) error {
	switch a.Streams.Format {
	case ui.JSON:
		if list == nil {
			list = []ledger.Deadline{}
		}
		return a.Streams.Document(itemsDocument{schema, list})
	case ui.JSONL:
		return printLines(a, list)
	}
	limit = rowLimit(a, limit)
	table := a.Streams.NewTable(ui.Column{Title: "SEVERITY"}, ui.Column{Title: "KEY", Drop: 4}, ui.Column{Title: "ASSET", Min: 10, Drop: 1, KeepEnd: true}, ui.Column{Title: "ID"},
		ui.Column{Title: "WHAT", Min: 12, KeepEnd: true}, ui.Column{Title: "FIXED IN", Min: 8, Drop: 3}, ui.Column{Title: "STATE"}, ui.Column{Title: "DUE"}, ui.Column{Title: "NOTE", Min: 16, Drop: 2})
	for n := range list {
		if limit > 0 && n == limit {
			break
		}
		i := &list[n]
		what, asset := i.Package, ""
		if what == "" {
			what = where(&i.Item)
		}
		if assets {
			asset = i.Asset
		}
		solution := ""
		if i.Class == ledger.Vulnerability {
			solution = fixed(&i.Item)
		}
		table.Row(severityCell(a, i.Severity), i.Key.Short(), asset, i.ID, what, solution, string(i.State), due(a, i), note(&i.Item, ""))
	}
	if err := table.Print(); err != nil || a.Streams.Quiet {
		return err
	}
	line := ui.Plural(int64(len(list)), "item", "items")
	if limit > 0 && len(list) > limit {
		line += fmt.Sprintf(", of which %s shown (all: --limit 0)", ui.Plural(int64(limit), "is", "are"))
	}
	if len(list) == 0 {
		line = "nothing"
	}
	_, err := fmt.Fprintln(a.Streams.Out, line+"; as of the last scans (mobileops scan assets)")
	return err
}
