package ledger

import (
	"bytes"
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Compare orders items by urgency: a negative number means that a comes first.
// It is a total order, and the same for everybody who looks at the same moment:
//
//  1. what is open, before what is waived, excluded or resolved;
//  2. what is known to be exploited (KEV), by when it is due, so that what has
//     passed its date comes first;
//  3. the probability of exploitation (EPSS) as it is shown, with two decimals,
//     the highest first. What has none counts as 0.00, as most do: a fresh
//     vulnerability that nobody has computed it for is not put behind all others;
//  4. the CVSS score, the highest first. What has none, such as a secret, stands
//     where the lowest score of its severity would;
//  5. severity, and what is left of EPSS;
//  6. subject, id, asset and key.
func Compare(a, b *Item) int {
	for _, c := range [...]int{
		cmp.Compare(a.State.index(), b.State.index()),
		compareKEV(a.KEV, b.KEV),
		cmp.Compare(b.EPSS.shown(), a.EPSS.shown()),
		cmp.Compare(b.weight(), a.weight()),
		cmp.Compare(b.Severity.Rank(), a.Severity.Rank()),
		cmp.Compare(b.EPSS.exact(), a.EPSS.exact()),
		cmp.Compare(a.Class.index(), b.Class.index()),
	} {
		if c != 0 {
			return c
		}
	}
	return cmp.Or(
		strings.Compare(a.Subject, b.Subject),
		strings.Compare(a.ID, b.ID),
		strings.Compare(a.Asset, b.Asset),
		bytes.Compare(a.Key[:], b.Key[:]),
	)
}

// Sort orders items by urgency, and says of each why it stands where it does.
func Sort(items []Item, now time.Time) {
	order := make([]*Item, len(items)) // an item is too large to be moved around
	for i := range items {
		items[i].Why = items[i].why(now)
		order[i] = &items[i]
	}
	slices.SortFunc(order, Compare)
	sorted := make([]Item, len(items))
	for i, item := range order {
		sorted[i] = *item
	}
	copy(items, sorted)
}

func compareKEV(a, b *KEV) int {
	switch {
	case a == nil && b == nil:
		return 0
	case b == nil:
		return -1
	case a == nil:
		return 1
	case a.Due.IsZero() != b.Due.IsZero():
		if b.Due.IsZero() {
			return -1
		}
		return 1
	}
	return cmp.Or(a.Due.Compare(b.Due), boolFirst(a.Ransomware, b.Ransomware))
}

func boolFirst(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return -1
	}
	return 1
}

func (e *EPSS) exact() float64 {
	if e == nil {
		return 0
	}
	return e.Score
}

// shown is the probability in hundredths, as people see it.
func (e *EPSS) shown() int { return int(math.Round(e.exact() * 100)) }

// weight is the score that decides: that of CVSS, or the lowest that its severity
// has in CVSS 3 and 4.
func (s *Sighting) weight() float64 {
	if s.CVSS != nil {
		return s.CVSS.Score
	}
	switch s.Severity {
	case Critical:
		return 9
	case Medium:
		return 4
	case Low:
		return 0.1
	}
	return 7
}

// why says in words what decides about the place of an item.
func (i *Item) why(now time.Time) string {
	parts := make([]string, 0, 5)
	switch i.State {
	case Waived:
		if i.Waiver != nil {
			parts = append(parts, fmt.Sprintf("waived until %s by %s: %s", i.Waiver.Until.Format(time.DateOnly), i.Waiver.Owner, i.Waiver.Reason))
		}
	case NotAffected, Fixed:
		if v := i.VEX; v != nil {
			parts = append(parts, strings.ReplaceAll(v.Status, "_", " ")+" by a VEX statement of "+v.Author)
		}
	case Expected:
		parts = append(parts, "expected: "+i.Expected)
	case Resolved:
		parts = append(parts, "resolved on "+i.ResolvedAt.Format(time.DateOnly))
	}
	if k := i.KEV; k != nil {
		parts = append(parts, k.words(now))
	}
	if e := i.EPSS; e != nil {
		text := "EPSS " + strconv.FormatFloat(e.Score, 'f', 2, 64)
		if e.Percentile > 0 {
			text += " (" + ordinal(int(e.Percentile*100)) + " percentile)"
		}
		parts = append(parts, text)
	}
	severity := "severity " + string(i.Severity)
	if i.Severity == Unknown {
		severity = "severity unknown, counted like high"
	}
	if i.SeveritySource != "" {
		severity += " (" + i.SeveritySource + ")"
	}
	if c := i.CVSS; c != nil {
		text := "CVSS " + strconv.FormatFloat(c.Score, 'f', 1, 64)
		if c.Source != "" {
			text += " (" + c.Source + ")"
		}
		if parts = append(parts, text); i.Severity == Unknown {
			parts = append(parts, severity)
		}
	} else {
		parts = append(parts, severity)
	}
	return strings.Join(parts, "; ")
}

func (k *KEV) words(now time.Time) string {
	text := "known to be exploited (CISA KEV"
	if !k.Added.IsZero() {
		text += " since " + k.Added.Format(time.DateOnly)
	}
	if !k.Due.IsZero() {
		text += ", due " + k.Due.Format(time.DateOnly)
		if now.After(endOfDay(k.Due)) {
			text += ", which has passed"
		}
	}
	if k.Ransomware {
		text += ", used by ransomware"
	}
	return text + ")"
}

// endOfDay returns the last moment of a day that is given as its midnight: what is
// due on a date is in time on it. Another moment is returned as it is.
func endOfDay(t time.Time) time.Time {
	if t.IsZero() || !t.Equal(t.UTC().Truncate(24*time.Hour)) {
		return t
	}
	return t.Add(24*time.Hour - time.Microsecond)
}

// ordinal writes 1st, 2nd, 93rd, 99th.
func ordinal(n int) string {
	suffix := "th"
	if n%100 < 11 || n%100 > 13 {
		switch n % 10 {
		case 1:
			suffix = "st"
		case 2:
			suffix = "nd"
		case 3:
			suffix = "rd"
		}
	}
	return strconv.Itoa(n) + suffix
}
