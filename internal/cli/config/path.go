package config

import (
	"context"
	"fmt"
	"os"

	"github.com/mobileops/mobileops/internal/cli/app"
	settings "github.com/mobileops/mobileops/internal/config"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/spf13/cobra"
)

func newPath(a *app.App) *cobra.Command {
	return a.Command(app.Spec{
		Use:   "path",
		Short: "Print which configuration file is read",
		Long: `Print which configuration file is read.

It is the one named by --config or MOBILEOPS_CONFIG, else the usual one, whether
it exists or not.`,
		Example: `
sudo editor "$(mobileops config path)"
`,
		Statuses: []app.Status{{Code: 7, Text: "the place is not known, since HOME is not set"}},
		Files:    files(),
		Run:      func(context.Context, []string) error { return runPath(a) },
	})
}

// pathReport is the document of mobileops config path --output json.
type pathReport struct {
	Schema string `json:"schema"`
	File   string `json:"file"`
	Exists bool   `json:"exists"`
}

func runPath(a *app.App) error {
	path, _ := settings.FileOf(a.ConfigSources())
	if path == "" {
		return failure.New(failure.NotReady, "where the configuration is read from is not known, since HOME is not set")
	}
	if a.Streams.Format != ui.Text {
		_, err := os.Stat(path)
		return a.Streams.Document(pathReport{"mobileops.config.path/v1", path, err == nil})
	}
	_, err := fmt.Fprintln(a.Streams.Out, ui.Escape(path))
	return err
}
