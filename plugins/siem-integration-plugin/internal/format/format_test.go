package format

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/mobileops/mobileops/pkg/pluginsdk"
)

var (
	t0   = time.Date(2026, 3, 1, 3, 4, 5, 678901234, time.UTC)
	opts = Options{Host: "web-1.example.org", Version: "1.2.3"}
)

// Every kind of byte that hosts put into names, and what formats trip over.
func hostileTexts() []string {
	return []string{
		"/tmp/new\nline", "/tmp/cr\r\nlf", "/tmp/tab\tpipe|equals=back\\slash\\", "/tmp/\x1b[31mred", "/tmp/\u009b31mred\x7f\U000e0001",
		"/tmp/\u202egnp.exe", "/tmp/bad\xff\xfeutf8\xc3", `/tmp/"quoted",comma;semi]`, `x"] <13>1 - - - - - - forged`, "a cs1=b |c| \\= cs2=\\\\=",
		"a\tsev=10\tusrName=root", "|x09|sev=10", "\x00nul\x00", "/tmp/\u2028\u2029\ufffe\uffff\ufeff\U000e0001", `{"a":1}`, `"},"x":{"`, "\\n\\\\n\\x41",
		"  spaces  ", "\u0085\u00a0", "/\ufffd", "ends with \\", "\\", `\"`, "=", "|", "]", "%41%n", "\xed\xa0\x80", "\xf4\x90\x80\x80", strings.Repeat("ä\\=|]\"\n", 3000),
	}
}

func ordinary() *pluginsdk.Event {
	return &pluginsdk.Event{
		ID: "01F-42", Type: pluginsdk.TypeFinding, Time: t0, Change: pluginsdk.ChangeOpened,
		Finding: &pluginsdk.Finding{
			Source: "integrity", Rule: "file-changed", Severity: pluginsdk.Medium, Title: "content changed", Subject: "/etc/file 2",
			Evidence: map[string]string{"old": "1", "new": "2"}, Remediation: "reinstall it", References: []string{"https://example.org/a b"},
			Tags: []string{"fs", "boot"}, Observed: t0, ID: "634b91900b", Fingerprint: "634b91900b9c2ddccd8c0bbe0327e83e",
			State: pluginsdk.Waived, FirstSeen: t0.Add(-time.Hour), LastSeen: t0, TimesSeen: 3, Owner: "bob", Reason: "vendor",
			WaivedUntil: time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC), Scopes: []string{"default"},
			History: []pluginsdk.StateChange{{At: t0, Who: "bob", From: pluginsdk.Open, To: pluginsdk.Waived, Severity: pluginsdk.Medium, Why: "vendor"}},
		},
	}
}

func audited() *pluginsdk.Event {
	return &pluginsdk.Event{
		ID: "audit-17", Type: pluginsdk.TypeAudit, Time: t0,
		Audit: &pluginsdk.AuditRecord{
			Sequence: 17, Hash: strings.Repeat("ab", 32), Time: t0, Actor: pluginsdk.Actor{UID: 0, User: "root", LoginUID: 1000, TTY: "pts/1", Remote: "192.0.2.7"},
			Command: "integrity baseline", Args: []string{"--name", "default"}, Result: "1200 files", Elapsed: 1500 * time.Millisecond,
		},
	}
}

func gap() *pluginsdk.Event { return &pluginsdk.Event{Type: pluginsdk.TypeGap, Time: t0, Lost: 7} }

// hostile has text in every field at once.
func hostile(text string) []*pluginsdk.Event {
	h := text
	list := []*pluginsdk.Event{
		{ID: h, Type: pluginsdk.TypeAudit, Time: t0, Change: h, Audit: &pluginsdk.AuditRecord{Sequence: 1, Hash: h, Time: t0,
			Actor: pluginsdk.Actor{User: h, TTY: h, Remote: h, LoginUID: -1}, Command: h, Args: []string{h, "", h}, Result: h, Status: 5}},
		{ID: h, Type: h, Time: t0, Change: h},
	}
	for _, state := range []pluginsdk.State{pluginsdk.Open, pluginsdk.Acknowledged, pluginsdk.Waived, pluginsdk.State(h)} {
		list = append(list, &pluginsdk.Event{ID: h, Type: pluginsdk.TypeFinding, Time: t0, Change: h, Finding: &pluginsdk.Finding{
			Source: h, Rule: h, Severity: pluginsdk.High, Title: h, Subject: h, Evidence: map[string]string{h: h, "k": h}, Remediation: h,
			References: []string{h, h}, Tags: []string{h, "", h}, ID: h, Fingerprint: h, State: state, Owner: h, Reason: h, WaivedUntil: t0, Scopes: []string{h},
			FirstSeen: t0, LastSeen: t0, History: []pluginsdk.StateChange{{Who: h, From: state, To: state, Why: h}}}})
	}
	for _, e := range list {
		if len(e.ID) > 256 {
			e.ID = e.ID[:256] // the host makes ids, and short ones
		}
	}
	return list
}

// everything is what each format is tried with.
func everything() []*pluginsdk.Event {
	list := []*pluginsdk.Event{ordinary(), audited(), gap(), {Type: "newer", ID: "x", Time: t0}, {Type: pluginsdk.TypeFinding, Finding: &pluginsdk.Finding{}},
		{Type: pluginsdk.TypeAudit, Audit: &pluginsdk.AuditRecord{Actor: pluginsdk.Actor{UID: 7}}}}
	for _, h := range hostileTexts() {
		list = append(list, hostile(h)...)
	}
	return list
}

func encode(t testing.TB, name string, o Options, e *pluginsdk.Event) string {
	t.Helper()
	enc, err := New(name, o)
	if err != nil {
		t.Fatal(err)
	}
	b, err := enc.Append([]byte("before"), e)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	rest, ok := strings.CutPrefix(string(b), "before")
	if !ok {
		t.Fatalf("%s wrote over what was there", name)
	}
	return rest
}

// invisible turns back what appendText made visible: the escapes are those of a
// Go string.
func invisible(t testing.TB, v string) string {
	t.Helper()
	s, err := strconv.Unquote(`"` + strings.ReplaceAll(v, `"`, `\"`) + `"`)
	if err != nil {
		t.Errorf("%q: %v", v, err)
	}
	return s
}

// harmless fails for anything in a record that a reader could be misled by.
// Bytes in ok are the format's own.
func harmless(t testing.TB, name, record, ok string) {
	t.Helper()
	if !utf8.ValidString(record) {
		t.Errorf("%s: invalid UTF-8 in %q", name, record)
	}
	for _, r := range record {
		if strings.ContainsRune(ok, r) {
			continue
		}
		if !strconv.IsPrint(r) || unicode.Is(unicode.Bidi_Control, r) {
			t.Errorf("%s: raw %U in %.300q", name, r, record)
			return
		}
	}
}

func TestNoFormatHasRawControlCharacters(t *testing.T) {
	own := map[string]string{"rfc5424": "\ufeff", "leef": "\t", "bulk": "\n"}
	for _, header := range []bool{false, true} {
		o := opts
		o.Header, o.Host = header, "h\u202e\n st"
		for _, name := range Names() {
			for _, e := range everything() {
				record := encode(t, name, o, e)
				harmless(t, name, record, own[name])
				if n := strings.Count(record, "\ufeff"); name == "rfc5424" && n != 1 {
					t.Errorf("%d byte order marks in %q", n, record)
				}
				if n := strings.Count(record, "\n"); name == "bulk" && n != 2 {
					t.Errorf("%d lines in %q", n, record)
				}
			}
		}
	}
}

func TestTextIsReversibleAndCutBetweenCharacters(t *testing.T) {
	for _, h := range hostileTexts() {
		b, whole := appendText(nil, h, 1<<20, &plainText)
		if back := invisible(t, string(b)); !whole || back != h {
			t.Errorf("%.80q became %.80q, then %.80q", h, b, back)
		}
		for limit := range min(len(b), 200) {
			for _, g := range []*grammar{&plainText, &sdValue, &cefHeader, &cefValue, &leefHeader} {
				cut, whole := appendText(nil, h, limit, g)
				if whole && len(h) > limit || len(cut) > limit {
					t.Fatalf("%.80q cut to %d gave %d bytes, whole %v", h, limit, len(cut), whole)
				}
				if g == &plainText && !strings.HasPrefix(h, invisible(t, string(cut))) {
					t.Fatalf("%.80q cut to %d is %q", h, limit, cut)
				}
			}
		}
	}
}

func TestJSONTextIsReversible(t *testing.T) {
	for _, h := range hostileTexts() {
		var back string
		unmarshal(t, string(appendJSON(nil, h)), &back)
		if want := strings.ToValidUTF8(h, "\ufffd"); utf8.ValidString(h) && back != want {
			t.Errorf("%.80q became %.80q", h, back)
		}
	}
}

func TestStampsAreThoseOfTheStandardLibrary(t *testing.T) {
	for _, at := range []time.Time{t0, time.Unix(0, 0), time.Unix(-1, 999999999), time.Date(1, 1, 1, 0, 0, 0, 1, time.UTC), time.Date(9999, 12, 31, 23, 59, 59, 999999999, time.UTC),
		time.Date(2024, 2, 29, 12, 0, 0, 5000, time.FixedZone("", 5400))} {
		if got, want := string(appendStamp(nil, at, 6, "Z")), at.UTC().Format("2006-01-02T15:04:05.000000Z"); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
		if got, want := string(appendStamp(nil, at, 9, "Z")), at.UTC().Format("2006-01-02T15:04:05.000000000Z"); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	if got := string(appendSeconds(nil, t0)); got != fmt.Sprintf("%d.678", t0.Unix()) {
		t.Errorf("got %s", got)
	}
	if got := string(appendSeconds(nil, time.UnixMilli(-1500))); got != "-1.500" {
		t.Errorf("got %s", got)
	}
	if known(time.Time{}) || known(time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)) || known(time.Date(-1, 1, 1, 0, 0, 0, 0, time.UTC)) {
		t.Error("a time that RFC 3339 cannot write counts as known")
	}
}

func TestRefusedOptionsAndEvents(t *testing.T) {
	for _, tc := range []struct {
		name string
		o    Options
		want string
	}{
		{"syslog", Options{}, "unknown format"},
		{"rfc5424", Options{Facility: "locale"}, "unknown facility"},
		{"rfc5424", Options{MaxMessage: 100}, "too short"},
		{"bulk", Options{Index: "Upper"}, "no name of an index"},
		{"bulk", Options{Index: "a b"}, "no name of an index"},
		{"bulk", Options{Index: "_x"}, "no name of an index"},
		{"bulk", Options{Index: "x-{YYYY}"}, "is not made of"},
		{"bulk", Options{Index: "x-{yyyy"}, "no date"},
		{"bulk", Options{Index: "x-{}"}, "no date"},
		{"bulk", Options{Index: "x-{yyyy}-{MM}"}, "no date"},
		{"bulk", Options{Index: strings.Repeat("x", 256)}, "1 to 255"},
		{"bulk", Options{Index: "x\"},{"}, "no date"},
	} {
		if _, err := New(tc.name, tc.o); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s %+v: %v, want %q", tc.name, tc.o, err, tc.want)
		}
	}
	for _, name := range Names() {
		enc, err := New(name, opts)
		if err != nil {
			t.Fatal(err)
		}
		if enc.ContentType() == "" {
			t.Errorf("%s has no media type", name)
		}
		for _, e := range []*pluginsdk.Event{{Type: pluginsdk.TypeFinding}, {Type: pluginsdk.TypeAudit, Finding: &pluginsdk.Finding{}}} {
			if b, err := enc.Append([]byte("x"), e); err == nil || string(b) != "x" {
				t.Errorf("%s: %q, %v", name, b, err)
			}
		}
	}
	if enc, _ := New("bulk", opts); enc != nil {
		if _, err := enc.Append(nil, &pluginsdk.Event{ID: strings.Repeat("x", 513), Type: "newer"}); err == nil {
			t.Error("an id that no index takes was written")
		}
	}
}

func TestAppendDoesNotAllocate(t *testing.T) {
	bad := ordinary()
	bad.Finding.Subject = "/tmp/bad\xff" + strings.Repeat("\n", 100)
	for _, name := range Names() {
		enc, err := New(name, opts)
		if err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 0, 32<<10)
		for _, e := range []*pluginsdk.Event{ordinary(), audited(), gap(), bad} {
			if n := testing.AllocsPerRun(20, func() { _, _ = enc.Append(buf, e) }); n != 0 {
				t.Errorf("%s allocates %v times for %s", name, n, e.Type)
			}
		}
	}
}

func BenchmarkAppend(b *testing.B) {
	for _, name := range Names() {
		b.Run(name, func(b *testing.B) {
			enc, err := New(name, opts)
			if err != nil {
				b.Fatal(err)
			}
			e := ordinary()
			buf := make([]byte, 0, 32<<10)
			b.ReportAllocs()
			for b.Loop() {
				out, err := enc.Append(buf, e)
				if err != nil {
					b.Fatal(err)
				}
				b.SetBytes(int64(len(out)))
			}
		})
	}
}
