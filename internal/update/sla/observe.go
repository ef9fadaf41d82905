package sla

import (
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/state"
	bolt "go.etcd.io/bbolt"
)

// The buckets, both below a bucket named after the root, below "update_sla".
//
//	advisory  ID → Record, see record.go
//	source    name of a source → SourceStatus
const (
	bucketName     = "update_sla"
	advisoryBucket = "advisory"
	sourceBucket   = "source"
)

// Survey is what one look at one source showed.
type Survey struct {
	Source     string
	Advisories []Advisory
	// Problems say what could not be read. A survey that has any is not
	// complete: what it does not show may still be pending.
	Problems []string
	// Skipped says why there was nothing to look at, such as a host without
	// apt; "": there was. A survey that was skipped changes no advisory.
	Skipped string
	// Installed are the versions of packages that are here. Where it is not
	// nil, an advisory whose Packages are older than its version stays pending
	// although the source offers a newer one instead.
	Installed map[string]string
	// AsOf is the moment that the source's own answer is of; zero: not known.
	AsOf time.Time
}

// Complete reports whether what the survey does not show is not pending.
func (s *Survey) Complete() bool { return s.Skipped == "" && len(s.Problems) == 0 }

// SourceStatus is what is remembered of the surveys of a source.
type SourceStatus struct {
	Name     string    `json:"name"`
	State    string    `json:"state"`  // "complete", "incomplete", "skipped"
	Looked   time.Time `json:"looked"` // when the latest survey was
	Complete time.Time `json:"last_complete,omitzero"`
	AsOf     time.Time `json:"as_of,omitzero"`
	Problems []string  `json:"problems"` // of the latest survey, or why it was skipped
}

// Changes counts what an observation changed.
type Changes struct {
	New   int `json:"new"`
	Fixed int `json:"fixed"`
	Again int `json:"again"` // fixed before, and pending again
}

// Ledger is what is kept about one tree, and the policy that holds for it. What
// is known of a mounted image never mixes with what is known of the host.
type Ledger struct {
	Root   string // the tree; "" or "/": this host
	Policy Policy
}

func (l Ledger) root() string {
	if l.Root == "" {
		return "/"
	}
	return filepath.Clean(l.Root)
}

// Observe stores a survey. Advisories that it shows are pending from now on;
// when it is complete, those of the source that it does not show are fixed.
// The policy decides whether that was in time.
func (l Ledger) Observe(tx *state.Tx, s Survey, now time.Time) (c Changes, err error) {
	if !validName(s.Source, false) {
		return c, fmt.Errorf("%w: %q is no name of a source", ErrInvalid, s.Source)
	}
	if len(s.Advisories) > MaxRecords {
		return c, failure.Errorf(failure.Failed, "%s has %d security updates, more than %d", s.Source, len(s.Advisories), MaxRecords)
	}
	now = storable(now)
	if now.IsZero() {
		return c, failure.New(failure.Failed, "the clock shows a year that cannot be stored")
	}
	b, err := l.open(tx)
	if err != nil {
		return c, err
	}
	seen := map[string]bool{}
	if s.Skipped == "" {
		for _, a := range merged(&s) {
			seen[a.ID()] = true
			if err := b.see(&a, now, &c); err != nil {
				return c, err
			}
		}
		if err := b.unseen(&s, l.Policy, seen, now, &c); err != nil {
			return c, err
		}
		if c.New > 0 {
			if err := b.trim(); err != nil {
				return c, err
			}
		}
	}
	return c, b.looked(&s, now)
}

// merged brings the advisories of a survey into their stored form, one for each
// ID. One that cannot be named makes the survey incomplete.
func merged(s *Survey) (list []Advisory) {
	at := map[string]int{}
	for _, a := range s.Advisories {
		a = a.bounded()
		if err := a.check(); err != nil || a.Source != s.Source {
			s.Problems = append(s.Problems, fmt.Sprintf("an advisory of %s cannot be stored: %q", s.Source, clip(a.ID(), MaxName)))
			continue
		}
		i, known := at[a.ID()]
		if !known {
			at[a.ID()] = len(list)
			list = append(list, a)
			continue
		}
		if a.Severity.rank() > list[i].Severity.rank() {
			list[i].Severity = a.Severity
		}
		list[i].Published = earlier(list[i].Published, a.Published)
		list[i].Packages = append(list[i].Packages, a.Packages...)
		if list[i].Note == "" {
			list[i].Note = a.Note
		}
		list[i] = list[i].bounded()
	}
	return list
}

// earlier returns the earlier of two moments, of which none may be known.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// see notes that a survey shows a.
func (b buckets) see(a *Advisory, now time.Time, c *Changes) error {
	r, err := b.load(a.ID())
	if err != nil {
		return err
	}
	if r == nil {
		r = &Record{Advisory: *a, FirstKnown: now, LastSeen: now}
		r.event(now, "", "first known here")
		c.New++
		return b.save(r)
	}
	if r.Severity != a.Severity {
		r.event(now, "", "severity changed from %s to %s", r.Severity, a.Severity)
	}
	published := earlier(r.Published, a.Published)
	r.Advisory = *a
	r.Published = published
	if !r.FixedAt.IsZero() {
		r.event(now, "", "pending again")
		r.FixedAt, r.FixedDue, r.Outcome = time.Time{}, time.Time{}, ""
		c.Again++
	}
	r.stillPending(now)
	return b.save(r)
}

// stillPending notes that the advisory is pending at a moment. When the clock has
// gone back, first known goes back with it, so that a clock that was ahead once
// moves no deadline; but not to before it was public, where that is known.
func (r *Record) stillPending(now time.Time) {
	r.LastSeen = now
	if now.Before(r.FirstKnown) {
		known := now
		if r.Published.After(now) && r.Published.Before(r.FirstKnown) {
			known = r.Published
		}
		r.event(now, "", "the clock went back: first known moved from %s", r.FirstKnown.Format(time.RFC3339))
		r.FirstKnown = known
	}
}

// unseen goes through the pending advisories of the source that a survey does
// not show.
func (b buckets) unseen(s *Survey, p Policy, seen map[string]bool, now time.Time, c *Changes) error {
	var changed []*Record // collected first: a cursor does not survive changes
	err := b.each(s.Source+"/", func(r *Record) error {
		switch {
		case seen[r.ID()] || !r.FixedAt.IsZero():
		case r.behind(s.Installed):
			r.stillPending(now)
			changed = append(changed, r)
		case s.Complete():
			r.fixed(p, now)
			c.Fixed++
			changed = append(changed, r)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, r := range changed {
		if err := b.save(r); err != nil {
			return err
		}
	}
	return nil
}

// behind reports whether packages here are still older than the update.
func (r *Record) behind(installed map[string]string) bool {
	return slices.ContainsFunc(r.Packages, func(name string) bool {
		v, here := installed[name]
		return here && CompareVersions(v, r.FixedIn) < 0
	})
}

// fixed notes that the advisory is not pending any more. Nobody knows more than
// that it was installed since the survey before, so the moment of this one
// counts.
func (r *Record) fixed(p Policy, now time.Time) {
	due := r.Due(p)
	r.Outcome = Late
	switch {
	case due.IsZero() || !now.After(due):
		r.Outcome = InTime
	case r.waived(now):
		r.Outcome = UnderWaiver
	}
	r.FixedAt, r.FixedDue, r.Request = now, due, nil
	r.event(now, "", "fixed, %s", map[Outcome]string{InTime: "in time", Late: "late", UnderWaiver: "late under a waiver"}[r.Outcome])
}

// trim lets the oldest fixed advisories go when there are too many.
func (b buckets) trim() error {
	type old struct {
		id string
		at time.Time
	}
	var fixed []old
	total := 0
	err := b.each("", func(r *Record) error {
		if total++; !r.FixedAt.IsZero() {
			fixed = append(fixed, old{r.ID(), r.FixedAt})
		}
		return nil
	})
	if err != nil || total <= MaxRecords {
		return err
	}
	slices.SortFunc(fixed, func(x, y old) int { return x.at.Compare(y.at) })
	if len(fixed) < total-MaxRecords {
		return failure.Errorf(failure.Failed, "more than %d security updates are pending: no more can be stored", MaxRecords)
	}
	for _, f := range fixed[:total-MaxRecords] {
		if err := b.advisories.Delete([]byte(f.id)); err != nil {
			return err
		}
	}
	return nil
}

type storedSource struct {
	Version int `json:"v"`
	SourceStatus
}

// buckets are those of one transaction; both are nil in a database that has
// seen no survey.
type buckets struct{ advisories, sources *bolt.Bucket }

func (l Ledger) open(tx *state.Tx) (b buckets, err error) {
	top, root := tx.Bucket([]byte(bucketName)), []byte(l.root())
	if tx.Writable() {
		if top, err = tx.CreateBucketIfNotExists([]byte(bucketName)); err != nil {
			return b, err
		}
		if top, err = top.CreateBucketIfNotExists(root); err != nil {
			return b, err
		}
		if b.advisories, err = top.CreateBucketIfNotExists([]byte(advisoryBucket)); err != nil {
			return b, err
		}
		b.sources, err = top.CreateBucketIfNotExists([]byte(sourceBucket))
		return b, err
	}
	if top != nil {
		top = top.Bucket(root)
	}
	if top != nil {
		b.advisories, b.sources = top.Bucket([]byte(advisoryBucket)), top.Bucket([]byte(sourceBucket))
	}
	return b, nil
}
