package plugin

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/plugin/manifest"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/mobileops/mobileops/pkg/pluginsdk"
	"github.com/mobileops/mobileops/pkg/pluginsdk/conformance"
)

// checkRecord is a check of the conformance test in JSON.
type checkRecord struct {
	Part    string  `json:"part"` // "service", "hook on finding"
	Name    string  `json:"name"`
	About   string  `json:"about"`
	Status  string  `json:"status"`
	Reason  string  `json:"reason,omitempty"`
	Seconds float64 `json:"seconds"`
}

// runConformance holds the program in a directory against the protocol: its
// service and each of its hooks.
func runConformance(ctx context.Context, dir string, m *manifest.Manifest) (list []checkRecord, err error) {
	tmp, err := os.MkdirTemp("", "mobileops-conformance-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(tmp)
	base := conformance.Options{Program: filepath.Join(dir, m.Program()), Dir: tmp, Name: m.Name, Version: m.Version}
	type part struct {
		name string
		opts conformance.Options
	}
	var parts []part
	if s := m.Service; s != nil {
		o := base
		o.Role, o.Args, o.ReadyTimeout, o.StopTimeout = pluginsdk.RoleService, s.Args, s.ReadyTimeout, s.StopTimeout
		parts = append(parts, part{"service", o})
	}
	for _, h := range m.Hooks {
		o := base
		o.Role, o.Args, o.Hook = pluginsdk.RoleHook, h.Args, h.On
		parts = append(parts, part{"hook on " + h.On, o})
	}
	failed := []string{}
	for _, p := range parts {
		for _, c := range conformance.Run(ctx, p.opts).Checks {
			list = append(list, checkRecord{p.name, c.Name, c.About, string(c.Status), c.Reason, c.Took.Seconds()})
			if c.Status == conformance.Failed {
				failed = append(failed, p.name+": "+c.Name)
			}
		}
	}
	if err := ctx.Err(); err != nil {
		return list, err
	}
	if len(failed) > 0 {
		return list, failure.Errorf(failure.No, "does not conform to the protocol: %s", strings.Join(failed, ", "))
	}
	return list, nil
}

// printChecks prints what came of the checks, and with --quiet those that failed.
func printChecks(a *app.App, doc *verifyDocument) error {
	theme := a.Streams.Theme()
	for i := range doc.Plugins {
		r := &doc.Plugins[i]
		table := a.Streams.NewTable(ui.Column{Title: "PART"}, ui.Column{Title: "CHECK"}, ui.Column{Title: "STATUS"}, ui.Column{Title: "WHY", Min: 20})
		for _, c := range r.Checks {
			status := ui.Cell{Text: c.Status}
			switch conformance.Status(c.Status) {
			case conformance.Passed:
				status.Style = theme.Good
			case conformance.Failed:
				status.Style = theme.Bad
			default:
				status.Style = theme.Faint
			}
			if !a.Streams.Quiet || conformance.Status(c.Status) == conformance.Failed {
				table.Row(c.Part, c.Name, status, c.Reason)
			}
		}
		if table.Len() == 0 {
			continue
		}
		if _, err := fmt.Fprintln(a.Streams.Out); err != nil {
			return err
		}
		if err := table.Print(); err != nil {
			return err
		}
	}
	return nil
}
