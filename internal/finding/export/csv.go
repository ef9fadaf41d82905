package export

import (
	"bufio"
	"encoding/base64"
	"encoding/json"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// CSVHeader returns the names of the columns that CSV writes.
func CSVHeader() []string {
	return []string{"id", "severity", "state", "source", "rule", "subject", "title", "first_seen", "last_seen", "times_seen",
		"owner", "reason", "waived_until", "tags", "references", "remediation", "evidence", "fingerprint", "subject_b64"}
}

// CSV writes a table as RFC 4180 has it: a header, CRLF after each line, every
// field in quotes. Times are RFC 3339 in UTC, lists are joined by spaces,
// evidence is a JSON object. Fields have no line breaks or control characters
// (see Visible). One that a spreadsheet would take for a formula gets an
// apostrophe in front. Where that changed the subject, subject_b64 has its
// exact bytes.
func CSV(w io.Writer, records Records) error {
	out := &errWriter{w: w}
	buf := bufio.NewWriter(out)
	line := make([]byte, 0, 1024)
	write := func(fields []string) {
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
		_, _ = buf.Write(line) // errWriter and Flush keep the error
	}
	write(CSVHeader())
	for r := range records {
		if out.err != nil {
			break
		}
		ev := ""
		if len(r.Evidence) > 0 {
			visible := make(map[string]string, len(r.Evidence))
			for k, v := range r.Evidence {
				visible[Visible(k)] = Visible(v)
			}
			b, err := json.Marshal(visible)
			if err != nil {
				return err
			}
			ev = string(b)
		}
		subject := Cell(r.Subject)
		exact := ""
		if subject != r.Subject {
			exact = base64.StdEncoding.EncodeToString([]byte(r.Subject))
		}
		write([]string{r.ID(), r.Severity.String(), r.State.String(), Cell(r.Source), Cell(r.Rule), subject, Cell(r.Title),
			stamp(r.FirstSeen), stamp(r.LastSeen), strconv.FormatUint(r.TimesSeen, 10),
			Cell(r.Owner), Cell(r.Reason), stamp(r.WaivedUntil), Cell(strings.Join(r.Tags, " ")), Cell(strings.Join(r.References, " ")),
			Cell(r.Remediation), neutral(ev), r.Fingerprint.String(), exact})
	}
	return buf.Flush()
}

// Cell makes any text a harmless field of CSV.
func Cell(s string) string { return neutral(Visible(s)) }

// neutral puts an apostrophe before whatever a spreadsheet could take for the
// start of a formula: = + - @ and their full-width forms, at the start of the
// field, or after a semicolon, which separates fields in some locales.
func neutral(s string) string {
	if !strings.ContainsAny(s, "=+-@＝＋－＠") {
		return s
	}
	var b strings.Builder
	start := true
	for _, r := range s {
		switch {
		case start && strings.ContainsRune("=+-@＝＋－＠", r):
			b.WriteByte('\'')
			start = false
		case r == ';':
			start = true
		case r != ' ' && r != '"':
			start = false
		}
		b.WriteRune(r)
	}
	return b.String()
}

// stamp formats a time, and the zero time as nothing.
func stamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}

func sortedKeys(m map[string]string) []string { return slices.Sorted(maps.Keys(m)) }
