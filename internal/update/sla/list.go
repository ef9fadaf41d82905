package sla

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/finding"
	"github.com/mobileops/mobileops/internal/state"
)

// Filter says which records List returns. A zero field lets everything pass.
type Filter struct {
	States  []State
	Sources []string
	Within  time.Duration // due within this span from now, or overdue
	Since   time.Time     // not fixed before this moment
}

// Entry is an advisory as it stands at a moment.
type Entry struct {
	*Record
	State State
	Due   time.Time // zero: never
}

// Left returns how long there is until the advisory is due, negative when it is
// overdue; 0 and false when it is never due.
func (e *Entry) Left(now time.Time) (time.Duration, bool) {
	if e.Due.IsZero() {
		return 0, false
	}
	return e.Due.Sub(now), true
}

// List returns the advisories that pass as they stand at now: overdue ones first,
// then by when they are due, those that are never due last.
func (l Ledger) List(tx *state.Tx, f Filter, now time.Time) (list []Entry, err error) {
	b, err := l.open(tx)
	if err != nil {
		return nil, err
	}
	err = b.each("", func(r *Record) error {
		e := Entry{r, r.State(l.Policy, now), r.Due(l.Policy)}
		left, ever := e.Left(now)
		if len(f.States) > 0 && !slices.Contains(f.States, e.State) ||
			len(f.Sources) > 0 && !slices.Contains(f.Sources, r.Source) ||
			f.Within > 0 && e.State != Overdue && (!ever || left > f.Within) ||
			e.State == Fixed && r.FixedAt.Before(f.Since) {
			return nil
		}
		list = append(list, e)
		return nil
	})
	slices.SortStableFunc(list, func(x, y Entry) int {
		return cmp.Or(
			cmp.Compare(stateOrder(x.State), stateOrder(y.State)),
			cmp.Compare(boolOrder(x.Due.IsZero()), boolOrder(y.Due.IsZero())),
			x.Due.Compare(y.Due),
			cmp.Compare(y.Severity.rank(), x.Severity.rank()),
			strings.Compare(x.ID(), y.ID()),
		)
	})
	return list, err
}

func stateOrder(s State) int { return slices.Index([]State{Overdue, Pending, Waived, Fixed}, s) }

func boolOrder(b bool) int {
	if b {
		return 1
	}
	return 0
}

// Find returns the advisory that a word names: an ID, or the part of one (a
// package, an advisory) that fits a single pending advisory. Several are a
// usage error that lists them.
func (l Ledger) Find(tx *state.Tx, word string) (*Record, error) {
	b, err := l.open(tx)
	if err != nil {
		return nil, err
	}
	return b.find(word)
}

func (b buckets) find(word string) (*Record, error) {
	if r, err := b.load(word); r != nil || err != nil {
		return r, err
	}
	var pending, fixed []*Record
	err := b.each("", func(r *Record) error {
		if r.matches(word) {
			if r.FixedAt.IsZero() {
				pending = append(pending, r)
			} else {
				fixed = append(fixed, r)
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	found := pending
	if len(found) == 0 {
		found = fixed
	}
	switch len(found) {
	case 0:
		return nil, failure.Hint(fmt.Errorf("%w: %q", ErrNotFound, clip(word, MaxName)), "see them: mobileops update sla report")
	case 1:
		return found[0], nil
	}
	var ids []string
	for _, r := range found {
		ids = append(ids, r.ID())
	}
	if len(ids) > 8 {
		ids = append(ids[:8], fmt.Sprintf("and %d more", len(ids)-8))
	}
	return nil, failure.Errorf(failure.Usage, "%q can mean %s: type more of it", clip(word, MaxName), strings.Join(ids, ", "))
}

// The rule of the findings made here, and the scope in which they are reported.
const (
	FindingSource = "update"
	FindingScope  = "sla"
	FindingRule   = "patch-overdue"
)

// scope is that of the findings of one tree.
func (l Ledger) scope() string {
	if l.root() == "/" {
		return FindingScope
	}
	return clip(FindingScope+":"+l.root(), finding.MaxScope)
}

// Findings returns a finding for every advisory that is overdue at now and not
// waived. Nothing in it changes from one day to the next, so that a finding
// that somebody acknowledged stays so.
func (l Ledger) Findings(tx *state.Tx, now time.Time) (found []finding.Finding, err error) {
	list, err := l.List(tx, Filter{States: []State{Overdue}}, now)
	if err != nil {
		return nil, err
	}
	for _, e := range list {
		f := finding.Finding{
			Source:   FindingSource,
			Rule:     FindingRule,
			Severity: e.Severity.Finding(),
			Title:    fmt.Sprintf("security update of %s was due on %s", e.Name, e.Due.Format(time.DateOnly)),
			Subject:  e.ID(),
			Evidence: map[string]string{
				"severity":    string(e.Severity),
				"first_known": e.FirstKnown.Format(time.RFC3339),
				"due":         e.Due.Format(time.RFC3339),
			},
			Remediation: "install it, or have it waived: mobileops update sla waive " + e.ID(),
			Tags:        []string{"patch", e.Source},
			Observed:    now,
		}
		if l.root() != "/" {
			f.Subject += " in " + l.root()
		}
		if e.Source == SourceApt {
			f.Remediation = "apt-get update && apt-get dist-upgrade, or have it waived: mobileops update sla waive " + e.ID()
		}
		if e.FixedIn != "" {
			f.Evidence["fixed_in"] = e.FixedIn
		}
		if !e.Published.IsZero() {
			f.Evidence["published"] = e.Published.Format(time.RFC3339)
		}
		if strings.HasPrefix(e.Advisory.Advisory, "CVE-") {
			f.References = []string{"https://www.cve.org/CVERecord?id=" + e.Advisory.Advisory}
		}
		found = append(found, f)
	}
	return found, nil
}

// Report brings the store of findings up to date with what is overdue: what was
// fixed or waived is resolved there, what a waiver covered until now is open
// again.
func (l Ledger) Report(tx *state.Tx, now time.Time) (finding.Summary, error) {
	found, err := l.Findings(tx, now)
	if err != nil {
		return finding.Summary{}, err
	}
	return finding.Report(tx, FindingSource, l.scope(), found, now)
}
