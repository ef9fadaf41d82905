package plugin

import (
	"context"
	"fmt"
	"strings"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/plugin/manifest"
	"github.com/mobileops/mobileops/internal/plugin/sandbox"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/spf13/cobra"
)

func newPermissions(a *app.App) *cobra.Command {
	return a.Command(app.Spec{
		Use:   "permissions NAME",
		Short: "Show what a plugin may do, and what holds it to that on this host",
		Long: `Show what a plugin may do, and what holds it to that on this host: a layer of its
sandbox (landlock, seccomp, rlimits, cgroup, account, network), or the protocol, by
which mobileops does for the plugin what it may not do itself. What has no line it
may not do. Where a permission refers to its configuration, what that comes to now is
listed below it.

What this host cannot enforce is said, and whether somebody accepted that.`,
		Example: `
mobileops plugin permissions siem-integration-plugin
mobileops plugin permissions siem-integration-plugin --output json | jq -r '.effective[] | select(.kind == "network").what'
for p in $(mobileops plugin list --output jsonl | jq -r .name); do mobileops plugin permissions $p; done   # runbook: before an audit
`,
		Args: cobra.ExactArgs(1),
		Statuses: []app.Status{
			{Code: 0, Text: "all of it is enforced"},
			{Code: 1, Text: "no such plugin is installed"},
			{Code: 5, Text: "its manifest is not what was installed"},
			{Code: 6, Text: "something cannot be enforced on this host"},
		},
		Files:    []string{installedFiles, configFiles, stateFile},
		Complete: completeWhich(a, 1, nil),
		Run:      func(ctx context.Context, args []string) error { return runPermissions(ctx, a, args[0]) },
	})
}

// permissionsDocument is the document of plugin permissions.
type permissionsDocument struct {
	Schema      string             `json:"schema"`
	Name        string             `json:"name"`
	Version     string             `json:"version"`
	Permissions []permissionRecord `json:"permissions"` // as they were accepted
	// Effective are the permissions with what the configuration says in place of
	// references to it; absent when the configuration is not valid.
	Effective []manifest.Line `json:"effective,omitempty"`
	Problem   string          `json:"problem,omitempty"` // with the configuration
	Gaps      []gapRecord     `json:"gaps"`

	values manifest.Values
}

type permissionRecord struct {
	manifest.Line
	Layers []sandbox.Layer `json:"layers"` // that enforce it here; "protocol": mobileops does
}

type gapRecord struct {
	sandbox.Gap
	Accepted bool `json:"accepted"` // somebody let it do without
}

func runPermissions(ctx context.Context, a *app.App, name string) error {
	e, _, err := newEngine(a, nil)
	if err != nil {
		return err
	}
	m, r, err := e.Manifest(ctx, name)
	if err != nil {
		return err
	}
	doc := permissionsDocument{Schema: "mobileops.plugin.permissions/v1", Name: name, Version: m.Version, Permissions: []permissionRecord{}, Gaps: []gapRecord{}}
	for _, line := range m.List() {
		doc.Permissions = append(doc.Permissions, permissionRecord{line, append([]sandbox.Layer{}, e.EnforcedBy(m, line.Kind)...)})
	}
	values, resolved, err := e.Configuration(m)
	if err != nil {
		doc.Problem = err.Error()
	} else {
		doc.Effective, doc.values = resolved.List(), values
	}
	kind := failure.None
	for _, g := range e.Gaps(m) {
		accepted := contains(r.Without, g.Layer)
		if !g.Weaker {
			kind = failure.Incomplete
		}
		doc.Gaps = append(doc.Gaps, gapRecord{g, accepted})
	}
	if a.Streams.Format != ui.Text {
		err = printMany(a.Streams, doc, doc.Permissions)
	} else {
		err = printPermissions(a, m, &doc)
	}
	if err != nil {
		return err
	}
	return failure.Silent(kind)
}

func contains(list []sandbox.Layer, one sandbox.Layer) bool {
	for _, l := range list {
		if l == one {
			return true
		}
	}
	return false
}

func printPermissions(a *app.App, m *manifest.Manifest, doc *permissionsDocument) error {
	theme := a.Streams.Theme()
	if !a.Streams.Quiet {
		if _, err := fmt.Fprintf(a.Streams.Out, "%s %s\n\n", theme.Heading(m.Name), m.Version); err != nil {
			return err
		}
		table := a.Streams.NewTable(ui.Column{Title: "KIND"}, ui.Column{Title: "IT", Min: 24}, ui.Column{Title: "ENFORCED BY"})
		for _, p := range doc.Permissions {
			by := ui.Cell{Text: layers(p.Layers)}
			if len(p.Layers) == 0 {
				by = ui.Cell{Text: "nothing", Style: theme.Bad}
			}
			table.Row(p.Kind, p.Meaning, by)
			if strings.HasPrefix(p.What, manifest.ConfigPrefix) && !strings.Contains(p.What, " = ") {
				for _, value := range doc.values.Lookup(strings.TrimPrefix(p.What, manifest.ConfigPrefix)) {
					table.Row("", "  now "+value, "")
				}
			}
		}
		if err := table.Print(); err != nil {
			return err
		}
	}
	if doc.Problem != "" {
		a.Streams.Notice("mobileops: what its configuration lets it do is not known: %s", ui.Escape(doc.Problem))
	}
	var b strings.Builder
	for _, g := range doc.Gaps {
		if a.Streams.Quiet && (g.Weaker || g.Accepted) {
			continue
		}
		word := theme.Bad("not enforced here")
		switch {
		case g.Weaker:
			word = theme.Warn("weaker here")
		case g.Accepted:
			word = theme.Warn("not enforced here, as was accepted")
		}
		fmt.Fprintf(&b, "%s: %s: %s\n", word, g.Permission, g.Why)
	}
	if b.Len() > 0 && !a.Streams.Quiet {
		if _, err := fmt.Fprintln(a.Streams.Out); err != nil {
			return err
		}
	}
	_, err := fmt.Fprint(a.Streams.Out, b.String())
	return err
}

// layers lists what enforces a permission.
func layers(list []sandbox.Layer) string {
	var words []string
	for _, l := range list {
		words = append(words, string(l))
	}
	return strings.Join(words, ", ")
}
