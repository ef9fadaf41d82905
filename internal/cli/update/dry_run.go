package update

import (
	"context"
	"fmt"
	"strings"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/mobileops/mobileops/internal/update"
	"github.com/mobileops/mobileops/internal/update/merge"
	"github.com/mobileops/mobileops/internal/update/pack"
	"github.com/mobileops/mobileops/internal/update/store"
)

// foresight is the document of update apply --dry-run.
type foresight struct {
	Schema     string        `json:"schema"`
	Target     string        `json:"target"`
	Package    *store.Origin `json:"package"`
	From       int           `json:"from"`       // the generation that would be before it; 0: none
	Generation int           `json:"generation"` // the number that it would have
	Adopts     bool          `json:"adopts"`     // the directory that is there would become generation From
	differences
	Settled []store.Settled `json:"settled"`     // configuration that was edited here
	Edited  []string        `json:"edited"`      // files of packages that were changed here
	Left    []string        `json:"left_behind"` // of no package, and not taken over
	Hooks   pack.Hooks      `json:"hooks"`
	Health  *pack.Health    `json:"health,omitempty"`
}

// foresee says what apply would do, and gives the status that it would end with
// when hooks and health check pass.
func foresee(ctx context.Context, a *app.App, e *update.Engine, r update.Request) error {
	a.OnlyLooked()
	f, err := e.Foresee(ctx, r, newNotice(a, "update apply"))
	if err != nil {
		return err
	}
	g := f.Generation
	doc := &foresight{
		Schema: "mobileops.update.dry_run/v1", Target: e.Store().Target(), Package: g.Origin, From: g.Base, Generation: g.Number, Adopts: f.Adopts,
		differences: differences{Differences: []comparisonRecord{}}, Settled: append([]store.Settled{}, g.Settled...), Edited: append([]string{}, g.Edited...), Left: append([]string{}, g.Left...),
		Hooks: g.Manifest.Hooks, Health: g.Manifest.Health,
	}
	for _, d := range f.Differences {
		doc.add(d)
	}
	if err := printForesight(a, doc); err != nil {
		return err
	}
	for _, c := range g.Settled {
		if c.Outcome == merge.Conflicted {
			return failure.Silent(failure.Incomplete)
		}
	}
	return nil
}

func printForesight(a *app.App, doc *foresight) error {
	s := a.Streams
	switch s.Format {
	case ui.JSON:
		return s.Document(doc)
	case ui.JSONL:
		return printLines(s, []*foresight{doc})
	}
	var b strings.Builder
	if !s.Quiet {
		table := s.NewTable(ui.Column{Title: "CHANGE"}, ui.Column{Title: "PATH", Min: 20, KeepEnd: true}, ui.Column{Title: "WHAT", Min: 12, Drop: 1})
		for _, d := range doc.Differences {
			table.Row(d.Kind, d.Path, d.What)
		}
		if table.Len() > 0 {
			if err := table.Print(); err != nil {
				return err
			}
			b.WriteString("\n")
		}
		fmt.Fprintf(&b, "%s %s would be generation %d", ui.Escape(doc.Package.Name), ui.Escape(doc.Package.Version), doc.Generation)
		if doc.From > 0 {
			fmt.Fprintf(&b, ", before it %d", doc.From)
		}
		fmt.Fprintf(&b, ": %s changed, %s added, %s removed\n", ui.Count(doc.Changed), ui.Count(doc.Added), ui.Count(doc.Removed))
		if doc.Adopts {
			fmt.Fprintf(&b, "  the directory that is there would be generation %d, every file where it is; the installation would be a link\n", doc.From)
		}
		for _, h := range []struct {
			when string
			hook *pack.Hook
		}{{"before", doc.Hooks.Before}, {"after", doc.Hooks.After}} {
			if h.hook != nil {
				fmt.Fprintf(&b, "  hook %s: %s\n", h.when, ui.Escape(strings.Join(h.hook.Command, " ")))
			}
		}
		if h := doc.Health; h != nil {
			fmt.Fprintf(&b, "  health check: %s\n", ui.Escape(strings.Join(checks(h), ", ")))
		}
	}
	var conflicts, merged []string
	for _, c := range doc.Settled {
		switch {
		case c.Outcome == merge.Conflicted && c.Reason != "":
			conflicts = append(conflicts, c.Path+": "+c.Reason)
		case c.Outcome == merge.Conflicted:
			conflicts = append(conflicts, c.Path)
		case c.Outcome == merge.Merged:
			merged = append(merged, c.Path)
		}
	}
	paths(&b, conflicts, "would be in conflict: what was edited here would be kept, and what the package brings be beside it as NAME"+store.Aside)
	paths(&b, doc.Edited, "changed here although of a package: would be as packaged again")
	paths(&b, doc.Left, fmt.Sprintf("of no package: would be left behind in generation %d", doc.From))
	if !s.Quiet {
		paths(&b, merged, "would be merged with what was edited here")
		b.WriteString("nothing was changed; apply it: the same without --dry-run\n")
	}
	_, err := fmt.Fprint(s.Out, b.String())
	return err
}
