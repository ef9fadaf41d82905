package ledger

import (
	"slices"
	"time"

	"github.com/mobileops/mobileops/internal/scan/vex"
)

// Look returns what an observation saw as items, in order of urgency, and stores
// nothing: as if this were the first scan ever, and nobody had decided anything.
func Look(o Observation) ([]Item, error) {
	o.At = storable(o.At)
	list, err := join(&o)
	if err != nil {
		return nil, err
	}
	items := make([]Item, len(list))
	for n := range list {
		j := &list[n]
		i := Item{Asset: o.Asset.ID, Key: j.key, Ecosystem: j.ecosystem, Subject: j.subject, Sighting: j.Sighting, State: Open, FirstSeen: o.At, LastSeen: o.At}
		if i.Expected != "" {
			i.State = Expected
		}
		if len(i.Fixed) > 0 {
			i.FixSince = o.At
		}
		items[n] = i
	}
	Sort(items, o.At)
	return items, nil
}

// Believe applies VEX documents to open items, for as long as these are shown:
// what all versions of an item are not affected by, or have fixed, according to
// the newest statements, gets that state. products are names of the asset.
func Believe(items []Item, products []string, documents []*vex.Document) {
	for n := range items {
		i := &items[n]
		if i.Class != Vulnerability || i.State != Open {
			continue
		}
		packages := i.PURLs
		if len(packages) == 0 {
			packages = []string{""}
		}
		var note *VEXNote
		for _, p := range packages {
			q := vex.Query{Vulnerabilities: append([]string{i.ID}, i.Aliases...), Products: append(slices.Clone(products), i.Asset, assetIRI(i.Asset)), Package: p}
			d, st := vex.Match(documents, q)
			if st == nil || st.Status != vex.NotAffected && st.Status != vex.Fixed {
				note = nil
				break
			}
			if note == nil {
				s := statement{Document: d.ID, Author: d.Author, Moment: d.Moment(st), Statement: *st}
				note = s.note()
			}
		}
		if note == nil {
			continue
		}
		i.VEX, i.State = note, NotAffected
		if note.Status == string(vex.Fixed) {
			i.State = Fixed
		}
	}
}

// Deadlines returns how items stand to their deadlines, in the same order.
func (p Policy) Deadlines(items []Item, now time.Time) []Deadline {
	out := make([]Deadline, len(items))
	for n := range items {
		out[n] = p.of(items[n], now)
	}
	return out
}
