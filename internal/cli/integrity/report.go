package integrity

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/finding"
	engine "github.com/mobileops/mobileops/internal/integrity"
	"github.com/mobileops/mobileops/internal/integrity/facts"
	"github.com/mobileops/mobileops/internal/ui"
)

// checkReport is the document of integrity check and verify.
type checkReport struct {
	Schema    string            `json:"schema"`
	ID        string            `json:"id,omitempty"` // under which it is kept: mobileops integrity report
	Mode      string            `json:"mode"`         // check or verify
	Baseline  baselineReport    `json:"baseline"`
	Tree      string            `json:"tree"`
	Started   time.Time         `json:"started"`
	ElapsedMS int64             `json:"elapsed_ms"`
	Summary   summaryReport     `json:"summary"`
	Ownership *engine.Ownership `json:"ownership,omitempty"` // what the classes of the changes rest on
	Changes   []changeReport    `json:"changes"`
	Errors    []problemReport   `json:"errors"`
	Trust     *trustReport      `json:"trust,omitempty"` // whether the baseline itself is what it was
	Aspects   []string          `json:"aspects,omitempty"`
	Drift     []driftReport     `json:"drift"`             // of the aspects beside files
	Sources   []facts.Source    `json:"sources,omitempty"` // what was asked, and how it did
	Unknown   []engine.Unknown  `json:"unknown,omitempty"` // sources that neither the baseline nor this run could ask
}

type baselineReport struct {
	Name   string    `json:"name"`
	ID     string    `json:"id"`
	Taken  time.Time `json:"taken"`
	Root   string    `json:"root"`
	Policy string    `json:"policy"`
}

type summaryReport struct {
	Files      int64           `json:"files"`
	Bytes      int64           `json:"bytes"`
	Added      int64           `json:"added"`
	Removed    int64           `json:"removed"`
	Changed    int64           `json:"changed"`
	Moved      int64           `json:"moved"`
	Unreadable int64           `json:"unreadable"`
	Unstable   int64           `json:"unstable"`
	Rehashed   int64           `json:"rehashed"`
	Skipped    int64           `json:"skipped"`
	OldestRead *time.Time      `json:"oldest_read,omitempty"` // of the skipped files: the longest ago that one was really read
	Mounts     []jsonPath      `json:"mounts,omitempty"`      // other filesystems that were not entered
	Findings   finding.Summary `json:"findings"`              // what became of the stored findings
}

// problemReport is something that could not be read.
type problemReport struct {
	jsonPath
	Kind  string `json:"kind"` // unreadable or unstable
	Error string `json:"error"`
}

func problemReports(list []engine.Problem) []problemReport {
	out := make([]problemReport, 0, len(list))
	for _, p := range list {
		out = append(out, problemReport{newJSONPath(string(p.Path)), string(p.Kind), p.Reason})
	}
	return out
}

func newCheckReport(r *engine.Report) *checkReport {
	s := &r.Summary
	doc := &checkReport{
		Schema: "mobileops.integrity.check/v1", ID: r.ID, Mode: mode(r), Tree: r.Tree, Started: r.Started, ElapsedMS: r.Elapsed.Milliseconds(), Ownership: r.Ownership,
		Baseline: baselineReport{r.Baseline.Name, r.Baseline.ID, r.Baseline.Finished, r.Baseline.Root.String(), r.Baseline.PolicyName},
		Summary: summaryReport{
			Files: s.Files, Bytes: s.Bytes, Added: s.Added, Removed: s.Removed, Changed: s.Changed, Moved: s.Moved,
			Unreadable: s.Unreadable, Unstable: s.Unstable, Rehashed: s.Rehashed, Skipped: s.Skipped, Findings: r.Findings,
		},
		Changes: changeReports(r.Changes), Errors: problemReports(r.Problems), Trust: newTrustReport(r.Trust),
	}
	doc.Aspects, doc.Drift, doc.Sources, doc.Unknown = r.Aspects, driftReports(r.Drift), r.Sources, r.Unknown
	if !s.OldestRead.IsZero() {
		doc.Summary.OldestRead = &s.OldestRead
	}
	for _, m := range s.Mounts {
		doc.Summary.Mounts = append(doc.Summary.Mounts, newJSONPath(string(m)))
	}
	return doc
}

func mode(r *engine.Report) string {
	if r.Verify {
		return "verify"
	}
	return "check"
}

func printReport(a *app.App, r *engine.Report) error {
	switch a.Streams.Format {
	case ui.JSON:
		return a.Streams.Document(newCheckReport(r))
	case ui.JSONL:
		return printReportLines(a, r)
	}
	if err := printChanges(a, r); err != nil {
		return err
	}
	if err := printDrift(a, r.Drift); err != nil {
		return err
	}
	if err := printProblems(a, r.Problems); err != nil {
		return err
	}
	if a.Streams.Quiet && uneventful(r) {
		return nil
	}
	return printSummary(a.Streams, r)
}

// uneventful tells whether a report has nothing that needs attention.
func uneventful(r *engine.Report) bool {
	return len(r.Changes) == 0 && len(r.Drift) == 0 && len(r.Problems) == 0 && !loud(r.Trust)
}

// printNews prints a report as text with what needs attention alone.
func printNews(a *app.App, r *engine.Report, from finding.Severity) error {
	return printReport(a, newsOf(r, from))
}

// newsOf returns a report without the changes below the severity that makes the
// status a "no".
func newsOf(r *engine.Report, from finding.Severity) *engine.Report {
	news := *r
	// Both are sorted, the worst first.
	if n := slices.IndexFunc(r.Changes, func(c engine.Change) bool { return c.Severity < from }); n >= 0 {
		news.Changes = r.Changes[:n]
	}
	if n := slices.IndexFunc(r.Drift, func(c facts.Change) bool { return c.Severity < from }); n >= 0 {
		news.Drift = r.Drift[:n]
	}
	return &news
}

// printReportLines prints a line for each change and each problem, and last
// the rest of the document.
func printReportLines(a *app.App, r *engine.Report) error {
	doc := newCheckReport(r)
	lines := a.Streams.Lines()
	for _, c := range doc.Changes {
		if err := lines.Print(struct {
			Type string `json:"type"`
			changeReport
		}{"change", c}); err != nil {
			return err
		}
	}
	for _, d := range doc.Drift {
		if err := lines.Print(struct {
			Type string `json:"type"`
			driftReport
		}{"drift", d}); err != nil {
			return err
		}
	}
	for _, p := range doc.Errors {
		if err := lines.Print(struct {
			Type string `json:"type"`
			problemReport
		}{"error", p}); err != nil {
			return err
		}
	}
	doc.Changes, doc.Drift, doc.Errors = []changeReport{}, []driftReport{}, []problemReport{}
	if err := lines.Print(struct {
		Type string `json:"type"`
		*checkReport
	}{"summary", doc}); err != nil {
		return err
	}
	return lines.Flush()
}

// shownProblems is how many problems are listed in text: a user without
// rights meets thousands of files of others.
const shownProblems = 20

func printProblems(a *app.App, list []engine.Problem) error {
	theme := a.Streams.Theme()
	table := a.Streams.NewTable(ui.Column{Title: "NOT READ"}, ui.Column{Title: "PATH", Min: 20, KeepEnd: true}, ui.Column{Title: "REASON", Min: 16, Drop: 1})
	for i, p := range list {
		if i == shownProblems {
			break
		}
		table.Row(ui.Cell{Text: string(p.Kind), Style: theme.Warn}, string(p.Path), p.Reason)
	}
	if err := table.Print(); err != nil || table.Len() == 0 {
		return err
	}
	if more := len(list) - shownProblems; more > 0 {
		if _, err := fmt.Fprintf(a.Streams.Out, "and %s more (all of them: --output json)\n", ui.Count(int64(more))); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintln(a.Streams.Out)
	return err
}

// remedy says what makes a report complete.
func remedy(list []engine.Problem) string {
	var text string
	if os.Geteuid() != 0 && slices.ContainsFunc(list, func(p engine.Problem) bool { return p.Denied }) {
		text += " Run it as root to read everything."
	}
	if slices.ContainsFunc(list, func(p engine.Problem) bool { return p.Before }) {
		text += " What the baseline lacks, only a new one by a user who may read it can hold: mobileops integrity baseline."
	}
	return text
}

// since says when the first of several things happened.
func since(first, now time.Time) string {
	text := ui.Ago(first, now)
	if strings.HasSuffix(text, "ago") {
		text += " or later"
	}
	return text
}

// footing says what the classes rest on.
func footing(o *engine.Ownership) string {
	var names []string
	for _, m := range o.Managers {
		names = append(names, string(m))
	}
	switch {
	case len(names) == 0:
		return "No package database could be read."
	case o.Archive != "":
		return "By the package archives in " + ui.Escape(o.Archive) + ", where they have the version, else by the database of " + strings.Join(names, ", ") + "."
	}
	return "By the database of " + strings.Join(names, ", ") + ", which root can write: --package-archive compares with the packages themselves."
}

// nameArgument is the flag that chooses a baseline, where it is needed.
func nameArgument(name string) string {
	if name == engine.DefaultName {
		return ""
	}
	return " --name " + name
}

func printSummary(s *ui.Streams, r *engine.Report) error {
	b, sum := &r.Baseline, &r.Summary
	theme := s.Theme()
	verdict := theme.Good("No changes")
	switch {
	case sum.Differences() > 0:
		verdict = theme.Bad(fmt.Sprintf("%s changed, %s added, %s removed, %s moved",
			ui.Count(sum.Changed), ui.Count(sum.Added), ui.Count(sum.Removed), ui.Count(sum.Moved)))
	case len(r.Drift) > 0 && !slices.Contains(r.Aspects, facts.Files):
		verdict = theme.Bad(ui.Plural(int64(len(r.Drift)), "difference", "differences") + " of " + comparedAspects(r))
	case len(r.Problems) > 0:
		verdict = theme.Warn("No changes in what could be read")
	}
	if len(r.Drift) > 0 && slices.Contains(r.Aspects, facts.Files) {
		if sum.Differences() == 0 {
			verdict = "No changes of files"
		}
		verdict += theme.Bad(", " + ui.Plural(int64(len(r.Drift)), "difference", "differences") + " of " + comparedAspects(r))
	}
	var w strings.Builder
	fmt.Fprintf(&w, "%s since baseline %q, taken %s.\n", verdict, b.Name, stamp(b.Finished))
	if slices.Contains(r.Aspects, facts.Files) {
		fmt.Fprintf(&w, "%s compared in %s", ui.Plural(sum.Files, "entry", "entries"), ui.Duration(r.Elapsed))
	} else {
		fmt.Fprintf(&w, "Compared in %s", ui.Duration(r.Elapsed))
	}
	if sum.Rehashed > 0 {
		fmt.Fprintf(&w, "; %s read again, %s", ui.Plural(sum.Rehashed, "file", "files"), ui.Bytes(sum.Bytes))
	}
	if sum.Skipped > 0 {
		fmt.Fprintf(&w, "; %s unchanged by inode and not read, last really read %s", ui.Plural(sum.Skipped, "file", "files"), since(sum.OldestRead, r.Started))
	}
	if aspects := comparedAspects(r); aspects != "" && slices.Contains(r.Aspects, facts.Files) {
		fmt.Fprintf(&w, "; also %s", aspects)
	}
	w.WriteString(".\n")
	if slices.Contains(r.Aspects, facts.Containers) && !s.Quiet && r.Sources != nil {
		fmt.Fprintf(&w, "Container runtimes that answered: %s.\n", answered(r.Sources))
	}
	printUnknown(&w, theme, r.Unknown)
	for _, m := range sum.Mounts {
		fmt.Fprintf(&w, "Not entered, another filesystem: %s\n", ui.Escape(m))
	}
	if n := int64(len(r.Problems)); n > 0 {
		fmt.Fprintf(&w, "%s: %s could not be read or compared, so this report is incomplete.%s\n", theme.Warn("Incomplete"), ui.Plural(n, "entry", "entries"), remedy(r.Problems))
	}
	writeTrust(&w, theme, r.Trust, r.Verify && !s.Quiet)
	if o := r.Ownership; o != nil {
		if counts := classCounts(r); counts != "" {
			fmt.Fprintf(&w, "Classes: %s. %s\n", counts, footing(o))
		}
		for _, p := range o.Problems {
			fmt.Fprintf(&w, "%s: %s\n", theme.Warn("Package database"), ui.Escape(p))
		}
	}
	if len(r.Changes)+len(r.Drift) > 0 && r.Stored {
		which := nameArgument(b.Name)
		if !slices.Contains(r.Aspects, facts.Files) { // latest is the newest that looked at files
			which += " --report " + r.ID[:8]
		}
		fmt.Fprintf(&w, "Accept what is right: mobileops integrity accept --interactive%s; kept as report %s.\n", which, r.ID[:8])
	}
	_, err := io.WriteString(s.Out, w.String())
	return err
}
