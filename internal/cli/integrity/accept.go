package integrity

import (
	"context"
	"fmt"
	"path/filepath"
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

type acceptOptions struct {
	name        string
	report      string
	packages    []string
	classes     []string
	all         bool
	worst       string
	interactive bool
	reason      string
	ticket      string
	keep        string
}

func newAccept(a *app.App) *cobra.Command {
	var opts acceptOptions
	cmd := a.Command(app.Spec{
		Use:   "accept (PATH|FACT... | --package NAME | --class CLASS | --all | --interactive) [flags]",
		Short: "Make reported changes part of the baseline",
		Long: `Make reported changes part of the baseline.

What is accepted is what was reported: each entry is read again, and one that is
no longer as the report says is refused and shown. A PATH stands for itself and
everything below it; a FACT, such as network:listen/tcp/0.0.0.0:22, is what a
report calls it. Without --report, the latest report of the baseline counts.

What --class package-update rests on are the databases of the host, which an
intruder with root can write. Check with --package-archive before: what is not as
in its archive is of another class, and what has no archive of medium severity,
which --max-severity low leaves out.

A new baseline that has the changes becomes the current one. The history keeps
who accepted what, when and why, with the hash of each accepted content; the
findings about the changes are resolved.`,
		Example: `
mobileops integrity accept /etc/ssh/sshd_config --reason "no root login" --ticket CHG-42
mobileops integrity accept --class package-update   # after apt upgrade
mobileops integrity accept --package openssl --reason DSA-5999
mobileops integrity accept network:listen/tcp/0.0.0.0:8443 --reason "new proxy"
mobileops integrity accept --report 3f2a --all      # everything in one report
mobileops integrity accept --interactive            # one by one, with differences
0 6 * * * root mobileops integrity check --quiet --package-archive /mnt/mirror/pool; mobileops integrity accept --class package-update --max-severity low --quiet --reason unattended-upgrades  # cron: updates are no news
`,
		Args: cobra.ArbitraryArgs,
		Statuses: []app.Status{
			{Code: 0, Text: "the changes are part of the baseline"},
			{Code: 1, Text: "some were refused, because they have changed again; the others are accepted"},
			{Code: 5, Text: "the baseline, the report or the history is not what it was"},
			{Code: 7, Text: "there is no such baseline, or no report about it"},
			{Code: 8, Text: "nothing to accept: it is part of the baseline already; or another operation on it is under way"},
			{Code: 130, Text: "interrupted: nothing was accepted"},
		},
		Files:   []string{baselineFile, stateFile, "integrity/NAME.ID.report in the state directory: what was reported", "integrity/ID.accepted in the state directory: what was accepted into a baseline"},
		Audited: true,
		Run:     func(ctx context.Context, args []string) error { return runAccept(ctx, a, &opts, args) },
		Complete: func(ctx context.Context, _ []string, _ string) []string {
			return completeChanges(ctx, a, opts.name)
		},
	})
	nameFlag(a, cmd, &opts.name, "accept into the baseline `NAME`")
	fs := cmd.Flags()
	reportFlag(a, cmd, &opts.report, "accept what the report `ID` says")
	fs.StringSliceVar(&opts.packages, "package", nil, "accept the changes of the package `NAME`")
	a.CompleteFlag(cmd, "package", func(ctx context.Context, _ []string, _ string) []string { return completePackages(ctx, a, opts.name) })
	var words []string
	for _, c := range engine.Classes() {
		words = append(words, string(c))
	}
	fs.StringSliceVar(&opts.classes, "class", nil, "only changes of the class `CLASS`: "+strings.Join(words, ", "))
	app.CompleteValues(cmd, "class", words...)
	fs.BoolVar(&opts.all, "all", false, "accept every change of the report")
	severities := make([]string, 0, 5)
	for _, s := range finding.Severities() {
		severities = append(severities, s.String())
	}
	app.Choice(cmd, fs, &opts.worst, "max-severity", finding.Critical.String(), severities, "of what is chosen, accept nothing that is worse than `SEVERITY`")
	fs.BoolVarP(&opts.interactive, "interactive", "i", false, "ask about each change, and show what is different")
	reasonFlags(cmd, &opts.reason, &opts.ticket)
	keepFlag(cmd, &opts.keep)
	return cmd
}

// reportFlag adds --report, completed with the ids of the reports.
func reportFlag(a *app.App, cmd *cobra.Command, report *string, usage string) {
	cmd.Flags().StringVar(report, "report", engine.Latest, usage)
	a.CompleteFlag(cmd, "report", func(ctx context.Context, _ []string, _ string) []string {
		name, _ := cmd.Flags().GetString("name")
		return completeReports(ctx, a, name)
	})
}

// reasonFlags adds --reason and --ticket, which go into the history.
func reasonFlags(cmd *cobra.Command, reason, ticket *string) {
	cmd.Flags().StringVar(reason, "reason", "", "why, for the history: `TEXT`")
	cmd.Flags().StringVar(ticket, "ticket", "", "the change or incident it belongs to: `ID`")
}

// keepFlag adds --keep-content.
func keepFlag(cmd *cobra.Command, keep *string) {
	words := []string{string(engine.KeepPublic), string(engine.KeepAll), string(engine.KeepNone)}
	app.Choice(cmd, cmd.Flags(), keep, "keep-content", words[0], words, "keep texts below /etc, to show differences later: `WHICH` of public (what every user may read), all, none")
}

// completeReports returns the ids of the reports with what they found.
func completeReports(ctx context.Context, a *app.App, name string) []string {
	e, _, err := newEngine(a)
	if err != nil {
		return nil
	}
	list, err := e.Reports(ctx, name)
	if err != nil {
		return nil
	}
	words := []string{engine.Latest + "\tthe newest"}
	for _, r := range list {
		words = append(words, fmt.Sprintf("%s\t%s, %s, %s", r.ID[:8], r.Mode(), ui.Plural(r.Summary.Differences(), "change", "changes"), ui.Ago(r.Last, time.Now())))
	}
	return words
}

// latestReport returns the latest report for completion: an empty one when it
// cannot be had.
func latestReport(ctx context.Context, a *app.App, name string) *engine.Report {
	if e, _, err := newEngine(a); err == nil {
		if r, _, err := e.LoadReport(ctx, name, engine.Latest); err == nil {
			return r
		}
	}
	return &engine.Report{}
}

// completePackages returns the packages that the latest report names.
func completePackages(ctx context.Context, a *app.App, name string) []string {
	r := latestReport(ctx, a, name)
	var words []string
	for i := range r.Changes {
		if pkg, rest, named := strings.Cut(r.Changes[i].Package, " "); named {
			words = append(words, pkg+"\t"+rest)
		}
	}
	slices.Sort(words)
	return slices.Compact(words)
}

// completeChanges returns the paths of the latest report.
func completeChanges(ctx context.Context, a *app.App, name string) []string {
	r := latestReport(ctx, a, name)
	var words []string
	for i := range r.Drift {
		words = append(words, r.Drift[i].ID()+"\t"+r.Drift[i].Severity.String()+" "+string(r.Drift[i].Kind))
	}
	for i := range r.Changes {
		if p := string(r.Changes[i].Path); ui.Escape(p) == p {
			words = append(words, p+"\t"+r.Changes[i].Severity.String()+" "+string(r.Changes[i].Kind)+" "+string(r.Changes[i].Class))
		}
	}
	return words
}

func runAccept(ctx context.Context, a *app.App, o *acceptOptions, paths []string) error {
	e, c, err := newEngine(a)
	if err != nil {
		return err
	}
	e.By.Reason, e.By.Ticket = o.reason, o.ticket
	opts := engine.AcceptOptions{Name: o.name, Report: o.report, All: o.all, Packages: o.packages, KeepContent: engine.KeepContent(o.keep)}
	worst, err := finding.ParseSeverity(o.worst)
	if err != nil {
		return err
	}
	opts.Worst = &worst
	for _, w := range o.classes {
		if !slices.Contains(engine.Classes(), engine.Class(w)) {
			return failure.Errorf(failure.Usage, "unknown class %q; there are %s", w, engine.Classes())
		}
		opts.Classes = append(opts.Classes, engine.Class(w))
	}
	opts.Drift, paths = splitFacts(paths)
	if len(paths) > 0 {
		if opts.Paths, err = reportedPaths(ctx, a, e, opts, paths, c.Root); err != nil {
			return err
		}
	}
	switch chosen := len(opts.Paths) + len(opts.Packages) + len(opts.Drift); {
	case o.interactive && a.Streams.Format != ui.Text:
		return failure.Errorf(failure.Usage, "--interactive is for people, and --output %s is not", a.Streams.Format)
	case o.all && chosen > 0:
		return failure.Errorf(failure.Usage, "--all accepts everything, and a PATH or --package only a part: choose one")
	case !o.all && chosen == 0 && len(opts.Classes) == 0 && !o.interactive:
		return failure.Hint(failure.Errorf(failure.Usage, "what is to be accepted?"), "name a PATH or a FACT, --package, --class, or --all; or --interactive")
	}
	if o.interactive {
		if opts, err = askAll(ctx, a, e, opts); err != nil {
			return err
		}
		if len(opts.Paths)+len(opts.Drift) == 0 {
			a.OnlyLooked()
			a.Streams.Notice("mobileops: integrity accept: nothing was accepted")
			return nil
		}
	}
	acc, err := e.Accept(ctx, opts)
	if acc == nil {
		return err
	}
	a.SetResult("%d accepted of report %s, %d refused; baseline %s@%s, root %s", len(acc.Changes)+len(acc.Drift), acc.Report.ID, len(acc.Refused)+len(acc.RefusedDrift), acc.Entry.Name, acc.Entry.ID, acc.Entry.Root)
	if perr := printAccepted(a, acc); perr != nil {
		return perr
	}
	if err != nil {
		return err
	}
	if acc.Kind() == failure.Busy {
		if a.Streams.Quiet && len(opts.Paths)+len(opts.Packages)+len(opts.Drift) == 0 {
			return failure.Silent(failure.Busy) // from cron, a night without updates is no mail
		}
		return failure.New(failure.Busy, "nothing to accept"+map[bool]string{true: ": it is part of the baseline already", false: " in this report"}[acc.Already > 0])
	}
	return ended(acc.Kind(), keepAnchors(ctx, a, e))
}

// splitFacts tells the ids of facts from paths.
func splitFacts(args []string) (ids, paths []string) {
	for _, arg := range args {
		if aspect, _, is := strings.Cut(arg, ":"); is && aspect != facts.Files && slices.Contains(facts.Aspects(), aspect) {
			ids = append(ids, arg)
		} else {
			paths = append(paths, arg)
		}
	}
	return ids, paths
}

// reportedPaths returns the paths of a report that are meant by what was typed.
// A symbolic link that has changed is meant itself, and never what it leads to
// now; only where the report knows nothing of a path as it was typed, links on
// the way are followed, so that /bin/ls stands for /usr/bin/ls.
func reportedPaths(ctx context.Context, a *app.App, e *engine.Engine, o engine.AcceptOptions, typed []string, tree string) ([][]byte, error) {
	r, _, err := e.LoadReport(ctx, o.Name, o.Report)
	if err != nil {
		return nil, err
	}
	has := func(p string) bool {
		one := engine.AcceptOptions{Paths: [][]byte{[]byte(p)}}
		_, err := one.Choose(r.Changes)
		return err == nil
	}
	var out [][]byte
	for _, given := range typed {
		if given == "" { // an empty variable in a script; it does not mean the working directory
			return nil, failure.Errorf(failure.Usage, "a PATH is empty")
		}
		if tree != "/" && !filepath.IsAbs(given) {
			return nil, failure.Errorf(failure.Usage, "%q is not absolute: with --root, write paths as they are below it", given)
		}
		path, err := filepath.Abs(given)
		if err != nil {
			return nil, err
		}
		if tree == "/" && !has(path) {
			if dir, err := filepath.EvalSymlinks(filepath.Dir(path)); err == nil && has(filepath.Join(dir, filepath.Base(path))) {
				path = filepath.Join(dir, filepath.Base(path))
			} else if real, err := filepath.EvalSymlinks(path); err == nil && has(real) {
				a.Streams.Notice("mobileops: integrity accept: %s leads to %s, which is taken", ui.Escape(given), ui.Escape(real))
				path = real
			}
		}
		out = append(out, []byte(path))
	}
	return out, nil
}

// acceptedReport is the document of integrity accept --output json.
type acceptedReport struct {
	Schema       string          `json:"schema"`
	Report       string          `json:"report"`
	Baseline     engine.Entry    `json:"baseline"`
	Accepted     []changeReport  `json:"accepted"`
	Refused      []refusalReport `json:"refused"`
	Drift        []driftReport   `json:"drift"` // changes of facts that were accepted
	RefusedDrift []driftRefusal  `json:"refused_drift"`
	Already      int             `json:"already"` // accepted before
	Left         int             `json:"left"`    // changes of the report that were not asked for
	Findings     finding.Summary `json:"findings"`
	ElapsedMS    int64           `json:"elapsed_ms"`
}

type refusalReport struct {
	changeReport
	Refused string            `json:"refused"` // why
	Since   []attributeReport `json:"since"`   // what has changed since the report
}

type driftRefusal struct {
	driftReport
	Refused string `json:"refused"` // why
}

func printAccepted(a *app.App, r *engine.Accepted) error {
	s := a.Streams
	if s.Format != ui.Text {
		doc := acceptedReport{
			Schema: "mobileops.integrity.accept/v1", Report: r.Report.ID, Baseline: r.Entry, Accepted: changeReports(r.Changes),
			Refused: []refusalReport{}, Drift: driftReports(r.Drift), RefusedDrift: []driftRefusal{}, Already: r.Already, Left: r.Left, Findings: r.Findings, ElapsedMS: r.Elapsed.Milliseconds(),
		}
		for i := range r.Refused {
			f := &r.Refused[i]
			doc.Refused = append(doc.Refused, refusalReport{newChangeReport(&f.Change), f.Reason, attributeReports(f.Attributes)})
		}
		for _, f := range r.RefusedDrift {
			doc.RefusedDrift = append(doc.RefusedDrift, driftRefusal{driftReports([]facts.Change{f.Change})[0], f.Reason})
		}
		return s.Document(doc)
	}
	table := s.NewTable(ui.Column{Title: "REFUSED", Min: 20, KeepEnd: true}, ui.Column{Title: "WHY", Min: 20}, ui.Column{Title: "SINCE THE REPORT", Min: 10, Drop: 1})
	for i := range r.Refused {
		f := &r.Refused[i]
		table.Row(ui.Cell{Text: string(f.Change.Path), Style: s.Theme().Bad}, f.Reason, what(&engine.Change{Attributes: f.Attributes}))
	}
	for i := range r.RefusedDrift {
		f := &r.RefusedDrift[i]
		table.Row(ui.Cell{Text: f.Change.ID(), Style: s.Theme().Bad}, f.Reason, "")
	}
	if err := table.Print(); err != nil {
		return err
	}
	accepted := int64(len(r.Changes) + len(r.Drift))
	if s.Quiet && table.Len() == 0 || accepted == 0 {
		return nil
	}
	_, err := fmt.Fprintf(s.Out, "%s accepted into baseline %q, now %s@%s, in %s. %s resolved.\n", ui.Plural(accepted, "change", "changes"),
		r.Entry.Name, r.Entry.Name, r.Entry.ID[:8], ui.Duration(r.Elapsed), ui.Plural(int64(r.Findings.Resolved), "finding", "findings"))
	if err == nil && r.Left > 0 {
		_, err = fmt.Fprintf(s.Out, "%s of report %s not accepted.\n", ui.Plural(int64(r.Left), "change", "changes"), r.Report.ID[:8])
	}
	return err
}
