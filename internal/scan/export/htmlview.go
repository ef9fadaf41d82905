package export

import (
	"cmp"
	"fmt"
	"html/template"
	"slices"
	"strings"
	"time"

	"github.com/mobileops/mobileops/internal/scan/ledger"
	"github.com/mobileops/mobileops/internal/scan/protocol"
)

// htmlView is what the template is filled with. All texts in it are visible ones.
type htmlView struct {
	Style                 template.CSS
	Script                template.JS
	StyleHash, ScriptHash string

	Kind, Name, Asset string
	When, Written     moment
	Lasted, System    string
	Target            []string
	Looked, NotLooked string
	Database          string
	Verdict           htmlVerdict
	Tiles             []htmlTile
	Since             *htmlSince
	Severities        []string
	Classes           []htmlClass
	Problems          []htmlProblem
	Lost, MoreLost    string
	Done, Skipped     string
	Tool              string
}

// moment is a time for people and for programs.
type moment struct{ Text, ISO string }

func at(t time.Time) moment {
	if t.IsZero() {
		return moment{"never", ""}
	}
	return moment{t.UTC().Format("2 January 2006, 15:04:05 UTC"), t.UTC().Format(time.RFC3339)}
}

type htmlVerdict struct {
	Word, Tone string
	Lines      []string
}

type htmlTile struct{ Number, Label, Tone string }

type htmlSince struct {
	Title  string
	Groups []htmlGroup
}

type htmlGroup struct {
	Title, Total string
	Open         bool
	Names        []htmlName
	Left         string
}

type htmlName struct{ Text, Link, Severity string }

type htmlClass struct {
	ID, Title, Total, About string
	Notes                   []string
	Verdicts                []htmlLicense
	Items                   []htmlItem
}

type htmlLicense struct{ License, Verdict, Tone, Packages, Examples string }

type htmlItem struct {
	Anchor, Severity, Flags, DueISO, FirstISO string
	N                                         int
	ID, Subject, Versions, Line               string
	Chips                                     []htmlChip
	Paragraphs                                []htmlParagraph
	Links                                     []string
}

type htmlChip struct{ Text, Tone string }

type htmlParagraph struct{ Name, Text string }

type htmlProblem struct{ Kind, Path, Detail string }

// htmlTally counts what is to be acted on.
type htmlTally struct {
	open, overdue, kev, urgent, decided, fixable int
	severity                                     map[ledger.Severity]int
}

func tally(entries []*entry) htmlTally {
	t := htmlTally{severity: make(map[ledger.Severity]int)}
	for _, e := range entries {
		switch e.State {
		case ledger.Resolved:
		case ledger.Open:
			t.open++
			t.severity[known(e.Severity)]++
			if e.overdue {
				t.overdue++
			}
			if e.KEV != nil {
				t.kev++
			}
			if e.overdue || e.KEV != nil || e.Severity == ledger.Critical {
				t.urgent++
			}
			if len(e.Fixed) > 0 {
				t.fixable++
			}
		default:
			t.decided++
		}
	}
	return t
}

func newView(d *Document) *htmlView {
	entries := d.entries()
	t := tally(entries)
	v := &htmlView{
		Kind: kindText(d), Name: visible(cmp.Or(d.Asset.Name, d.Asset.ID), longestName), Asset: visible(d.Asset.ID, longestName),
		When: at(d.Started), Written: at(d.Now), System: visible(d.system(), longestName), Database: databaseText(d),
		Tool: visible(joined(" ", "mobileops", d.Version), longestShort),
	}
	if d.Host != "" {
		v.Tool += " on " + visible(d.Host, longestName)
	}
	if s := d.Scanned; s != nil {
		v.Lasted = lasted(s.Stats.Took)
		v.Target = targetTexts(d)
		v.Done = joined(", ", plural(int(s.Stats.Files), "file", "files"), plural(d.packages(), "package", "packages"), visible(s.Engine, longestShort))
		v.Skipped = skippedText(s.Skipped)
	}
	var looked, not []string
	for _, c := range ledger.Classes() {
		if d.looked(c.Scanner()) {
			looked = append(looked, classWord(c))
		} else {
			not = append(not, classWord(c))
		}
	}
	v.Looked, v.NotLooked = cmp.Or(strings.Join(looked, ", "), "nothing"), strings.Join(not, ", ")
	v.Verdict = verdictOf(d, t)
	v.Tiles = tilesOf(d, t)
	for _, s := range ledger.Severities() {
		v.Severities = append(v.Severities, severityWord(s))
	}
	shown := v.addClasses(d, entries)
	v.Since = sinceOf(d, shown)
	problems := d.problems()
	for i, p := range problems {
		if i == htmlProblems {
			v.MoreLost = count(len(problems) - i)
			break
		}
		v.Problems = append(v.Problems, htmlProblem{visible(string(p.Kind), longestShort), visible(cmp.Or(p.Path, "everything"), longestPath), visible(p.Detail, longestText)})
	}
	v.Lost = count(len(problems))
	return v
}

func kindText(d *Document) string {
	if d.Asset.Kind == protocol.Rootfs && strings.HasPrefix(d.Asset.ID, "host:") {
		return "Scan of a host"
	}
	switch d.Asset.Kind {
	case protocol.Filesystem:
		return "Scan of a directory"
	case protocol.Rootfs:
		return "Scan of an installed system"
	case protocol.Image:
		return "Scan of an image"
	case protocol.SBOM:
		return "Scan of an SBOM"
	case protocol.Repository:
		return "Scan of a repository"
	}
	return "Scan"
}

func targetTexts(d *Document) (list []string) {
	s := d.Scanned
	add := func(text string) {
		if text != "" && !slices.Contains(list, text) && text != d.Asset.Name {
			list = append(list, visible(text, longestPath))
		}
	}
	add(s.Target)
	if s.Image != nil {
		for _, tag := range s.Image.Tags[:min(len(s.Image.Tags), 4)] {
			add(tag)
		}
		add(s.Image.ID)
	}
	if c := s.Commit; c != nil {
		text := joined(" ", c.Branch, clip(c.Hash, 40))
		if c.Dirty && text != "" {
			text += " with changes that are not committed"
		}
		add(text)
	}
	return list
}

func databaseText(d *Document) string {
	b := d.Database
	if b == nil {
		return ""
	}
	text := joined(", ", visible(b.Name, longestName), "built "+cmp.Or(day(b.Built), "at an unknown time"))
	if !b.Built.IsZero() {
		text += ", " + age(d.Now.Sub(b.Built)) + " old"
	}
	list := func(name string, t time.Time) string {
		if t.IsZero() {
			return "no " + name + " list"
		}
		return name + " of " + day(t)
	}
	return joined("; ", text, list("KEV", b.KEV)+", "+list("EPSS", b.EPSS))
}

func skippedText(s protocol.Skipped) string {
	part := func(n int64, what string) string {
		if n == 0 {
			return ""
		}
		return count(int(n)) + " " + what
	}
	return joined(", ", part(s.Binary, "binary files (for secrets)"), part(s.Pattern, "by pattern"), part(s.Small, "too small to hold a secret"), part(s.Special, "that are no regular files"))
}

// verdictOf says what a reader has to know first.
func verdictOf(d *Document, t htmlTally) htmlVerdict {
	problems := len(d.problems())
	var doubts []string
	if problems > 0 {
		doubts = append(doubts, "Incomplete: "+plural(problems, "thing", "things")+" could not be looked at, and nothing is known of what is in there.")
	}
	if b := d.Database; b != nil && b.Stale {
		text := "The vulnerability database is " + age(d.Now.Sub(b.Built)) + " old"
		if b.MaxAge > 0 {
			text += ", more than the " + age(b.MaxAge) + " that are allowed"
		}
		doubts = append(doubts, text+": what became known since is not in this report.")
	}
	if d.Scanned != nil && d.Scanned.OS != nil && d.Scanned.OS.EndOfLife {
		doubts = append(doubts, visible(d.system(), longestName)+" gets no more security updates: that none is missing says nothing.")
	}
	for _, f := range d.Filters {
		doubts = append(doubts, "By request, the report shows: "+visible(f, longestShort)+".")
	}
	if len(d.Scanners) == 0 {
		doubts = append(doubts, "Nothing was looked for.")
	}
	v := htmlVerdict{Lines: doubts}
	add := func(n int, one, many string) {
		if n > 0 {
			v.Lines = append(v.Lines, plural(n, one, many))
		}
	}
	switch {
	case t.urgent > 0:
		v.Word, v.Tone = plural(t.urgent, "needs", "need")+" attention now", "bad"
	case t.open > 0:
		v.Word, v.Tone = count(t.open)+" found, none of it urgent", "warn"
	case len(doubts) > 0:
		v.Word, v.Tone = "Nothing found, with reservations", "warn"
	default:
		v.Word, v.Tone = "Nothing found", "good"
	}
	if problems > 0 && t.open > 0 {
		v.Word += ", and the scan is incomplete"
	}
	add(t.kev, "is known to be exploited by attackers.", "are known to be exploited by attackers.")
	add(t.overdue, "is overdue.", "are overdue.")
	add(t.severity[ledger.Unknown], "has a severity that nobody knows; it may be anything up to critical.", "have a severity that nobody knows; they may be anything up to critical.")
	if t.fixable > 0 {
		v.Lines = append(v.Lines, fmt.Sprintf("A fixed version is there for %s of %s.", count(t.fixable), count(t.open)))
	}
	return v
}

func tilesOf(d *Document, t htmlTally) (list []htmlTile) {
	for _, s := range ledger.Severities() {
		tone := ""
		switch {
		case t.severity[s] == 0:
		case s == ledger.Critical || s == ledger.High:
			tone = "bad"
		case s == ledger.Unknown || s == ledger.Medium:
			tone = "warn"
		}
		list = append(list, htmlTile{count(t.severity[s]), severityWord(s), tone})
	}
	add := func(n int, label, tone string, always bool) {
		if n == 0 {
			tone = ""
		}
		if n > 0 || always {
			list = append(list, htmlTile{count(n), label, tone})
		}
	}
	add(t.kev, "known to be exploited", "bad", true)
	add(t.overdue, "overdue", "bad", true)
	if c := d.Changes; c != nil && !c.Previous.IsZero() {
		add(len(c.New), "new", "warn", true)
		add(len(c.Reopened), "came back", "warn", false)
		add(len(c.Resolved), "resolved", "", true)
		add(c.Unseen, "could not be seen this time", "warn", false)
	}
	add(t.decided, "waived, not affected or expected", "", false)
	add(d.packages(), "packages", "", false)
	return list
}

// sinceOf lists what changed since the scan before. shown has the anchors of what
// is on the page.
func sinceOf(d *Document, shown map[ledger.Key]bool) *htmlSince {
	if d.Changes == nil {
		return nil
	}
	if d.Changes.Previous.IsZero() {
		return nil
	}
	s := &htmlSince{Title: "Since the scan of " + d.Changes.Previous.UTC().Format("2 January 2006, 15:04 UTC")}
	group := func(title string, list []ledger.Item, open bool) {
		if len(list) == 0 {
			return
		}
		g := htmlGroup{Title: title, Total: count(len(list)), Open: open && len(list) <= 20}
		for i := range list {
			if i == htmlNames {
				g.Left = count(len(list) - i)
				break
			}
			e := entry{Item: &list[i]}
			n := htmlName{Text: visible(e.name(), longestPath), Severity: severityWord(e.Severity)}
			if shown[e.Key] {
				n.Link = anchor(e.Key)
			}
			g.Names = append(g.Names, n)
		}
		s.Groups = append(s.Groups, g)
	}
	group("New", d.Changes.New, true)
	group("Came back", d.Changes.Reopened, true)
	group("Have a fixed version now", d.Changes.Fixable, false)
	group("Resolved", d.Changes.Resolved, false)
	return s
}

func anchor(k ledger.Key) string { return "i-" + k.String() }
