package plugin

import (
	"context"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/cli/signing"
	"github.com/mobileops/mobileops/internal/plugin/source"
	"github.com/mobileops/mobileops/internal/trust"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/spf13/cobra"
)

func newTrustAdd(a *app.App) *cobra.Command {
	var scope []string
	cmd := a.Command(app.Spec{
		Use:   "add FILE.pub [--name NAME]...",
		Short: "Trust a key that signs plugins",
		Long: `Trust a key that signs plugins. What it signs can be installed on this host from
then on, by whoever may install plugins; so have its id or the key itself from whoever
owns it, by another way than the plugins come. Plugins that come with mobileops need no
key.

FILE.pub is a public key of minisign or an ed25519 one in PEM; its text, which begins
with RW, will do instead. With --name the key vouches only for plugins of these names;
` + source.IndexRelease + ` is the name by which it vouches for indexes.`,
		Example: `
mobileops plugin trust add team.pub
mobileops plugin trust add vendor.pub --name forwarder --name ` + source.IndexRelease + `
mobileops plugin trust add team.pub --quiet || test $? = 8   # runbook: on every host, also where it is trusted
`,
		Args: cobra.ExactArgs(1),
		Statuses: []app.Status{
			{Code: 0, Text: "the key is trusted"},
			{Code: 5, Text: "FILE is no public key, or others than root can change the trusted keys"},
			{Code: 7, Text: "there is no FILE"},
			{Code: 8, Text: "the key is trusted already"},
		},
		Files:    []string{keyFiles},
		Audited:  true,
		Complete: func(context.Context, []string, string) []string { return app.Files("pub", "pem") },
		Run:      func(_ context.Context, args []string) error { return runTrustAdd(a, scope, args[0]) },
	})
	cmd.Flags().StringArrayVar(&scope, "name", nil, "it vouches only for the plugin `NAME`; may be repeated")
	a.CompleteFlag(cmd, "name", func(context.Context, []string, string) []string { return []string{source.IndexRelease} })
	return cmd
}

func runTrustAdd(a *app.App, scope []string, from string) error {
	if err := a.Govern("plugin.keys"); err != nil {
		return err
	}
	public, err := signing.PublicKey(from)
	if err != nil {
		return err
	}
	keys, err := openKeys(a)
	if err != nil {
		return err
	}
	key, err := keys.Add(public, trust.Scope{Names: scope})
	if err != nil {
		return reword(err)
	}
	a.SetResult("the key %s is trusted for %s", key.ID(), scopeText(key.Scope))
	if a.Streams.Format != ui.Text {
		return a.Streams.Document(trustedKeys{Schema: "mobileops.plugin.trust.add/v1", Directory: keys.Dir(), Keys: []trustedKey{newTrustedKey(key)}})
	}
	return say(a.Streams, "key %s is trusted for %s (undo: mobileops plugin trust remove %s)", key.ID(), scopeText(key.Scope), key.ID())
}
