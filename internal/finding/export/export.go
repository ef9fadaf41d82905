// Package export writes stored findings in the formats that other tools read:
// SARIF 2.1.0 for code scanning and vulnerability managers, JUnit XML for CI
// servers, CEF for SIEMs, CSV for spreadsheets, JSON lines for scripts.
//
// Each encoder takes a sequence of records and writes as it goes, so its memory
// does not grow with their number. A sequence may be ranged over more than
// once and must give the same records each time.
//
// Text in a finding is chosen by whoever could name a file on the host. Where
// a format cannot hold some byte, or would make a command of it, the text is
// written with the escapes described at Visible, never dropped and never raw.
//
// Sources: OASIS SARIF 2.1.0 errata 01; the Jenkins JUnit schema; Micro Focus
// "Implementing ArcSight Common Event Format", version 25; RFC 4180; OWASP,
// "CSV Injection".
package export

import (
	"fmt"
	"io"
	"iter"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/finding"
)

// Meta is what the formats say about the run that wrote them.
type Meta struct {
	Version string    // of mobileops
	Host    string    // whose findings they are
	Started time.Time // of the export; the same input with the same Meta gives the same bytes
}

// Records is a sequence of records that can be ranged over again.
type Records = iter.Seq[*finding.Record]

// Format names an export format.
type Format string

// The formats.
const (
	SARIFFormat     Format = "sarif"
	JUnitFormat     Format = "junit"
	CEFFormat       Format = "cef"
	CSVFormat       Format = "csv"
	JSONLinesFormat Format = "jsonl"
)

// Formats returns all formats in the order in which help lists them.
func Formats() []Format {
	return []Format{JSONLinesFormat, SARIFFormat, JUnitFormat, CEFFormat, CSVFormat}
}

// Write writes the records to w in the named format.
func Write(w io.Writer, format Format, m Meta, records Records) error {
	switch format {
	case SARIFFormat:
		return SARIF(w, m, records)
	case JUnitFormat:
		return JUnit(w, m, records)
	case CEFFormat:
		return CEF(w, m, records)
	case CSVFormat:
		return CSV(w, records)
	case JSONLinesFormat:
		return JSONLines(w, records)
	}
	return failure.Errorf(failure.Usage, "unknown export format %q", format)
}

// Visible returns s with everything a reader could be misled by written out:
// invalid UTF-8 and control characters as \xNN, \n, \r, \t, other characters
// that do not show (bidi marks, line separators, exotic spaces) as \uNNNN or
// \UNNNNNNNN, and the backslash itself doubled. These are the escapes of a Go
// string literal, and strconv.Unquote turns them back (quote " first).
func Visible(s string) string {
	i := 0
	for i < len(s) && s[i] >= ' ' && s[i] < 0x7f && s[i] != '\\' {
		i++
	}
	if i == len(s) {
		return s
	}
	b := append(make([]byte, 0, len(s)+16), s[:i]...)
	for i < len(s) {
		r, size := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			b = append(b, '\\', 'x', hexDigits[s[i]>>4], hexDigits[s[i]&15])
		case r == '\\':
			b = append(b, `\\`...)
		case r == '\n':
			b = append(b, `\n`...)
		case r == '\r':
			b = append(b, `\r`...)
		case r == '\t':
			b = append(b, `\t`...)
		case strconv.IsPrint(r):
			b = append(b, s[i:i+size]...)
		case r < utf8.RuneSelf:
			b = append(b, '\\', 'x', hexDigits[r>>4], hexDigits[r&15])
		case r < 0x10000:
			b = fmt.Appendf(b, `\u%04x`, r)
		default:
			b = fmt.Appendf(b, `\U%08x`, r)
		}
		i += size
	}
	return string(b)
}

const hexDigits = "0123456789abcdef"

// clip cuts s to at most limit bytes without cutting within a character.
func clip(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	for limit > 0 && !utf8.RuneStart(s[limit]) {
		limit--
	}
	return s[:limit]
}

// ruleID names a rule across all sources.
func ruleID(r *finding.Record) string { return Visible(r.Source) + "/" + Visible(r.Rule) }

// decision says in words what was decided about the finding, or returns "".
func decision(r *finding.Record) string {
	switch r.State {
	case finding.Waived:
		return fmt.Sprintf("waived by %s until %s: %s", Visible(r.Owner), r.WaivedUntil.Format(time.DateOnly), Visible(r.Reason))
	case finding.Acknowledged:
		return "acknowledged: " + Visible(r.Reason)
	}
	return ""
}

// visibleAll is Visible for each of list.
func visibleAll(list []string) []string {
	out := make([]string, len(list))
	for i, s := range list {
		out[i] = Visible(s)
	}
	return out
}

// errWriter remembers the first error, so that encoders need not ask after
// every write.
type errWriter struct {
	w   io.Writer
	err error
}

func (e *errWriter) Write(b []byte) (int, error) {
	if e.err != nil {
		return 0, e.err
	}
	n, err := e.w.Write(b)
	e.err = err
	return n, err
}

func (e *errWriter) print(parts ...string) {
	for _, p := range parts {
		_, _ = io.WriteString(e, p)
	}
}

// evidence returns the keys and values of the evidence as text, one "key:
// value" for each, sorted by key.
func evidence(r *finding.Record) []string {
	var lines []string
	for _, k := range sortedKeys(r.Evidence) {
		lines = append(lines, Visible(k)+": "+Visible(r.Evidence[k]))
	}
	return lines
}

// trimmedJoin joins the texts that are not empty.
func trimmedJoin(sep string, texts ...string) string {
	var kept []string
	for _, t := range texts {
		if t != "" {
			kept = append(kept, t)
		}
	}
	return strings.Join(kept, sep)
}
