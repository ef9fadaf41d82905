package source

import (
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// nodeDocument is an advisory of the working group. Over the years its fields
// had several types.
type nodeDocument struct {
	ID          json.Number `json:"id"`
	Title       string      `json:"title"`
	Module      string      `json:"module_name"`
	CVEs        []string    `json:"cves"`
	CVE         any         `json:"cve"` // of those about Node.js itself
	Vulnerable  any         `json:"vulnerable_versions"`
	Patched     any         `json:"patched_versions"`
	Overview    string      `json:"overview"`
	References  any         `json:"references"`
	CVSSVector  any         `json:"cvss_vector"`
	CVSSScore   any         `json:"cvss_score"`
	Created     any         `json:"created_at"`
	Updated     any         `json:"updated_at"`
	PublishDate any         `json:"publish_date"`
}

// parseNode reads an advisory of Node.js's security working group about a package
// of npm. Those about Node.js itself name no package, and are left out.
func parseNode(data []byte, sum *Summary) (*Advisory, error) {
	if !utf8.Valid(data) {
		return nil, &MalformedError{Reason: "it is not UTF-8"}
	}
	var d nodeDocument
	if err := decode(data, &d); err != nil {
		return nil, err
	}
	switch {
	case d.Module == "" && (d.CVE != nil || d.Vulnerable != nil):
		sum.skip("Node.js itself")
		return nil, errSkip
	case d.Module == "" || len(d.Module) > 300:
		return nil, &MalformedError{Entry: "module_name", Reason: "it names no package"}
	}
	p := Affected{Ecosystem: "npm", Package: d.Module, Constraints: alternatives(text(d.Vulnerable))}
	for _, v := range alternatives(text(d.Patched)) {
		if !strings.Contains(v, "<0.0.0") { // how they say that nothing fixes it
			p.Patched = append(p.Patched, v)
		}
	}
	if len(p.Constraints) == 0 {
		return nil, &MalformedError{Entry: "vulnerable_versions", Reason: "it names no versions"}
	}
	a := &Advisory{
		Title: d.Title, Description: d.Overview, Affected: []Affected{p},
		Publisher: Publisher{"nodejs-security-wg", "Node.js Ecosystem Security Working Group", "https://github.com/nodejs/security-wg"},
		Published: date(d.PublishDate, d.Created), Modified: date(d.Updated, d.PublishDate, d.Created),
	}
	for _, c := range d.CVEs {
		if strings.HasPrefix(c, "CVE-") && len(c) < 40 {
			a.IDs = append(a.IDs, c)
		}
	}
	if len(a.IDs) == 0 {
		if _, err := strconv.ParseUint(d.ID.String(), 10, 32); err != nil {
			return nil, &MalformedError{Entry: "id", Reason: "it has neither a CVE nor a number"}
		}
		a.IDs = []string{fmt.Sprintf("NSWG-ECO-%s", d.ID)}
	}
	switch refs := d.References.(type) {
	case []any:
		a.References = texts(refs)
	case string:
		a.References = strings.Fields(refs)
	}
	if score := scoreOf(d.CVSSScore); score > 0 {
		a.CVSS = []CVSS{{Vector: text(d.CVSSVector), Score: score}}
	}
	return a, nil
}

// alternatives splits ranges at "||".
func alternatives(s string) (out []string) {
	for v := range strings.SplitSeq(s, "||") {
		if v = strings.TrimSpace(v); v != "" && len(v) < 500 {
			out = append(out, v)
		}
	}
	return out
}

// scoreOf reads 4.8, "4.8" and "4.8 (Medium)"; anything else is none.
func scoreOf(v any) float64 {
	f := 0.0
	switch v := v.(type) {
	case float64:
		f = v
	case string:
		first, _, _ := strings.Cut(v, " ")
		f, _ = strconv.ParseFloat(first, 64)
	}
	if math.IsNaN(f) || f < 0 || f > 10 {
		return 0
	}
	return f
}

// date reads the first of several dates that is one.
func date(list ...any) time.Time {
	for _, v := range list {
		for _, layout := range []string{time.RFC3339, "2006-01-02T15:04:05.000-0700", "2006-01-02", "2006-01-02 15:04:05"} {
			if t, err := time.Parse(layout, text(v)); err == nil {
				return t.UTC()
			}
		}
	}
	return time.Time{}
}
