// Package source reads advisories as those who write them publish them, out of
// which a vulnerability database is built: OSV documents (osv.dev, the Go
// vulnerability database, GitHub's advisory database), the document of Debian's
// security tracker, and those of Node.js's security working group.
//
// What is read is the same for all: an Advisory, which says for each package
// that it affects which versions. Documents that were withdrawn are left out and
// counted; a document that cannot be understood is a problem with its name and
// the byte where it is wrong, and the others are read all the same.
//
// Sources: the OSV schema 1.7 (ossf.github.io/osv-schema), the Go vulnerability
// database's format (go.dev/doc/security/vuln/database), the JSON of
// security-tracker.debian.org, and the advisories of nodejs/security-wg.
package source

import (
	"context"
	"fmt"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/scan/protocol"
)

// Limits of what is read. All of osv.dev had 600,000 documents in 2026, and the
// largest of them 10 MB.
const (
	maxDocument  = 64 << 20 // bytes of one document
	maxTracker   = 2 << 30  // bytes of Debian's one document
	maxDocuments = 5_000_000
	maxProblems  = 1000 // that are listed; all are counted
	maxVersions  = 100_000
)

// Severity is how bad something is, in the numbers of Trivy's database.
type Severity int

// The severities.
const (
	UnknownSeverity Severity = iota
	Low
	Medium
	High
	Critical
)

// Status is what becomes of a vulnerability without a fix, in the numbers of
// Trivy's database.
type Status int

// The statuses that sources tell.
const (
	UnknownStatus Status = 0
	Unfixed       Status = 2 // affected
	WillNotFix    Status = 5
	FixDeferred   Status = 6
	EndOfLife     Status = 7
)

// Advisory is what one document says.
type Advisory struct {
	IDs       []string // what the vulnerability is called: CVEs where there are any, otherwise the document's own
	Aliases   []string // other names
	Publisher Publisher
	Affected  []Affected

	Title, Description string
	Severity           Severity // as the publisher says it, unknown when only by CVSS
	CVSS               []CVSS
	CWE                []string
	References         []string
	Published          time.Time // zero: unknown
	Modified           time.Time
}

// CVSS is a vector, and where that alone is known, a score.
type CVSS struct {
	Version string // "2", "3", "4"; "": of a score without a vector, 2 or 3
	Vector  string
	Score   float64 // 0: to be computed
}

// Publisher is who wrote an advisory.
type Publisher struct {
	ID   string // as Trivy calls it: "ghsa", "osv", "govulndb", "debian", "nodejs-security-wg"
	Name string // "The Go Vulnerability Database"
	URL  string
}

// Affected is a package, and which versions of it.
type Affected struct {
	Ecosystem string // Trivy's word: "npm", "pip", "go", "debian"
	Release   string // of a distribution: "12"
	Package   string // as it is written by the publisher

	// Of a distribution.
	Fixed    string // the version that fixes it; "": none
	Status   Status // without a fix
	Severity Severity

	// Of a language.
	Ranges   []Range
	Versions []string // each of them is affected, too
	// Constraints and Patched are ranges and versions as a publisher wrote them,
	// in the place of Ranges.
	Constraints, Patched []string
	OSes, Arches         []string // empty: all
}

// Distribution reports whether it is a package of a system.
func (a *Affected) Distribution() bool {
	switch a.Ecosystem {
	case "debian", "ubuntu", "alpine", "wolfi", "chainguard":
		return true
	}
	return false
}

// Range is a range of versions, by its events in the order of the document.
type Range struct {
	Events []Event
	// Until bounds a range that has no end: "< 1.2.3", "<= 1.2.2"; "": nothing does.
	Until string
}

// Event is a version at which something changes; one of the three is set.
type Event struct{ Introduced, Fixed, LastAffected string }

// Summary is what came of a source.
type Summary struct {
	Documents int            // that advisories came from
	Newest    time.Time      // the latest change that any of them tells
	Skipped   map[string]int // documents, or packages of them, that were left out, by reason
	Problems  []protocol.Problem
}

func (s *Summary) skip(why string) { s.Skipped[why]++ }

// date takes notice of the time of a change. One that is still to come would make
// the database new for ever.
func (s *Summary) date(t time.Time) {
	if t.After(s.Newest) && t.Before(time.Now().Add(24*time.Hour)) {
		s.Newest = t
	}
}

// problem counts a document that cannot be used, and lists it unless there are too many.
func (s *Summary) problem(kind protocol.ProblemKind, path string, err error) {
	s.skip(string(kind))
	if len(s.Problems) < maxProblems {
		s.Problems = append(s.Problems, protocol.Problem{Kind: kind, Path: path, Detail: err.Error()})
	}
}

// MalformedError is a document that cannot be understood.
type MalformedError struct {
	Offset int64  // the byte, from 0
	Entry  string // what in it, where that is known
	Reason string
}

func (e *MalformedError) Error() string {
	s := fmt.Sprintf("byte %d: ", e.Offset)
	if e.Entry != "" {
		s += fmt.Sprintf("%.100q: ", e.Entry)
	}
	return s + e.Reason
}

// Unwrap gives the error its kind.
func (e *MalformedError) Unwrap() error { return failure.New(failure.Untrustworthy, e.Reason) }

// Read reads a source and calls fn for each advisory, in the order of the names
// of documents. progress is told how many documents were read, and which one is
// next. The error is that of fn, of the system, or says that there is no such
// source; documents that are wrong are in the summary.
func Read(ctx context.Context, src protocol.Source, fn func(*Advisory) error, progress func(documents int, name string)) (*Summary, error) {
	sum := &Summary{Skipped: map[string]int{}}
	r := &reader{ctx: ctx, sum: sum, fn: fn, progress: progress}
	var err error
	switch src.Format {
	case protocol.OSV:
		err = r.documents(src.Path, func(data []byte) (*Advisory, error) { return parseOSV(data, sum) })
	case protocol.GoVulndb:
		err = r.documents(src.Path, func(data []byte) (*Advisory, error) { return parseGo(data, sum) })
	case protocol.NodeAdvisory:
		err = r.documents(src.Path, func(data []byte) (*Advisory, error) { return parseNode(data, sum) })
	case protocol.DebianTracker:
		err = r.tracker(src.Path)
	default:
		err = failure.Errorf(failure.Usage, "%q is no format of advisories that is read here", src.Format)
	}
	if err != nil {
		return sum, fmt.Errorf("%s: %w", src.Path, err)
	}
	return sum, nil
}
