package htmlreport

import (
	"fmt"
	"strings"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/integrity"
	"github.com/mobileops/mobileops/internal/integrity/history"
)

// assurance is one thing that does or does not speak for the baseline.
type assurance struct{ What, Says, Tone, Word string }

func holds(what, says string) assurance  { return assurance{what, says, "good", "holds"} }
func open(what, says string) assurance   { return assurance{what, says, "", "not proven"} }
func broken(what, says string) assurance { return assurance{what, says, "bad", "broken"} }

// trust is what is known about the baseline itself.
func (p *Page) trust() *integrity.Trust {
	if p.Report.Trust != nil {
		return p.Report.Trust
	}
	return p.Trust
}

// assurances words what speaks for the baseline, and tells as of when, if that
// is not when the report was made.
func assurances(p *Page) (list []assurance, since moment) {
	t := p.trust()
	if t == nil {
		return nil, since
	}
	if p.Report.Trust == nil {
		since = at(p.Now)
	}
	if len(t.Problems) == 0 {
		text := fmt.Sprintf("The history of who took and accepted what, %s, fits together and to the baselines that are there.", plural(int(t.Records), "signed record", "signed records"))
		if !t.Last.IsZero() {
			text += " The last one is of " + at(t.Last).Text + "."
		}
		list = append(list, holds("History", text))
	}
	for _, q := range t.Problems {
		list = append(list, broken("History", sentence(q.What, q.Next)))
	}
	switch {
	case len(t.Unsigned) > 0:
		list = append(list, broken("Signature", plural(len(t.Unsigned), "record is", "records are")+" not signed yet, so nobody vouches for the baseline."))
	case len(t.Problems) == 0 && t.Key != "":
		list = append(list, holds("Signature", "Signed by the key "+visible(history.KeyID(t.Key), longestValue)+". Where its private half lies on the same host, an intruder with all rights can sign, too."))
	}
	for i := range t.Anchors {
		a := &t.Anchors[i]
		place := visible(a.Place, longestPath) + ": "
		switch {
		case a.Kind() == failure.Untrustworthy:
			list = append(list, broken("Anchor", place+sentence(a.Problem, "")))
		case a.Problem != "":
			list = append(list, open("Anchor", place+sentence(a.Problem, "")))
		case a.Verdict == history.Matches:
			list = append(list, holds("Anchor", fmt.Sprintf("%sRecord %d, kept there on %s, is as it was.", place, a.Counter, at(a.Time).Text)))
		}
	}
	if !t.Anchored() {
		list = append(list, open("Anchor", "Nothing that is kept elsewhere was compared. That everything was put back to an older, valid state would not be noticed."))
	}
	for _, text := range t.Warnings {
		list = append(list, open("Note", sentence(text, "")))
	}
	return list, since
}

// sentence makes one of a message and what to do next.
func sentence(what, next string) string {
	what = visible(strings.TrimSuffix(what, "."), longestPath)
	if next != "" {
		what += " (" + visible(next, longestPath) + ")"
	}
	return strings.ToUpper(what[:min(1, len(what))]) + what[min(1, len(what)):] + "."
}

// footing says what the classes of changes rest on.
func footing(own *integrity.Ownership) (text string) {
	if own == nil {
		return ""
	}
	var names []string
	for _, m := range own.Managers {
		names = append(names, string(m))
	}
	switch {
	case own.Archive != "":
		text = "Whose a change is was decided with the package files in " + visible(own.Archive, longestPath) + ", which the host cannot have altered."
	case len(names) > 0:
		text = "Whose a change is was decided with the package database of " + strings.Join(names, " and ") + " on the host. Whoever is root can write to it: “as recorded” is a way to sort, and no proof."
	}
	for _, problem := range own.Problems {
		text += " Not everything could be looked up: " + visible(problem, longestValue) + "."
	}
	return text
}
