package finding

import (
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/state"
	bolt "go.etcd.io/bbolt"
)

var t0 = time.Date(2026, 3, 1, 3, 0, 0, 123456789, time.UTC)

// store is a bbolt file like the one that state leases out.
type store struct {
	t  testing.TB
	db *bolt.DB
}

func newStore(t testing.TB) *store {
	t.Helper()
	db, err := bolt.Open(filepath.Join(t.TempDir(), "state.db"), 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return &store{t, db}
}

func (s *store) update(fn func(*state.Tx) error) {
	s.t.Helper()
	if err := s.db.Update(fn); err != nil {
		s.t.Fatal(err)
	}
}

func (s *store) report(scope string, now time.Time, want Summary, found ...Finding) {
	s.t.Helper()
	s.update(func(tx *state.Tx) error {
		got, err := Report(tx, "integrity", scope, found, now)
		if err == nil && got != want {
			s.t.Errorf("summary %+v, want %+v", got, want)
		}
		return err
	})
}

func (s *store) list(f Filter, now time.Time) (list []*Record) {
	s.t.Helper()
	if err := s.db.View(func(tx *state.Tx) (err error) {
		list, err = List(tx, f, now)
		return err
	}); err != nil {
		s.t.Fatal(err)
	}
	return list
}

func (s *store) only(now time.Time) *Record {
	s.t.Helper()
	list := s.list(Filter{}, now)
	if len(list) != 1 {
		s.t.Fatalf("%d records, want 1", len(list))
	}
	return list[0]
}

func (s *store) decide(fn func(*state.Tx) (*Record, error)) (r *Record, err error) {
	err = s.db.Update(func(tx *state.Tx) error {
		r, err = fn(tx)
		return err
	})
	return r, err
}

func (s *store) mustDecide(fn func(*state.Tx) (*Record, error)) {
	s.t.Helper()
	if _, err := s.decide(fn); err != nil {
		s.t.Fatal(err)
	}
}

func changed(path string, sev Severity) Finding {
	return Finding{Rule: "file-changed", Severity: sev, Title: "changed: " + path, Subject: path,
		Evidence: map[string]string{"old": "a", "new": "b"}, Tags: []string{"fs"}, Observed: t0}
}

func TestLifeOfAFinding(t *testing.T) {
	s := newStore(t)
	f := changed("/etc/passwd", Medium)
	day := func(n int) time.Time { return t0.AddDate(0, 0, n) }

	s.report("default", day(0), Summary{New: 1}, f)
	s.report("default", day(1), Summary{Seen: 1}, f)
	r := s.only(day(1))
	if !r.FirstSeen.Equal(day(0)) || !r.LastSeen.Equal(day(1)) || r.TimesSeen != 2 || r.State != Open {
		t.Fatalf("after two scans: %+v", r)
	}
	id := r.ID()

	// Acknowledged: stays so when seen again and when less severe, opens when more severe.
	s.mustDecide(func(tx *state.Tx) (*Record, error) { return Ack(tx, id, Decision{"ada", "on it", day(2)}) })
	s.report("default", day(3), Summary{Seen: 1}, changed("/etc/passwd", Low))
	s.report("default", day(4), Summary{Seen: 1}, f)
	if r := s.only(day(4)); r.State != Acknowledged || r.Reason != "on it" {
		t.Fatalf("acknowledged: %+v", r)
	}
	s.report("default", day(5), Summary{Reopened: 1}, changed("/etc/passwd", High))
	if r := s.only(day(5)); r.State != Open || r.Reason != "" || !strings.Contains(r.History[1].Why, "severity rose from medium to high") {
		t.Fatalf("more severe: %+v", r)
	}

	// Waived: open on read once the end has passed, and written down by the next scan.
	s.mustDecide(func(tx *state.Tx) (*Record, error) {
		return Waive(tx, id[:5], Decision{"ada", "vendor fix in May", day(6)}, "bob", day(10))
	})
	s.report("default", day(7), Summary{Seen: 1}, changed("/etc/passwd", High))
	if r := s.only(day(10).Add(-1)); r.State != Waived || r.Owner != "bob" || !r.WaivedUntil.Equal(day(10)) {
		t.Fatalf("waived: %+v", r)
	}
	if r := s.only(day(10)); r.State != Open || r.Owner != "" || !r.WaivedUntil.IsZero() || !r.Changed().Equal(day(10)) {
		t.Fatalf("waiver ended: %+v", r)
	}
	if n := len(s.list(Filter{States: []State{Open}}, day(11))); n != 1 {
		t.Errorf("filter by state sees %d open after the waiver ended", n)
	}
	s.report("default", day(12), Summary{Reopened: 1}, changed("/etc/passwd", High))
	s.report("default", day(13), Summary{Seen: 1}, changed("/etc/passwd", High))

	// A waiver does not cover a more severe finding.
	s.mustDecide(func(tx *state.Tx) (*Record, error) {
		return Waive(tx, id, Decision{"ada", "again", day(13)}, "bob", day(100))
	})
	s.report("default", day(14), Summary{Reopened: 1}, changed("/etc/passwd", Critical))

	// Gone, and back.
	s.report("default", day(15), Summary{Resolved: 1})
	s.report("default", day(16), Summary{})
	if r := s.only(day(16)); r.State != Resolved || len(r.Scopes) != 0 || r.TimesSeen != 9 {
		t.Fatalf("resolved: %+v", r)
	}
	if _, err := s.decide(func(tx *state.Tx) (*Record, error) { return Ack(tx, id, Decision{"ada", "x", day(16)}) }); !errors.Is(err, ErrResolved) || failure.KindOf(err) != failure.No {
		t.Errorf("ack of a resolved finding: %v", err)
	}
	s.report("default", day(17), Summary{Reopened: 1}, f)
	r = s.only(day(17))
	if r.State != Open || !r.FirstSeen.Equal(day(0)) || r.ID() != id {
		t.Fatalf("came back: %+v", r)
	}
	var path []string
	for _, c := range r.History {
		path = append(path, c.To.String())
	}
	if got, want := strings.Join(path, " "), "acknowledged open waived open waived open resolved open"; got != want {
		t.Errorf("history %q, want %q", got, want)
	}
}

func TestReopenTakesBack(t *testing.T) {
	s := newStore(t)
	s.report("", t0, Summary{New: 1}, changed("/a", Low))
	id := s.only(t0).ID()
	if _, err := s.decide(func(tx *state.Tx) (*Record, error) { return Reopen(tx, id, Decision{"ada", "x", t0}) }); !errors.Is(err, ErrAlready) || failure.KindOf(err) != failure.Busy {
		t.Errorf("reopen of an open finding: %v", err)
	}
	ack := func(tx *state.Tx) (*Record, error) { return Ack(tx, id, Decision{"ada", "x", t0}) }
	s.mustDecide(ack)
	if _, err := s.decide(ack); !errors.Is(err, ErrAlready) || !strings.Contains(err.Error(), "by ada on 2026-03-01") {
		t.Errorf("ack twice: %v", err)
	}
	r, err := s.decide(func(tx *state.Tx) (*Record, error) {
		return Reopen(tx, strings.ToUpper(id), Decision{"bob", "not so fast", t0})
	})
	if err != nil || r.State != Open || r.History[1].Who != "bob" {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestDecisionsAreRefused(t *testing.T) {
	s := newStore(t)
	s.report("", t0, Summary{New: 1}, changed("/a", Low))
	id := s.only(t0).ID()
	good := Decision{"ada", "why", t0}
	later := t0.Add(time.Hour)
	for name, fn := range map[string]func(*state.Tx) (*Record, error){
		"no reason": func(tx *state.Tx) (*Record, error) { return Ack(tx, id, Decision{"ada", " \n", t0}) },
		"no who":    func(tx *state.Tx) (*Record, error) { return Reopen(tx, id, Decision{"", "x", t0}) },
		"long reason": func(tx *state.Tx) (*Record, error) {
			return Ack(tx, id, Decision{"a", strings.Repeat("x", MaxText+1), t0})
		},
		"no owner":      func(tx *state.Tx) (*Record, error) { return Waive(tx, id, good, "", later) },
		"no expiry":     func(tx *state.Tx) (*Record, error) { return Waive(tx, id, good, "bob", time.Time{}) },
		"expiry past":   func(tx *state.Tx) (*Record, error) { return Waive(tx, id, good, "bob", t0) },
		"expiry absurd": func(tx *state.Tx) (*Record, error) { return Waive(tx, id, good, "bob", t0.AddDate(9000, 0, 0)) },
		"short id":      func(tx *state.Tx) (*Record, error) { return Ack(tx, id[:3], good) },
		"no hex":        func(tx *state.Tx) (*Record, error) { return Ack(tx, "xyzw", good) },
	} {
		if _, err := s.decide(fn); failure.KindOf(err) != failure.Usage {
			t.Errorf("%s: %v", name, err)
		}
	}
	if r := s.only(t0); r.State != Open || len(r.History) != 0 {
		t.Errorf("a refused decision left a trace: %+v", r)
	}
}

func TestScopesResolveOnlyTheirOwn(t *testing.T) {
	s := newStore(t)
	a, b := changed("/a", Low), changed("/b", Low)
	s.report("one", t0, Summary{New: 2}, a, b)
	s.report("two", t0, Summary{Seen: 1}, b)
	s.report("one", t0, Summary{Resolved: 1}) // /b is still seen by "two"
	if got := s.list(Filter{States: []State{Open}}, t0); len(got) != 1 || got[0].Subject != "/b" {
		t.Fatalf("open: %+v", got)
	}
	s.update(func(tx *state.Tx) error { // another source with the same scope name
		got, err := Report(tx, "scan", "two", nil, t0)
		if got != (Summary{}) {
			t.Errorf("another source resolved: %+v", got)
		}
		return err
	})
	s.update(func(tx *state.Tx) error {
		got, err := ReportPartial(tx, "integrity", "two", []Finding{a}, t0)
		if got != (Summary{Reopened: 1}) {
			t.Errorf("partial scan: %+v", got)
		}
		return err
	})
	s.report("two", t0, Summary{Resolved: 2})
}

func TestReportRefusesAndRollsBack(t *testing.T) {
	s := newStore(t)
	for name, f := range map[string]Finding{
		"no rule":        {Subject: "/a"},
		"long rule":      {Subject: "/a", Rule: strings.Repeat("r", MaxName+1)},
		"foreign source": {Subject: "/a", Rule: "r", Source: "scan"},
		"severity":       {Subject: "/a", Rule: "r", Severity: 9},
	} {
		err := s.db.Update(func(tx *state.Tx) error {
			_, err := Report(tx, "integrity", "", []Finding{changed("/ok", Low), f}, t0)
			return err
		})
		if !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if n := len(s.list(Filter{}, t0)); n != 0 {
		t.Errorf("%d records after refused reports", n)
	}
}

func TestDuplicatesCountOnce(t *testing.T) {
	s := newStore(t)
	s.report("", t0, Summary{New: 1}, changed("/a", Low), changed("/a", Critical), changed("/a", Medium))
	if r := s.only(t0); r.Severity != Critical || r.TimesSeen != 1 {
		t.Errorf("%+v", r)
	}
}

func TestEmptyStore(t *testing.T) {
	s := newStore(t)
	if n := len(s.list(Filter{}, t0)); n != 0 {
		t.Error(n)
	}
	if err := s.db.View(func(tx *state.Tx) error { _, err := Get(tx, "abcd", t0); return err }); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
}

func TestDamagedRecordIsUntrustworthy(t *testing.T) {
	s := newStore(t)
	s.report("", t0, Summary{New: 1}, changed("/a", Low))
	key := s.only(t0).Fingerprint
	s.update(func(tx *state.Tx) error {
		b, err := openBuckets(tx)
		v := slices.Clone(b.records.Get(key[:]))
		return errors.Join(err, b.records.Put(key[:], v[:len(v)-3]))
	})
	err := s.db.View(func(tx *state.Tx) error { _, err := List(tx, Filter{}, t0); return err })
	var d *DecodeError
	if failure.KindOf(err) != failure.Untrustworthy || !errors.As(err, &d) || d.Offset == 0 {
		t.Errorf("%v", err)
	}
}
