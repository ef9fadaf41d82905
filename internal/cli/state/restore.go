package state

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/mobileops/mobileops/internal/audit"
	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

func newRestore(a *app.App) *cobra.Command {
	var opts restoreOptions
	cmd := a.Command(app.Spec{
		Use:   "restore FILE [--yes]",
		Short: "Put a backup in the place of the state",
		Long: `Put a backup in the place of the state.

The backup is copied and checked first; if anything is wrong with it, nothing
is changed. What it replaces, sound or damaged, is kept beside it as
state.db.before-restore-TIME. It works also when the present state is damaged.

The audit chain goes back to where it was at the time of the backup, and audit
verify says so until a new head is signed.`,
		Example: `
mobileops state restore /srv/backup/state.db
mobileops state restore --yes /srv/backup/state.db && mobileops audit head --sign --force
`,
		Args: cobra.ExactArgs(1),
		Statuses: statuses(
			app.Status{Code: 1, Text: "the question was answered with no"},
			app.Status{Code: 3, Text: "it could not be put in place; the state is as it was"},
			app.Status{Code: 5, Text: "the backup is damaged, foreign, or of a newer mobileops; the state is as it was"},
		),
		Files:    []string{database, "state.db.before-restore-TIME beside it: what was replaced", "FILE: the backup"},
		Audited:  true,
		Run:      func(ctx context.Context, args []string) error { return runRestore(ctx, a, opts, args[0]) },
		Complete: func(context.Context, []string, string) []string { return app.Files() },
	})
	opts.addFlags(cmd.Flags())
	return cmd
}

type restoreOptions struct{ yes bool }

func (o *restoreOptions) addFlags(fs *pflag.FlagSet) {
	fs.BoolVarP(&o.yes, "yes", "y", false, "replace the present state without asking")
}

// restoreReport is the document of mobileops state restore --output json.
type restoreReport struct {
	Schema   string `json:"schema"`
	File     string `json:"file"`
	Database string `json:"database"`
	Kept     string `json:"kept,omitempty"` // what was replaced
}

func runRestore(ctx context.Context, a *app.App, opts restoreOptions, file string) error {
	path, err := filepath.Abs(file)
	if err != nil {
		return err
	}
	store, err := a.State()
	if err != nil {
		return err
	}
	_, missing := os.Lstat(store.Path())
	if missing == nil && !opts.yes {
		question := fmt.Sprintf("Replace %s by %s? What it holds now is kept beside it.", ui.Escape(store.Path()), ui.Escape(path))
		ok, err := a.Streams.Confirm(ctx, question, "--yes")
		if err != nil || !ok {
			a.OnlyLooked()
		}
		if err != nil {
			return err
		}
		if !ok {
			a.Streams.Notice("nothing was restored")
			return failure.Silent(failure.No)
		}
	}
	kept, err := store.Restore(ctx, path)
	if err != nil {
		// There may be no state that could record it, and none was changed.
		a.OnlyLooked()
		return err
	}
	a.SetResult("restored %s; what it replaced is %s", path, kept)
	sayWhereTheChainEnds(ctx, a)
	if a.Streams.Format != ui.Text {
		return a.Streams.Document(restoreReport{"mobileops.state.restore/v1", path, store.Path(), kept})
	}
	if a.Streams.Quiet {
		return nil
	}
	if _, err := fmt.Fprintf(a.Streams.Out, "restored %s\n", ui.Escape(store.Path())); err != nil || kept == "" {
		return err
	}
	_, err = fmt.Fprintf(a.Streams.Out, "kept what it replaced as %s\n", ui.Escape(kept))
	return err
}

// sayWhereTheChainEnds warns when the signed head speaks of later acts, which
// would otherwise look like an attack at the next audit verify.
func sayWhereTheChainEnds(ctx context.Context, a *app.App) {
	chain, err := a.Audit()
	if err != nil {
		return
	}
	v, err := chain.Verify(ctx, audit.VerifyOptions{})
	if err != nil && v.Breach != nil && v.Breach.Kind == audit.BadTail {
		a.Streams.Notice("mobileops: state restore: %s; that is this restore: say that it was meant with mobileops audit head --sign --force", v.Breach.What)
	}
}
