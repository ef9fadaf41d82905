package format

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/mobileops/mobileops/pkg/pluginsdk"
)

// message is what a receiver reads from a message of RFC 5424.
type message struct {
	priority                       int
	time, host, app, proc, id, msg string
	name                           string
	data                           map[string]string
}

// parseSyslog reads one message by the ABNF of RFC 5424, section 6, and nothing
// more: in a value only \" \\ and \] are escapes.
func parseSyslog(s string) (*message, error) {
	head := regexp.MustCompile(`^<(0|[1-9][0-9]{0,2})>1 (-|[0-9]{4}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-5][0-9]\.[0-9]{1,6}Z) ([!-~]{1,255}) ([!-~]{1,48}) ([!-~]{1,128}) ([!-~]{1,32}) `)
	m := head.FindStringSubmatch(s)
	if m == nil {
		return nil, fmt.Errorf("no header in %.200q", s)
	}
	r := &message{time: m[2], host: m[3], app: m[4], proc: m[5], id: m[6], data: map[string]string{}}
	r.priority, _ = strconv.Atoi(m[1])
	rest := s[len(m[0]):]
	if after, nothing := strings.CutPrefix(rest, "- "); nothing {
		r.msg = after
		return r, nil
	}
	name := regexp.MustCompile(`^\[([!#-<>-\\^-~]{1,32})`).FindStringSubmatch(rest)
	if name == nil {
		return nil, fmt.Errorf("no structured data in %.200q", rest)
	}
	r.name, rest = name[1], rest[len(name[0]):]
	param := regexp.MustCompile(`^ ([!#-<>-\\^-~]{1,32})="((?:[^"\\\]]|\\["\\\]])*)"`)
	for p := param.FindStringSubmatch(rest); p != nil; p = param.FindStringSubmatch(rest) {
		if _, twice := r.data[p[1]]; twice {
			return nil, fmt.Errorf("%s twice", p[1])
		}
		r.data[p[1]] = strings.NewReplacer(`\"`, `"`, `\\`, `\`, `\]`, `]`).Replace(p[2])
		rest = rest[len(p[0]):]
	}
	msg, ended := strings.CutPrefix(rest, "] \xef\xbb\xbf")
	if !ended {
		return nil, fmt.Errorf("the structured data ends in %.200q", rest)
	}
	r.msg = msg
	return r, nil
}

func checkSyslog(t testing.TB, record string, e *pluginsdk.Event) {
	t.Helper()
	m, err := parseSyslog(record)
	if err != nil {
		t.Errorf("%v in %.300q", err, record)
		return
	}
	if len(record) > DefaultMessage || m.app != "mobileops" || m.name != "mobileops@32473" || invisible(t, m.data["id"]) != e.ID && len(e.ID) < 100 {
		t.Errorf("%d bytes of %+v", len(record), m)
	}
	if f := finding(e); f != nil && m.data["truncated"] == "" {
		if invisible(t, m.data["subject"]) != f.Subject || invisible(t, m.data["rule"]) != f.Rule {
			t.Errorf("subject %q of %q", m.data["subject"], f.Subject)
		}
	}
	if f := finding(e); f != nil {
		if s := invisible(t, m.data["subject"]); !strings.HasPrefix(f.Subject, s) || s == "" && f.Subject != "" {
			t.Errorf("subject %q of %.80q", s, f.Subject)
		}
	}
}

func TestSyslog(t *testing.T) {
	for _, e := range everything() {
		checkSyslog(t, encode(t, "rfc5424", opts, e), e)
	}
	o := opts
	o.Facility, o.Enterprise = "audit", 99
	want := `<108>1 2026-03-01T03:04:05.678901Z web-1.example.org mobileops - file-changed [mobileops@99 id="01F-42" type="finding" change="opened"` +
		` fingerprint="634b91900b9c2ddccd8c0bbe0327e83e" source="integrity" rule="file-changed" severity="medium" state="waived" subject="/etc/file 2"` +
		` first_seen="2026-03-01T02:04:05.678901Z" last_seen="2026-03-01T03:04:05.678901Z" times_seen="3" owner="bob" reason="vendor"` +
		` waived_until="2026-06-01T00:00:00.000000Z" remediation="reinstall it" evidence="new: 2; old: 1" tags="fs boot" references="https://example.org/a b"] ` +
		"\ufeffcontent changed: /etc/file 2"
	if got := encode(t, "rfc5424", o, ordinary()); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	want = `<134>1 2026-03-01T03:04:05.678901Z web-1.example.org mobileops - integrity.baseline [mobileops@32473 id="audit-17" type="audit" sequence="17" hash="` +
		strings.Repeat("ab", 32) + `" command="integrity baseline" status="0" uid="0" user="root" login_uid="1000" tty="pts/1" remote="192.0.2.7" elapsed_ms="1500"` +
		` result="1200 files" args="--name default"] ` + "\ufeffroot: integrity baseline: 1200 files"
	if got := encode(t, "rfc5424", opts, audited()); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if got := encode(t, "rfc5424", Options{}, gap()); got != `<131>1 2026-03-01T03:04:05.678901Z - mobileops - gap [mobileops@32473 type="gap" lost="7"] `+"\ufeff7 events were lost before they could be delivered" {
		t.Errorf("got %s", got)
	}
}

func TestPriorities(t *testing.T) {
	for s, want := range map[pluginsdk.Severity]string{pluginsdk.Info: "<134>", pluginsdk.Low: "<133>", pluginsdk.Medium: "<132>", pluginsdk.High: "<131>", pluginsdk.Critical: "<130>", 9: "<130>", -1: "<134>"} {
		e := ordinary()
		e.Finding.Severity = s
		if got := encode(t, "rfc5424", opts, e); !strings.HasPrefix(got, want) {
			t.Errorf("%v: %.20s, want %s", s, got, want)
		}
	}
	for status, want := range map[int]string{0: "<134>", 1: "<133>", 3: "<133>", 4: "<132>", 5: "<132>", 130: "<133>"} {
		e := audited()
		e.Audit.Status = status
		if got := encode(t, "rfc5424", opts, e); !strings.HasPrefix(got, want) {
			t.Errorf("status %d: %.20s, want %s", status, got, want)
		}
	}
}

// cefEvent is what a consumer reads from a line.
type cefEvent struct {
	header []string // vendor, product, version, class, name, severity
	ext    map[string]string
}

// parseCEF reads one line by the rules of the specification and nothing more:
// in the header only \\ and \| are escapes; in extension values only \\, \=,
// \n and \r, and a bare = ends a key.
func parseCEF(line string) (*cefEvent, error) {
	rest, ok := strings.CutPrefix(line, "CEF:0|")
	if !ok {
		return nil, fmt.Errorf("no CEF:0 header")
	}
	e := &cefEvent{ext: map[string]string{}}
	for len(e.header) < 6 {
		field, n, err := cefUntil(rest, '|', `\|`)
		if err != nil || n == len(rest) {
			return nil, fmt.Errorf("header %d: %v", len(e.header), err)
		}
		e.header = append(e.header, field)
		rest = rest[n+1:]
	}
	for rest != "" {
		key, after, ok := strings.Cut(rest, "=")
		if !ok || !regexp.MustCompile(`^[a-zA-Z0-9]+$`).MatchString(key) {
			return nil, fmt.Errorf("bad key in %q", rest)
		}
		value, n, err := cefUntil(after, '=', `\=nr`)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", key, err)
		}
		rest = ""
		if n < len(after) { // what stands before a bare =, back to a space, is the next key
			space := strings.LastIndexByte(after[:n], ' ')
			if space < 0 {
				return nil, fmt.Errorf("%s: bare = in its value", key)
			}
			rest = after[space+1:]
			if value, _, err = cefUntil(after[:space], '=', `\=nr`); err != nil {
				return nil, err
			}
		}
		if _, twice := e.ext[key]; twice {
			return nil, fmt.Errorf("key %s twice", key)
		}
		e.ext[key] = value
	}
	return e, nil
}

// cefUntil unescapes s up to a bare end byte and returns where that stands.
func cefUntil(s string, end byte, escapable string) (string, int, error) {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == end:
			return b.String(), i, nil
		case s[i] == '\\':
			i++
			if i == len(s) || strings.IndexByte(escapable, s[i]) < 0 {
				return "", 0, fmt.Errorf("stray backslash in %q", s)
			}
			b.WriteByte(strings.NewReplacer("n", "\n", "r", "\r").Replace(s[i : i+1])[0])
		default:
			b.WriteByte(s[i])
		}
	}
	return b.String(), len(s), nil
}

// cefKeys are all keys that an event may have: a key that is not one of them
// was forged.
const cefKeys = " rt dvchost externalId cat act start end cnt filePath msg outcome suid suser cs1 cs1Label cs2 cs2Label cs3 cs3Label cs4 cs4Label cs5 cs5Label cs6 cs6Label cn1 cn1Label cn2 cn2Label cn3 cn3Label flexString1 flexString1Label "

func checkCEF(t testing.TB, line string, e *pluginsdk.Event) {
	t.Helper()
	c, err := parseCEF(line)
	if err != nil {
		t.Errorf("%v in %.300q", err, line)
		return
	}
	for i, limit := range []int{63, 63, 31, 1023, 512, 2} {
		if len(c.header[i]) > limit {
			t.Errorf("header field %d has %d bytes", i, len(c.header[i]))
		}
	}
	for k, v := range c.ext {
		limit := 1023
		if len(k) == 3 && strings.HasPrefix(k, "cs") {
			limit = 4000
			if c.ext[k+"Label"] == "" {
				t.Errorf("%s has no label", k)
			}
		}
		if !strings.Contains(cefKeys, " "+k+" ") || len(v) > limit {
			t.Errorf("%s has %d bytes", k, len(v))
		}
	}
	if f := finding(e); f != nil {
		if s := invisible(t, c.ext["cs2"]); s != f.Subject && (len(f.Subject) < 900 || !strings.HasPrefix(f.Subject, s)) {
			t.Errorf("subject %q of %q", s, f.Subject)
		}
		if filePath(f.Subject) != (c.ext["filePath"] != "") || c.header[5] != rating(severity(e)) {
			t.Errorf("%v", c)
		}
	}
}

func TestCEF(t *testing.T) {
	for _, e := range everything() {
		checkCEF(t, encode(t, "cef", opts, e), e)
	}
	want := "CEF:0|mobileops|mobileops|1.2.3|integrity/file-changed|content changed|5|rt=1772334245678 dvchost=web-1.example.org" +
		" externalId=634b91900b9c2ddccd8c0bbe0327e83e cat=integrity act=opened start=1772330645678 end=1772334245678 cnt=3 filePath=/etc/file 2" +
		" msg=content changed; reinstall it cs1=waived; waived by bob until 2026-06-01: vendor cs1Label=state cs6=634b91900b cs6Label=id" +
		" cs2=/etc/file 2 cs2Label=subject cs3=new: 2; old: 1 cs3Label=evidence cs4=fs boot cs4Label=tags cs5=https://example.org/a b cs5Label=references" +
		" flexString1=01F-42 flexString1Label=eventId"
	if got := encode(t, "cef", opts, ordinary()); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	want = "CEF:0|mobileops|mobileops|1.2.3|audit/integrity baseline|integrity baseline|1|rt=1772334245678 dvchost=web-1.example.org externalId=17 cat=audit" +
		" act=integrity baseline outcome=success suid=0 suser=root msg=1200 files cn1=0 cn1Label=status cn2=1500 cn2Label=elapsedMs cn3=1000 cn3Label=loginUid" +
		" cs1=" + strings.Repeat("ab", 32) + " cs1Label=hash cs2=--name default cs2Label=args cs3=pts/1 cs3Label=tty cs4=192.0.2.7 cs4Label=remote" +
		" flexString1=audit-17 flexString1Label=eventId"
	if got := encode(t, "cef", opts, audited()); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// leefKeys are all keys that an event may have.
const leefKeys = " devTime devTimeFormat sev eventId host cat rule change severity fingerprint id state subject filePath firstSeen lastSeen timesSeen" +
	" remediation evidence tags references usrName uid loginUid tty remote command args status outcome result elapsedMs sequence hash msg "

// parseLEEF reads one line as LEEF 2.0: six fields, of which the last is the
// delimiter, and attributes that end at the next delimiter.
func parseLEEF(line string) (header []string, attributes map[string]string, err error) {
	header = strings.SplitN(line, "|", 7)
	if len(header) != 7 || header[0] != "LEEF:2.0" || header[5] != "x09" {
		return nil, nil, fmt.Errorf("no header of LEEF 2.0")
	}
	attributes = map[string]string{}
	for pair := range strings.SplitSeq(header[6], "\t") {
		key, value, ok := strings.Cut(pair, "=")
		if !ok || !strings.Contains(leefKeys, " "+key+" ") {
			return nil, nil, fmt.Errorf("%q is no attribute", pair)
		}
		if _, twice := attributes[key]; twice {
			return nil, nil, fmt.Errorf("%s twice", key)
		}
		attributes[key] = value
	}
	return header[:6], attributes, nil
}

func checkLEEF(t testing.TB, line string, e *pluginsdk.Event) {
	t.Helper()
	header, a, err := parseLEEF(line)
	if err != nil {
		t.Errorf("%v in %.300q", err, line)
		return
	}
	if n, err := strconv.Atoi(a["sev"]); err != nil || n < 1 || n > 10 {
		t.Errorf("sev %q", a["sev"])
	}
	if f := finding(e); f != nil {
		if s := invisible(t, a["subject"]); s != f.Subject && (len(f.Subject) < 900 || !strings.HasPrefix(f.Subject, s)) {
			t.Errorf("subject %q of %q", s, f.Subject)
		}
		if class := invisible(t, header[4]); class != f.Source+"/"+f.Rule && len(class) < 200 {
			t.Errorf("class %q", class)
		}
	}
}

func TestLEEF(t *testing.T) {
	for _, e := range everything() {
		checkLEEF(t, encode(t, "leef", opts, e), e)
	}
	want := "LEEF:2.0|mobileops|mobileops|1.2.3|integrity/file-changed|x09|devTime=2026-03-01T03:04:05.678+0000;devTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSSZ;sev=5;eventId=01F-42;" +
		"host=web-1.example.org;cat=integrity;rule=file-changed;change=opened;severity=medium;fingerprint=634b91900b9c2ddccd8c0bbe0327e83e;id=634b91900b;" +
		"state=waived, waived by bob until 2026-06-01: vendor;subject=/etc/file 2;filePath=/etc/file 2;firstSeen=2026-03-01T02:04:05.678+0000;" +
		"lastSeen=2026-03-01T03:04:05.678+0000;timesSeen=3;remediation=reinstall it;evidence=new: 2, old: 1;tags=fs boot;references=https://example.org/a b;" +
		"msg=content changed: /etc/file 2"
	want = strings.NewReplacer(";", "\t", ",", ";").Replace(want)
	if got := encode(t, "leef", opts, ordinary()); got != want {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	_, a, err := parseLEEF(encode(t, "leef", opts, audited()))
	if err != nil || a["usrName"] != "root" || a["command"] != "integrity baseline" || a["outcome"] != "success" || a["sequence"] != "17" || a["msg"] != "root: integrity baseline: 1200 files" {
		t.Errorf("%v, %v", a, err)
	}
}

func TestSyslogHeaderBeforeCEFAndLEEF(t *testing.T) {
	o := opts
	o.Header = true
	for _, e := range everything() {
		for name, check := range map[string]func(testing.TB, string, *pluginsdk.Event){"cef": checkCEF, "leef": checkLEEF} {
			record := encode(t, name, o, e)
			m, err := parseSyslog(record)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if len(record) > DefaultMessage {
				t.Errorf("%s: %d bytes", name, len(record))
			}
			check(t, m.msg, e)
		}
	}
}

func TestParsersAreStrict(t *testing.T) {
	for _, s := range []string{"", "<13>1 - - - - - x", `<13>1 - h a - m [x@1 a="b"c"] ` + "\ufeff", `<13>1 - h a - m [x@1 a="b\n"] ` + "\ufeff", `<13>1 - h a - m [x@1 a="b]"] ` + "\ufeff"} {
		if m, err := parseSyslog(s); err == nil {
			t.Errorf("%q was read as %+v", s, m)
		}
	}
	for _, s := range []string{"", "CEF:0|a|b|c|d|e|5", `CEF:0|a\n|b|c|d|e|5|`, "CEF:0|a|b|c|d|e|5|x=a=b", `CEF:0|a|b|c|d|e|5|x=a\|b`, `CEF:0|a|b|c|d|e|5|x=a\`, "CEF:0|a|b|c|d|e|5|x=1 x=2"} {
		if _, err := parseCEF(s); err == nil {
			t.Errorf("%q was read", s)
		}
	}
	for _, s := range []string{"", "LEEF:2.0|a|b|c|d|", "LEEF:2.0|a|b|c|d|x09|sev=1\tsev=2", "LEEF:2.0|a|b|c|d|x09|forged=1"} {
		if _, _, err := parseLEEF(s); err == nil {
			t.Errorf("%q was read", s)
		}
	}
}

func FuzzLines(f *testing.F) {
	for _, h := range hostileTexts() {
		f.Add(h, h, h, h)
	}
	f.Add("a", "b", "c", "d")
	f.Fuzz(func(t *testing.T, title, subject, key, value string) {
		e := ordinary()
		e.Finding.Title, e.Finding.Subject, e.Finding.Rule, e.Finding.Owner = title, subject, value, key
		e.Finding.Evidence = map[string]string{key: value}
		for name, check := range map[string]func(testing.TB, string, *pluginsdk.Event){"rfc5424": checkSyslog, "cef": checkCEF, "leef": checkLEEF} {
			record := encode(t, name, opts, e)
			harmless(t, name, record, map[string]string{"rfc5424": "\ufeff", "leef": "\t"}[name])
			check(t, record, e)
		}
	})
}
