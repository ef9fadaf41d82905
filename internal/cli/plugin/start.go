package plugin

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/plugin"
	"github.com/mobileops/mobileops/internal/supervise"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/spf13/cobra"
)

// serviceStatuses are the statuses of verbs about one service.
var serviceStatuses = []app.Status{
	{Code: 1, Text: "no such plugin is installed"},
	{Code: 3, Text: "the service did not start; the end of what it printed is shown"},
	{Code: 5, Text: "the plugin is not what was installed; it was not started"},
	{Code: 7, Text: "the plugin has no service, is disabled, or is not configured"},
}

func newStart(a *app.App) *cobra.Command {
	return a.Command(app.Spec{
		Use:   "start NAME...",
		Short: "Start the service of a plugin, now and whenever the supervisor begins",
		Long: `Start the service of a plugin, now and whenever the supervisor begins.

It returns when the service says that it is ready. The supervisor is begun when it
does not run: as the systemd unit mobileops-plugins.service where that is installed
and systemd is the first process, as a daemon otherwise. For services that run again
after a reboot, the unit is to be enabled.`,
		Example: `
mobileops plugin start siem-integration-plugin
systemctl enable --now mobileops-plugins  # runbook: services that mobileops plugin start began come back after a reboot
`,
		Args:     cobra.MinimumNArgs(1),
		Statuses: append([]app.Status{{Code: 8, Text: "it runs already"}}, serviceStatuses...),
		Files:    []string{socketFile, logFiles, stateFile},
		Audited:  true,
		Complete: completeInstalled(a),
		Run:      func(ctx context.Context, args []string) error { return runStart(ctx, a, args) },
	})
}

func runStart(ctx context.Context, a *app.App, names []string) error {
	e, c, err := newEngine(a, nil)
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := startable(ctx, e, name); err != nil { // before anything is begun for it
			return err
		}
	}
	_, err = supervisor(ctx, c)
	begun := failure.KindOf(err) == failure.NotReady // by us, and with it what was started before
	client, err := needSupervisor(ctx, a, c)
	if err != nil {
		return err
	}
	for _, name := range names {
		if _, err := e.SetStart(ctx, name, true); err != nil {
			return err
		}
		if err := client.Reload(ctx); err != nil {
			return err
		}
		status, err := client.Start(ctx, name, true)
		if begun && failure.KindOf(err) == failure.Busy {
			status, err = untilStarted(ctx, client, name)
		}
		if err != nil {
			return withLast(ctx, a, client, name, err)
		}
		if err := printService(a, "start", &status); err != nil {
			return err
		}
	}
	return nil
}

// untilStarted waits for a service that the supervisor started by itself.
func untilStarted(ctx context.Context, client *supervise.Client, name string) (supervise.Status, error) {
	for status, err := range client.Watch(ctx, name) {
		switch {
		case err != nil:
			return status, err
		case status.State == supervise.Ready:
			return status, nil
		case status.State != supervise.Starting:
			return status, failure.Errorf(failure.Failed, "service %s: %s", name, cmp.Or(status.Message, string(status.State)))
		}
	}
	return supervise.Status{}, cmp.Or(ctx.Err(), error(failure.Errorf(failure.Failed, "the supervisor ended")))
}

// startable says why the service of a plugin cannot be started; nil: it can.
func startable(ctx context.Context, e *plugin.Engine, name string) error {
	r, err := e.Verify(ctx, name)
	if r == nil {
		return err
	}
	if err != nil {
		return fmt.Errorf("%s: %w", name, reword(err))
	}
	m, _, err := e.Manifest(ctx, name)
	switch {
	case err != nil:
		return err
	case m.Service == nil:
		return noService(name)
	case !r.Enabled:
		return failure.Errorf(failure.NotReady, "plugin %s is disabled (mobileops plugin enable %s)", name, name)
	}
	return nil
}

func noService(name string) error {
	return failure.Errorf(failure.NotReady, "plugin %s has no service (see what it is: mobileops plugin info %s)", name, name)
}

// withLast shows the end of what a service printed that did not start.
func withLast(ctx context.Context, a *app.App, client *supervise.Client, name string, err error) error {
	status, failed := client.Status(ctx, name)
	if failed != nil || len(status.Last) == 0 || failure.KindOf(err) == failure.Busy {
		return err
	}
	const shown = 5
	for _, line := range status.Last[max(0, len(status.Last)-shown):] {
		a.Streams.Notice("%s: %s", name, ui.Escape(string(line.Text)))
	}
	return failure.Hint(err, "see more: mobileops plugin logs "+name)
}

func newStop(a *app.App) *cobra.Command {
	var everything bool
	cmd := a.Command(app.Spec{
		Use:   "stop NAME...",
		Short: "Stop the service of a plugin, and leave it stopped",
		Long: `Stop the service of a plugin, and leave it stopped when the supervisor begins.

It gets SIGTERM and the time that its manifest says to finish what it has begun,
and is killed after that, with everything that it started. With --all, all services
are stopped and the supervisor ends: hooks do not run from then on either.`,
		Example: `
mobileops plugin stop siem-integration-plugin
mobileops plugin stop --all   # runbook: nothing of any plugin runs from now on
`,
		Statuses: []app.Status{
			{Code: 0, Text: "it is stopped, and is not started with the supervisor any more"},
			{Code: 1, Text: "no such plugin is installed"},
			{Code: 8, Text: "it does not run; or with --all: no supervisor is running"},
		},
		Files:   []string{socketFile, stateFile},
		Audited: true,
		Args: func(cmd *cobra.Command, args []string) error {
			if everything == (len(args) > 0) {
				return app.UsageError("say which: names of plugins, or --all")
			}
			return nil
		},
		Complete: completeInstalled(a),
		Run:      func(ctx context.Context, args []string) error { return runStop(ctx, a, args, everything) },
	})
	cmd.Flags().BoolVar(&everything, "all", false, "all services, and the supervisor")
	return cmd
}

func runStop(ctx context.Context, a *app.App, names []string, everything bool) error {
	e, c, err := newEngine(a, nil)
	if err != nil {
		return err
	}
	client, err := supervisor(ctx, c)
	if everything {
		if failure.KindOf(err) == failure.NotReady {
			return failure.New(failure.Busy, "no supervisor of plugins is running")
		}
		if err != nil {
			return err
		}
		if err := client.Shutdown(ctx); err != nil || a.Streams.Format != ui.Text || a.Streams.Quiet {
			return err
		}
		return say(a.Streams, "all services are stopped, and the supervisor ended")
	}
	for _, name := range names {
		r, failed := e.Get(ctx, name)
		if failed != nil {
			return failed
		}
		if failure.KindOf(err) == failure.NotReady {
			if !r.Start {
				return failure.Errorf(failure.Busy, "the service of %s does not run", name)
			}
			if _, err := e.SetStart(ctx, name, false); err != nil {
				return err
			}
			if err := printService(a, "stop", &supervise.Status{Name: name, State: supervise.Stopped}); err != nil {
				return err
			}
			continue
		}
		if err != nil {
			return err
		}
		if _, err := e.SetStart(ctx, name, false); err != nil {
			return err
		}
		status, err := client.Stop(ctx, name)
		if errors.Is(err, supervise.ErrUnknown) || failure.KindOf(err) == failure.Usage { // it is disabled, or has none
			return failure.Errorf(failure.Busy, "the service of %s does not run", name)
		}
		if err != nil {
			return err
		}
		if err := printService(a, "stop", &status); err != nil {
			return err
		}
	}
	return nil
}

func newRestart(a *app.App) *cobra.Command {
	return a.Command(app.Spec{
		Use:   "restart NAME...",
		Short: "Stop the service of a plugin if it runs, and start it",
		Long: `Stop the service of a plugin if it runs, and start it: as the version that is
installed now, with the configuration that stands in its file now.`,
		Example: `
mobileops plugin restart siem-integration-plugin   # runbook: after its configuration was changed
`,
		Args:     cobra.MinimumNArgs(1),
		Statuses: serviceStatuses,
		Files:    []string{socketFile, logFiles, stateFile},
		Audited:  true,
		Complete: completeInstalled(a),
		Run: func(ctx context.Context, args []string) error {
			e, c, err := newEngine(a, nil)
			if err != nil {
				return err
			}
			client, err := needSupervisor(ctx, a, c)
			if err != nil {
				return err
			}
			for _, name := range args {
				if err := startable(ctx, e, name); err != nil { // while the old one still runs
					return err
				}
				if _, err := e.SetStart(ctx, name, true); err != nil {
					return err
				}
				if err := client.Reload(ctx); err != nil {
					return err
				}
				status, err := client.Restart(ctx, name, true)
				if err != nil {
					return withLast(ctx, a, client, name, err)
				}
				if err := printService(a, "restart", &status); err != nil {
					return err
				}
			}
			return nil
		},
	})
}

// serviceDocument is the document of verbs that change one service.
type serviceDocument struct {
	Schema  string            `json:"schema"`
	Service *supervise.Status `json:"service"`
}

// printService says what became of a service.
func printService(a *app.App, verb string, s *supervise.Status) error {
	if a.Streams.Format != ui.Text {
		return a.Streams.Document(serviceDocument{"mobileops.plugin." + verb + "/v1", s})
	}
	if a.Streams.Quiet {
		return nil
	}
	text := fmt.Sprintf("%s: %s", s.Name, s.State)
	if s.PID > 0 {
		text += fmt.Sprintf(" (process %d)", s.PID)
	}
	_, err := fmt.Fprintln(a.Streams.Out, text)
	return err
}
