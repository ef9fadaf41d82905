package plugin

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/config"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/plugin"
	"github.com/mobileops/mobileops/internal/plugin/catalogue"
	"github.com/mobileops/mobileops/internal/plugin/host"
	"github.com/mobileops/mobileops/internal/plugin/manifest"
	"github.com/mobileops/mobileops/internal/plugin/source"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/spf13/cobra"
)

// endGrace is what a plugin has to end after an interrupt.
const endGrace = 5 * time.Second

// Native returns the commands of the plugins that are installed and enabled, as
// they are typed: mobileops NAME COMMAND. With a name it returns those of that
// plugin alone. Before the command line was read nothing is known of its flags
// but what args, the whole of it, say about the configuration.
func Native(a *app.App, args []string, name string) ([]*cobra.Command, error) {
	sources := a.ConfigSources()
	if sources.Flags == nil {
		sources.Flags = map[string]config.FlagValue{}
	}
	for i, word := range args {
		flag, value, given := strings.Cut(word, "=")
		if !given && i+1 < len(args) {
			value = args[i+1]
		}
		switch flag {
		case "--":
		case "--config":
			sources.File = value
		case "--state-dir":
			sources.Flags["state_dir"] = config.FlagValue{Name: flag, Value: value}
		}
		if word == "--" {
			break
		}
	}
	c, err := config.Load(sources)
	if err != nil {
		return nil, err
	}
	x, err := plugin.ReadIndex(c.Plugin.Dir)
	if err != nil {
		return nil, err
	}
	var list []*cobra.Command
	for i := range x.Plugins {
		if e := &x.Plugins[i]; (name == "" || e.Name == name) && len(e.Commands) > 0 {
			list = append(list, native(a, e))
		}
	}
	if name != "" && len(list) == 0 {
		return nil, absent(c.Plugin.Dir, x, name)
	}
	return list, nil
}

// native builds the commands of one plugin.
func native(a *app.App, e *plugin.Entry) *cobra.Command {
	var top *manifest.Command
	var verbs []*cobra.Command
	for i := range e.Commands {
		if c := &e.Commands[i]; c.Name == "" {
			top = c
		} else {
			verbs = append(verbs, nativeCommand(a, e, c))
		}
	}
	if top == nil {
		return a.Group(e.Name, e.Summary+" (plugin)", verbs...)
	}
	cmd := nativeCommand(a, e, top)
	cmd.AddCommand(verbs...)
	return cmd
}

func nativeCommand(a *app.App, e *plugin.Entry, c *manifest.Command) *cobra.Command {
	word, long, short := c.Name, c.Summary+".", c.Summary
	if c.Name == "" {
		word, short = e.Name, e.Summary+" (plugin)"
		if e.Description != "" {
			long = e.Summary + ".\n\n" + strings.TrimSpace(e.Description)
		}
	}
	var cmd *cobra.Command
	cmd = a.Command(app.Spec{
		Use: strings.TrimSpace(word + " " + c.Usage), Short: short,
		Long:    long + "\n\nThis is a command of plugin " + e.Name + " " + e.Version + ", which does what it was allowed to and nothing\nelse: mobileops plugin permissions " + e.Name + ".",
		Example: "\n" + strings.Join(nativeExamples(e, c), "\n") + "\n",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) < c.Args.Min || c.Args.Max >= 0 && len(args) > c.Args.Max {
				return app.UsageError("%d arguments; %s", len(args), countWords(c.Args))
			}
			return nil
		},
		Statuses: []app.Status{
			{Code: 0, Text: "done, as the plugin says"},
			{Code: 5, Text: "the plugin is not what was installed; it was not started"},
			{Code: 7, Text: "a setting of the plugin is missing, or it is disabled"},
		},
		Files:    []string{"/etc/mobileops/plugins/" + e.Name + ".yaml: the configuration of the plugin", "/var/lib/mobileops-plugins/data/" + e.Name + "/: what it keeps"},
		Complete: nativeComplete(c.Args),
		Run: func(ctx context.Context, args []string) error {
			return runNative(ctx, a, e.Name, c, cmd, args)
		},
	})
	for i := range c.Flags {
		f := &c.Flags[i]
		switch f.Type {
		case manifest.FlagBool:
			cmd.Flags().BoolP(f.Name, f.Short, f.Default == "true", f.Summary)
		case manifest.FlagChoice:
			cmd.Flags().VarP(&flagValue{f.Default, f.Type}, f.Name, f.Short, f.Summary+": "+strings.Join(f.Choices, ", "))
			app.CompleteValues(cmd, f.Name, f.Choices...)
		default:
			cmd.Flags().VarP(&flagValue{f.Default, strings.ToUpper(f.Type)}, f.Name, f.Short, f.Summary)
			switch f.Type {
			case manifest.FlagFile:
				app.CompleteFiles(cmd, f.Name)
			case manifest.FlagDir:
				app.CompleteDirs(cmd, f.Name)
			}
		}
	}
	return cmd
}

// flagValue is the value of a flag of a plugin, which help shows by its type.
type flagValue struct{ text, kind string }

func (v *flagValue) String() string     { return v.text }
func (v *flagValue) Set(s string) error { v.text = s; return nil }
func (v *flagValue) Type() string       { return v.kind }

// nativeExamples are those of a command, or one that follows from its usage.
func nativeExamples(e *plugin.Entry, c *manifest.Command) []string {
	if len(c.Examples) > 0 {
		return c.Examples
	}
	return []string{strings.Join(slices.DeleteFunc([]string{"mobileops", e.Name, c.Name, c.Usage}, func(s string) bool { return s == "" }), " ")}
}

func countWords(a manifest.Args) string {
	switch {
	case a.Max < 0:
		return fmt.Sprintf("at least %d are needed", a.Min)
	case a.Min == a.Max:
		return fmt.Sprintf("exactly %d are taken", a.Max)
	}
	return fmt.Sprintf("%d to %d are taken", a.Min, a.Max)
}

func nativeComplete(args manifest.Args) func(context.Context, []string, string) []string {
	switch args.Complete {
	case manifest.CompleteFiles:
		return func(context.Context, []string, string) []string { return app.Files() }
	case manifest.CompleteDirs:
		return func(context.Context, []string, string) []string { return app.Dirs() }
	case manifest.CompleteWords:
		return app.FixedValues(args.Words...)
	}
	return nil
}

// runNative starts the plugin in our place: with our streams, what was given on
// the command line, and the right to read the files that were named there.
func runNative(ctx context.Context, a *app.App, name string, c *manifest.Command, cmd *cobra.Command, args []string) error {
	e, _, err := newEngine(a, nil)
	if err != nil {
		return err
	}
	var argv, files []string
	if c.Name != "" {
		argv = append(argv, c.Name)
	}
	for i := range c.Flags {
		f := &c.Flags[i]
		set := cmd.Flags().Lookup(f.Name)
		if !set.Changed {
			if f.Required {
				return app.UsageError("--%s is needed: %s", f.Name, f.Summary)
			}
			continue
		}
		value := set.Value.String()
		if err := checkFlag(f, value); err != nil {
			return err
		}
		if f.Type == manifest.FlagFile || f.Type == manifest.FlagDir {
			if value, err = filepath.Abs(value); err != nil {
				return err
			}
			files = append(files, value)
		}
		argv = append(argv, "--"+f.Name+"="+value)
	}
	if len(args) > 0 && slices.ContainsFunc(args, func(s string) bool { return strings.HasPrefix(s, "-") && s != "-" }) {
		argv = append(argv, "--")
	}
	for _, arg := range args {
		if (c.Args.Complete == manifest.CompleteFiles || c.Args.Complete == manifest.CompleteDirs) && arg != "-" {
			if arg, err = filepath.Abs(arg); err != nil {
				return err
			}
			files = append(files, arg)
		}
		argv = append(argv, arg)
	}
	return runPlugin(ctx, a, e, name, argv, files)
}

// runPlugin runs the program of a plugin as a command.
func runPlugin(ctx context.Context, a *app.App, e *plugin.Engine, name string, argv, files []string) error {
	in, out, stderr := a.Streams.Inherit()
	defer a.Streams.Preserve()()
	run, err := e.Start(ctx, name, plugin.Call{
		Role: host.RoleCommand, Args: argv, Stdin: in, Stdout: out, Stderr: stderr, Files: files, Env: terminal(a),
		OnError: func(err error) { fmt.Fprintf(a.Streams.Err, "mobileops: %s: %s\n", name, ui.Printable(err.Error())) },
	})
	if err != nil {
		return reword(err)
	}
	stop := context.AfterFunc(ctx, func() { run.End(endGrace) })
	defer stop()
	status, err := run.Wait()
	if err != nil {
		return err
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return ended(name, status)
}

// terminal is what a plugin has to know to print as we would.
func terminal(a *app.App) []string {
	env := []string{"MOBILEOPS_OUTPUT=" + string(a.Streams.Format)}
	if a.Streams.Quiet {
		env = append(env, "MOBILEOPS_QUIET=1")
	}
	if a.Streams.OutTTY {
		if term := a.Getenv("TERM"); term != "" {
			env = append(env, "TERM="+term)
		}
	}
	if a.Streams.Width > 0 {
		env = append(env, "COLUMNS="+strconv.Itoa(a.Streams.Width))
	}
	if !a.Streams.Color {
		env = append(env, "NO_COLOR=1")
	}
	return env
}

// ended turns the exit status of a plugin into one of the table.
func ended(name string, status int) error {
	if kind, ok := failure.OfStatus(status); ok && kind != failure.None {
		return failure.Silent(kind) // the plugin has said why
	} else if ok {
		return nil
	}
	if status == 128+int(syscall.SIGPIPE) { // the reader went away, as head does: that is not news
		return failure.Silent(failure.Failed)
	}
	if status > 128 {
		return failure.Errorf(failure.Failed, "plugin %s was ended by signal %d", name, status-128)
	}
	return failure.Errorf(failure.Failed, "plugin %s ended with status %d, which means nothing here", name, status)
}

// checkFlag says whether a value is of the type that the manifest says.
func checkFlag(f *manifest.Flag, value string) error {
	var err error
	switch f.Type {
	case manifest.FlagInt:
		if _, err = strconv.ParseInt(value, 10, 64); err != nil {
			err = errors.New("not a whole number")
		}
	case manifest.FlagDuration:
		_, err = config.ParseDuration(value)
	case manifest.FlagChoice:
		if !slices.Contains(f.Choices, value) {
			err = errors.New("not one of " + strings.Join(f.Choices, ", "))
		}
	case manifest.FlagFile, manifest.FlagDir:
		_, err = os.Stat(value)
	}
	if err != nil {
		return app.UsageError("bad value %q for --%s: %v", value, f.Name, err)
	}
	return nil
}

// absent says of a word that is no command whether it is a plugin, and why its
// commands are not there; nil when there is none of that name. It asks no state,
// which others may not read.
func absent(dir string, x *plugin.Index, name string) error {
	if source.CheckName(name) != nil {
		return nil
	}
	if x.Find(name) != nil {
		return failure.Hint(app.UsageError("plugin %s has no commands", name), "see what it is: mobileops plugin info "+name)
	}
	if _, err := os.Lstat(filepath.Join(dir, "installed", name)); err == nil {
		return failure.Hint(failure.Errorf(failure.NotReady, "plugin %s is disabled", name), "see mobileops plugin list, and enable it: mobileops plugin enable "+name)
	}
	item, err := catalogue.Get(name)
	switch {
	case err != nil:
		return nil
	case item.Planned != "":
		return failure.Errorf(failure.NotReady, "%s is planned and not there yet: %s", name, item.Planned)
	}
	return failure.Hint(app.UsageError("unknown command %q: it is a plugin that is not installed", name), "install it: mobileops plugin install "+name)
}
