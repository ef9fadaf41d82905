package export

import (
	"bufio"
	"encoding/base64"
	"io"
	"strconv"
	"strings"

	"github.com/mobileops/mobileops/internal/finding/export"
)

// CSVHeader returns the names of the columns that CSV writes.
func CSVHeader() []string {
	return []string{"asset", "class", "id", "severity", "state", "change", "package", "type", "installed", "fixed", "place", "title", "why",
		"cvss", "epss", "kev", "first_seen", "fix_since", "last_seen", "resolved", "due", "overdue", "decision", "remedy", "url", "key", "subject_b64"}
}

// CSV writes a table as RFC 4180 has it: a header, CRLF after each line, every
// field in quotes, items in order of urgency. Times are RFC 3339 in UTC, lists are
// joined by commas. Fields have no line breaks or control characters. One that a
// spreadsheet would take for a formula gets an apostrophe in front. Where that
// changed the subject (the package or the path), subject_b64 has its exact bytes.
// What could not be looked at follows the items, in rows of class "problem".
//
// Source: RFC 4180; OWASP, "CSV Injection".
func CSV(w io.Writer, d *Document) error {
	buf := bufio.NewWriterSize(w, 64<<10)
	line := make([]byte, 0, 1024)
	write := func(fields []string) error {
		line = line[:0]
		for i, f := range fields {
			if i > 0 {
				line = append(line, ',')
			}
			line = append(line, '"')
			line = append(line, strings.ReplaceAll(f, `"`, `""`)...)
			line = append(line, '"')
		}
		line = append(line, "\r\n"...)
		_, err := buf.Write(line)
		return err
	}
	if err := write(CSVHeader()); err != nil {
		return err
	}
	number := func(f float64, ok bool) string {
		if !ok {
			return ""
		}
		return strconv.FormatFloat(f, 'g', -1, 64)
	}
	for _, e := range d.entries() {
		cvss, epss, kev, overdue, exact := "", "", "no", "", ""
		if e.CVSS != nil {
			cvss = number(e.CVSS.Score, e.CVSS.Score > 0)
		}
		if e.EPSS != nil {
			epss = number(e.EPSS.Score, true)
		}
		if e.KEV != nil {
			kev = "yes"
		}
		if !e.due.IsZero() {
			overdue = strconv.FormatBool(e.overdue)
		}
		if export.Cell(e.Subject) != e.Subject {
			exact = base64.StdEncoding.EncodeToString([]byte(e.Subject))
		}
		if err := write([]string{export.Cell(d.Asset.ID), export.Cell(string(e.Class)), export.Cell(e.ID), severityWord(e.Severity), export.Cell(string(e.State)), e.change, export.Cell(e.Package), export.Cell(e.Type),
			export.Cell(e.installed()), export.Cell(e.fixed()), export.Cell(e.place()), export.Cell(e.headline()), export.Cell(e.Why), cvss, epss, kev,
			stamp(e.FirstSeen), stamp(e.FixSince), stamp(e.LastSeen), stamp(e.ResolvedAt), stamp(e.due), overdue, export.Cell(e.decision()), export.Cell(e.remedy()), export.Cell(e.URL),
			e.Key.String(), exact}); err != nil {
			return err
		}
	}
	for _, p := range d.problems() {
		row := make([]string, len(CSVHeader()))
		row[0], row[1], row[2], row[3], row[10], row[11] = export.Cell(d.Asset.ID), "problem", export.Cell(string(p.Kind)), "unknown", export.Cell(p.Path), export.Cell(p.Detail)
		if err := write(row); err != nil {
			return err
		}
	}
	return buf.Flush()
}
