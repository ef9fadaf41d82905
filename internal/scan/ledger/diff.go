package ledger

import (
	"fmt"
	"time"

	"github.com/mobileops/mobileops/internal/state"
)

// Change is an item that is there at both ends of a Difference, and what happened
// to it in between.
type Change struct {
	Item
	Happened []Event `json:"happened"` // severity, fix, KEV, installed version, state
}

// Difference is what is different between two moments.
type Difference struct {
	Asset    string    `json:"asset"`
	From     time.Time `json:"from"`
	To       time.Time `json:"to"`
	Appeared []Item    `json:"appeared"` // new, or come back
	// Baseline are there since their class was looked for here for the first time,
	// which was in between: whether they had been there before, nobody knows.
	Baseline []Item   `json:"baseline"`
	Gone     []Item   `json:"gone"` // resolved, and still gone
	Changed  []Change `json:"changed"`
	Same     int      `json:"same"`
}

// there reports whether the item was there at a moment.
func (i *Item) there(t time.Time) bool {
	if i.FirstSeen.After(t) {
		return false
	}
	there := true
	for _, e := range i.Events {
		switch {
		case e.At.After(t):
			return there
		case e.What == WentAway:
			there = false
		case e.What == CameBack:
			there = true
		}
	}
	return there
}

// Diff returns what changed on an asset after one moment and until another. What
// came and went in between is in neither list. The items are as they are now, their
// events tell what was.
func (l Ledger) Diff(tx *state.Tx, asset string, from, to time.Time) (*Difference, error) {
	if to.Before(from) {
		return nil, fmt.Errorf("%w: the difference from %s to %s, which is before it", ErrInvalid, from.Format(time.RFC3339), to.Format(time.RFC3339))
	}
	s, err := find(tx, asset)
	if err != nil {
		return nil, err
	}
	d, err := loadDecisions(tx, s, to)
	if err != nil {
		return nil, err
	}
	out := &Difference{Asset: asset, From: from.UTC(), To: to.UTC(), Appeared: []Item{}, Baseline: []Item{}, Gone: []Item{}, Changed: []Change{}}
	var changed []Item
	happened := map[Key][]Event{}
	err = s.items.ForEach(func(k, v []byte) error {
		i, err := s.read(k, v, d)
		if err != nil {
			return err
		}
		switch before, after := i.there(from), i.there(to); {
		case !before && after && i.FirstSeen.After(from) && s.about.sinceFirstLook(i.Class, i.FirstSeen):
			out.Baseline = append(out.Baseline, i)
		case !before && after:
			out.Appeared = append(out.Appeared, i)
		case before && !after:
			out.Gone = append(out.Gone, i)
		case before && after:
			var list []Event
			for _, e := range i.Events {
				if e.At.After(from) && !e.At.After(to) {
					list = append(list, e)
				}
			}
			if len(list) == 0 {
				out.Same++
				return nil
			}
			happened[i.Key] = list
			changed = append(changed, i)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	Sort(out.Appeared, to)
	Sort(out.Baseline, to)
	Sort(out.Gone, to)
	Sort(changed, to)
	for _, i := range changed {
		out.Changed = append(out.Changed, Change{i, happened[i.Key]})
	}
	return out, nil
}
