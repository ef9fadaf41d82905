package facts

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"github.com/mobileops/mobileops/internal/finding"
)

// ChangeKind says how a fact differs.
type ChangeKind string

// The kinds of changes.
const (
	Added   ChangeKind = "added"
	Removed ChangeKind = "removed"
	Changed ChangeKind = "changed"
)

// Change is one fact that is no longer as it was.
type Change struct {
	Kind       ChangeKind       `json:"kind"`
	Severity   finding.Severity `json:"severity"`
	Old        *Fact            `json:"old,omitempty"` // nil when added
	New        *Fact            `json:"new,omitempty"` // nil when removed
	Attributes []Attribute      `json:"attributes"`    // of a changed fact: those that differ, sorted by name
}

// Attribute is an attribute with both values.
type Attribute struct {
	Name string `json:"name"`
	Old  string `json:"old"`
	New  string `json:"new"`
}

// Fact is the fact as it is now, or as it was when it is gone.
func (c *Change) Fact() *Fact {
	if c.New != nil {
		return c.New
	}
	return c.Old
}

// ID is the change as an operator types it, for which see Fact.ID.
func (c *Change) ID() string { return c.Fact().ID() }

// Gap is a source of which one side knows less than the other, or both know
// too little: whatever it would have told was not compared.
type Gap struct {
	Source Source // as it is now
	Was    State  // as it was; empty: it was not asked
	// Before is set when it can be read now and could not be read then, so a
	// new baseline is wanted. Both is set when neither side knows it.
	Before bool
	Both   bool
}

// Diff compares two snapshots in the aspects that both looked at. The worst
// changes come first, and those of one severity are sorted by id.
func Diff(old, now *Snapshot) ([]Change, []Gap) {
	d := &differ{old: old, now: now}
	for i, j := 0, 0; i < len(old.Facts) || j < len(now.Facts); {
		order := 0
		switch {
		case i == len(old.Facts):
			order = 1
		case j == len(now.Facts):
			order = -1
		default:
			order = strings.Compare(old.Facts[i].ID(), now.Facts[j].ID())
		}
		switch {
		case order < 0:
			d.removed(&old.Facts[i])
			i++
		case order > 0:
			d.added(&now.Facts[j])
			j++
		default:
			d.both(&old.Facts[i], &now.Facts[j])
			i, j = i+1, j+1
		}
	}
	d.pairPorts()
	slices.SortStableFunc(d.changes, func(a, b Change) int {
		return cmp.Or(cmp.Compare(b.Severity, a.Severity), strings.Compare(a.ID(), b.ID()))
	})
	return d.changes, d.gaps()
}

type differ struct {
	old, now *Snapshot
	changes  []Change
}

func (d *differ) compared(aspect string) bool { return d.old.Has(aspect) && d.now.Has(aspect) }

func (d *differ) removed(f *Fact) {
	if f.Passing() {
		return
	}
	if d.compared(f.Aspect) && d.now.Source(f.Aspect, f.Source).State == OK {
		d.changes = append(d.changes, Change{Kind: Removed, Severity: min(f.Severity, severityGone(f)), Old: f})
	}
}

// Passing tells whether a fact lasts no longer than a question and its answer,
// such as the socket of ping(8): that a program takes packets in this way is
// news once, and that it does not do so at this moment is none. Otherwise a
// host that is looked at every minute had a difference whenever somebody asks.
func (f *Fact) Passing() bool { return f.Kind == "dynamic" || f.Kind == "raw" }

// Same tells whether a fact is as another one of its id in everything that is
// compared. The command line of a daemon may count its connections.
func (f *Fact) Same(other *Fact) bool {
	skip := func(name, _ string) bool { return !isCompared(name) }
	a, b := maps.Clone(f.Attributes), maps.Clone(other.Attributes)
	maps.DeleteFunc(a, skip)
	maps.DeleteFunc(b, skip)
	return maps.Equal(a, b)
}

func (d *differ) added(f *Fact) {
	if d.compared(f.Aspect) && d.old.state(f.Aspect, f.Source).known() {
		d.changes = append(d.changes, Change{Kind: Added, Severity: f.Severity, New: f})
	}
}

func (d *differ) both(old, now *Fact) {
	if !d.compared(old.Aspect) {
		return
	}
	c := Change{Kind: Changed, Old: old, New: now}
	for _, name := range slices.Sorted(maps.Keys(old.Attributes)) {
		was, is := old.Attributes[name], now.Attributes[name]
		if _, known := now.Attributes[name]; !known || was == is || !isCompared(name) {
			continue
		}
		c.Attributes = append(c.Attributes, Attribute{name, was, is})
		c.Severity = max(c.Severity, severityOf(now, name, was, is))
	}
	if c.Attributes != nil {
		d.changes = append(d.changes, c)
	}
}

// state is what a snapshot knows of a source. Sources that are found rather
// than listed, such as the runtimes of users, have a colon in their name: where
// such a one is not in a snapshot, it was not there.
func (s *Snapshot) state(aspect, name string) State {
	if st := s.Source(aspect, name).State; st != "" || !strings.Contains(name, ":") {
		return st
	}
	return Absent
}

// gaps lists the sources that were not compared, or not in full.
func (d *differ) gaps() []Gap {
	var list []Gap
	seen := map[string]bool{}
	for _, src := range append(slices.Clone(d.now.Sources), d.old.Sources...) {
		if seen[src.ID()] || !d.compared(src.Aspect) {
			continue
		}
		seen[src.ID()] = true
		g := Gap{Source: d.now.Source(src.Aspect, src.Name), Was: d.old.state(src.Aspect, src.Name)}
		if g.Source.State == "" {
			g.Source.State, g.Source.Detail = d.now.state(src.Aspect, src.Name), "it is not there any more"
		}
		is := g.Source.State
		g.Both = !g.Was.known() && !is.known()
		g.Before = !g.Was.known() && is.known()
		switch {
		case g.Was.known() && is == OK:
		case is == Absent && !d.told(src): // nothing was there that could now be hidden
		default:
			list = append(list, g)
		}
	}
	return list
}

// told tells whether the old snapshot has facts of a source.
func (d *differ) told(src Source) bool {
	return slices.ContainsFunc(d.old.Facts, func(f Fact) bool { return f.Aspect == src.Aspect && f.Source == src.Name })
}

// pairPorts makes one change of a program that listened on one dynamic port and
// now listens on another: it was restarted, and nobody needs to look twice.
func (d *differ) pairPorts() {
	gone := map[string]int{}
	for i, c := range d.changes {
		if k := dynamicPort(c.Old); c.Kind == Removed && k != "" {
			gone[k] = i
		}
	}
	drop := map[int]bool{}
	for i, c := range d.changes {
		k := dynamicPort(c.New)
		if c.Kind != Added || k == "" {
			continue
		}
		at, ok := gone[k]
		if !ok || drop[at] {
			continue
		}
		drop[at] = true
		d.changes[i] = Change{Kind: Changed, Severity: finding.Info, Old: d.changes[at].Old, New: c.New,
			Attributes: []Attribute{{"port", d.changes[at].Old.Attributes["port"], c.New.Attributes["port"]}}}
	}
	kept := d.changes[:0]
	for i, c := range d.changes {
		if !drop[i] {
			kept = append(kept, c)
		}
	}
	d.changes = kept
}
