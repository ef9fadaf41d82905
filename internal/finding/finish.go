package finding

import (
	"slices"
	"time"

	"github.com/mobileops/mobileops/internal/state"
)

// Finish ends a complete scan of scope whose findings were handed over in
// parts with ReportPartial: what the source found there before and what is not
// among seen is resolved, as Report does.
func Finish(tx *state.Tx, source, scope string, seen []Fingerprint, now time.Time) (sum Summary, err error) {
	if err := checkNames(source, scope, nil); err != nil {
		return sum, err
	}
	b, err := openBuckets(tx)
	if err != nil {
		return sum, err
	}
	sightings := make([]sighting, len(seen))
	for i, key := range seen {
		sightings[i].key = key
	}
	slices.SortFunc(sightings, func(a, b sighting) int { return compareKeys(a.key, b.key) })
	if err := b.resolveMissing(sightings, source, scope, scopeKey(source, scope), now.UTC(), &sum); err != nil {
		return sum, err
	}
	return sum, b.log.flush()
}
