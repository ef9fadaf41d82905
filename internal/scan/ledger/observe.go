package ledger

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/scan/protocol"
	"github.com/mobileops/mobileops/internal/state"
)

// overlap is how much later than the beginning of this scan the latest one may be
// without the clock being suspected: it began later and was done earlier.
const overlap = 6 * time.Hour

// tooFar is how far a clock may have gone back for the ledger to follow it. What is
// farther is a clock that is wrong now, as that of a host which was just switched
// on: following it would end what is known of times for good.
const tooFar = 7 * day

// Observe stores a scan, and reports what it changed to package finding. What the
// scan saw is there from now on; what it could have seen and did not is resolved.
// Most of what a scan sees is as it was: that is compared, and neither decoded nor
// written.
//
// A clock that has gone back takes with it what it had dated later; see overlap.
func (l Ledger) Observe(tx *state.Tx, o Observation) (*Changes, error) {
	o.At = storable(o.At)
	if o.At.IsZero() {
		return nil, failure.New(failure.Failed, "the clock shows a year that cannot be stored")
	}
	if len(o.Scanners) == 0 {
		return nil, fmt.Errorf("%w: a scan without scanners saw nothing", ErrInvalid)
	}
	if err := o.Prepare(); err != nil {
		return nil, err
	}
	list := o.joined
	if len(list) > MaxItems {
		return nil, failure.Errorf(failure.Failed, "%s has %d items, more than %d can be remembered", clip(o.Asset.ID, 256), len(list), MaxItems)
	}
	s, err := obtain(tx, o.Asset)
	if err != nil {
		return nil, err
	}
	switch ahead := s.about.Latest.Sub(o.At); {
	case ahead > tooFar:
		return nil, failure.Hint(failure.Errorf(failure.NotReady, "the clock of this host is wrong, or was: it is %s, and the latest scan of %s was on %s", o.At.Format(time.DateOnly), clip(o.Asset.ID, 256), s.about.Latest.Format(time.DateOnly)),
			"set the clock, or scan with --no-remember; if it was ahead at that scan: mobileops scan forget "+clip(o.Asset.ID, 256))
	case ahead > 0 && ahead <= overlap:
		o.At = s.about.Latest
	}
	if err := s.rewind(o.At); err != nil {
		return nil, err
	}
	if len(o.Products) > 0 {
		s.about.Products = cut(sorted(o.Products), MaxVersions)
	}
	v := &visit{l: l, s: s, o: &o, view: newView(&o), out: &Changes{Asset: o.Asset.ID, At: o.At, Previous: s.about.Latest}}
	if v.decisions, err = loadDecisions(tx, s, o.At); err != nil {
		return nil, err
	}
	if err := v.compare(list); err != nil {
		return nil, err
	}
	v.scanned()
	for i := range v.changed {
		if err := v.store(&v.changed[i]); err != nil {
			return nil, err
		}
	}
	if err := s.trim(); err != nil {
		return nil, err
	}
	if err := v.tell(list); err != nil {
		return nil, err
	}
	v.sortChanges()
	if err := v.summarise(); err != nil {
		return nil, err
	}
	return v.out, s.save()
}

// visit is one observation on its way into the ledger.
type visit struct {
	l         Ledger
	s         *shelf
	o         *Observation
	view      *view
	decisions *decisions
	out       *Changes
	tally     tally
	changed   []changedItem
}

// changedItem is a record that has to be written, and what became of it.
type changedItem struct {
	*record
	what Happening // Appeared, CameBack, WentAway, FixAvailable; "": anything else
	told bool      // whether it is what the scan saw, to be reported as a finding
	was  disposition
}

// viewOf is what the scan could see of a class.
func (v *visit) viewOf(c Class) *view {
	if v.o.Unseen.Older && c == Vulnerability {
		return &view{nothing: true}
	}
	return v.view
}

func (v *visit) ran(c Class) bool { return slices.Contains(v.o.Scanners, c.Scanner()) }

// compare goes through what is stored and what was seen, both in the order of
// keys. What is to be written is collected: a cursor does not survive changes.
func (v *visit) compare(list []sight) error {
	c := v.s.items.Cursor()
	k, stored := c.First()
	next := 0
	for k != nil || next < len(list) {
		order := 1
		if k != nil && next < len(list) {
			order = bytes.Compare(k, list[next].key[:])
		} else if k != nil {
			order = -1
		}
		var err error
		switch {
		case order > 0:
			err = v.appear(&list[next])
			next++
		case order < 0:
			err = v.miss(k, stored)
			k, stored = c.Next()
		default:
			err = v.see(k, stored, &list[next])
			next++
			k, stored = c.Next()
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// appear notes what was never seen before.
func (v *visit) appear(j *sight) error {
	verdict, err := v.decisions.decide(j.subject, &j.Sighting, true)
	if err != nil {
		return err
	}
	r := &record{key: j.key, disposition: verdict.disposition, decision: verdict.decision}
	r.memory = memory{Ecosystem: j.ecosystem, Subject: j.subject, FirstSeen: v.o.At}
	if len(j.Fixed) > 0 {
		r.FixSince = v.o.At
	}
	r.say(&j.Sighting, j.seen)
	v.s.about.Items++
	v.change(r, Appeared, true, undecided)
	return nil
}

// see notes what is known and was seen again.
func (v *visit) see(k, stored []byte, j *sight) error {
	h, err := readHeader(k, stored)
	if err != nil {
		return err
	}
	verdict, err := v.decisions.decide(j.subject, &j.Sighting, true)
	if err != nil {
		return err
	}
	if h.standing == seen && h.disposition == verdict.disposition && h.decision == verdict.decision && bytes.Equal(stored[headerSize+h.memory:], j.seen) {
		v.out.Still++
		v.tally.add(h.class, h.severity, h.standing, h.disposition)
		return nil
	}
	r, err := readRecord(k, stored)
	if err != nil {
		return err
	}
	old, err := r.last()
	if err != nil {
		return err
	}
	what := Happening("")
	now := &j.Sighting
	if r.standing == resolved {
		r.event(v.o.At, CameBack, "", "")
		r.Reopened++
		r.ReopenedAt, r.ResolvedAt, r.ResolvedDue, r.Outcome = v.o.At, time.Time{}, time.Time{}, ""
		what = CameBack
	} else {
		v.out.Still++
		if now, err = v.keepMissed(old, now); err != nil {
			return err
		}
	}
	if r.changeOf(old, now, v.o.At) && what == "" {
		what = FixAvailable
	}
	was := r.disposition
	r.dispose(verdict, v.o.At)
	r.standing, r.LastSeen = seen, time.Time{}
	if now != &j.Sighting {
		encoded, err := encodeSeen(now)
		if err != nil {
			return err
		}
		r.say(now, encoded)
	} else {
		r.say(now, j.seen)
	}
	v.change(r, what, true, was)
	return nil
}

// keepMissed returns what is known after a scan that could not look everywhere:
// where an item was found and this scan did not look, it still is.
func (v *visit) keepMissed(old, now *Sighting) (*Sighting, error) {
	missed, _ := v.viewOf(now.Class).missed(old)
	missed = slices.DeleteFunc(slices.Clone(missed), func(p string) bool { return slices.Contains(now.Paths, p) })
	if len(missed) == 0 {
		return now, nil
	}
	kept := *now
	paths := sorted(slices.Concat(now.Paths, missed))
	kept.MorePaths += max(0, len(paths)-MaxPaths)
	kept.Paths = cut(paths, MaxPaths)
	kept.Installed = union(now.Installed, old.Installed, MaxVersions)
	kept.PURLs = union(now.PURLs, old.PURLs, MaxVersions)
	return &kept, nil
}

// miss deals with what is known and was not seen.
func (v *visit) miss(k, stored []byte) error {
	h, err := readHeader(k, stored)
	if err != nil {
		return err
	}
	if h.standing == resolved {
		return nil
	}
	if !v.ran(h.class) {
		v.tally.add(h.class, h.severity, h.standing, h.disposition)
		return nil
	}
	view := v.viewOf(h.class)
	if h.standing == unseen && view.nothing && v.decisions.none() {
		v.out.Unseen++
		v.tally.add(h.class, h.severity, h.standing, h.disposition)
		return nil
	}
	r, err := readRecord(k, stored)
	if err != nil {
		return err
	}
	last, err := r.last()
	if err != nil {
		return err
	}
	missed, all := view.missed(last)
	if r.standing == seen {
		r.LastSeen = v.s.about.Scanned[r.class.Scanner()]
	}
	if len(missed) == 0 && !all {
		r.resolve(v.l.Policy, v.o.At)
		v.change(r, WentAway, false, r.disposition)
		return nil
	}
	if len(missed) < len(last.Paths) && last.MorePaths == 0 { // it is gone from some places
		left := *last
		left.Paths = missed
		encoded, err := encodeSeen(&left)
		if err != nil {
			return err
		}
		r.say(&left, encoded)
		last = &left
	}
	verdict, err := v.decisions.decide(r.Subject, last, true)
	if err != nil {
		return err
	}
	was := r.disposition
	r.dispose(verdict, v.o.At)
	r.standing = unseen
	v.out.Unseen++
	v.change(r, "", false, was)
	return nil
}

func (v *visit) change(r *record, what Happening, told bool, was disposition) {
	v.tally.add(r.class, r.severity, r.standing, r.disposition)
	v.changed = append(v.changed, changedItem{r, what, told, was})
}

// store writes a record and tells what became of it.
func (v *visit) store(c *changedItem) error {
	b, err := c.encode()
	if err != nil {
		return err
	}
	if err := v.s.items.Put(c.key[:], b); err != nil || c.what == "" {
		return err
	}
	i, err := c.item(v.s)
	if err != nil {
		return err
	}
	if err := v.decisions.note(&i); err != nil {
		return err
	}
	switch c.what {
	case Appeared:
		if slices.Contains(v.out.FirstLook, i.Class.Scanner()) {
			v.out.Baseline = append(v.out.Baseline, i)
		} else {
			v.out.New = append(v.out.New, i)
		}
	case CameBack:
		v.out.Reopened = append(v.out.Reopened, i)
	case WentAway:
		v.out.Resolved = append(v.out.Resolved, i)
	case FixAvailable:
		v.out.Fixable = append(v.out.Fixable, i)
	}
	return nil
}

func (v *visit) sortChanges() {
	for _, list := range []*[]Item{&v.out.New, &v.out.Baseline, &v.out.Reopened, &v.out.Resolved, &v.out.Fixable} {
		if *list == nil {
			*list = []Item{}
		}
		Sort(*list, v.o.At)
	}
	v.out.Counts = v.tally.counts()
}

// scanned notes in what is remembered of the asset that it was scanned.
func (v *visit) scanned() {
	a := &v.s.about
	a.Asset.Kind, a.Asset.Name = v.o.Asset.Kind, clip(v.o.Asset.Name, MaxAssetID)
	if a.First.IsZero() {
		a.First = v.o.At
	}
	if a.Latest.Before(v.o.At) {
		a.Previous = a.Latest
	}
	a.Latest = v.o.At
	if a.Scanned == nil {
		a.Scanned, a.Complete = map[protocol.Scanner]time.Time{}, map[protocol.Scanner]time.Time{}
	}
	if a.Used == nil {
		a.Used = map[protocol.Scanner]map[string]int{}
	}
	for _, scanner := range v.o.Scanners {
		if _, before := a.Scanned[scanner]; !before && !v.out.Previous.IsZero() {
			if a.FirstLook == nil {
				a.FirstLook = map[protocol.Scanner]time.Time{}
			}
			a.FirstLook[scanner] = v.o.At
			v.out.FirstLook = append(v.out.FirstLook, scanner)
		}
		a.Scanned[scanner] = v.o.At
		if blind := v.view.nothing || v.o.Unseen.Older && scanner == Vulnerability.Scanner(); v.o.Complete && !blind && len(v.view.failed) == 0 {
			a.Complete[scanner] = v.o.At
		}
		if a.Used[scanner] = v.decisions.used[scanner]; a.Used[scanner] == nil {
			delete(a.Used, scanner)
		}
	}
	a.Counts = v.tally.counts()
}

// changeOf notes what is different about an item, and reports whether it has a
// fix that it had not.
func (r *record) changeOf(old, now *Sighting, at time.Time) (fixable bool) {
	if old.Severity != now.Severity {
		r.event(at, SeverityChanged, string(old.Severity), string(now.Severity))
	}
	switch {
	case len(old.Fixed) == 0 && len(now.Fixed) > 0:
		r.event(at, FixAvailable, "", strings.Join(now.Fixed, ", "))
		if fixable = true; r.FixSince.IsZero() {
			r.FixSince = at
		}
	case len(old.Fixed) > 0 && len(now.Fixed) == 0:
		r.event(at, FixWithdrawn, strings.Join(old.Fixed, ", "), "")
	}
	switch {
	case old.KEV == nil && now.KEV != nil:
		r.event(at, KEVListed, "", now.KEV.Added.Format(time.DateOnly))
	case old.KEV != nil && now.KEV == nil:
		r.event(at, KEVRemoved, old.KEV.Added.Format(time.DateOnly), "")
	}
	if !slices.Equal(old.Installed, now.Installed) {
		r.event(at, VersionChanged, strings.Join(old.Installed, ", "), strings.Join(now.Installed, ", "))
	}
	return fixable
}

// dispose notes what is decided about an item now.
func (r *record) dispose(v verdict, at time.Time) {
	if v.disposition != r.disposition {
		r.event(at, StandingChanged, string(r.disposition.state()), string(v.disposition.state()))
	}
	r.disposition, r.decision = v.disposition, v.decision
}

// resolve notes that an item is gone. Nobody knows more than that it went since
// the scan before, so the moment of this one counts.
func (r *record) resolve(p Policy, at time.Time) {
	due := p.due(r)
	switch {
	case due.IsZero():
	case !at.After(due):
		r.Outcome = InTime
	case r.disposition != undecided:
		r.Outcome = UnderWaiver
	default:
		r.Outcome = Late
	}
	r.standing, r.ResolvedAt, r.ResolvedDue = resolved, at, due
	r.event(at, WentAway, "", "")
}

// tally counts items by how they stand.
type tally struct {
	open     map[Severity]int
	classes  map[Class]int
	waived   int
	excluded int // not affected, fixed, or expected
}

func (t *tally) add(c Class, s Severity, st standing, d disposition) {
	if t.open == nil {
		t.open, t.classes = map[Severity]int{}, map[Class]int{}
	}
	switch {
	case st == resolved:
	case d == undecided:
		t.open[s]++
		t.classes[c]++
	case d == waived:
		t.waived++
	default:
		t.excluded++
	}
}

func (t *tally) counts() Counts {
	c := Counts{Open: map[Severity]int{}, Classes: map[Class]int{}, Waived: t.waived, Excluded: t.excluded}
	maps.Copy(c.Open, t.open)
	maps.Copy(c.Classes, t.classes)
	return c
}
