package docs

import (
	"context"
	"os"
	"strings"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/cli/compat"
	"github.com/mobileops/mobileops/internal/durable"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/spf13/cobra"
)

func newMigration(a *app.App) *cobra.Command {
	return a.Command(app.Spec{
		Use:   "migration FILE",
		Short: "Renew the table of old calls in the guide for those who come from the scripts",
		Long: `Renew the table of old calls in the guide for those who come from the scripts.

What stands between the two comments that mark the table is replaced; the rest of
the file is left as it is.`,
		Example: `
mobileops docs migration docs/migrating-from-scripts.md
`,
		Args:     cobra.ExactArgs(1),
		Statuses: []app.Status{{Code: 3, Text: "the file cannot be read or written, or has no place for the table"}},
		Files:    []string{"FILE: a table in it is renewed"},
		Run:      func(_ context.Context, args []string) error { return runMigration(args[0]) },
		Complete: func(context.Context, []string, string) []string { return app.Files() },
	})
}

// The comments between which the table stands.
const (
	tableBegin = "<!-- calls: begin; written by mobileops docs migration -->\n"
	tableEnd   = "<!-- calls: end -->\n"
)

func runMigration(path string) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	before, rest, ok := strings.Cut(string(data), tableBegin)
	_, after, ended := strings.Cut(rest, tableEnd)
	if !ok || !ended {
		return failure.Errorf(failure.Failed, "%s has no place for the table: %q and %q", path, strings.TrimSpace(tableBegin), strings.TrimSpace(tableEnd))
	}
	text := before + tableBegin + compat.Table() + tableEnd + after
	if text == string(data) {
		return nil
	}
	return durable.WriteFile(path, []byte(text), 0o644)
}
