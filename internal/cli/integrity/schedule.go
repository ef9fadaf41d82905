package integrity

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/cli/moment"
	"github.com/mobileops/mobileops/internal/config"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/finding"
	engine "github.com/mobileops/mobileops/internal/integrity"
	"github.com/mobileops/mobileops/internal/integrity/schedule"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/spf13/cobra"
)

type scheduleOptions struct {
	name, as             string
	daily, weekly, every string
	hourly               bool
	check, verify        bool
	jitter, mail         string
	sample, maxAge       string
	failOn               string
	systemd, cron        bool
	print, force         bool
}

// Lines about files in the help of the verbs of schedules.
const (
	unitFiles = "/etc/systemd/system/mobileops-NAME.service and .timer: the schedule, where systemd runs"
	cronFile  = "/etc/cron.d/mobileops-NAME: the schedule, where it does not"
)

func newSchedule(a *app.App) *cobra.Command {
	var opts scheduleOptions
	cmd := a.Command(app.Spec{
		Use:   "schedule (--daily TIME | --weekly DAY@TIME | --hourly | --every SPAN) [flags]",
		Short: "Have checks run at set times",
		Long: `Have checks run at set times, by a systemd timer where systemd runs, else by
an entry in /etc/cron.d.

The run prints only news, so cron mails nothing while all is well; with systemd
news make the service fail and are in the journal, and --mail sends them. With
--jitter each host of a fleet runs at a time of its own within that span, which
stays the same.

The same schedule a second time changes nothing, another one for the same
baseline replaces it, and a file that somebody edited is left alone without
--force. A systemd service may write to the state and to the anchors in files
that are configured when it is made: make it again when these change. A schedule that is not kept becomes a finding, which integrity status
and every check look for. Where systemd does not run nothing is started, and
what must be run is said.`,
		Example: `
mobileops integrity schedule --daily 03:00 --jitter 30m
mobileops integrity schedule --weekly sun@03:00 --verify --mail security@example.org
mobileops integrity schedule --every 15m --rehash-sample 1% --max-age 30d
mobileops integrity schedule --daily 03:00 --print           # only show what would be written
mobileops integrity schedule --hourly --root /mnt/image      # runbook: prepare an image
`,
		Statuses: []app.Status{
			{Code: 0, Text: "the schedule is in place, or was already"},
			{Code: 3, Text: "a file could not be written, or systemctl failed; which one is said"},
			{Code: 4, Text: "/etc or the state may not be written"},
			{Code: 7, Text: "neither systemd nor /etc/cron.d is there, or --jitter needs a machine id and there is none"},
			{Code: 8, Text: "a file was edited, or is somebody else's (--force replaces it), or that name is taken"},
		},
		Files:   []string{unitFiles, cronFile, "/etc/machine-id: what gives each host its own time", stateFile},
		Audited: true,
		Run:     func(ctx context.Context, _ []string) error { return runSchedule(ctx, a, &opts) },
	})
	opts.addFlags(a, cmd)
	cmd.AddCommand(newScheduleList(a), newScheduleShow(a), newScheduleRemove(a))
	return cmd
}

func (o *scheduleOptions) addFlags(a *app.App, cmd *cobra.Command) {
	nameFlag(a, cmd, &o.name, "compare with the baseline `NAME`")
	fs := cmd.Flags()
	fs.StringVar(&o.daily, "daily", "", "every day at `TIME`, such as 03:00")
	fs.StringVar(&o.weekly, "weekly", "", "every week at `DAY@TIME`, such as sun@03:00")
	fs.BoolVar(&o.hourly, "hourly", false, "at the beginning of every hour")
	fs.StringVar(&o.every, "every", "", "every `SPAN` that divides an hour or a day evenly, such as 15m or 4h")
	fs.BoolVar(&o.check, "check", false, "run integrity check (the default)")
	fs.BoolVar(&o.verify, "verify", false, "run integrity verify, which reads every byte")
	fs.StringVar(&o.jitter, "jitter", "", "up to `SPAN` later, each host at a time of its own, such as 30m")
	fs.StringVar(&o.mail, "mail", "", "mail news to `ADDRESS` (cron: default root)")
	fs.StringVar(&o.as, "as", "", "call the schedule `NAME` (default integrity-check or integrity-verify, and the baseline's name)")
	fs.StringVar(&o.sample, "rehash-sample", "", "let the check read this `SHARE` of the files that need not be read, such as 5%")
	fs.StringVar(&o.maxAge, "max-age", "", "let the check read a file again when it was last read longer than `AGE` ago, such as 7d")
	words := make([]string, 0, 5)
	for _, s := range finding.Severities() {
		words = append(words, s.String())
	}
	app.Choice(cmd, fs, &o.failOn, "fail-on", "", words, "let the run fail only for changes from `SEVERITY` on")
	fs.BoolVar(&o.systemd, "systemd", false, "write a systemd timer, whatever runs here")
	fs.BoolVar(&o.cron, "cron", false, "write a cron entry, whatever runs here")
	fs.BoolVar(&o.print, "print", false, "print the files and write nothing")
	fs.BoolVar(&o.force, "force", false, "replace files that were edited or are somebody else's")
	app.CompleteValues(cmd, "daily", "03:00", "04:30", "22:00")
	app.CompleteValues(cmd, "weekly", "sun@03:00", "sat@22:00", "mon@04:30")
	app.CompleteValues(cmd, "every", "5m", "10m", "15m", "20m", "30m", "2h", "4h", "6h", "12h")
	app.CompleteValues(cmd, "jitter", "5m", "15m", "30m", "1h", "2h")
	app.CompleteValues(cmd, "rehash-sample", "1%", "5%", "10%")
	app.CompleteValues(cmd, "max-age", "1d", "7d", "30d")
	app.CompleteValues(cmd, "mail", "root")
	a.CompleteFlag(cmd, "as", func(ctx context.Context, _ []string, _ string) []string { return completeSchedules(ctx, a) })
}

// timing is when it is to run.
func (o *scheduleOptions) timing() (t schedule.Timing, err error) {
	given := 0
	for _, yes := range []bool{o.daily != "", o.weekly != "", o.hourly, o.every != ""} {
		if yes {
			given++
		}
	}
	switch {
	case given != 1:
		return t, failure.Hint(app.UsageError("say when, once"), "--daily 03:00, --weekly sun@03:00, --hourly or --every 15m")
	case o.daily != "":
		return schedule.Daily(o.daily)
	case o.weekly != "":
		return schedule.Weekly(o.weekly)
	case o.hourly:
		return schedule.Every(time.Hour)
	}
	d, ok := moment.Span(o.every)
	if !ok {
		return t, app.UsageError("--every %q: write a span such as 15m or 4h", o.every)
	}
	return schedule.Every(d)
}

// schedule is what the flags ask for.
func (o *scheduleOptions) schedule(a *app.App, root string) (s schedule.Schedule, err error) {
	s = schedule.Schedule{Name: o.as, Baseline: o.name, Verify: o.verify, Mail: o.mail, Installed: time.Now().UTC().Truncate(time.Second)}
	if s.Timing, err = o.timing(); err != nil {
		return s, err
	}
	if err := engine.CheckName(o.name); err != nil {
		return s, err
	}
	switch {
	case o.check && o.verify:
		return s, app.UsageError("--check and --verify exclude each other: make two schedules")
	case o.systemd && o.cron:
		return s, app.UsageError("--systemd and --cron exclude each other")
	case o.verify && (o.sample != "" || o.maxAge != ""):
		return s, app.UsageError("--rehash-sample and --max-age are for checks: a verify reads everything")
	case o.systemd:
		s.Via = schedule.Systemd
	case o.cron:
		s.Via = schedule.Cron
	default:
		s.Via = schedule.Detect(root)
	}
	if s.Name == "" {
		s.Name = schedule.DefaultName(o.name, engine.DefaultName, o.verify)
	}
	if o.jitter != "" {
		var ok bool
		if s.Jitter, ok = moment.Span(o.jitter); !ok {
			return s, app.UsageError("--jitter %q: write a span such as 30m", o.jitter)
		}
	}
	if s.Args, err = o.args(&s); err != nil {
		return s, err
	}
	if s.Env, s.Dirs, err = scheduleSettings(a); err != nil {
		return s, err
	}
	s.Binary, err = scheduledBinary(root)
	return s, err
}

// args is the command that is run, without the program.
func (o *scheduleOptions) args(s *schedule.Schedule) ([]string, error) {
	args := []string{"integrity", s.Mode(), "--quiet"}
	if o.name != engine.DefaultName {
		args = append(args, "--name", o.name)
	}
	if _, err := parseShare(o.sample); err != nil {
		return nil, err
	}
	if _, err := parseAge(o.maxAge); err != nil {
		return nil, err
	}
	for _, f := range [][2]string{{"--rehash-sample", o.sample}, {"--max-age", o.maxAge}, {"--fail-on", o.failOn}} {
		if f[1] != "" {
			args = append(args, f[0], f[1])
		}
	}
	return args, nil
}

// scheduleSettings are the settings of this call that its environment and
// flags gave: the run has neither.
func scheduleSettings(a *app.App) (env []string, dirs schedule.Dirs, err error) {
	l, err := a.LoadedConfig()
	if err != nil {
		return nil, dirs, err
	}
	given := func(key string) bool {
		kind := l.Origins[key].Kind
		return kind == "flag" || kind == "environment"
	}
	for _, k := range config.Keys() {
		// The tree that was looked at for writing is not the one of the run.
		if given(k.Name) && k.Name != "root" {
			env = append(env, fmt.Sprintf("%s=%v", k.Env(), k.Value(&l.Config)))
		}
	}
	for _, d := range []struct {
		key, value string
		to         *string
	}{{"state_dir", l.StateDir, &dirs.State}, {"log_dir", l.LogDir, &dirs.Log}, {"run_dir", l.RunDir, &dirs.Run}} {
		if given(d.key) || given("state_dir") || l.Origins[d.key].Kind == "file" {
			*d.to = d.value
		}
	}
	for _, place := range l.Integrity.Anchors {
		if file, ok := strings.CutPrefix(place, "file:"); ok {
			dirs.Anchors = append(dirs.Anchors, filepath.Dir(file))
		}
	}
	if file, named := config.FileOf(a.ConfigSources()); named {
		if file, err = filepath.Abs(file); err != nil {
			return nil, dirs, err
		}
		env = append(env, "MOBILEOPS_CONFIG="+file)
	}
	return env, dirs, nil
}

// scheduledBinary is the program that runs: this one, or in an image the one
// that is installed there.
func scheduledBinary(root string) (string, error) {
	if root != "/" {
		for _, path := range []string{"/usr/local/bin/mobileops", "/usr/bin/mobileops"} {
			if _, err := os.Lstat(filepath.Join(root, path)); err == nil {
				return path, nil
			}
		}
	}
	return os.Executable()
}

// looseDir returns the first directory above a program, or the program, that
// others than root could change, and "" when there is none.
func looseDir(program string) string {
	for path := program; ; path = filepath.Dir(path) {
		st, err := os.Lstat(path)
		if err != nil {
			return ""
		}
		sys, ok := st.Sys().(*syscall.Stat_t)
		if ok && (sys.Uid != 0 || st.Mode().Perm()&0o022 != 0 && st.Mode()&fs.ModeSticky == 0) {
			return path
		}
		if path == filepath.Dir(path) {
			return ""
		}
	}
}

// systemctl runs systemctl, where systemd runs this host.
func systemctl(root string) func(context.Context, ...string) error {
	if root != "/" || schedule.Detect("/") != schedule.Systemd {
		return nil
	}
	return func(ctx context.Context, args ...string) error {
		out, err := exec.CommandContext(ctx, "systemctl", args...).CombinedOutput()
		if text := strings.TrimSpace(string(out)); err != nil && text != "" {
			return fmt.Errorf("%w: %s", err, text)
		}
		return err
	}
}

// newInstaller returns what writes schedules into the configured tree.
func newInstaller(a *app.App) (*schedule.Installer, *engine.Engine, error) {
	e, c, err := newEngine(a)
	if err != nil {
		return nil, nil, err
	}
	return &schedule.Installer{Store: e.Store, Root: c.Root, Systemctl: systemctl(c.Root)}, e, nil
}

func runSchedule(ctx context.Context, a *app.App, o *scheduleOptions) error {
	if o.print {
		a.OnlyLooked()
	}
	inst, e, err := newInstaller(a)
	if err != nil {
		return err
	}
	s, err := o.schedule(a, inst.Root)
	if err != nil {
		return err
	}
	if s.Via == schedule.Cron && !o.cron && inst.Root == "/" {
		if _, err := os.Stat("/etc/cron.d"); err != nil {
			return failure.Hint(failure.Errorf(failure.NotReady, "neither systemd nor cron runs here: %w", err), "install cron, or write the files all the same: --cron or --systemd")
		}
	}
	if err := inst.Plan(&s); err != nil {
		return err
	}
	if o.print {
		return printPlan(a, &s)
	}
	out, err := inst.Install(ctx, s, o.force)
	if out == nil {
		return err
	}
	a.SetResult("%s runs %s %s, by %s", s.Name, s.Mode(), s.Timing, s.Via)
	return errors.Join(printInstalled(ctx, a, e, out), err)
}

// printPlan shows the files that would be written.
func printPlan(a *app.App, s *schedule.Schedule) error {
	if a.Streams.Format != ui.Text {
		return a.Streams.Document(scheduleReport{Schema: "mobileops.integrity.schedule/v1", Schedules: []scheduleEntry{newScheduleEntry(s, nil, time.Time{})}})
	}
	var b strings.Builder
	for n := range s.Files {
		if n > 0 {
			b.WriteByte('\n')
		}
		fmt.Fprintf(&b, "# %s\n%s", ui.Escape(filepath.Join(s.Root, s.Files[n].Path)), s.Files[n].Data())
	}
	_, err := fmt.Fprint(a.Streams.Out, b.String())
	return err
}

func printInstalled(ctx context.Context, a *app.App, e *engine.Engine, out *schedule.Outcome) error {
	s := &out.Schedule
	if loose := looseDir(s.Binary); loose != "" && os.Geteuid() == 0 {
		a.Streams.Notice("mobileops: %s runs as root, and others than root can change %s: install mobileops where they cannot", s.Name, loose)
	}
	if _, err := e.Find(ctx, s.Baseline); errors.Is(err, engine.ErrNoBaseline) {
		a.Streams.Notice("mobileops: there is no baseline %q yet (take one: mobileops integrity baseline --name %s)", s.Baseline, s.Baseline)
	}
	if s.Mail != "" {
		if _, err := os.Stat(filepath.Join(s.Root, "usr/sbin/sendmail")); err != nil {
			a.Streams.Notice("mobileops: nothing is mailed before a mailer is installed: there is no %s", filepath.Join(s.Root, "usr/sbin/sendmail"))
		}
	}
	if a.Streams.Format != ui.Text {
		states, err := schedule.Look(s)
		if err != nil {
			return err
		}
		return a.Streams.Document(scheduleReport{
			Schema: "mobileops.integrity.schedule/v1", Changed: out.Changed, Todo: out.Todo,
			Schedules: []scheduleEntry{newScheduleEntry(s, states, time.Time{})},
		})
	}
	if a.Streams.Quiet && len(out.Todo) == 0 {
		return nil
	}
	var b strings.Builder
	theme := a.Streams.Theme()
	verb := "Scheduled"
	switch {
	case len(out.Changed) == 0:
		verb = "Already scheduled"
	case out.Former != nil:
		verb = "Rescheduled"
	}
	fmt.Fprintf(&b, "%s: %s runs integrity %s of baseline %q %s.\n", theme.Good(verb), s.Name, s.Mode(), s.Baseline, whenText(s))
	for _, path := range out.Changed {
		fmt.Fprintf(&b, "  %s\n", ui.Escape(filepath.Join(s.Root, path)))
	}
	fmt.Fprintf(&b, "Next run: %s.\n", nextText(s, time.Now()))
	writeTodo(&b, a, out)
	_, err := fmt.Fprint(a.Streams.Out, b.String())
	return err
}

// writeTodo says what must be run where systemd could not be told.
func writeTodo(b *strings.Builder, a *app.App, out *schedule.Outcome) {
	if len(out.Todo) == 0 {
		return
	}
	fmt.Fprintf(b, "%s systemd does not run here, so nothing was started. Run:\n", a.Streams.Theme().Warn("Not in force yet:"))
	for _, command := range out.Todo {
		fmt.Fprintf(b, "  %s\n", ui.Escape(command))
	}
}

// whenText says when a schedule runs: "daily 03:00, moved by 12m within 30m".
func whenText(s *schedule.Schedule) string {
	text := s.Timing.String()
	switch {
	case s.Jitter > 0 && s.Via == schedule.Cron:
		text += fmt.Sprintf(", on this host %s later", spanText(s.Offset))
	case s.Jitter > 0:
		text += fmt.Sprintf(", and up to %s later", spanText(s.Jitter))
	}
	return text
}

// spanText writes a span of whole minutes: "23m", "1h05m".
func spanText(d time.Duration) string { return strings.TrimSuffix(ui.Duration(d), "00s") }

// nextText says when a schedule runs next.
func nextText(s *schedule.Schedule, now time.Time) string {
	text := stamp(s.Next(now))
	if s.Jitter > 0 && s.Via == schedule.Systemd {
		text += " or up to " + spanText(s.Jitter) + " later"
	}
	return text
}

// noticeMissed tells of schedules that a run found missed, once: cron mails it,
// and after that integrity status has it.
func noticeMissed(a *app.App, gaps []schedule.Gap) {
	for i := range gaps {
		g := &gaps[i]
		last := "it has never run"
		if !g.Last.IsZero() {
			last = "it last ran " + stamp(g.Last)
		}
		a.Streams.Notice("mobileops: schedule %s (%s %s of baseline %s) was missed: %s; see mobileops integrity status",
			g.Schedule.Name, g.Schedule.Mode(), g.Schedule.Timing, g.Schedule.Baseline, last)
	}
}
