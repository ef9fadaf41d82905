package export

import (
	"bytes"
	"encoding/base64"
	"encoding/csv"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/scan/ledger"
	"github.com/mobileops/mobileops/internal/scan/protocol"
	"github.com/santhosh-tekuri/jsonschema/v6"
)

var update = flag.Bool("update", false, "write the golden files anew")

var night = time.Date(2026, 11, 22, 3, 0, 0, 0, time.UTC)

// hostile is what somebody may write into a file that is scanned, or call it.
var hostile = []string{
	"<script>document.title='owned'</script>", "<img src=x onerror=\"document.title='owned'\">", "\"><svg onload=\"document.title='owned'\">", "' onmouseover='x",
	"a\nb\tc\rd", "\x1b[31mred\x1b]0;owned\x07", "photo\u202egpj.exe", "bad\xff\xfebytes\xc3", "zero\u200bwidth\u2028\u2029\ufffe\uffff\U000e0001", "nul\x00end",
	"</style></script><script>document.title='owned'</script>", "{{.Host}} {0} {", "<!--", "]]>", "&lt;b&gt;", "javascript:document.title='owned'", "größe-文件-🚀",
	"http://192.0.2.1/pixel.png", "=cmd|' /C calc'!A0", "  =1+1", "@SUM(1)", "＝1", "x;=1", `";=1`, "-1", "+1", "[a](http://example.org/)", "![x](http://example.org/x.png) @root #1",
	"../../etc/passwd", "/etc//../passwd", "a:b/c", "//host/share", "%41%%", "?q#f", "back\\slash\\", " ", "", strings.Repeat("long ", 2000), strings.Repeat("\x01", 3000),
}

func key(n int) (k ledger.Key) {
	copy(k[:], fmt.Sprintf("%016d", n))
	return k
}

// sample has something of everything.
func sample(kind protocol.Kind) *Document {
	day := func(n int) time.Time { return night.AddDate(0, 0, n) }
	d := &Document{
		Asset:   ledger.Asset{ID: "image:registry.example.org/shop/web", Kind: kind, Name: "registry.example.org/shop/web"},
		Version: "1.2.3", Host: "ci-4", Started: night, Now: night.Add(time.Hour), Scanners: protocol.Scanners(),
		Database: &Database{Name: "generation 12", Source: "file:db.tar.gz", Built: day(-2), KEV: day(-1), EPSS: day(-1)},
		Licenses: []LicenseVerdict{{"AGPL-3.0", "deny", 1, []string{"ghost"}}, {"MIT", "allow", 12, []string{"a", "b"}}},
		Due:      map[ledger.Key]time.Time{key(1): day(-3), key(2): day(20)},
		Scanned: &protocol.Report{
			Engine: "trivy 0.72.0", Kind: kind, Target: "/srv/web.tar", OS: &protocol.OS{Family: "debian", Name: "12.11"},
			Image:    &protocol.ImageID{ID: "sha256:0123", Tags: []string{"registry.example.org/shop/web:2.1"}},
			Stats:    protocol.Stats{Files: 12345, Took: 2500 * time.Millisecond},
			Skipped:  protocol.Skipped{Binary: 7},
			Problems: []protocol.Problem{{Kind: protocol.Malformed, Path: "app/package-lock.json", Detail: "line 3: unexpected end"}},
			Results: []protocol.Result{
				{Target: "app/yarn.lock", Class: protocol.ClassLanguage, Type: "yarn", Packages: []protocol.Package{{Name: "lodash", Version: "4.17.20", Relationship: "direct"}}, Vulnerabilities: []protocol.Vulnerability{
					{ID: "CVE-2021-23337", Package: "lodash", Description: "Lodash is vulnerable to command injection.\n\nUse `_.template` with care.", CWE: []string{"CWE-94"}, CVSS: map[string]protocol.CVSS{"nvd": {V3Vector: "CVSS:3.1/AV:N/AC:L/PR:H/UI:N/S:U/C:H/I:H/A:H", V2Vector: "AV:N/AC:L/Au:S/C:P/I:P/A:P"}, "x": {V3Vector: "CVSS:3.1/nonsense"}}}}},
				{Target: "app/Dockerfile", Class: protocol.ClassConfig, Misconfigurations: []protocol.Misconfiguration{{ID: "DS-0002", Description: "Running as root helps attackers."}}},
			},
		},
		Items: []ledger.Item{
			{Key: key(1), Subject: "openssl", State: ledger.Open, FirstSeen: day(-60), LastSeen: night, FixSince: day(-33), Why: "known to be exploited (KEV)", Sighting: ledger.Sighting{
				Class: ledger.Vulnerability, ID: "CVE-2026-1111", Aliases: []string{"DSA-9999-1"}, Type: "debian", Package: "openssl", PURL: "pkg:deb/debian/openssl@3.0.15", Installed: []string{"3.0.15-1~deb12u1"}, Fixed: []string{"3.0.17-1~deb12u2"},
				Severity: ledger.Critical, SeveritySource: "debian", CVSS: &ledger.CVSS{Score: 9.8, Source: "nvd", Vector: "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H"}, EPSS: &ledger.EPSS{Score: 0.94, Percentile: 0.99}, KEV: &ledger.KEV{Added: day(-20), Due: day(-1)},
				Title: "openssl: remote code execution", URL: "https://security-tracker.debian.org/tracker/CVE-2026-1111", References: []string{"https://www.openssl.org/news/1"}}},
			{Key: key(2), Subject: "lodash", State: ledger.Open, FirstSeen: day(-10), LastSeen: night, FixSince: day(-10), Why: "EPSS 3 %", Sighting: ledger.Sighting{
				Class: ledger.Vulnerability, ID: "CVE-2021-23337", Type: "yarn", Package: "lodash", Installed: []string{"4.17.20"}, Fixed: []string{"4.17.21"}, Paths: []string{"app/yarn.lock", "admin/yarn.lock"}, MorePaths: 2, Severity: ledger.High, CVSS: &ledger.CVSS{Score: 7.2, Source: "nvd"}}},
			{Key: key(3), Subject: "gcc-12", State: ledger.Open, FirstSeen: night, LastSeen: night, Why: "severity unknown", Sighting: ledger.Sighting{
				Class: ledger.Vulnerability, ID: "CVE-2026-3333", Type: "debian", Package: "gcc-12", Installed: []string{"12.2"}, Status: "will_not_fix", Severity: ledger.Unknown}},
			{Key: key(4), Subject: "perl", State: ledger.Waived, FirstSeen: day(-90), LastSeen: night, Waiver: &ledger.WaiverNote{ID: "w1", Owner: "carol", Reason: "not reachable from outside", Until: day(30)}, Sighting: ledger.Sighting{
				Class: ledger.Vulnerability, ID: "CVE-2026-4444", Type: "debian", Package: "perl", Installed: []string{"5.36"}, Severity: ledger.Medium}},
			{Key: key(5), Subject: "zlib", State: ledger.NotAffected, FirstSeen: day(-90), LastSeen: night, VEX: &ledger.VEXNote{Author: "shop@example.org", Status: "not_affected", Justification: "vulnerable_code_not_present"}, Sighting: ledger.Sighting{
				Class: ledger.Vulnerability, ID: "CVE-2026-5555", Type: "debian", Package: "zlib1g", Installed: []string{"1.2"}, Severity: ledger.Low}},
			{Key: key(6), Subject: "app/config.env", State: ledger.Open, FirstSeen: day(-1), LastSeen: night, Sighting: ledger.Sighting{
				Class: ledger.Secret, ID: "aws-access-key-id", Category: "AWS", Paths: []string{"app/config.env"}, StartLine: 7, EndLine: 7, Match: "AWS_KEY=********************", Severity: ledger.Critical, Title: "AWS access key id"}},
			{Key: key(7), Subject: "app/Dockerfile", State: ledger.Open, FirstSeen: day(-1), LastSeen: night, Sighting: ledger.Sighting{
				Class: ledger.Misconfiguration, ID: "DS-0002", Type: "dockerfile", Paths: []string{"app/Dockerfile"}, StartLine: 3, EndLine: 5, Severity: ledger.High, Title: "Image user should not be root", Message: "Last USER is root", Resolution: "Add 'USER <non root>' to the Dockerfile", URL: "https://avd.example.org/ds-0002"}},
			{Key: key(8), Subject: "ghost", State: ledger.Open, FirstSeen: day(-1), LastSeen: night, Sighting: ledger.Sighting{
				Class: ledger.License, ID: "AGPL-3.0", Type: "npm", Package: "ghost", Severity: ledger.Medium, Category: "forbidden", Message: "AGPL-3.0 is denied by the policy"}},
		},
	}
	d.Changes = &ledger.Changes{Asset: d.Asset.ID, At: night, Previous: day(-1), New: d.Items[2:3], Fixable: d.Items[1:2], Still: 6,
		Resolved: []ledger.Item{{Key: key(9), Subject: "curl", State: ledger.Resolved, FirstSeen: day(-9), LastSeen: day(-1), ResolvedAt: night, Sighting: ledger.Sighting{Class: ledger.Vulnerability, ID: "CVE-2026-9999", Package: "curl", Severity: ledger.High}}}}
	return d
}

// hostileDocument has each hostile text in every field at once.
func hostileDocument(kind protocol.Kind) *Document {
	d := sample(kind)
	d.Items, d.Due = nil, nil
	d.Scanned.Results, d.Scanned.Problems = nil, nil
	n := 100
	for i, h := range hostile {
		list := []string{h, h}
		for _, c := range ledger.Classes() {
			for _, s := range ledger.States() {
				n++
				d.Items = append(d.Items, ledger.Item{
					Asset: h, Key: key(n), Ecosystem: h, Subject: h, State: s, FirstSeen: night, LastSeen: night, FixSince: night, Why: h,
					Waiver: &ledger.WaiverNote{ID: h, Owner: h, Reason: h, Until: night}, VEX: &ledger.VEXNote{Document: h, Author: h, Status: h, Justification: h, Impact: h},
					Sighting: ledger.Sighting{Class: c, ID: h, Aliases: list, Type: h, Package: h, PURL: h, Installed: list, Fixed: list, Status: h, Paths: list, StartLine: i, EndLine: i - 3, Resource: h, Match: h, Layer: h, Category: h,
						Severity: ledger.Severities()[i%5], SeveritySource: h, CVSS: &ledger.CVSS{Score: 5, Source: h, Vector: h}, EPSS: &ledger.EPSS{Score: 0.1}, KEV: &ledger.KEV{Added: night},
						Title: h, Message: h, Resolution: h, URL: h, References: list, DataSource: h},
				})
			}
		}
		d.Scanned.Results = append(d.Scanned.Results, protocol.Result{Target: h, Class: protocol.ClassLanguage, Type: h, Packages: []protocol.Package{{Name: h, Version: h, Relationship: h}},
			Vulnerabilities:   []protocol.Vulnerability{{ID: h, Package: h, Description: h, CWE: list, CVSS: map[string]protocol.CVSS{h: {V3Vector: h, V2Vector: h}}}},
			Misconfigurations: []protocol.Misconfiguration{{ID: h, Description: h}}})
		d.Scanned.Problems = append(d.Scanned.Problems, protocol.Problem{Kind: protocol.ProblemKind(h), Path: h, Detail: h})
		d.Licenses = append(d.Licenses, LicenseVerdict{h, h, 1, list})
		d.Filters = append(d.Filters, h)
	}
	h := strings.Join(hostile[:12], " ")
	d.Asset.ID, d.Asset.Name, d.Host, d.Version = h, h, h, h
	d.Scanned.Target, d.Scanned.Engine, d.Scanned.OS = h, h, &protocol.OS{Family: h, Name: h, EndOfLife: true}
	d.Scanned.Image = &protocol.ImageID{ID: h, Tags: []string{h}}
	d.Scanned.Commit = &protocol.Commit{Remote: h, Branch: h, Hash: h}
	d.Database.Name, d.Database.Source, d.Database.Stale = h, h, true
	d.Changes = &ledger.Changes{Previous: night, New: d.Items[:4], Reopened: d.Items[20:24], Fixable: d.Items[40:44], Resolved: d.Items[60:64]}
	return d
}

func clean(kind protocol.Kind) *Document {
	d := sample(kind)
	d.Items, d.Changes, d.Due, d.Licenses = nil, nil, nil, nil
	d.Scanned.Problems, d.Scanned.Results = nil, nil
	return d
}

// documents are what each format is tried with.
func documents() map[string]*Document {
	bare := clean(protocol.Rootfs)
	bare.Scanned, bare.Database = nil, nil
	return map[string]*Document{"sample": sample(protocol.Image), "clean": clean(protocol.Image), "hostile": hostileDocument(protocol.Image), "bare": bare}
}

func encode(t testing.TB, format Format, d *Document) []byte {
	t.Helper()
	var b bytes.Buffer
	if _, err := Write(&b, format, d); err != nil {
		t.Fatalf("%s: %v", format, err)
	}
	return b.Bytes()
}

// golden compares with a file of testdata.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s differs (look at it, then: go test ./internal/scan/export -update):\n%s", file, got)
	}
}

// compile reads a JSON schema, with its formats (uri, date-time) checked too.
func compile(t *testing.T, file string) *jsonschema.Schema {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	if err := c.AddResource("https://schema.example.org/it", doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("https://schema.example.org/it")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func validate(t *testing.T, s *jsonschema.Schema, b []byte) error {
	t.Helper()
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(b))
	if err != nil {
		t.Fatalf("%v\n%.2000s", err, b)
	}
	return s.Validate(doc)
}

func TestNoFormatWritesWhatMisleads(t *testing.T) {
	for name, d := range documents() {
		for _, format := range Formats() {
			out := encode(t, format, d)
			if !utf8.Valid(out) {
				t.Errorf("%s, %s: invalid UTF-8", format, name)
			}
			for _, r := range string(out) {
				if r != '\n' && r != '\r' && !strconv.IsPrint(r) {
					t.Errorf("%s, %s: raw %U", format, name, r)
					break
				}
			}
			if again := encode(t, format, d); !bytes.Equal(out, again) {
				t.Errorf("%s, %s differs from one time to the next", format, name)
			}
		}
	}
	if _, err := Write(io.Discard, "pdf", clean(protocol.Image)); failure.KindOf(err) != failure.Usage {
		t.Errorf("an unknown format: %v", err)
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
	d := many(2000)
	for _, format := range Formats() {
		for _, n := range []int{0, 10, 5000, 100000} {
			if _, err := Write(&failing{n}, format, d); !errors.Is(err, errFull) {
				t.Errorf("%s after %d bytes: %v", format, n, err)
			}
		}
	}
}

func TestNothingIsLeftOutOfLists(t *testing.T) {
	for name, d := range documents() {
		want := len(d.entries()) + len(d.problems())
		lines := bytes.Split(bytes.TrimSuffix(encode(t, JSONLinesFormat, d), []byte("\n")), []byte("\n"))
		if want == 0 && len(lines) == 1 && len(lines[0]) == 0 {
			continue
		}
		if len(lines) != want {
			t.Errorf("%s: %d lines for %d", name, len(lines), want)
		}
		for i, e := range d.entries() {
			var got struct {
				Schema     string
				Key        ledger.Key
				Subject    string
				SubjectB64 []byte `json:"subject_b64"`
				State      ledger.State
				Fixed      []string
			}
			if err := json.Unmarshal(lines[i], &got); err != nil {
				t.Fatal(err)
			}
			if got.SubjectB64 != nil {
				got.Subject = string(got.SubjectB64)
			}
			if got.Schema != "mobileops.scan.item/v1" || got.Key != e.Key || got.Subject != e.Subject || got.State != e.State || len(got.Fixed) != len(e.Fixed) {
				t.Errorf("%s is not %+v", lines[i], e)
			}
		}
	}
	golden(t, "sample.jsonl", encode(t, JSONLinesFormat, sample(protocol.Image)))
}

func TestCSV(t *testing.T) {
	for name, d := range documents() {
		out, entries := encode(t, CSVFormat, d), d.entries()
		want := len(entries) + len(d.problems()) + 1
		if n := bytes.Count(out, []byte("\r\n")); n != want || bytes.Count(out, []byte("\n")) != n {
			t.Errorf("%s: %d CRLF, want %d", name, n, want)
		}
		rows, err := csv.NewReader(bytes.NewReader(out)).ReadAll()
		if err != nil {
			t.Fatal(err)
		}
		column := func(name string) int { return slices.Index(CSVHeader(), name) }
		for i, row := range rows[1:] {
			for c, field := range row {
				// What Excel, LibreOffice and Sheets take for a formula, in locales that
				// separate by comma and by semicolon.
				for _, part := range strings.Split(field, ";") {
					if part = strings.TrimLeft(part, ` "`); part != "" && strings.ContainsAny(part[:1], "=+-@\t\r") || strings.HasPrefix(part, "＝") {
						t.Errorf("row %d, %s: formula in %q", i, CSVHeader()[c], field)
					}
				}
			}
			if i >= len(entries) {
				continue
			}
			e := entries[i]
			switch b64 := row[column("subject_b64")]; {
			case b64 != "":
				if exact, err := base64.StdEncoding.DecodeString(b64); err != nil || string(exact) != e.Subject {
					t.Errorf("row %d: subject %q, %v; want %q", i, exact, err, e.Subject)
				}
			case e.Class == ledger.Vulnerability && e.Package == e.Subject && row[column("package")] != e.Subject:
				t.Errorf("row %d: package %q, want %q", i, row[column("package")], e.Subject)
			}
		}
	}
	golden(t, "sample.csv", encode(t, CSVFormat, sample(protocol.Image)))
}

func TestStateOfEntries(t *testing.T) {
	d := sample(protocol.Image)
	list := d.entries()
	if len(list) != 9 || list[8].ID != "CVE-2026-9999" {
		t.Fatalf("%d entries", len(list))
	}
	if e := list[0]; !e.overdue || e.change != "" {
		t.Errorf("%+v", e)
	}
	if e := list[1]; e.overdue || e.due.IsZero() || e.change != "fix available" || !strings.Contains(e.description(), "command injection") {
		t.Errorf("%+v", e)
	}
	if e := list[2]; e.change != "new" || e.remedy() != "There is no fixed version: the vendor will not make one" {
		t.Errorf("%+v, %s", e, e.remedy())
	}
	for i, want := range map[int]string{3: "waived by carol until 2026-12-22: not reachable from outside", 4: "not affected according to shop@example.org: vulnerable code not present", 0: ""} {
		if got := list[i].decision(); got != want {
			t.Errorf("decision about %s: %q", list[i].ID, got)
		}
	}
	// At the first scan nothing is news.
	d.Changes.Previous = time.Time{}
	if e := d.entries()[2]; e.change != "" {
		t.Errorf("%+v", e)
	}
}

func TestRelativeURI(t *testing.T) {
	for in, want := range map[string]string{"": "", "a/b.c": "a/b.c", "/etc/passwd": "etc/passwd", "../../x": "x", "a:b/c d": "a%3Ab/c%20d", "//host/x": "host/x", "ü\xff": "%C3%BC%FF", "a?b#c%": "a%3Fb%23c%25", ".": "", "x/../..": ""} {
		if got := relativeURI(in); got != want {
			t.Errorf("%q became %q, want %q", in, got, want)
		}
	}
}

func TestWebLink(t *testing.T) {
	for in, ok := range map[string]bool{
		"https://example.org/a?b=c#d": true, "http://example.org": true, "javascript:alert(1)": false, "ftp://example.org/x": false, "https://": false, "//example.org": false,
		"https://user:pw@example.org/": false, "https://example.org\u202e/": false, "data:text/html,x": false, " https://example.org": false, "https://ex\u0430mple.org/": false, "https://example.org/" + strings.Repeat("x", 3000): false,
	} {
		if got := webLink(in); (got != "") != ok {
			t.Errorf("%q became %q", in, got)
		}
	}
}

// many is a document of n vulnerabilities as a large image has them.
func many(n int) *Document {
	d := sample(protocol.Image)
	base := d.Items
	d.Items, d.Changes = nil, nil
	r := &d.Scanned.Results[0]
	for i := range n {
		item := base[i%len(base)]
		item.Key = key(1000 + i)
		if item.Class == ledger.Vulnerability {
			item.ID = fmt.Sprintf("CVE-2026-%05d", i/3)
			item.Package = fmt.Sprintf("package-%d", i%997)
			item.Subject = item.Package
			item.References = []string{"https://example.org/1/" + item.ID, "https://example.org/2/" + item.ID}
			r.Vulnerabilities = append(r.Vulnerabilities, protocol.Vulnerability{ID: item.ID, Package: item.Package, Description: strings.Repeat("An attacker who can send packets of number "+strconv.Itoa(i*7919)+" reads memory. ", 8)})
		} else {
			item.Paths = []string{fmt.Sprintf("srv/app-%d/file-%d", i%7, i)}
			item.Subject = item.Paths[0]
		}
		item.Title = "a problem of " + item.Subject
		d.Items = append(d.Items, item)
	}
	return d
}

func BenchmarkFormats(b *testing.B) {
	d := many(10_000)
	for _, format := range Formats() {
		b.Run(string(format), func(b *testing.B) {
			for b.Loop() {
				if _, err := Write(io.Discard, format, d); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
