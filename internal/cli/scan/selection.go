package scan

import (
	"slices"
	"strings"

	"github.com/mobileops/mobileops/internal/scan/ledger"
)

// selection says which items are shown.
type selection struct {
	severities    []string // lower case; none: all
	ignoreUnfixed bool
	newOnly       bool
	states        []ledger.State // none: those that are there, whatever was decided about them
}

func (o *targetOptions) selection() (*selection, error) {
	words, err := o.severities()
	if err != nil {
		return nil, err
	}
	return &selection{severities: words, ignoreUnfixed: o.ignoreUnfixed, newOnly: o.newOnly, states: present()}, nil
}

// present are the states of what is there, whatever was decided about it.
func present() []ledger.State {
	return slices.DeleteFunc(ledger.States(), func(s ledger.State) bool { return s == ledger.Resolved })
}

// keeps reports whether an item, which is news or not, is shown.
func (s *selection) keeps(i *ledger.Item, news bool) bool {
	switch {
	case len(s.states) > 0 && !slices.Contains(s.states, i.State):
		return false
	case len(s.severities) > 0 && !slices.Contains(s.severities, strings.ToLower(string(i.Severity))):
		return false
	case s.ignoreUnfixed && i.Class == ledger.Vulnerability && len(i.Fixed) == 0:
		return false
	case s.newOnly && !news:
		return false
	}
	return true
}

// News of an item.
const (
	newHere   = "new"
	cameBack  = "back again"
	openAgain = "open again" // nobody accepts it any more, or it is not what was expected
)

// news says what is new about an item since the scan before; "": nothing is. At the
// first scan of an asset everything is new, but where an asset is known and a class is
// looked for in it for the first time, what is found is no news: nobody had looked.
func (v *view) news(i *ledger.Item) string {
	c := v.Changes
	switch known := c != nil && !c.Previous.IsZero(); {
	case known && slices.Contains(c.FirstLook, i.Class.Scanner()):
		return ""
	case !i.ReopenedAt.IsZero() && !i.ReopenedAt.Before(v.Started):
		return cameBack
	case !i.FirstSeen.Before(v.Started):
		return newHere
	case known && i.State == ledger.Open && slices.ContainsFunc(i.Events, func(e ledger.Event) bool {
		return e.What == ledger.StandingChanged && e.To == string(ledger.Open) && e.At.After(c.Previous)
	}):
		return openAgain
	}
	return ""
}
