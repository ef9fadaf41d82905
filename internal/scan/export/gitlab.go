package export

import (
	"cmp"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/finding/export"
	"github.com/mobileops/mobileops/internal/scan/ledger"
	"github.com/mobileops/mobileops/internal/scan/protocol"
)

// GitLabReport is a kind of report that GitLab takes, each from a file of its own:
// artifacts:reports:KIND in .gitlab-ci.yml.
type GitLabReport string

// The kinds of reports.
const (
	ContainerScanning  GitLabReport = "container_scanning"  // vulnerabilities of an image or an installed system
	DependencyScanning GitLabReport = "dependency_scanning" // vulnerabilities of lock files
	SecretDetection    GitLabReport = "secret_detection"
	SAST               GitLabReport = "sast" // misconfigurations, as GitLab's own scan of infrastructure as code has them
)

const (
	// gitlabVersion is that of the schemas; GitLab 15.11 and later know it.
	gitlabVersion = "15.0.7"
	// Limits of the schemas, in characters. Ours are in bytes, which are more.
	gitlabName        = 255
	gitlabDescription = 64 << 10 // of 1,048,576
	gitlabSolution    = 7000
	gitlabVectors     = 10
	gitlabMessages    = 200 // our own limit
)

// GitLab writes a report of one kind in version 15.0.7 of GitLab's security report
// schemas. Which one follows from what was looked for, unless it is named:
// vulnerabilities come first, then secrets, then misconfigurations. Notes and the
// messages of the report say what did not fit into this kind. Where nothing of the
// document belongs to any kind, the error has the kind failure.Usage.
//
// GitLab resolves what is no longer in a report, so resolved items are left out.
// So are those that are waived, not affected or expected, which it could not be told
// otherwise; a message counts them.
func GitLab(w io.Writer, d *Document, kind GitLabReport) (notes []string, err error) {
	class := ledger.Vulnerability
	if kind == "" {
		if kind, err = d.gitlabKind(); err != nil {
			return nil, err
		}
	}
	switch kind {
	case ContainerScanning, DependencyScanning:
	case SecretDetection:
		class = ledger.Secret
	case SAST:
		class = ledger.Misconfiguration
	default:
		return nil, failure.Errorf(failure.Usage, "unknown report of GitLab: %q (one of %s, %s, %s, %s)", kind, ContainerScanning, DependencyScanning, SecretDetection, SAST)
	}
	if !d.looked(class.Scanner()) {
		return nil, failure.Hint(failure.Errorf(failure.Usage, "a %s report of GitLab is about %s, which were not looked for", kind, classWord(class)), "add --scanners "+string(class.Scanner()))
	}
	list := make([]*gitlabFinding, 0, len(d.Items))
	decided, left := 0, make(map[ledger.Class]int)
	for _, e := range d.entries() {
		switch {
		case e.State == ledger.Resolved:
		case e.Class != class:
			left[e.Class]++
		case e.State != ledger.Open:
			decided++
		default:
			list = append(list, d.gitlabFinding(e, kind, e.file(), uuid(e.Key)))
			if kind != DependencyScanning {
				continue
			}
			// A package that several lock files ask for is repaired in each of them.
			for _, file := range e.Paths[min(1, len(e.Paths)):] {
				key := sha256.Sum256(append(e.Key[:], file...))
				list = append(list, d.gitlabFinding(e, kind, file, uuid(ledger.Key(key[:16]))))
			}
		}
	}
	for _, c := range ledger.Classes() {
		if left[c] > 0 {
			notes = append(notes, fmt.Sprintf("a %s report of GitLab has no room for %s: %s left out", kind, classWord(c), count(left[c])))
		}
	}
	if decided > 0 {
		notes = append(notes, plural(decided, "item is", "items are")+" left out of the report of GitLab, being waived, not affected or expected")
	}
	report := map[string]any{
		"version":         gitlabVersion,
		"schema":          "https://gitlab.com/gitlab-org/security-products/security-report-schemas/-/raw/v" + gitlabVersion + "/dist/" + strings.ReplaceAll(string(kind), "_", "-") + "-report-format.json",
		"scan":            d.gitlabScan(kind, notes),
		"vulnerabilities": list,
		"remediations":    []any{},
	}
	if kind == DependencyScanning {
		report["dependency_files"] = d.gitlabFiles()
	}
	b, err := json.Marshal(report)
	if err != nil {
		return nil, err
	}
	_, err = w.Write(append(export.VisibleJSON(b), '\n'))
	return notes, err
}

// gitlabKind is the kind of report that fits what was looked for.
func (d *Document) gitlabKind() (GitLabReport, error) {
	switch {
	case d.looked(protocol.Vulnerabilities):
		switch d.Asset.Kind {
		case protocol.Filesystem, protocol.Repository:
			return DependencyScanning, nil
		case protocol.SBOM:
			if d.system() == "" {
				return DependencyScanning, nil
			}
		}
		return ContainerScanning, nil
	case d.looked(protocol.Secrets):
		return SecretDetection, nil
	case d.looked(protocol.Misconfigurations):
		return SAST, nil
	}
	return "", failure.Hint(failure.New(failure.Usage, "GitLab has no report of licences"), "add --scanners vuln, or take another --output")
}

type gitlabTool struct {
	ID      string            `json:"id"`
	Name    string            `json:"name"`
	URL     string            `json:"url,omitempty"`
	Version string            `json:"version"`
	Vendor  map[string]string `json:"vendor"`
}

func (d *Document) gitlabScan(kind GitLabReport, notes []string) map[string]any {
	type message struct {
		Level string `json:"level"`
		Value string `json:"value"`
	}
	messages := []message{}
	for _, note := range notes {
		messages = append(messages, message{"info", note})
	}
	for _, f := range d.Filters {
		messages = append(messages, message{"info", "left out by request: all but " + visible(f, longestText)})
	}
	if d.Database != nil && d.Database.Stale {
		messages = append(messages, message{"warn", "the vulnerability database is " + age(d.Now.Sub(d.Database.Built)) + " old"})
	}
	problems := d.problems()
	for i, p := range problems {
		if i == gitlabMessages {
			messages = append(messages, message{"warn", count(len(problems)-i) + " more things could not be looked at"})
			break
		}
		messages = append(messages, message{"warn", "could not be looked at: " + visible(joined(": ", p.Path, p.Detail), longestText)})
	}
	mobileops := gitlabTool{"mobileops-scan", "mobileops scan", projectURI, cmp.Or(visible(d.Version, longestShort), "unknown"), map[string]string{"name": "mobileops"}}
	engine := mobileops
	if name, version, ok := strings.Cut(d.engine(), " "); ok && name == "trivy" {
		engine = gitlabTool{"trivy", "Trivy", "https://github.com/aquasecurity/trivy", cmp.Or(visible(version, longestShort), "unknown"), map[string]string{"name": "Aqua Security"}}
	}
	return map[string]any{
		"type": string(kind), "status": "success", "analyzer": mobileops, "scanner": engine, "messages": messages,
		"start_time": d.Started.UTC().Format("2006-01-02T15:04:05"), "end_time": d.finished().UTC().Format("2006-01-02T15:04:05"),
	}
}

type gitlabFinding struct {
	ID          string             `json:"id"`
	Name        string             `json:"name"`
	Description string             `json:"description"`
	Severity    string             `json:"severity"`
	Solution    string             `json:"solution,omitempty"`
	Identifiers []gitlabIdentifier `json:"identifiers"`
	Vectors     []gitlabVector     `json:"cvss_vectors,omitempty"`
	Links       []gitlabLink       `json:"links"`
	Details     map[string]any     `json:"details,omitempty"`
	Location    map[string]any     `json:"location"`
	Extract     string             `json:"raw_source_code_extract,omitempty"`
}

type gitlabIdentifier struct {
	Type  string `json:"type"`
	Name  string `json:"name"`
	Value string `json:"value"`
	URL   string `json:"url,omitempty"`
}

type gitlabVector struct {
	Vendor string `json:"vendor"`
	Vector string `json:"vector"`
}

type gitlabLink struct {
	URL string `json:"url"`
}

func (d *Document) gitlabFinding(e *entry, kind GitLabReport, file, id string) *gitlabFinding {
	f := &gitlabFinding{
		ID: id, Name: inLine(e.headline(), gitlabName), Severity: gitlabSeverity(e.Severity),
		Description: markdown(prose(joined("\n\n", e.headline(), e.description(), e.Why), gitlabDescription)), Solution: inLine(e.remedy(), gitlabSolution),
		Identifiers: gitlabIdentifiers(e), Vectors: gitlabVectorsOf(e), Links: []gitlabLink{}, Location: d.gitlabLocation(e, kind, file),
	}
	for _, link := range append([]string{e.URL}, e.References...) {
		if link = webLink(link); link != "" && !containsLink(f.Links, link) {
			f.Links = append(f.Links, gitlabLink{link})
		}
	}
	if kind == SecretDetection {
		f.Extract = visible(e.Match, longestText) // the secret itself is not in it
	}
	detail := func(key, name, value string) {
		if value == "" {
			return
		}
		if f.Details == nil {
			f.Details = make(map[string]any)
		}
		f.Details[key] = map[string]string{"name": name, "type": "text", "value": visible(value, longestText)}
	}
	detail("why", "Why it stands where it does", e.Why)
	detail("first_seen", "First seen", stamp(e.FirstSeen))
	detail("fix_since", "Fix available since", stamp(e.FixSince))
	detail("due", "Due", stamp(e.due))
	detail("installed", "Installed", e.installed())
	detail("fixed", "Fixed in", e.fixed())
	return f
}

func containsLink(list []gitlabLink, url string) bool {
	for _, have := range list {
		if have.URL == url {
			return true
		}
	}
	return false
}

// inLine writes s in a line of at most limit bytes with all escapes.
func inLine(s string, limit int) string { return clip(visible(s, limit), limit) }

// markdown takes from text what GitLab would make a mention, an image, a link or
// an element of.
func markdown(s string) string {
	return strings.NewReplacer("<", "&lt;", "@", "&#64;", "![", "!\\[", "](", "]\\(").Replace(s)
}

// gitlabSeverity writes a severity as GitLab's word.
func gitlabSeverity(s ledger.Severity) string {
	word := severityWord(s)
	return strings.ToUpper(word[:1]) + word[1:]
}

// uuid makes a UUID of a key: version 8, which RFC 9562 leaves to whoever makes
// it. It stays the same for what stays the same.
func uuid(k ledger.Key) string {
	k[6] = k[6]&0x0f | 0x80
	k[8] = k[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", k[:4], k[4:6], k[6:8], k[8:10], k[10:])
}

func gitlabIdentifiers(e *entry) (list []gitlabIdentifier) {
	add := func(kind, id, link string) {
		id = inLine(id, gitlabName)
		for _, have := range list {
			if have.Value == id {
				return
			}
		}
		if id != "" {
			list = append(list, gitlabIdentifier{kind, id, id, webLink(link)})
		}
	}
	switch e.Class {
	case ledger.Vulnerability:
		add(advisoryType(e.ID), cmp.Or(e.ID, "unnamed"), helpURI(e))
		for _, id := range e.Aliases {
			add(advisoryType(id), id, "")
		}
		if e.advisory != nil {
			for _, cwe := range e.advisory.CWE {
				number := strings.TrimPrefix(cwe, "CWE-")
				if strings.Trim(number, "0123456789") == "" && number != "" {
					list = append(list, gitlabIdentifier{"cwe", "CWE-" + number, number, "https://cwe.mitre.org/data/definitions/" + number + ".html"})
				}
			}
		}
	case ledger.Secret:
		add("mobileops_secret_rule", cmp.Or(e.ID, "unnamed"), e.URL)
	default:
		add("mobileops_check", cmp.Or(e.ID, "unnamed"), e.URL)
		for _, id := range e.Aliases {
			add("mobileops_check", id, "")
		}
	}
	return list
}

// advisoryType is GitLab's word for who names advisories so.
func advisoryType(id string) string {
	for prefix, kind := range map[string]string{"CVE-": "cve", "GHSA-": "ghsa", "DSA-": "dsa", "DLA-": "dla", "USN-": "usn", "RHSA-": "rhsa", "ELSA-": "elsa", "GO-": "go", "OSV-": "osv"} {
		if strings.HasPrefix(id, prefix) {
			return kind
		}
	}
	return "mobileops_advisory"
}

// What the schemas take for a vector.
var (
	cvss3 = sync.OnceValue(func() *regexp.Regexp {
		return regexp.MustCompile(`^CVSS:3\.[01](/(AV:[NALP]|AC:[LH]|PR:[NLH]|UI:[NR]|S:[UC]|[CIA]:[NLH]|E:[XUPFH]|RL:[XOTWU]|RC:[XURC]|[CIA]R:[XLMH]|MAV:[XNALP]|MAC:[XLH]|MPR:[XNLH]|MUI:[XNR]|MS:[XUC]|M[CIA]:[XNLH]))+$`)
	})
	cvss2 = sync.OnceValue(func() *regexp.Regexp {
		metric := `(AV:[NAL]|AC:[LMH]|Au:[MSN]|[CIA]:[NPC]|E:(U|POC|F|H|ND)|RL:(OF|TF|W|U|ND)|RC:(UC|UR|C|ND)|CDP:(N|L|LM|MH|H|ND)|TD:(N|L|M|H|ND)|[CIA]R:(L|M|H|ND))`
		return regexp.MustCompile(`^` + metric + `(/` + metric + `)*$`)
	})
)

// gitlabVectorsOf are the vectors of the entry that GitLab understands (it knows
// neither CVSS 4 nor what is malformed), that which gave the score first.
func gitlabVectorsOf(e *entry) (list []gitlabVector) {
	seen := make(map[string]bool)
	add := func(vendor, vector string) {
		ok := len(vector) >= 32 && cvss3().MatchString(vector) || len(vector) >= 16 && cvss2().MatchString(vector)
		if !ok || len(vector) > 128 || seen[vendor] || len(list) == gitlabVectors {
			return
		}
		seen[vendor] = true
		list = append(list, gitlabVector{cmp.Or(inLine(vendor, gitlabName), "unknown"), vector})
	}
	if e.CVSS != nil {
		add(e.CVSS.Source, e.CVSS.Vector)
	}
	if e.advisory != nil {
		for _, source := range slices.Sorted(maps.Keys(e.advisory.CVSS)) {
			c := e.advisory.CVSS[source]
			add(source, c.V3Vector)
			add(source, c.V2Vector)
		}
	}
	return list
}

func (d *Document) gitlabLocation(e *entry, kind GitLabReport, file string) map[string]any {
	file = cmp.Or(visible(file, longestPath), visible(e.Subject, longestPath), "unknown")
	lines := func(at map[string]any) map[string]any {
		at["start_line"] = max(e.StartLine, 1)
		at["end_line"] = max(e.EndLine, e.StartLine, 1)
		return at
	}
	dependency := map[string]any{"package": map[string]string{"name": visible(cmp.Or(e.Package, e.Subject), longestName)}, "version": visible(e.installed(), longestName)}
	switch kind {
	case ContainerScanning:
		at := map[string]any{"dependency": dependency, "operating_system": cmp.Or(visible(d.system(), longestName), "unknown"), "image": d.gitlabImage()}
		if d.Asset.Kind == protocol.Image && d.Asset.Name != "" && len(d.Asset.Name) <= gitlabName {
			at["default_branch_image"] = inLine(d.Asset.Name, gitlabName)
		}
		return at
	case DependencyScanning:
		return map[string]any{"file": file, "dependency": dependency}
	case SecretDetection:
		// GitLab asks for a commit: the zero one stands for a tree without history.
		sha := "0000000"
		if d.Scanned != nil && d.Scanned.Commit != nil && d.Scanned.Commit.Hash != "" {
			sha = visible(d.Scanned.Commit.Hash, longestShort)
		}
		return lines(map[string]any{"file": file, "commit": map[string]string{"sha": sha}})
	}
	return lines(map[string]any{"file": file})
}

// gitlabImage is the image with its tag, or what else was scanned.
func (d *Document) gitlabImage() string {
	if d.Scanned != nil && d.Scanned.Image != nil && len(d.Scanned.Image.Tags) > 0 {
		return cmp.Or(visible(d.Scanned.Image.Tags[0], longestName), "unknown")
	}
	return cmp.Or(visible(d.Asset.Name, longestName), visible(d.Asset.ID, longestName), "unknown")
}

// gitlabFiles are the lock files that were found, with what is in them.
func (d *Document) gitlabFiles() []any {
	files := []any{}
	if d.Scanned == nil {
		return files
	}
	for i := range d.Scanned.Results {
		r := &d.Scanned.Results[i]
		if r.Class != protocol.ClassLanguage || r.Target == "" {
			continue
		}
		dependencies := []any{}
		for _, p := range r.Packages {
			one := map[string]any{"package": map[string]string{"name": visible(p.Name, longestName)}, "version": visible(p.Version, longestName)}
			if p.Relationship != "" {
				one["direct"] = p.Relationship == "direct"
			}
			dependencies = append(dependencies, one)
		}
		files = append(files, map[string]any{"path": visible(r.Target, longestPath), "package_manager": cmp.Or(visible(r.Type, longestShort), "unknown"), "dependencies": dependencies})
	}
	return files
}
