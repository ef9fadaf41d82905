package integrity

import (
	"fmt"
	"strings"

	"github.com/mobileops/mobileops/internal/cli/app"
	engine "github.com/mobileops/mobileops/internal/integrity"
	"github.com/mobileops/mobileops/internal/ui"
)

// changeReport is a change in JSON.
type changeReport struct {
	jsonPath
	Kind       string            `json:"kind"`
	Severity   string            `json:"severity"`
	Class      string            `json:"class,omitempty"`   // whose change it is
	Package    string            `json:"package,omitempty"` // with version and package manager
	Reason     string            `json:"reason,omitempty"`  // why it is of that class
	From       string            `json:"from,omitempty"`    // of a moved file
	FromB64    []byte            `json:"from_b64,omitempty"`
	Sum        string            `json:"sum,omitempty"` // BLAKE3 of what is there now, where it was read
	Attributes []attributeReport `json:"attributes"`
}

func changeReports(list []engine.Change) []changeReport {
	out := make([]changeReport, 0, len(list))
	for i := range list {
		out = append(out, newChangeReport(&list[i]))
	}
	return out
}

func newChangeReport(c *engine.Change) changeReport {
	out := changeReport{
		jsonPath: newJSONPath(string(c.Path)), Kind: string(c.Kind), Severity: c.Severity.String(),
		Class: string(c.Class), Package: c.Package, Reason: c.Reason, Attributes: attributeReports(c.Attributes),
	}
	if c.From != nil {
		from := newJSONPath(string(c.From))
		out.From, out.FromB64 = from.Path, from.PathB64
	}
	if sum, ok := c.ContentSum(); ok {
		out.Sum = sum.String()
	}
	return out
}

// attributeReport is an attribute with both values; the target of a link is
// bytes, like every path.
type attributeReport struct {
	Name   string `json:"name"`
	Old    string `json:"old"`
	New    string `json:"new"`
	OldB64 []byte `json:"old_b64,omitempty"`
	NewB64 []byte `json:"new_b64,omitempty"`
}

func attributeReports(list []engine.Attribute) []attributeReport {
	out := make([]attributeReport, 0, len(list))
	for _, a := range list {
		before, now := newJSONPath(a.Old), newJSONPath(a.New)
		out = append(out, attributeReport{a.Name, before.Path, now.Path, before.PathB64, now.PathB64})
	}
	return out
}

// printChanges prints a row for each change, but one for a whole package where
// an update brought what the package manager says it has brought.
func printChanges(a *app.App, r *engine.Report) error {
	theme := a.Streams.Theme()
	classified := r.Ownership != nil && len(r.Ownership.Managers) > 0
	columns := []ui.Column{{Title: "SEVERITY"}, {Title: "CHANGE"}, {Title: "PATH", Min: 20, KeepEnd: true}, {Title: "WHAT", Min: 16, Drop: 2}}
	if classified {
		columns = append(columns, ui.Column{Title: "CLASS", Drop: 1}, ui.Column{Title: "WHY", Min: 16, Drop: 3})
	}
	table := a.Streams.NewTable(columns...)
	for i := range r.Changes {
		c := &r.Changes[i]
		if updateOf(c) != "" {
			continue
		}
		row := []any{
			ui.Cell{Text: c.Severity.String(), Style: func(s string) string { return theme.Severity(int(c.Severity), s) }},
			string(c.Kind), string(c.Path), what(c), string(c.Class), because(c)}
		table.Row(row[:len(columns)]...)
	}
	if err := table.Print(); err != nil {
		return err
	}
	if table.Len() > 0 {
		if _, err := fmt.Fprintln(a.Streams.Out); err != nil {
			return err
		}
	}
	return printUpdates(a, r.Changes)
}

// printUpdates prints a row for each package with changes that are as the
// package manager says.
func printUpdates(a *app.App, list []engine.Change) error {
	table := a.Streams.NewTable(ui.Column{Title: "AS ITS PACKAGE SAYS", Min: 20}, ui.Column{Title: "CHANGES", Right: true}, ui.Column{Title: "WHY", Min: 16, Drop: 1})
	type update struct {
		n     int64
		shown *engine.Change // a file, if there is one: it says most
	}
	updates := map[string]*update{}
	var order []string
	for i := range list {
		c := &list[i]
		p := updateOf(c)
		if p == "" {
			continue
		}
		if updates[p] == nil {
			updates[p] = &update{shown: c}
			order = append(order, p)
		}
		updates[p].n++
		if _, file := c.ContentSum(); file {
			if _, had := updates[p].shown.ContentSum(); !had {
				updates[p].shown = c
			}
		}
	}
	for _, p := range order {
		table.Row(p, ui.Count(updates[p].n), updates[p].shown.Reason)
	}
	if err := table.Print(); err != nil || table.Len() == 0 {
		return err
	}
	_, err := fmt.Fprintln(a.Streams.Out)
	return err
}

// because says why a change is of its class, and whose it is.
func because(c *engine.Change) string {
	if c.Package == "" || strings.Contains(c.Reason, c.Package) {
		return c.Reason
	}
	return c.Package + ": " + c.Reason
}

// what says in a few words how an entry changed: short values in full, and of
// long ones, such as digests, that they differ.
func what(c *engine.Change) string {
	if c.Kind == engine.Moved {
		return "from " + string(c.From)
	}
	words := make([]string, 0, len(c.Attributes))
	for _, at := range c.Attributes {
		switch at.Name {
		case "mode", "uid", "gid", "size", "type", "links", "flags", "target", "device":
			words = append(words, at.Name+" "+at.Old+" to "+at.New)
		default:
			words = append(words, at.Name)
		}
	}
	return strings.Join(words, ", ")
}

// classCounts says how many changes are of which class, those that need
// attention first.
func classCounts(r *engine.Report) string {
	count := map[engine.Class]int64{}
	for i := range r.Changes {
		count[r.Changes[i].Class]++
	}
	var words []string
	for _, c := range engine.Classes() {
		if n := count[c]; n > 0 {
			words = append(words, ui.Count(n)+" "+string(c))
		}
	}
	return strings.Join(words, ", ")
}
