package integrity

import (
	"context"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/integrity/history"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/spf13/cobra"
)

func newKeyUse(a *app.App) *cobra.Command {
	var reason, ticket string
	cmd := a.Command(app.Spec{
		Use:   "use FILE.pub [flags]",
		Short: "Have the history signed elsewhere, by the key whose public half is in a file",
		Long: `Have the history signed elsewhere, by the key whose public half is in a file.

From then on nobody on this host, root included, can make a baseline that is
trusted: each new record waits for a signature that is made where the private
key is, see mobileops integrity baseline sign. The change of key is itself a
record, signed by the former key, which is then removed from this host.

With the public half of the present key it is only noted that signing happens
elsewhere: move keys/integrity.key there.`,
		Example: `
minisign -G -p vault.pub -s vault.key               # on the machine that signs
mobileops integrity key use vault.pub --reason "keys live in the vault"
mobileops integrity baseline sign --export-unsigned /media/usb/record.json
`,
		Args: cobra.ExactArgs(1),
		Statuses: []app.Status{
			{Code: 0, Text: "the key is in force; the record about it waits for its signature"},
			{Code: 5, Text: "the file is no public key, or the former private key is gone"},
			{Code: 8, Text: "it is in force already"},
		},
		Files:    []string{stateFile, historyFile},
		Audited:  true,
		Run:      func(ctx context.Context, args []string) error { return runKeyUse(ctx, a, args[0], reason, ticket) },
		Complete: func(context.Context, []string, string) []string { return app.Files() },
	})
	reasonFlags(cmd, &reason, &ticket)
	return cmd
}

func runKeyUse(ctx context.Context, a *app.App, path, reason, ticket string) error {
	e, _, err := newEngine(a)
	if err != nil {
		return err
	}
	pub, err := history.ReadPublicKey(path)
	if err != nil {
		return err
	}
	e.By.Reason, e.By.Ticket = reason, ticket
	if err := e.UseKey(ctx, pub); err != nil {
		return err
	}
	a.SetResult("the key %016X is in force and signs elsewhere", pub.ID())
	r, _, err := newKeyReport(ctx, e, "use")
	if err != nil {
		return err
	}
	if err := printKey(a, r); err != nil {
		return err
	}
	if a.Streams.Format == ui.Text && !a.Streams.Quiet {
		if r.Here {
			private, _ := e.History().KeyFiles()
			a.Streams.Notice("move %s to where you sign; as long as it is here, it signs here", private)
		} else {
			a.Streams.Notice("next: mobileops integrity baseline sign --export-unsigned FILE")
		}
	}
	return keepAnchors(ctx, a, e)
}
