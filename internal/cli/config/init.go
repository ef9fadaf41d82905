package config

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"

	"github.com/mobileops/mobileops/internal/cli/app"
	settings "github.com/mobileops/mobileops/internal/config"
	"github.com/mobileops/mobileops/internal/durable"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

func newInit(a *app.App) *cobra.Command {
	var opts initOptions
	cmd := a.Command(app.Spec{
		Use:   "init [--force] [--stdout]",
		Short: "Write a configuration file in which every key is explained",
		Long: `Write a configuration file in which every key is explained.

Every value in it is commented out, so the defaults stay in force until a line
is changed. A file that exists is kept unless --force is given.`,
		Example: `
mobileops config init                                  # at the usual place
mobileops config init --config /srv/ops/mobileops.yaml # elsewhere
mobileops config init --stdout | less                  # only look
`,
		Statuses: []app.Status{
			{Code: 4, Text: "the file cannot be written by this user"},
			{Code: 8, Text: "the file exists; --force replaces it"},
		},
		Files:   files(),
		Audited: true,
		Run:     func(context.Context, []string) error { return runInit(a, opts) },
	})
	opts.addFlags(cmd.Flags())
	return cmd
}

type initOptions struct{ force, stdout bool }

func (o *initOptions) addFlags(fs *pflag.FlagSet) {
	fs.BoolVar(&o.force, "force", false, "replace a file that exists")
	fs.BoolVar(&o.stdout, "stdout", false, "print the file instead of writing it")
}

// initReport is the document of mobileops config init --output json.
type initReport struct {
	Schema string `json:"schema"`
	File   string `json:"file"`
}

func runInit(a *app.App, opts initOptions) error {
	if opts.stdout {
		a.OnlyLooked()
		_, err := io.WriteString(a.Streams.Out, settings.Template())
		return err
	}
	path, _ := settings.FileOf(a.ConfigSources())
	if path == "" {
		return failure.Hint(failure.New(failure.NotReady, "where the configuration goes is not known, since HOME is not set"), "say it: --config FILE")
	}
	path, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	switch err := write(path, settings.Template(), opts.force); {
	case errors.Is(err, fs.ErrExist):
		return failure.Hint(failure.Errorf(failure.Busy, "%s exists", path), "replace it: --force")
	case errors.Is(err, fs.ErrPermission):
		return failure.Wrap(failure.NotAllowed, err)
	case err != nil:
		return err
	}
	a.SetResult("wrote %s", path)
	if a.Streams.Format != ui.Text {
		return a.Streams.Document(initReport{"mobileops.config.init/v1", path})
	}
	if a.Streams.Quiet {
		return nil
	}
	_, err = fmt.Fprintf(a.Streams.Out, "wrote %s\n", ui.Escape(path))
	return err
}

// write makes the file visible whole. The text holds no secret, and services
// that run as other users may read it.
func write(path, text string, replace bool) error {
	if err := durable.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if replace {
		return durable.WriteFile(path, []byte(text), 0o644)
	}
	f, err := durable.Create(path, 0o644)
	if err != nil {
		return err
	}
	defer f.Abort()
	if _, err := io.WriteString(f, text); err != nil {
		return err
	}
	return f.CommitNew()
}
