package update

import (
	"context"
	"fmt"
	"strings"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/cli/signing"
	"github.com/mobileops/mobileops/internal/trust"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/spf13/cobra"
)

type keyAddOptions struct {
	names    []string
	channels []string
}

func newKeyAdd(a *app.App) *cobra.Command {
	var opts keyAddOptions
	cmd := a.Command(app.Spec{
		Use:   "add FILE.pub [--name NAME]... [--channel CHANNEL]...",
		Short: "Trust a key that signs packages",
		Long: `Trust a key that signs packages. What it signs is installed on this host from
then on, so have its id or the key itself from whoever owns it, by another way
than the packages come.

FILE.pub is a public key of minisign or an ed25519 one in PEM; its text, which
begins with RW, will do instead. With --name or --channel the key vouches only
for packages of these names and channels, otherwise for all.`,
		Example: `
mobileops update key add release.pub
mobileops update key add release.pub --quiet || test $? = 8   # runbook: on every host, also where it is trusted
mobileops update key add vendor.pub --name agent --name agent-plugins --channel stable
mobileops update key add RWQkB9LhMpZ7z1ZpWTeH5l6QQsX2bIGZ7rfLJYJKNOM7Fu0Zf3c2rQXu
`,
		Args: cobra.ExactArgs(1),
		Statuses: []app.Status{
			{Code: 0, Text: "the key is trusted"},
			{Code: 5, Text: "FILE is no public key, or others than root can change the trusted keys"},
			{Code: 7, Text: "there is no FILE"},
			{Code: 8, Text: "the key is trusted already"},
		},
		Files:    []string{keysDir},
		Audited:  true,
		Run:      func(_ context.Context, args []string) error { return runKeyAdd(a, &opts, args[0]) },
		Complete: func(context.Context, []string, string) []string { return app.Files() },
	})
	fs := cmd.Flags()
	fs.StringArrayVar(&opts.names, "name", nil, "it vouches only for packages called `NAME`; may be repeated")
	fs.StringArrayVar(&opts.channels, "channel", nil, "it vouches only for packages of `CHANNEL`; may be repeated")
	app.CompleteValues(cmd, "name")
	app.CompleteValues(cmd, "channel", "stable")
	return cmd
}

func runKeyAdd(a *app.App, o *keyAddOptions, from string) error {
	public, err := signing.PublicKey(from)
	if err != nil {
		return err
	}
	keys, err := openKeys(a)
	if err != nil {
		return err
	}
	key, err := keys.Add(public, trust.Scope{Names: o.names, Channels: o.channels})
	if err != nil {
		return err
	}
	a.SetResult("the key %s is trusted for %s", key.ID(), scopeText(key.Scope))
	if a.Streams.Format != ui.Text {
		return a.Streams.Document(trustedKeys{Schema: "mobileops.update.key.add/v1", Directory: keys.Dir(), Keys: []trustedKey{newTrustedKey(key)}})
	}
	if a.Streams.Quiet {
		return nil
	}
	_, err = fmt.Fprintf(a.Streams.Out, "key %s is trusted for %s (undo: mobileops update key remove %s)\n", key.ID(), scopeText(key.Scope), key.ID())
	return err
}

// scopeText says what a key may vouch for.
func scopeText(s trust.Scope) string {
	text := "packages of any name"
	if len(s.Names) > 0 {
		text = strings.Join(s.Names, ", ")
	}
	if len(s.Channels) > 0 {
		text += " in " + strings.Join(s.Channels, ", ")
	}
	return text
}
