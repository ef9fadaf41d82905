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
	"strings"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/cli/audit"
	"github.com/mobileops/mobileops/internal/cli/compat"
	"github.com/mobileops/mobileops/internal/cli/config"
	"github.com/mobileops/mobileops/internal/cli/docs"
	"github.com/mobileops/mobileops/internal/cli/finding"
	"github.com/mobileops/mobileops/internal/cli/integrity"
	"github.com/mobileops/mobileops/internal/cli/logs"
	"github.com/mobileops/mobileops/internal/cli/state"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/spf13/cobra"
)

// Main runs the command line args, where args[0] is the name it was called by,
// and returns the exit status. A cancelled context interrupts it.
func Main(ctx context.Context, args []string, streams *ui.Streams, getenv func(string) string) int {
	a := app.New(streams, getenv)
	root := NewRoot(a)
	root.SetOut(streams.Out)
	root.SetErr(streams.Err)
	where, err := execute(ctx, a, root, args)
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
	root.SetArgs(rest)
	cmd, err := root.ExecuteContextC(ctx)
	_, where, _ = strings.Cut(cmd.CommandPath(), " ")
	return where, err
}

// NewRoot builds the command tree. It opens nothing and reads nothing.
func NewRoot(a *app.App) *cobra.Command {
	root := a.Group("mobileops", "Watch over, secure and update the hosts of a mobile operations platform")
	root.AddCommand(
		// One line for each noun. A noun is a package below this one.
		audit.New(a),
		compat.New(a),
		config.New(a),
		docs.New(a),
		newCompletion(a),
		finding.New(a),
		integrity.New(a),
		logs.New(a),
		state.New(a),
		newVersion(a),
	)

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
	if err == nil || failure.IsSilent(err) {
		return
	}
	if several := joined(err); several != nil {
		for _, e := range several {
			report(streams, where, e)
		}
		return
	}
	prefix := "mobileops: "
	if where != "" {
		prefix += where + ": "
	}
	msg := err.Error()
	if errors.Is(err, context.Canceled) {
		msg = strings.Replace(msg, context.Canceled.Error(), "interrupted", 1)
	}
	fmt.Fprintln(streams.Err, prefix+ui.Printable(msg))
}

// joined returns the errors that errors.Join put together, and nil for an error
// that only wraps several within one sentence.
func joined(err error) []error {
	var j interface{ Unwrap() []error }
	if !errors.As(err, &j) {
		return nil
	}
	var lines []string
	for _, e := range j.Unwrap() {
		lines = append(lines, e.Error())
	}
	if strings.Join(lines, "\n") != err.Error() {
		return nil
	}
	return j.Unwrap()
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
