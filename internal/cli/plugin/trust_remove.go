package plugin

import (
	"context"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/spf13/cobra"
)

func newTrustRemove(a *app.App) *cobra.Command {
	return a.Command(app.Spec{
		Use:   "remove ID",
		Short: "Trust a key no longer",
		Long: `Trust a key no longer. What it signed is refused from then on: plugins of it that are
installed are not started any more, and which those are is said. A service that runs
goes on until it is stopped.`,
		Example: `
mobileops plugin trust remove 22DD4E7D42C83D2E
mobileops plugin trust add new.pub && mobileops plugin trust remove 22DD4E7D42C83D2E   # a key is replaced
mobileops plugin trust remove 22DD4E7D42C83D2E --quiet || test $? = 1                  # runbook: it was stolen; on every host
`,
		Args: cobra.ExactArgs(1),
		Statuses: []app.Status{
			{Code: 0, Text: "the key is not trusted any more"},
			{Code: 1, Text: "no key of that id was trusted"},
		},
		Files:    []string{keyFiles, stateFile},
		Audited:  true,
		Complete: trustedIDs(a),
		Run:      func(ctx context.Context, args []string) error { return runTrustRemove(ctx, a, args[0]) },
	})
}

func runTrustRemove(ctx context.Context, a *app.App, id string) error {
	if err := a.Govern("plugin.keys"); err != nil {
		return err
	}
	keys, err := openKeys(a)
	if err != nil {
		return err
	}
	key, err := keys.Remove(id)
	if err != nil {
		return reword(err)
	}
	a.SetResult("the key %s is trusted no longer", key.ID())
	remaining := len(keys.List())
	doc := trustedKeys{Schema: "mobileops.plugin.trust.remove/v1", Directory: keys.Dir(), Keys: []trustedKey{newTrustedKey(key)}, Remaining: &remaining}
	// Who takes a key back wants to know at once what stands on it.
	if e, _, err := newEngine(a, nil); err == nil {
		if list, err := e.List(ctx); err == nil {
			for _, r := range list {
				if !r.Bundled && r.KeyID == key.ID() {
					doc.Stopped = append(doc.Stopped, r.Name)
				}
			}
		}
	}
	if len(doc.Stopped) > 0 { // also under --quiet: it needs attention
		defer a.Streams.Notice("mobileops: not started any more, for it signed them: %s (install them signed by another key, or remove them: mobileops plugin uninstall NAME)", listed(doc.Stopped))
	}
	if a.Streams.Format != ui.Text {
		return a.Streams.Document(doc)
	}
	return say(a.Streams, "key %s is trusted no longer", key.ID())
}
