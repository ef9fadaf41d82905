package vulndb

import (
	"context"
	"fmt"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/scan/vulndb"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/spf13/cobra"
)

func newVerify(a *app.App) *cobra.Command {
	return a.Command(app.Spec{
		Use:   "verify",
		Short: "Prove that the databases are what was taken in",
		Long: `Prove that the databases are what was taken in: all of every generation is read and held
against its digest, its structure is walked page by page, and so are KEV and EPSS. Scans
look at that only as far as it costs nothing: when the file looks as it did when it was
proved last.`,
		Example: `
mobileops vulndb verify
0 3 * * 0 root mobileops vulndb verify --quiet   # cron: each Sunday, mails only damage
`,
		Statuses: []app.Status{
			{Code: 0, Text: "all of them are"},
			{Code: 5, Text: "one is damaged, and is named"},
			{Code: 7, Text: "there is no database"},
		},
		Files: []string{storeFiles, stateFile},
		Run:   func(ctx context.Context, _ []string) error { return runVerify(ctx, a) },
	})
}

// verifyDocument is what verify prints with --output json.
type verifyDocument struct {
	Schema string                `json:"schema"`
	Proved []vulndb.Verification `json:"proved"`
}

func runVerify(ctx context.Context, a *app.App) error {
	s, _, progress, err := openStore(a)
	if err != nil {
		return err
	}
	list, err := s.Verify(ctx)
	progress.stop()
	if list == nil {
		list = []vulndb.Verification{}
	}
	switch a.Streams.Format {
	case ui.JSON:
		if perr := a.Streams.Document(verifyDocument{"mobileops.vulndb.verify/v1", list}); perr != nil {
			return perr
		}
		return err
	case ui.JSONL:
		out := a.Streams.Lines()
		for _, v := range list {
			if perr := out.Print(v); perr != nil {
				return perr
			}
		}
		if perr := out.Flush(); perr != nil {
			return perr
		}
		return err
	}
	if ctx.Err() != nil {
		return err
	}
	for _, v := range list {
		if a.Streams.Quiet && v.Problem == "" {
			continue
		}
		name := v.Kind
		if v.Number > 0 {
			name = fmt.Sprintf("%s, generation %d", v.Kind, v.Number)
		}
		if v.Current && v.Number > 0 {
			name += ", current"
		}
		what := "is what was taken in"
		if v.Problem != "" {
			what = a.Streams.Theme().Bad(ui.Escape(v.Problem))
		}
		if _, perr := fmt.Fprintf(a.Streams.Out, "%s: %s\n", name, what); perr != nil {
			return perr
		}
	}
	if err != nil && failure.KindOf(err) == failure.Untrustworthy && len(list) > 0 && a.Streams.Quiet {
		return failure.Silent(failure.Untrustworthy)
	}
	return err
}
