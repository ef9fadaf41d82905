// Package cli is the command tree: one package per noun, one file per verb.
//
// Main is the whole program but for signals and the exit. It reads nothing
// but what it is given, so a test can run it as a user would.
package cli

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/cli/audit"
	"github.com/mobileops/mobileops/internal/cli/change"
	"github.com/mobileops/mobileops/internal/cli/compat"
	"github.com/mobileops/mobileops/internal/cli/config"
	"github.com/mobileops/mobileops/internal/cli/docs"
	"github.com/mobileops/mobileops/internal/cli/finding"
	"github.com/mobileops/mobileops/internal/cli/integrity"
	"github.com/mobileops/mobileops/internal/cli/logs"
	"github.com/mobileops/mobileops/internal/cli/network"
	"github.com/mobileops/mobileops/internal/cli/plugin"
	"github.com/mobileops/mobileops/internal/cli/scan"
	"github.com/mobileops/mobileops/internal/cli/state"
	"github.com/mobileops/mobileops/internal/cli/threat"
	"github.com/mobileops/mobileops/internal/cli/update"
	"github.com/mobileops/mobileops/internal/cli/vulndb"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/spf13/cobra"
)

// Main runs the command line args, where args[0] is the name it was called by,
// and returns the exit status. The context is asked for once, when the commands
// are made and before anything is done; cancelled, it interrupts it.
func Main(ctx func() context.Context, args []string, streams *ui.Streams, getenv func(string) string) int {
	a := app.New(streams, getenv)
	root := newTree(a, named(args))
	root.SetOut(streams.Out)
	root.SetErr(streams.Err)
	where, err := execute(ctx(), a, root, args)
	if ui.IsClosedPipe(err) && ui.IsClosedPipe(streams.WriteError()) {
		err = failure.Silent(failure.Failed) // the reader went away, as head does: that is not news
	}
	kind := failure.KindOf(err)
	report(streams, where, err)
	return failure.Worse(kind, reportOutput(streams, kind)).Status()
}

// execute runs the command that args name, by the grammar of mobileops or that
// of an old script whose name it was called by. It says where an error arose:
// "integrity check".
func execute(ctx context.Context, a *app.App, root *cobra.Command, args []string) (where string, err error) {
	name, rest := filepath.Base(args[0]), args[1:]
	if script, ok := compat.Named(name); ok {
		translated, run, err := compat.Translate(a, root, script, rest)
		if !run {
			return name, err
		}
		rest = translated
	}
	if err := addPlugins(a, root, rest); err != nil {
		return "", err
	}
	a.SetAround(plugin.NewHooks(a))
	root.SetArgs(rest)
	cmd, err := root.ExecuteContextC(ctx)
	_, where, _ = strings.Cut(cmd.CommandPath(), " ")
	return where, err
}

// noun is a command below the root, and a package below this one.
type noun struct {
	name  string
	build func(*app.App) *cobra.Command
	// looksAround is true of a command that looks at the commands of others.
	looksAround bool
}

// nouns has one line for each noun.
func nouns() []noun {
	return []noun{
		{name: "audit", build: audit.New},
		{name: "change", build: change.New},
		{name: "compat", build: compat.New, looksAround: true},
		{name: "config", build: config.New},
		{name: "docs", build: docs.New, looksAround: true},
		{name: "completion", build: newCompletion, looksAround: true},
		{name: "finding", build: finding.New},
		{name: "integrity", build: integrity.New},
		{name: "logs", build: logs.New},
		{name: "network", build: network.New},
		{name: "plugin", build: func(a *app.App) *cobra.Command { return plugin.New(a, reserved()) }},
		{name: "rollback", build: update.NewRollback},
		{name: "scan", build: scan.New},
		{name: "state", build: state.New},
		{name: "threat", build: threat.New},
		{name: "update", build: update.New},
		{name: "version", build: newVersion},
		{name: "vulndb", build: vulndb.New},
	}
}

// named returns the noun that is all of the tree that args will need, or "".
// Making the commands and flags of every noun takes a fifth of what a short
// command takes, and an incident's first command should not wait for it.
func named(args []string) string {
	if _, ok := compat.Named(filepath.Base(args[0])); ok {
		return ""
	}
	rest := args[1:]
	// A press of Tab asks about the last word. What is before it is decided.
	if len(rest) > 0 && (rest[0] == cobra.ShellCompRequestCmd || rest[0] == cobra.ShellCompNoDescRequestCmd) {
		rest = rest[1:max(1, len(rest)-1)]
	}
	if len(rest) == 0 {
		return ""
	}
	for _, n := range nouns() {
		if n.name == rest[0] && !n.looksAround {
			return n.name
		}
	}
	return ""
}

// addPlugins adds the commands of plugins to the tree when args need them: those
// of one, or of all where commands are listed. Nothing is read otherwise.
func addPlugins(a *app.App, root *cobra.Command, args []string) error {
	rest, completing := args, false
	if len(rest) > 0 && (rest[0] == cobra.ShellCompRequestCmd || rest[0] == cobra.ShellCompNoDescRequestCmd) {
		rest, completing = rest[1:], true
	}
	first := slices.IndexFunc(rest, func(s string) bool { return !strings.HasPrefix(s, "-") })
	var name string
	switch {
	case first < 0: // what there is
	case completing && first == len(rest)-1: // which begin like this
	case first > 0: // what stands before may be the value of a flag
	case rest[first] == "help":
	case isNoun(rest[first]):
		return nil
	default:
		name = rest[first]
	}
	list, err := plugin.Native(a, rest, name)
	if err != nil && (completing || name == "") {
		return nil // a press of Tab is no place for errors, and help is there without a configuration
	}
	if err != nil {
		return err
	}
	for _, cmd := range list {
		if !isNoun(cmd.Name()) {
			root.AddCommand(cmd)
		}
	}
	return nil
}

// reserved are the names that no plugin may have.
func reserved() (names []string) {
	for _, n := range nouns() {
		names = append(names, n.name)
	}
	// What the scripts had and mobileops will have: who types it from memory must
	// not meet somebody's plugin.
	return append(names, "help", "platform", "component", "asset", "ai", "test")
}

func isNoun(name string) bool {
	return slices.ContainsFunc(nouns(), func(n noun) bool { return n.name == name })
}

// NewRoot builds the command tree. It opens nothing and reads nothing.
func NewRoot(a *app.App) *cobra.Command { return newTree(a, "") }

// newTree builds the command tree, with all nouns or only with one.
func newTree(a *app.App, only string) *cobra.Command {
	root := a.Group("mobileops", "Watch over, secure and update the hosts of a mobile operations platform")
	for _, n := range nouns() {
		if only == "" || only == n.name {
			root.AddCommand(n.build(a))
		}
	}

	var showVersion bool
	root.Flags().BoolVar(&showVersion, "version", false, "print the version, as mobileops version does")
	help := root.RunE
	root.RunE = func(cmd *cobra.Command, args []string) error {
		if showVersion {
			return runVersion(a)
		}
		return help(cmd, args)
	}
	root.CompletionOptions.DisableDefaultCmd = true
	root.SetHelpCommand(newHelp(a))
	a.AddGlobalFlags(root)
	return root
}

// report prints an error as one line, or one line for each error that was
// joined: "mobileops: integrity check: what went wrong (what to do next)".
func report(streams *ui.Streams, where string, err error) {
	if err == nil {
		return
	}
	prefix := "mobileops: "
	if where != "" {
		prefix += where + ": "
	}
	for _, line := range errorLines(err) {
		fmt.Fprintln(streams.Err, prefix+ui.Printable(line))
	}
}

// errorLines returns a line for each error that errors.Join put together, also
// where something was wrapped around all of them: what stands before them stands
// before each, and what stands behind them, which is a hint, behind the last.
// Errors that only stand together within one sentence are one line.
func errorLines(err error) (lines []string) {
	if failure.IsSilent(err) {
		return nil
	}
	msg := err.Error()
	var j interface{ Unwrap() []error }
	if errors.As(err, &j) {
		var texts []string
		for _, e := range j.Unwrap() {
			texts = append(texts, e.Error())
		}
		if before, after, ok := strings.Cut(msg, strings.Join(texts, "\n")); ok {
			for _, e := range j.Unwrap() {
				for _, line := range errorLines(e) {
					lines = append(lines, before+line)
				}
			}
			if len(lines) > 0 {
				lines[len(lines)-1] += after
			}
			return lines
		}
	}
	if errors.Is(err, context.Canceled) {
		msg = strings.Replace(msg, context.Canceled.Error(), "interrupted", 1)
	}
	return []string{msg}
}

// reportOutput says whether what was printed has arrived, however it was
// printed.
func reportOutput(streams *ui.Streams, kind failure.Kind) failure.Kind {
	err := streams.WriteError()
	if err == nil {
		return failure.None
	}
	if !ui.IsClosedPipe(err) && kind != failure.Failed {
		fmt.Fprintf(streams.Err, "mobileops: the output is incomplete: %v\n", err)
	}
	return failure.Failed
}
