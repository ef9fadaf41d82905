package ledger

import (
	"strings"
	"time"

	"github.com/bmatcuk/doublestar/v4"
	"github.com/mobileops/mobileops/internal/scan/protocol"
	"github.com/mobileops/mobileops/internal/scan/vex"
	"github.com/mobileops/mobileops/internal/state"
	bolt "go.etcd.io/bbolt"
)

// decisions say what was decided about the items of an asset at a moment.
type decisions struct {
	asset    string
	products []string
	exact    map[string][]*Waiver // in force, by an id without a *, in upper case
	patterns []*Waiver            // in force, others
	byName   map[decision]*Waiver
	vex      *bolt.Bucket // statements; nil: there are none
	known    map[string][]*statement
	// used counts what each waiver accepts.
	used map[protocol.Scanner]map[string]int
}

// verdict is what was decided about an item.
type verdict struct {
	disposition disposition
	decision    decision
}

func loadDecisions(tx *state.Tx, s *shelf, now time.Time) (*decisions, error) {
	d := &decisions{
		asset: s.asset, exact: map[string][]*Waiver{}, byName: map[decision]*Waiver{},
		known: map[string][]*statement{}, used: map[protocol.Scanner]map[string]int{},
	}
	d.products = append([]string{s.asset, assetIRI(s.asset), s.about.Asset.Name}, s.about.Products...)
	b, err := top(tx, waiverBucket)
	if err != nil {
		return nil, err
	}
	all, err := readWaivers(b)
	if err != nil {
		return nil, err
	}
	for _, w := range all {
		if w.State(now) != InForce || !wildcard(w.Asset, s.asset) {
			continue
		}
		d.byName[w.decision()] = w
		if w.oneID() {
			d.exact[strings.ToUpper(w.Item)] = append(d.exact[strings.ToUpper(w.Item)], w)
		} else {
			d.patterns = append(d.patterns, w)
		}
	}
	if d.vex, err = top(tx, statementBucket); err != nil {
		return nil, err
	}
	if d.vex != nil {
		if k, _ := d.vex.Cursor().First(); k == nil {
			d.vex = nil
		}
	}
	return d, nil
}

// oneID reports whether the pattern names one id.
func (p *Pattern) oneID() bool { return p.Item != "" && !strings.Contains(p.Item, "*") }

// none reports whether nothing was decided about any item of the asset.
func (d *decisions) none() bool { return d.vex == nil && len(d.byName) == 0 }

// decide returns what was decided about an item. That it does no harm comes before
// that somebody accepts the harm, and that before what a scan expects. count says whether waivers count as used by it.
func (d *decisions) decide(subject string, s *Sighting, count bool) (v verdict, err error) {
	if s.Expected != "" {
		v.disposition = expected
	}
	if d.none() {
		return v, nil
	}
	try := func(w *Waiver) {
		if !w.accepts(subject, s) {
			return
		}
		if v.disposition != waived {
			v = verdict{waived, w.decision()}
		}
		if scanner := s.Class.Scanner(); count {
			if d.used[scanner] == nil {
				d.used[scanner] = map[string]int{}
			}
			d.used[scanner][w.ID]++
		}
	}
	for n := -1; n < len(s.Aliases); n++ {
		id := s.ID
		if n >= 0 {
			if id = s.Aliases[n]; strings.EqualFold(id, s.ID) {
				continue
			}
		}
		for _, w := range d.exact[strings.ToUpper(id)] {
			try(w)
		}
	}
	for _, w := range d.patterns {
		try(w)
	}
	if d.vex == nil || s.Class != Vulnerability {
		return v, nil
	}
	st, err := d.stated(s)
	if err != nil || st == nil {
		return v, err
	}
	switch st.Statement.Status {
	case vex.NotAffected:
		return verdict{notAffected, st.decision()}, nil
	case vex.Fixed:
		return verdict{fixed, st.decision()}, nil
	}
	return v, nil
}

// accepts reports whether the pattern of a waiver matches an item of an asset that
// it matches.
func (p *Pattern) accepts(subject string, s *Sighting) bool {
	if p.Class != "" && p.Class != s.Class || p.Severity != "" && s.Severity.Rank() > p.Severity.Rank() {
		return false
	}
	if !wildcard(p.Package, s.Package) && !(s.Package != "" && wildcard(p.Package, subject)) {
		return false
	}
	if !wildcard(p.Item, s.ID) {
		alias := false
		for _, a := range s.Aliases {
			alias = alias || wildcard(p.Item, a)
		}
		if !alias {
			return false
		}
	}
	if p.Path == "" {
		return true
	}
	for _, path := range s.Paths {
		if !doublestar.MatchUnvalidated(p.Path, path) {
			return false
		}
	}
	return len(s.Paths) > 0 && s.MorePaths == 0
}

// wildcard reports whether a pattern, in which * stands for any characters, matches
// a text in upper or lower case. An empty pattern matches everything. On a mismatch
// it only goes back to the latest star.
func wildcard(pattern, text string) bool {
	if pattern == "" || pattern == "*" {
		return true
	}
	if !strings.Contains(pattern, "*") {
		return strings.EqualFold(pattern, text)
	}
	pattern, text = strings.ToLower(pattern), strings.ToLower(text)
	p, t, star, mark := 0, 0, -1, 0
	for t < len(text) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, mark = p, t
			p++
		case p < len(pattern) && pattern[p] == text[t]:
			p, t = p+1, t+1
		case star >= 0:
			mark++
			p, t = star+1, mark
		default:
			return false
		}
	}
	return strings.Trim(pattern[p:], "*") == ""
}

// note sets what an item tells about what was decided, as it is now.
func (d *decisions) note(i *Item) error {
	if i.State == Resolved {
		return nil
	}
	v, err := d.decide(i.Subject, &i.Sighting, false)
	if err != nil {
		return err
	}
	i.State, i.Waiver, i.VEX = v.disposition.state(), nil, nil
	if w := d.byName[v.decision]; v.disposition == waived && w != nil {
		i.Waiver = &WaiverNote{ID: w.ID, Owner: w.Owner, Reason: w.Reason, Until: w.Until}
	}
	if i.Class == Vulnerability && d.vex != nil {
		st, err := d.stated(&i.Sighting)
		if err != nil {
			return err
		}
		if st != nil {
			i.VEX = st.note()
		}
	}
	return nil
}
