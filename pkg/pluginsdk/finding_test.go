package pluginsdk

import (
	"encoding/json"
	"reflect"
	"testing"
	"time"

	"github.com/mobileops/mobileops/internal/finding"
)

func roundTrip(t testing.TB, e Event) Event {
	t.Helper()
	raw, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	var again Event
	if err := json.Unmarshal(raw, &again); err != nil {
		t.Fatalf("%v: %s", err, raw)
	}
	return again
}

// The product's own types and those of this package read each other's JSON,
// without loss of bytes that are no UTF-8.
func TestFindingJSONIsThatOfTheProduct(t *testing.T) {
	at := time.Date(2026, 3, 4, 5, 6, 7, 89, time.UTC)
	theirs := finding.Record{
		Finding: finding.Finding{
			Source: "integrity", Rule: "file-changed", Severity: finding.High, Title: "a <b> & \u2028 c",
			Subject: "/tmp/\xff\xfe\n", Evidence: map[string]string{"a": "\x80", "b": "text"},
			Remediation: "look", References: []string{"https://example.org"}, Tags: []string{"t"}, Observed: at,
		},
		FirstSeen: at, LastSeen: at.Add(time.Hour), TimesSeen: 3, State: finding.Waived, Owner: "ann", Reason: "known",
		WaivedUntil: at.Add(24 * time.Hour), Scopes: []string{"default"}, Forgotten: 2, Truncated: true,
		History: []finding.Change{{At: at, Who: "ann", From: finding.Open, To: finding.Waived, Severity: finding.Low, Why: "x"}},
	}
	theirs.Fingerprint = theirs.Finding.Fingerprint()
	raw, err := json.Marshal(theirs)
	if err != nil {
		t.Fatal(err)
	}
	var ours Finding
	if err := json.Unmarshal(raw, &ours); err != nil {
		t.Fatal(err)
	}
	want := Finding{
		Source: "integrity", Rule: "file-changed", Severity: High, Title: "a <b> & \u2028 c",
		Subject: "/tmp/\xff\xfe\n", Evidence: map[string]string{"a": "\x80", "b": "text"},
		Remediation: "look", References: []string{"https://example.org"}, Tags: []string{"t"}, Observed: at,
		ID: theirs.ID(), Fingerprint: theirs.Fingerprint.String(), FirstSeen: at, LastSeen: at.Add(time.Hour), TimesSeen: 3,
		State: Waived, Owner: "ann", Reason: "known", WaivedUntil: at.Add(24 * time.Hour), Scopes: []string{"default"},
		Forgotten: 2, Truncated: true, History: []StateChange{{At: at, Who: "ann", From: Open, To: Waived, Severity: Low, Why: "x"}},
	}
	if !reflect.DeepEqual(ours, want) {
		t.Errorf("\n got %+v\nwant %+v", ours, want)
	}
	if raw, err = json.Marshal(ours); err != nil {
		t.Fatal(err)
	}
	var back finding.Record
	if err := json.Unmarshal(raw, &back); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(back, theirs) {
		t.Errorf("\n got %+v\nwant %+v", back, theirs)
	}
}

// What a plugin reports is what a sensor of the product would.
func TestReportedFindingIsOneOfTheProduct(t *testing.T) {
	ours := Finding{Rule: "r", Severity: Critical, Title: "t", Subject: "\xff", Evidence: map[string]string{"k": "\xfe"}, ID: "ignored"}
	w := ours.reported()
	raw, err := json.Marshal(&w)
	if err != nil {
		t.Fatal(err)
	}
	var theirs finding.Finding
	if err := json.Unmarshal(raw, &theirs); err != nil {
		t.Fatal(err)
	}
	want := finding.Finding{Rule: "r", Severity: finding.Critical, Title: "t", Subject: "\xff", Evidence: map[string]string{"k": "\xfe"}}
	if !reflect.DeepEqual(theirs, want) {
		t.Errorf("%+v", theirs)
	}
}

func TestSeveritiesAreThoseOfTheProduct(t *testing.T) {
	theirs := finding.Severities()
	for i, s := range Severities() {
		if s.String() != theirs[i].String() || int(s) != int(theirs[i]) {
			t.Errorf("%v is %v", s, theirs[i])
		}
		if got, err := ParseSeverity(s.String()); err != nil || got != s {
			t.Errorf("%v, %v", got, err)
		}
	}
	if _, err := ParseSeverity("worst"); err == nil {
		t.Error("an unknown severity was read")
	}
}

func TestEventsRoundTrip(t *testing.T) {
	at := time.Date(2026, 3, 4, 5, 6, 7, 123456789, time.UTC)
	for _, e := range []Event{
		{ID: "f-1", Type: TypeFinding, Time: at, Change: ChangeOpened, Finding: &Finding{Rule: "r", Subject: "\xff", Observed: at}},
		{ID: "a-1", Type: TypeAudit, Time: at, Audit: &AuditRecord{
			Sequence: 7, Hash: "ab", Time: at, Actor: Actor{UID: 1, User: "ann", LoginUID: -1, TTY: "pts/1", Remote: "::1"},
			Command: "update apply", Args: []string{"ok", "\xff"}, Status: 3, Result: "no", Elapsed: 1500 * time.Millisecond,
		}},
		{Type: TypeGap, Lost: 12},
	} {
		if got := roundTrip(t, e); !reflect.DeepEqual(got, e) {
			t.Errorf("\n got %+v\nwant %+v", got, e)
		}
	}
	raw, err := json.Marshal(Batch{Events: []Event{{Type: TypeGap, Lost: 1}}, Cursor: "c"})
	var b Batch
	if err == nil {
		err = json.Unmarshal(raw, &b)
	}
	if err != nil || b.Cursor != "c" || len(b.Events) != 1 || b.Events[0].Lost != 1 {
		t.Errorf("%+v, %v", b, err)
	}
}
