package scan

import (
	"slices"
	"strings"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
	engine "github.com/mobileops/mobileops/internal/scan"
	"github.com/mobileops/mobileops/internal/scan/ledger"
	"github.com/mobileops/mobileops/internal/scan/protocol"
	"github.com/mobileops/mobileops/internal/ui"
)

// view is what is shown of a report.
type view struct {
	*engine.Report
	show   *selection
	now    time.Time
	shown  []ledger.Deadline
	hidden int // open ones that the flags leave out
}

func newView(r *engine.Report, show *selection, now time.Time) *view {
	v := &view{Report: r, show: show, now: now}
	for i := range r.Deadlines {
		switch item := &r.Deadlines[i]; {
		case item.State == ledger.Resolved, item.Unseen, !slices.Contains(r.Scanners, item.Class.Scanner()):
		case show.keeps(&item.Item, v.news(&item.Item) != ""):
			v.shown = append(v.shown, *item)
		case item.State == ledger.Open:
			v.hidden++
		}
	}
	return v
}

// open are the items shown that nobody has decided about.
func (v *view) open() []ledger.Deadline {
	return slices.DeleteFunc(slices.Clone(v.shown), func(i ledger.Deadline) bool { return i.State != ledger.Open })
}

// leftUnseen counts open vulnerabilities that this scan could not look at again,
// because its database is older than one there was: they are neither there nor gone.
func (v *view) leftUnseen() (n int) {
	for i := range v.Items {
		if item := &v.Items[i]; v.Older && item.Unseen && item.State == ledger.Open && item.Class == ledger.Vulnerability {
			n++
		}
	}
	return n
}

// Complete reports whether there is an answer about all that is known of the target.
func (v *view) Complete() bool { return v.Report.Complete() && v.leftUnseen() == 0 }

// verdict is the exit status.
func (v *view) verdict(o *targetOptions) failure.Kind {
	kind := failure.None
	if o.failOn != "" && slices.ContainsFunc(v.open(), func(i ledger.Deadline) bool { return fails(&i, o.failOn) }) {
		kind = failure.No
	}
	if !v.Complete() {
		kind = failure.Worse(kind, failure.Incomplete)
	}
	return kind
}

// fails reports whether an item is what --fail-on names.
func fails(i *ledger.Deadline, word string) bool {
	switch word {
	case "any":
		return true
	case "kev":
		return i.KEV != nil
	case "overdue":
		return i.DueState == ledger.Overdue
	case "unknown":
		return i.Severity == ledger.Unknown
	}
	floor, err := ledger.ParseSeverity(word)
	return err == nil && i.Severity.AtLeast(floor)
}

// words for what there is of a class: one, several.
func words(c ledger.Class) (one, many string) {
	switch c {
	case ledger.Secret:
		return "secret", "secrets"
	case ledger.Misconfiguration:
		return "misconfiguration", "misconfigurations"
	case ledger.License:
		return "licence that the policy does not allow", "licences that the policy does not allow"
	}
	return "vulnerability", "vulnerabilities"
}

// summary is one line about what is there, whatever is shown of it.
func (v *view) summary() string {
	var parts []string
	for _, c := range ledger.Classes() {
		if !slices.Contains(v.Scanners, c.Scanner()) {
			continue
		}
		counts, total, states := map[ledger.Severity]int{}, 0, map[ledger.State]int{}
		for i := range v.Items {
			if item := &v.Items[i]; item.Class == c && !item.Unseen {
				states[item.State]++
				if item.State == ledger.Open {
					counts[item.Severity]++
					total++
				}
			}
		}
		one, many := words(c)
		part := ui.Plural(int64(total), one, many)
		if total == 0 {
			part = "no " + one
		}
		var by []string
		for _, s := range ledger.Severities() {
			if counts[s] > 0 {
				by = append(by, ui.Count(int64(counts[s]))+" "+strings.ToLower(string(s)))
			}
		}
		// What somebody decided about is listed above, so it is not kept quiet here.
		var decided []string
		for _, s := range []ledger.State{ledger.Waived, ledger.NotAffected, ledger.Fixed, ledger.Expected} {
			if states[s] > 0 {
				decided = append(decided, ui.Count(int64(states[s]))+" "+strings.ReplaceAll(string(s), "-", " "))
			}
		}
		if len(by) > 0 {
			part += " (" + strings.Join(by, ", ") + ")"
		}
		if len(decided) > 0 {
			part += " besides " + strings.Join(decided, " and ")
		}
		parts = append(parts, part)
	}
	if len(parts) == 0 {
		return "nothing was looked for"
	}
	return strings.Join(parts, ", ")
}

// since is one line about what is different from the scan before.
func (v *view) since() string {
	c := v.Changes
	switch {
	case c == nil:
		return ""
	case c.Previous.IsZero():
		return "This is the first scan of " + ui.Printable(v.Asset.ID) + "."
	}
	var parts []string
	for _, p := range []struct {
		n    int
		word string
	}{{len(c.New), "new"}, {len(c.Reopened), cameBack}, {v.openAgain(), openAgain}, {len(c.Resolved), "gone"}, {len(c.Fixable), "can be mended now"}, {c.Unseen, "could not be looked at again"}} {
		if p.n > 0 {
			parts = append(parts, ui.Count(int64(p.n))+" "+p.word)
		}
	}
	if len(parts) == 0 {
		parts = []string{"nothing changed"}
	}
	return "Since the scan of " + moment(c.Previous, v.now) + ": " + strings.Join(parts, ", ") + "."
}

// openAgain counts what was accepted or expected at the scan before, and is not any
// more.
func (v *view) openAgain() (n int) {
	for i := range v.Items {
		if item := &v.Items[i]; item.State == ledger.Open && !item.Unseen && v.news(item) == openAgain {
			n++
		}
	}
	return n
}

// baseline counts what was found by looking here for it for the first time.
func (v *view) baseline() int {
	if v.Changes == nil {
		return 0
	}
	return len(v.Changes.Baseline)
}

// firstLook says what was looked for here for the first time, and so is no news;
// "": nothing was.
func (v *view) firstLook() string {
	c := v.Changes
	if c == nil || len(c.FirstLook) == 0 {
		return ""
	}
	var kinds []string
	for _, class := range ledger.Classes() {
		if slices.Contains(c.FirstLook, class.Scanner()) {
			_, many := words(class)
			if class == ledger.License {
				many = "licences"
			}
			kinds = append(kinds, many)
		}
	}
	text := "This was the first look for " + strings.Join(kinds, " and ") + " here"
	if n := int64(len(c.Baseline)); n > 0 {
		text += ": " + ui.Plural(n, "item is", "items are") + " known from now on, and no news"
	}
	return text + "."
}

// moment writes a moment in local time, and roughly how long ago it was.
func moment(t, now time.Time) string {
	return t.Local().Format("2006-01-02 15:04") + " (" + ui.Ago(t, now) + ")"
}

// packages counts the packages that were found.
func packages(r *protocol.Report) (n int) {
	for i := range r.Results {
		n += len(r.Results[i].Packages)
	}
	return n
}
