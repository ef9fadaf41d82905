package update

import (
	"context"
	"errors"
	"fmt"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/mobileops/mobileops/internal/update/store"
	"github.com/spf13/cobra"
)

func newDiff(a *app.App) *cobra.Command {
	return a.Command(app.Spec{
		Use:   "diff [A] [B]",
		Short: "Show which files differ between two generations",
		Long: `Show which files differ between two generations, as they were when they were made.
Without arguments it is what the current generation changed; with one, what
changed from that one to the current. What was edited since is not in it: see
mobileops update verify.`,
		Example: `
mobileops update diff
mobileops update diff 3 7
mobileops update diff 3 7 --output jsonl | jq -r 'select(.kind == "removed") | .path'
mobileops update diff 6 && echo "nothing to restart"  # runbook: did the update change any file?
`,
		Args: cobra.MaximumNArgs(2),
		Statuses: []app.Status{
			{Code: 0, Text: "they do not differ"},
			{Code: 1, Text: "they differ; or there is no such generation"},
			{Code: 4, Text: "you may not read the store"},
			{Code: 5, Text: "what describes one of them is damaged"},
			{Code: 7, Text: "no update was applied here yet, or there is only one generation"},
		},
		Files:    []string{storeFiles},
		Complete: completeUpTo(a, 2),
		Run:      func(_ context.Context, args []string) error { return runDiff(a, args) },
	})
}

// comparison is the document of update diff.
type comparison struct {
	Schema string `json:"schema"`
	Target string `json:"target"`
	Old    int    `json:"old"`
	New    int    `json:"new"`
	differences
}

// differences are files that differ, and how many of each kind there are.
type differences struct {
	Added       int64              `json:"added"`
	Removed     int64              `json:"removed"`
	Changed     int64              `json:"changed"` // content, permissions, owner or type
	Differences []comparisonRecord `json:"differences"`
}

// add takes a difference in.
func (l *differences) add(d store.Difference) {
	l.Differences = append(l.Differences, comparisonRecord{d, lossless(d.Path)})
	switch d.Kind {
	case store.Added:
		l.Added++
	case store.Removed:
		l.Removed++
	default:
		l.Changed++
	}
}

// comparisonRecord is a difference between two generations.
type comparisonRecord struct {
	store.Difference
	PathB64 []byte `json:"path_b64,omitempty"` // when the path is not valid UTF-8
}

func runDiff(a *app.App, args []string) error {
	var numbers [2]int
	for i, arg := range args {
		var err error
		if numbers[i], err = numberArg(arg); err != nil {
			return err
		}
	}
	v, err := openShelf(a, "update diff")
	if v == nil {
		return err
	}
	old, now, err := v.pair(numbers)
	if err != nil {
		return err
	}
	list, err := v.store.Diff(old, now)
	if err != nil {
		return noGeneration(err)
	}
	doc := &comparison{Schema: "mobileops.update.diff/v1", Target: v.store.Target(), Old: old, New: now, differences: differences{Differences: []comparisonRecord{}}}
	for _, d := range list {
		d.Generation = 0
		doc.add(d)
	}
	if err := printComparison(a, doc); err != nil {
		return err
	}
	if len(list) > 0 {
		return failure.Silent(failure.No)
	}
	return nil
}

// pair returns which two generations are compared.
func (v *shelf) pair(numbers [2]int) (old, now int, err error) {
	g, err := v.find(numbers[1])
	if err != nil {
		return 0, 0, err
	}
	if numbers[0] > 0 {
		b, err := v.find(numbers[0])
		if err != nil {
			return 0, 0, err
		}
		return b.Number, g.Number, nil
	}
	b, err := v.store.Previous(g)
	if errors.Is(err, store.ErrMissing) {
		return 0, 0, failure.Hint(failure.Errorf(failure.NotReady, "there is nothing before generation %d to compare it with", g.Number), "see which there are: mobileops update list")
	} else if err != nil {
		return 0, 0, err
	}
	return b.Number, g.Number, nil
}

func printComparison(a *app.App, doc *comparison) error {
	switch a.Streams.Format {
	case ui.JSON:
		return a.Streams.Document(doc)
	case ui.JSONL:
		return printLines(a.Streams, doc.Differences)
	}
	if a.Streams.Quiet && len(doc.Differences) == 0 {
		return nil
	}
	table := a.Streams.NewTable(ui.Column{Title: "CHANGE"}, ui.Column{Title: "PATH", Min: 20, KeepEnd: true}, ui.Column{Title: "WHAT", Min: 12, Drop: 1})
	for _, d := range doc.Differences {
		table.Row(d.Kind, d.Path, d.What)
	}
	if err := table.Print(); err != nil {
		return err
	}
	verdict := "No differences"
	if table.Len() > 0 {
		if _, err := fmt.Fprintln(a.Streams.Out); err != nil {
			return err
		}
		verdict = fmt.Sprintf("%s changed, %s added, %s removed", ui.Count(doc.Changed), ui.Count(doc.Added), ui.Count(doc.Removed))
	}
	return say(a.Streams, "%s from generation %d to %d.", verdict, doc.Old, doc.New)
}
