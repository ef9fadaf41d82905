package cli

import (
	"context"
	"fmt"

	"github.com/mobileops/mobileops/internal/buildinfo"
	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/spf13/cobra"
)

func newVersion(a *app.App) *cobra.Command {
	return a.Command(app.Spec{
		Use:   "version",
		Short: "Print the version of mobileops",
		Long: `Print the version of mobileops.

It names the release, the commit it was built from and the Go version. A build
from a tree with uncommitted changes says so.`,
		Example: `
mobileops version                # for a person
mobileops version --output json  # for an inventory
`,
		Run: func(context.Context, []string) error { return runVersion(a) },
	})
}

// versionReport is the document of mobileops version --output json.
type versionReport struct {
	Schema string `json:"schema"`
	buildinfo.Info
}

func runVersion(a *app.App) error {
	info := buildinfo.Get()
	if a.Streams.Format != ui.Text {
		return a.Streams.Document(versionReport{"mobileops.version/v1", info})
	}
	commit := ""
	if info.Commit != "" {
		commit = "commit " + info.Commit[:min(len(info.Commit), 12)]
		if info.Modified {
			commit += " with changes"
		}
		commit += ", "
	}
	_, err := fmt.Fprintf(a.Streams.Out, "mobileops %s (%s%s, %s)\n", info.Version, commit, info.Go, info.Platform)
	return err
}
