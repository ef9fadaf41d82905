package integrity

import (
	"time"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/finding"
)

// ChangeKind says how an entry differs from the baseline.
type ChangeKind string

// The kinds of changes.
const (
	Added   ChangeKind = "added"
	Removed ChangeKind = "removed"
	Changed ChangeKind = "changed"
	Moved   ChangeKind = "moved" // the same content, now elsewhere
)

// Change is one difference from the baseline.
type Change struct {
	Path       []byte
	From       []byte // of a moved file: its path in the baseline
	Kind       ChangeKind
	Severity   finding.Severity
	Attributes []Attribute // of a changed or moved entry
}

// Attribute is an attribute that differs, with both values as text.
type Attribute struct {
	Name string // as in a policy
	Old  string
	New  string
}

// Summary counts what a comparison saw.
type Summary struct {
	Files      int64 // entries compared or added
	Bytes      int64 // of content read
	Added      int64
	Removed    int64
	Changed    int64
	Moved      int64
	Unreadable int64
	Unstable   int64
	Rehashed   int64 // regular files whose content was read
	Skipped    int64 // regular files that were not read, their inode being unchanged
	// OldestRead is when the content of the skipped file that was not read
	// for the longest time was last read. Zero when none was skipped.
	OldestRead time.Time
	// Mounts are directories in the baseline's paths that lie on another
	// filesystem and were not entered.
	Mounts [][]byte
}

// Differences is the number of changes of all kinds.
func (s *Summary) Differences() int64 { return s.Added + s.Removed + s.Changed + s.Moved }

// Report is the outcome of a comparison.
type Report struct {
	Verify   bool // every byte was read
	Baseline Entry
	Tree     string
	Started  time.Time
	Elapsed  time.Duration
	Summary  Summary
	Changes  []Change // by severity, the worst first, then by path
	Problems []Problem
	Findings finding.Summary // what became of the stored findings
	Stored   bool            // the findings were stored
}

// Kind is what the report means for the exit status: changes from severity
// failOn on are a "no", anything that could not be read makes it incomplete.
func (r *Report) Kind(failOn finding.Severity) failure.Kind {
	k := failure.None
	if len(r.Changes) > 0 && r.Changes[0].Severity >= failOn {
		k = failure.No
	}
	if len(r.Problems) > 0 {
		k = failure.Worse(k, failure.Incomplete)
	}
	return k
}
