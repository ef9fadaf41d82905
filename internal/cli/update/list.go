package update

import (
	"context"
	"fmt"
	"slices"
	"strconv"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/mobileops/mobileops/internal/update"
	"github.com/spf13/cobra"
)

func newList(a *app.App) *cobra.Command {
	return a.Command(app.Spec{
		Use:   "list",
		Short: "List the generations of the installation, the newest first",
		Long: `List the generations of the installation, the newest first: which one is current,
on trial, staged, or failed its trial, what package made it, when, by whom and with which change,
and what it brought. NEW counts the files whose content was not there before.`,
		Example: `
mobileops update list
mobileops update list --output json | jq '.generations[] | select(.current)'
mobileops update list --output jsonl | jq -r 'select(.stats.conflicts > 0) | .number'
mobileops update list && mobileops rollback --to 5  # runbook: see first what there is
`,
		Statuses: []app.Status{
			{Code: 0, Text: "the generations were listed"},
			{Code: 4, Text: "you may not read the store"},
			{Code: 5, Text: "the store is damaged or of another installation; generations that cannot be read are listed as damaged"},
			{Code: 7, Text: "no update was applied here yet"},
		},
		Files: []string{targetFile, storeFiles},
		Run:   func(context.Context, []string) error { return runList(a) },
	})
}

// generationList is the document of update list and list-backups.
type generationList struct {
	Schema      string             `json:"schema"`
	Target      string             `json:"target"`
	Store       string             `json:"store"`
	Current     int                `json:"current"`         // 0: none
	Trial       *update.Pending    `json:"trial,omitempty"` // that is under way
	Generations []generationRecord `json:"generations"`     // newest first
}

func runList(a *app.App) error {
	v, err := openShelf(a, "update list")
	if v == nil {
		return err
	}
	if err != nil { // the trial cannot be read, and all else can
		a.Streams.Notice("mobileops: update list: %s", ui.Escape(err.Error()))
	}
	doc := newGenerationList(v, "list")
	for _, g := range slices.Backward(v.list) {
		doc.Generations = append(doc.Generations, v.record(g))
	}
	if perr := printList(a, v, doc); perr != nil {
		return perr
	}
	if err != nil {
		return silenced(err)
	}
	return v.damaged()
}

func newGenerationList(v *shelf, verb string) *generationList {
	return &generationList{
		Schema: "mobileops.update." + verb + "/v1", Target: v.store.Target(), Store: v.store.Dir(),
		Current: v.current, Trial: v.trial, Generations: []generationRecord{},
	}
}

// printGenerations prints the document, and says whether there is no text left
// to print.
func printGenerations(a *app.App, doc *generationList) (bool, error) {
	switch a.Streams.Format {
	case ui.JSON:
		return true, a.Streams.Document(doc)
	case ui.JSONL:
		return true, printLines(a.Streams, doc.Generations)
	}
	return false, nil
}

func printList(a *app.App, v *shelf, doc *generationList) error {
	if done, err := printGenerations(a, doc); done || err != nil {
		return err
	}
	table := a.Streams.NewTable(
		ui.Column{Title: "N", Right: true}, ui.Column{Title: "STATE", Min: 8}, ui.Column{Title: "PACKAGE", Min: 10},
		ui.Column{Title: "SEQUENCE", Right: true, Drop: 5}, ui.Column{Title: "MADE", Drop: 2}, ui.Column{Title: "BY", Min: 6, Drop: 4},
		ui.Column{Title: "CHANGE", Drop: 3}, ui.Column{Title: "NEW", Right: true, Drop: 7}, ui.Column{Title: "NEW SIZE", Right: true, Drop: 6},
		ui.Column{Title: "REMARKS", Min: 10, Drop: 1})
	for _, g := range slices.Backward(v.list) {
		if a.Streams.Quiet && g.Damaged == "" { // needs no attention
			continue
		}
		sequence, files, size := "", "", ""
		if g.Origin != nil {
			sequence = strconv.FormatUint(g.Origin.Sequence, 10)
		}
		if g.Damaged == "" {
			files, size = ui.Count(int64(g.Stats.NewFiles)), ui.Bytes(g.Stats.NewBytes)
		}
		table.Row(fmt.Sprint(g.Number), v.standingCell(a, g), content(g), sequence, minute(g.Created), g.By, g.Change, files, size, remarks(g))
	}
	if err := table.Print(); err != nil {
		return err
	}
	return sayTrial(a, v)
}

// sayTrial tells that a generation is on trial, also with --quiet.
func sayTrial(a *app.App, v *shelf) error {
	if v.trial == nil {
		return nil
	}
	back := "there was none before it"
	if v.trial.From > 0 {
		back = fmt.Sprintf("without success the host goes back to %d", v.trial.From)
	}
	return say(a.Streams, "%s: generation %d, since %s until %s at most; %s.", a.Streams.Theme().Warn("On trial"),
		v.trial.To, stamp(v.trial.Since), stamp(v.trial.Deadline), back)
}
