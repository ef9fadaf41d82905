package update

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/mobileops/mobileops/internal/update"
	"github.com/mobileops/mobileops/internal/update/merge"
	"github.com/mobileops/mobileops/internal/update/pack"
	"github.com/mobileops/mobileops/internal/update/store"
	"github.com/spf13/cobra"
)

func newShow(a *app.App) *cobra.Command {
	return a.Command(app.Spec{
		Use:   "show [N]",
		Short: "Show everything about a generation",
		Long: `Show everything about a generation; without N, about the current one: its package
and who vouched for it, what it brought, what became of configuration that was
edited here, and what decided whether it stays.

Where the package and somebody here changed the same place, the file is as it was
here, and what the package brings lies beside it as NAME.mobileops-new. Look at
both, take over what is needed, and remove the second one: then it is settled.`,
		Example: `
mobileops update show
mobileops update show 4 --output json | jq .generation.package
mobileops update show --quiet   # runbook: silent when no configuration is in conflict
`,
		Args: cobra.MaximumNArgs(1),
		Statuses: []app.Status{
			{Code: 0, Text: "it was shown"},
			{Code: 1, Text: "there is no such generation"},
			{Code: 4, Text: "you may not read the store"},
			{Code: 5, Text: "what describes it is damaged"},
			{Code: 7, Text: "no update was applied here yet"},
		},
		Files:    []string{targetFile, storeFiles},
		Complete: completeUpTo(a, 1),
		Run:      func(_ context.Context, args []string) error { return runShow(a, args) },
	})
}

// generationDocument is the document of commands about one generation.
type generationDocument struct {
	Schema     string           `json:"schema"`
	Target     string           `json:"target"`
	Tree       string           `json:"tree,omitempty"`
	Trial      *update.Pending  `json:"trial,omitempty"`
	Unsettled  []string         `json:"unsettled,omitempty"` // conflicts that nobody has settled yet
	Generation generationRecord `json:"generation"`
}

func newGenerationDocument(v *shelf, g *store.Generation, verb string) *generationDocument {
	return &generationDocument{
		Schema: "mobileops.update." + verb + "/v1", Target: v.store.Target(),
		Tree: v.store.Tree(g.Number), Trial: v.trial, Unsettled: v.unsettled(g), Generation: v.record(g),
	}
}

func runShow(a *app.App, args []string) error {
	number := 0
	if len(args) > 0 {
		var err error
		if number, err = numberArg(args[0]); err != nil {
			return err
		}
	}
	v, err := openShelf(a, "update show")
	if err != nil {
		return err
	}
	g, err := v.find(number)
	if err != nil {
		return err
	}
	if a.Streams.Format != ui.Text {
		err = a.Streams.Document(newGenerationDocument(v, g, "show"))
	} else {
		err = printGeneration(a, v, g)
	}
	if err == nil && g.Damaged != "" {
		err = failure.Silent(failure.Untrustworthy)
	}
	return err
}

// unsettled returns the paths of configuration in conflict for which what the
// package brought still lies beside it.
func (v *shelf) unsettled(g *store.Generation) (list []string) {
	for _, c := range g.Settled {
		if waits(v.store, g, c) {
			list = append(list, c.Path)
		}
	}
	return list
}

// printGeneration prints everything about a generation, and with --quiet what
// somebody has to settle.
func printGeneration(a *app.App, v *shelf, g *store.Generation) error {
	s := a.Streams
	if !s.Quiet || g.Damaged != "" {
		if err := printLabelled(s, 10, v.facts(g)); err != nil {
			return err
		}
	}
	if !s.Quiet {
		for _, print := range []func() error{
			func() error { return printAdvisories(s, g) },
			func() error { return v.printSettled(s, g) },
			func() error {
				return printPaths(s, g.Edited, fmt.Sprintf("Changed here although of a package, as packaged again (the change is in generation %d):", g.Base))
			},
			func() error {
				return printPaths(s, g.Left, fmt.Sprintf("Of no package, left behind in generation %d:", g.Base))
			},
		} {
			if err := print(); err != nil {
				return err
			}
		}
	}
	if err := v.printUnsettled(s, g); err != nil {
		return err
	}
	if v.onTrial(g) {
		return sayTrial(a, v)
	}
	return nil
}

// facts are what is known of a generation in one line each.
func (v *shelf) facts(g *store.Generation) [][2]string {
	heading := fmt.Sprint(g.Number)
	if standing := v.standing(g); standing != "" {
		heading += ", " + standing
	}
	if g.Damaged != "" {
		return [][2]string{{"Generation", heading}, {"Damaged", g.Damaged}}
	}
	rows := [][2]string{{"Generation", heading}}
	if o := g.Origin; o == nil {
		rows = append(rows, [2]string{"Holds", content(g)})
	} else {
		rows = append(rows, [2]string{"Package", released(o)}, [2]string{"Digest", o.Digest}, [2]string{"Key", o.Key}, [2]string{"From", o.From})
		if !o.Expires.IsZero() {
			rows = append(rows, [2]string{"Expires", stamp(o.Expires)})
		}
	}
	for _, name := range slices.Sorted(maps.Keys(g.Packages)) {
		if o := g.Packages[name]; g.Origin == nil || name != g.Origin.Name {
			rows = append(rows, [2]string{"And", released(&o)})
		}
	}
	made := stamp(g.Created)
	if g.By != "" {
		made += " by " + g.By
	}
	base := ""
	if g.Base > 0 {
		base = fmt.Sprintf("generation %d", g.Base)
	}
	st := &g.Stats
	rows = append(rows, [2]string{"Made", made}, [2]string{"Change", g.Change}, [2]string{"Base", base},
		[2]string{"Content", fmt.Sprintf("%s, %s; %s, %s; %d of configuration, %d of no package", ui.Plural(int64(st.Files), "file", "files"), ui.Bytes(st.Bytes),
			ui.Plural(int64(st.Links), "link", "links"), ui.Plural(int64(st.Dirs), "directory", "directories"), st.Config, st.Local)},
		[2]string{"New", fmt.Sprintf("%s, %s", ui.Plural(int64(st.NewFiles), "file", "files"), ui.Bytes(st.NewBytes))})
	if p := g.Pinned; p != nil {
		rows = append(rows, [2]string{"Pinned", pinnedText(p)})
	}
	if m := g.Manifest; m != nil {
		rows = append(rows, [2]string{"Before", hookText(m.Hooks.Before)}, [2]string{"After", hookText(m.Hooks.After)}, [2]string{"Health", healthText(m.Health)})
	}
	return append(rows, [2]string{"Tree", v.store.Tree(g.Number)}, [2]string{"Go back", v.goBack(g)})
}

// released says which release a package is.
func released(o *store.Origin) string {
	return fmt.Sprintf("%s %s, number %d in %s", o.Name, o.Version, o.Sequence, o.Channel)
}

func pinnedText(p *store.Pin) string {
	text := cmp.Or(p.Reason, "without a reason")
	if p.By != "" {
		text += ", by " + p.By
	}
	if !p.At.IsZero() {
		text += ", " + stamp(p.At)
	}
	return text
}

func hookText(h *pack.Hook) string {
	if h == nil {
		return ""
	}
	return fmt.Sprintf("%s, at most %s", strings.Join(h.Command, " "), ui.Duration(cmp.Or(h.Timeout, pack.DefaultHookTimeout)))
}

func healthText(h *pack.Health) string {
	if h == nil {
		return ""
	}
	text := strings.Join(checks(h), " and ")
	if h.Deadline > 0 {
		text += ", within " + ui.Duration(h.Deadline)
	}
	return text
}

// checks names what must hold after an update.
func checks(h *pack.Health) (list []string) {
	if len(h.Command) > 0 {
		list = append(list, strings.Join(h.Command, " "))
	}
	if h.HTTP != "" {
		list = append(list, h.HTTP)
	}
	if h.Unit != "" {
		list = append(list, "unit "+h.Unit)
	}
	return list
}

func printAdvisories(s *ui.Streams, g *store.Generation) error {
	if g.Manifest == nil {
		return nil
	}
	table := s.NewTable(ui.Column{Title: "FIXES"}, ui.Column{Title: "SEVERITY"}, ui.Column{Title: "KNOWN SINCE", Drop: 2}, ui.Column{Title: "SUMMARY", Min: 12, Drop: 1})
	for _, x := range g.Manifest.Advisories {
		table.Row(x.ID, x.Severity, x.Published.UTC().Format(time.DateOnly), x.Summary)
	}
	return printApart(s, table)
}

func (v *shelf) printSettled(s *ui.Streams, g *store.Generation) error {
	theme := s.Theme()
	table := s.NewTable(ui.Column{Title: "CONFIGURATION"}, ui.Column{Title: "PATH", Min: 16, KeepEnd: true}, ui.Column{Title: "WHY", Min: 12, Drop: 1})
	for _, c := range g.Settled {
		cell := ui.Cell{Text: string(c.Outcome)}
		switch {
		case waits(v.store, g, c):
			cell.Style = theme.Warn
		case c.Outcome == merge.Conflicted:
			cell.Text = "settled"
		}
		table.Row(cell, c.Path, c.Reason)
	}
	return printApart(s, table)
}

// printApart prints a table with an empty line before it.
func printApart(s *ui.Streams, t *ui.Table) error {
	if t.Len() == 0 {
		return nil
	}
	if _, err := fmt.Fprintln(s.Out); err != nil {
		return err
	}
	return t.Print()
}

func printPaths(s *ui.Streams, list []string, heading string) error {
	if len(list) == 0 {
		return nil
	}
	if !s.Quiet { // there is something before it
		if _, err := fmt.Fprintln(s.Out); err != nil {
			return err
		}
	}
	if err := say(s, "%s", heading); err != nil {
		return err
	}
	for _, p := range list {
		if _, err := fmt.Fprintf(s.Out, "  %s\n", ui.Escape(p)); err != nil {
			return err
		}
	}
	return nil
}

// printUnsettled names the files that somebody has to look at, where they are.
func (v *shelf) printUnsettled(s *ui.Streams, g *store.Generation) error {
	dir := v.store.Tree(g.Number)
	if g.Number == v.current {
		dir = v.store.Target()
	}
	var list []string
	for _, p := range v.unsettled(g) {
		list = append(list, filepath.Join(dir, p)+store.Aside)
	}
	return printPaths(s, list, "In conflict: what was edited here was kept. Look at what the package brings (diff NAME NAME"+store.Aside+"), take over what is needed, and remove it:")
}
