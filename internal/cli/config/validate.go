package config

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/mobileops/mobileops/internal/cli/app"
	settings "github.com/mobileops/mobileops/internal/config"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/spf13/cobra"
)

func newValidate(a *app.App) *cobra.Command {
	return a.Command(app.Spec{
		Use:   "validate [FILE]",
		Short: "Check a configuration file",
		Long: `Check a configuration file.

Without a FILE it is the one that would be read. Everything that is wrong is
listed, each with its line. Nothing is changed.`,
		Example: `
mobileops config validate                        # the one in force
mobileops config validate ./config.yaml && sudo install -m 644 config.yaml /etc/mobileops/
`,
		Args: cobra.MaximumNArgs(1),
		Statuses: []app.Status{
			{Code: 0, Text: "nothing is wrong with it"},
			{Code: 1, Text: "mistakes were found"},
			{Code: 2, Text: "there is no such file"},
			{Code: 4, Text: "the file may not be read"},
			{Code: 5, Text: "others than root can write the file that root would follow"},
		},
		Files:    files(),
		Run:      func(_ context.Context, args []string) error { return runValidate(a, args) },
		Complete: func(context.Context, []string, string) []string { return app.Files() },
	})
}

// validateReport is the document of mobileops config validate --output json.
type validateReport struct {
	Schema   string              `json:"schema"`
	File     string              `json:"file,omitempty"` // absent: there is none, and the defaults are in force
	Valid    bool                `json:"valid"`
	Problems []*settings.Problem `json:"problems"`
}

func runValidate(a *app.App, args []string) error {
	path, named := settings.FileOf(a.ConfigSources())
	if len(args) == 1 {
		path, named = args[0], true
	}
	var problems []*settings.Problem
	if path != "" {
		var err error
		problems, err = settings.Validate(path, a.ConfigSources())
		switch {
		case errors.Is(err, fs.ErrNotExist) && !named:
			path = ""
		case errors.Is(err, fs.ErrNotExist):
			return failure.Errorf(failure.Usage, "no file %s", path)
		case err != nil:
			return err
		}
	}
	outcome := failure.None
	if len(problems) > 0 {
		outcome = failure.No
	}
	if err := printValidation(a, path, problems); err != nil {
		return err
	}
	return failure.Silent(outcome)
}

func printValidation(a *app.App, path string, problems []*settings.Problem) error {
	if a.Streams.Format != ui.Text {
		report := validateReport{"mobileops.config.validate/v1", path, len(problems) == 0, problems}
		if problems == nil {
			report.Problems = []*settings.Problem{}
		}
		return a.Streams.Document(report)
	}
	for _, p := range problems {
		if _, err := fmt.Fprintln(a.Streams.Out, ui.Printable(p.Error())); err != nil {
			return err
		}
	}
	if len(problems) > 0 || a.Streams.Quiet {
		return nil
	}
	if path == "" {
		_, err := fmt.Fprintln(a.Streams.Out, "there is no configuration file; the defaults are in force")
		return err
	}
	_, err := fmt.Fprintf(a.Streams.Out, "%s: nothing is wrong with it\n", ui.Escape(path))
	return err
}
