package ledger

import (
	"slices"
	"strings"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/finding"
)

// Severity is Trivy's word, in upper case.
type Severity string

// The severities.
const (
	Critical Severity = "CRITICAL"
	High     Severity = "HIGH"
	Unknown  Severity = "UNKNOWN"
	Medium   Severity = "MEDIUM"
	Low      Severity = "LOW"
)

// Severities returns all severities, the most urgent first. One that is not known
// stands between high and medium.
func Severities() []Severity { return []Severity{Critical, High, Unknown, Medium, Low} }

// SeverityOf reads a severity in upper or lower case as a scanner writes it; any
// other word is Unknown.
func SeverityOf(word string) Severity {
	if s := Severity(strings.ToUpper(word)); slices.Contains(Severities(), s) {
		return s
	}
	return Unknown
}

// ParseSeverity reads a severity that somebody typed.
func ParseSeverity(word string) (Severity, error) {
	if s := Severity(strings.ToUpper(word)); slices.Contains(Severities(), s) {
		return s, nil
	}
	return "", failure.Errorf(failure.Usage, "unknown severity %q (one of critical, high, medium, low, unknown)", word)
}

// Rank orders severities: the greater, the worse.
func (s Severity) Rank() int { return 5 - s.index() }

// index is the place in Severities, of which this is the fast form.
func (s Severity) index() int {
	switch s {
	case Critical:
		return 0
	case High:
		return 1
	case Medium:
		return 3
	case Low:
		return 4
	}
	return 2
}

// AtLeast reports whether s is as bad as floor. An unknown severity could be
// anything: it is as bad as High, so that --fail-on high never passes over it. With Unknown as the
// floor, everything from there on counts: unknown, high and critical.
func (s Severity) AtLeast(floor Severity) bool {
	if s.index() == Unknown.index() && floor == High {
		return true
	}
	return s.Rank() >= floor.Rank()
}

// Finding returns the severity of a finding about an item of severity s.
func (s Severity) Finding() finding.Severity {
	switch s {
	case Critical:
		return finding.Critical
	case Medium:
		return finding.Medium
	case Low:
		return finding.Low
	}
	return finding.High
}
