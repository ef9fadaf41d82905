package plugin

import (
	"context"
	"fmt"
	"strings"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/plugin"
	"github.com/mobileops/mobileops/internal/plugin/catalogue"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/spf13/cobra"
)

func newList(a *app.App) *cobra.Command {
	return a.Command(app.Spec{
		Use:   "list",
		Short: "List the plugins that are installed",
		Long: `List the plugins that are installed: version, who signed it, and what its service
does. NEWER is a version that comes with this mobileops; what indexes have is for
mobileops plugin upgrade --all --dry-run to say. With --quiet only what needs
attention is listed: services that should run and do not.`,
		Example: `
mobileops plugin list
mobileops plugin list --output json | jq -r '.plugins[] | [.name, .version, .service] | @tsv'
*/15 * * * * root mobileops plugin list --quiet   # cron: mails services that do not run
`,
		Statuses: []app.Status{
			{Code: 0, Text: "done, also when none is installed"},
			{Code: 1, Text: "a service that should run does not"},
		},
		Files: []string{stateFile, socketFile},
		Run:   func(ctx context.Context, _ []string) error { return runList(ctx, a) },
	})
}

// listDocument is the document of plugin list.
type listDocument struct {
	Schema     string            `json:"schema"`
	Supervisor bool              `json:"supervisor"` // one is running
	Plugins    []installedRecord `json:"plugins"`
}

// serviceDown is what a service does that should run while no supervisor does.
const serviceDown = "not running"

func runList(ctx context.Context, a *app.App) error {
	e, c, err := newEngine(a, nil)
	if err != nil {
		return err
	}
	list, err := e.List(ctx)
	if err != nil {
		return err
	}
	reconcile(ctx, e, c.Plugin.Dir, list)
	states, err := serviceStates(ctx, c)
	if err != nil {
		a.Streams.Notice("mobileops: the supervisor of plugins does not say how services are: %s", ui.Escape(err.Error()))
	}
	newer := map[string]catalogue.Item{}
	if items, err := catalogue.List(); err == nil {
		for _, i := range items {
			newer[i.Name] = i
		}
	}
	doc := listDocument{Schema: "mobileops.plugin.list/v1", Supervisor: states != nil, Plugins: []installedRecord{}}
	kind := failure.None
	for _, r := range list {
		rec := newInstalledRecord(r)
		if s, ok := states[r.Name]; ok {
			rec.Service = string(s.State)
		} else if r.Start && r.Enabled {
			rec.Service = serviceDown
		}
		if i, ok := newer[r.Name]; ok && r.Bundled && i.Sequence > r.Sequence {
			rec.Available = i.Version
		}
		if s, ok := states[r.Name]; r.Start && r.Enabled && (!ok || !running(s)) {
			kind = failure.No
		}
		doc.Plugins = append(doc.Plugins, rec)
	}
	if a.Streams.Format != ui.Text {
		err = printMany(a.Streams, doc, doc.Plugins)
	} else {
		err = printList(a, &doc)
	}
	if err != nil {
		return err
	}
	return failure.Silent(kind)
}

// reconcile has the index of commands follow the records when it does not, as
// after a crash between the two. Who may not change it does not have to.
func reconcile(ctx context.Context, e *plugin.Engine, dir string, list []*plugin.Record) {
	x, err := plugin.ReadIndex(dir)
	same := err == nil
	if same {
		n := 0
		for _, r := range list {
			if r.Enabled {
				n++
				entry := x.Find(r.Name)
				same = same && entry != nil && entry.Manifest == r.Manifest
			}
		}
		same = same && n == len(x.Plugins)
	}
	if !same {
		_, _ = e.Reconcile(ctx)
	}
}

func printList(a *app.App, doc *listDocument) error {
	theme := a.Streams.Theme()
	table := a.Streams.NewTable(ui.Column{Title: "NAME"}, ui.Column{Title: "VERSION"}, ui.Column{Title: "ENABLED"}, ui.Column{Title: "SERVICE"},
		ui.Column{Title: "SIGNED BY", Drop: 2}, ui.Column{Title: "NEWER", Drop: 3}, ui.Column{Title: "SOURCE", Min: 16, KeepEnd: true, Drop: 1})
	for i := range doc.Plugins {
		r := &doc.Plugins[i]
		down := r.Start && r.Enabled && r.Service != "ready" && r.Service != "starting" && r.Service != "stopping" && r.Service != "backing-off"
		if a.Streams.Quiet && !down {
			continue
		}
		service := ui.Cell{Text: r.Service}
		if down {
			service.Style = theme.Bad
		} else if r.Service == "ready" {
			service.Style = theme.Good
		}
		enabled := ui.Cell{Text: yes(r.Enabled)}
		if !r.Enabled {
			enabled.Style = theme.Warn
		}
		table.Row(r.Name, r.Version, enabled, service, signer(r.Bundled, r.Key), r.Available, r.Source)
	}
	if err := table.Print(); err != nil {
		return err
	}
	if a.Streams.Quiet {
		return nil
	}
	var newer []string
	for _, r := range doc.Plugins {
		if r.Available != "" {
			newer = append(newer, r.Name)
		}
	}
	switch {
	case len(doc.Plugins) == 0:
		a.Streams.Notice("no plugin is installed (see what there is: mobileops plugin search)")
	case len(newer) > 0:
		a.Streams.Notice("newer: mobileops plugin upgrade %s", strings.Join(newer, " "))
	}
	return nil
}

// signer says by whom a plugin was signed.
func signer(bundled bool, key string) string {
	if bundled {
		return "mobileops"
	}
	return fmt.Sprintf("key %s", key)
}
