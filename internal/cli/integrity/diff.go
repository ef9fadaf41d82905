package integrity

import (
	"context"
	"fmt"
	"time"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/failure"
	engine "github.com/mobileops/mobileops/internal/integrity"
	"github.com/mobileops/mobileops/internal/integrity/history"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/spf13/cobra"
)

func newDiff(a *app.App) *cobra.Command {
	return a.Command(app.Spec{
		Use:   "diff BASELINE BASELINE",
		Short: "Show what changed from one baseline to another, without touching the tree",
		Long: `Show what changed from one baseline to another, without touching the tree. A
BASELINE is a NAME, which stands for the current one, NAME@ID, or NAME@N for the
one of record N of the history. What counts as a change is what the policy of
the second one says. Entries that only one of both policies covers are counted
and not listed.`,
		Example: `
mobileops integrity diff default@3f2a81c0 default
mobileops integrity diff default@4 default@9         # by the numbers of mobileops integrity history
mobileops integrity diff golden web1 --output json   # two hosts' baselines, both imported
`,
		Args: cobra.ExactArgs(2),
		Statuses: []app.Status{
			{Code: 0, Text: "they do not differ"},
			{Code: 1, Text: "they differ"},
			{Code: 5, Text: "one of them is damaged"},
			{Code: 6, Text: "one of them could not read something that the other has"},
			{Code: 7, Text: "there is no such baseline, or it is no longer kept"},
		},
		Files: []string{baselineFile, stateFile},
		Run:   func(ctx context.Context, args []string) error { return runDiff(ctx, a, args) },
		Complete: func(ctx context.Context, args []string, _ string) []string {
			if len(args) > 1 {
				return nil
			}
			return append(completeNames(ctx, a, true), completeRecorded(ctx, a)...)
		},
	})
}

// completeRecorded returns NAME@N for the baselines that are kept.
func completeRecorded(ctx context.Context, a *app.App) []string {
	e, _, err := newEngine(a)
	if err != nil {
		return nil
	}
	list, err := e.List(ctx)
	if err != nil {
		return nil
	}
	there := map[string]bool{}
	for _, b := range list {
		there[b.ID] = true
	}
	chain, err := e.History().Chain(ctx)
	if err != nil {
		return nil
	}
	var words []string
	_ = chain.Records(func(e *history.Entry) error {
		if there[e.ID] && e.Kind != history.Removal {
			words = append(words, fmt.Sprintf("%s@%d\t%s, %s", e.Name, e.Counter, whatWas(&e.Record), ui.Ago(e.Time, time.Now())))
		}
		return nil
	})
	return words
}

// diffReport is the document of integrity diff.
type diffReport struct {
	Schema  string          `json:"schema"`
	Old     baselineReport  `json:"old"`
	New     baselineReport  `json:"new"`
	Added   int64           `json:"added"`
	Removed int64           `json:"removed"`
	Changed int64           `json:"changed"`
	Moved   int64           `json:"moved"`
	Beyond  int64           `json:"beyond"` // entries that only one of both policies covers
	Changes []changeReport  `json:"changes"`
	Drift   []driftReport   `json:"drift"` // of what is known beside files
	Errors  []problemReport `json:"errors"`
}

func newBaselineReport(b *engine.Entry) baselineReport {
	return baselineReport{b.Name, b.ID, b.Finished, b.Root.String(), b.PolicyName}
}

func runDiff(ctx context.Context, a *app.App, args []string) error {
	e, _, err := newEngine(a)
	if err != nil {
		return err
	}
	var both [2]engine.Entry
	for i, ref := range args {
		if both[i], err = e.Resolve(ctx, ref); err != nil {
			return err
		}
	}
	d, err := e.Diff(ctx, both[0], both[1])
	if err != nil {
		return err
	}
	if err := printDifference(a, d); err != nil {
		return err
	}
	return failure.Silent(d.Kind())
}

func printDifference(a *app.App, d *engine.Difference) error {
	s := &d.Summary
	switch a.Streams.Format {
	case ui.JSON:
		return a.Streams.Document(diffReport{
			Schema: "mobileops.integrity.diff/v1", Old: newBaselineReport(&d.Old), New: newBaselineReport(&d.New),
			Added: s.Added, Removed: s.Removed, Changed: s.Changed, Moved: s.Moved, Beyond: d.Beyond,
			Changes: changeReports(d.Changes), Drift: some(driftReports(d.Drift)), Errors: problemReports(d.Problems),
		})
	case ui.JSONL:
		lines := a.Streams.Lines()
		for _, c := range changeReports(d.Changes) {
			if err := lines.Print(c); err != nil {
				return err
			}
		}
		for _, c := range driftReports(d.Drift) {
			if err := lines.Print(c); err != nil {
				return err
			}
		}
		return lines.Flush()
	}
	if err := printChanges(a, &engine.Report{Changes: d.Changes}); err != nil {
		return err
	}
	if err := printDrift(a, d.Drift); err != nil {
		return err
	}
	if err := printProblems(a, d.Problems); err != nil {
		return err
	}
	if a.Streams.Quiet && d.Kind() == failure.None {
		return nil
	}
	theme := a.Streams.Theme()
	verdict := theme.Good("No changes")
	if s.Differences() > 0 {
		verdict = theme.Bad(fmt.Sprintf("%s changed, %s added, %s removed, %s moved", ui.Count(s.Changed), ui.Count(s.Added), ui.Count(s.Removed), ui.Count(s.Moved)))
	}
	if n := int64(len(d.Drift)); n > 0 {
		verdict += ", " + theme.Bad(ui.Plural(n, "difference", "differences")+" beside files")
	}
	beyond := ""
	if d.Beyond > 0 {
		beyond = fmt.Sprintf(" %s are covered by one of both policies only.", ui.Plural(d.Beyond, "entry", "entries"))
	}
	_, err := fmt.Fprintf(a.Streams.Out, "%s from %s@%.8s, taken %s, to %s@%.8s, taken %s.%s\n", verdict,
		d.Old.Name, d.Old.ID, stamp(d.Old.Finished), d.New.Name, d.New.ID, stamp(d.New.Finished), beyond)
	return err
}
