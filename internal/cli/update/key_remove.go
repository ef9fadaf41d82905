package update

import (
	"context"
	"fmt"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/spf13/cobra"
)

func newKeyRemove(a *app.App) *cobra.Command {
	return a.Command(app.Spec{
		Use:   "remove ID",
		Short: "Trust a key no longer",
		Long: `Trust a key no longer. What it signed is refused from then on; what is installed
already stays.`,
		Example: `
mobileops update key remove 22DD4E7D42C83D2E
mobileops update key add new.pub && mobileops update key remove 22DD4E7D42C83D2E   # a key is replaced
mobileops update key remove 22DD4E7D42C83D2E --quiet || test $? = 1                # runbook: it was stolen; on every host
`,
		Args: cobra.ExactArgs(1),
		Statuses: []app.Status{
			{Code: 0, Text: "the key is not trusted any more"},
			{Code: 1, Text: "no key of that id was trusted"},
		},
		Files:    []string{keysDir},
		Audited:  true,
		Run:      func(_ context.Context, args []string) error { return runKeyRemove(a, args[0]) },
		Complete: trustedIDs(a),
	})
}

func runKeyRemove(a *app.App, id string) error {
	keys, err := openKeys(a)
	if err != nil {
		return err
	}
	key, err := keys.Remove(id)
	if err != nil {
		return err
	}
	a.SetResult("the key %s is trusted no longer", key.ID())
	remaining := len(keys.List())
	if remaining == 0 { // also under --quiet: it needs attention
		defer a.Streams.Notice("mobileops: no key is trusted any more: every package will be refused (trust one: mobileops update key add FILE.pub)")
	}
	if a.Streams.Format != ui.Text {
		return a.Streams.Document(trustedKeys{Schema: "mobileops.update.key.remove/v1", Directory: keys.Dir(), Keys: []trustedKey{newTrustedKey(key)}, Remaining: &remaining})
	}
	if a.Streams.Quiet {
		return nil
	}
	_, err = fmt.Fprintf(a.Streams.Out, "key %s is trusted no longer\n", key.ID())
	return err
}
