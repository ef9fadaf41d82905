package network

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"syscall"
	"time"

	"github.com/mobileops/mobileops/internal/audit"
	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/config"
	"github.com/mobileops/mobileops/internal/network/isolation"
	"github.com/spf13/cobra"
)

// newEngine returns the engine of isolation.
func newEngine(a *app.App, c *config.Config, guard bool) (*isolation.Engine, error) {
	if err := ofThisHost(c); err != nil {
		return nil, err
	}
	store, err := a.State()
	if err != nil {
		return nil, err
	}
	e := &isolation.Engine{Store: store, Warn: func(format string, args ...any) {
		a.Streams.Notice("mobileops: network: "+format, args...)
	}}
	if guard {
		e.StartGuard = func() (<-chan error, error) { return startGuard(c) }
	}
	return e, nil
}

// ofThisHost refuses --root: rules, links and connections are those of the host
// that runs.
func ofThisHost(c *config.Config) error {
	if c.Root != "/" {
		return app.UsageError("--root: a tree has no network of its own; this is about the host that runs")
	}
	return nil
}

// startGuard starts a guard that lives on when this process, its terminal and
// its session end.
func startGuard(c *config.Config) (<-chan error, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self, "network", "guard")
	cmd.Dir = "/"
	cmd.Env = []string{
		"PATH=/usr/sbin:/usr/bin:/sbin:/bin",
		"MOBILEOPS_STATE_DIR=" + c.StateDir, "MOBILEOPS_LOG_DIR=" + c.LogDir, "MOBILEOPS_RUN_DIR=" + c.RunDir,
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	return ended, nil
}

func newGuard(a *app.App) *cobra.Command {
	return a.Command(app.Spec{
		Use:   "guard",
		Short: "Guard isolation that is in force",
		Long: `Guard isolation that is in force.

Run by mobileops network isolate, which leaves it behind. It owns the tables, so
that no other program can change or flush them (Linux 6.9), gives interfaces
that appear their chains at once, and removes the tables when isolation lapses.
When it ends or is killed, isolation stays in force.`,
		Example: `
mobileops network guard     # after it was killed, in the foreground
mobileops network reconcile # better: isolates again where that is needed, and starts a guard
`,
		Statuses: []app.Status{
			notRoot,
			{Code: 0, Text: "isolation has lapsed, was taken back, or the guard was ended by a signal"},
			{Code: 1, Text: "this host is not isolated"},
			{Code: 8, Text: "another guard is running"},
		},
		Files: []string{tablesFile, stateFile, lockFiles},
		Run:   func(ctx context.Context, _ []string) error { return runGuard(ctx, a) },
	})
}

func runGuard(ctx context.Context, a *app.App) error {
	c, err := a.Config()
	if err != nil {
		return err
	}
	e, err := newEngine(a, c, false)
	if err != nil {
		return err
	}
	lock, err := e.Store.Lock(isolation.GuardLock, "network guard")
	if err != nil {
		return err
	}
	defer lock.Release()
	signals, unhook := app.EndSignals()
	defer unhook()
	err = isolation.Guard(ctx, isolation.Guarding{
		Sealed: func(i isolation.Interface) {
			recordGuard(ctx, a, "sealed interface "+i.Name)
			a.Streams.Notice("mobileops: network guard: sealed interface %s", i.Name)
		},
	})
	switch {
	case ctx.Err() != nil:
		return app.EndedBy(signals)
	case errors.Is(err, isolation.ErrLapsed):
		recordGuard(ctx, a, "isolation lapsed: nobody confirmed it")
		return e.Lapsed(ctx)
	}
	return err
}

// recordGuard keeps an act of the guard in the audit chain.
func recordGuard(ctx context.Context, a *app.App, what string) {
	log, err := a.Audit()
	if err == nil {
		_, err = log.Append(ctx, audit.Act{Time: time.Now(), Actor: a.Actor(), Command: "network guard", Result: what})
	}
	if err != nil {
		a.Streams.Notice("mobileops: network guard: audit: %v", err)
	}
}
