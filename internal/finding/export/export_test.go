package export

import (
	"bytes"
	"encoding/base64"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/mobileops/mobileops/internal/finding"
)

var (
	t0   = time.Date(2026, 3, 1, 3, 0, 0, 0, time.UTC)
	meta = Meta{Version: "1.2.3", Host: "web-1", Started: t0}
)

// Every kind of byte that hosts put into names, and what formats trip over.
var hostile = []string{
	"/tmp/new\nline", "/tmp/cr\r\nlf", "/tmp/tab\tpipe|equals=back\\slash\\", "/tmp/\x1b[31mred", "/tmp/\u009b31mred\x7f\U000e0001", "/tmp/\u202egnp.exe", "/tmp/bad\xff\xfeutf8\xc3",
	`/tmp/"quoted",comma;semi`, "=cmd|' /C calc'!A0", "  =1+1", "+1", "-1", "@SUM(1)", "＝1", "x;=1", `";=1`, "<script>&amp;]]>", "/tmp/nul\x00end",
	"/tmp/\u2028\u2029\ufffe\uffff\ufeff\U000e0001", "[a](http://example.org/) {0}", "  spaces  ", "a cs1=b |c| \\=", "%41%%", "/", "'", "\u0085\u00a0", "/\ufffd",
}

func records(n int) []*finding.Record {
	list := make([]*finding.Record, n)
	for i := range list {
		f := finding.Finding{Source: "integrity", Rule: "file-changed", Severity: finding.Severity(i % 5), Title: "content changed",
			Subject: fmt.Sprintf("/etc/file %d", i), Evidence: map[string]string{"old": "1", "new": "2"}, Remediation: "reinstall it",
			References: []string{"https://example.org/a b"}, Tags: []string{"fs", "fs"}, Observed: t0}
		list[i] = &finding.Record{Finding: f, Fingerprint: f.Fingerprint(), FirstSeen: t0, LastSeen: t0.Add(time.Hour), TimesSeen: uint64(i + 1),
			State: finding.States()[i%4]}
		if list[i].State == finding.Waived {
			list[i].Owner, list[i].Reason, list[i].WaivedUntil = "bob", "vendor", t0.AddDate(0, 3, 0)
		}
	}
	return list
}

// hostileRecords has each hostile text in every field at once.
func hostileRecords() []*finding.Record {
	var list []*finding.Record
	for i, h := range hostile {
		f := finding.Finding{Source: h, Rule: h, Severity: finding.Severity(i % 5), Title: h, Subject: h, Evidence: map[string]string{h: h, "k": h},
			Remediation: h, References: []string{h, h}, Tags: []string{h, h}, Observed: t0}
		for _, s := range finding.States() {
			list = append(list, &finding.Record{Finding: f, Fingerprint: f.Fingerprint(), FirstSeen: t0, LastSeen: t0, TimesSeen: 1,
				State: s, Owner: h, Reason: h, WaivedUntil: t0, Scopes: []string{h}})
		}
	}
	return list
}

func encode(t *testing.T, format Format, list []*finding.Record) []byte {
	t.Helper()
	var b bytes.Buffer
	m := meta
	if err := Write(&b, format, m, slices.Values(list)); err != nil {
		t.Fatalf("%s: %v", format, err)
	}
	return b.Bytes()
}

func TestVisibleIsHarmlessAndReversible(t *testing.T) {
	for _, h := range hostile {
		v := Visible(h)
		for _, r := range v {
			if !strconv.IsPrint(r) || unicode.Is(unicode.Bidi_Control, r) {
				t.Errorf("%q shows %U", h, r)
			}
		}
		if back := invisible(t, v); back != h {
			t.Errorf("%q became %q, then %q", h, v, back)
		}
	}
}

// invisible undoes Visible as its documentation says.
func invisible(t *testing.T, v string) string {
	t.Helper()
	s, err := strconv.Unquote(`"` + strings.ReplaceAll(v, `"`, `\"`) + `"`)
	if err != nil {
		t.Errorf("%q: %v", v, err)
	}
	return s
}

func TestNoFormatWritesRawControlCharacters(t *testing.T) {
	for _, format := range Formats() {
		out := encode(t, format, hostileRecords())
		if !utf8.Valid(out) {
			t.Errorf("%s: invalid UTF-8", format)
		}
		for _, r := range string(out) {
			if r != '\n' && r != '\r' && !strconv.IsPrint(r) {
				t.Errorf("%s: raw %U", format, r)
				break
			}
		}
	}
}

func TestJSONLines(t *testing.T) {
	list := append(records(8), hostileRecords()...)
	lines := bytes.Split(bytes.TrimSuffix(encode(t, JSONLinesFormat, list), []byte("\n")), []byte("\n"))
	if len(lines) != len(list) {
		t.Fatalf("%d lines for %d records", len(lines), len(list))
	}
	for i, line := range lines {
		var r finding.Record
		if err := json.Unmarshal(line, &r); err != nil {
			t.Fatal(err)
		}
		if r.Subject != list[i].Subject || r.State != list[i].State || r.Fingerprint != list[i].Fingerprint {
			t.Errorf("%s is not %+v", line, list[i])
		}
	}
}

func TestCSV(t *testing.T) {
	list := append(records(8), hostileRecords()...)
	out := encode(t, CSVFormat, list)
	if n := bytes.Count(out, []byte("\r\n")); n != len(list)+1 || bytes.Count(out, []byte("\n")) != n {
		t.Errorf("%d CRLF for %d records and a header", n, len(list))
	}
	rows, err := csv.NewReader(bytes.NewReader(out)).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(rows[0], CSVHeader()) || len(rows) != len(list)+1 {
		t.Fatalf("%d rows, header %q", len(rows), rows[0])
	}
	column := func(name string) int { return slices.Index(CSVHeader(), name) }
	for i, row := range rows[1:] {
		for c, field := range row {
			// What Excel, LibreOffice and Sheets take for a formula, in locales
			// that separate by comma and by semicolon.
			for _, part := range strings.Split(field, ";") {
				if part = strings.TrimLeft(part, ` "`); part != "" && strings.ContainsAny(part[:1], "=+-@\t\r") || strings.HasPrefix(part, "＝") {
					t.Errorf("row %d, %s: formula in %q", i, CSVHeader()[c], field)
				}
			}
		}
		subject := row[column("subject")]
		if b := row[column("subject_b64")]; b != "" {
			exact, err := base64.StdEncoding.DecodeString(b)
			if err != nil {
				t.Fatal(err)
			}
			subject = string(exact)
		}
		if subject != list[i].Subject {
			t.Errorf("row %d: subject %q, want %q", i, subject, list[i].Subject)
		}
	}
	if got, want := strings.Join(rows[3], "|"), list[2].ID()+"|medium|waived|integrity|file-changed|/etc/file 2|content changed|2026-03-01T03:00:00Z|2026-03-01T04:00:00Z|3|bob|vendor|2026-06-01T03:00:00Z|fs fs|https://example.org/a b|reinstall it|{\"new\":\"2\",\"old\":\"1\"}|"+list[2].Fingerprint.String()+"|"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// failing fails after n bytes, as a full disk or a closed pipe does.
type failing struct{ n int }

var errFull = errors.New("no space left")

func (f *failing) Write(b []byte) (int, error) {
	if len(b) > f.n {
		return f.n, errFull
	}
	f.n -= len(b)
	return len(b), nil
}

func TestWriteErrorsAreReported(t *testing.T) {
	list := records(2000)
	for _, format := range Formats() {
		for _, n := range []int{0, 10, 5000, 100000} {
			if err := Write(&failing{n}, format, meta, slices.Values(list)); !errors.Is(err, errFull) {
				t.Errorf("%s after %d bytes: %v", format, n, err)
			}
		}
	}
	if err := Write(io.Discard, "pdf", meta, slices.Values(list)); err == nil {
		t.Error("an unknown format was written")
	}
}

func TestSameInputSameBytes(t *testing.T) {
	for _, format := range Formats() {
		a, b := encode(t, format, hostileRecords()), encode(t, format, hostileRecords())
		if !bytes.Equal(a, b) {
			t.Errorf("%s differs from one run to the next", format)
		}
	}
}

func BenchmarkFormats(b *testing.B) {
	list := records(20000)
	for _, format := range Formats() {
		b.Run(string(format), func(b *testing.B) {
			for b.Loop() {
				if err := Write(io.Discard, format, meta, slices.Values(list)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
