package export

import (
	"bufio"
	"encoding/xml"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/mobileops/mobileops/internal/finding"
)

// JUnit writes one test suite for each source and one test case for each
// record. Open findings from low severity on are failures; waived and
// acknowledged ones are skipped, with the reason; resolved ones and those of
// severity info pass. Because CI servers take a report without a test case for
// a broken run, an empty sequence gives one case, named "no findings", that
// passes.
func JUnit(w io.Writer, m Meta, records Records) error {
	type counts struct{ tests, failures, skipped int }
	var total counts
	sources := make(map[string]*counts)
	for r := range records {
		c := sources[r.Source]
		if c == nil {
			c = new(counts)
			sources[r.Source] = c
		}
		c.tests++
		switch junitOutcome(r) {
		case failed:
			c.failures++
		case skipped:
			c.skipped++
		}
	}
	for _, c := range sources {
		total.tests, total.failures = total.tests+c.tests, total.failures+c.failures
	}

	out := &errWriter{w: w}
	buf := bufio.NewWriter(out)
	x := XML{Writer: buf}
	_, _ = buf.WriteString(xml.Header)
	suite := func(name string, c counts) {
		x.Open("  ", "testsuite", false, "name", name, "tests", strconv.Itoa(c.tests), "failures", strconv.Itoa(c.failures),
			"errors", "0", "skipped", strconv.Itoa(c.skipped), "timestamp", m.Started.UTC().Format("2006-01-02T15:04:05"), "hostname", Visible(m.Host))
	}
	if total.tests == 0 {
		total.tests = 1
	}
	x.Open("", "testsuites", false, "name", "mobileops", "tests", strconv.Itoa(total.tests), "failures", strconv.Itoa(total.failures), "errors", "0")
	if len(sources) == 0 {
		suite("mobileops", total)
		x.Open("    ", "testcase", true, "name", "no findings", "classname", "mobileops")
		x.Close("  ", "testsuite")
	}
	names := make([]string, 0, len(sources))
	for name := range sources {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		suite(Visible(name), *sources[name])
		for r := range records {
			if out.err != nil {
				break
			}
			if r.Source == name {
				testcase(x, r)
			}
		}
		x.Close("  ", "testsuite")
	}
	x.Close("", "testsuites")
	return buf.Flush()
}

// outcome is what a test case says of a finding.
type outcome int

const (
	passed outcome = iota
	failed
	skipped
)

func junitOutcome(r *finding.Record) outcome {
	switch {
	case r.State == finding.Waived || r.State == finding.Acknowledged:
		return skipped
	case r.State == finding.Resolved || r.Severity == finding.Info:
		return passed
	}
	return failed
}

func testcase(x XML, r *finding.Record) {
	name := trimmedJoin(" ", Visible(r.Rule), Visible(r.Subject))
	x.Open("    ", "testcase", false, "name", name, "classname", Visible(r.Source)+"."+Visible(r.Rule), "time", "0")
	text := junitText(r)
	switch junitOutcome(r) {
	case skipped:
		x.Text("      ", "skipped", decision(r))
		x.Text("      ", "system-out", text)
	case failed:
		x.Text("      ", "failure", text, "type", r.Severity.String(), "message", trimmedJoin(": ", r.Severity.String(), Visible(r.Title)))
	case passed:
		x.Text("      ", "system-out", text)
	}
	x.Close("    ", "testcase")
}

// junitText is the body of a test case: everything a person needs to act.
func junitText(r *finding.Record) string {
	lines := []string{
		"id: " + r.ID(),
		"severity: " + r.Severity.String(),
		"state: " + r.State.String(),
		"subject: " + Visible(r.Subject),
		"title: " + Visible(r.Title),
		"first seen: " + r.FirstSeen.UTC().Format(time.RFC3339),
		"last seen: " + r.LastSeen.UTC().Format(time.RFC3339),
	}
	lines = append(lines, evidence(r)...)
	if r.Remediation != "" {
		lines = append(lines, "remediation: "+Visible(r.Remediation))
	}
	for _, ref := range r.References {
		lines = append(lines, "see: "+Visible(ref))
	}
	return strings.Join(lines, "\n")
}
