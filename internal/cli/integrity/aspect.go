package integrity

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/finding"
	engine "github.com/mobileops/mobileops/internal/integrity"
	"github.com/mobileops/mobileops/internal/integrity/facts"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/spf13/cobra"
)

// aspectSpec is what network, containers and binaries differ in.
type aspectSpec struct{ aspect, short, long, example string }

type aspectOptions struct {
	aspectSpec
	name   string
	failOn string
	list   bool
}

// aspectCommand makes the verb of one aspect of the host.
func aspectCommand(a *app.App, s aspectSpec) *cobra.Command {
	opts := aspectOptions{aspectSpec: s}
	cmd := a.Command(app.Spec{
		Use:     s.aspect + " [flags]",
		Short:   s.short,
		Long:    s.long,
		Example: s.example,
		Statuses: []app.Status{
			{Code: 0, Text: "everything is as in the baseline; with --list: it was printed"},
			{Code: 1, Text: "there are differences; with --fail-on: of that severity or above"},
			{Code: 5, Text: "the baseline or the state is damaged, or not what the history or an anchor says"},
			{Code: 6, Text: "something could not be read, whatever else was found"},
			{Code: 7, Text: "there is no such baseline, or it has nothing of this kind"},
			{Code: 8, Text: "another operation on that baseline is under way; its holder is named"},
		},
		Files:   []string{baselineFile, factsFile, stateFile},
		Audited: true,
		Run:     func(ctx context.Context, _ []string) error { return runAspect(ctx, a, &opts) },
	})
	nameFlag(a, cmd, &opts.name, "compare with the baseline `NAME[@ID]`")
	words := make([]string, 0, 5)
	for _, sev := range finding.Severities() {
		words = append(words, sev.String())
	}
	app.Choice(cmd, cmd.Flags(), &opts.failOn, "fail-on", finding.Info.String(), words, "status 1 only for differences from `SEVERITY` on; with --quiet, only these are printed")
	cmd.Flags().BoolVar(&opts.list, "list", false, "print how it is now, without comparing with a baseline")
	return cmd
}

func runAspect(ctx context.Context, a *app.App, o *aspectOptions) error {
	e, c, err := newEngine(a)
	if err != nil {
		return err
	}
	if c.Root != "/" {
		return failure.Errorf(failure.Usage, "--root %s: what runs here is not what lies there", c.Root)
	}
	failOn, err := finding.ParseSeverity(o.failOn)
	if err != nil {
		return err
	}
	opts := engine.CompareOptions{Name: o.name, Only: []string{o.aspect}, Scan: scan(c, "")}
	e.Collectors.Binaries.Counters = opts.Counters
	bar := progress(a, "looking", &opts.Scan, 0, 0)
	if o.list {
		a.OnlyLooked()
		s, err := e.Facts(ctx, []string{o.aspect})
		bar.Stop()
		if err != nil {
			return err
		}
		return listed(a, s, o, failOn)
	}
	r, err := e.Compare(ctx, opts)
	bar.Stop()
	if r == nil {
		if o.aspect == facts.Binaries && errors.Is(err, engine.ErrNoAspect) {
			err = failure.Hint(err, "against packages alone: mobileops integrity binaries --list")
		}
		return err
	}
	a.SetResult("%d differences, %d not readable", len(r.Drift), len(r.Problems)+len(r.Unknown))
	kind := r.Kind(failOn)
	if len(r.Unknown) > 0 { // this was asked for, and for nothing else
		kind = failure.Worse(kind, failure.Incomplete)
	}
	print := printReport
	if a.Streams.Quiet && a.Streams.Format == ui.Text {
		print = func(a *app.App, r *engine.Report) error {
			if r = newsOf(r, failOn); !uneventful(r) {
				return printReport(a, r)
			}
			var w strings.Builder
			printUnknown(&w, a.Streams.Theme(), r.Unknown) // or the status would have no reason
			_, err := fmt.Fprint(a.Streams.Out, w.String())
			return err
		}
	}
	if err := errors.Join(print(a, r), err); err != nil {
		return failure.Wrap(failure.Worse(failure.KindOf(err), kind), err)
	}
	return failure.Silent(kind)
}

// factsReport is the document of --list.
type factsReport struct {
	Schema  string         `json:"schema"`
	Taken   time.Time      `json:"taken"`
	Sources []facts.Source `json:"sources"`
	Facts   []facts.Fact   `json:"facts"`
}

// listed prints how the host is. Of programs that is a verdict, too: the package
// database says how they should be.
func listed(a *app.App, s *facts.Snapshot, o *aspectOptions, failOn finding.Severity) error {
	kind := failure.None
	for i := range s.Facts {
		if o.aspect == facts.Binaries && risky(&s.Facts[i]) && finding.High >= failOn {
			kind = failure.No
		}
	}
	for _, src := range s.Sources {
		if src.State != facts.OK && src.State != facts.Absent {
			kind = failure.Incomplete
		}
	}
	if err := printFacts(a, s, o.aspect); err != nil {
		return err
	}
	return failure.Silent(kind)
}

func risky(f *facts.Fact) bool {
	v := f.Attributes[facts.Risks]
	return v != "" && v != facts.None
}

func printFacts(a *app.App, s *facts.Snapshot, aspect string) error {
	schema := "mobileops.integrity." + aspect + "/v1"
	switch a.Streams.Format {
	case ui.JSON:
		doc := factsReport{schema, s.Taken, s.Sources, s.Facts}
		if doc.Facts == nil {
			doc.Facts = []facts.Fact{}
		}
		return a.Streams.Document(doc)
	case ui.JSONL:
		lines := a.Streams.Lines()
		for _, f := range s.Facts {
			if err := lines.Print(struct {
				Type string `json:"type"`
				facts.Fact
			}{"fact", f}); err != nil {
				return err
			}
		}
		if err := lines.Print(struct {
			Type string `json:"type"`
			factsReport
		}{"summary", factsReport{schema, s.Taken, s.Sources, []facts.Fact{}}}); err != nil {
			return err
		}
		return lines.Flush()
	}
	theme := a.Streams.Theme()
	table := a.Streams.NewTable(ui.Column{Title: "WHAT", Min: 20, KeepEnd: true}, ui.Column{Title: "HOW", Min: 16, Drop: 1})
	if aspect == facts.Binaries {
		table = a.Streams.NewTable(ui.Column{Title: "PATH", Min: 20, KeepEnd: true}, ui.Column{Title: "MODE"}, ui.Column{Title: "IS", Min: 8},
			ui.Column{Title: "PACKAGE", Min: 8}, ui.Column{Title: "VERDICT", Min: 16})
	}
	for i := range s.Facts {
		f := &s.Facts[i]
		if a.Streams.Quiet && !risky(f) {
			continue
		}
		if aspect != facts.Binaries {
			table.Row(f.Kind+"/"+f.Key, about(f))
			continue
		}
		verdict := ui.Cell{Text: f.Attributes["content"], Style: theme.Good}
		if risky(f) {
			verdict = ui.Cell{Text: f.Attributes[facts.Risks], Style: theme.Bad}
		}
		if verdict.Text == "" {
			verdict = ui.Cell{Text: "no package database", Style: theme.Warn}
		}
		table.Row("/"+f.Key, f.Attributes["mode"], f.Attributes["special"], f.Attributes["package"], verdict)
	}
	if err := table.Print(); err != nil {
		return err
	}
	var w strings.Builder
	if table.Len() > 0 {
		w.WriteString("\n")
	}
	if !a.Streams.Quiet {
		fmt.Fprintf(&w, "%s.", ui.Plural(int64(len(s.Facts)), "fact", "facts"))
		if names := answered(s.Sources); aspect == facts.Containers {
			fmt.Fprintf(&w, " Runtimes that answered: %s.", names)
		}
		w.WriteString("\n")
	}
	for _, src := range s.Sources {
		switch src.State {
		case facts.OK:
		case facts.Absent:
			if !a.Streams.Quiet {
				fmt.Fprintf(&w, "Not on this host: %s: %s.\n", ui.Escape(src.Name), ui.Escape(src.Detail))
			}
		default:
			fmt.Fprintf(&w, "%s: %s: %s.\n", theme.Warn("Not known"), ui.Escape(src.ID()), ui.Escape(src.Detail))
		}
	}
	_, err := fmt.Fprint(a.Streams.Out, w.String())
	return err
}

// answered names the runtimes that told their containers.
func answered(sources []facts.Source) string {
	var names []string
	for _, src := range sources {
		if src.Aspect == facts.Containers && src.State == facts.OK && src.Name != "runtimes" {
			names = append(names, src.Name)
		}
	}
	slices.Sort(names)
	if names == nil {
		return "none"
	}
	return strings.Join(names, ", ")
}
