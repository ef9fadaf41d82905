package export

import (
	"bufio"
	"cmp"
	"compress/gzip"
	"encoding/json"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/mobileops/mobileops/internal/finding/export"
	"github.com/mobileops/mobileops/internal/scan/ledger"
)

const (
	sarifSchema = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
	projectURI  = "https://github.com/mobileops/mobileops"

	// What GitHub's code scanning takes: more of any is refused as a whole.
	sarifResults    = 25_000  // and as many rules
	sarifCompressed = 9 << 20 // bytes after gzip: 10 MB, and some room for another compressor
	sarifText       = 1024    // of descriptions
	sarifTags       = 10      // of a rule
	sarifProblems   = 1000    // our own limit: notifications are not shown anywhere
)

// SARIF writes one run in the format of OASIS SARIF 2.1.0, so that GitHub's code
// scanning takes it: every result has a relative location with a line, every rule
// a help text and, where somebody scored it, a security-severity (the CVSS score;
// without one the middle of the band of its severity; none when that is unknown).
//
// What was resolved is left out, since a result is an open alert there. A waiver
// and a statement of OpenVEX are accepted suppressions. GitHub follows a result
// from one upload to the next by partialFingerprints["primaryLocationLineHash"],
// which is the key of the ledger: it stays while versions and lines change.
// Results are in order of urgency; of too many the last ones are left out, and a
// note says so, which is in the run's notifications, too.
//
// Sources: OASIS SARIF 2.1.0 errata 01; GitHub, "SARIF support for code scanning".
func SARIF(w io.Writer, d *Document) (notes []string, err error) {
	return writeSARIF(w, d, sarifResults, sarifCompressed)
}

// writeSARIF is SARIF with at most as many results, and about as many bytes after
// compression.
func writeSARIF(w io.Writer, d *Document, most, compressed int) (notes []string, err error) {
	var entries []*entry
	for _, e := range d.entries() {
		if e.State != ledger.Resolved {
			entries = append(entries, e)
		}
	}
	buf := bufio.NewWriterSize(w, 64<<10)
	out := &errWriter{w: buf}
	out.print(`{"$schema":"`, sarifSchema, `","version":"2.1.0","runs":[{"columnKind":"utf16CodeUnits","results":[`)
	// The rules stand far behind the results, out of reach of the compressor, however
	// much of their text is the same.
	results, descriptions := newBudget(), newBudget()
	rules := sarifRules{index: make(map[string]int)}
	left, sep := 0, "\n"
	for i, e := range entries {
		if out.err != nil {
			break
		}
		if i == most || results.size+descriptions.size >= compressed-2*budgetSlack {
			left = len(entries) - i
			break
		}
		n, isNew := rules.add(e)
		b, err := json.Marshal(d.sarifResult(e, rules.list[n].ID, n))
		if err != nil {
			return nil, err
		}
		results.add(b)
		if isNew {
			if r, err := json.Marshal(rules.list[n]); err == nil {
				descriptions.add(r)
			}
		}
		out.print(sep, string(export.VisibleJSON(b)))
		sep = ",\n"
	}
	if left > 0 {
		notes = append(notes, "SARIF has room for "+plural(len(entries)-left, "result", "results")+": the "+count(left)+" least urgent ones are left out")
	}
	tail, err := json.Marshal(d.sarifTail(rules.list, notes))
	if err != nil {
		return nil, err
	}
	// The tail is an object; its members continue the run.
	tail = export.VisibleJSON(tail)
	out.print("],\n", string(tail[1:len(tail)-1]), "}]}\n")
	if out.err != nil {
		return nil, out.err
	}
	return notes, buf.Flush()
}

// budget says how much what was added is after compression. It compresses less
// well than others do, so it errs on the safe side.
type budget struct {
	gz   *gzip.Writer
	size int // bytes
}

// budgetSlack is more than what the compressor has not written yet, in bytes.
const budgetSlack = 128 << 10

func newBudget() *budget {
	b := new(budget)
	b.gz, _ = gzip.NewWriterLevel(b, gzip.BestSpeed) // the level is valid
	return b
}

// Write counts what is compressed.
func (b *budget) Write(p []byte) (int, error) { b.size += len(p); return len(p), nil }

func (b *budget) add(p []byte) { _, _ = b.gz.Write(p) } // into the counter, which never fails

type sarifMessage struct {
	Text string `json:"text"`
}

type sarifRule struct {
	ID                   string          `json:"id"`
	ShortDescription     sarifMessage    `json:"shortDescription"`
	FullDescription      sarifMessage    `json:"fullDescription"`
	Help                 sarifMessage    `json:"help"`
	HelpURI              string          `json:"helpUri"`
	DefaultConfiguration sarifConfig     `json:"defaultConfiguration"`
	Properties           sarifProperties `json:"properties"`

	severity ledger.Severity
	score    float64
}

type sarifConfig struct {
	Level string `json:"level"`
}

type sarifProperties struct {
	Tags             []string `json:"tags"`
	Precision        string   `json:"precision"`
	SecuritySeverity string   `json:"security-severity,omitempty"`
}

type sarifRules struct {
	list  []*sarifRule
	index map[string]int
}

// add returns the number of the rule of e, and makes it as severe as its most
// severe result.
func (r *sarifRules) add(e *entry) (n int, isNew bool) {
	id := sarifRuleID(e)
	n, ok := r.index[id]
	if !ok {
		n = len(r.list)
		r.index[id] = n
		r.list = append(r.list, newSARIFRule(id, e))
	}
	rule := r.list[n]
	if !ok || known(e.Severity).Rank() > rule.severity.Rank() {
		rule.severity = known(e.Severity)
	}
	if e.CVSS != nil {
		rule.score = max(rule.score, min(e.CVSS.Score, 10))
	}
	rule.DefaultConfiguration.Level = sarifLevel(rule.severity)
	if e.Class != ledger.License {
		rule.Properties.SecuritySeverity = sarifScore(rule.severity, rule.score)
	}
	return n, !ok
}

// sarifRuleID names a rule. Advisories and checks have names of their own, those
// of secrets and licences are told apart by a prefix.
func sarifRuleID(e *entry) string {
	id := fit(cmp.Or(e.ID, "unnamed"), visible, 200)
	if e.Class == ledger.Secret || e.Class == ledger.License {
		return string(e.Class) + "/" + id
	}
	return id
}

func newSARIFRule(id string, e *entry) *sarifRule {
	title := e.headline()
	if e.Class == ledger.Misconfiguration {
		title = cmp.Or(e.Title, e.ID)
	}
	rule := &sarifRule{ID: id, HelpURI: helpURI(e),
		ShortDescription: sarifMessage{fit(cmp.Or(e.ID, "unnamed")+": "+title, visible, sarifText)},
		FullDescription:  sarifMessage{fit(cmp.Or(e.description(), title), prose, sarifText)},
	}
	help := []string{id + ": " + visible(title, sarifText)}
	if e.Class == ledger.Misconfiguration && e.Resolution != "" {
		help = append(help, prose(e.Resolution, longestText))
	}
	if e.Class == ledger.Secret {
		help = append(help, e.remedy()+".")
	}
	rule.Help.Text = sarifPlain(strings.Join(append(help, "See "+rule.HelpURI), "\n"))
	rule.Properties = sarifProperties{Precision: "very-high", Tags: []string{string(e.Class)}}
	if e.Class != ledger.License {
		rule.Properties.Tags = append(rule.Properties.Tags, "security")
	}
	if e.Class == ledger.Secret || e.Class == ledger.License {
		rule.Properties.Precision = "high"
	}
	if e.advisory != nil {
		for _, cwe := range e.advisory.CWE {
			tag := "external/cwe/" + strings.ToLower(visible(cwe, 32))
			if len(rule.Properties.Tags) < sarifTags && !contains(rule.Properties.Tags, tag) {
				rule.Properties.Tags = append(rule.Properties.Tags, tag)
			}
		}
	}
	return rule
}

func contains(list []string, s string) bool {
	for _, have := range list {
		if have == s {
			return true
		}
	}
	return false
}

// helpURI is where more is said about the entry: what the advisory names, or where
// advisories of its kind are.
func helpURI(e *entry) string {
	for _, link := range append([]string{e.URL}, e.References...) {
		if link = webLink(link); link != "" {
			return link
		}
	}
	for prefix, base := range map[string]string{"CVE-": "https://nvd.nist.gov/vuln/detail/", "GHSA-": "https://github.com/advisories/", "GO-": "https://pkg.go.dev/vuln/"} {
		if strings.HasPrefix(e.ID, prefix) {
			if link := webLink(base + relativeURI(e.ID)); link != "" {
				return link
			}
		}
	}
	return projectURI
}

func sarifLevel(s ledger.Severity) string {
	switch s {
	case ledger.Critical, ledger.High:
		return "error"
	case ledger.Low:
		return "note"
	}
	return "warning"
}

// sarifScore writes a score as GitHub reads it: from 9.0 critical, from 7.0 high,
// from 4.0 medium, below that low.
func sarifScore(s ledger.Severity, score float64) string {
	if score > 0 {
		return strconv.FormatFloat(score, 'f', 1, 64)
	}
	switch s {
	case ledger.Critical:
		return "9.5"
	case ledger.High:
		return "8.0"
	case ledger.Medium:
		return "5.5"
	case ledger.Low:
		return "2.0"
	}
	return ""
}

type sarifResult struct {
	RuleID              string             `json:"ruleId"`
	RuleIndex           int                `json:"ruleIndex"`
	Level               string             `json:"level"`
	BaselineState       string             `json:"baselineState"`
	Message             sarifMessage       `json:"message"`
	Locations           []sarifLocation    `json:"locations"`
	PartialFingerprints map[string]string  `json:"partialFingerprints"`
	Provenance          *sarifProvenance   `json:"provenance,omitempty"`
	Suppressions        []sarifSuppression `json:"suppressions"` // empty means: not suppressed
	Properties          map[string]any     `json:"properties"`
}

type sarifLocation struct {
	Message  *sarifMessage  `json:"message,omitempty"`
	Physical sarifPhysical  `json:"physicalLocation"`
	Logical  []sarifLogical `json:"logicalLocations,omitempty"`
}

type sarifPhysical struct {
	Artifact struct {
		URI string `json:"uri"`
	} `json:"artifactLocation"`
	Region struct {
		StartLine int `json:"startLine"`
		EndLine   int `json:"endLine"`
	} `json:"region"`
}

type sarifLogical struct {
	FullyQualifiedName string `json:"fullyQualifiedName"`
	Kind               string `json:"kind,omitempty"`
}

type sarifProvenance struct {
	First string `json:"firstDetectionTimeUtc,omitempty"`
	Last  string `json:"lastDetectionTimeUtc,omitempty"`
}

type sarifSuppression struct {
	Kind          string         `json:"kind"`
	Status        string         `json:"status"`
	Justification string         `json:"justification,omitempty"`
	Properties    map[string]any `json:"properties,omitempty"`
}

func (d *Document) sarifResult(e *entry, rule string, n int) *sarifResult {
	key := e.Key.String()
	res := &sarifResult{
		RuleID: rule, RuleIndex: n, Level: sarifLevel(known(e.Severity)), BaselineState: "unchanged",
		Message:             sarifMessage{sarifPlain(sarifMessageText(e))},
		Locations:           []sarifLocation{d.sarifLocation(e)},
		PartialFingerprints: map[string]string{"mobileopsScan/v1": key, "primaryLocationLineHash": key + ":1"},
		Suppressions:        []sarifSuppression{},
		Properties:          map[string]any{"severity": severityWord(e.Severity), "state": string(e.State)},
	}
	if e.change == "new" || e.change == "reopened" {
		res.BaselineState = "new"
	}
	if !e.FirstSeen.IsZero() {
		res.Provenance = &sarifProvenance{First: sarifTime(e.FirstSeen), Last: sarifTime(e.LastSeen)}
	}
	if decision := e.decision(); decision != "" {
		s := sarifSuppression{Kind: "external", Status: "accepted", Justification: visible(decision, longestText)}
		if e.Waiver != nil && e.State == ledger.Waived {
			s.Properties = map[string]any{"owner": visible(e.Waiver.Owner, longestName), "until": sarifTime(e.Waiver.Until)}
		}
		res.Suppressions = append(res.Suppressions, s)
	}
	set := func(name, value string) {
		if value != "" {
			res.Properties[name] = visible(value, longestName)
		}
	}
	set("why", e.Why)
	set("package", e.Package)
	set("packageType", e.Type)
	set("installed", e.installed())
	set("fixed", e.fixed())
	set("purl", e.PURL)
	set("due", stamp(e.due))
	if e.overdue {
		res.Properties["overdue"] = true
	}
	if e.KEV != nil {
		res.Properties["kev"] = true
	}
	if e.EPSS != nil {
		res.Properties["epss"] = e.EPSS.Score
	}
	return res
}

// sarifLocation is where GitHub shows the result. A package of the system has no
// file, and a result without one makes GitHub refuse all of them, so that it is
// shown at a file named as the asset is.
func (d *Document) sarifLocation(e *entry) (loc sarifLocation) {
	loc.Physical.Artifact.URI = cmp.Or(relativeURI(e.file()), relativeURI(d.Asset.Name), relativeURI(d.Asset.ID), "target")
	loc.Physical.Region.StartLine = max(e.StartLine, 1)
	loc.Physical.Region.EndLine = max(e.EndLine, loc.Physical.Region.StartLine)
	if name := cmp.Or(e.PURL, e.Package, e.Resource); name != "" {
		loc.Logical = []sarifLogical{{FullyQualifiedName: visible(name, longestName)}}
		if e.Package != "" {
			loc.Logical[0].Kind = "package"
		}
	}
	if e.MorePaths > 0 || len(e.Paths) > 1 {
		loc.Message = &sarifMessage{"and " + plural(len(e.Paths)-1+e.MorePaths, "other place", "other places")}
	}
	return loc
}

func sarifMessageText(e *entry) string {
	lines := []string{visible(e.name(), longestPath) + ": " + visible(e.headline(), longestText)}
	line := func(name, text string) {
		if text != "" {
			lines = append(lines, name+": "+visible(text, longestText))
		}
	}
	if e.Class == ledger.Vulnerability {
		line("Installed", e.installed())
	}
	line("Why", e.Why)
	line("Found", e.Match)
	line("What to do", e.remedy())
	if e.overdue {
		line("Overdue since", day(e.due))
	} else {
		line("Due", day(e.due))
	}
	return strings.Join(lines, "\n")
}

// sarifPlain writes plain text as a SARIF message string (section 3.11): braces
// are doubled, since they mark placeholders, and brackets escaped where the text
// would otherwise be shown as a link.
func sarifPlain(s string) string {
	if strings.ContainsAny(s, "{}") {
		s = strings.NewReplacer("{", "{{", "}", "}}").Replace(s)
	}
	if strings.Contains(s, "](") {
		s = strings.NewReplacer("[", `\[`, "]", `\]`).Replace(s)
	}
	return s
}

// fit writes s so that it has at most limit bytes with all escapes.
func fit(s string, write func(string, int) string, limit int) string {
	for longest := limit; ; longest = longest * 3 / 4 {
		if out := sarifPlain(write(s, longest)); len(out) <= limit || longest < 16 {
			return out
		}
	}
}

func sarifTime(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }

// sarifTail returns what follows the results in the run.
func (d *Document) sarifTail(rules []*sarifRule, notes []string) map[string]any {
	if rules == nil {
		rules = []*sarifRule{}
	}
	driver := map[string]any{"name": "mobileops scan", "informationUri": projectURI, "rules": rules}
	if d.Version != "" {
		driver["version"] = visible(d.Version, longestShort)
	}
	properties := map[string]any{"asset": visible(d.Asset.ID, longestName), "engine": visible(d.engine(), longestName), "system": visible(d.system(), longestName)}
	if d.Database != nil {
		properties["databaseBuilt"] = stamp(d.Database.Built)
	}
	if len(d.Filters) > 0 {
		properties["filters"] = d.Filters
	}
	problems := d.problems()
	notifications := []any{}
	notify := func(level, text string) {
		notifications = append(notifications, map[string]any{"level": level, "message": sarifMessage{sarifPlain(text)}})
	}
	for _, note := range notes {
		notify("warning", note)
	}
	for i, p := range problems {
		if i == sarifProblems {
			notify("error", count(len(problems)-i)+" more things could not be looked at")
			break
		}
		notify("error", "could not be looked at: "+visible(joined(": ", p.Path, p.Detail), longestText))
	}
	invocation := map[string]any{"executionSuccessful": len(problems) == 0, "startTimeUtc": sarifTime(d.Started), "endTimeUtc": sarifTime(d.finished()), "toolExecutionNotifications": notifications}
	if d.Host != "" {
		invocation["machine"] = visible(d.Host, longestName)
	}
	run := map[string]any{
		"tool":              map[string]any{"driver": driver},
		"invocations":       []any{invocation},
		"automationDetails": map[string]any{"id": "mobileops/scan/" + visible(d.Asset.ID, longestName) + "/"},
		"properties":        properties,
	}
	if d.Scanned != nil && d.Scanned.Commit != nil && d.Scanned.Commit.Hash != "" {
		if c := d.Scanned.Commit; webLink(c.Remote) != "" {
			run["versionControlProvenance"] = []any{map[string]any{"repositoryUri": webLink(c.Remote), "revisionId": visible(c.Hash, longestShort), "branch": visible(c.Branch, longestShort)}}
		}
	}
	return run
}

// errWriter remembers the first error, so that encoders need not ask after every
// write.
type errWriter struct {
	w   io.Writer
	err error
}

func (e *errWriter) print(parts ...string) {
	for _, p := range parts {
		if e.err == nil {
			_, e.err = io.WriteString(e.w, p)
		}
	}
}
