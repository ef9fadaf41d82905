package plugin

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/cli/sdnotify"
	"github.com/mobileops/mobileops/internal/config"
	"github.com/mobileops/mobileops/internal/durable"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/plugin"
	"github.com/mobileops/mobileops/internal/supervise"
	"github.com/mobileops/mobileops/internal/supervise/systemd"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/spf13/cobra"
)

// Files of the supervisor, as help says it.
const (
	socketFile = "/run/mobileops/plugins.sock: where the supervisor is asked"
	logFiles   = "/var/log/mobileops/plugins/NAME.log: what services print"
)

// supervisorUnit is the systemd unit that runs the supervisor.
const supervisorUnit = "mobileops-plugins.service"

// logDir is where services of plugins log.
func logDir(c *config.Config) string { return filepath.Join(c.LogDir, "plugins") }

func newSupervise(a *app.App) *cobra.Command {
	return a.Command(app.Spec{
		Use:   "supervise",
		Short: "Keep services of plugins running and give hooks their events",
		Long: `Keep services of plugins running, and give hooks their events.

It runs until it is stopped, best as the systemd unit mobileops-plugins.service;
mobileops plugin start begins it where nobody has. Services that were started with
mobileops plugin start run from then on whenever this does. One that fails is
started again, later each time, and is left as failed after five failures within
ten minutes. A plugin is proved at each start: signature, manifest and every file.

Hooks on findings, on audit records and on a schedule run here. Events that come
while this does not run wait for it.`,
		Example: `
mobileops plugin supervise
systemctl enable --now mobileops-plugins  # runbook: mobileops plugin supervise as a service, also after a reboot
mobileops plugin status                   # how services are
`,
		Statuses: []app.Status{
			{Code: 0, Text: "ended by SIGTERM or SIGHUP, or by mobileops plugin stop --all; all services were ended"},
			{Code: 8, Text: "it runs already"},
			{Code: 130, Text: "ended by Ctrl-C; all services were ended"},
		},
		Files: []string{socketFile, logFiles, installedFiles, stateFile},
		Run:   func(ctx context.Context, _ []string) error { return runSupervise(ctx, a) },
	})
}

func runSupervise(ctx context.Context, a *app.App) error {
	e, c, err := newEngine(a, nil)
	if err != nil {
		return err
	}
	for _, dir := range []string{c.RunDir, c.LogDir} {
		if err := durable.MkdirAll(dir, 0o700); err != nil {
			return err
		}
	}
	signals, unhook := app.EndSignals()
	defer unhook()
	manager := sdnotify.New(a.Getenv)
	err = e.Supervise(ctx, plugin.SuperviseOptions{
		RunDir: filepath.Join(c.RunDir, "plugins"), LogDir: logDir(c), Socket: socket(c),
		Ready: func() {
			manager.Ready()
			if !a.Streams.Quiet {
				a.Streams.Notice("mobileops: plugin supervise: ready (see: mobileops plugin status)")
			}
		},
		Warn: func(format string, args ...any) {
			a.Streams.Notice("mobileops: plugin supervise: %s", ui.Escape(fmt.Sprintf(format, args...)))
		},
	})
	manager.Stopping()
	if err == nil && ctx.Err() != nil {
		return app.EndedBy(signals)
	}
	return err
}

// supervisor finds the supervisor. Without one the error is of kind
// failure.NotReady.
func supervisor(ctx context.Context, c *config.Config) (*supervise.Client, error) {
	client, err := supervise.Dial(ctx, socket(c))
	if failure.KindOf(err) == failure.NotReady {
		return nil, failure.Hint(failure.New(failure.NotReady, "no supervisor of plugins is running"), "start a service: mobileops plugin start NAME")
	}
	return client, err
}

// needSupervisor finds the supervisor, and begins it when there is none: as the
// unit where systemd is the first process and has it, as a daemon otherwise.
func needSupervisor(ctx context.Context, a *app.App, c *config.Config) (*supervise.Client, error) {
	client, err := supervisor(ctx, c)
	if failure.KindOf(err) != failure.NotReady {
		return client, err
	}
	if os.Geteuid() == 0 && systemd.Booted() && c.StateDir == config.UsualPaths(0, a.Getenv).StateDir {
		s, err := systemd.Dial(ctx, systemd.SystemBus)
		if err != nil {
			return nil, err
		}
		defer s.Close()
		unit, err := s.Unit(ctx, supervisorUnit)
		if err != nil {
			return nil, err
		}
		if unit.Load == "loaded" {
			if err := s.Start(ctx, supervisorUnit); err != nil {
				return nil, failure.Hint(err, "see why: journalctl -u "+supervisorUnit)
			}
			return supervisor(ctx, c)
		}
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	if err := durable.MkdirAll(logDir(c), 0o700); err != nil {
		return nil, err
	}
	loaded, err := a.LoadedConfig()
	if err != nil {
		return nil, err
	}
	args := []string{"plugin", "supervise", "--quiet", "--state-dir", c.StateDir}
	if loaded.File != "" {
		args = append(args, "--config", loaded.File)
	}
	// What the environment says of the configuration holds for it too.
	env := []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "MOBILEOPS_LOG_DIR=" + c.LogDir, "MOBILEOPS_RUN_DIR=" + c.RunDir,
		"MOBILEOPS_PLUGIN_DIR=" + c.Plugin.Dir, "MOBILEOPS_PLUGIN_CONFIG_DIR=" + c.Plugin.ConfigDir, "MOBILEOPS_PLUGIN_KEYS=" + c.Plugin.Keys}
	for _, name := range []string{"HOME", "XDG_STATE_HOME", "XDG_CONFIG_HOME", "XDG_RUNTIME_DIR"} {
		if v := a.Getenv(name); v != "" {
			env = append(env, name+"="+v)
		}
	}
	return supervise.Detach(ctx, supervise.Daemon{Path: self, Args: args, Env: env, Log: filepath.Join(logDir(c), "supervisor.log"), Socket: socket(c)})
}
