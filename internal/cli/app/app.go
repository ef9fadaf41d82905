// Package app is what every command is built from: streams, configuration,
// state, exit statuses and the layout of its help.
package app

import (
	"context"

	"github.com/mobileops/mobileops/internal/config"
	"github.com/mobileops/mobileops/internal/state"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/spf13/cobra"
)

// App is one invocation of mobileops. Making one opens nothing.
type App struct {
	Streams *ui.Streams
	Getenv  func(string) string
}

// Config loads the configuration, once.
func (a *App) Config() (*config.Config, error) { panic("skeleton") }

// State returns the store in the configured state directory. It opens nothing.
func (a *App) State() (*state.Store, error) { panic("skeleton") }

// Spec describes a command that does something.
type Spec struct {
	Use     string // "check [--name NAME]"
	Short   string // one sentence, no full stop
	Long    string // the sentence and what else must be known
	Example string // at least one cron or runbook line where that fits
	Aliases []string
	Args    cobra.PositionalArgs
	// Statuses are the exit statuses it can return, each with what it means
	// here. 2, 3 and 130 are added where missing.
	Statuses []Status
	Files    []string // files it touches, each "path: what for"
	// Audited commands leave a record of who ran them, with what and what came of it.
	Audited bool
	Run     func(ctx context.Context, args []string) error
	// Complete offers completions for positional arguments.
	Complete func(ctx context.Context, args []string, toComplete string) []string
}

// Status is one exit status and what it means for a command.
type Status struct {
	Code int
	Text string
}

// Command builds the cobra command for a Spec.
func (a *App) Command(s Spec) *cobra.Command { panic("skeleton") }

// Group builds the command of a noun, which only holds verbs.
func (a *App) Group(use, short string, verbs ...*cobra.Command) *cobra.Command { panic("skeleton") }

// SetResult says in one line what came of an audited command.
func (a *App) SetResult(format string, args ...any) {}
