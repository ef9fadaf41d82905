package export

import (
	"bufio"
	"encoding/json"
	"io"
	"net/url"
	"strings"
	"time"

	"github.com/mobileops/mobileops/internal/finding"
)

const (
	sarifSchema = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
	projectURI  = "https://github.com/mobileops/mobileops"
)

// SARIF writes one run in the format of OASIS SARIF 2.1.0. The results come
// before the tool, which SARIF allows, because the rules are known only once
// every record was written.
//
// A result's partialFingerprints["mobileopsFinding/v1"] is the fingerprint.
// Subjects that are absolute paths are physical locations whose file: URI has
// every byte; others are logical locations. A waiver is an accepted
// suppression, an acknowledgement one that is under review, and a resolved
// finding has the baseline state "absent".
func SARIF(w io.Writer, m Meta, records Records) error {
	out := &errWriter{w: w}
	buf := bufio.NewWriter(out)
	e := &errWriter{w: buf}
	e.print(`{"$schema":"`, sarifSchema, `","version":"2.1.0","runs":[{"columnKind":"utf16CodeUnits","results":[`)
	index := make(map[string]int)
	var rules []*sarifRule
	sep := "\n"
	for r := range records {
		if e.err != nil {
			break
		}
		id := ruleID(r)
		n, known := index[id]
		if !known {
			n = len(rules)
			index[id] = n
			rules = append(rules, newSARIFRule(id, r))
		}
		rules[n].worst(r.Severity)
		b, err := json.Marshal(newSARIFResult(id, n, r))
		if err != nil {
			return err
		}
		e.print(sep, string(b))
		sep = ",\n"
	}
	tail, err := json.Marshal(sarifTail(m, rules))
	if err != nil {
		return err
	}
	// The tail is an object; its members continue the run.
	e.print("],\n", string(tail[1:len(tail)-1]), "}]}\n")
	if e.err != nil {
		return e.err
	}
	return buf.Flush()
}

type sarifMessage struct {
	Text string `json:"text"`
}

type sarifRule struct {
	ID                   string          `json:"id"`
	ShortDescription     sarifMessage    `json:"shortDescription"`
	Help                 *sarifMessage   `json:"help,omitempty"`
	HelpURI              string          `json:"helpUri,omitempty"`
	DefaultConfiguration sarifConfig     `json:"defaultConfiguration"`
	Properties           sarifProperties `json:"properties"`

	severity finding.Severity
}

type sarifConfig struct {
	Level string `json:"level"`
}

type sarifProperties struct {
	Tags             []string `json:"tags,omitempty"`
	SecuritySeverity string   `json:"security-severity,omitempty"` // as GitHub code scanning reads it
}

func newSARIFRule(id string, r *finding.Record) *sarifRule {
	rule := &sarifRule{ID: id, ShortDescription: sarifMessage{sarifText(Visible(r.Rule) + ", reported by " + Visible(r.Source))}}
	if r.Remediation != "" {
		rule.Help = &sarifMessage{sarifText(Visible(r.Remediation))}
	}
	for _, ref := range r.References {
		if u, err := url.Parse(ref); err == nil && (u.Scheme == "https" || u.Scheme == "http") && u.Host != "" {
			rule.HelpURI = u.String()
			break
		}
	}
	rule.Properties.Tags = uniqueStrings(visibleAll(r.Tags))
	rule.worst(r.Severity)
	return rule
}

// worst makes the rule as severe as its most severe result.
func (rule *sarifRule) worst(s finding.Severity) {
	rule.severity = max(rule.severity, s)
	rule.DefaultConfiguration.Level = sarifLevel(rule.severity)
	rule.Properties.SecuritySeverity = sarifScore(rule.severity)
}

func sarifLevel(s finding.Severity) string {
	switch {
	case s >= finding.High:
		return "error"
	case s == finding.Medium:
		return "warning"
	}
	return "note"
}

// sarifScore maps to the bands of security-severity: above 9.0 critical, from
// 7.0 high, from 4.0 medium, from 0.1 low.
func sarifScore(s finding.Severity) string {
	switch s {
	case finding.Critical:
		return "9.5"
	case finding.High:
		return "8.0"
	case finding.Medium:
		return "5.5"
	case finding.Low:
		return "2.0"
	}
	return "0.0"
}

type sarifResult struct {
	RuleID              string             `json:"ruleId"`
	RuleIndex           int                `json:"ruleIndex"`
	Level               string             `json:"level"`
	BaselineState       string             `json:"baselineState"`
	Message             sarifMessage       `json:"message"`
	Locations           []sarifLocation    `json:"locations"`
	PartialFingerprints map[string]string  `json:"partialFingerprints"`
	OccurrenceCount     uint64             `json:"occurrenceCount"`
	Provenance          sarifProvenance    `json:"provenance"`
	Suppressions        []sarifSuppression `json:"suppressions"` // empty means: not suppressed
	Properties          map[string]any     `json:"properties"`
}

type sarifLocation struct {
	Physical *sarifPhysical `json:"physicalLocation,omitempty"`
	Logical  []sarifLogical `json:"logicalLocations,omitempty"`
}

type sarifPhysical struct {
	Artifact struct {
		URI string `json:"uri"`
	} `json:"artifactLocation"`
}

type sarifLogical struct {
	FullyQualifiedName string `json:"fullyQualifiedName"`
}

type sarifProvenance struct {
	First string `json:"firstDetectionTimeUtc"`
	Last  string `json:"lastDetectionTimeUtc"`
}

type sarifSuppression struct {
	Kind          string         `json:"kind"`
	Status        string         `json:"status"`
	Justification string         `json:"justification,omitempty"`
	Properties    map[string]any `json:"properties,omitempty"`
}

func newSARIFResult(id string, rule int, r *finding.Record) *sarifResult {
	res := &sarifResult{
		RuleID: id, RuleIndex: rule, Level: sarifLevel(r.Severity), BaselineState: "unchanged",
		Message:             sarifMessage{sarifText(trimmedJoin(": ", Visible(r.Title), trimmedJoin("; ", evidence(r)...)))},
		Locations:           []sarifLocation{},
		PartialFingerprints: map[string]string{"mobileopsFinding/v1": r.Fingerprint.String()},
		OccurrenceCount:     max(r.TimesSeen, 1),
		Provenance:          sarifProvenance{sarifTime(r.FirstSeen), sarifTime(r.LastSeen)},
		Suppressions:        []sarifSuppression{},
		Properties: map[string]any{
			"id": r.ID(), "severity": r.Severity.String(), "state": r.State.String(), "subject": Visible(r.Subject),
		},
	}
	if res.Message.Text == "" {
		res.Message.Text = sarifText(Visible(r.Rule))
	}
	if tags := uniqueStrings(visibleAll(r.Tags)); len(tags) > 0 {
		res.Properties["tags"] = tags
	}
	if len(r.Evidence) > 0 {
		ev := make(map[string]string, len(r.Evidence))
		for k, v := range r.Evidence {
			ev[Visible(k)] = Visible(v)
		}
		res.Properties["evidence"] = ev
	}
	switch {
	case strings.HasPrefix(r.Subject, "/"):
		var loc sarifLocation
		loc.Physical = new(sarifPhysical)
		loc.Physical.Artifact.URI = fileURI(r.Subject)
		res.Locations = append(res.Locations, loc)
	case r.Subject != "":
		res.Locations = append(res.Locations, sarifLocation{Logical: []sarifLogical{{Visible(r.Subject)}}})
	}
	switch {
	case r.State == finding.Resolved:
		res.BaselineState = "absent"
	case r.TimesSeen <= 1:
		res.BaselineState = "new"
	}
	switch r.State {
	case finding.Waived:
		res.Suppressions = append(res.Suppressions, sarifSuppression{"external", "accepted", Visible(r.Reason),
			map[string]any{"owner": Visible(r.Owner), "until": sarifTime(r.WaivedUntil)}})
	case finding.Acknowledged:
		res.Suppressions = append(res.Suppressions, sarifSuppression{Kind: "external", Status: "underReview", Justification: Visible(r.Reason)})
	}
	return res
}

// sarifText writes plain text as a SARIF message string (section 3.11): braces
// are doubled, since they mark placeholders, and brackets escaped where the
// text would otherwise be shown as a link.
func sarifText(s string) string {
	s = strings.NewReplacer("{", "{{", "}", "}}").Replace(s)
	if strings.Contains(s, "](") {
		s = strings.NewReplacer("[", `\[`, "]", `\]`).Replace(s)
	}
	return s
}

func sarifTime(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }

// fileURI returns the file: URI of an absolute path (RFC 8089). Every byte
// but the unreserved ones of RFC 3986 and the slash is percent-encoded, so any
// file name passes.
func fileURI(path string) string {
	b := []byte("file://")
	for i := range len(path) {
		c := path[i]
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', strings.IndexByte("-._~/", c) >= 0:
			b = append(b, c)
		default:
			b = append(b, '%', "0123456789ABCDEF"[c>>4], "0123456789ABCDEF"[c&15])
		}
	}
	return string(b)
}

// sarifTail returns what follows the results in the run.
func sarifTail(m Meta, rules []*sarifRule) map[string]any {
	if rules == nil {
		rules = []*sarifRule{}
	}
	driver := map[string]any{"name": "mobileops", "informationUri": projectURI, "rules": rules}
	if m.Version != "" {
		driver["version"] = Visible(m.Version)
	}
	invocation := map[string]any{"executionSuccessful": true, "endTimeUtc": sarifTime(m.Started)}
	if m.Host != "" {
		invocation["machine"] = Visible(m.Host)
	}
	return map[string]any{
		"tool":              map[string]any{"driver": driver},
		"invocations":       []any{invocation},
		"automationDetails": map[string]any{"id": "mobileops/findings/"},
	}
}

// uniqueStrings drops repetitions, which SARIF does not allow in tags.
func uniqueStrings(list []string) []string {
	seen := make(map[string]bool, len(list))
	var out []string
	for _, s := range list {
		if !seen[s] {
			seen[s] = true
			out = append(out, s)
		}
	}
	return out
}
