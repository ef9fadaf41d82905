package update

import (
	"context"
	"fmt"
	"slices"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/mobileops/mobileops/internal/update/store"
	"github.com/spf13/cobra"
)

func newListBackups(a *app.App) *cobra.Command {
	return a.Command(app.Spec{
		Use:   "list-backups",
		Short: "List what can be gone back to, and the command that does it",
		Long: `List what can be gone back to, and the command that does it: every generation that
stayed live once and was not pruned, and every backup. NEXT marks the one that
mobileops rollback goes to when no number is given.`,
		Example: `
mobileops update list-backups
mobileops update list-backups --output jsonl | jq -r .go_back
mobileops update list-backups --quiet || mobileops update backup  # runbook: is there anything to go back to?
`,
		Statuses: []app.Status{
			{Code: 0, Text: "there is something to go back to"},
			{Code: 1, Text: "there is nothing"},
			{Code: 4, Text: "you may not read the store"},
			{Code: 5, Text: "the store is damaged or of another installation"},
			{Code: 7, Text: "no update was applied here yet"},
		},
		Files: []string{targetFile, storeFiles},
		Run:   func(ctx context.Context, _ []string) error { return runListBackups(ctx, a) },
	})
}

func runListBackups(ctx context.Context, a *app.App) error {
	v, err := openShelf(a, "update list-backups")
	if err != nil {
		return err
	}
	next, err := v.engine.Before(ctx)
	if err != nil { // a store that is damaged shows below
		next = 0
	}
	doc := newGenerationList(v, "list-backups")
	var list []*store.Generation
	for _, g := range slices.Backward(v.list) {
		if r := v.record(g); r.GoBack != "" {
			doc.Generations = append(doc.Generations, r)
			list = append(list, g)
		}
	}
	done, err := printGenerations(a, doc)
	if err != nil {
		return err
	}
	if !done && !a.Streams.Quiet {
		if err := printBackups(a, v, list, next); err != nil {
			return err
		}
	}
	if len(list) == 0 {
		return failure.Silent(failure.No)
	}
	return nil
}

func printBackups(a *app.App, v *shelf, list []*store.Generation, next int) error {
	if len(list) == 0 {
		a.Streams.Notice("there is nothing to go back to (keep what is there now: mobileops update backup)")
		return nil
	}
	table := a.Streams.NewTable(
		ui.Column{Title: "N", Right: true}, ui.Column{Title: "NEXT", Drop: 4}, ui.Column{Title: "HOLDS", Min: 10, Drop: 3}, ui.Column{Title: "MADE", Drop: 2},
		ui.Column{Title: "REMARKS", Min: 10, Drop: 1}, ui.Column{Title: "GO BACK WITH"})
	for _, g := range list {
		mark := ""
		if g.Number == next {
			mark = "next"
		}
		table.Row(fmt.Sprint(g.Number), mark, content(g), minute(g.Created), remarks(g), v.goBack(g))
	}
	if err := table.Print(); err != nil {
		return err
	}
	return sayTrial(a, v)
}
