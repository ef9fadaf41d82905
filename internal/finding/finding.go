// Package finding is the vocabulary in which every sensor reports, and the
// memory of what was reported.
package finding

import (
	"time"
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

// Finding is one thing a sensor noticed.
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
