package state

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

func newBackup(a *app.App) *cobra.Command {
	var opts backupOptions
	cmd := a.Command(app.Spec{
		Use:   "backup FILE [--force]",
		Short: "Write a consistent copy of the state",
		Long: `Write a consistent copy of the state.

The copy carries its checksums, so restore can prove it. It holds everything
that mobileops remembers but the files beside state.db, such as baselines, and
the key that signs the audit chain; for these copy the directory. Others can
read the state meanwhile.`,
		Example: `
mobileops state backup /srv/backup/state-1.db
0 2 * * * root mobileops state backup --quiet --force /srv/backup/state.db
`,
		Args: cobra.ExactArgs(1),
		Statuses: statuses(
			app.Status{Code: 3, Text: "the copy could not be written, or FILE exists (see --force); FILE is as it was"},
			app.Status{Code: 5, Text: "the state is damaged, foreign, or of a newer mobileops; nothing was written"},
			app.Status{Code: 7, Text: "there is no state yet"},
		),
		Files:    []string{database, "FILE: the copy, readable by its owner alone"},
		Audited:  true,
		Run:      func(ctx context.Context, args []string) error { return runBackup(ctx, a, opts, args[0]) },
		Complete: func(context.Context, []string, string) []string { return app.Files() },
	})
	opts.addFlags(cmd.Flags())
	return cmd
}

type backupOptions struct{ force bool }

func (o *backupOptions) addFlags(fs *pflag.FlagSet) {
	fs.BoolVar(&o.force, "force", false, "replace FILE if it exists")
}

// backupReport is the document of mobileops state backup --output json.
type backupReport struct {
	Schema    string `json:"schema"`
	File      string `json:"file"`
	SizeBytes int64  `json:"size_bytes"`
}

func runBackup(ctx context.Context, a *app.App, opts backupOptions, file string) error {
	path, err := filepath.Abs(file)
	if err != nil {
		return err
	}
	store, err := a.State()
	if err != nil {
		return err
	}
	if _, err := os.Lstat(store.Path()); os.IsNotExist(err) {
		a.OnlyLooked() // recording the failure would create the state that is missing
	}
	if err := store.Backup(ctx, path, opts.force); err != nil {
		return err
	}
	st, err := os.Stat(path)
	if err != nil {
		return err
	}
	a.SetResult("wrote %s", path)
	if a.Streams.Format != ui.Text {
		return a.Streams.Document(backupReport{"mobileops.state.backup/v1", path, st.Size()})
	}
	if a.Streams.Quiet {
		return nil
	}
	_, err = fmt.Fprintf(a.Streams.Out, "wrote %s, %s\n", ui.Escape(path), ui.Bytes(st.Size()))
	return err
}
