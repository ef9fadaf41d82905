package vulndb

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/scan/protocol"
	"github.com/mobileops/mobileops/internal/scan/vulndb"
	"github.com/mobileops/mobileops/internal/ui"
)

// record is a generation in JSON, without what only the store needs.
type record struct {
	*vulndb.Generation
	Seen *struct{} `json:"seen,omitempty"` // never there: it hides that of the generation
	Age  int64     `json:"age_seconds"`
}

func recordOf(g *vulndb.Generation, now time.Time) *record {
	if g == nil {
		return nil
	}
	return &record{Generation: g, Age: int64(g.Age(now) / time.Second)}
}

// outcome is what came of one database or table.
type outcome struct {
	Kind       string        `json:"kind"` // "vulnerabilities", "java", "kev", "epss"
	Source     string        `json:"source"`
	Unchanged  bool          `json:"unchanged"` // it was current already
	Generation *record       `json:"generation,omitempty"`
	Before     int           `json:"before,omitempty"`  // the generation that was current
	Removed    []int         `json:"removed,omitempty"` // generations that were more than are kept
	Table      *vulndb.Table `json:"table,omitempty"`
}

// document is what import, pull, build and rollback print with --output json.
type document struct {
	Schema   string                `json:"schema"`
	Outcomes []outcome             `json:"outcomes"`
	Build    *protocol.BuildReport `json:"build,omitempty"`
}

func outcomeOf(source string, r *vulndb.Result, now time.Time) outcome {
	o := outcome{Kind: string(r.Kind), Source: source, Unchanged: r.Unchanged, Generation: recordOf(r.Generation, now), Removed: r.Removed}
	if r.Before != nil {
		o.Before = r.Before.Number
	}
	return o
}

// printOutcomes prints what was done.
func printOutcomes(a *app.App, verb string, doc document) error {
	doc.Schema = "mobileops.vulndb." + verb + "/v1"
	if doc.Outcomes == nil {
		doc.Outcomes = []outcome{}
	}
	switch a.Streams.Format {
	case ui.JSON:
		return a.Streams.Document(doc)
	case ui.JSONL:
		out := a.Streams.Lines()
		for _, o := range doc.Outcomes {
			if err := out.Print(o); err != nil {
				return err
			}
		}
		return out.Flush()
	}
	if a.Streams.Quiet {
		return nil
	}
	for _, o := range doc.Outcomes {
		if _, err := fmt.Fprintln(a.Streams.Out, o.line(time.Now())); err != nil {
			return err
		}
	}
	return nil
}

// line says in one line what was done.
func (o *outcome) line(now time.Time) string {
	if t := o.Table; t != nil {
		what := "KEV"
		if o.Kind == "epss" {
			what = "EPSS"
		}
		if o.Unchanged {
			return fmt.Sprintf("%s of %s is in place already.", what, t.Date.Format(time.DateOnly))
		}
		return fmt.Sprintf("%s of %s is in place: %s.", what, t.Date.Format(time.DateOnly), ui.Plural(int64(t.Entries), "vulnerability", "vulnerabilities"))
	}
	g := o.Generation
	name := "The vulnerability database"
	size := ui.Plural(int64(g.Advisories), "advisory", "advisories")
	if g.Kind == vulndb.Java {
		name, size = "The Java database", ui.Bytes(g.Size)
	}
	if o.Unchanged {
		return fmt.Sprintf("%s of %s is current already (generation %d).", name, built(g.Generation, now), g.Number)
	}
	s := fmt.Sprintf("%s of %s is current now (generation %d): %s.", name, built(g.Generation, now), g.Number, size)
	if o.Before > 0 {
		s += fmt.Sprintf(" Before it, generation %d was.", o.Before)
	}
	return s
}

// built says when a database was built.
func built(g *vulndb.Generation, now time.Time) string {
	return g.UpdatedAt.Format("2006-01-02 15:04 UTC") + ", " + ui.Ago(g.UpdatedAt, now)
}

// counts lists how many there are of each, the most first.
func counts(m map[string]int, most int) string {
	type pair struct {
		name string
		n    int
	}
	var list []pair
	for name, n := range m {
		list = append(list, pair{name, n})
	}
	slices.SortFunc(list, func(a, b pair) int {
		if a.n != b.n {
			return b.n - a.n
		}
		return strings.Compare(a.name, b.name)
	})
	var words []string
	for i, p := range list {
		if i == most {
			words = append(words, fmt.Sprintf("%d more", len(list)-most))
			break
		}
		words = append(words, ui.Escape(p.name)+" "+ui.Count(int64(p.n)))
	}
	return strings.Join(words, ", ")
}
