package plugin

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/plugin/manifest"
	"github.com/mobileops/mobileops/internal/supervise"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/spf13/cobra"
)

// serviceView is a service as people and programs see it.
type serviceView struct {
	*supervise.Status
	Start   bool   `json:"start"`   // it runs whenever the supervisor does
	Enabled bool   `json:"enabled"` // otherwise it never runs
	Version string `json:"version"` // that is installed
}

// statusDocument is the document of plugin status.
type statusDocument struct {
	Schema     string        `json:"schema"`
	Supervisor bool          `json:"supervisor"` // it runs
	Services   []serviceView `json:"services"`
}

func newStatus(a *app.App) *cobra.Command {
	return a.Command(app.Spec{
		Use:   "status [NAME]",
		Short: "Show how services of plugins are",
		Long: `Show how services of plugins are; with a name, everything about that one.

A service that is to run and does not, or that says of itself that it fails, makes
the status 1. With --quiet only such are printed.`,
		Example: `
mobileops plugin status
mobileops plugin status siem-integration-plugin --output json | jq '.services[0].health'
*/5 * * * * root mobileops plugin status --quiet   # cron: mails when a service fails
`,
		Args: cobra.MaximumNArgs(1),
		Statuses: []app.Status{
			{Code: 0, Text: "every service that is to run does"},
			{Code: 1, Text: "one does not, or fails; or no such plugin is installed"},
			{Code: 7, Text: "the plugin has no service"},
		},
		Files:    []string{socketFile, stateFile},
		Complete: completeInstalled(a),
		Run:      func(ctx context.Context, args []string) error { return runStatus(ctx, a, args) },
	})
}

func runStatus(ctx context.Context, a *app.App, args []string) error {
	views, hooked, running, err := services(ctx, a, args)
	if err != nil {
		return err
	}
	bad := slices.ContainsFunc(views, func(v serviceView) bool { return v.needsAttention() })
	if a.Streams.Quiet {
		views = slices.DeleteFunc(views, func(v serviceView) bool { return !v.needsAttention() })
	}
	switch {
	case a.Streams.Format != ui.Text:
		err = a.Streams.Document(statusDocument{"mobileops.plugin.status/v1", running, views})
	case len(args) > 0 && len(views) == 1:
		err = printStatus(a, &views[0])
	case len(views) > 0:
		err = printServices(a, views)
	case !a.Streams.Quiet:
		a.Streams.Notice("no installed plugin has a service")
	}
	if err == nil && !running && !a.Streams.Quiet && slices.ContainsFunc(views, func(v serviceView) bool { return v.Start && v.Enabled }) {
		a.Streams.Notice("the supervisor does not run (begin it: systemctl start mobileops-plugins, or mobileops plugin start NAME)")
	}
	if err == nil && !running && !a.Streams.Quiet && len(hooked) > 0 {
		a.Streams.Notice("hooks wait until a supervisor runs: %s (%s)", strings.Join(hooked, ", "), beginSupervisor)
	}
	if err == nil && bad {
		err = failure.Silent(failure.No)
	}
	return err
}

// beginSupervisor says how hooks come to be called.
const beginSupervisor = "begin one: systemctl enable --now mobileops-plugins, or mobileops plugin supervise"

// supervised says whether a plugin has hooks that the supervisor calls.
func supervised(m *manifest.Manifest) bool {
	return slices.ContainsFunc(m.Hooks, func(h manifest.Hook) bool {
		return h.On == manifest.OnFinding || h.On == manifest.OnAudit || h.On == manifest.OnSchedule
	})
}

// needsAttention says whether a service is not as somebody wants it.
func (v *serviceView) needsAttention() bool {
	return v.State == supervise.Failed || v.State == supervise.BackingOff || v.Start && v.Enabled && v.State == supervise.Stopped ||
		v.Health != nil && v.Health.Status != "ok"
}

// services are the installed services: what the supervisor says of them, or that
// they are stopped when it does not run. Hooked are the plugins with hooks that
// it calls.
func services(ctx context.Context, a *app.App, names []string) (views []serviceView, hooked []string, running bool, err error) {
	e, c, err := newEngine(a, nil)
	if err != nil {
		return nil, nil, false, err
	}
	list, err := e.List(ctx)
	if err != nil {
		return nil, nil, false, err
	}
	known := map[string]supervise.Status{}
	client, err := supervisor(ctx, c)
	switch {
	case err == nil:
		running = true
		all, err := client.List(ctx)
		if err != nil {
			return nil, nil, running, err
		}
		for _, s := range all {
			known[s.Name] = s
		}
	case failure.KindOf(err) != failure.NotReady:
		return nil, nil, false, err
	}
	views = []serviceView{}
	for _, r := range list {
		if len(names) > 0 && r.Name != names[0] {
			continue
		}
		m, _, broken := e.Manifest(ctx, r.Name)
		if broken != nil && len(names) > 0 {
			return nil, nil, running, broken
		}
		if broken == nil && r.Enabled && supervised(m) {
			hooked = append(hooked, r.Name)
		}
		if broken != nil && !r.Start || broken == nil && m.Service == nil {
			continue
		}
		s, ok := known[r.Name]
		if !ok {
			s = supervise.Status{Name: r.Name, State: supervise.Stopped}
		} else if len(names) > 0 {
			if s, err = client.Status(ctx, r.Name); err != nil {
				return nil, nil, running, err
			}
		}
		switch {
		case broken != nil:
			s.Message = broken.Error()
		case !running && r.Start && r.Enabled:
			s.Message = "no supervisor is running"
		}
		views = append(views, serviceView{&s, r.Start, r.Enabled, r.Version})
	}
	if len(names) > 0 && len(views) == 0 {
		if _, err := e.Get(ctx, names[0]); err != nil {
			return nil, nil, running, err
		}
		return nil, nil, running, noService(names[0])
	}
	return views, hooked, running, nil
}

// styleOf gives a state its meaning in colour.
func styleOf(t ui.Theme, v *serviceView) func(string) string {
	switch {
	case v.needsAttention():
		return t.Bad
	case v.State == supervise.Ready:
		return t.Good
	}
	return t.Faint
}

func printServices(a *app.App, views []serviceView) error {
	t := a.Streams.NewTable(ui.Column{Title: "NAME"}, ui.Column{Title: "VERSION", Drop: 2}, ui.Column{Title: "STATE"}, ui.Column{Title: "HEALTH"},
		ui.Column{Title: "SINCE", Drop: 1}, ui.Column{Title: "PROCESS", Right: true, Drop: 3}, ui.Column{Title: "RESTARTS", Right: true, Drop: 4}, ui.Column{Title: "MESSAGE", Min: 20})
	for i := range views {
		v := &views[i]
		t.Row(v.Name, v.Version, ui.Cell{Text: stateWord(v), Style: styleOf(a.Streams.Theme(), v)}, healthWord(v), sinceWord(v), numberWord(v.PID), numberWord(v.Restarts), v.message())
	}
	return t.Print()
}

func stateWord(v *serviceView) string {
	if !v.Enabled {
		return "disabled"
	}
	return string(v.State)
}

func healthWord(v *serviceView) string {
	if v.Health == nil {
		return ""
	}
	return v.Health.Status
}

func sinceWord(v *serviceView) string {
	if v.Since.IsZero() {
		return ""
	}
	return ui.Ago(v.Since, time.Now())
}

func numberWord(n int) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprint(n)
}

// message is what there is to say of a service, in one line.
func (v *serviceView) message() string {
	if v.Health != nil && v.Health.Message != "" && v.State == supervise.Ready {
		return v.Health.Message
	}
	return v.Message
}

// printStatus shows everything about one service.
func printStatus(a *app.App, v *serviceView) error {
	t := a.Streams.NewTable(ui.Column{}, ui.Column{Min: 20})
	t.Row("name", v.Name)
	t.Row("version", v.Version)
	t.Row("state", ui.Cell{Text: stateWord(v), Style: styleOf(a.Streams.Theme(), v)})
	if !v.Since.IsZero() {
		t.Row("since", v.Since.Local().Format(time.RFC3339)+" ("+sinceWord(v)+")")
	}
	t.Row("starts with the supervisor", map[bool]string{true: "yes", false: "no"}[v.Start])
	if v.PID > 0 {
		t.Row("process", numberWord(v.PID))
	}
	if v.Restarts > 0 {
		t.Row("restarts", numberWord(v.Restarts))
	}
	if v.Exit != nil {
		t.Row("last end", v.Exit.String())
	}
	if v.Message != "" {
		t.Row("message", v.Message)
	}
	if v.Health != nil {
		t.Row("health", strings.TrimSuffix(v.Health.Status+": "+v.Health.Message, ": "))
		for _, k := range slices.Sorted(maps.Keys(v.Health.Metrics)) {
			t.Row("  "+k, fmt.Sprintf("%g", v.Health.Metrics[k]))
		}
	}
	if v.Dropped > 0 {
		t.Row("lines not logged", fmt.Sprint(v.Dropped))
	}
	for _, line := range v.Last {
		t.Row("printed", string(line.Text))
	}
	return t.Print()
}
