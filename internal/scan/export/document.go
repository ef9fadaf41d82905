// Package export writes what a scan found in the formats that people and other
// programs read: SARIF 2.1.0 for code scanning, an HTML page for whoever opens a
// browser, JUnit XML for CI servers, the reports of GitLab, CSV for spreadsheets
// and JSON lines for scripts.
//
// A Document is all that they are made of; whoever has a report of a scan makes
// one of it. Each format is a function of a Document and gives the same bytes for
// the same one.
//
// Invariants:
//   - Texts in a report were chosen by whoever made the files that were scanned.
//     Where a format cannot hold some byte, or would make a command, a link or a
//     formula of it, it is written with the escapes of finding/export.Visible,
//     never dropped and never raw.
//   - No format lets an incomplete scan look like a clean one: each says what
//     could not be looked at.
//   - Where a format has a limit, what is least urgent is left out, and a note says
//     how much.
//   - A severity that nobody knows is shown as unknown, never as a low one.
//   - Something that stays while versions change keeps its identity: the
//     fingerprint of SARIF and the id of GitLab come from the key of the ledger.
package export

import (
	"io"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/scan/ledger"
	"github.com/mobileops/mobileops/internal/scan/protocol"
)

// Document is what a report of one asset is made of.
type Document struct {
	Asset    ledger.Asset
	Version  string             // of mobileops
	Host     string             // where the scan ran
	Started  time.Time          // of the scan
	Now      time.Time          // when the report is written: ages and deadlines are as of then
	Scanners []protocol.Scanner // that were asked for
	// Items are those that the report shows, in order of urgency. Resolved ones
	// may be among them.
	Items []ledger.Item
	// Filters say in words what keeps items out of Items: "severity high", "only
	// what is new". Empty: nothing does.
	Filters []string
	// Due says until when items have to be mended; those that are not in it have
	// no deadline.
	Due map[ledger.Key]time.Time
	// Changes is what this scan changed; nil: it was not remembered.
	Changes *ledger.Changes
	// Scanned is what the worker said; nil: the items come from the ledger alone.
	Scanned *protocol.Report
	// Database is what vulnerabilities were looked up in; nil: they were not looked for.
	Database *Database
	// Licenses are the verdicts about licences, in the order in which they are shown.
	Licenses []LicenseVerdict
	// Packages is how many packages were looked at; 0: as many as Scanned has.
	Packages int
}

// Database is what vulnerabilities were looked up in.
type Database struct {
	Name   string    // "generation 12"
	Source string    // where it came from
	Built  time.Time // when whoever made it made it
	// MaxAge is how old it may get; 0: nobody said. Stale: it was older, and used
	// because somebody asked for that.
	MaxAge    time.Duration
	Stale     bool
	KEV, EPSS time.Time // of the lists that were used; zero: there was none
}

// LicenseVerdict is what the licence policy says about one licence.
type LicenseVerdict struct {
	License  string
	Verdict  string // "allow", "attribution-missing", "review", "deny"
	Packages int
	Examples []string // names of some of them
}

// Format names an export format.
type Format string

// The formats.
const (
	SARIFFormat     Format = "sarif"
	HTMLFormat      Format = "html"
	JUnitFormat     Format = "junit"
	GitLabFormat    Format = "gitlab"
	CSVFormat       Format = "csv"
	JSONLinesFormat Format = "jsonl"
)

// Formats returns all formats in the order in which help lists them.
func Formats() []Format {
	return []Format{SARIFFormat, HTMLFormat, JUnitFormat, GitLabFormat, CSVFormat, JSONLinesFormat}
}

// Write writes the document in the named format. Notes are sentences for whoever
// asked: what the format had no room for.
func Write(w io.Writer, format Format, d *Document) (notes []string, err error) {
	switch format {
	case SARIFFormat:
		return SARIF(w, d)
	case HTMLFormat:
		return nil, HTML(w, d)
	case JUnitFormat:
		return nil, JUnit(w, d)
	case GitLabFormat:
		return GitLab(w, d, "")
	case CSVFormat:
		return nil, CSV(w, d)
	case JSONLinesFormat:
		return nil, JSONLines(w, d)
	}
	return nil, failure.Errorf(failure.Usage, "unknown format %q", format)
}

// problems is what could not be looked at.
func (d *Document) problems() []protocol.Problem {
	if d.Scanned == nil {
		return nil
	}
	return d.Scanned.Problems
}

// finished is when the scan ended.
func (d *Document) finished() time.Time {
	if d.Scanned == nil {
		return d.Started
	}
	return d.Started.Add(d.Scanned.Stats.Took)
}

// engine is what looked, such as "trivy 0.72.0".
func (d *Document) engine() string {
	if d.Scanned == nil {
		return ""
	}
	return d.Scanned.Engine
}

// system is the operating system that was found, or "".
func (d *Document) system() string {
	if d.Scanned == nil || d.Scanned.OS == nil {
		return ""
	}
	return joined(" ", d.Scanned.OS.Family, d.Scanned.OS.Name)
}

// packages is how many packages were looked at.
func (d *Document) packages() int {
	n := d.Packages
	if n == 0 && d.Scanned != nil {
		for i := range d.Scanned.Results {
			n += len(d.Scanned.Results[i].Packages)
		}
	}
	return n
}
