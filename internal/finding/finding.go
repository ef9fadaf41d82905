// Package finding is the vocabulary in which every sensor reports, and the
// memory of what was reported.
//
// A sensor makes Finding values and hands everything one scan found to Report,
// which keeps one Record for each Fingerprint: when it was first and last seen,
// and whether a person has acknowledged or waived it. What a complete scan no
// longer finds is resolved; what comes back is open again. Reading is List and
// Get, deciding is Ack, Waive and Reopen.
//
// Invariants of the store:
//   - A record's key is the fingerprint of its source, rule and subject.
//   - A record is resolved exactly when no scope sees it any more.
//   - A waiver past its end is open on every read, whether or not a scan has
//     written that down yet.
//   - No record exceeds MaxRecord bytes, whatever a sensor was fed.
//
// Text in a finding is bytes: a subject is often a file name, which need not
// be UTF-8. It passes through the store and JSON without loss. The on-disk
// format is described in docs/formats/finding.md; sub-package export writes
// SARIF, JUnit, CEF, CSV and JSON lines.
package finding

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/mobileops/mobileops/internal/failure"
)

// Severity orders findings. The zero value is Info.
type Severity int

// The severities.
const (
	Info Severity = iota
	Low
	Medium
	High
	Critical
)

// Severities returns all severities, least first.
func Severities() []Severity { return []Severity{Info, Low, Medium, High, Critical} }

// String returns the severity as a lower-case word, "info" to "critical".
func (s Severity) String() string {
	switch s {
	case Info:
		return "info"
	case Low:
		return "low"
	case Medium:
		return "medium"
	case High:
		return "high"
	case Critical:
		return "critical"
	}
	return fmt.Sprintf("severity(%d)", int(s))
}

func (s Severity) valid() bool { return s >= Info && s <= Critical }

// ParseSeverity reads a severity in upper or lower case, by its word. An
// unknown word is a failure.Usage error that lists the known ones.
func ParseSeverity(word string) (Severity, error) {
	for _, s := range Severities() {
		if strings.EqualFold(word, s.String()) {
			return s, nil
		}
	}
	return Info, failure.Errorf(failure.Usage, "unknown severity %q (one of info, low, medium, high, critical)", word)
}

// MarshalText writes the severity as its word, in JSON and elsewhere.
func (s Severity) MarshalText() ([]byte, error) {
	if !s.valid() {
		return nil, fmt.Errorf("no such severity: %d", int(s))
	}
	return []byte(s.String()), nil
}

// UnmarshalText reads what MarshalText wrote.
func (s *Severity) UnmarshalText(b []byte) (err error) {
	*s, err = ParseSeverity(string(b))
	return err
}

// Finding is one thing a sensor noticed.
//
// In JSON a subject or evidence value that is not valid UTF-8 shows
// replacement characters, and its exact bytes stand in base64 under
// subject_b64 or evidence_b64.
type Finding struct {
	Source      string            `json:"source"` // the sensor: "integrity"
	Rule        string            `json:"rule"`   // stable id within the source: "file-changed"
	Severity    Severity          `json:"severity"`
	Title       string            `json:"title"`
	Subject     string            `json:"subject"` // what it is about: a path, package, address; bytes, not necessarily UTF-8
	Evidence    map[string]string `json:"evidence,omitempty"`
	Remediation string            `json:"remediation,omitempty"`
	References  []string          `json:"references,omitempty"`
	Tags        []string          `json:"tags,omitempty"`
	Observed    time.Time         `json:"observed"`
}

// bare is a Finding without its methods, so that encoding/json does not come
// back here.
type bare Finding

// wire is the JSON form of a Finding: its fields, and the exact bytes of what
// JSON strings cannot hold.
type wire struct {
	bare
	SubjectB64  []byte            `json:"subject_b64,omitempty"`
	EvidenceB64 map[string][]byte `json:"evidence_b64,omitempty"`
}

func (f Finding) wire() wire {
	w := wire{bare: bare(f)}
	if !utf8.ValidString(f.Subject) {
		w.SubjectB64 = []byte(f.Subject)
	}
	for k, v := range f.Evidence {
		if !utf8.ValidString(v) {
			if w.EvidenceB64 == nil {
				w.EvidenceB64 = make(map[string][]byte)
			}
			w.EvidenceB64[k] = []byte(v)
		}
	}
	return w
}

func (w wire) finding() Finding {
	f := Finding(w.bare)
	if w.SubjectB64 != nil {
		f.Subject = string(w.SubjectB64)
	}
	for k, v := range w.EvidenceB64 {
		if f.Evidence == nil {
			f.Evidence = make(map[string]string)
		}
		f.Evidence[k] = string(v)
	}
	return f
}

// MarshalJSON writes the finding as described at Finding.
func (f Finding) MarshalJSON() ([]byte, error) { return json.Marshal(f.wire()) }

// UnmarshalJSON reads what MarshalJSON wrote, without loss of subject or
// evidence.
func (f *Finding) UnmarshalJSON(b []byte) error {
	var w wire
	if err := json.Unmarshal(b, &w); err != nil {
		return err
	}
	*f = w.finding()
	return nil
}
