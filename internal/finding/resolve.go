package finding

import (
	"fmt"
	"slices"
	"time"

	"github.com/mobileops/mobileops/internal/state"
)

// Resolve lets a scope go of single findings that it reported: a sensor that
// watches notices that one of them is no more without scanning everything. Of
// each finding only rule and subject count; those that the scope does not hold
// are passed over. why is kept in their history.
func Resolve(tx *state.Tx, source, scope string, gone []Finding, why string, now time.Time) (sum Summary, err error) {
	if err := checkNames(source, scope, gone); err != nil {
		return sum, err
	}
	b, err := openBuckets(tx)
	if err != nil {
		return sum, err
	}
	scopeKey := scopeKey(source, scope)
	for _, s := range sortedSightings(source, gone) {
		if b.scopes.Get(append(scopeKey[:], s.key[:]...)) == nil {
			continue
		}
		if err := b.letGo(s.key, source, scope, scopeKey, why, now.UTC(), &sum); err != nil {
			return sum, err
		}
	}
	return sum, b.log.flush()
}

// letGo notes that a scope no longer finds what has this key, which it holds.
func (b *buckets) letGo(key Fingerprint, source, scope string, scopeKey [16]byte, why string, now time.Time, sum *Summary) error {
	if err := b.scopes.Delete(append(scopeKey[:], key[:]...)); err != nil {
		return err
	}
	r, err := b.load(key)
	if err != nil {
		return err
	}
	if r == nil {
		return fmt.Errorf("finding: %w: scope %q lists %s, which has no record", state.ErrCorrupt, scope, key)
	}
	what, stored := noEvent, r.State
	if r.expire(now); r.State != stored { // the waiver ended
		what = EventReopened
	}
	if at, ok := slices.BinarySearch(r.Scopes, scope); ok {
		r.Scopes = slices.Delete(r.Scopes, at, at+1)
	}
	if len(r.Scopes) == 0 && r.State != Resolved {
		r.change(Resolved, now, source, why)
		sum.Resolved++
		what = EventResolved
	}
	return b.record(r, what, now)
}
