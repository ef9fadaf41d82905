package vulndb

import (
	"context"
	"fmt"
	"time"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/scan/vulndb"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/spf13/cobra"
)

func newList(a *app.App) *cobra.Command {
	return a.Command(app.Spec{
		Use:   "list",
		Short: "List the generations of the databases, the newest first",
		Long:  `List the generations of the vulnerability database and of the Java database, the newest first: which one is current, when it was built and taken in, by whom and from where.`,
		Example: `
mobileops vulndb list
mobileops vulndb list --output json | jq '.generations[] | select(.current)'
mobileops vulndb list && mobileops vulndb rollback --to 5   # runbook: see first what there is
`,
		Statuses: []app.Status{{Code: 0, Text: "they were listed, also when there are none"}},
		Files:    []string{stateFile},
		Run:      func(ctx context.Context, _ []string) error { return runList(ctx, a) },
	})
}

// listDocument is what list prints with --output json.
type listDocument struct {
	Schema      string    `json:"schema"`
	Generations []*record `json:"generations"`
}

func runList(ctx context.Context, a *app.App) error {
	s, _, _, err := openStore(a)
	if err != nil {
		return err
	}
	now := time.Now()
	doc := listDocument{Schema: "mobileops.vulndb.list/v1", Generations: []*record{}}
	for _, k := range []vulndb.Kind{vulndb.Vulnerabilities, vulndb.Java} {
		list, err := s.List(ctx, k)
		if err != nil {
			return err
		}
		for _, g := range list {
			doc.Generations = append(doc.Generations, recordOf(g, now))
		}
	}
	switch a.Streams.Format {
	case ui.JSON:
		return a.Streams.Document(doc)
	case ui.JSONL:
		out := a.Streams.Lines()
		for _, r := range doc.Generations {
			if err := out.Print(r); err != nil {
				return err
			}
		}
		return out.Flush()
	}
	if len(doc.Generations) == 0 {
		if !a.Streams.Quiet {
			a.Streams.Notice("no databases (get one: mobileops vulndb import FILE, or mobileops vulndb pull)")
		}
		return nil
	}
	if a.Streams.Quiet {
		return nil
	}
	table := a.Streams.NewTable(
		ui.Column{Title: "N", Right: true}, ui.Column{Title: "KIND"}, ui.Column{Title: "STATE", Min: 7}, ui.Column{Title: "BUILT"}, ui.Column{Title: "ADVISORIES", Right: true, Drop: 2},
		ui.Column{Title: "SIZE", Right: true, Drop: 3}, ui.Column{Title: "TAKEN IN", Drop: 4}, ui.Column{Title: "BY", Drop: 5}, ui.Column{Title: "FROM", Min: 10, Drop: 1})
	for _, r := range doc.Generations {
		current, advisories := "", ""
		if r.Current {
			current = "current"
		}
		if r.Kind == vulndb.Vulnerabilities {
			advisories = ui.Count(int64(r.Advisories))
		}
		table.Row(fmt.Sprint(r.Number), string(r.Kind), current, r.UpdatedAt.Format("2006-01-02 15:04"), advisories, ui.Bytes(r.Size), ui.Ago(r.Imported, now), r.By, r.Origin)
	}
	return table.Print()
}
