package integrity

import (
	"context"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/spf13/cobra"
)

func newKeyRotate(a *app.App) *cobra.Command {
	var reason, ticket string
	var lost bool
	cmd := a.Command(app.Spec{
		Use:   "rotate [flags]",
		Short: "Replace the key on this host that signs the history by a new one",
		Long: `Replace the key on this host that signs the history by a new one. A record that
the former key signs names the new one, and one by the new key follows, so the
chain goes on; the former private key is overwritten.

With --lost the former private key need not be there. Nobody can then sign the
change, and every verification says so from then on: compare with an anchor
before you do that.`,
		Example: `
mobileops integrity key rotate --reason "yearly"
mobileops integrity key rotate --lost --reason "disk restored without keys"
`,
		Statuses: []app.Status{
			{Code: 5, Text: "the former private key is gone (see --lost), or the history cannot be trusted"},
			{Code: 7, Text: "the history is signed elsewhere: make the new key there, and use mobileops integrity key use"},
		},
		Files:   []string{stateFile, historyFile},
		Audited: true,
		Run:     func(ctx context.Context, _ []string) error { return runKeyRotate(ctx, a, lost, reason, ticket) },
	})
	cmd.Flags().BoolVar(&lost, "lost", false, "the former private key is gone and there is no backup of it")
	reasonFlags(cmd, &reason, &ticket)
	return cmd
}

func runKeyRotate(ctx context.Context, a *app.App, lost bool, reason, ticket string) error {
	e, _, err := newEngine(a)
	if err != nil {
		return err
	}
	e.By.Reason, e.By.Ticket = reason, ticket
	if err := e.RotateKey(ctx, lost); err != nil {
		return err
	}
	r, _, err := newKeyReport(ctx, e, "rotate")
	if err != nil {
		return err
	}
	a.SetResult("the key %s is in force", r.ID)
	if err := printKey(a, r); err != nil {
		return err
	}
	return keepAnchors(ctx, a, e)
}
