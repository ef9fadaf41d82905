package update

import (
	"context"
	"fmt"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/mobileops/mobileops/internal/update/store"
	"github.com/spf13/cobra"
)

type pruneOptions struct {
	keep   int
	dryRun bool
}

func newPrune(a *app.App) *cobra.Command {
	var opts pruneOptions
	var cmd *cobra.Command
	cmd = a.Command(app.Spec{
		Use:   "prune [--keep N] [--dry-run]",
		Short: "Remove old generations, and content that no other one has",
		Long: `Remove old generations, and content that no other one has. Never removed are the
current generation, the one that mobileops rollback goes to, and those that are
pinned; of the others the latest are kept, as many as --keep or update.keep says.
Nobody is asked.`,
		Example: `
mobileops update prune --dry-run
mobileops update prune --keep 1
20 4 * * 0 root mobileops update prune --quiet  # cron: mails only when it failed
`,
		Statuses: []app.Status{
			{Code: 0, Text: "old generations were removed, or there were none"},
			{Code: 1, Text: "--dry-run: generations would be removed"},
			{Code: 3, Text: "it failed; generations are whole or gone"},
			{Code: 4, Text: "not allowed: this is not root"},
			{Code: 7, Text: "no update was applied here yet"},
			{Code: 8, Text: "another update is running, or another process holds the state"},
		},
		Files:   []string{storeFiles, stateFile},
		Audited: true,
		Run: func(ctx context.Context, _ []string) error {
			return runPrune(ctx, a, &opts, cmd.Flags().Changed("keep"))
		},
	})
	fs := cmd.Flags()
	fs.IntVar(&opts.keep, "keep", 0, "keep the latest `N` of those that may go (default: update.keep)")
	fs.BoolVar(&opts.dryRun, "dry-run", false, "remove nothing, and show what would go")
	app.CompleteValues(cmd, "keep", "1", "3", "5")
	return cmd
}

// pruning is the document of update prune.
type pruning struct {
	Schema      string `json:"schema"`
	Target      string `json:"target"`
	DryRun      bool   `json:"dry_run"`
	Keep        int    `json:"keep"`
	Generations []int  `json:"generations"` // removed, or to be removed
	Blobs       int    `json:"blobs"`       // files of content that were removed; not known before
	Bytes       int64  `json:"bytes"`       // that they took on the disk
}

func runPrune(ctx context.Context, a *app.App, o *pruneOptions, given bool) error {
	if o.keep < 0 {
		return app.UsageError("--keep %d: write a number of generations, 0 or more", o.keep)
	}
	e, c, err := newEngine(a, "update prune")
	if err != nil {
		return err
	}
	if !given {
		o.keep = c.Update.Keep
	}
	doc := &pruning{Schema: "mobileops.update.prune/v1", Target: e.Store().Target(), DryRun: o.dryRun, Keep: o.keep, Generations: []int{}}
	if o.dryRun {
		a.OnlyLooked()
		list, err := e.Removable(ctx, o.keep)
		if err != nil {
			return howToBegin(err)
		}
		for _, g := range list {
			doc.Generations = append(doc.Generations, g.Number)
		}
		if err := printPruning(a, doc, list); err != nil || len(list) == 0 {
			return err
		}
		return failure.Silent(failure.No)
	}
	p, err := e.Prune(ctx, o.keep, newNotice(a, "update prune"))
	if err != nil && len(p.Generations) == 0 {
		return howToBegin(err)
	}
	doc.Generations, doc.Blobs, doc.Bytes = p.Generations, p.Blobs, p.Bytes
	a.SetResult("generations %s removed, %d bytes freed", numbered(p.Generations), p.Bytes)
	if len(p.Generations) == 0 {
		a.SetResult("nothing was to be removed")
	}
	if perr := printPruning(a, doc, nil); perr != nil {
		return perr
	}
	return err
}

func printPruning(a *app.App, doc *pruning, list []*store.Generation) error {
	if a.Streams.Format != ui.Text {
		return a.Streams.Document(doc)
	}
	if a.Streams.Quiet {
		return nil
	}
	n := int64(len(doc.Generations))
	switch {
	case n == 0:
		return say(a.Streams, "nothing to remove: beside the current generation, the one before it and pinned ones there are no more than %d", doc.Keep)
	case !doc.DryRun:
		return say(a.Streams, "removed %s (%s), %s of content, %s freed", ui.Plural(n, "generation", "generations"), numbered(doc.Generations),
			ui.Plural(int64(doc.Blobs), "file", "files"), ui.Bytes(doc.Bytes))
	}
	table := a.Streams.NewTable(ui.Column{Title: "N", Right: true}, ui.Column{Title: "HOLDS", Min: 10}, ui.Column{Title: "MADE", Drop: 1}, ui.Column{Title: "REMARKS", Min: 10, Drop: 2})
	for _, g := range list {
		table.Row(fmt.Sprint(g.Number), content(g), minute(g.Created), remarks(g))
	}
	if err := table.Print(); err != nil {
		return err
	}
	return say(a.Streams, "%s would be removed (remove them: the same without --dry-run).", ui.Plural(n, "generation", "generations"))
}
