package integrity

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/cli/moment"
	"github.com/mobileops/mobileops/internal/cli/sdnotify"
	"github.com/mobileops/mobileops/internal/config"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/integrity/watch"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/spf13/cobra"
)

type watchOptions struct {
	name        string
	exec        string
	execTimeout string
	duration    string
	inotify     bool
	enforce     bool
	learn       bool
	trial       string
	allow       []string
	also        []string
	keep        bool
	release     bool
}

func newWatch(a *app.App) *cobra.Command {
	var opts watchOptions
	cmd := a.Command(app.Spec{
		Use:   "watch [flags]",
		Short: "Tell who changes files of the baseline, while it happens",
		Long: `Tell who changes files of the baseline, while it happens.

The kernel reports every change on the filesystems that the policy covers
(fanotify), and this command says which process made it: number, program,
command line, user, login user, control group and parents. What one process
does to a file within half a second, or within 5 seconds when it does not stop,
is one record. Then the file is compared with the baseline: what differs becomes
a finding, and when the file is as in the baseline again, that is resolved.

When it starts, everything is compared in the way of a check, and the time in
which nobody watched is reported. When more happens than can be read, the kernel
drops events: then everything is compared again, and that is reported too. A new
baseline is taken up at once. Of a process that ended before it could be looked
at, the number alone is told. Without root, inotify is used, which does not tell
processes.

What changes through a shared mapping (mmap) is seen when the file is closed, not
when it is written; what is written to the disk below the filesystem is not seen
at all. Run mobileops integrity check and verify beside it.

--enforce lets the kernel ask before it executes a file on these filesystems, and
denies what has a content that is neither in the baseline nor in the allow-list
(integrity/exec-allow in the state directory, and --allow-exec). It begins as a
trial of a minute, and ends by itself unless mobileops integrity watch --keep
confirms it; mobileops integrity watch --release ends it at any time. It does not
begin when it would deny a program that root needs to log in, what takes longer
than 2 seconds to decide is allowed, and when the watch ends or is killed, the
kernel allows everything. Scripts are asked for when they are executed by name,
not when they are given to their interpreter; shared libraries are never asked
for, nor is a program that is given to the dynamic loader as an argument. While
it enforces, Ctrl-Z is ignored; stopped by SIGSTOP, it keeps programs waiting until
it goes on or is killed. --learn denies nothing, and notes what would be denied in the allow-list.

A terminating signal (SIGTERM, SIGHUP) ends the watch in an orderly way with
status 0, Ctrl-C does so with status 130.`,
		Example: `
mobileops integrity watch
mobileops integrity watch --quiet --output jsonl >> /var/log/changes.jsonl  # what differs, for another tool
mobileops integrity watch --exec 'logger -t integrity --file -'  # each record to a command, as JSON
mobileops integrity watch --for 10m  # runbook: who keeps changing this file?
mobileops integrity watch --learn    # note what is executed that the baseline does not know
mobileops integrity watch --enforce  # deny it, for a minute
mobileops integrity watch --keep     # and for good
@reboot root mobileops integrity watch --quiet --output jsonl >> /var/log/changes.jsonl  # cron, where there is no systemd
`,
		Statuses: []app.Status{
			{Code: 0, Text: "ended by SIGTERM or SIGHUP, or --for passed and everything is as in the baseline"},
			{Code: 1, Text: "--for passed, and something differed from the baseline"},
			{Code: 4, Text: "--enforce without root, or the state belongs to another user"},
			{Code: 5, Text: "the baseline or the state is damaged"},
			{Code: 6, Text: "--for passed, and not everything could be watched"},
			{Code: 7, Text: "there is no such baseline; or enforcement would lock root out, or is not in force"},
			{Code: 8, Text: "another watch of that baseline is running; its holder is named"},
			{Code: 130, Text: "ended by Ctrl-C; what was seen was kept"},
		},
		Files: []string{
			baselineFile, stateFile,
			"integrity/exec-allow in the state directory: contents that may be executed",
			"integrity-watch-NAME.sock in the run directory: through it --keep and --release reach the watch",
		},
		Audited: true,
		Run:     func(ctx context.Context, _ []string) error { return runWatch(ctx, a, &opts) },
	})
	opts.addFlags(a, cmd)
	return cmd
}

func (o *watchOptions) addFlags(a *app.App, cmd *cobra.Command) {
	nameFlag(a, cmd, &o.name, "watch what the baseline `NAME` covers")
	fs := cmd.Flags()
	fs.StringVar(&o.exec, "exec", "", "run `CMD` for each record, with the record as JSON on its standard input")
	fs.StringVar(&o.execTimeout, "exec-timeout", "30s", "kill that command after `DURATION`")
	fs.StringVar(&o.duration, "for", "", "end after `DURATION`, such as 10m")
	fs.BoolVar(&o.inotify, "inotify", false, "use inotify even where fanotify could be used")
	fs.BoolVar(&o.enforce, "enforce", false, "deny the execution of files whose content is not in the baseline")
	fs.BoolVar(&o.learn, "learn", false, "deny nothing, and note what --enforce would deny in the allow-list")
	fs.StringVar(&o.trial, "trial", "60s", "end enforcement after `DURATION` unless it is confirmed; 0s: it needs no confirmation")
	fs.StringArrayVar(&o.allow, "allow-exec", nil, "allow the content of `FILE`, or everything below a directory, to be executed")
	fs.StringArrayVar(&o.also, "enforce-on", nil, "look at executions on the filesystem of `DIR` too")
	fs.BoolVar(&o.keep, "keep", false, "confirm the enforcement that is on trial, and end")
	fs.BoolVar(&o.release, "release", false, "end the enforcement that is in force, and end; the watch goes on")
	app.CompleteValues(cmd, "for", "1m", "10m", "1h", "1d")
	app.CompleteValues(cmd, "exec-timeout", "10s", "30s", "5m")
	app.CompleteValues(cmd, "trial", "60s", "10m", "0s")
	app.CompleteFiles(cmd, "allow-exec")
	app.CompleteDirs(cmd, "enforce-on")
}

// check refuses flags that do not fit together.
func (o *watchOptions) check(a *app.App) error {
	switch {
	case o.keep && o.release:
		return app.UsageError("--keep and --release exclude each other")
	case (o.keep || o.release) && (o.enforce || o.learn || o.exec != "" || o.duration != ""):
		return app.UsageError("--keep and --release talk to a watch that runs already: give them alone, with --name")
	case o.enforce && o.learn:
		return app.UsageError("--enforce and --learn exclude each other")
	case o.enforce && o.exec != "":
		return app.UsageError("--enforce and --exec exclude each other: the program that answers the kernel must not start programs; read its records instead: mobileops integrity watch --enforce --output jsonl | …")
	case !o.enforce && !o.learn && len(o.allow)+len(o.also) > 0:
		return app.UsageError("--allow-exec and --enforce-on belong to --enforce and --learn")
	case (o.enforce || o.learn) && o.inotify:
		return app.UsageError("--inotify cannot look at executions")
	case a.Streams.Format == ui.JSON:
		return app.UsageError("a watch has no end that one document could wait for: use --output jsonl")
	}
	return nil
}

// watchMemory is the soft limit of the process for a watch: what waits to be
// compared while a large archive is unpacked needs more than a check does. A
// watch runs for months, so memory counts for more than what collecting it costs.
const (
	watchMemory    = 72 << 20
	watchGCPercent = 60
)

func runWatch(ctx context.Context, a *app.App, o *watchOptions) error {
	if err := o.check(a); err != nil {
		return err
	}
	e, c, err := newEngine(a)
	if err != nil {
		return err
	}
	if c.Root != "/" {
		return app.UsageError("--root: another tree cannot be watched; take a baseline of it under a name of its own, and watch that")
	}
	if o.keep || o.release {
		return runWatchCommand(a, c, o)
	}
	limit, err := watchSpan("--for", o.duration, 0)
	if err != nil {
		return err
	}
	opts := watch.Options{Name: o.name, Inotify: o.inotify, Quietly: a.Streams.Quiet, Yield: true}
	if opts.Enforce, err = o.enforcement(c); err != nil {
		return err
	}
	if opts.Hook, err = o.hook(a); err != nil {
		return err
	}
	signals, unhook := app.EndSignals()
	defer unhook()
	if o.enforce {
		// Who stops it by Ctrl-Z stops every program that asks it, and with them
		// the way to let it go on.
		signal.Ignore(syscall.SIGTSTP, syscall.SIGTTOU, syscall.SIGTTIN)
	}
	if limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, limit)
		defer cancel()
	}
	manager := sdnotify.New(a.Getenv)
	printer := newWatchPrinter(a.Streams, o.name)
	opts.Report = printer.record
	opts.Warn = func(text string) { a.Streams.Notice("mobileops: integrity watch: %s", text) }
	opts.Alive = manager.Alive
	opts.Ready = func(mode watch.Mode) {
		manager.Ready()
		if !a.Streams.Quiet && a.Streams.Format == ui.Text {
			a.Streams.Notice("Watching what the baseline %q covers (%s). Ctrl-C ends it.", o.name, mode)
		}
	}
	debug.SetMemoryLimit(watchMemory)
	debug.SetGCPercent(watchGCPercent)
	sum, err := watch.Run(ctx, e, opts)
	manager.Stopping()
	ended := limit > 0 && ctx.Err() == context.DeadlineExceeded
	if sum == nil {
		if ended && errors.Is(err, ctx.Err()) {
			return failure.Hint(failure.New(failure.Incomplete, "--for passed before anything was watched"), "give it more time")
		}
		if ctx.Err() != nil && failure.KindOf(err) == failure.Interrupted {
			return app.EndedBy(signals)
		}
		return err
	}
	a.SetResult("%d events, %d records, %d differ from the baseline, %d executions denied, %d overflows", sum.Events, sum.Records, sum.Changes, sum.Denied, sum.Overflows)
	if perr := printer.summary(sum); err == nil {
		err = perr
	}
	switch {
	case err != nil:
		return err
	case !ended:
		return app.EndedBy(signals)
	case len(sum.Incomplete) > 0:
		return failure.Silent(failure.Incomplete)
	case sum.Changes+sum.Denied > 0:
		return failure.Silent(failure.No)
	}
	return nil
}

// watchSpan reads a length of time that a flag gives.
func watchSpan(flag, text string, def time.Duration) (time.Duration, error) {
	if text == "" {
		return def, nil
	}
	d, ok := moment.Span(text)
	if !ok {
		return 0, failure.Errorf(failure.Usage, "%s %q: write a time such as 10m or 90s", flag, text)
	}
	return d, nil
}

// enforcement gathers what --enforce and --learn need; nil: neither was given.
func (o *watchOptions) enforcement(c *config.Config) (*watch.Enforce, error) {
	if !o.enforce && !o.learn {
		return nil, nil
	}
	if os.Geteuid() != 0 {
		return nil, failure.Hint(failure.New(failure.NotAllowed, "only root can look at what is executed"), "run it as root")
	}
	trial, err := watchSpan("--trial", o.trial, 0)
	if err != nil {
		return nil, err
	}
	e := &watch.Enforce{Learn: o.learn, Trial: trial, Control: watch.ControlPath(c.RunDir, o.name), Allow: o.allow}
	if o.learn {
		e.Control = ""
	}
	for _, dir := range o.also {
		abs, err := filepath.Abs(dir)
		if err == nil {
			abs, err = filepath.EvalSymlinks(abs)
		}
		if err != nil {
			return nil, failure.Errorf(failure.Usage, "--enforce-on: %w", err)
		}
		e.Also = append(e.Also, abs)
	}
	return e, nil
}

// runWatchCommand talks to a watch that enforces.
func runWatchCommand(a *app.App, c *config.Config, o *watchOptions) error {
	word := "keep"
	if o.release {
		word = "release"
	}
	said, err := watch.Command(watch.ControlPath(c.RunDir, o.name), word)
	if err != nil {
		return err
	}
	a.SetResult("%s", said)
	if a.Streams.Format == ui.JSONL {
		return a.Streams.Document(struct {
			Schema string `json:"schema"`
			Type   string `json:"type"`
			Text   string `json:"text"`
		}{watchSchema, "answer", said})
	}
	if a.Streams.Quiet {
		return nil
	}
	_, err = fmt.Fprintln(a.Streams.Out, said)
	return err
}
