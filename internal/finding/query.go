package finding

import (
	"bytes"
	"cmp"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/state"
)

// Filter says which records List returns. A zero field lets everything pass.
type Filter struct {
	Sources     []string  // any of these
	Rules       []string  // any of these, each with or without SOURCE/ before it
	Tags        []string  // has any of these
	States      []State   // any of these
	MinSeverity Severity  // at least this
	Since       time.Time // last seen at or after this
	// Subject selects by what a finding is about. With a * (any bytes) or a ?
	// (one byte) it is a pattern for the whole subject; a backslash takes
	// the next byte literally. Without them it may stand anywhere in it.
	Subject string
}

func (f *Filter) match(r *Record) bool {
	if r.Severity < f.MinSeverity ||
		len(f.Sources) > 0 && !slices.Contains(f.Sources, r.Source) ||
		len(f.Rules) > 0 && !slices.Contains(f.Rules, r.Rule) && !slices.Contains(f.Rules, r.Source+"/"+r.Rule) ||
		len(f.States) > 0 && !slices.Contains(f.States, r.State) ||
		!f.Since.IsZero() && r.LastSeen.Before(f.Since) {
		return false
	}
	if len(f.Tags) > 0 && !slices.ContainsFunc(f.Tags, func(t string) bool { return slices.Contains(r.Tags, t) }) {
		return false
	}
	return f.Subject == "" || matchSubject(f.Subject, r.Subject)
}

// matchSubject is described at Filter.Subject. On a mismatch it only goes back
// to the latest star, so hostile patterns and subjects cost at most the
// product of their lengths.
func matchSubject(pattern, subject string) bool {
	if !strings.ContainsAny(pattern, `*?\`) {
		return strings.Contains(subject, pattern)
	}
	p, s := 0, 0
	star, mark := -1, 0
	for s < len(subject) {
		if p < len(pattern) {
			c, size, literal := pattern[p], 1, false
			if c == '\\' && p+1 < len(pattern) {
				c, size, literal = pattern[p+1], 2, true
			}
			if c == '*' && !literal {
				star, mark = p, s
				p++
				continue
			}
			if c == '?' && !literal || c == subject[s] {
				p, s = p+size, s+1
				continue
			}
		}
		if star < 0 {
			return false
		}
		mark++
		p, s = star+1, mark
	}
	return strings.Trim(pattern[p:], "*") == ""
}

// List returns the records that pass the filter as they are at now, the most
// severe first, then by subject, source and rule. A waiver that has ended by
// now shows as open.
func List(tx *state.Tx, filter Filter, now time.Time) ([]*Record, error) {
	b, err := openBuckets(tx)
	if err != nil || b.records == nil {
		return nil, err
	}
	var list []*Record
	err = b.records.ForEach(func(k, v []byte) error {
		r, err := decodeEntry(k, v)
		if err != nil {
			return err
		}
		r.expire(now)
		if filter.match(r) {
			list = append(list, r)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	slices.SortFunc(list, func(a, b *Record) int {
		return cmp.Or(
			cmp.Compare(b.Severity, a.Severity),
			strings.Compare(a.Subject, b.Subject),
			strings.Compare(a.Source, b.Source),
			strings.Compare(a.Rule, b.Rule),
			bytes.Compare(a.Fingerprint[:], b.Fingerprint[:]),
		)
	})
	return list, nil
}

func decodeEntry(k, v []byte) (*Record, error) {
	var key Fingerprint
	if len(k) != len(key) || v == nil {
		return nil, fmt.Errorf("finding: %w: %x is no fingerprint", state.ErrCorrupt, k)
	}
	copy(key[:], k)
	return decodeRecord(key, v)
}

// MinPrefix is how many digits of an id people have to type at least, so that
// a slip of the finger does not decide about some finding or other.
const MinPrefix = 4

// ErrNotFound says that no finding has such an id.
var ErrNotFound = failure.New(failure.No, "no such finding")

// AmbiguousError says that several findings have an id with the given prefix.
// It is a failure.Usage error.
type AmbiguousError struct {
	Prefix     string
	Candidates []*Record // the first of them, by id
	More       int       // how many there are besides
}

const maxCandidates = 10

func (e *AmbiguousError) Error() string {
	var s strings.Builder
	fmt.Fprintf(&s, "id %q is ambiguous:", e.Prefix)
	for i, r := range e.Candidates {
		if i > 0 {
			s.WriteByte(',')
		}
		fmt.Fprintf(&s, " %s (%s, %s, %q)", e.id(i), r.Severity, r.Rule, r.Subject)
	}
	if e.More > 0 {
		fmt.Fprintf(&s, " and %d more", e.More)
	}
	return s.String()
}

// id returns the id of candidate i, longer than usual where its neighbours
// would look the same.
func (e *AmbiguousError) id(i int) string {
	full := e.Candidates[i].Fingerprint.String()
	n := len(e.Candidates[i].ID())
	for _, j := range []int{i - 1, i + 1} {
		if j >= 0 && j < len(e.Candidates) {
			for other := e.Candidates[j].Fingerprint.String(); n < len(full) && full[:n] == other[:n]; {
				n++
			}
		}
	}
	return full[:n]
}

func (e *AmbiguousError) Unwrap() error { return failure.New(failure.Usage, "ambiguous id") }

// Get returns the record whose fingerprint starts with prefix, as it is at
// now. The prefix has MinPrefix to 32 hexadecimal digits in upper or lower
// case. No match is ErrNotFound, several are an *AmbiguousError.
func Get(tx *state.Tx, prefix string, now time.Time) (*Record, error) {
	b, err := openBuckets(tx)
	if err != nil {
		return nil, err
	}
	return b.get(prefix, now)
}

func (b *buckets) get(prefix string, now time.Time) (*Record, error) {
	low := strings.ToLower(prefix)
	if len(low) < MinPrefix || len(low) > 32 || strings.Trim(low, "0123456789abcdef") != "" {
		return nil, failure.Errorf(failure.Usage, "%q is no finding id: it has %d to 32 hexadecimal digits (see them: mobileops finding list)", prefix, MinPrefix)
	}
	// An odd prefix starts within a byte: seek to that byte with a zero.
	var seek Fingerprint
	if _, err := hex.Decode(seek[:], []byte(low + "0")[:(len(low)+1)/2*2]); err != nil {
		return nil, err
	}
	notFound := failure.Hint(fmt.Errorf("%w: no id starts with %q", ErrNotFound, low), "see them: mobileops finding list --state all")
	if b.records == nil {
		return nil, notFound
	}
	amb := &AmbiguousError{Prefix: low}
	c := b.records.Cursor()
	for k, v := c.Seek(seek[:(len(low)+1)/2]); k != nil && strings.HasPrefix(hex.EncodeToString(k), low); k, v = c.Next() {
		if len(amb.Candidates) == maxCandidates {
			amb.More++
			continue
		}
		r, err := decodeEntry(k, v)
		if err != nil {
			return nil, err
		}
		r.expire(now)
		amb.Candidates = append(amb.Candidates, r)
	}
	switch len(amb.Candidates) {
	case 0:
		return nil, notFound
	case 1:
		return amb.Candidates[0], nil
	}
	return nil, amb
}
