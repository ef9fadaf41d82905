package export

import (
	"cmp"
	"fmt"
	"strings"

	"github.com/mobileops/mobileops/internal/scan/ledger"
)

// addClasses adds a section for each class that was looked for or found, and
// returns the keys of the items that are in them.
func (v *htmlView) addClasses(d *Document, entries []*entry) (shown map[ledger.Key]bool) {
	shown = make(map[ledger.Key]bool, min(len(entries), htmlItems))
	n := 0
	for _, class := range d.classes(entries) {
		c := htmlClass{ID: string(class), Title: strings.ToUpper(classWord(class)[:1]) + classWord(class)[1:]}
		total, left := 0, 0
		for _, e := range entries {
			if e.Class != class || e.State == ledger.Resolved {
				continue
			}
			total++
			if n == htmlItems {
				left++
				continue
			}
			shown[e.Key] = true
			c.Items = append(c.Items, newHTMLItem(e, n))
			n++
		}
		c.Total = count(total)
		if left > 0 {
			c.Notes = append(c.Notes, plural(left, "less urgent one is", "less urgent ones are")+" not on this page. All of them: --output jsonl or --output csv")
		}
		if class == ledger.License {
			c.addVerdicts(d)
		}
		switch {
		case total > 0:
		case !d.looked(class.Scanner()):
			c.About = "They were not looked for."
		case len(d.problems()) > 0:
			c.About = "None were found in what could be looked at."
		case class == ledger.License && len(c.Verdicts) > 0:
			c.About = "All are allowed."
		default:
			c.About = "None."
		}
		v.Classes = append(v.Classes, c)
	}
	return shown
}

func (c *htmlClass) addVerdicts(d *Document) {
	for i, l := range d.Licenses {
		if i == htmlVerdicts {
			c.Notes = append(c.Notes, plural(len(d.Licenses)-i, "licence is", "licences are")+" not in the table.")
			break
		}
		tone := "warn"
		switch l.Verdict {
		case "allow":
			tone = "good"
		case "deny", "attribution-missing":
			tone = "bad"
		}
		c.Verdicts = append(c.Verdicts, htmlLicense{visible(l.License, longestShort), visible(strings.ReplaceAll(l.Verdict, "-", " "), longestShort), tone, count(l.Packages), visible(strings.Join(l.Examples[:min(len(l.Examples), 5)], ", "), longestShort)})
	}
}

func newHTMLItem(e *entry, n int) htmlItem {
	i := htmlItem{
		Anchor: anchor(e.Key), N: n, Severity: severityWord(e.Severity), DueISO: day(e.due), FirstISO: stamp(e.FirstSeen),
		ID: visible(e.ID, longestShort), Subject: visible(subjectText(e), longestPath), Line: visible(e.headline(), longestShort),
	}
	if e.Class == ledger.Vulnerability {
		i.Versions = visible(cmp.Or(e.installed(), "?"), longestShort) + " → " + cmp.Or(visible(e.fixed(), longestShort), "no fix")
	}
	var flags []string
	chip := func(yes bool, flag, text, tone string) {
		if !yes {
			return
		}
		if flag != "" {
			flags = append(flags, flag)
		}
		if text != "" {
			i.Chips = append(i.Chips, htmlChip{text, tone})
		}
	}
	chip(e.State == ledger.Open, "open", "", "")
	chip(e.KEV != nil, "kev", "known to be exploited", "bad")
	chip(e.KEV != nil && e.KEV.Ransomware, "", "by ransomware", "bad")
	chip(e.overdue, "overdue", "overdue since "+day(e.due), "bad")
	chip(!e.overdue && !e.due.IsZero(), "", "due "+day(e.due), "")
	chip(e.change == "new", "new", "new", "warn")
	chip(e.change == "reopened", "new", "came back", "warn")
	chip(e.change == "fix available", "", "has a fix now", "warn")
	chip(len(e.Fixed) > 0, "fix", "", "")
	chip(e.Unseen, "", "not seen this time", "warn")
	chip(e.State != ledger.Open, "decided", visible(stateWord(e.State), longestShort), "good")
	i.Flags = strings.Join(flags, " ")

	say := func(name, text string) {
		if text != "" {
			i.Paragraphs = append(i.Paragraphs, htmlParagraph{name, text})
		}
	}
	say("Why here", visible(e.Why, longestText))
	say("What to do", prose(e.remedy(), longestText))
	say("Decided", visible(e.decision(), longestText))
	if e.Class == ledger.Misconfiguration {
		say("Check", visible(e.Title, longestText))
	} else if e.Message != e.headline() {
		say("", prose(e.Message, longestText))
	}
	say("Found", visible(e.Match, longestText))
	if e.Class == ledger.Misconfiguration {
		say("Resource", visible(e.Resource, longestName))
	}
	if e.Class == ledger.Vulnerability || len(e.Paths) > 1 {
		say("Places", placesText(e))
	}
	say("Seen", seenText(e))
	say("Rated", ratedText(e))
	// A description is long, and folded all the same: a page of thousands has to
	// stay a size that can be mailed.
	say("", prose(e.description(), 600))
	for _, link := range append([]string{e.URL}, e.References...) {
		if link = webLink(link); link != "" && len(i.Links) < htmlLinks && !contains(i.Links, link) {
			i.Links = append(i.Links, link)
		}
	}
	return i
}

// subjectText is the package, or the place.
func subjectText(e *entry) string {
	switch e.Class {
	case ledger.Vulnerability:
		return cmp.Or(e.Package, e.Subject)
	case ledger.License:
		return cmp.Or(e.Package, e.file(), e.Subject)
	}
	return cmp.Or(e.place(), e.Subject)
}

func placesText(e *entry) string {
	const most = 5
	var list []string
	for i, p := range e.Paths {
		if i == most {
			break
		}
		list = append(list, visible(p, longestPath))
	}
	if more := len(e.Paths) - len(list) + e.MorePaths; more > 0 {
		list = append(list, "and "+plural(more, "other", "others"))
	}
	return strings.Join(list, ", ")
}

func seenText(e *entry) string {
	text := joined(" ", "first", day(e.FirstSeen))
	if !e.LastSeen.IsZero() && day(e.LastSeen) != day(e.FirstSeen) {
		text += ", last " + day(e.LastSeen)
	}
	if !e.FixSince.IsZero() {
		text += ", a fix is known since " + day(e.FixSince)
	}
	if e.Reopened > 0 {
		text += ", came back " + plural(e.Reopened, "time", "times")
	}
	return text
}

func ratedText(e *entry) string {
	text := ""
	if e.SeveritySource != "" {
		text = severityWord(e.Severity) + " by " + visible(e.SeveritySource, longestShort)
	}
	if e.CVSS != nil && e.CVSS.Score > 0 {
		text = joined("; ", text, fmt.Sprintf("CVSS %.1f", e.CVSS.Score)+visible(joined(" ", wordIf(e.CVSS.Source != "", " by"), e.CVSS.Source), longestShort))
	}
	if e.EPSS != nil {
		text = joined("; ", text, fmt.Sprintf("EPSS %.1f %%", 100*e.EPSS.Score))
	}
	if e.KEV != nil {
		text = joined("; ", text, joined(" ", "in KEV since", day(e.KEV.Added)))
		if !e.KEV.Due.IsZero() {
			text += ", to be fixed by " + day(e.KEV.Due)
		}
	}
	return text
}

func wordIf(yes bool, word string) string {
	if yes {
		return word
	}
	return ""
}
