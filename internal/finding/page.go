package finding

import (
	"time"

	"github.com/mobileops/mobileops/internal/state"
)

// maxPageScan is how many records one Page looks at, so that a filter that
// lets nothing pass does not hold the lease for long.
const maxPageScan = 20_000

// Page returns records that pass the filter as they are at now, by
// fingerprint: those above after (zero: from the first), at most limit of them
// and no more than fit into maxBytes as stored, but one if there is one. When
// more is false these were the last; otherwise the next page follows next.
// There may be fewer than limit, even none, and still more.
func Page(tx *state.Tx, filter Filter, after Fingerprint, limit, maxBytes int, now time.Time) (list []*Record, next Fingerprint, more bool, err error) {
	b, err := openBuckets(tx)
	if err != nil || b.records == nil {
		return nil, after, false, err
	}
	c := b.records.Cursor()
	k, v := c.Seek(after[:])
	if k != nil && string(k) == string(after[:]) {
		k, v = c.Next()
	}
	next = after
	for scanned := 0; k != nil; k, v = c.Next() {
		if scanned == maxPageScan || len(list) >= limit {
			return list, next, true, nil
		}
		scanned++
		r, err := decodeEntry(k, v)
		if err != nil {
			return nil, after, false, err
		}
		if r.expire(now); filter.match(r) {
			if maxBytes -= len(v); maxBytes < 0 && len(list) > 0 {
				return list, next, true, nil
			}
			list = append(list, r)
		}
		next = r.Fingerprint
	}
	return list, next, false, nil
}

// Fingerprints returns those that Report would give the findings of a source.
func Fingerprints(source string, found []Finding) []Fingerprint {
	p := newFingerprinter()
	list := make([]Fingerprint, len(found))
	for i := range found {
		list[i] = p.of(source, found[i].Rule, found[i].Subject)
	}
	return list
}
