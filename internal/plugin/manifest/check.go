package manifest

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/mobileops/mobileops/internal/document"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/finding"
)

// How much a manifest may have.
const (
	maxSummary     = 80 // characters, of everything with a summary
	maxDescription = 16 << 10
	maxText        = 512
	maxCommands    = 64
	maxFlags       = 64
	maxArgs        = 64
	maxArg         = 1024
	maxWords       = 256
	maxExamples    = 16
	maxHooks       = 64
	maxHookItems   = 64
)

// Bounds of times.
const (
	minTimeout     = 100 * time.Millisecond
	maxStart       = 5 * time.Minute // ready_timeout, stop_timeout
	minWatchdog    = time.Second
	maxWatchdog    = time.Hour
	maxHookTimeout = time.Hour
	maxWaitTimeout = 10 * time.Second // OnBefore, OnAfter: a command waits for them
	minEvery       = time.Second
	maxEvery       = 31 * 24 * time.Hour
)

var errSeverity = errors.New("is not info, low, medium, high or critical")

// Check says everything that is wrong with a manifest but for what only a
// package or a product can tell. Its error wraps a *document.Error without lines,
// and is of kind failure.Untrustworthy.
func (m *Manifest) Check() error { return collect(m.check) }

// CheckPackaged is Check, and that the files are listed: a package without is
// none.
func (m *Manifest) CheckPackaged() error {
	return collect(func(bad report) {
		m.check(bad)
		if len(m.Files) == 0 {
			bad("files", "is missing: the manifest of a package lists its files (mobileops plugin pack writes them)")
		}
	})
}

// CheckAgainst says whether the plugin's name is one of the product's nouns, or
// another name that it may not take.
func (m *Manifest) CheckAgainst(reserved []string) error {
	return collect(func(bad report) {
		if slices.Contains(reserved, m.Name) {
			bad("name", "%s is a command of mobileops; a plugin needs another name", quote(m.Name))
		}
	})
}

func collect(check func(report)) error {
	e := &document.Error{File: FileName}
	check(func(where, format string, args ...any) {
		e.Add(document.Place{}, "%s", problemAt(where, format, args))
	})
	return e.Result(failure.Untrustworthy)
}

func (m *Manifest) check(bad report) {
	if m.Schema != Schema {
		bad("schema", "is %s; this version of mobileops reads %s", quote(m.Schema), Schema)
	}
	switch {
	case m.Name == "":
		bad("name", "is missing")
	case !isName(m.Name) || len(m.Name) < minName || len(m.Name) > maxName:
		bad("name", "%s is not %d to %d lower-case letters and digits, with single hyphens between", quote(m.Name), minName, maxName)
	}
	if m.Version == "" {
		bad("version", "is missing; the first one could be 0.1.0")
	} else if _, err := parseVersion(m.Version); err != nil {
		bad("version", "%s %v", quote(m.Version), err)
	}
	if m.MinVersion != "" {
		if _, err := parseVersion(m.MinVersion); err != nil {
			bad("min_version", "%s %v", quote(m.MinVersion), err)
		}
	}
	checkSummary(bad, "summary", m.Summary, true)
	if len(m.Description) > maxDescription {
		bad("description", "has %d bytes; %d are allowed", len(m.Description), maxDescription)
	} else if err := checkText(m.Description, true); err != nil {
		bad("description", "has %v", err)
	}
	if m.Licence == "" {
		bad("licence", "is missing; write an SPDX expression such as Apache-2.0")
	} else if checkLine(bad, "licence", m.Licence, maxText) {
		if err := checkLicence(m.Licence); err != nil {
			bad("licence", "%s %v", quote(m.Licence), err)
		}
	}
	if m.Homepage != "" && checkLine(bad, "homepage", m.Homepage, maxText) {
		if u, err := url.Parse(m.Homepage); err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Hostname() == "" || u.User != nil {
			bad("homepage", "%s is not a URL such as https://example.org/plugin", quote(m.Homepage))
		}
	}
	m.checkCommands(bad)
	if m.Service != nil {
		m.Service.check(bad)
	}
	m.checkHooks(bad)
	m.Config.check(bad)
	m.Permissions.check(bad, m.Config)
	m.checkFiles(bad)
	if len(m.Commands) == 0 && m.Service == nil && len(m.Hooks) == 0 {
		bad("", "a plugin needs commands, a service or hooks: this one does nothing")
	}
}

// checkLine reports what a text of one line must not have.
func checkLine(bad report, where, s string, most int) bool {
	if n := utf8.RuneCountInString(s); n > most {
		bad(where, "has %d characters; %d are allowed", n, most)
		return false
	}
	if err := checkText(s, false); err != nil {
		bad(where, "has %v; it is one line", err)
		return false
	}
	return true
}

func checkSummary(bad report, where, s string, required bool) {
	switch {
	case required && strings.TrimSpace(s) == "":
		bad(where, "is missing; one line of at most %d characters", maxSummary)
	case s != "":
		checkLine(bad, where, s, maxSummary)
	}
}

// count reports a list that is too long.
func count(bad report, where string, n, most int) bool {
	if n > most {
		bad(where, "has %d items; %d are allowed", n, most)
	}
	return n <= most
}

// checkLines reports what is wrong with a list of texts that each are one line.
func checkLines(bad report, where string, list []string, most, each int) {
	if !count(bad, where, len(list), most) {
		return
	}
	for i, s := range list {
		checkLine(bad, fmt.Sprintf("%s[%d]", where, i), s, each)
	}
}

// checkDistinct reports items that are there twice, and gives each other one
// to f.
func checkDistinct(bad report, where string, list []string, most int, f func(where, s string)) {
	if !count(bad, where, len(list), most) {
		return
	}
	first := make(map[string]bool, len(list))
	for i, s := range list {
		at := fmt.Sprintf("%s[%d]", where, i)
		if first[s] {
			bad(at, "%s is there twice", quote(s))
			continue
		}
		first[s] = true
		f(at, s)
	}
}

// checkChoice reports a word that is none of those known.
func checkChoice(bad report, where, s string, known ...string) bool {
	switch {
	case slices.Contains(known, s):
		return true
	case s == "":
		bad(where, "is missing (one of %s)", strings.Join(known, ", "))
	default:
		bad(where, "is %s; it is one of %s%s", quote(s), strings.Join(known, ", "), meant(s, known))
	}
	return false
}

// meant is document.DidYouMean of words that the message has already.
func meant(s string, known []string) string {
	if hint := document.DidYouMean(s, known); strings.HasPrefix(hint, ";") {
		return hint
	}
	return ""
}

func checkDuration(bad report, where string, d, least, most time.Duration) {
	if d < least || d > most {
		bad(where, "is %s; it is from %s to %s", formatDuration(d), formatDuration(least), formatDuration(most))
	}
}

func (s *Service) check(bad report) {
	checkLines(bad, "service.args", s.Args, maxArgs, maxArg)
	checkDuration(bad, "service.ready_timeout", s.ReadyTimeout, minTimeout, maxStart)
	checkDuration(bad, "service.stop_timeout", s.StopTimeout, minTimeout, maxStart)
	checkChoice(bad, "service.restart", s.Restart, RestartAlways, RestartOnFailure, RestartNever)
	if s.Watchdog != 0 {
		checkDuration(bad, "service.watchdog", s.Watchdog, minWatchdog, maxWatchdog)
	}
}

func (m *Manifest) checkHooks(bad report) {
	if !count(bad, "hooks", len(m.Hooks), maxHooks) {
		return
	}
	for i := range m.Hooks {
		h, where := &m.Hooks[i], fmt.Sprintf("hooks[%d]", i)
		if h.check(bad, where) {
			h.checkRights(bad, where, &m.Permissions)
		}
	}
}

// check reports what is wrong with a hook by itself, and returns whether it is
// one that is known.
func (h *Hook) check(bad report, where string) bool {
	if !checkChoice(bad, join(where, "on"), h.On, OnFinding, OnAudit, OnSchedule, OnBefore, OnAfter) {
		return false
	}
	checkLines(bad, join(where, "args"), h.Args, maxArgs, maxArg)
	waits := h.On == OnBefore || h.On == OnAfter
	most := maxHookTimeout
	if waits {
		most = maxWaitTimeout
	}
	checkDuration(bad, join(where, "timeout"), h.Timeout, minTimeout, most)

	for _, only := range []struct {
		key   string
		there bool
		of    []string
	}{
		{"min_severity", h.MinSeverity != finding.Info, []string{OnFinding}},
		{"sources", h.Sources != nil, []string{OnFinding}},
		{"every", h.Every != 0, []string{OnSchedule}},
		{"commands", h.Commands != nil, []string{OnBefore, OnAfter}},
		{"refuse", h.Refuse, []string{OnBefore}},
	} {
		if only.there && !slices.Contains(only.of, h.On) {
			bad(join(where, only.key), "is for hooks on %s; this one is on %s", strings.Join(only.of, " and "), h.On)
		}
	}
	switch {
	case h.On == OnSchedule:
		checkDuration(bad, join(where, "every"), h.Every, minEvery, maxEvery)
	case waits && len(h.Commands) == 0:
		bad(join(where, "commands"), `is missing; write those that it is for, such as ["update apply"]`)
	}
	if h.MinSeverity < finding.Info || h.MinSeverity > finding.Critical {
		bad(join(where, "min_severity"), "%v", errSeverity)
	}
	if h.Sources != nil && len(h.Sources) == 0 {
		bad(join(where, "sources"), "is empty; leave it out for all that it may read")
	}
	checkSources(bad, join(where, "sources"), h.Sources)
	checkDistinct(bad, join(where, "commands"), h.Commands, maxHookItems, func(at, s string) {
		if !isCommandPath(s) {
			bad(at, `%s is not a command of mobileops, such as "update apply"`, quote(s))
			return
		}
		if noun, _, _ := strings.Cut(s, " "); Unhooked(noun) {
			bad(at, "%s never has hooks, and neither has any command of %s: those are how a plugin is put right", quote(s), noun)
		}
	})
	return true
}

// checkRights reports a hook that would be given what the plugin may not read:
// the permissions alone tell what a plugin sees.
func (h *Hook) checkRights(bad report, where string, p *Permissions) {
	switch {
	case h.On == OnFinding && !slices.Contains(p.Findings, RightRead):
		bad(join(where, "on"), "a hook on findings is given them: the plugin needs permissions: {findings: [read]}")
	case h.On == OnFinding && p.FindingsFrom != nil:
		for i, s := range h.Sources {
			if !slices.Contains(p.FindingsFrom, s) {
				bad(fmt.Sprintf("%s.sources[%d]", where, i), "%s is not among permissions.findings_from, so nothing would come", quote(s))
			}
		}
	case h.On == OnAudit && !slices.Contains(p.Audit, RightRead):
		bad(join(where, "on"), "a hook on audit records is given them: the plugin needs permissions: {audit: [read]}")
	}
}

func checkSources(bad report, where string, list []string) {
	checkDistinct(bad, where, list, maxHookItems, func(at, s string) {
		if !isSource(s) || len(s) > maxSource {
			bad(at, `%s is not a source of findings, such as integrity or plugin/NAME`, quote(s))
		}
	})
}
