package cli

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/cli/docs"
	"github.com/spf13/cobra"
)

func newCompletion(a *app.App) *cobra.Command {
	var cmd *cobra.Command
	cmd = a.Command(app.Spec{
		Use:   "completion " + strings.Join(docs.Shells(), "|"),
		Short: "Print the script that makes a shell complete mobileops",
		Long: `Print the script that makes a shell complete mobileops.

It completes commands, flags, and what is on this host: baselines, findings,
paths. The script is installed with mobileops; this is for shells where it is
missing. In bash it works with and without the package bash-completion.`,
		Example: `
source <(mobileops completion bash)                                 # in this bash
mobileops completion zsh > "${fpath[1]}/_mobileops"                 # in every zsh
mobileops completion fish > ~/.config/fish/completions/mobileops.fish # in every fish
mobileops completion powershell | Out-String | Invoke-Expression    # in this PowerShell
`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return fmt.Errorf("needs the name of one shell: %s", strings.Join(docs.Shells(), ", "))
			}
			return nil
		},
		Run: func(_ context.Context, args []string) error {
			script, err := docs.CompletionScript(cmd.Root(), args[0])
			if err != nil {
				return err
			}
			_, err = io.WriteString(a.Streams.Out, script)
			return err
		},
		Complete: app.FixedValues(docs.Shells()...),
	})
	return cmd
}
