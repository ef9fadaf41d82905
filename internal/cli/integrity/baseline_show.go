package integrity

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/mobileops/mobileops/internal/cli/app"
	engine "github.com/mobileops/mobileops/internal/integrity"
	"github.com/mobileops/mobileops/internal/integrity/policy"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/spf13/cobra"
)

func newBaselineShow(a *app.App) *cobra.Command {
	return a.Command(app.Spec{
		Use:   "show [NAME[@ID]]",
		Short: "Show what a baseline covers and prove that it is whole",
		Long: `Show what a baseline covers and prove that it is whole: its file is read, and
its Merkle root is compared with the one in the catalogue.`,
		Example: `
mobileops integrity baseline show
mobileops integrity baseline show default@3f2a81c0
mobileops integrity baseline show --output json | jq -r '.baselines[0].root'  # to keep elsewhere
`,
		Args: cobra.MaximumNArgs(1),
		Statuses: []app.Status{
			{Code: 5, Text: "the baseline or the state is damaged, or the baseline is not the one in the catalogue"},
			{Code: 7, Text: "there is no such baseline"},
		},
		Files:    []string{baselineFile, stateFile},
		Run:      func(ctx context.Context, args []string) error { return runBaselineShow(ctx, a, reference(args)) },
		Complete: func(ctx context.Context, args []string, _ string) []string { return completeReference(ctx, a, args) },
	})
}

// reference is the baseline that the arguments name.
func reference(args []string) string {
	if len(args) == 0 {
		return engine.DefaultName
	}
	return args[0]
}

func completeReference(ctx context.Context, a *app.App, args []string) []string {
	if len(args) > 0 {
		return nil
	}
	return completeNames(ctx, a, true)
}

func runBaselineShow(ctx context.Context, a *app.App, ref string) error {
	e, _, err := newEngine(a)
	if err != nil {
		return err
	}
	b, err := e.Find(ctx, ref)
	if err != nil {
		return err
	}
	r, err := e.Open(b)
	if err != nil {
		return err
	}
	defer r.Close()
	s, err := e.FactsOf(b)
	if err != nil {
		return err
	}
	if a.Streams.Format != ui.Text {
		return a.Streams.Document(listReport{"mobileops.integrity.baseline.show/v1", []engine.Entry{b}})
	}
	p, err := policy.Parse(b.PolicyName, r.Policy)
	if err != nil {
		return err
	}
	use := "former"
	if b.Current {
		use = "current"
	}
	taken := fmt.Sprintf("%s by uid %d on %s with %s", stamp(b.Finished), b.UID, b.Host, b.Tool)
	if b.Imported {
		taken += ", imported"
	}
	rows := [][2]string{
		{"Baseline", b.Name + "@" + b.ID + ", " + use},
		{"Taken", taken},
		{"Tree", b.Tree},
		{"Paths", strings.Join(p.Paths, " ")},
		{"Policy", b.PolicyName + ", digest " + b.PolicyDigest.String()},
		{"Entries", ui.Count(b.Entries) + ", of these " + ui.Plural(b.Files, "file", "files") + " with " + ui.Bytes(b.Bytes) + " of content"},
		{"Not read", fmt.Sprintf("%s unreadable, %s unstable", ui.Count(b.Unreadable), ui.Count(b.Unstable))},
		{"Size", fmt.Sprintf("%s on disk, %.1f bytes an entry", ui.Bytes(b.FileBytes), float64(b.FileBytes)/float64(max(b.Entries, 1)))},
		{"Root", b.Root.String() + " (verified)"},
	}
	if s != nil {
		rows = append(rows, [2]string{"Host", fmt.Sprintf("%s: %s (verified)", strings.Join(s.Aspects, ", "), ui.Plural(int64(len(s.Facts)), "fact", "facts"))})
	}
	theme := a.Streams.Theme()
	for _, row := range rows {
		if _, err := fmt.Fprintf(a.Streams.Out, "%s %s\n", theme.Heading(fmt.Sprintf("%-9s", row[0])), ui.Escape(row[1])); err != nil {
			return err
		}
	}
	return nil
}

// stamp shows a time to a person: that of this host, as in the audit record and
// in findings, and its zone, since logs of several hosts are read side by side.
func stamp(t time.Time) string { return t.Local().Format("2006-01-02 15:04:05 MST") }
