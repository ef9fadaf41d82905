package packed

import (
	"reflect"
	"testing"
	"time"

	"github.com/mobileops/mobileops/pkg/pluginsdk"
)

func events() []pluginsdk.Event {
	at := time.Date(2026, 3, 4, 5, 6, 7, 891011121, time.UTC)
	return []pluginsdk.Event{
		{ID: "f-1", Type: pluginsdk.TypeFinding, Time: at, Change: pluginsdk.ChangeOpened, Finding: &pluginsdk.Finding{
			Source: "integrity", Rule: "file-changed", Severity: pluginsdk.High, Title: "changed", Subject: "/etc/\xffpasswd",
			Evidence: map[string]string{"digest": "a → b", "owner": "dpkg", "empty": ""}, Remediation: "look", References: []string{"CVE-2026-1"},
			Tags: []string{"a", "b"}, Observed: at, ID: "634b91900b", Fingerprint: "634b91900b9c2ddccd8c0bbe0327e83e", State: pluginsdk.Waived,
			FirstSeen: at, LastSeen: at.Add(time.Hour), TimesSeen: 1 << 40, Owner: "me", Reason: "because", WaivedUntil: at.AddDate(1, 0, 0),
			Scopes: []string{"default"}, History: []pluginsdk.StateChange{{At: at, Who: "root", From: pluginsdk.Open, To: pluginsdk.Waived, Severity: pluginsdk.Critical, Why: "x"}},
			Forgotten: 3, Truncated: true,
		}},
		{ID: "a-1", Type: pluginsdk.TypeAudit, Time: at, Audit: &pluginsdk.AuditRecord{
			Sequence: 7, Hash: "ab", Time: at, Actor: pluginsdk.Actor{UID: -1, User: "u", LoginUID: -1, TTY: "pts/0", Remote: "::1"},
			Command: "update apply", Args: []string{"--x", "\xfe"}, Status: 130, Result: "done", Elapsed: 1500 * time.Millisecond,
		}},
		{ID: "g", Type: pluginsdk.TypeGap, Lost: 12},
		{},
	}
}

func TestWhatIsReadIsWhatWasWritten(t *testing.T) {
	var slot Slot
	for range 2 { // the second time the slot has things in it
		for _, want := range events() {
			got, err := slot.Read(Append(nil, &want))
			if err != nil {
				t.Fatalf("%s: %v", want.ID, err)
			}
			if !reflect.DeepEqual(*got, want) {
				t.Errorf("got  %+v %+v\nwant %+v %+v", got, got.Finding, want, want.Finding)
			}
		}
	}
}

func TestEveryCutIsNoticed(t *testing.T) {
	var slot Slot
	for _, e := range events() {
		b := Append(nil, &e)
		for n := range b {
			if _, err := slot.Read(b[:n]); err == nil {
				t.Errorf("%s: %d of %d bytes are taken for an event", e.ID, n, len(b))
			}
		}
		if _, err := slot.Read(append(b, 0)); err == nil {
			t.Errorf("%s: a byte too many is not noticed", e.ID)
		}
	}
}

func FuzzRead(f *testing.F) {
	for _, e := range events() {
		f.Add(Append(nil, &e))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var slot, again Slot
		e, err := slot.Read(b)
		if err != nil {
			return
		}
		back, err := again.Read(Append(nil, e))
		if err != nil || !reflect.DeepEqual(e, back) {
			t.Fatalf("%+v became %+v (%v)", e, back, err)
		}
	})
}

func BenchmarkRead(b *testing.B) {
	e := events()[0]
	raw := Append(nil, &e)
	var slot Slot
	b.ReportAllocs()
	for b.Loop() {
		if _, err := slot.Read(raw); err != nil {
			b.Fatal(err)
		}
	}
}
