package sla

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/mobileops/mobileops/internal/audit"
	"github.com/mobileops/mobileops/internal/change"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/finding"
	"github.com/mobileops/mobileops/internal/state"
)

// sudo is somebody who logged in and became root.
func sudo(name string, login int64) change.Identity {
	return change.Identity{Actor: audit.Actor{UID: 0, User: "root", LoginUID: login}, LoginUser: name}
}

var (
	alice = sudo("alice", 1001)
	bob   = sudo("bob", 1002)
)

const overdueID = "package/platform/CVE-1"

// overdue is a store with an advisory that is overdue at now.
func overdue(t *testing.T) (store *state.Store, now time.Time) {
	t.Helper()
	store = state.New(t.TempDir(), state.Options{})
	observe(t, store, advisories(Advisory{Advisory: "CVE-1", Severity: High}, Advisory{Advisory: "CVE-11", Severity: Low}), noon)
	return store, noon.Add(31 * day)
}

func try(t *testing.T, store *state.Store, fn func(tx *state.Tx) error) error {
	t.Helper()
	return store.Update(context.Background(), fn)
}

func waive(t *testing.T, store *state.Store, w Waiver, by change.Identity, now time.Time) error {
	t.Helper()
	return try(t, store, func(tx *state.Tx) error { _, err := ledger.Waive(tx, overdueID, w, by, now); return err })
}

func approve(t *testing.T, store *state.Store, by change.Identity, people *change.People, now time.Time) error {
	t.Helper()
	return try(t, store, func(tx *state.Tx) error { _, err := ledger.Approve(tx, overdueID, by, people, now); return err })
}

func stateAt(t *testing.T, store *state.Store, now time.Time) State {
	t.Helper()
	for _, e := range list(t, store, Filter{}, now) {
		if e.ID() == overdueID {
			return e.State
		}
	}
	t.Fatal("it is gone")
	return ""
}

func TestAWaiverNeedsEverything(t *testing.T) {
	store, now := overdue(t)
	good := Waiver{Owner: "carol", Reason: "the modem fails with it", Until: now.Add(10 * day)}
	for _, c := range []struct {
		lacks string
		spoil func(w *Waiver)
	}{
		{"owner", func(w *Waiver) { w.Owner = " " }}, {"reason", func(w *Waiver) { w.Reason = "" }}, {"end", func(w *Waiver) { w.Until = time.Time{} }},
		{"in the past", func(w *Waiver) { w.Until = now }}, {"longer than 366 days", func(w *Waiver) { w.Until = now.Add(MaxWaiver + time.Second) }},
		{"bytes", func(w *Waiver) { w.Reason = strings.Repeat("x", MaxText+1) }},
	} {
		w := good
		c.spoil(&w)
		if err := waive(t, store, w, alice, now); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), c.lacks) {
			t.Errorf("without %s: %v", c.lacks, err)
		}
	}
	for _, word := range []string{"package/platform/CVE-2", "nothing", ""} {
		if err := try(t, store, func(tx *state.Tx) error { _, err := ledger.Waive(tx, word, good, alice, now); return err }); !errors.Is(err, ErrNotFound) {
			t.Errorf("%q: %v", word, err)
		}
	}
	if err := try(t, store, func(tx *state.Tx) error { _, err := ledger.Waive(tx, "platform", good, alice, now); return err }); failure.KindOf(err) != failure.Usage || !strings.Contains(err.Error(), "CVE-11") {
		t.Errorf("what can mean two: %v", err)
	}
	if s := stateAt(t, store, now); s != Overdue {
		t.Errorf("it is %s", s)
	}
}

func TestAWaiverNeedsTwoPeople(t *testing.T) {
	store, now := overdue(t)
	if err := approve(t, store, bob, nil, now); failure.KindOf(err) != failure.No {
		t.Errorf("nothing to approve: %v", err)
	}
	if err := waive(t, store, Waiver{Owner: "carol", Reason: "r", Until: now.Add(10 * day)}, alice, now); err != nil {
		t.Fatal(err)
	}
	if s := stateAt(t, store, now); s != Overdue {
		t.Errorf("a waiver that nobody approved makes it %s", s)
	}
	people, err := change.ParsePeople([]byte("people: [{name: Alice A, accounts: [\"1001\", \"1009\"]}]"), nil)
	if err != nil {
		t.Fatal(err)
	}
	nobody := change.Identity{Actor: audit.Actor{UID: 0, User: "root", LoginUID: -1}}
	for name, c := range map[string]struct {
		by   change.Identity
		want error
	}{
		"who asked": {alice, change.ErrSamePerson}, "her own account": {change.Identity{Actor: audit.Actor{UID: 1001, User: "alice", LoginUID: 1001}}, change.ErrSamePerson},
		"her second account": {sudo("admin2", 1009), change.ErrSamePerson}, "without a login": {nobody, change.ErrUntold},
		"the owner": {sudo("Carol", 1003), change.ErrSamePerson},
	} {
		if err := approve(t, store, c.by, people, now); !errors.Is(err, c.want) || failure.KindOf(err) != failure.NotAllowed {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := approve(t, store, bob, people, now); err != nil {
		t.Fatal(err)
	}
	if s := stateAt(t, store, now); s != Waived {
		t.Errorf("it is %s", s)
	}
	if s := stateAt(t, store, now.Add(10*day)); s != Waived {
		t.Errorf("at its end it is %s", s)
	}
	if s := stateAt(t, store, now.Add(10*day+1)); s != Overdue {
		t.Errorf("after its end it is %s", s)
	}
	// One that root asked for, without a login, could be anybody's.
	if err := waive(t, store, Waiver{Owner: "carol", Reason: "r", Until: now.Add(20 * day)}, nobody, now); err != nil {
		t.Fatal(err)
	}
	if err := approve(t, store, bob, people, now); !errors.Is(err, change.ErrUntold) {
		t.Errorf("%v", err)
	}
	if s := stateAt(t, store, now); s != Waived {
		t.Errorf("asking anew made it %s", s)
	}
	if err := approve(t, store, bob, people, now.Add(20*day)); failure.KindOf(err) != failure.No {
		t.Errorf("one that would have ended: %v", err)
	}
	take := func(reason string) error {
		return try(t, store, func(tx *state.Tx) error { _, err := ledger.Unwaive(tx, overdueID, reason, bob, now); return err })
	}
	if err := take(""); !errors.Is(err, ErrInvalid) {
		t.Errorf("without a reason: %v", err)
	}
	if err := take("no need"); err != nil || stateAt(t, store, now) != Overdue {
		t.Errorf("%v, %s", err, stateAt(t, store, now))
	}
	if err := take("again"); failure.KindOf(err) != failure.Busy {
		t.Errorf("nothing to take back: %v", err)
	}
}

func TestAWaiverEndsWithItsSeverity(t *testing.T) {
	store, now := overdue(t)
	if err := waive(t, store, Waiver{Owner: "carol", Reason: "r", Until: now.Add(10 * day)}, alice, now); err != nil {
		t.Fatal(err)
	}
	if err := approve(t, store, bob, nil, now); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		severity Severity
		want     State
	}{{Critical, Overdue}, {High, Waived}, {Low, Waived}} {
		observe(t, store, advisories(Advisory{Advisory: "CVE-1", Severity: c.severity}), now)
		if s := stateAt(t, store, now); s != c.want {
			t.Errorf("at %s it is %s", c.severity, s)
		}
	}
	observe(t, store, advisories(Advisory{Advisory: "CVE-1", Severity: High}), now)
	observe(t, store, advisories(), now.Add(day))
	if e := list(t, store, Filter{}, now)[0]; e.Outcome != UnderWaiver {
		t.Errorf("%+v", e.Record)
	}
	if err := approve(t, store, bob, nil, now); !errors.Is(err, ErrFixed) {
		t.Errorf("%v", err)
	}
}

func TestFindingsFollow(t *testing.T) {
	store, now := overdue(t)
	stored := func(at time.Time) finding.State {
		t.Helper()
		var got finding.State
		update(t, store, func(tx *state.Tx) error {
			if _, err := ledger.Report(tx, at); err != nil {
				return err
			}
			list, err := finding.List(tx, finding.Filter{Sources: []string{"update"}}, at)
			if err == nil && len(list) != 1 {
				t.Fatalf("%d findings", len(list))
			}
			if err == nil {
				got = list[0].State
				if f := list[0]; f.Rule != "patch-overdue" || f.Severity != finding.High || f.Subject != overdueID || f.Evidence["due"] != "2026-12-22T12:00:00Z" {
					t.Errorf("%+v", f)
				}
			}
			return err
		})
		return got
	}
	if s := stored(now); s != finding.Open {
		t.Errorf("it is %s", s)
	}
	// Somebody knows; the next day is no news.
	update(t, store, func(tx *state.Tx) error {
		list, err := finding.List(tx, finding.Filter{}, now)
		if err == nil {
			_, err = finding.Ack(tx, list[0].ID(), finding.Decision{Who: "x", Reason: "y", At: now})
		}
		return err
	})
	if s := stored(now.Add(day)); s != finding.Acknowledged {
		t.Errorf("a day later it is %s", s)
	}
	if err := waive(t, store, Waiver{Owner: "carol", Reason: "r", Until: now.Add(10 * day)}, alice, now); err != nil {
		t.Fatal(err)
	}
	if err := approve(t, store, bob, nil, now); err != nil {
		t.Fatal(err)
	}
	if s := stored(now.Add(2 * day)); s != finding.Resolved {
		t.Errorf("waived, it is %s", s)
	}
	if s := stored(now.Add(11 * day)); s != finding.Open {
		t.Errorf("when the waiver ended it is %s", s)
	}
	observe(t, store, advisories(), now.Add(12*day))
	if s := stored(now.Add(12 * day)); s != finding.Resolved {
		t.Errorf("fixed, it is %s", s)
	}
}

func TestEventsAreBounded(t *testing.T) {
	store, now := overdue(t)
	for i := range 3 * MaxEvents {
		if err := waive(t, store, Waiver{Owner: "carol", Reason: strings.Repeat("r", MaxText), Until: now.Add(10 * day)}, alice, now.Add(time.Duration(i)*time.Second)); err != nil {
			t.Fatal(err)
		}
	}
	e := list(t, store, Filter{}, now)[0]
	if len(e.Events) != MaxEvents || e.Events[0].What != "first known here" {
		t.Errorf("%d events, the first of them %q", len(e.Events), e.Events[0].What)
	}
}
