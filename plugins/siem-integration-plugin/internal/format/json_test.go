package format

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"io"
	"os/exec"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/mobileops/mobileops/pkg/pluginsdk"
)

func unmarshal(t testing.TB, s string, into any) {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(s))
	d.UseNumber()
	if err := d.Decode(into); err != nil {
		t.Fatalf("%v in %.300q", err, s)
	}
	if _, err := d.Token(); err != io.EOF {
		t.Fatalf("something follows in %.300q", s)
	}
}

func object(t testing.TB, s string) map[string]any {
	t.Helper()
	var m map[string]any
	unmarshal(t, s, &m)
	return m
}

// at returns what stands at a path such as "event.id", nil for nothing.
func at(m map[string]any, path string) any {
	var v any = m
	for _, key := range strings.Split(path, "/") {
		next, ok := v.(map[string]any)
		if !ok {
			return nil
		}
		v = next[key]
	}
	if n, ok := v.(json.Number); ok {
		return n.String()
	}
	return v
}

func want(t testing.TB, m map[string]any, values map[string]any) {
	t.Helper()
	for path, value := range values {
		if got := at(m, path); !reflect.DeepEqual(got, value) {
			t.Errorf("%s is %#v, want %#v", path, got, value)
		}
	}
}

func TestDocumentIsTheEventAgain(t *testing.T) {
	for _, e := range everything() {
		checkDocument(t, encode(t, "json", opts, e), e)
	}
	m := object(t, encode(t, "json", opts, ordinary()))
	want(t, m, map[string]any{"schema": "mobileops.event/v1", "id": "01F-42", "host": opts.Host, "version": "1.2.3", "time": "2026-03-01T03:04:05.678901234Z",
		"finding/subject": "/etc/file 2", "finding/evidence/new": "2", "finding/waived_until": "2026-06-01T00:00:00.000000000Z", "finding/times_seen": "3"})
}

func checkDocument(t testing.TB, s string, e *pluginsdk.Event) {
	t.Helper()
	var back pluginsdk.Event
	unmarshal(t, s, &back)
	direct, err := json.Marshal(e) // by another encoder
	if err != nil {
		t.Fatal(err)
	}
	var expected pluginsdk.Event
	if err := json.Unmarshal(direct, &expected); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(back, expected) {
		t.Errorf("got  %.400q\nwant %.400q", s, direct)
	}
	if f := finding(e); f != nil && back.Finding.Subject != f.Subject {
		t.Errorf("subject %q became %q", f.Subject, back.Finding.Subject)
	}
}

func TestHEC(t *testing.T) {
	for _, e := range everything() {
		checkHEC(t, encode(t, "hec", opts, e), e)
	}
	o := opts
	o.Index, o.Source, o.Sourcetype = "security", "prod", "ops"
	want(t, object(t, encode(t, "hec", o, ordinary())), map[string]any{"time": "1772334245.678", "host": opts.Host, "source": "prod", "sourcetype": "ops", "index": "security",
		"event/finding/subject": "/etc/file 2", "event/finding/history": nil, "fields/id": "01F-42", "fields/severity": "medium", "fields/rule": "file-changed", "fields/change": "opened"})
	want(t, object(t, encode(t, "hec", opts, audited())), map[string]any{"sourcetype": "mobileops:audit", "source": "mobileops", "event/audit/command": "integrity baseline", "index": nil})
	want(t, object(t, encode(t, "hec", opts, gap())), map[string]any{"sourcetype": "mobileops:gap", "event/lost": "7", "fields/severity": "high"})
}

// checkHEC holds a record against what Splunk takes: known members, flat
// fields, time as a number.
func checkHEC(t testing.TB, s string, e *pluginsdk.Event) {
	t.Helper()
	m := object(t, s)
	for key, value := range m {
		switch key {
		case "host", "source", "sourcetype", "index":
			if _, ok := value.(string); !ok {
				t.Errorf("%s is %v", key, value)
			}
		case "time":
			if _, err := value.(json.Number).Float64(); err != nil {
				t.Error(err)
			}
		case "event":
		case "fields":
			for k, v := range value.(map[string]any) {
				if _, ok := v.(string); !ok {
					t.Errorf("the field %s is %v", k, v)
				}
			}
		default:
			t.Errorf("%s is not for the collector", key)
		}
	}
	checkSubject(t, at(m, "event/finding/subject"), at(m, "event/finding/subject_b64"), e)
}

func checkSubject(t testing.TB, shown, exact any, e *pluginsdk.Event) {
	t.Helper()
	f := finding(e)
	switch {
	case f == nil:
	case utf8.ValidString(f.Subject):
		if s, _ := shown.(string); s != f.Subject || exact != nil {
			t.Errorf("subject %q of %q", shown, f.Subject)
		}
	default:
		b, err := base64.StdEncoding.DecodeString(exact.(string))
		if err != nil || string(b) != f.Subject {
			t.Errorf("subject %q of %q", b, f.Subject)
		}
	}
}

func TestBulk(t *testing.T) {
	for _, e := range everything() {
		checkBulk(t, encode(t, "bulk", opts, e), e)
	}
	for pattern, name := range map[string]string{"": "mobileops-2026.03.01", "logs-mobileops-default": "logs-mobileops-default", "x-{yyyy-MM-dd}": "x-2026-03-01", "x_{yyyy.MM.dd-HH}_y": "x_2026.03.01-03_y", "x-{yyyy}": "x-2026"} {
		o := opts
		o.Index = pattern
		e := ordinary()
		e.Time = e.Time.In(time.FixedZone("", -8*3600)) // another day there
		action, _, _ := strings.Cut(encode(t, "bulk", o, e), "\n")
		want(t, object(t, action), map[string]any{"create/_index": name, "create/_id": "01F-42"})
	}
	_, doc, _ := strings.Cut(encode(t, "bulk", opts, ordinary()), "\n")
	want(t, object(t, doc), map[string]any{"@timestamp": "2026-03-01T03:04:05.678901234Z", "event/kind": "alert", "event/severity": "5", "event/id": "01F-42", "event/dataset": "mobileops.finding",
		"event/category": []any{"file"}, "rule/id": "file-changed", "host/name": opts.Host, "message": "content changed: /etc/file 2", "file/path": "/etc/file 2",
		"log/level": "medium", "mobileops/finding/evidence": []any{"new: 2", "old: 1"}, "tags": []any{"fs", "boot"}})
	_, doc, _ = strings.Cut(encode(t, "bulk", opts, audited()), "\n")
	want(t, object(t, doc), map[string]any{"event/kind": "event", "event/action": "integrity baseline", "event/outcome": "success", "event/sequence": "17", "event/duration": "1500000000",
		"user/id": "0", "user/name": "root", "process/args": []any{"--name", "default"}, "mobileops/audit/actor/login_uid": "1000"})
	_, doc, _ = strings.Cut(encode(t, "bulk", opts, gap()), "\n")
	want(t, object(t, doc), map[string]any{"event/severity": "8", "mobileops/lost": "7", "event/id": nil})
}

func checkBulk(t testing.TB, s string, e *pluginsdk.Event) {
	t.Helper()
	lines := strings.Split(s, "\n")
	if len(lines) != 3 || lines[2] != "" {
		t.Fatalf("%d lines in %.300q", len(lines), s)
	}
	action := object(t, lines[0])
	if len(action) != 1 || at(action, "create/_index") == nil {
		t.Errorf("action %v", action)
	}
	doc := object(t, lines[1])
	if at(doc, "@timestamp") == nil || at(doc, "message") == nil {
		t.Errorf("document %.300q", lines[1])
	}
	checkSubject(t, at(doc, "mobileops/finding/subject"), at(doc, "mobileops/finding/subject_b64"), e)
}

// otlpValue is an AnyValue of OTLP.
type otlpValue struct {
	String *string `json:"stringValue"`
	Int    *int64  `json:"intValue,string"`
	Bytes  []byte  `json:"bytesValue"`
	Array  *struct {
		Values []otlpValue `json:"values"`
	} `json:"arrayValue"`
	List *struct {
		Values []otlpAttribute `json:"values"`
	} `json:"kvlistValue"`
}

type otlpAttribute struct {
	Key   string    `json:"key"`
	Value otlpValue `json:"value"`
}

// otlpRequest is what a collector reads: members that the protocol does not
// have are an error.
type otlpRequest struct {
	ResourceLogs []struct {
		Resource struct {
			Attributes []otlpAttribute `json:"attributes"`
		} `json:"resource"`
		ScopeLogs []struct {
			Scope struct {
				Name string `json:"name"`
			} `json:"scope"`
			LogRecords []otlpRecord `json:"logRecords"`
		} `json:"scopeLogs"`
	} `json:"resourceLogs"`
}

type otlpRecord struct {
	Time       uint64          `json:"timeUnixNano,string"`
	Observed   uint64          `json:"observedTimeUnixNano,string"`
	Number     int             `json:"severityNumber"`
	Text       string          `json:"severityText"`
	Body       otlpValue       `json:"body"`
	Attributes []otlpAttribute `json:"attributes"`
}

func (r otlpRecord) at(key string) otlpValue {
	for _, a := range r.Attributes {
		if a.Key == key {
			return a.Value
		}
	}
	return otlpValue{}
}

func parseOTLP(t testing.TB, s string) []otlpRecord {
	t.Helper()
	var r otlpRequest
	d := json.NewDecoder(strings.NewReader(s))
	d.DisallowUnknownFields()
	if err := d.Decode(&r); err != nil || len(r.ResourceLogs) != 1 || len(r.ResourceLogs[0].ScopeLogs) != 1 {
		t.Fatalf("%v in %.300q", err, s)
	}
	return r.ResourceLogs[0].ScopeLogs[0].LogRecords
}

func checkOTLP(t testing.TB, r otlpRecord, e *pluginsdk.Event) {
	t.Helper()
	if r.Body.String == nil || r.Number < 1 || r.Number > 24 {
		t.Errorf("%+v", r)
	}
	f := finding(e)
	if f == nil {
		return
	}
	if b := r.at("mobileops.finding.subject.bytes").Bytes; !utf8.ValidString(f.Subject) && string(b) != f.Subject {
		t.Errorf("subject %q of %q", b, f.Subject)
	}
	if s := r.at("mobileops.finding.subject").String; utf8.ValidString(f.Subject) && f.Subject != "" && (s == nil || *s != f.Subject) {
		t.Errorf("subject %v of %q", s, f.Subject)
	}
}

func TestOTLP(t *testing.T) {
	all := everything()
	batch := make([]pluginsdk.Event, len(all))
	for i, e := range all {
		one := parseOTLP(t, encode(t, "otlp", opts, e))
		if len(one) != 1 {
			t.Fatalf("%d records", len(one))
		}
		checkOTLP(t, one[0], e)
		batch[i] = *e
	}
	b, err := OTLPBatch([]byte("x"), batch, opts)
	if err != nil {
		t.Fatal(err)
	}
	records := parseOTLP(t, string(b[1:]))
	if len(records) != len(all) {
		t.Fatalf("%d records of %d", len(records), len(all))
	}
	for i, r := range records {
		checkOTLP(t, r, all[i])
	}
	r := records[0]
	if r.Time != uint64(t0.UnixNano()) || r.Number != 13 || r.Text != "medium" || *r.Body.String != "content changed: /etc/file 2" || *r.at("event.name").String != "mobileops.finding" ||
		len(r.at("mobileops.finding.evidence").List.Values) != 2 || len(r.at("mobileops.finding.tags").Array.Values) != 2 || *r.at("mobileops.finding.times_seen").Int != 3 {
		t.Errorf("%+v", r)
	}
	if r := records[1]; *r.at("mobileops.audit.sequence").Int != 17 || *r.at("user.name").String != "root" || r.Number != 9 {
		t.Errorf("%+v", r)
	}
	if b, err := OTLPBatch(nil, nil, opts); err != nil || len(parseOTLP(t, string(b))) != 0 {
		t.Errorf("%q, %v", b, err)
	}
	if b, err := OTLPBatch([]byte("x"), []pluginsdk.Event{*ordinary(), {Type: pluginsdk.TypeAudit}}, opts); err == nil || string(b) != "x" {
		t.Errorf("%q, %v", b, err)
	}
}

// TestPythonReadsTheSame holds all formats of JSON against a parser of others,
// which also refuses a name that is there twice.
func TestPythonReadsTheSame(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("python3 is missing: what we write as JSON is read by Go alone")
	}
	const program = `
import json, sys
def once(pairs):
    keys = [k for k, _ in pairs]
    assert len(keys) == len(set(keys)), keys
    return dict(pairs)
for line in sys.stdin.buffer:
    print(json.dumps(json.loads(line, object_pairs_hook=once), sort_keys=True))
`
	var in bytes.Buffer
	for _, name := range []string{"json", "hec", "bulk", "otlp"} {
		for _, e := range everything() {
			if f := finding(e); f != nil && !utf8.ValidString(f.Subject) {
				f.Evidence = nil // keys that differ only in what is no UTF-8 become one; the host has none
			}
			in.WriteString(strings.TrimSuffix(encode(t, name, opts, e), "\n") + "\n")
		}
	}
	cmd := exec.Command(python, "-c", program)
	cmd.Stdin = bytes.NewReader(in.Bytes())
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, stderr.String())
	}
	ours, theirs := strings.Split(strings.TrimSpace(in.String()), "\n"), strings.Split(strings.TrimSpace(string(out)), "\n")
	if len(ours) != len(theirs) {
		t.Fatalf("%d lines became %d", len(ours), len(theirs))
	}
	for i := range ours {
		if a, b := object(t, ours[i]), object(t, theirs[i]); !reflect.DeepEqual(a, b) {
			t.Errorf("%.300q was read as %.300q", ours[i], theirs[i])
		}
	}
}

func FuzzJSON(f *testing.F) {
	for _, h := range hostileTexts() {
		f.Add(h, h, h, h)
	}
	f.Fuzz(func(t *testing.T, title, subject, key, value string) {
		e := ordinary()
		e.Finding.Title, e.Finding.Subject, e.Finding.Rule, e.Finding.Owner = title, subject, value, key
		e.Finding.Evidence = map[string]string{key: value}
		for _, name := range []string{"json", "hec", "otlp", "bulk"} {
			record := encode(t, name, opts, e)
			harmless(t, name, strings.TrimSuffix(record, "\n"), map[string]string{"bulk": "\n"}[name])
			switch name {
			case "json":
				checkDocument(t, record, e)
			case "hec":
				checkHEC(t, record, e)
			case "bulk":
				checkBulk(t, record, e)
			case "otlp":
				checkOTLP(t, parseOTLP(t, record)[0], e)
			}
		}
	})
}
