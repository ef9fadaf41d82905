package finding

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/state"
)

// TestOutlinesAreThoseOfTheRecords: an outline says of each record what the
// whole record says.
func TestOutlinesAreThoseOfTheRecords(t *testing.T) {
	store := state.New(t.TempDir(), state.Options{})
	now := time.Date(2026, 5, 1, 0, 0, 0, 0, time.UTC)
	var found []Finding
	for i := range 300 {
		found = append(found, Finding{
			Source: "integrity", Rule: fmt.Sprintf("rule-%d", i%7), Severity: Severity(i % 5), Title: "t", Subject: fmt.Sprintf("/etc/%d\xff", i),
			Evidence: map[string]string{"a": "1", "b": fmt.Sprint(i)}, Remediation: "r", References: []string{"x"}, Tags: []string{"y", "z"}, Observed: now,
		})
	}
	later := now.Add(48 * time.Hour)
	err := store.Update(t.Context(), func(tx *state.Tx) error {
		for i, scope := range []string{"baseline:a", "baseline:b"} {
			if _, err := Report(tx, "integrity", scope, found[i*100:200+i*100], now); err != nil {
				return err
			}
		}
		list, err := List(tx, Filter{}, now)
		if err != nil {
			return err
		}
		for i, r := range list {
			switch i % 4 {
			case 1:
				_, err = Ack(tx, r.Fingerprint.String(), Decision{Who: "root", Reason: "known", At: now})
			case 2:
				_, err = Waive(tx, r.Fingerprint.String(), Decision{Who: "root", Reason: "accepted", At: now}, "owner", now.Add(24*time.Hour*time.Duration(1+i%3)))
			}
			if err != nil {
				return err
			}
		}
		_, err = Report(tx, "integrity", "baseline:a", found[:50], now)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	text := func(source, rule string, s Severity, st State, scopes []string) string {
		return fmt.Sprintln(source, rule, s, st, scopes)
	}
	err = store.View(t.Context(), func(tx *state.Tx) error {
		list, err := List(tx, Filter{}, later)
		if err != nil {
			return err
		}
		var want, got []string
		for _, r := range list {
			want = append(want, text(r.Source, r.Rule, r.Severity, r.State, r.Scopes))
		}
		err = Outlines(tx, later, func(o *Outline) error {
			got = append(got, text(o.Source, o.Rule, o.Severity, o.State, o.Scopes))
			return nil
		})
		slices.Sort(want)
		slices.Sort(got)
		if !slices.Equal(got, want) || len(got) != 300 {
			t.Errorf("%d outlines, %d records\n%v\n%v", len(got), len(want), got[:5], want[:5])
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func FuzzOutline(f *testing.F) {
	r := &Record{Finding: Finding{Source: "s", Rule: "r", Subject: "x", Evidence: map[string]string{"a": "b"}, Tags: []string{"t"}}, Scopes: []string{"one", "two"}}
	f.Add(appendRecord(nil, r))
	f.Add([]byte{codecVersion, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		d := outliner{known: map[string]string{}, decoder: decoder{b: b}}
		d.read(time.Unix(0, 0))
		whole, err := decodeRecord(Fingerprint{}, b)
		if err != nil {
			return // it may be damaged behind what an outline has
		}
		whole.expire(time.Unix(0, 0))
		if d.err != nil || d.outline.Source != whole.Source || d.outline.State != whole.State || d.outline.Severity != whole.Severity || !slices.Equal(d.outline.Scopes, whole.Scopes) {
			t.Fatalf("%+v, %v, but %+v", d.outline, d.err, whole)
		}
	})
}

func TestOutlinesOfADamagedRecord(t *testing.T) {
	store := state.New(t.TempDir(), state.Options{})
	err := store.Update(t.Context(), func(tx *state.Tx) error {
		b, err := openBuckets(tx)
		if err != nil {
			return err
		}
		if err := b.records.Put(make([]byte, 16), []byte{codecVersion, 9, 'x'}); err != nil {
			return err
		}
		err = Outlines(tx, time.Now(), func(*Outline) error { return nil })
		if failure.KindOf(err) != failure.Untrustworthy {
			t.Errorf("%v", err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
