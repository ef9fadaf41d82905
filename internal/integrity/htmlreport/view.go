package htmlreport

import (
	"cmp"
	"fmt"
	"html/template"
	"maps"
	"slices"

	"github.com/mobileops/mobileops/internal/finding"
	"github.com/mobileops/mobileops/internal/integrity"
	"github.com/mobileops/mobileops/pkg/filehash"
	"golang.org/x/sys/unix"
)

// view is what the template sees: texts that are ready to be shown.
type view struct {
	Style     template.CSS
	StyleHash string

	Host, Tree, Mode, Tool, ID, Digest string
	Root, Policy, BaselineName         string
	BaselineID                         string
	When, Taken, Written, OldestRead   moment
	Lasted, Read                       string
	Files                              string // "" when the report is not about files
	Runs                               string // "" for one

	Verdict   verdict
	Tiles     []tile
	Trend     *trend
	Groups    []group
	Left      string // how many changes are left out; "": none
	Drift     []row
	LeftDrift string    // how many of them are left out
	Unknown   []problem // what of the host beside files could not be asked
	Problems  []problem
	MoreLost  string // how many problems are left out
	Mounts    []string
	Trust     []assurance
	// TrustSince is when that was looked at, if later than the report.
	TrustSince moment
	Footing    string // what the classes rest on
	Classed    bool
}

type verdict struct {
	Tone  string // bad, warn or good: a class of the style, beside the word
	Word  string
	Lines []string
}

type tile struct{ Tone, Number, Label string }

// group are the changes of one class.
type group struct {
	ID, Title, About string
	Total, Left      string
	Rows             []row
	Packages         []updated // of package updates
	MorePackages     string
}

// updated is a package that was updated, with its changes.
type updated struct {
	Name, Count string
	Rows        []row
	Left        string
}

type row struct {
	Severity, Kind, Path, From string
	Package, Reason            string
	Values                     []value
	Now                        string // of what was added: how it was found
}

type value struct{ Name, Old, New string }

type problem struct{ Kind, Path, Reason string }

// title and meaning of a class on the page.
func classText(c integrity.Class) (id, title, about string) {
	switch c {
	case integrity.Suspicious:
		return "suspicious", "Suspicious", "What an intruder leaves: a replaced program, a new program that runs with its owner's rights, a stranger among the system's programs. Look at these first."
	case integrity.PackageModified:
		return "package-modified", "Package files that were modified", "Files that belong to an installed package and are no longer what the package put there."
	case integrity.Conffile:
		return "conffile", "Configuration of packages", "Configuration files that a package brought and that an administrator may change."
	case integrity.Unowned:
		return "unowned", "Owned by no package", "Files that no installed package knows."
	case integrity.PackageUpdate:
		return "package-update", "Package updates", "Files that are as the package database records them: packages were installed, updated or removed. Who is root can write that database too."
	}
	return "changes", "Changes", "These changes were not sorted by whose they are, because no package database was found."
}

func newView(p *Page) *view {
	r, limits := p.Report, p.Limits.filled()
	b := &r.Baseline
	v := &view{
		Host: visible(p.Host, longestValue), Tree: visible(r.Tree, longestPath), Mode: p.Entry.Mode(), Tool: visible(p.Tool, longestValue), ID: p.Entry.ID,
		Root: b.Root.String(), Policy: visible(b.PolicyName, longestValue), BaselineName: b.Name, BaselineID: b.ID,
		When: at(r.Started), Taken: at(b.Finished), Written: at(p.Now), OldestRead: at(r.Summary.OldestRead),
		Lasted: lasted(r.Elapsed), Files: count(r.Summary.Files), Read: fmt.Sprintf("%s read again, %s", plural(int(r.Summary.Rehashed), "file", "files"), size(r.Summary.Bytes)),
	}
	if !ofFiles(r.Aspects) {
		v.Files = ""
	}
	if p.Entry.FileBytes > 0 {
		v.Digest = p.Entry.Digest.String()
	}
	if p.Entry.Runs > 1 {
		v.Runs = fmt.Sprintf("%s runs of this kind in a row found the same, the first on %s.", count(int64(p.Entry.Runs)), at(p.Entry.Started).Text)
	}
	v.groups(r.Changes, limits)
	v.drift(r, limits)
	for i, q := range r.Problems {
		if i == limits.Problems {
			v.MoreLost = count(int64(len(r.Problems) - i))
			break
		}
		v.Problems = append(v.Problems, problem{string(q.Kind), visible(string(q.Path), longestPath), visible(q.Reason, longestValue)})
	}
	for _, m := range r.Summary.Mounts {
		v.Mounts = append(v.Mounts, visible(string(m), longestPath))
	}
	v.Trust, v.TrustSince = assurances(p)
	v.Footing = footing(r.Ownership)
	v.verdict(p)
	v.tiles(p)
	v.Trend = newTrend(alike(p.Past, &p.Entry), p.Entry.ID, limits.Past)
	return v
}

// groups sorts the changes by class, in the order in which they need attention,
// and leaves out what is beyond the limits.
func (v *view) groups(changes []integrity.Change, limits Limits) {
	byClass := map[integrity.Class][]*integrity.Change{}
	for i := range changes {
		c := changes[i].Class
		if !slices.Contains(integrity.Classes(), c) {
			c = ""
		}
		byClass[c] = append(byClass[c], &changes[i])
	}
	room, left := limits.Changes, 0
	for _, class := range append(integrity.Classes(), "") {
		list := byClass[class]
		if len(list) == 0 {
			continue
		}
		g := group{Total: plural(len(list), "change", "changes")}
		g.ID, g.Title, g.About = classText(class)
		if class == "" && len(byClass) > 1 {
			g.Title, g.About = "Not sorted", "It is not known whose these changes are."
		}
		v.Classed = v.Classed || class != ""
		shown := 0
		if class == integrity.PackageUpdate {
			shown = g.updates(list, limits, room)
		} else {
			shown = min(len(list), room)
			g.Rows = rows(list[:shown])
		}
		if n := len(list) - shown; n > 0 {
			g.Left = count(int64(n))
			left += n
		}
		room -= shown
		v.Groups = append(v.Groups, g)
	}
	if left > 0 {
		v.Left = fmt.Sprintf("This page has %s of %s changes, the worst of each part.", count(int64(len(changes)-left)), count(int64(len(changes))))
	}
}

// updates folds the changes of package updates by package. It returns how many
// changes are shown.
func (g *group) updates(list []*integrity.Change, limits Limits, room int) (shown int) {
	byPackage := map[string][]*integrity.Change{}
	for _, c := range list {
		byPackage[c.Package] = append(byPackage[c.Package], c)
	}
	names := make([]string, 0, len(byPackage))
	for name := range byPackage {
		names = append(names, name)
	}
	slices.Sort(names)
	for i, name := range names {
		if i == limits.Packages {
			g.MorePackages = plural(len(names)-i, "more package", "more packages")
			break
		}
		of := byPackage[name]
		// Every package gets a few of its files, however many come before it.
		n := min(len(of), max(room-shown, 0), max(10, room/len(names)))
		u := updated{Name: visible(name, longestValue), Count: plural(len(of), "file", "files"), Rows: rows(of[:n])}
		if name == "" {
			u.Name = "(package not known)"
		}
		if n < len(of) {
			u.Left = count(int64(len(of) - n))
		}
		shown += n
		g.Packages = append(g.Packages, u)
	}
	g.Total += " in " + plural(len(names), "package", "packages")
	return shown
}

func rows(list []*integrity.Change) []row {
	out := make([]row, 0, len(list))
	for _, c := range list {
		r := row{
			Severity: c.Severity.String(), Kind: string(c.Kind), Path: visible(string(c.Path), longestPath),
			Package: visible(c.Package, longestValue), Reason: visible(c.Reason, longestValue), Values: values(c.Attributes),
		}
		if c.From != nil {
			r.From = visible(string(c.From), longestPath)
		}
		if c.Kind == integrity.Added && c.Now != nil {
			r.Now = found(&c.Now.Info)
			if c.Now.Content == filehash.Hashed {
				r.Values = append(r.Values, value{Name: "content", New: c.Now.Sum.String()})
			}
			if len(c.Now.Target) > 0 {
				r.Values = append(r.Values, value{Name: "target", New: visible(string(c.Now.Target), longestValue)})
			}
		}
		out = append(out, r)
	}
	return out
}

// found says what a new entry is: "regular file, mode 0644, owner 0:0, 12 bytes".
func found(i *filehash.Info) string {
	kind := map[uint32]string{
		unix.S_IFREG: "regular file", unix.S_IFDIR: "directory", unix.S_IFLNK: "symbolic link", unix.S_IFIFO: "FIFO",
		unix.S_IFSOCK: "socket", unix.S_IFCHR: "character device", unix.S_IFBLK: "block device",
	}[i.Type()]
	text := fmt.Sprintf("%s, mode %04o, owner %d:%d", cmp.Or(kind, "entry"), i.Mode&^uint32(unix.S_IFMT), i.UID, i.GID)
	if i.Type() == unix.S_IFREG {
		text += ", " + size(i.Size)
	}
	return text
}

func values(list []integrity.Attribute) []value {
	out := make([]value, 0, len(list))
	for _, a := range list {
		out = append(out, value{visible(a.Name, longestValue), visible(a.Old, longestValue), visible(a.New, longestValue)})
	}
	return out
}

// drift fills in what the host is beside its files.
func (v *view) drift(r *integrity.Report, limits Limits) {
	for i := range r.Drift {
		if i == limits.Changes {
			v.LeftDrift = count(int64(len(r.Drift) - i))
			break
		}
		d := &r.Drift[i]
		f := d.Fact()
		out := row{Severity: d.Severity.String(), Kind: string(d.Kind), Path: visible(d.ID(), longestPath)} // as integrity accept takes it
		for _, a := range d.Attributes {
			out.Values = append(out.Values, value{visible(a.Name, longestValue), visible(a.Old, longestValue), visible(a.New, longestValue)})
		}
		if len(d.Attributes) == 0 {
			for _, name := range slices.Sorted(maps.Keys(f.Attributes)) {
				out.Values = append(out.Values, value{Name: visible(name, longestValue), New: visible(f.Attributes[name], longestValue)})
			}
		}
		v.Drift = append(v.Drift, out)
	}
	for _, u := range r.Unknown {
		v.Unknown = append(v.Unknown, problem{Path: visible(u.Source, longestValue), Reason: visible(u.Reason, longestValue)})
	}
}

// numbers are how many changes there are of each class.
func numbers(r *integrity.Report) map[integrity.Class]int {
	n := map[integrity.Class]int{}
	for i := range r.Changes {
		n[r.Changes[i].Class]++
	}
	return n
}

// verdict says in words what the report means.
func (v *view) verdict(p *Page) {
	r, n := p.Report, numbers(p.Report)
	total, lost := len(r.Changes)+len(p.Report.Drift), len(r.Problems)
	since := " since the baseline of " + at(r.Baseline.Finished).Text + "."
	d := &v.Verdict
	switch {
	case n[integrity.Suspicious] > 0:
		d.Tone, d.Word = "bad", "Needs attention now"
		d.Lines = append(d.Lines, plural(n[integrity.Suspicious], "change is", "changes are")+" of the kind that an intruder leaves, of "+plural(total, "change", "changes")+" in all"+since)
	case total > 0 && total == n[integrity.PackageUpdate]:
		d.Tone, d.Word = "warn", "Package updates only"
		d.Lines = append(d.Lines, plural(total, "file has", "files have")+" changed as the package database records it"+since)
	case total > 0:
		d.Tone, d.Word = "warn", "Changes were found"
		if worst(p) >= finding.High {
			d.Tone = "bad"
		}
		d.Lines = append(d.Lines, plural(total, "change", "changes")+since)
		if u := n[integrity.PackageUpdate]; u > 0 {
			d.Lines = append(d.Lines, plural(u, "of them is", "of them are")+" as the package database records it.")
		}
	case lost > 0:
		d.Tone, d.Word = "warn", "No changes in what could be read"
		d.Lines = append(d.Lines, "Nothing that could be read has changed"+since)
	default:
		d.Tone, d.Word = "good", "No changes"
		d.Lines = append(d.Lines, "Everything that was compared is as it was"+since)
	}
	if lost > 0 {
		d.Lines = append(d.Lines, "The report is incomplete: "+plural(lost, "entry", "entries")+" could not be read or compared, and may hide more.")
	}
	if slices.ContainsFunc(v.Trust, func(a assurance) bool { return a.Tone == "bad" }) {
		d.Tone = "bad"
		d.Lines = append(d.Lines, "The baseline itself cannot be trusted, see below: what this report calls unchanged may have been changed.")
	}
}

// worst is the highest severity.
func worst(p *Page) (s finding.Severity) {
	for i := range p.Report.Changes {
		s = max(s, p.Report.Changes[i].Severity)
	}
	for _, d := range p.Report.Drift {
		s = max(s, d.Severity)
	}
	return s
}

func (v *view) tiles(p *Page) {
	r, n := p.Report, numbers(p.Report)
	add := func(tone string, number int, label string) {
		if number == 0 {
			tone = ""
		}
		v.Tiles = append(v.Tiles, tile{tone, count(int64(number)), label})
	}
	if v.Classed {
		add("bad", n[integrity.Suspicious], "suspicious")
		add("warn", n[integrity.PackageModified], "package files modified")
		add("warn", n[integrity.Conffile], "configuration files")
		add("warn", n[integrity.Unowned], "owned by no package")
		add("info", n[integrity.PackageUpdate], "by package updates")
		if n[""] > 0 {
			add("warn", n[""], "not sorted")
		}
	} else if v.Files != "" {
		s := &r.Summary
		add("warn", int(s.Changed), "changed")
		add("warn", int(s.Added), "added")
		add("warn", int(s.Removed), "removed")
		add("warn", int(s.Moved), "moved")
	}
	if len(p.Report.Drift) > 0 || v.Files == "" {
		add("warn", len(p.Report.Drift), "beside files")
	}
	add("warn", len(r.Problems), "not read")
	if v.Files != "" {
		v.Tiles = append(v.Tiles, tile{"", v.Files, "files compared"})
	}
}
