package plugin

import (
	"context"
	"path/filepath"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/spf13/cobra"
)

func newRun(a *app.App) *cobra.Command {
	var read []string
	cmd := a.Command(app.Spec{
		Use:   "run NAME [-- ARGUMENT...]",
		Short: "Run the program of a plugin with arguments as they are",
		Long: `Run the program of a plugin with arguments as they are, in its sandbox. Its
commands are better run as mobileops NAME COMMAND, which checks flags, completes
them, and lets the plugin read the files that are named; this is for what a plugin
has beyond its commands, and for finding out what is wrong with one.`,
		Example: `
mobileops plugin run siem-integration-plugin -- status
mobileops plugin run vulnerability-scanner-plugin --read report.nessus -- import "$PWD/report.nessus"
`,
		Args: cobra.MinimumNArgs(1),
		Statuses: []app.Status{
			{Code: 0, Text: "done, as the plugin says"},
			{Code: 1, Text: "no such plugin is installed; or as the plugin says"},
			{Code: 5, Text: "the plugin is not what was installed; it was not started"},
			{Code: 7, Text: "a setting of the plugin is missing, it is disabled, or this host cannot confine it"},
		},
		Files:    []string{installedFiles, configFiles, stateFile},
		Complete: completeInstalled(a),
		Run: func(ctx context.Context, args []string) error {
			e, _, err := newEngine(a, nil)
			if err != nil {
				return err
			}
			var files []string
			for _, path := range read {
				if path, err = filepath.Abs(path); err != nil {
					return err
				}
				files = append(files, path)
			}
			return runPlugin(ctx, a, e, args[0], args[1:], files)
		},
	})
	cmd.Flags().StringArrayVar(&read, "read", nil, "let it read `PATH` too, for this once")
	app.CompleteFiles(cmd, "read")
	return cmd
}
