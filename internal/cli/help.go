package cli

import (
	"context"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/spf13/cobra"
)

func newHelp(a *app.App) *cobra.Command {
	var cmd *cobra.Command
	cmd = a.Command(app.Spec{
		Use:   "help [COMMAND…]",
		Short: "Show the help of a command",
		Example: `
mobileops help integrity check  # the same as mobileops integrity check --help
`,
		Args: cobra.ArbitraryArgs,
		Run: func(_ context.Context, args []string) error {
			topic, rest, err := cmd.Root().Find(args)
			if err != nil {
				return err
			}
			if len(rest) > 0 {
				return app.UnknownCommand(topic, rest[0])
			}
			return topic.Help()
		},
		Complete: func(_ context.Context, args []string, _ string) (names []string) {
			topic, rest, err := cmd.Root().Find(args)
			if err != nil || len(rest) > 0 {
				return nil
			}
			for _, c := range topic.Commands() {
				if c.IsAvailableCommand() {
					names = append(names, c.Name()+"\t"+c.Short)
				}
			}
			return names
		},
	})
	return cmd
}
