package ledger

import (
	"strings"
	"time"

	"github.com/mobileops/mobileops/internal/scan/protocol"
)

// Observation is one scan of one asset. Its sightings are all that the scan saw:
// whoever shows less of them, by severity or otherwise, does so afterwards, or
// what was left out would count as gone.
type Observation struct {
	Asset    Asset
	At       time.Time          // when the scan began
	Scanners []protocol.Scanner // that ran
	Complete bool               // nothing failed; otherwise Unseen says where it did
	Unseen   Unseen
	// Products are further names of the asset, by which VEX statements may speak of
	// it: package URLs of an image, digests.
	Products []string
	Items    []Sighting

	joined []sight // by Prepare; nil: not yet
}

// Prepare does that part of Observe that needs no transaction: it joins sightings
// of the same item and brings them into the form in which they are stored. Whoever
// calls it before leasing state.db holds the lease for half as long. Items must not
// be changed afterwards.
func (o *Observation) Prepare() (err error) {
	if o.joined == nil {
		o.joined, err = join(o)
	}
	return err
}

// Unseen is what a scan did not look at, by request or because it could not.
// Paths and patterns are relative to the target, as those of sightings are.
type Unseen struct {
	// SkipDirs and SkipFiles are the patterns of the request.
	SkipDirs, SkipFiles []string
	// Paths are files and directories that could not be read or understood.
	Paths []string
	// All: nobody can tell what was missed, so nothing is resolved.
	All bool
	// Older: vulnerabilities were looked up in an older database than before, so that
	// none of them is resolved. What other scanners missed is.
	Older bool
}

// UnseenOf says what a scan did not see, by its request and the problems of its
// report.
func UnseenOf(skipDirs, skipFiles []string, problems []protocol.Problem) Unseen {
	u := Unseen{SkipDirs: skipDirs, SkipFiles: skipFiles}
	for _, p := range problems {
		path := cleanPath(p.Path)
		if path == "" || p.Kind == protocol.Unknown || strings.HasPrefix(path, "sha256:") {
			u.All = true // a layer, a whole system
			continue
		}
		u.Paths = append(u.Paths, path)
	}
	return u
}

// Changes is what an observation changed.
type Changes struct {
	Asset    string    `json:"asset"`
	At       time.Time `json:"at"`
	Previous time.Time `json:"previous,omitzero"` // the scan before; zero: this is the first one
	// New were never seen before, Reopened were resolved, Resolved are not there
	// any more, Fixable are known and have a fixed version now. All are in order of
	// urgency.
	New []Item `json:"new"`
	// FirstLook are scanners that had never run on this asset, which others had. What
	// they found is no news: nobody had looked. It is in Baseline, and not in New.
	FirstLook []protocol.Scanner `json:"first_look,omitempty"`
	Baseline  []Item             `json:"baseline"`

	Reopened []Item `json:"reopened"`
	Resolved []Item `json:"resolved"`
	Fixable  []Item `json:"fixable"`
	Still    int    `json:"still"`  // known and seen again
	Unseen   int    `json:"unseen"` // known, and this scan could not see whether they are still there
	Counts   Counts `json:"counts"` // of what is there now
}

// Counts are numbers of items that are there.
type Counts struct {
	Open     map[Severity]int `json:"open"`    // by severity
	Classes  map[Class]int    `json:"classes"` // open ones, by class
	Waived   int              `json:"waived"`
	Excluded int              `json:"excluded"` // not affected, or fixed, by VEX; or expected
}
