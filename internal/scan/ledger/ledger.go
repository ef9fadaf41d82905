// Package ledger is the memory of scans: what was found on which asset, since
// when that is known, since when it could have been fixed, when it went away and
// when it came back.
//
// A scan hands everything that it saw to Observe as one Observation: Sightings,
// each a vulnerability of a package, a secret, a misconfiguration or a licence
// that breaks the policy. The ledger joins those that are the same thing and
// keeps one Item for each, by Key. List, Diff, Trend and SLA read what is stored.
// Waive and ImportVEX decide about it: a waiver accepts items until a time, a VEX
// document of whoever makes a product says that they do not concern it.
//
// Everything is kept in the bucket "scan.ledger" of state.db, as described in
// docs/formats/scan-ledger.md. Observe also reports to package finding, so that
// the rest of the product knows.
//
// Invariants:
//   - An item's key has no version in it: a package that was upgraded and is
//     still vulnerable is the same item.
//   - Only a scan that could have seen an item resolves it: its scanner ran,
//     nothing where it was found was left out, and nothing there failed.
//   - First seen and fix since never move to a later moment, whatever the clock
//     does.
//   - A severity that is not known stays so. Where a severity has to decide, it
//     counts like a high one, as in package update/sla: it could be one.
//   - A waiver that has ended does not count on any read.
//   - What a scan saw is cut to the limits, never refused for being long.
package ledger

import (
	"strings"
	"time"
	"unicode/utf8"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/scan/protocol"
)

// Limits of what is stored. Texts are in bytes.
const (
	MaxAssets     = 10_000
	MaxAssetID    = 4 << 10
	MaxItems      = 200_000              // of one asset, resolved ones included; the oldest resolved ones go first
	MaxName       = 512                  // ids, packages, versions, resources
	MaxText       = 1 << 10              // titles, matches, owners, reasons
	MaxMessage    = 2 << 10              // messages and resolutions
	MaxPath       = 4 << 10              // one path
	MaxPaths      = 128                  // of one item; further ones are counted
	MaxVersions   = 32                   // installed ones, and fixed ones, of one item
	MaxReferences = 8                    // of one item
	MaxEvents     = 32                   // kept of one item: the first ones and the last ones
	MaxRecord     = 1 << 20              // one stored item
	MaxScans      = 2_000                // summaries kept of one asset
	MaxWaivers    = 5_000                // those that ended included; the oldest of these go first
	MaxWaiver     = 366 * 24 * time.Hour // how far ahead a waiver may end
	MaxDocuments  = 1_000                // VEX documents
	MaxUnseen     = 100_000              // paths and patterns of one observation
)

// Errors that callers tell apart.
var (
	ErrNotFound = failure.New(failure.No, "no such item")
	ErrNoAsset  = failure.New(failure.No, "no such asset")
	ErrInvalid  = failure.New(failure.Usage, "invalid")
)

// Asset is what was scanned, under the name by which it is known from one scan to
// the next.
type Asset struct {
	ID   string        `json:"id"` // "host:NAME", "image:REPO", "fs:/abs/path", "repo:REMOTE", "sbom:NAME"
	Kind protocol.Kind `json:"kind"`
	Name string        `json:"name"`
}

// NewAsset names an asset PREFIX:NAME. Of a name that is no UTF-8 or has control
// characters, these are escaped, so that the id can be typed.
func NewAsset(kind protocol.Kind, prefix, name string) Asset {
	shown := printable(name)
	return Asset{ID: prefix + ":" + shown, Kind: kind, Name: shown}
}

// storable returns t in UTC without what is below a microsecond, or no time where
// it cannot be written as RFC 3339.
func storable(t time.Time) time.Time {
	t = t.UTC().Truncate(time.Microsecond)
	if t.Year() < 1 || t.Year() > 9999 {
		return time.Time{}
	}
	return t
}

// clip cuts s to a number of bytes, not within a character. No more of it than
// that is looked at: it may be long.
func clip(s string, limit int) string {
	if len(s) > limit+utf8.UTFMax {
		s = s[:limit+utf8.UTFMax]
	}
	if !utf8.ValidString(s) {
		s = strings.ToValidUTF8(s, "\ufffd")
	}
	if len(s) <= limit {
		return s
	}
	for limit > 0 && !utf8.RuneStart(s[limit]) {
		limit--
	}
	return s[:limit]
}
