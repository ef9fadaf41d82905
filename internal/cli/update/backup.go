package update

import (
	"context"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/mobileops/mobileops/internal/update/store"
	"github.com/spf13/cobra"
)

func newBackup(a *app.App) *cobra.Command {
	var reason string
	cmd := a.Command(app.Spec{
		Use:   "backup [--reason TEXT]",
		Short: "Keep the installation as it is now, to be gone back to",
		Long: `Keep the installation as it is now, to be gone back to: with edited configuration,
changed files and files of no package. It is a generation that is pinned, so prune
leaves it; what did not change is linked, not copied. Directories of data are no
part of generations, and of no backup.

An update needs no backup before it: the generation that was current stays.`,
		Example: `
mobileops update backup --reason "before tuning the database"
mobileops update list-backups
mobileops update backup --reason CHG-42 --quiet && vi /opt/mobileops/etc/app.conf  # runbook: edit, and be able to undo it
`,
		Statuses: []app.Status{
			{Code: 0, Text: "it is kept"},
			{Code: 3, Text: "it failed: no space, a disk; nothing was changed"},
			{Code: 4, Text: "not allowed: this is not root"},
			{Code: 5, Text: "files of the current generation are damaged, and so is their content in the store"},
			{Code: 7, Text: "there is no installation"},
			{Code: 8, Text: "another update is running, or another process holds the state"},
		},
		Files:   []string{targetFile, storeFiles, stateFile},
		Audited: true,
		Run:     func(ctx context.Context, _ []string) error { return runBackup(ctx, a, reason) },
	})
	cmd.Flags().StringVar(&reason, "reason", "", "`TEXT` that says what it is for")
	app.CompleteValues(cmd, "reason")
	return cmd
}

func runBackup(ctx context.Context, a *app.App, reason string) error {
	if err := checkReason(reason); err != nil {
		return err
	}
	e, _, err := newEngine(a, "update backup")
	if err != nil {
		return err
	}
	g, err := e.Backup(ctx, reason, newNotice(a, "update backup"))
	if g == nil {
		return err
	}
	a.SetResult("generation %d keeps generation %d as it was", g.Number, g.Base)
	v, g, lerr := lookAgain(a, g.Number)
	if lerr != nil {
		return lerr
	}
	if perr := printChanged(a, v, g, "backup"); perr != nil {
		return perr
	}
	return err
}

// lookAgain reads a generation that was just changed.
func lookAgain(a *app.App, number int) (*shelf, *store.Generation, error) {
	v, err := openShelf(a, "update show")
	if v == nil {
		return nil, nil, err
	}
	g, err := v.find(number)
	return v, g, err
}

// printChanged says what became of a generation.
func printChanged(a *app.App, v *shelf, g *store.Generation, verb string) error {
	s := a.Streams
	if s.Format != ui.Text {
		return s.Document(newGenerationDocument(v, g, verb))
	}
	if s.Quiet {
		return nil
	}
	switch verb {
	case "backup":
		return say(s, "generation %d keeps the installation as it is (%s, %s; new are %s); go back to it: %s", g.Number,
			ui.Plural(int64(g.Stats.Files), "file", "files"), ui.Bytes(g.Stats.Bytes), ui.Bytes(g.Stats.NewBytes), v.goBack(g))
	case "pin":
		return say(s, "generation %d (%s) is kept until: mobileops update unpin %d", g.Number, ui.Escape(content(g)), g.Number)
	}
	return say(s, "generation %d (%s) is no longer pinned: prune may remove it", g.Number, ui.Escape(content(g)))
}
