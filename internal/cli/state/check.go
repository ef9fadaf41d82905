package state

import (
	"context"
	"fmt"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/state"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/spf13/cobra"
)

func newCheck(a *app.App) *cobra.Command {
	return a.Command(app.Spec{
		Use:   "check",
		Short: "Read all of the state and say whether it is sound",
		Long: `Read all of the state and say whether it is sound.

Every page in use is compared with the checksum that it was written with, and
the structure of the file is walked. Nothing is changed, whatever is found. The
audit chain within the state is proved by mobileops audit verify.`,
		Example: `
mobileops state check
17 3 * * * root mobileops state check --quiet   # from cron: a mail only when something is wrong
`,
		Statuses: statuses(
			app.Status{Code: 0, Text: "it is sound, or there is none yet"},
			app.Status{Code: 5, Text: "it is damaged, foreign, or of a newer mobileops"},
		),
		Files: []string{database, "state.sum beside it: the checksums"},
		Run:   func(ctx context.Context, _ []string) error { return runCheck(ctx, a) },
	})
}

// checkReport is the document of mobileops state check --output json.
type checkReport struct {
	Schema string `json:"schema"`
	Sound  bool   `json:"sound"`
	state.Report
}

func runCheck(ctx context.Context, a *app.App) error {
	store, err := a.State()
	if err != nil {
		return err
	}
	report, verdict := store.Check(ctx)
	if verdict != nil && len(report.Problems) == 0 {
		return verdict // it could not be checked
	}
	if a.Streams.Format != ui.Text {
		err = a.Streams.Document(checkReport{"mobileops.state.check/v1", verdict == nil, report})
	} else {
		err = printCheck(a.Streams, report)
	}
	if err != nil {
		return err
	}
	// The verdict also says, on stderr, what to do about it.
	return verdict
}

func printCheck(s *ui.Streams, r state.Report) error {
	theme := s.Theme()
	if !r.Exists {
		if s.Quiet {
			return nil
		}
		_, err := fmt.Fprintf(s.Out, "there is no %s yet\n", ui.Escape(r.Path))
		return err
	}
	for _, p := range r.Problems {
		if _, err := fmt.Fprintf(s.Out, "%s  %s\n", theme.Bad("problem"), ui.Printable(p)); err != nil {
			return err
		}
	}
	for _, w := range r.Warnings {
		if _, err := fmt.Fprintf(s.Out, "%s  %s\n", theme.Warn("warning"), ui.Printable(w)); err != nil {
			return err
		}
	}
	if s.Quiet || len(r.Problems) > 0 {
		return nil
	}
	proof := "every checksum is right"
	if !r.Sealed {
		proof = "its structure is right"
	}
	if _, err := fmt.Fprintf(s.Out, "%s  %s: %s\n", theme.Good("sound"), ui.Escape(r.Path), proof); err != nil {
		return err
	}
	if _, err := fmt.Fprintf(s.Out, "schema %d, %s, of which %s are free (see mobileops state compact)\n\n", r.Schema, ui.Bytes(r.SizeBytes), ui.Bytes(r.FreeBytes)); err != nil {
		return err
	}
	table := s.NewTable(ui.Column{Title: "BUCKET"}, ui.Column{Title: "ENTRIES", Right: true})
	for _, b := range r.Buckets {
		table.Row(b.Name, ui.Count(int64(b.Keys)))
	}
	return table.Print()
}
