package update

import (
	"context"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/config"
	"github.com/mobileops/mobileops/internal/trust"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/mobileops/mobileops/internal/update"
	"github.com/mobileops/mobileops/internal/update/health"
	"github.com/mobileops/mobileops/internal/update/store"
)

// Lines about files in help texts.
const (
	targetFile = "/opt/mobileops: the installation, a link into its store"
	storeFiles = "/opt/mobileops.store: generations and their content"
	keyFiles   = "/etc/mobileops/update-keys: who vouches for packages"
	stateFile  = "/var/lib/mobileops/state.db: history and accepted sequences"
)

// place is an installation: that of the configuration, or mobileops itself.
type place struct {
	target, store string
	self          bool
}

// configured is the place that the configuration names.
func configured(c *config.Config) place {
	return place{target: c.Update.Target, store: c.Update.StoreDir()}
}

// newEngine returns the engine of the configured installation.
func newEngine(a *app.App, doing string) (*update.Engine, *config.Config, error) {
	c, err := a.Config()
	if err != nil {
		return nil, nil, err
	}
	e, err := engineAt(a, c, configured(c), doing)
	return e, c, err
}

// chosenEngine returns the engine of mobileops itself with --self, and otherwise
// that of the configured installation.
func chosenEngine(a *app.App, self bool, doing string) (*update.Engine, error) {
	c, err := a.Config()
	if err != nil {
		return nil, err
	}
	at := configured(c)
	if self {
		if at, err = selfPlace(); err != nil {
			return nil, err
		}
	}
	return engineAt(a, c, at, doing)
}

func engineAt(a *app.App, c *config.Config, p place, doing string) (*update.Engine, error) {
	if c.Root != "/" {
		return nil, app.UsageError("--root: name the installation in the tree with update.target, and where its state is with --state-dir")
	}
	s, err := a.State()
	if err != nil {
		return nil, err
	}
	host, _ := os.Hostname()
	return update.New(update.Options{
		Dir: p.store, Target: p.target, State: s, Self: p.self,
		Keys:          func() (*trust.Keys, error) { return trust.OpenKeys(c.Update.Keys) },
		Channel:       c.Update.Channel,
		RequireChange: c.Update.RequireChange,
		Host:          host,
		Deadline:      c.Update.Deadline,
		By:            a.Actor().Name(),
		Doing:         doing,
		Guard:         func() error { return startGuard(c, p) },
	}), nil
}

// startGuard starts a process that ends the trial of a generation when this one
// dies before it has. It has a session of its own, so that closing a terminal
// does not end it, too.
func startGuard(c *config.Config, p place) error {
	cmd, err := another(c, p, "update", "reconcile", "--wait")
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	go cmd.Wait()
	return nil
}

// another returns a command of mobileops on the same installation, in a session of
// its own.
func another(c *config.Config, p place, args ...string) (*exec.Cmd, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	if p.self {
		args = append(args, "--self")
	}
	cmd := exec.Command(self, args...)
	cmd.Dir = "/"
	cmd.Env = []string{
		"PATH=/usr/sbin:/usr/bin:/sbin:/bin",
		"MOBILEOPS_STATE_DIR=" + c.StateDir, "MOBILEOPS_LOG_DIR=" + c.LogDir, "MOBILEOPS_RUN_DIR=" + c.RunDir,
		"MOBILEOPS_UPDATE_TARGET=" + c.Update.Target, "MOBILEOPS_UPDATE_STORE=" + c.Update.StoreDir(),
		"MOBILEOPS_UPDATE_DEADLINE=" + c.Update.Deadline.String(),
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	return cmd, nil
}

// newNotice returns what tells on standard error what happens while it does, and where a command
// is over within a second, nothing.
func newNotice(a *app.App, command string) *update.Notice {
	n := new(update.Notice)
	say := func(format string, args ...any) {
		a.Streams.Notice("mobileops: "+command+": "+format, args...)
	}
	n.Phase = func(words string) {
		if strings.HasPrefix(words, "unpacking") {
			return // the progress shows it
		}
		if !a.Streams.Quiet {
			say("%s", ui.Escape(words))
		}
	}
	said := ""
	n.Attempt = func(t health.Attempt) {
		if t.Failure != "" && t.Failure != said && !a.Streams.Quiet { // a service that starts fails in the same way many times
			said = t.Failure
			say("attempt %d after %s: %s", t.Number, t.Elapsed.Round(100*time.Millisecond), ui.Escape(update.OneLine(t.Failure)))
		}
	}
	n.Output = func(hook string, o health.Output) {
		if text := strings.TrimRight(string(o.Bytes()), "\n"); text != "" && !a.Streams.Quiet {
			for line := range strings.Lines(text) {
				say("%s: %s", hook, ui.Escape(strings.TrimRight(line, "\n")))
			}
		}
	}
	n.Problem = func(err error) { say("%s", ui.Escape(err.Error())) }
	return n
}

// numberArg reads the number of a generation.
func numberArg(arg string) (int, error) {
	n, err := strconv.Atoi(strings.TrimPrefix(arg, "#"))
	if err != nil || n < 1 {
		return 0, app.UsageError("%q is not the number of a generation (see mobileops update list)", arg)
	}
	return n, nil
}

// completeNumbers completes numbers of generations.
func completeNumbers(a *app.App) func(context.Context, []string, string) []string {
	return func(_ context.Context, _ []string, typed string) (words []string) {
		e, _, err := newEngine(a, "completion")
		if err != nil {
			return nil
		}
		list, err := e.Store().List()
		if err != nil {
			return nil
		}
		for i := len(list) - 1; i >= 0; i-- {
			if w := strconv.Itoa(list[i].Number); strings.HasPrefix(w, typed) {
				words = append(words, w+"\t"+title(list[i]))
			}
		}
		return words
	}
}

// title says in a few words what a generation is.
func title(g *store.Generation) string {
	what := g.Kind
	if g.Damaged != "" {
		return "damaged"
	}
	if g.Origin != nil {
		what = g.Origin.Name + " " + g.Origin.Version
	}
	switch {
	case g.Current:
		what += ", current"
	case g.Staged && g.Kind == store.Updated:
		what += ", staged"
	}
	if g.Pinned != nil {
		what += ", pinned"
	}
	return what
}
