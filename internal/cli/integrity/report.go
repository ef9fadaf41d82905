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
	"github.com/mobileops/mobileops/internal/ui"
)

// checkReport is the document of integrity check and verify.
type checkReport struct {
	Schema    string          `json:"schema"`
	Mode      string          `json:"mode"` // check or verify
	Baseline  baselineReport  `json:"baseline"`
	Tree      string          `json:"tree"`
	Started   time.Time       `json:"started"`
	ElapsedMS int64           `json:"elapsed_ms"`
	Summary   summaryReport   `json:"summary"`
	Changes   []changeReport  `json:"changes"`
	Errors    []problemReport `json:"errors"`
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

type changeReport struct {
	jsonPath
	Kind       string            `json:"kind"`
	Severity   string            `json:"severity"`
	From       string            `json:"from,omitempty"` // of a moved file
	FromB64    []byte            `json:"from_b64,omitempty"`
	Attributes []attributeReport `json:"attributes"`
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
		Schema: "mobileops.integrity.check/v1", Mode: mode(r), Tree: r.Tree, Started: r.Started, ElapsedMS: r.Elapsed.Milliseconds(),
		Baseline: baselineReport{r.Baseline.Name, r.Baseline.ID, r.Baseline.Finished, r.Baseline.Root.String(), r.Baseline.PolicyName},
		Summary: summaryReport{
			Files: s.Files, Bytes: s.Bytes, Added: s.Added, Removed: s.Removed, Changed: s.Changed, Moved: s.Moved,
			Unreadable: s.Unreadable, Unstable: s.Unstable, Rehashed: s.Rehashed, Skipped: s.Skipped, Findings: r.Findings,
		},
		Changes: make([]changeReport, 0, len(r.Changes)), Errors: problemReports(r.Problems),
	}
	if !s.OldestRead.IsZero() {
		doc.Summary.OldestRead = &s.OldestRead
	}
	for _, m := range s.Mounts {
		doc.Summary.Mounts = append(doc.Summary.Mounts, newJSONPath(string(m)))
	}
	for i := range r.Changes {
		c := &r.Changes[i]
		out := changeReport{jsonPath: newJSONPath(string(c.Path)), Kind: string(c.Kind), Severity: c.Severity.String(), Attributes: attributeReports(c.Attributes)}
		if c.From != nil {
			from := newJSONPath(string(c.From))
			out.From, out.FromB64 = from.Path, from.PathB64
		}
		doc.Changes = append(doc.Changes, out)
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
	if err := printProblems(a, r.Problems); err != nil {
		return err
	}
	if a.Streams.Quiet && len(r.Changes) == 0 && len(r.Problems) == 0 {
		return nil
	}
	return printSummary(a.Streams, r)
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
	for _, p := range doc.Errors {
		if err := lines.Print(struct {
			Type string `json:"type"`
			problemReport
		}{"error", p}); err != nil {
			return err
		}
	}
	doc.Changes, doc.Errors = []changeReport{}, []problemReport{}
	if err := lines.Print(struct {
		Type string `json:"type"`
		*checkReport
	}{"summary", doc}); err != nil {
		return err
	}
	return lines.Flush()
}

func printChanges(a *app.App, r *engine.Report) error {
	theme := a.Streams.Theme()
	table := a.Streams.NewTable(ui.Column{Title: "SEVERITY"}, ui.Column{Title: "CHANGE"},
		ui.Column{Title: "PATH", Min: 20, KeepEnd: true}, ui.Column{Title: "WHAT", Min: 16, Drop: 1})
	for i := range r.Changes {
		c := &r.Changes[i]
		table.Row(
			ui.Cell{Text: c.Severity.String(), Style: func(s string) string { return theme.Severity(int(c.Severity), s) }},
			string(c.Kind), string(c.Path), what(c))
	}
	if err := table.Print(); err != nil || table.Len() == 0 {
		return err
	}
	_, err := fmt.Fprintln(a.Streams.Out)
	return err
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

func printSummary(s *ui.Streams, r *engine.Report) error {
	b, sum := &r.Baseline, &r.Summary
	theme := s.Theme()
	verdict := theme.Good("No changes")
	switch {
	case sum.Differences() > 0:
		verdict = theme.Bad(fmt.Sprintf("%s changed, %s added, %s removed, %s moved",
			ui.Count(sum.Changed), ui.Count(sum.Added), ui.Count(sum.Removed), ui.Count(sum.Moved)))
	case len(r.Problems) > 0:
		verdict = theme.Warn("No changes in what could be read")
	}
	var w strings.Builder
	fmt.Fprintf(&w, "%s since baseline %q, taken %s.\n", verdict, b.Name, stamp(b.Finished))
	fmt.Fprintf(&w, "%s compared in %s", ui.Plural(sum.Files, "entry", "entries"), ui.Duration(r.Elapsed))
	if sum.Rehashed > 0 {
		fmt.Fprintf(&w, "; %s read again, %s", ui.Plural(sum.Rehashed, "file", "files"), ui.Bytes(sum.Bytes))
	}
	if sum.Skipped > 0 {
		fmt.Fprintf(&w, "; %s unchanged by inode and not read, last really read %s", ui.Plural(sum.Skipped, "file", "files"), since(sum.OldestRead, r.Started))
	}
	w.WriteString(".\n")
	for _, m := range sum.Mounts {
		fmt.Fprintf(&w, "Not entered, another filesystem: %s\n", ui.Escape(m))
	}
	if n := int64(len(r.Problems)); n > 0 {
		fmt.Fprintf(&w, "%s: %s could not be read or compared, so this report is incomplete.%s\n", theme.Warn("Incomplete"), ui.Plural(n, "entry", "entries"), remedy(r.Problems))
	}
	if len(r.Changes) > 0 && r.Stored {
		w.WriteString("Decide about them: mobileops finding list\n")
	}
	_, err := io.WriteString(s.Out, w.String())
	return err
}
