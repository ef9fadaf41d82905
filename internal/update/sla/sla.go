// Package sla knows until when security updates have to be installed, and
// remembers whether they were.
//
// A Survey is what one look at one source showed: the security updates that
// this host has not got. A Ledger stores it. Of each Advisory the moment is kept
// at which it was first known here; the deadline follows from that, from the
// severity and from a Policy. Its List, Find and Findings read what is stored;
// Waive, Approve and Unwaive of it decide about it. Apt is a source: the security
// archives of Debian and its relatives. Packages of mobileops are another one,
// which the caller reads.
//
// Everything is kept in the bucket "update_sla" of state.db, as described in
// docs/formats/update-sla.md. Invariants:
//   - First known never moves to a later moment, whatever the clock does.
//   - A pending advisory is never forgotten, and only a complete survey of its
//     source marks it as fixed. A fixed one stays as history.
//   - A waiver has an owner, a reason, an end and two different persons: one who
//     asked for it and one who approved it. One that has ended, or that was given
//     for a lower severity, does not count on any read.
//   - What is due at a moment is in time at that moment, and overdue after it.
package sla

import (
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/finding"
)

// Limits of what is stored.
const (
	MaxRecords  = 100_000              // advisories, fixed ones included; the oldest fixed ones go first
	MaxName     = 128                  // bytes of a source, a package, an advisory; more is an error
	MaxText     = 1 << 10              // bytes of a summary, an owner, a reason
	MaxPackages = 512                  // of one advisory
	MaxEvents   = 64                   // kept of one advisory, the first ones and the last ones
	MaxRecord   = 256 << 10            // bytes of a stored advisory
	MaxProblems = 32                   // of one survey
	MaxWaiver   = 366 * 24 * time.Hour // how far ahead a waiver may end
)

// Errors that callers tell apart.
var (
	ErrNotFound = failure.New(failure.No, "no such security update")
	ErrFixed    = failure.New(failure.No, "the security update is installed already")
	ErrInvalid  = failure.New(failure.Usage, "invalid")
)

// Severity says how bad it is not to have an update, as a lower-case word.
type Severity string

// The severities. Unknown is what a publisher left out or a word that is not
// known; it is due like High, for it could be.
const (
	Critical Severity = "critical"
	High     Severity = "high"
	Medium   Severity = "medium"
	Low      Severity = "low"
	Unknown  Severity = "unknown"
)

// Severities returns all severities, the most severe first.
func Severities() []Severity { return []Severity{Critical, High, Unknown, Medium, Low} }

// ParseSeverity reads a severity in upper or lower case; any other word is Unknown.
func ParseSeverity(word string) Severity {
	if s := Severity(strings.ToLower(word)); slices.Contains(Severities(), s) {
		return s
	}
	return Unknown
}

// rank orders severities: the greater, the worse.
func (s Severity) rank() int { return len(Severities()) - slices.Index(Severities(), s) }

// Finding returns the severity of a finding about an update of severity s.
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

// Policy says how long after it was first known here an update is due. 0 means
// that it is never due.
type Policy struct {
	Critical, High, Medium, Low time.Duration
}

// DefaultPolicy is that of the security standards: critical and high within
// thirty days.
func DefaultPolicy() Policy {
	const day = 24 * time.Hour
	return Policy{Critical: 30 * day, High: 30 * day, Medium: 90 * day}
}

// Within returns how long updates of a severity may take; 0: for ever.
func (p Policy) Within(s Severity) time.Duration {
	switch s {
	case Critical:
		return p.Critical
	case Medium:
		return p.Medium
	case Low:
		return p.Low
	}
	return p.High
}

// due returns when something first known at a moment is due; zero: never.
func (p Policy) due(s Severity, known time.Time) time.Time {
	if d := p.Within(s); d > 0 {
		return known.Add(d)
	}
	return time.Time{}
}

// Names of sources.
const (
	SourceApt     = "apt"     // security archives of the distribution
	SourcePackage = "package" // packages of mobileops
)

// Advisory is a security update that this host has not got.
type Advisory struct {
	Source   string   `json:"source"`   // SourceApt, SourcePackage
	Name     string   `json:"name"`     // the package that it is an update of; of apt the source package
	Advisory string   `json:"advisory"` // which update: CVE-2026-1234; of apt the version that has it
	Severity Severity `json:"severity"`
	// Published is when it was made public at the latest; zero: not known.
	Published time.Time `json:"published,omitzero"`
	Summary   string    `json:"summary,omitempty"`
	Installed string    `json:"installed,omitempty"` // version that is here
	FixedIn   string    `json:"fixed_in,omitempty"`  // version that has it
	Packages  []string  `json:"packages,omitempty"`  // of apt: the binary packages here that are older
	// Note says what keeps it from being installed, such as "held".
	Note string `json:"note,omitempty"`
}

// ID names an advisory, as people type it: "apt/openssl/3.0.15-1~deb12u1",
// "package/platform/CVE-2026-1234".
func (a *Advisory) ID() string { return a.Source + "/" + a.Name + "/" + a.Advisory }

// validName reports whether s can be a part of an ID: printable, no blanks.
func validName(s string, slash bool) bool {
	return s != "" && len(s) <= MaxName && utf8.ValidString(s) && (slash || !strings.Contains(s, "/")) &&
		!strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsGraphic(r) || unicode.IsSpace(r) })
}

// check names what an advisory must never be.
func (a *Advisory) check() error {
	if !validName(a.Source, false) || !validName(a.Name, false) || !validName(a.Advisory, true) {
		return fmt.Errorf("%w: an advisory is named by SOURCE/PACKAGE/ADVISORY, printable and without blanks, not %q", ErrInvalid, clip(a.ID(), MaxName))
	}
	return nil
}

// bounded brings what others wrote within the limits. Nothing is refused for
// being long: that would hide it.
func (a Advisory) bounded() Advisory {
	a.Severity = ParseSeverity(string(a.Severity))
	a.Summary, a.Note = clip(a.Summary, MaxText), clip(a.Note, MaxText)
	a.Installed, a.FixedIn = clip(a.Installed, MaxName), clip(a.FixedIn, MaxName)
	a.Published = storable(a.Published)
	list := slices.Compact(slices.Sorted(slices.Values(a.Packages)))
	if len(list) > MaxPackages {
		list = list[:MaxPackages]
	}
	a.Packages = nil
	for _, p := range list {
		if validName(p, false) {
			a.Packages = append(a.Packages, p)
		}
	}
	return a
}

// storable returns t in UTC with whole seconds, or no time where it cannot be
// written as RFC 3339.
func storable(t time.Time) time.Time {
	t = t.UTC().Truncate(time.Second)
	if t.Year() < 1 || t.Year() > 9999 {
		return time.Time{}
	}
	return t
}

// clip cuts s to a number of bytes, not within a character.
func clip(s string, limit int) string {
	s = strings.ToValidUTF8(s, "\ufffd")
	if len(s) <= limit {
		return s
	}
	for limit > 0 && !utf8.RuneStart(s[limit]) {
		limit--
	}
	return s[:limit]
}
