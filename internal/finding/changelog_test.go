package finding

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/state"
)

// logOf reads the whole log after an entry, in pages as a reader does.
func (s *store) logOf(after uint64) (all []LogEntry, lost uint64) {
	s.t.Helper()
	if err := s.db.View(func(tx *state.Tx) error {
		for {
			page, gone, err := Changes(tx, after, 1000, 1<<20)
			if err != nil || len(page) == 0 {
				return err
			}
			all, lost = append(all, page...), lost+gone
			after = page[len(page)-1].Sequence
		}
	}); err != nil {
		s.t.Fatal(err)
	}
	return all, lost
}

func words(log []LogEntry) string {
	var list []string
	for _, e := range log {
		list = append(list, e.Event.String())
	}
	return strings.Join(list, " ")
}

func TestEveryChangeIsLoggedAsItWasThen(t *testing.T) {
	s := newStore(t)
	day := func(n int) time.Time { return t0.AddDate(0, 0, n) }
	f := changed("/etc/passwd", Medium)
	s.report("a", day(0), Summary{New: 1}, f)
	s.report("a", day(1), Summary{Seen: 1}, f) // no news
	s.report("b", day(1), Summary{Seen: 1}, f) // nor is another scope
	id := s.only(day(1)).ID()
	s.report("a", day(2), Summary{Seen: 1}, changed("/etc/passwd", Low))
	s.mustDecide(func(tx *state.Tx) (*Record, error) { return Ack(tx, id, Decision{"ada", "on it", day(3)}) })
	s.report("a", day(4), Summary{Reopened: 1}, changed("/etc/passwd", High))
	s.mustDecide(func(tx *state.Tx) (*Record, error) {
		return Waive(tx, id, Decision{"ada", "vendor", day(5)}, "bob", day(9))
	})
	s.report("a", day(6), Summary{Seen: 1}, changed("/etc/passwd", High))
	s.report("a", day(7), Summary{}) // b still sees it
	// The waiver has ended, which a scan of one of the scopes writes down.
	s.report("a", day(10), Summary{Reopened: 1}, changed("/etc/passwd", High))
	s.mustDecide(func(tx *state.Tx) (*Record, error) {
		return Waive(tx, id, Decision{"ada", "again", day(11)}, "bob", day(12))
	})
	s.report("a", day(13), Summary{}) // ended again, and a lets go of it
	s.mustDecide(func(tx *state.Tx) (*Record, error) { return Ack(tx, id, Decision{"ada", "on it", day(14)}) })
	s.mustDecide(func(tx *state.Tx) (*Record, error) { return Reopen(tx, id, Decision{"ada", "not mine", day(15)}) })
	s.update(func(tx *state.Tx) error {
		_, err := Resolve(tx, "integrity", "b", []Finding{f}, "removed", day(16))
		return err
	})
	s.report("a", day(17), Summary{Reopened: 1}, f)
	// A decision that fails logs nothing.
	if _, err := s.decide(func(tx *state.Tx) (*Record, error) { return Reopen(tx, id, Decision{"ada", "x", day(18)}) }); !errors.Is(err, ErrAlready) {
		t.Fatal(err)
	}

	log, lost := s.logOf(0)
	want := "opened changed acknowledged reopened waived reopened waived reopened acknowledged reopened resolved reopened"
	if got := words(log); got != want || lost != 0 {
		t.Fatalf("log has %s, %d lost; want %s", got, lost, want)
	}
	for i, e := range log {
		if e.Sequence != uint64(i+1) || e.Record.ID() != id || e.Record.Subject != "/etc/passwd" {
			t.Errorf("entry %d: sequence %d, %s %q", i, e.Sequence, e.Record.ID(), e.Record.Subject)
		}
		if len(e.Record.History) > 1 {
			t.Errorf("entry %d has %d changes of its history", i, len(e.Record.History))
		}
	}
	for i, want := range []struct {
		at       time.Time
		severity Severity
		state    State
		reason   string
	}{
		{day(0), Medium, Open, ""}, {day(2), Low, Open, ""}, {day(3), Low, Acknowledged, "on it"},
		{day(4), High, Open, ""}, {day(5), High, Waived, "vendor"}, {day(10), High, Open, ""},
	} {
		if e := log[i]; !e.At.Equal(want.at) || e.Record.Severity != want.severity || e.Record.State != want.state || e.Record.Reason != want.reason {
			t.Errorf("entry %d: %v %v %v %q, want %+v", i, e.At, e.Record.Severity, e.Record.State, e.Record.Reason, want)
		}
	}
	if r := log[5].Record; r.Forgotten == 0 || r.History[0].Why != "the waiver ended" {
		t.Errorf("history of an entry: %+v, %d forgotten", r.History, r.Forgotten)
	}
}

func TestNothingIsLoggedByWhatIsRolledBackOrSeenAgain(t *testing.T) {
	s := newStore(t)
	s.report("", t0, Summary{New: 50}, many(50)...)
	failed := errors.New("rolled back")
	if err := s.db.Update(func(tx *state.Tx) error {
		_, err := Report(tx, "integrity", "", nil, t0)
		return errors.Join(err, failed)
	}); !errors.Is(err, failed) {
		t.Fatal(err)
	}
	s.report("", t0, Summary{Seen: 50}, many(50)...)
	if log, _ := s.logOf(0); len(log) != 50 {
		t.Errorf("%d entries, want 50", len(log))
	}
}

func TestLogIsBoundedAndSaysWhatIsLost(t *testing.T) {
	s := newStore(t)
	r := &Record{Finding: changed("/etc/passwd", Low)}
	stored := appendRecord(nil, r)
	write := func(n, pad int) {
		s.update(func(tx *state.Tx) error {
			l, err := openLog(tx)
			for i := 0; i < n && err == nil; i++ {
				err = l.append(r, append(stored[:len(stored):len(stored)], make([]byte, pad)...), EventOpened, t0)
			}
			return errors.Join(err, l.flush())
		})
	}
	bounds := func() (first, last uint64) {
		t.Helper()
		size := 0
		if err := s.db.View(func(tx *state.Tx) (err error) {
			if first, last, err = LogRange(tx); err != nil {
				return err
			}
			return tx.Bucket([]byte(logName)).ForEach(func(k, v []byte) error { size += len(k) + len(v); return nil })
		}); err != nil {
			t.Fatal(err)
		}
		if last-first+1 > MaxLogEntries || size > MaxLogBytes {
			t.Fatalf("log has %d entries of %d bytes", last-first+1, size)
		}
		return first, last
	}
	for range 5 {
		write(25_000, 0)
		bounds()
	}
	first, last := bounds()
	if first < 25_001 || first > 25_001+1000 || last != 125_000 {
		t.Fatalf("log is from %d to %d", first, last)
	}
	log, lost := s.logOf(100)
	kept := int(last - first + 1)
	if lost != first-101 || len(log) != kept || log[0].Sequence != first {
		t.Errorf("after 100: %d lost, %d entries", lost, len(log))
	}
	if log, lost = s.logOf(first - 1); lost != 0 || len(log) != kept {
		t.Errorf("after %d: %d lost, %d entries", first-1, lost, len(log))
	}
	// Large entries: the bytes are what counts.
	write(100, 900<<10)
	first, last = bounds()
	if last != 125_100 || first < 125_000 {
		t.Errorf("log is from %d to %d", first, last)
	}
}

func TestChangesKeepsToItsLimits(t *testing.T) {
	s := newStore(t)
	s.report("", t0, Summary{New: 100}, many(100)...)
	for _, c := range []struct {
		after           uint64
		limit, maxBytes int
		want            int
		wantErr         error
	}{
		{0, 10, math.MaxInt, 10, nil},
		{0, 1000, math.MaxInt, 100, nil},
		{95, 1000, math.MaxInt, 5, nil},
		{100, 10, math.MaxInt, 0, nil},
		{0, 10, 0, 1, nil},
		{0, 10, 900, 2, nil},
		{101, 10, 900, 0, ErrRewound},
	} {
		err := s.db.View(func(tx *state.Tx) error {
			got, _, err := Changes(tx, c.after, c.limit, c.maxBytes)
			if len(got) != c.want {
				t.Errorf("%+v: %d entries", c, len(got))
			}
			return err
		})
		if !errors.Is(err, c.wantErr) {
			t.Errorf("%+v: %v", c, err)
		}
	}
	empty := newStore(t)
	if log, _ := empty.logOf(0); len(log) != 0 {
		t.Errorf("empty log has %d entries", len(log))
	}
}

func TestDamagedLogIsUntrustworthy(t *testing.T) {
	put := func(tx *state.Tx, seq uint64, v []byte) error {
		return tx.Bucket([]byte(logName)).Put(sequenceKey(seq), v)
	}
	group := func(tx *state.Tx) []byte { return bytes.Clone(tx.Bucket([]byte(logName)).Get(sequenceKey(1))) }
	for name, damage := range map[string]func(tx *state.Tx) error{
		"short":   func(tx *state.Tx) error { return put(tx, 1, []byte{1, 2}) },
		"version": func(tx *state.Tx) error { return put(tx, 1, make([]byte, 40)) },
		"missing": func(tx *state.Tx) error { return tx.Bucket([]byte(logName)).Delete(sequenceKey(4)) },
		"last":    func(tx *state.Tx) error { return put(tx, 99, []byte("x")) },
		"cut":     func(tx *state.Tx) error { v := group(tx); return put(tx, 1, v[:len(v)-1]) },
		"more":    func(tx *state.Tx) error { return put(tx, 1, append(group(tx), 0)) },
		"event":   func(tx *state.Tx) error { v := group(tx); v[logHeader] = 77; return put(tx, 1, v) },
		"count":   func(tx *state.Tx) error { v := group(tx); v[10]++; return put(tx, 1, v) },
	} {
		t.Run(name, func(t *testing.T) {
			s := newStore(t)
			s.report("", t0, Summary{New: 3}, many(3)...)
			s.report("", t0, Summary{Resolved: 3})
			s.report("", t0, Summary{Reopened: 3}, many(3)...)
			s.update(damage)
			err := s.db.View(func(tx *state.Tx) error {
				_, _, err := Changes(tx, 0, 10, 1<<20)
				return err
			})
			var where *DecodeError
			if failure.KindOf(err) != failure.Untrustworthy || !errors.As(err, &where) {
				t.Errorf("error %v", err)
			}
		})
	}
	t.Run("key", func(t *testing.T) {
		s := newStore(t)
		s.report("", t0, Summary{New: 3}, many(3)...)
		s.update(func(tx *state.Tx) error { return tx.Bucket([]byte(logName)).Put([]byte{0xFF}, []byte("x")) })
		if err := s.db.Update(func(tx *state.Tx) error {
			_, err := Report(tx, "integrity", "", nil, t0)
			return err
		}); failure.KindOf(err) != failure.Untrustworthy {
			t.Errorf("error %v", err)
		}
	})
}

func TestFinishResolvesWhatNoPartHad(t *testing.T) {
	s := newStore(t)
	list := many(30)
	s.report("x", t0, Summary{New: 30}, list...)
	var seen []Fingerprint
	s.update(func(tx *state.Tx) error {
		for _, part := range [][]Finding{list[10:20], list[:10]} {
			if _, err := ReportPartial(tx, "integrity", "x", part, t0.Add(time.Hour)); err != nil {
				return err
			}
			seen = append(seen, Fingerprints("integrity", part)...)
		}
		sum, err := Finish(tx, "integrity", "x", seen, t0.Add(time.Hour))
		if sum != (Summary{Resolved: 10}) {
			t.Errorf("summary %+v", sum)
		}
		return err
	})
	for _, r := range s.list(Filter{States: []State{Resolved}}, t0) {
		if r.Subject < list[20].Subject && len(r.Subject) == len(list[20].Subject) {
			t.Errorf("%s is resolved", r.Subject)
		}
	}
}

func TestPagesHaveEveryRecordOnce(t *testing.T) {
	s := newStore(t)
	s.report("", t0, Summary{New: 500}, many(500)...)
	for _, c := range []struct{ limit, maxBytes int }{{7, 1 << 20}, {1000, 1 << 20}, {100, 1000}} {
		seen := map[Fingerprint]bool{}
		if err := s.db.View(func(tx *state.Tx) error {
			var after Fingerprint
			for more := true; more; {
				var list []*Record
				var err error
				if list, after, more, err = Page(tx, Filter{MinSeverity: Medium}, after, c.limit, c.maxBytes, t0); err != nil {
					return err
				}
				for _, r := range list {
					if seen[r.Fingerprint] || r.Severity < Medium {
						t.Errorf("%s, %s: again %v", r.ID(), r.Severity, seen[r.Fingerprint])
					}
					seen[r.Fingerprint] = true
				}
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		if len(seen) != 300 {
			t.Errorf("%+v: %d records", c, len(seen))
		}
	}
}

func FuzzLogGroup(f *testing.F) {
	s := newStore(f)
	s.report("", t0, Summary{New: 3}, many(3)...)
	if err := s.db.View(func(tx *state.Tx) error {
		return tx.Bucket([]byte(logName)).ForEach(func(k, v []byte) error {
			f.Add(bytes.Clone(k), bytes.Clone(v), uint64(2))
			f.Add(bytes.Clone(k), bytes.Clone(v[:len(v)/2]), uint64(1))
			return nil
		})
	}); err != nil {
		f.Fatal(err)
	}
	f.Add([]byte("x"), []byte{}, uint64(0))
	f.Fuzz(func(t *testing.T, k, v []byte, next uint64) {
		want := next
		_, err := readGroup(k, v, next, func(e LogEntry, size int) bool {
			if e.Sequence != want || e.Record == nil || !e.Event.valid() || size > len(v) {
				t.Errorf("entry %d instead of %d: %+v of %d bytes", e.Sequence, want, e, size)
			}
			want++
			return true
		})
		if err != nil && failure.KindOf(err) != failure.Untrustworthy {
			t.Errorf("error of kind %v", failure.KindOf(err))
		}
	})
}

func BenchmarkReportNew10000(b *testing.B) {
	list := many(10_000)
	for i := 0; b.Loop(); i++ {
		b.StopTimer()
		s := state.New(b.TempDir(), state.Options{})
		if err := s.Update(b.Context(), func(*state.Tx) error { return nil }); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		if err := s.Update(b.Context(), func(tx *state.Tx) error {
			_, err := Report(tx, fmt.Sprint("s", i), "", list, t0)
			return err
		}); err != nil {
			b.Fatal(err)
		}
	}
}
