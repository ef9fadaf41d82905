package export

import (
	"bufio"
	"cmp"
	"encoding/xml"
	"io"
	"strconv"
	"strings"

	"github.com/mobileops/mobileops/internal/finding/export"
	"github.com/mobileops/mobileops/internal/scan/ledger"
)

// JUnit writes one test suite for each thing that was looked for, and one test
// case for each item. What is open is a failure; what is waived, not affected or expected
// is skipped, with the reason; what was resolved passes. A suite without items
// has one case that passes, because CI servers take a report without cases for
// a broken run. What could not be looked at are errors of a suite of its own:
// such a run is never a success.
//
// Sources: the Jenkins JUnit schema.
func JUnit(w io.Writer, d *Document) error {
	entries := d.entries()
	var suites []junitSuite
	for _, class := range d.classes(entries) {
		suites = append(suites, junitSuiteOf(classWord(class), ofClass(entries, class)))
	}
	if s, ok := junitProblems(d); ok {
		suites = append(suites, s)
	}
	var tests, failures, errors int
	for i := range suites {
		tests, failures, errors = tests+len(suites[i].cases), failures+suites[i].failures, errors+suites[i].errors
	}
	buf := bufio.NewWriterSize(w, 64<<10)
	x := export.XML{Writer: buf}
	_, _ = buf.WriteString(xml.Header)
	x.Open("", "testsuites", false, "name", joined(" ", "mobileops scan", visible(d.Asset.Name, longestName)), "tests", strconv.Itoa(tests),
		"failures", strconv.Itoa(failures), "errors", strconv.Itoa(errors), "time", seconds(d))
	for i := range suites {
		s := &suites[i]
		x.Open("  ", "testsuite", false, "name", s.name, "tests", strconv.Itoa(len(s.cases)), "failures", strconv.Itoa(s.failures), "errors", strconv.Itoa(s.errors),
			"skipped", strconv.Itoa(s.skipped), "timestamp", d.Started.UTC().Format("2006-01-02T15:04:05"), "hostname", visible(d.Host, longestName))
		for j := range s.cases {
			s.cases[j].write(x)
		}
		x.Close("  ", "testsuite")
	}
	x.Close("", "testsuites")
	return buf.Flush()
}

func seconds(d *Document) string {
	if d.Scanned == nil {
		return "0"
	}
	return strconv.FormatFloat(d.Scanned.Stats.Took.Seconds(), 'f', 3, 64)
}

type junitSuite struct {
	name                      string
	cases                     []junitCase
	failures, errors, skipped int
}

type junitCase struct {
	name, class   string
	outcome       string // "failure", "error", "skipped", "": passed
	word, message string // of a failure or an error
	text          string
}

func junitSuiteOf(name string, entries []*entry) junitSuite {
	s := junitSuite{name: name, cases: make([]junitCase, 0, max(len(entries), 1))}
	if len(entries) == 0 {
		s.cases = append(s.cases, junitCase{name: "no " + name, class: name})
	}
	for _, e := range entries {
		c := junitCase{name: visible(e.name(), longestPath), class: name + "." + visible(joined("/", e.Type, cmp.Or(e.file(), e.Package)), longestPath), text: junitText(e)}
		switch e.State {
		case ledger.Resolved:
		case ledger.Waived, ledger.NotAffected, ledger.Fixed, ledger.Expected:
			c.outcome, c.message = "skipped", visible(e.decision(), longestText)
			s.skipped++
		default:
			word := severityWord(e.Severity)
			c.outcome, c.word, c.message = "failure", word, word+": "+visible(e.headline(), longestShort)
			s.failures++
		}
		s.cases = append(s.cases, c)
	}
	return s
}

// junitProblems is the suite of what could not be looked at.
func junitProblems(d *Document) (s junitSuite, ok bool) {
	s.name = "completeness"
	for _, p := range d.problems() {
		kind := visible(string(p.Kind), longestShort)
		s.cases = append(s.cases, junitCase{name: visible(cmp.Or(p.Path, string(p.Kind)), longestPath), class: s.name + "." + kind,
			outcome: "error", word: kind, message: visible(joined(": ", p.Path, p.Detail), longestText), text: visible(p.Detail, longestText)})
	}
	s.errors = len(s.cases)
	return s, len(s.cases) > 0
}

// junitText is the body of a test case: everything a person needs to act.
func junitText(e *entry) string {
	var lines []string
	line := func(name, value string) {
		if value != "" {
			lines = append(lines, name+": "+visible(value, longestText))
		}
	}
	line("key", e.Key.String())
	line("severity", severityWord(e.Severity))
	line("state", joined(", ", stateWord(e.State), e.change))
	line("title", e.Title)
	line("message", e.Message)
	line("why", e.Why)
	line("package", joined(" ", e.Package, e.installed()))
	line("place", e.place())
	line("found", e.Match)
	line("remedy", e.remedy())
	line("first seen", stamp(e.FirstSeen))
	line("fix available since", stamp(e.FixSince))
	line("due", stamp(e.due))
	if e.overdue {
		line("overdue", "yes")
	}
	line("decision", e.decision())
	line("see", e.URL)
	return strings.Join(lines, "\n")
}

func (c *junitCase) write(x export.XML) {
	attrs := []string{"name", c.name, "classname", c.class, "time", "0"}
	if c.outcome == "" && c.text == "" {
		x.Open("    ", "testcase", true, attrs...)
		return
	}
	x.Open("    ", "testcase", false, attrs...)
	switch c.outcome {
	case "skipped":
		x.Text("      ", "skipped", c.message)
		x.Text("      ", "system-out", c.text)
	case "failure", "error":
		x.Text("      ", c.outcome, c.text, "type", c.word, "message", c.message)
	default:
		x.Text("      ", "system-out", c.text)
	}
	x.Close("    ", "testcase")
}
