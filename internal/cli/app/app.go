// Package app is what every command is built from: streams, configuration,
// state, exit statuses and the layout of its help.
//
// A command is described by a Spec. From the same Spec come the cobra command,
// its --help, its man page and its page in the reference, so they cannot
// disagree. Making an App or a command tree opens nothing and reads nothing:
// completion calls the binary at every press of Tab.
package app

import (
	"fmt"
	"os"
	"time"

	"github.com/mobileops/mobileops/internal/audit"
	"github.com/mobileops/mobileops/internal/config"
	"github.com/mobileops/mobileops/internal/state"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// App is one invocation of mobileops. Making one opens nothing.
type App struct {
	Streams *ui.Streams
	Getenv  func(string) string

	globals    globalFlags
	bound      map[string]*pflag.Flag // configuration key → the flag that overrides it
	specs      map[*cobra.Command]*Spec
	around     Around
	completing bool // answering a press of Tab: be fast and silent

	loaded  *config.Loaded
	loadErr error
	store   *state.Store
	doing   string // the command that runs, for those who wait for it
	result  string
	looked  bool
}

// New returns an invocation that talks through streams and sees the
// environment through getenv.
func New(streams *ui.Streams, getenv func(string) string) *App {
	return &App{Streams: streams, Getenv: getenv}
}

// completionLockTimeout bounds how long a press of Tab waits for another
// process's lease before it offers nothing.
const completionLockTimeout = 200 * time.Millisecond

// Config loads the configuration, once.
func (a *App) Config() (*config.Config, error) {
	l, err := a.LoadedConfig()
	if err != nil {
		return nil, err
	}
	return &l.Config, nil
}

// LoadedConfig loads the configuration, once, and tells where each value came
// from.
func (a *App) LoadedConfig() (*config.Loaded, error) {
	if a.loaded == nil && a.loadErr == nil {
		a.loaded, a.loadErr = config.Load(a.ConfigSources())
	}
	return a.loaded, a.loadErr
}

// ConfigSources are the places that configuration is read from in this
// invocation.
func (a *App) ConfigSources() config.Sources {
	flags := make(map[string]config.FlagValue)
	for key, f := range a.bound {
		if f.Changed {
			flags[key] = config.FlagValue{Name: "--" + f.Name, Value: f.Value.String()}
		}
	}
	return config.Sources{File: a.globals.config, Flags: flags, Getenv: a.Getenv, UID: os.Geteuid()}
}

// State returns the store in the configured state directory. It opens nothing.
func (a *App) State() (*state.Store, error) {
	if a.store != nil {
		return a.store, nil
	}
	c, err := a.Config()
	if err != nil {
		return nil, err
	}
	// 0 says "do not wait" here, and "the usual time" to the store.
	opts := state.Options{LockTimeout: max(c.LockTimeout, time.Millisecond), Doing: a.doing, OnWait: func(holder string) {
		a.Streams.Notice("mobileops: waiting for the state, which is held by %s", holder)
	}}
	if a.completing {
		opts = state.Options{LockTimeout: completionLockTimeout}
	}
	a.store = state.New(c.StateDir, opts)
	return a.store, nil
}

// Audit returns the audit chain in the configured state directory. It opens
// nothing.
func (a *App) Audit() (*audit.Log, error) {
	store, err := a.State()
	if err != nil {
		return nil, err
	}
	c, err := a.Config()
	if err != nil {
		return nil, err
	}
	return audit.New(store, audit.Options{LogDir: c.LogDir}), nil
}

// Actor returns who this invocation acts for.
func (a *App) Actor() audit.Actor {
	return audit.Self(audit.RemoteOfSSH(a.Getenv("SSH_CONNECTION")))
}

// SetResult says in one line what came of an audited command.
func (a *App) SetResult(format string, args ...any) { a.result = fmt.Sprintf(format, args...) }

// OnlyLooked says that this run of an audited command changed nothing, as with
// --dry-run, so there is nothing to record.
func (a *App) OnlyLooked() { a.looked = true }
