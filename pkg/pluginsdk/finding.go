package pluginsdk

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"
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

// ParseSeverity reads a severity in upper or lower case, by its word.
func ParseSeverity(word string) (Severity, error) {
	for _, s := range Severities() {
		if strings.EqualFold(word, s.String()) {
			return s, nil
		}
	}
	return Info, fmt.Errorf("unknown severity %q (one of info, low, medium, high, critical)", word)
}

// MarshalText writes the severity as its word, in JSON and elsewhere.
func (s Severity) MarshalText() ([]byte, error) {
	if s < Info || s > Critical {
		return nil, fmt.Errorf("no such severity: %d", int(s))
	}
	return []byte(s.String()), nil
}

// UnmarshalText reads what MarshalText wrote.
func (s *Severity) UnmarshalText(b []byte) (err error) {
	*s, err = ParseSeverity(string(b))
	return err
}

// State says what was decided about a finding.
type State string

// The states.
const (
	Open         State = "open"
	Acknowledged State = "acknowledged"
	Waived       State = "waived"
	Resolved     State = "resolved"
)

// StateChange is one change of a finding's state.
type StateChange struct {
	At       time.Time `json:"at"`
	Who      string    `json:"who"` // a user, or the source whose scan brought it about
	From     State     `json:"from"`
	To       State     `json:"to"`
	Severity Severity  `json:"severity"` // of the finding at that time
	Why      string    `json:"why"`
}

// Finding is one thing that a sensor noticed, and what mobileops remembers
// about it. Its JSON is that of mobileops finding list --output json.
//
// Subject and the values of Evidence are bytes, since a subject is often a
// file name. In JSON one that is not valid UTF-8 shows replacement characters,
// and its exact bytes stand in base64 under subject_b64 or evidence_b64; both
// ways of this package keep them.
type Finding struct {
	// What a plugin reports. Two findings of the same source, rule and subject
	// are the same one.
	Source      string            // the sensor; of a plugin always "plugin/NAME", and may be left empty
	Rule        string            // stable id within the source: "file-changed"; 1 to 256 bytes
	Severity    Severity          //
	Title       string            // one line for people
	Subject     string            // what it is about: a path, package, address
	Evidence    map[string]string //
	Remediation string            // what to do
	References  []string          // URLs, CVE numbers
	Tags        []string          //
	Observed    time.Time         //

	// What mobileops adds. Ignored in a report.
	ID          string        // ten hexadecimal digits, for people
	Fingerprint string        // 32 hexadecimal digits, of source, rule and subject
	State       State         //
	FirstSeen   time.Time     //
	LastSeen    time.Time     //
	TimesSeen   uint64        // number of scans that found it
	Owner       string        // who answers for the waiver
	Reason      string        // why it was acknowledged or waived
	WaivedUntil time.Time     // zero in every other state
	Scopes      []string      // the scopes whose latest scan found it
	History     []StateChange // oldest first
	Forgotten   uint64        // changes that History no longer has
	Truncated   bool          // the report exceeded a limit and was cut
}

// reported is the JSON of what a plugin reports.
type reported struct {
	Source      string            `json:"source"`
	Rule        string            `json:"rule"`
	Severity    Severity          `json:"severity"`
	Title       string            `json:"title"`
	Subject     string            `json:"subject"`
	Evidence    map[string]string `json:"evidence,omitempty"`
	Remediation string            `json:"remediation,omitempty"`
	References  []string          `json:"references,omitempty"`
	Tags        []string          `json:"tags,omitempty"`
	Observed    time.Time         `json:"observed,omitzero"`
	SubjectB64  []byte            `json:"subject_b64,omitempty"`
	EvidenceB64 map[string][]byte `json:"evidence_b64,omitempty"`
}

// findingWire is the JSON form of a Finding. Decoding an Event goes through it
// and not through Finding.UnmarshalJSON, which would read the same bytes twice.
type findingWire struct {
	ID          string `json:"id,omitempty"`
	Fingerprint string `json:"fingerprint,omitempty"`
	State       State  `json:"state,omitempty"`
	reported
	FirstSeen   time.Time     `json:"first_seen,omitzero"`
	LastSeen    time.Time     `json:"last_seen,omitzero"`
	TimesSeen   uint64        `json:"times_seen,omitempty"`
	Owner       string        `json:"owner,omitempty"`
	Reason      string        `json:"reason,omitempty"`
	WaivedUntil time.Time     `json:"waived_until,omitzero"`
	Scopes      []string      `json:"scopes,omitempty"`
	History     []StateChange `json:"history,omitempty"`
	Forgotten   uint64        `json:"history_forgotten,omitempty"`
	Truncated   bool          `json:"truncated,omitempty"`
}

// reported returns the part of the finding that a plugin reports.
func (f *Finding) reported() reported {
	w := reported{
		Source: f.Source, Rule: f.Rule, Severity: f.Severity, Title: f.Title, Subject: f.Subject,
		Evidence: f.Evidence, Remediation: f.Remediation, References: f.References, Tags: f.Tags, Observed: f.Observed,
	}
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

// finding returns what the wire form stands for.
func (w *findingWire) finding() Finding {
	f := Finding{
		Source: w.Source, Rule: w.Rule, Severity: w.Severity, Title: w.Title, Subject: w.Subject,
		Evidence: w.Evidence, Remediation: w.Remediation, References: w.References, Tags: w.Tags, Observed: w.Observed,
		ID: w.ID, Fingerprint: w.Fingerprint, State: w.State, FirstSeen: w.FirstSeen, LastSeen: w.LastSeen,
		TimesSeen: w.TimesSeen, Owner: w.Owner, Reason: w.Reason, WaivedUntil: w.WaivedUntil, Scopes: w.Scopes,
		History: w.History, Forgotten: w.Forgotten, Truncated: w.Truncated,
	}
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
func (f Finding) MarshalJSON() ([]byte, error) {
	return json.Marshal(&findingWire{
		ID: f.ID, Fingerprint: f.Fingerprint, State: f.State, reported: f.reported(),
		FirstSeen: f.FirstSeen, LastSeen: f.LastSeen, TimesSeen: f.TimesSeen, Owner: f.Owner, Reason: f.Reason,
		WaivedUntil: f.WaivedUntil, Scopes: f.Scopes, History: f.History, Forgotten: f.Forgotten, Truncated: f.Truncated,
	})
}

// UnmarshalJSON reads what MarshalJSON wrote, without loss of subject or
// evidence.
func (f *Finding) UnmarshalJSON(b []byte) error {
	var w findingWire
	if err := json.Unmarshal(b, &w); err != nil {
		return err
	}
	*f = w.finding()
	return nil
}
