package export

import (
	"cmp"
	"strconv"
	"strings"
	"time"

	"github.com/mobileops/mobileops/internal/scan/ledger"
	"github.com/mobileops/mobileops/internal/scan/protocol"
)

// entry is an item of the ledger and what else a report says of it. Texts are as
// they were found, and made harmless where they are written.
type entry struct {
	*ledger.Item
	change  string    // "new", "reopened", "fix available", or "": it is known
	due     time.Time // zero: no deadline
	overdue bool
	// What the worker said, which has more than the ledger keeps; nil: nothing.
	advisory *protocol.Vulnerability
	check    *protocol.Misconfiguration
}

// entries are the items of the document, in order of urgency, those that were
// resolved last.
func (d *Document) entries() []*entry {
	change := make(map[ledger.Key]string)
	var gone []ledger.Item
	if d.Changes != nil {
		for word, list := range map[string][]ledger.Item{"fix available": d.Changes.Fixable, "new": d.Changes.New, "reopened": d.Changes.Reopened} {
			for i := range list {
				if k := list[i].Key; word != "fix available" || change[k] == "" {
					change[k] = word
				}
			}
		}
		// A first scan has nothing but new items, which is no news of any of them.
		if d.Changes.Previous.IsZero() {
			clear(change)
		}
		gone = d.Changes.Resolved
	}
	type name struct{ id, subject string }
	advisories := make(map[name]*protocol.Vulnerability)
	checks := make(map[name]*protocol.Misconfiguration)
	if d.Scanned != nil {
		for i := range d.Scanned.Results {
			r := &d.Scanned.Results[i]
			for j := range r.Vulnerabilities {
				v := &r.Vulnerabilities[j]
				advisories[name{v.ID, v.Package}] = v
			}
			for j := range r.Misconfigurations {
				m := &r.Misconfigurations[j]
				checks[name{m.ID, r.Target}] = m
			}
		}
	}
	list := make([]*entry, 0, len(d.Items)+len(gone))
	seen := make(map[ledger.Key]bool, len(d.Items))
	var last []*entry
	add := func(item *ledger.Item) {
		if seen[item.Key] {
			return
		}
		seen[item.Key] = true
		e := &entry{Item: item, change: change[item.Key]}
		switch item.Class {
		case ledger.Vulnerability:
			e.advisory = advisories[name{item.ID, item.Package}]
		case ledger.Misconfiguration:
			e.check = checks[name{item.ID, e.file()}]
		}
		if item.State == ledger.Resolved {
			last = append(last, e)
			return
		}
		if item.State == ledger.Open {
			e.due = d.Due[item.Key]
			e.overdue = !e.due.IsZero() && e.due.Before(d.Now)
		}
		list = append(list, e)
	}
	for i := range d.Items {
		add(&d.Items[i])
	}
	for i := range gone {
		add(&gone[i])
	}
	return append(list, last...)
}

// file is where the entry is, relative to the target; "" for what has no place of
// its own, such as a package of the system.
func (e *entry) file() string {
	if len(e.Paths) > 0 {
		return e.Paths[0]
	}
	return ""
}

// place is a file and its line, as editors take it.
func (e *entry) place() string {
	p := e.file()
	if p != "" && e.StartLine > 0 {
		p += ":" + strconv.Itoa(e.StartLine)
	}
	return p
}

// name says in a line what the entry is about.
func (e *entry) name() string {
	switch e.Class {
	case ledger.Vulnerability:
		return joined(" in ", e.ID, cmp.Or(e.Package, e.Subject))
	case ledger.License:
		return joined(" of ", e.ID, cmp.Or(e.Package, e.file(), e.Subject))
	}
	return joined(" in ", e.ID, cmp.Or(e.place(), e.Subject))
}

// headline is the title, or what can be said without one.
func (e *entry) headline() string {
	if e.Class == ledger.Misconfiguration {
		return cmp.Or(e.Message, e.Title, e.ID)
	}
	if e.Title != "" {
		return e.Title
	}
	switch e.Class {
	case ledger.Vulnerability:
		return joined(" of ", "a vulnerability", e.Package)
	case ledger.License:
		return cmp.Or(e.Message, "the licence is not allowed")
	}
	return cmp.Or(e.Message, e.ID)
}

// description is the long text about the entry, or "".
func (e *entry) description() string {
	switch {
	case e.advisory != nil:
		return e.advisory.Description
	case e.check != nil:
		return e.check.Description
	}
	return ""
}

func (e *entry) installed() string { return strings.Join(e.Installed, ", ") }
func (e *entry) fixed() string     { return strings.Join(e.Fixed, ", ") }

// remedy says what to do.
func (e *entry) remedy() string {
	switch e.Class {
	case ledger.Vulnerability:
		if len(e.Fixed) > 0 {
			return "Update " + cmp.Or(e.Package, e.Subject) + " from " + cmp.Or(e.installed(), "the installed version") + " to " + e.fixed()
		}
		return joined(": ", "There is no fixed version", statusText(e.Status))
	case ledger.Secret:
		return cmp.Or(e.Resolution, "Make it invalid where it is used, and keep the new one elsewhere")
	}
	return e.Resolution
}

// statusText writes a vendor's status as words.
func statusText(status string) string {
	switch status {
	case "", "affected", "fixed", "unknown":
		return ""
	case "will_not_fix":
		return "the vendor will not make one"
	case "fix_deferred":
		return "the vendor will make one later"
	case "end_of_life":
		return "the release gets no more updates"
	case "under_investigation":
		return "the vendor is looking into it"
	}
	return strings.ReplaceAll(status, "_", " ")
}

// decision says in words what was decided about the entry, or returns "".
func (e *entry) decision() string {
	switch {
	case e.State == ledger.Waived && e.Waiver != nil:
		text := "waived by " + cmp.Or(e.Waiver.Owner, "nobody")
		if !e.Waiver.Until.IsZero() {
			text += " until " + day(e.Waiver.Until)
		}
		return joined(": ", text, e.Waiver.Reason)
	case (e.State == ledger.NotAffected || e.State == ledger.Fixed) && e.VEX != nil:
		text := joined(" according to ", strings.ReplaceAll(e.VEX.Status, "_", " "), e.VEX.Author)
		return joined(": ", text, strings.ReplaceAll(e.VEX.Justification, "_", " "), e.VEX.Impact)
	case e.State == ledger.Expected:
		return joined(": ", stateWord(e.State), e.Expected)
	case e.State == ledger.Waived || e.State == ledger.NotAffected || e.State == ledger.Fixed:
		return stateWord(e.State)
	}
	return ""
}

func stateWord(s ledger.State) string { return strings.ReplaceAll(string(s), "-", " ") }

// severityWord is how severities are written: "unknown" says that nobody knows.
func severityWord(s ledger.Severity) string { return strings.ToLower(string(known(s))) }

// known is the severity, where it is one.
func known(s ledger.Severity) ledger.Severity { return ledger.SeverityOf(string(s)) }

// ofClass returns the entries of a class, in the same order.
func ofClass(list []*entry, class ledger.Class) []*entry {
	var out []*entry
	for _, e := range list {
		if e.Class == class {
			out = append(out, e)
		}
	}
	return out
}

// classWord is what items of a class are called.
func classWord(c ledger.Class) string {
	switch c {
	case ledger.Vulnerability:
		return "vulnerabilities"
	case ledger.Secret:
		return "secrets"
	case ledger.Misconfiguration:
		return "misconfigurations"
	case ledger.License:
		return "licences"
	}
	return string(c)
}

// classes are those that were looked for or found, in the order in which they are
// shown.
func (d *Document) classes(list []*entry) (out []ledger.Class) {
	for _, c := range ledger.Classes() {
		if d.looked(c.Scanner()) || len(ofClass(list, c)) > 0 {
			out = append(out, c)
		}
	}
	return out
}

func (d *Document) looked(s protocol.Scanner) bool {
	for _, have := range d.Scanners {
		if have == s {
			return true
		}
	}
	return false
}
