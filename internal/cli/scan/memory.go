package scan

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/scan/ledger"
	"github.com/mobileops/mobileops/internal/state"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/spf13/cobra"
)

// rules are the keys that whoever is asked to mend something must not change by a
// flag or the environment.
var rules = []string{"scan.sla_basis", "scan.sla_critical", "scan.sla_high", "scan.sla_medium", "scan.sla_low", "scan.sla_kev", "scan.waiver_approval"}

// memory is what is remembered of scans, and where.
func memory(a *app.App) (ledger.Ledger, *state.Store, error) {
	if err := a.Govern(rules...); err != nil {
		return ledger.Ledger{}, nil, err
	}
	c, err := a.Config()
	if err != nil {
		return ledger.Ledger{}, nil, err
	}
	store, err := a.State()
	return ledgerOf(c), store, err
}

// governed is the status of commands that go by rules of the configuration file.
func governed() app.Status {
	return app.Status{Code: 4, Text: "the configuration file sets a deadline, and a flag or the environment says otherwise; or the state belongs to another user"}
}

func unknownAsset(name string) error {
	return failure.Hint(failure.Errorf(failure.No, "nothing called %s was ever scanned", ui.Printable(name)), "what was: mobileops scan assets")
}

// neverScanned is the error of what cannot say anything without a scan: no item is
// no good news then.
func neverScanned() error {
	return failure.Hint(failure.New(failure.NotReady, "nothing was ever scanned"), "begin with: mobileops scan host")
}

// assetError says of what was never scanned how to find what was.
func assetError(err error, asset string) error {
	if errors.Is(err, ledger.ErrNoAsset) {
		return unknownAsset(asset)
	}
	return err
}

func newAssets(a *app.App) *cobra.Command {
	return a.Command(app.Spec{
		Use:   "assets",
		Short: "List what was scanned, when, and how it stands",
		Long: `List what was scanned, when, and how it stands.

Hosts, images, trees and repositories are known by these names, also to mobileops
finding.`,
		Example: `
mobileops scan assets
mobileops scan assets --output json | jq -r '.assets[] | select(.counts.open.CRITICAL > 0) | .id'  # runbook: where it burns
`,
		Statuses: []app.Status{{Code: 0, Text: "they were listed, however many"}},
		Files:    []string{stateFile},
		Run:      func(ctx context.Context, _ []string) error { return runAssets(ctx, a) },
	})
}

func runAssets(ctx context.Context, a *app.App) error {
	l, store, err := memory(a)
	if err != nil {
		return err
	}
	list := []ledger.AssetStatus{}
	if err := store.View(ctx, func(tx *state.Tx) error {
		found, err := l.Assets(tx)
		list = append(list, found...)
		return err
	}); err != nil {
		return err
	}
	switch a.Streams.Format {
	case ui.JSON:
		return a.Streams.Document(struct {
			Schema string               `json:"schema"`
			Assets []ledger.AssetStatus `json:"assets"`
		}{"mobileops.scan.assets/v1", list})
	case ui.JSONL:
		return printLines(a, list)
	}
	now := time.Now()
	columns := []ui.Column{{Title: "ASSET", Min: 20, KeepEnd: true}, {Title: "LAST SCAN", Drop: 1}}
	for _, s := range ledger.Severities() {
		columns = append(columns, ui.Column{Title: string(s), Right: true})
	}
	table := a.Streams.NewTable(append(columns, ui.Column{Title: "WAIVED", Right: true, Drop: 2})...)
	theme := a.Streams.Theme()
	for i := range list {
		s := &list[i]
		row := []any{s.ID, ui.Ago(s.Latest, now)}
		for _, severity := range ledger.Severities() {
			cell := ui.Cell{Text: "-", Style: theme.Faint}
			if n := s.Counts.Open[severity]; n > 0 {
				cell = ui.Cell{Text: ui.Count(int64(n)), Style: func(t string) string { return theme.Severity(int(severity.Finding()), t) }}
			}
			row = append(row, cell)
		}
		table.Row(append(row, ui.Count(int64(s.Counts.Waived+s.Counts.Excluded)))...)
	}
	if table.Len() == 0 && !a.Streams.Quiet {
		_, err := fmt.Fprintln(a.Streams.Out, "Nothing was ever scanned (begin with: mobileops scan host).")
		return err
	}
	return table.Print()
}

func newForget(a *app.App) *cobra.Command {
	var yes bool
	cmd := a.Command(app.Spec{
		Use:   "forget ASSET",
		Short: "Forget everything about something that was scanned",
		Long: `Forget everything about something that was scanned, such as a host that is gone.

Its findings are resolved. Waivers and VEX documents stay.`,
		Example: `
mobileops scan forget host:edge7 --yes
mobileops scan assets                 # runbook: their names
`,
		Args:     cobra.ExactArgs(1),
		Statuses: []app.Status{{Code: 0, Text: "it is forgotten"}, {Code: 1, Text: "nothing of that name was ever scanned, or the answer was no"}},
		Files:    []string{stateFile},
		Audited:  true,
		Run: func(ctx context.Context, args []string) error {
			l, store, err := memory(a)
			if err != nil {
				return err
			}
			if err := store.View(ctx, func(tx *state.Tx) error {
				_, err := l.Asset(tx, args[0])
				return err
			}); err != nil {
				return assetError(err, args[0])
			}
			if !yes {
				ok, err := a.Streams.Confirm(ctx, "Forget everything that is known of "+ui.Printable(args[0])+", since when included?", "--yes")
				if err != nil {
					return err
				}
				if !ok {
					return failure.Silent(failure.No)
				}
			}
			if err := store.Update(ctx, func(tx *state.Tx) error { return l.Forget(tx, args[0], time.Now()) }); err != nil {
				return assetError(err, args[0])
			}
			switch {
			case a.Streams.Format != ui.Text:
				return a.Streams.Document(struct {
					Schema string `json:"schema"`
					Asset  string `json:"asset"`
				}{"mobileops.scan.forget/v1", args[0]})
			case a.Streams.Quiet:
				return nil
			}
			_, err = fmt.Fprintf(a.Streams.Out, "%s is forgotten\n", ui.Printable(args[0]))
			return err
		},
		Complete: completeAssets(a),
	})
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return cmd
}
