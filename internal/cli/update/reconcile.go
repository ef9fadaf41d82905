package update

import (
	"context"
	"fmt"
	"syscall"
	"time"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/state"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/mobileops/mobileops/internal/update"
	"github.com/spf13/cobra"
)

func newReconcile(a *app.App) *cobra.Command {
	var wait, self bool
	cmd := a.Command(app.Spec{
		Use:   "reconcile",
		Short: "End a trial that was broken off by a crash or a reboot",
		Long: `End a trial that was broken off by a crash or a reboot.

While an update is on trial, its hook or its health check running, a crash of
mobileops or of the host leaves it undecided. This decides: hook and health check
run once more, and when they fail the generation before is current again. A unit
runs it at boot, and every trial has a process beside it that does when mobileops
is killed. It does nothing when there is nothing to do.`,
		Example: `
mobileops update reconcile
@reboot root mobileops update reconcile --quiet  # cron, on a host without systemd
`,
		Args: cobra.NoArgs,
		Statuses: []app.Status{
			{Code: 0, Text: "there was no trial, or it passed"},
			{Code: 1, Text: "it failed, and the generation before is current again"},
			{Code: 3, Text: "it failed, and going back failed, too"},
			{Code: 4, Text: "not allowed: this is not root"},
			{Code: 5, Text: "the store or the note about the trial is damaged"},
			{Code: 8, Text: "another update is running"},
		},
		Files:   []string{targetFile, storeFiles, stateFile},
		Audited: true,
		Run: func(ctx context.Context, _ []string) error {
			return runReconcile(ctx, a, wait, self)
		},
	})
	fs := cmd.Flags()
	fs.BoolVar(&wait, "wait", false, "wait while an update is at work, and end its trial if it does not")
	fs.BoolVar(&self, "self", false, "of mobileops itself")
	return cmd
}

func runReconcile(ctx context.Context, a *app.App, wait, self bool) error {
	e, err := chosenEngine(a, self, "update reconcile")
	if err != nil {
		return err
	}
	if wait {
		if over, err := watch(ctx, a, e, self); over || err != nil {
			a.OnlyLooked() // what it has started says what it did
			return err
		}
	}
	n := newNotice(a, "update reconcile")
	p, res, err := e.Resolve(ctx, n)
	if p == nil {
		a.OnlyLooked()
	}
	if p == nil || err != nil {
		return err
	}
	what := fmt.Sprintf("generation %d passed its trial, and stays", p.To)
	if res == nil || res.Undone == "" && !res.Live {
		what = fmt.Sprintf("generation %d was never live, or was undone already", p.To)
	} else if res.Undone != "" {
		what = fmt.Sprintf("generation %d failed its trial (%s); generation %d is current again", p.To, res.Undone, p.From)
	}
	a.SetResult("%s", what)
	a.Streams.Notice("mobileops: update reconcile: %s", ui.Escape(what))
	if res != nil && res.Undone != "" {
		return failure.Silent(failure.No)
	}
	return nil
}

// mostDeaths is how often a trial is given to somebody else whose last one was
// killed. The engine goes back after fewer, unless it cannot write them down.
const mostDeaths = 12

// watch waits while somebody is at work on a trial, and has it ended when nobody is
// any more. Another process does that: a hook that kills its parent ends that one,
// and whoever is left here starts the next, until the engine has gone back. It says
// whether the trial is over; it is not where no process can be started.
func watch(ctx context.Context, a *app.App, e *update.Engine, self bool) (over bool, err error) {
	c, err := a.Config()
	if err != nil {
		return false, err
	}
	at := configured(c)
	if self {
		if at, err = selfPlace(); err != nil {
			return false, err
		}
	}
	args := []string{"update", "reconcile"}
	if a.Streams.Quiet {
		args = append(args, "--quiet")
	}
	for range mostDeaths {
		if over, err := outlive(ctx, e); err != nil || over {
			return over, err
		}
		cmd, err := another(c, at, args...)
		if err != nil {
			return false, nil
		}
		cmd.Stdout, cmd.Stderr = a.Streams.Out, a.Streams.Err
		if cmd.Start() != nil {
			return false, nil
		}
		stop := context.AfterFunc(ctx, func() { _ = cmd.Process.Signal(syscall.SIGTERM) })
		_ = cmd.Wait()
		stop()
		switch status := cmd.ProcessState.ExitCode(); status {
		case -1, failure.Usage.Status(), failure.Busy.Status(), failure.Interrupted.Status():
			// It was killed or has panicked, which is status 2 too, or rollback has asked it to end.
		default:
			kind, _ := failure.OfStatus(status)
			return true, failure.Silent(kind)
		}
		select {
		case <-ctx.Done():
			return false, ctx.Err()
		case <-time.After(time.Second): // for who wants it otherwise, such as rollback
		}
	}
	return false, failure.Hint(failure.Errorf(failure.Failed, "whoever ended the trial died, %d times", mostDeaths), "go back: mobileops rollback")
}

// outlive waits while somebody is at work on a trial, and says whether it is over.
func outlive(ctx context.Context, e *update.Engine) (over bool, err error) {
	lock := state.New(e.Store().Dir(), state.Options{})
	for {
		switch p, err := e.Pending(); {
		case err != nil:
			return false, err
		case p == nil:
			return true, nil
		}
		if _, busy := lock.Holder("update"); !busy {
			return false, nil
		}
		select {
		case <-ctx.Done():
			return false, ctx.Err()
		case <-time.After(200 * time.Millisecond):
		}
	}
}
