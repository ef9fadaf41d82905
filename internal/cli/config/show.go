package config

import (
	"context"
	"fmt"
	"strings"

	"github.com/mobileops/mobileops/internal/cli/app"
	settings "github.com/mobileops/mobileops/internal/config"
	"github.com/mobileops/mobileops/internal/spelling"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

func newShow(a *app.App) *cobra.Command {
	var opts showOptions
	cmd := a.Command(app.Spec{
		Use:   "show [KEY] [--origin]",
		Short: "Show the configuration in force",
		Long: `Show the configuration in force.

A flag goes before the environment, that before the file, and the file before
the default. With --origin each value says where it comes from. With a KEY, only
its value is printed.`,
		Example: `
mobileops config show --origin              # what is in force, and why
ls "$(mobileops config show state_dir)"     # one value, for a script
MOBILEOPS_LOCK_TIMEOUT=1m mobileops config show lock_timeout
`,
		Args: cobra.MaximumNArgs(1),
		Statuses: []app.Status{
			{Code: 2, Text: "unknown key, or a file with mistakes; each is named with its line"},
			{Code: 4, Text: "the file may not be read"},
			{Code: 5, Text: "others than root can write the file that root would follow"},
		},
		Files:    files(),
		Run:      func(_ context.Context, args []string) error { return runShow(a, opts, args) },
		Complete: app.FixedValues(keyNames()...),
	})
	opts.addFlags(cmd.Flags())
	return cmd
}

type showOptions struct{ origin bool }

func (o *showOptions) addFlags(fs *pflag.FlagSet) {
	fs.BoolVar(&o.origin, "origin", false, "say where each value comes from")
}

func keyNames() (names []string) {
	for _, k := range settings.Keys() {
		names = append(names, k.Name)
	}
	return names
}

// showReport is the document of mobileops config show --output json.
type showReport struct {
	Schema string      `json:"schema"`
	File   string      `json:"file,omitempty"` // the file that was read
	Values []showValue `json:"values"`
}

type showValue struct {
	Key    string          `json:"key"`
	Value  any             `json:"value"`
	Origin settings.Origin `json:"origin"`
}

func runShow(a *app.App, opts showOptions, args []string) error {
	loaded, err := a.LoadedConfig()
	if err != nil {
		return err
	}
	report := showReport{Schema: "mobileops.config.show/v1", File: loaded.File}
	for _, k := range settings.Keys() {
		if len(args) == 0 || args[0] == k.Name {
			report.Values = append(report.Values, showValue{k.Name, k.Value(&loaded.Config), loaded.Origins[k.Name]})
		}
	}
	if len(report.Values) == 0 {
		err := app.UsageError("unknown key %q", args[0])
		if near := spelling.Nearest(args[0], keyNames()); near != "" {
			err = app.UsageError("unknown key %q (did you mean %q?)", args[0], near)
		}
		return err
	}
	switch {
	case a.Streams.Format != ui.Text:
		return a.Streams.Document(report)
	case len(args) == 1 && !opts.origin:
		_, err := fmt.Fprintln(a.Streams.Out, ui.Escape(fmt.Sprint(report.Values[0].Value)))
		return err
	}
	columns := []ui.Column{{Title: "KEY", Min: 20, KeepEnd: true}, {Title: "VALUE", Min: 8, KeepEnd: true}}
	if opts.origin {
		columns = append(columns, ui.Column{Title: "FROM", Min: 8, KeepEnd: true})
	}
	table := a.Streams.NewTable(columns...)
	theme := a.Streams.Theme()
	for _, v := range report.Values {
		from := ui.Cell{Text: strings.TrimSpace(v.Origin.Kind + " " + v.Origin.Where)}
		if v.Origin.Kind == "default" {
			from.Style = theme.Faint
		}
		table.Row(v.Key, fmt.Sprint(v.Value), from)
	}
	return table.Print()
}
