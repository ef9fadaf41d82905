package scan

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/mobileops/mobileops/internal/buildinfo"
	"github.com/mobileops/mobileops/internal/cli/app"
	clichange "github.com/mobileops/mobileops/internal/cli/change"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/scan/ledger"
	"github.com/mobileops/mobileops/internal/state"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/spf13/cobra"
)

func newVEX(a *app.App) *cobra.Command {
	return a.Group("vex", "Believe what makers of products say about vulnerabilities (OpenVEX), and say it to others",
		newVEXImport(a), newVEXList(a), newVEXRemove(a), newVEXExport(a))
}

// documentsDocument is what the verbs of vex print as JSON.
type documentsDocument[T any] struct {
	Schema    string `json:"schema"`
	Documents []T    `json:"documents"`
}

func newVEXImport(a *app.App) *cobra.Command {
	return a.Command(app.Spec{
		Use:   "import FILE...",
		Short: "Believe OpenVEX documents from now on",
		Long: `Believe OpenVEX documents from now on.

What a document says is not affected, or fixed, is still listed, with who says so,
but does not count for --fail-on and deadlines. A document takes the place of one
with the same @id when its version is higher. Import only what you got from
somebody you trust: documents are not signed.`,
		Example: `
mobileops scan vex import vendor.openvex.json
mobileops scan list --state not-affected    # runbook: what is believed
`,
		Args: cobra.MinimumNArgs(1),
		Statuses: []app.Status{
			{Code: 0, Text: "they are believed"},
			{Code: 3, Text: "a file could not be read: none of them is believed"},
			{Code: 5, Text: "a file is no valid OpenVEX document, and none of them is believed; or the state is damaged, or others than root can write root's configuration"},
			{Code: 8, Text: "these versions of all the documents, or newer ones, are believed already; or another process holds the state for longer than --lock-timeout"},
		},
		Files:   []string{stateFile},
		Audited: true,
		Run:     func(ctx context.Context, args []string) error { return runVEXImport(ctx, a, args) },
		Complete: func(context.Context, []string, string) []string {
			return app.Files("json")
		},
	})
}

func runVEXImport(ctx context.Context, a *app.App, paths []string) error {
	l, store, err := memory(a)
	if err != nil {
		return err
	}
	// All of them are read before the first is believed: of several, all or none are.
	texts := make([][]byte, len(paths))
	for i, path := range paths {
		if texts[i], err = readFile(path, maxVEX); err != nil {
			return err
		}
	}
	var list []*ledger.VEXDocument
	var known []error
	if err := store.Update(ctx, func(tx *state.Tx) error {
		list, known = nil, nil
		for i, path := range paths {
			d, err := l.ImportVEX(tx, texts[i], clichange.Who(a), time.Now())
			switch {
			case err == nil:
				list = append(list, d)
			case failure.KindOf(err) == failure.Busy: // this version is believed already
				known = append(known, fmt.Errorf("%s: %w", ui.Escape(path), err))
			default:
				return fmt.Errorf("%s: %w", ui.Escape(path), err)
			}
		}
		return nil
	}); err != nil {
		return err
	}
	if len(list) == 0 {
		return known[0]
	}
	for _, err := range known {
		a.Streams.Notice("mobileops: scan vex import: %v", err)
	}
	if err := settle(ctx, l, store); err != nil {
		return err
	}
	a.SetResult("%s", ui.Plural(int64(len(list)), "document", "documents"))
	if a.Streams.Format != ui.Text {
		return a.Streams.Document(documentsDocument[*ledger.VEXDocument]{"mobileops.scan.vex.import/v1", list})
	}
	if a.Streams.Quiet {
		return nil
	}
	for _, d := range list {
		if _, err := fmt.Fprintf(a.Streams.Out, "%s of %s: %s\n", ui.Escape(d.ID), ui.Escape(d.Author), ui.Plural(int64(d.Statements), "statement", "statements")); err != nil {
			return err
		}
	}
	return nil
}

func newVEXList(a *app.App) *cobra.Command {
	return a.Command(app.Spec{
		Use:   "list",
		Short: "List the OpenVEX documents that are believed",
		Long:  "List the OpenVEX documents that are believed, the latest first.",
		Example: `
mobileops scan vex list
mobileops scan vex list --output json | jq -r '.documents[].id'   # for a script
`,
		Statuses: []app.Status{{Code: 0, Text: "they were listed, however many"}},
		Files:    []string{stateFile},
		Run: func(ctx context.Context, _ []string) error {
			list, err := documents(ctx, a)
			if err != nil {
				return err
			}
			switch a.Streams.Format {
			case ui.JSONL:
				return printLines(a, list)
			case ui.JSON:
				if list == nil {
					list = []ledger.VEXDocument{}
				}
				return a.Streams.Document(documentsDocument[ledger.VEXDocument]{"mobileops.scan.vex.list/v1", list})
			}
			table := a.Streams.NewTable(ui.Column{Title: "DIGEST"}, ui.Column{Title: "AUTHOR", Min: 10}, ui.Column{Title: "STATEMENTS", Right: true, Drop: 1}, ui.Column{Title: "OF"}, ui.Column{Title: "ID", Min: 20, KeepEnd: true})
			for i := range list {
				d := &list[i]
				table.Row(d.Digest[:12], d.Author, d.Statements, d.Timestamp.Local().Format(time.DateOnly), d.ID)
			}
			if table.Len() == 0 && !a.Streams.Quiet {
				_, err := fmt.Fprintln(a.Streams.Out, "No document is believed (one of a vendor: mobileops scan vex import FILE).")
				return err
			}
			return table.Print()
		},
	})
}

func documents(ctx context.Context, a *app.App) (list []ledger.VEXDocument, err error) {
	l, store, err := memory(a)
	if err != nil {
		return nil, err
	}
	err = store.View(ctx, func(tx *state.Tx) error {
		list, err = l.ListVEX(tx)
		return err
	})
	return list, err
}

func newVEXRemove(a *app.App) *cobra.Command {
	return a.Command(app.Spec{
		Use:   "remove DIGEST|ID",
		Short: "Do not believe an OpenVEX document any more",
		Long:  "Do not believe an OpenVEX document any more. What it said was not affected counts again.",
		Example: `
mobileops scan vex remove 4f1c2a9b33aa
mobileops scan vex list              # runbook: which there are
`,
		Args:     cobra.ExactArgs(1),
		Statuses: []app.Status{{Code: 0, Text: "it is not believed any more"}, {Code: 1, Text: "there is no such document"}},
		Files:    []string{stateFile},
		Audited:  true,
		Run: func(ctx context.Context, args []string) error {
			l, store, err := memory(a)
			if err != nil {
				return err
			}
			var d *ledger.VEXDocument
			if err := store.Update(ctx, func(tx *state.Tx) error {
				d, err = l.RemoveVEX(tx, args[0])
				return err
			}); err != nil {
				return err
			}
			if err := settle(ctx, l, store); err != nil {
				return err
			}
			a.SetResult("%s", ui.Escape(d.ID))
			if a.Streams.Format != ui.Text {
				return a.Streams.Document(documentsDocument[*ledger.VEXDocument]{"mobileops.scan.vex.remove/v1", []*ledger.VEXDocument{d}})
			}
			if a.Streams.Quiet {
				return nil
			}
			_, err = fmt.Fprintf(a.Streams.Out, "%s is not believed any more\n", ui.Escape(d.ID))
			return err
		},
		Complete: func(ctx context.Context, args []string, _ string) (words []string) {
			if len(args) > 0 {
				return nil
			}
			list, err := documents(ctx, a)
			if err != nil {
				return nil
			}
			for i := range list {
				words = append(words, list[i].Digest[:12]+"\t"+list[i].ID)
			}
			return words
		},
	})
}

func newVEXExport(a *app.App) *cobra.Command {
	var author string
	cmd := a.Command(app.Spec{
		Use:   "export ASSET --author NAME",
		Short: "Write what is known of an asset as an OpenVEX document",
		Long: `Write what is known of an asset as an OpenVEX document.

Whoever scans the same product elsewhere sees by it what was decided: what is gone
is fixed, what is waived is affected with the reason as the action to take, what is
open is under investigation, and what others said is repeated.`,
		Example: `
mobileops scan vex export image:registry.example.org/portal --author 'portal team' > portal.openvex.json  # runbook: deliver it with the image
`,
		Args:     cobra.ExactArgs(1),
		Statuses: []app.Status{{Code: 0, Text: "the document was written"}, {Code: 1, Text: "nothing of that name was ever scanned"}},
		Files:    []string{stateFile},
		Run: func(ctx context.Context, args []string) error {
			if strings.TrimSpace(author) == "" {
				return app.UsageError("say who says so: --author NAME")
			}
			l, store, err := memory(a)
			if err != nil {
				return err
			}
			var data []byte
			if err := store.View(ctx, func(tx *state.Tx) error {
				data, err = l.ExportVEX(tx, args[0], author, "mobileops "+buildinfo.Get().Version, time.Now())
				return err
			}); err != nil {
				return assetError(err, args[0])
			}
			_, err = a.Streams.Out.Write(append(data, '\n'))
			return err
		},
		Complete: completeAssets(a),
	})
	textFlag(cmd.Flags(), &author, "author", "`NAME` of who says so (required)")
	return cmd
}
