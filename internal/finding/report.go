package finding

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/mobileops/mobileops/internal/state"
	"github.com/zeebo/blake3"
	bolt "go.etcd.io/bbolt"
)

// The buckets, all below "finding".
//
//	record  fingerprint (16 bytes) → record, see codec.go
//	scope   hash of source and scope (16 bytes), fingerprint (16 bytes) → nothing:
//	        which findings the latest scan of a scope found
const (
	bucketName  = "finding"
	recordsName = "record"
	scopesName  = "scope"
)

// Summary counts what a report changed.
type Summary struct {
	New      int `json:"new"`      // never seen before
	Seen     int `json:"seen"`     // known, found again, state unchanged
	Reopened int `json:"reopened"` // resolved before, waived until a time now past, more severe than when it was decided on, or acknowledged with other evidence
	Resolved int `json:"resolved"` // no longer found by any scope
}

// Report stores everything that one complete scan of scope found. What the
// source found there before and does not find now is resolved, unless another
// scope still sees it. A scope is any text that names what was scanned, such
// as the name of a baseline; to forget one that is gone, report nothing for it.
//
// A resolved finding that comes back is open again, and so is one whose waiver
// has ended, or whose severity is now higher than when it was acknowledged or
// waived. The same finding twice in one report counts once, with its highest
// severity. An error leaves the transaction to be rolled back.
func Report(tx *state.Tx, source, scope string, found []Finding, now time.Time) (Summary, error) {
	return report(tx, source, scope, found, now, true)
}

// ReportPartial is Report for a scan that did not look at everything, because
// it was limited, interrupted or met something unreadable: it resolves nothing.
func ReportPartial(tx *state.Tx, source, scope string, found []Finding, now time.Time) (Summary, error) {
	return report(tx, source, scope, found, now, false)
}

// sighting is a finding of the report on hand, with its key.
type sighting struct {
	key Fingerprint
	f   *Finding
}

func report(tx *state.Tx, source, scope string, found []Finding, now time.Time, complete bool) (sum Summary, err error) {
	if err := checkNames(source, scope, found); err != nil {
		return sum, err
	}
	b, err := openBuckets(tx)
	if err != nil {
		return sum, err
	}
	now = now.UTC()
	sightings := sortedSightings(source, found)
	scopeKey := scopeKey(source, scope)
	for _, s := range sightings {
		if err := b.see(s, source, scope, scopeKey, now, &sum); err != nil {
			return sum, err
		}
	}
	if complete {
		if err := b.resolveMissing(sightings, source, scope, scopeKey, now, &sum); err != nil {
			return sum, err
		}
	}
	return sum, b.log.flush()
}

// sortedSightings orders by key, which is how the B+ tree likes them, and
// keeps the most severe of several reports of the same finding.
func sortedSightings(source string, found []Finding) []sighting {
	all := make([]sighting, len(found))
	p := newFingerprinter()
	for i := range found {
		all[i] = sighting{p.of(source, found[i].Rule, found[i].Subject), &found[i]}
	}
	slices.SortStableFunc(all, func(a, b sighting) int {
		if c := compareKeys(a.key, b.key); c != 0 {
			return c
		}
		return int(b.f.Severity - a.f.Severity)
	})
	return slices.CompactFunc(all, func(a, b sighting) bool { return a.key == b.key })
}

func compareKeys(a, b Fingerprint) int { return bytes.Compare(a[:], b[:]) }

// scopeKey is the prefix under which the findings of a scope are listed.
func scopeKey(source, scope string) [16]byte {
	p := fingerprinter{h: blake3.NewDeriveKey("mobileops 2026 finding scope v1")}
	return p.of(source, scope)
}

// buckets are the store's buckets in one transaction. Both are nil in a
// database that has seen no report. The log is opened by the first change.
type buckets struct {
	records, scopes *bolt.Bucket
	log             *changeLog
}

func openBuckets(tx *state.Tx) (b *buckets, err error) {
	b = &buckets{}
	top := tx.Bucket([]byte(bucketName))
	if tx.Writable() {
		if top, err = tx.CreateBucketIfNotExists([]byte(bucketName)); err != nil {
			return b, err
		}
		if b.records, err = top.CreateBucketIfNotExists([]byte(recordsName)); err != nil {
			return b, err
		}
		b.scopes, err = top.CreateBucketIfNotExists([]byte(scopesName))
		return b, err
	}
	if top != nil {
		b.records, b.scopes = top.Bucket([]byte(recordsName)), top.Bucket([]byte(scopesName))
	}
	return b, nil
}

// load returns the record, or nil when there is none.
func (b *buckets) load(key Fingerprint) (*Record, error) {
	if b.records == nil {
		return nil, nil
	}
	v := b.records.Get(key[:])
	if v == nil {
		return nil, nil
	}
	return decodeRecord(key, v)
}

// save stores the record and returns its stored form, which must not be
// changed any more.
func (b *buckets) save(r *Record) ([]byte, error) {
	v := appendRecord(make([]byte, 0, 512), r)
	if len(v) > MaxRecord {
		return nil, fmt.Errorf("%w: record %s has %d bytes, of %d", ErrInvalid, r.ID(), len(v), MaxRecord)
	}
	return v, b.records.Put(r.Fingerprint[:], v)
}

// see notes that a scan of scope found s.
func (b *buckets) see(s sighting, source, scope string, scopeKey [16]byte, now time.Time, sum *Summary) error {
	r, err := b.load(s.key)
	if err != nil {
		return err
	}
	f, cut := bounded(*s.f)
	f.Source = source
	f.Observed = f.Observed.UTC()
	if f.Observed.IsZero() || !storable(f.Observed) {
		f.Observed = now
	}
	what := noEvent
	if r == nil {
		r = &Record{Fingerprint: s.key, FirstSeen: now}
		r.Finding = f
		sum.New++
		what = EventOpened
	} else {
		stored := r.State
		r.expire(now)
		was, from := r.decided(), r.State
		other := !maps.Equal(r.Evidence, f.Evidence)
		if !sameNews(&r.Finding, &f, other) {
			what = EventChanged
		}
		r.Finding = f
		reopened := sum.Reopened
		switch {
		case from == Resolved:
			r.change(Open, now, source, "found again")
			sum.Reopened++
		case (from == Acknowledged || from == Waived) && f.Severity > was:
			r.change(Open, now, source, fmt.Sprintf("severity rose from %s to %s after it was %s", was, f.Severity, from))
			sum.Reopened++
		case from == Acknowledged && other:
			// Somebody knows of one change; this is another one in the same place.
			r.change(Open, now, source, "the evidence is no longer what was acknowledged")
			sum.Reopened++
		case from != stored: // the waiver ended
			sum.Reopened++
		default:
			sum.Seen++
		}
		if sum.Reopened > reopened {
			what = EventReopened
		}
	}
	r.Truncated = cut
	r.LastSeen = now
	r.TimesSeen++
	at, known := slices.BinarySearch(r.Scopes, scope)
	if !known {
		if len(r.Scopes) == MaxScopes {
			return fmt.Errorf("%w: %s is seen by more than %d scopes", ErrInvalid, r.ID(), MaxScopes)
		}
		r.Scopes = slices.Insert(r.Scopes, at, scope)
		if err := b.scopes.Put(append(scopeKey[:], s.key[:]...), []byte{}); err != nil {
			return err
		}
	}
	return b.record(r, what, now)
}

// resolveMissing lets scope go of everything it held that is not in sightings.
func (b *buckets) resolveMissing(sightings []sighting, source, scope string, scopeKey [16]byte, now time.Time, sum *Summary) error {
	var missing []Fingerprint // collected first: a cursor does not survive deletions
	c := b.scopes.Cursor()
	next := 0
	for k, _ := c.Seek(scopeKey[:]); bytes.HasPrefix(k, scopeKey[:]); k, _ = c.Next() {
		var key Fingerprint
		if copy(key[:], k[len(scopeKey):]) != len(key) {
			return fmt.Errorf("finding: %w: the list of scope %q has an entry of %d bytes", state.ErrCorrupt, scope, len(k))
		}
		for next < len(sightings) && bytes.Compare(sightings[next].key[:], key[:]) < 0 {
			next++
		}
		if next == len(sightings) || sightings[next].key != key {
			missing = append(missing, key)
		}
	}
	why := "a complete scan no longer found it"
	if scope != "" {
		why = fmt.Sprintf("a complete scan of %q no longer found it", scope)
	}
	for _, key := range missing {
		if err := b.letGo(key, source, scope, scopeKey, why, now, sum); err != nil {
			return err
		}
	}
	return nil
}
