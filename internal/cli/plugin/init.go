package plugin

import (
	"context"
	"path/filepath"
	"strings"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/plugin/manifest"
	"github.com/mobileops/mobileops/internal/plugin/scaffold"
	"github.com/mobileops/mobileops/internal/plugin/source"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/spf13/cobra"
)

func newInit(a *app.App, reserved []string) *cobra.Command {
	var lang string
	cmd := a.Command(app.Spec{
		Use:   "init NAME [DIR] [--lang go|sh]",
		Short: "Begin a plugin: a directory that builds, tests and signs",
		Long: `Begin a plugin: a directory that builds, tests and signs. DIR is NAME in the present
directory when it is not given. Files that are there are never replaced. How a plugin
talks with mobileops is in docs/plugins.md.`,
		Example: `
mobileops plugin init forwarder
mobileops plugin init door-bell ./src/door-bell --lang sh
mobileops plugin init door-bell --lang sh && make -C door-bell test   # in a build job
`,
		Args: cobra.RangeArgs(1, 2),
		Statuses: []app.Status{
			{Code: 0, Text: "it is there"},
			{Code: 2, Text: "no plugin can have that name, or one of the files is there already"},
			{Code: 4, Text: "you may not write there"},
		},
		Files: []string{"DIR/: what is written"},
		Run: func(_ context.Context, args []string) error {
			dir := args[0]
			if len(args) > 1 {
				dir = args[1]
			}
			return runInit(a, reserved, args[0], dir, lang)
		},
		Complete: func(_ context.Context, args []string, _ string) []string {
			if len(args) == 1 {
				return app.Dirs()
			}
			return nil
		},
	})
	app.Choice(cmd, cmd.Flags(), &lang, "lang", "go", []string{"go", "sh"}, "write it in `LANGUAGE`")
	return cmd
}

// initDocument is the document of plugin init.
type initDocument struct {
	Schema    string   `json:"schema"`
	Name      string   `json:"name"`
	Directory string   `json:"directory"`
	Language  string   `json:"language"`
	Files     []string `json:"files"` // beneath the directory
	Next      []string `json:"next"`
}

func runInit(a *app.App, reserved []string, name, dir, lang string) error {
	if err := source.CheckName(name); err != nil {
		return failure.Wrap(failure.Usage, err)
	}
	if err := (&manifest.Manifest{Name: name}).CheckAgainst(reserved); err != nil {
		return failure.Wrap(failure.Usage, err)
	}
	files, err := scaffold.Write(dir, name, lang)
	if err != nil {
		return err
	}
	next := []string{"read " + filepath.Join(dir, "README.md")}
	if lang == "go" {
		next = append(next, "fetch what it is built from, once: (cd "+dir+" && go mod tidy)")
	}
	next = append(next, "build and test it: make -C "+dir+" test")
	doc := initDocument{Schema: "mobileops.plugin.init/v1", Name: name, Directory: dir, Language: lang, Files: files, Next: next}
	if a.Streams.Format != ui.Text {
		return a.Streams.Document(doc)
	}
	if a.Streams.Quiet {
		return nil
	}
	if err := say(a.Streams, "%s", ui.Escape(strings.Join(files, "  "))); err != nil {
		return err
	}
	for _, n := range doc.Next {
		a.Streams.Notice("%s", ui.Escape(n))
	}
	return nil
}
