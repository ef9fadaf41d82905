package manifest

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/mobileops/mobileops/internal/finding"
)

// ownAccount is what people read where RunAs is "".
const ownAccount = "an account of its own"

// places is a list of places that a plugin may reach, and how that is told.
type places struct {
	kind    string
	list    []string
	may     string // before a place: "may connect to"
	beneath bool   // a place holds everything beneath it
}

func (p *Permissions) places() []places {
	return []places{
		{"network", p.Network, "may connect to", false},
		{"unix", p.Unix, "may use the socket", false},
		{"read", p.Read, "may read", true},
		{"write", p.Write, "may change", true},
		{"exec", p.Exec, "may run", true},
	}
}

func (l *places) line(s string) Line {
	path, isReference := strings.CutPrefix(s, ConfigPrefix)
	switch {
	case isReference:
		return Line{l.kind, s, l.may + " what " + path + " in its configuration names"}
	case s == "/":
		return Line{l.kind, s, l.may + " everything on the host" + grave(l.kind, s)}
	}
	return Line{l.kind, s, l.may + " " + s + grave(l.kind, s)}
}

// covered tells whether one of old has a place in it.
func (l *places) covered(old []string, s string) bool {
	if contains(old, s) {
		return true
	}
	if !l.beneath || strings.HasPrefix(s, ConfigPrefix) {
		return false
	}
	for _, o := range old {
		if strings.HasPrefix(o, "/") && strings.HasPrefix(s, strings.TrimSuffix(o, "/")+"/") {
			return true
		}
	}
	return false
}

// chosen is a place that a reference leads to while the admin sets nothing.
type chosen struct{ kind, reference, value string }

// defaults are the places that references lead to by the defaults of the
// configuration.
func (m *Manifest) defaults() []chosen {
	var out []chosen
	for _, l := range m.Permissions.places() {
		for _, s := range l.list {
			if path, ok := strings.CutPrefix(s, ConfigPrefix); ok {
				for _, v := range m.Config.defaultsOf(path) {
					out = append(out, chosen{l.kind, s, v})
				}
			}
		}
	}
	return out
}

func (c chosen) line() Line {
	path := strings.TrimPrefix(c.reference, ConfigPrefix)
	word := ""
	if place, err := resolving(c.kind)(c.value); err == nil {
		word = grave(c.kind, place)
	}
	return Line{c.kind, c.reference + " = " + c.value, path + " in its configuration is " + c.value + " unless it is set" + word}
}

// limit is how much a plugin may use of something.
type limit struct {
	kind    string
	n       int64
	none    bool // 0 is without a limit
	format  func(int64) string
	meaning string // with %s for the amount
}

func (p *Permissions) limits() []limit {
	number := func(n int64) string { return strconv.FormatInt(n, 10) }
	return []limit{
		{"memory", p.Memory, false, formatSize, "may use %s of memory"},
		{"cpu", int64(p.CPU), true, func(n int64) string { return formatDuration(time.Duration(n)) }, "may use %s of processor time in one call"},
		{"processes", int64(p.Processes), false, number, "may have %s processes at a time"},
		{"files", int64(p.Files), false, number, "may have %s files open at a time"},
		{"file_size", p.FileSize, false, formatSize, "may write files of up to %s"},
	}
}

func (l limit) unlimited() bool { return l.none && l.n == 0 }

// exceeds tells whether l is more than another limit of its kind.
func (l limit) exceeds(other limit) bool {
	if l.unlimited() || other.unlimited() {
		return l.unlimited() && !other.unlimited()
	}
	return l.n > other.n
}

func (l limit) String() string {
	if l.unlimited() {
		return "no limit"
	}
	return l.format(l.n)
}

func (l limit) line() Line {
	if l.unlimited() {
		return Line{l.kind, l.String(), "may use any amount of processor time"}
	}
	return Line{l.kind, l.String(), fmt.Sprintf(l.meaning, l.String())}
}

func (p *Permissions) runAs() Line {
	switch p.RunAs {
	case "":
		return Line{"run_as", ownAccount, "runs as a user who owns nothing else"}
	case RunAsRoot:
		return Line{"run_as", p.RunAs, "runs as root"}
	}
	return Line{"run_as", p.RunAs, "runs as the user " + p.RunAs}
}

func findingsLine(right string, from []string) Line {
	switch {
	case right == RightReport:
		return Line{"findings", right, "may report findings"}
	case from == nil:
		return Line{"findings", right, "may read all findings"}
	}
	return Line{"findings", right, "may read findings of " + strings.Join(from, ", ")}
}

func auditLine(right string) Line {
	return Line{"audit", right, "may read who did what on this host"}
}

func serviceLine() Line {
	return Line{"service", "yes", "is kept running in the background"}
}

// line tells what a hook is called on.
func (h *Hook) line() Line {
	commands := strings.Join(h.Commands, ", ")
	l := Line{Kind: "hooks", What: h.On}
	switch h.On {
	case OnFinding:
		l.Meaning = "is called with every finding"
		if h.MinSeverity > finding.Info {
			l.What += " of " + h.MinSeverity.String() + " or worse"
			l.Meaning += " of severity " + h.MinSeverity.String() + " or worse"
		}
		if h.Sources != nil {
			from := strings.Join(h.Sources, ", ")
			l.What += " from " + from
			l.Meaning += " from " + from
		}
	case OnAudit:
		l.Meaning = "is called with every audit record"
	case OnSchedule:
		l.What += " every " + formatDuration(h.Every)
		l.Meaning = "is called every " + formatDuration(h.Every)
	case OnBefore, OnAfter:
		l.What += " " + commands
		l.Meaning = "is called " + h.On + " " + commands
		if h.Refuse {
			l.What += ", may refuse"
			l.Meaning += ", and may keep it from running"
		}
	}
	return l
}

// List tells people everything that a plugin may do: first what reaches out of
// it, then its limits. What it may not do has no line.
func (p Permissions) List() []Line {
	var out []Line
	for _, l := range p.places() {
		for _, s := range l.list {
			out = append(out, l.line(s))
		}
	}
	for _, r := range p.Findings {
		out = append(out, findingsLine(r, p.FindingsFrom))
	}
	for _, r := range p.Audit {
		out = append(out, auditLine(r))
	}
	out = append(out, p.runAs())
	for _, l := range p.limits() {
		out = append(out, l.line())
	}
	return out
}

// List is that of the permissions, and of what the host does for the plugin by
// itself: hooks and a service. A default of the configuration that a permission
// refers to has a line of its own.
func (m *Manifest) List() []Line {
	out := m.Permissions.List()
	for _, d := range slices.Backward(m.defaults()) {
		// Behind the line of the reference, in the order of the list.
		i := slices.IndexFunc(out, func(l Line) bool { return l.Kind == d.kind && l.What == d.reference })
		out = slices.Insert(out, i+1, d.line())
	}
	if m.Service != nil {
		out = append(out, serviceLine())
	}
	for i := range m.Hooks {
		out = append(out, m.Hooks[i].line())
	}
	return out
}
