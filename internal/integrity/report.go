package integrity

import (
	"time"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/finding"
	"github.com/mobileops/mobileops/internal/integrity/baseline"
	"github.com/mobileops/mobileops/internal/integrity/facts"
	"github.com/mobileops/mobileops/internal/integrity/schedule"
	"github.com/mobileops/mobileops/pkg/filehash"
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

	Class   Class  // whose change it is; "": not classified
	Package string // the package that owns it, with its version; empty: none
	Reason  string // why it is of that class
	// Now is how the entry was found, which is what accepting it accepts; nil
	// when it was removed.
	Now *baseline.Record
}

// ContentSum returns the digest of what is there now, where its content was read.
func (c *Change) ContentSum() (filehash.Sum, bool) {
	if c.Now == nil || c.Now.Content != filehash.Hashed {
		return filehash.Sum{}, false
	}
	return c.Now.Sum, true
}

// Class says whose change it is.
type Class string

// The classes of changes.
const (
	PackageUpdate   Class = "package-update"   // as the package that owns it records it
	PackageModified Class = "package-modified" // a package's, and no longer as recorded
	Conffile        Class = "conffile"         // a package's configuration, which is the admin's to change
	Unowned         Class = "unowned"          // no package's
	Suspicious      Class = "suspicious"       // what an intruder leaves: a replaced program, a new setuid file, a stranger among the system's programs
)

// Classes returns all classes, those that need attention most first.
func Classes() []Class {
	return []Class{Suspicious, PackageModified, Conffile, Unowned, PackageUpdate}
}

// Attribute is an attribute that differs, with both values as text.
type Attribute struct {
	Name string // as in a policy
	Old  string
	New  string
}

// Summary counts what a comparison saw.
type Summary struct {
	Files      int64 `json:"files"` // entries compared or added
	Bytes      int64 `json:"bytes"` // of content read
	Added      int64 `json:"added"`
	Removed    int64 `json:"removed"`
	Changed    int64 `json:"changed"`
	Moved      int64 `json:"moved"`
	Unreadable int64 `json:"unreadable"`
	Unstable   int64 `json:"unstable"`
	Rehashed   int64 `json:"rehashed"` // regular files whose content was read
	Skipped    int64 `json:"skipped"`  // regular files that were not read, their inode being unchanged
	// OldestRead is when the content of the skipped file that was not read
	// for the longest time was last read. Zero when none was skipped.
	OldestRead time.Time `json:"oldest_read"`
	// Mounts are directories in the baseline's paths that lie on another
	// filesystem and were not entered.
	Mounts [][]byte `json:"mounts,omitempty"`
}

// Differences is the number of changes of all kinds.
func (s *Summary) Differences() int64 { return s.Added + s.Removed + s.Changed + s.Moved }

// Report is the outcome of a comparison.
type Report struct {
	ID       string // under which it is kept; empty when it could not be stored
	Verify   bool   // every byte was read
	Baseline Entry
	Tree     string
	Started  time.Time
	Elapsed  time.Duration
	Summary  Summary
	Changes  []Change // by severity, the worst first, then by path
	Problems []Problem
	Aspects  []string       // that were compared, files first; nil: files alone
	Drift    []facts.Change // of the aspects beside files: by severity, the worst first, then by id
	Sources  []facts.Source // of the aspects beside files, and how they did
	Unknown  []Unknown      // sources of facts that neither the baseline nor this run could ask
	Trust    *Trust         // whether the baseline itself is what it was; nil when that was not looked at
	// Ownership is what the classes rest on; nil when there are no changes.
	Ownership *Ownership
	Findings  finding.Summary // what became of the stored findings
	Stored    bool            // the findings were stored
	// Missed are schedules, of this and other baselines, that this run found
	// were not kept and no run before it did.
	Missed []schedule.Gap
}

// Kind is what the report means for the exit status: changes from severity
// failOn on are a "no", anything that could not be read makes it incomplete.
func (r *Report) Kind(failOn finding.Severity) failure.Kind {
	k := failure.None
	if len(r.Changes) > 0 && r.Changes[0].Severity >= failOn || len(r.Drift) > 0 && r.Drift[0].Severity >= failOn {
		k = failure.No
	}
	if len(r.Problems) > 0 {
		k = failure.Worse(k, failure.Incomplete)
	}
	return failure.Worse(k, r.Trust.Kind())
}
