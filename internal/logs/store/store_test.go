package store

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mobileops/mobileops/internal/logs/event"
	"github.com/mobileops/mobileops/internal/logs/segment"
	"github.com/mobileops/mobileops/internal/seal"
	"github.com/mobileops/mobileops/internal/state"
)

var ctx = context.Background()

// testKey signs for every store of the tests.
type testKey struct{ ed25519.PrivateKey }

func (k testKey) SigningKey(context.Context) (ed25519.PrivateKey, error) { return k.PrivateKey, nil }

func (k testKey) public() ed25519.PublicKey { return k.Public().(ed25519.PublicKey) }

func key() testKey {
	return testKey{ed25519.NewKeyFromSeed([]byte("thirty-two bytes of a test seed!"))}
}

// clock is a time that tests move.
type clock struct{ now time.Time }

func (c *clock) add(d time.Duration) { c.now = c.now.Add(d) }

// day0 is the day of the first test record.
var day0 = time.Date(2026, 3, 14, 0, 0, 0, 0, time.UTC)

func newStore(t testing.TB, change func(*Options)) (*Store, *clock) {
	t.Helper()
	return openStore(t, t.TempDir(), change)
}

func openStore(t testing.TB, dir string, change func(*Options)) (*Store, *clock) {
	t.Helper()
	c := &clock{day0.Add(12 * time.Hour)}
	opts := Options{
		Dir: filepath.Join(dir, "logs"), State: state.New(dir, state.Options{}), Signer: key(), Host: "test-host",
		Now: func() time.Time { return c.now },
	}
	if change != nil {
		change(&opts)
	}
	s, err := Open(opts)
	if err != nil {
		t.Fatal(err)
	}
	return s, c
}

func writer(t testing.TB, s *Store) *Writer {
	t.Helper()
	w, err := s.Writer(ctx)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close() })
	return w
}

// batch has records "source n", one a second from day0 on.
func batch(source string, from, to int) Batch {
	b := Batch{Key: "file:" + source, Origin: event.Origin{Source: source, Format: "plain", Host: "h"}, Cursor: fmt.Appendf(nil, "%d", to)}
	for i := from; i < to; i++ {
		b.Records = append(b.Records, event.Record{
			Time: day0.Add(time.Duration(i) * time.Second).UnixNano(), Clock: event.ClockExact, Raw: fmt.Appendf(nil, "%s line number %d", source, i),
		})
	}
	return b
}

func appendTo(t testing.TB, w *Writer, batches ...Batch) {
	t.Helper()
	if err := w.Append(ctx, batches); err != nil {
		t.Fatal(err)
	}
}

func flushed(t testing.TB, w *Writer) {
	t.Helper()
	if err := w.Flush(ctx); err != nil {
		t.Fatal(err)
	}
}

// all returns every record of a range as "source|raw", sorted, and how many of
// them are pending.
func all(t testing.TB, s *Store, r Range) (list []string, pending int) {
	t.Helper()
	snap, err := s.Snapshot(ctx, r)
	if err != nil {
		t.Fatal(err)
	}
	defer snap.Close()
	for _, p := range snap.Problems {
		t.Errorf("snapshot: %v", p)
	}
	for i := range snap.Segments {
		info := &snap.Segments[i]
		data, err := info.Open(ctx)
		if err != nil {
			t.Fatal(err)
		}
		rd, err := segment.Open(data)
		if err != nil {
			t.Fatal(err)
		}
		if meta, err := rd.Meta(); err != nil || meta.Origin != info.Origin {
			t.Errorf("segment %d is of %v, the catalogue says %v", info.ID, meta.Origin, info.Origin)
		}
		err = rd.Scan(ctx, r.Since, r.Until, func(rec *event.Record) error {
			list = append(list, info.Origin.Source+"|"+string(rec.Raw))
			return nil
		})
		data.Close()
		if err != nil {
			t.Fatal(err)
		}
	}
	err = snap.Pending(ctx, func(o *event.Origin, rec *event.Record) error {
		list = append(list, o.Source+"|"+string(rec.Raw))
		pending++
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(list)
	return list, pending
}

func lines(source string, from, to int) (list []string) {
	for _, r := range batch(source, from, to).Records {
		list = append(list, source+"|"+string(r.Raw))
	}
	return list
}

func wantAll(t testing.TB, s *Store, want ...[]string) {
	t.Helper()
	got, _ := all(t, s, Everything())
	w := slices.Concat(want...)
	slices.Sort(w)
	if !slices.Equal(got, w) {
		t.Fatalf("the store has %d records, %d are expected; first of each: %q, %q", len(got), len(w), got[:min(3, len(got))], w[:min(3, len(w))])
	}
}

// clean fails the test when verification finds anything.
func clean(t testing.TB, s *Store) *VerifyReport {
	t.Helper()
	r, err := s.Verify(ctx, VerifyOptions{Key: key().public()})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range r.Problems {
		t.Errorf("verify: %+v", p)
	}
	if t.Failed() {
		t.FailNow()
	}
	return r
}

func TestRecordsSurviveEveryWay(t *testing.T) {
	for _, sealed := range []bool{false, true} {
		t.Run(fmt.Sprintf("sealed=%v", sealed), func(t *testing.T) {
			var keys *seal.Key
			dir := t.TempDir()
			if sealed {
				var err error
				if keys, err = seal.GenerateKeyFile(filepath.Join(dir, "key")); err != nil {
					t.Fatal(err)
				}
			}
			encrypt := func(o *Options) {
				if sealed {
					o.Recipients, o.Identities = []seal.Recipient{keys}, []seal.Identity{keys}
				}
			}
			s, _ := openStore(t, dir, encrypt)
			w := writer(t, s)
			appendTo(t, w, batch("a", 0, 100), batch("b", 0, 50))
			appendTo(t, w, batch("a", 100, 150))
			wantAll(t, s, lines("a", 0, 150), lines("b", 0, 50))
			flushed(t, w)
			if _, pending := all(t, s, Everything()); pending != 0 {
				t.Errorf("%d records are pending after Flush", pending)
			}
			appendTo(t, w, batch("a", 150, 160))
			wantAll(t, s, lines("a", 0, 160), lines("b", 0, 50))
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			s, _ = openStore(t, dir, encrypt)
			w = writer(t, s)
			cursors, err := w.Cursors(ctx)
			if err != nil || string(cursors["file:a"]) != "160" || string(cursors["file:b"]) != "50" || len(cursors) != 2 {
				t.Errorf("cursors: %q, %v", cursors, err)
			}
			appendTo(t, w, Batch{Key: "file:b"})
			flushed(t, w)
			if cursors, _ = w.Cursors(ctx); len(cursors) != 1 {
				t.Errorf("a cursor that was forgotten is there: %q", cursors)
			}
			wantAll(t, s, lines("a", 0, 160), lines("b", 0, 50))
			if _, err := s.Seal(ctx); err != nil {
				t.Fatal(err)
			}
			r := clean(t, s)
			if r.Segments != 3 || r.Records != 210 || r.Seals != 1 || r.Unsealed != 0 {
				t.Errorf("verify: %+v", r)
			}
			w.Close()
			s, _ = openStore(t, dir, encrypt)
			w = writer(t, s)
			if cursors, _ = w.Cursors(ctx); len(cursors) != 1 || string(cursors["file:a"]) != "160" {
				t.Errorf("cursors of the next Writer: %q", cursors)
			}
		})
	}
}

func TestRangesAndDays(t *testing.T) {
	s, _ := newStore(t, nil)
	w := writer(t, s)
	b := Batch{Key: "k", Origin: event.Origin{Source: "a"}, Cursor: []byte{}}
	// Times without sense stay findable, each in a day of its own.
	times := []int64{math.MinInt64, -1, 0, day0.UnixNano(), day0.AddDate(0, 0, 1).UnixNano() - 1, day0.AddDate(0, 0, 1).UnixNano(), math.MaxInt64}
	for i, at := range times {
		b.Records = append(b.Records, event.Record{Time: at, Raw: fmt.Appendf(nil, "%d", i)})
	}
	appendTo(t, w, b)
	ranges := []struct {
		Range
		want string
	}{
		{Everything(), "a|0 a|1 a|2 a|3 a|4 a|5 a|6"},
		{Range{Since: day0.UnixNano(), Until: day0.AddDate(0, 0, 1).UnixNano()}, "a|3 a|4"},
		{Range{Since: math.MinInt64, Until: 0}, "a|0 a|1"},
		{Range{Since: math.MaxInt64 - 1, Until: math.MaxInt64}, "a|6"},
		{Range{Since: math.MinInt64, Until: math.MaxInt64, Sources: []string{"b"}}, ""},
		{Range{Since: math.MinInt64, Until: math.MaxInt64, Sources: []string{"b", "a"}}, "a|0 a|1 a|2 a|3 a|4 a|5 a|6"},
	}
	for range 2 {
		for _, r := range ranges {
			if got, _ := all(t, s, r.Range); strings.Join(got, " ") != r.want {
				t.Errorf("%v: %q; want %q", r.Range, got, r.want)
			}
		}
		flushed(t, w)
	}
	if cursors, _ := w.Cursors(ctx); cursors["k"] == nil {
		t.Error("an empty cursor was forgotten")
	}
	snap, err := s.Snapshot(ctx, ranges[1].Range)
	if err != nil {
		t.Fatal(err)
	}
	defer snap.Close()
	if len(snap.Segments) != 1 || snap.Segments[0].Records != 2 {
		t.Errorf("%d segments for one day: %+v", len(snap.Segments), snap.Segments)
	}
	clean(t, s)
}

func TestSenselessTimesMakeFewFiles(t *testing.T) {
	s, _ := newStore(t, nil)
	w := writer(t, s)
	b := Batch{Key: "k", Origin: event.Origin{Source: "a"}}
	for i := range 5000 {
		b.Records = append(b.Records, event.Record{Time: int64(i) * 13 * nanosecondsOfDay, Raw: fmt.Appendf(nil, "%04d", i)})
	}
	appendTo(t, w, b)
	flushed(t, w)
	got, _ := all(t, s, Everything())
	if len(got) != 5000 {
		t.Fatalf("%d records", len(got))
	}
	if r := clean(t, s); r.Segments != maxDays {
		t.Errorf("%d segments; want %d", r.Segments, maxDays)
	}
	snap, err := s.Snapshot(ctx, Everything())
	if err != nil {
		t.Fatal(err)
	}
	defer snap.Close()
	for i := range snap.Segments[1:] {
		if a, b := &snap.Segments[i], &snap.Segments[i+1]; a.MaxTime >= b.MinTime {
			t.Errorf("segments %d and %d overlap", a.ID, b.ID)
		}
	}
	at := int64(4711) * 13 * nanosecondsOfDay
	if got, _ := all(t, s, Range{Since: at, Until: at + 1}); len(got) != 1 || got[0] != "a|4711" {
		t.Errorf("%q", got)
	}
}

func TestOneWriter(t *testing.T) {
	s, _ := newStore(t, nil)
	w := writer(t, s)
	if _, err := s.Writer(ctx); err == nil || !strings.Contains(err.Error(), "logs collect is under way") {
		t.Errorf("a second writer: %v", err)
	}
	w.Close()
	if err := w.Append(ctx, []Batch{batch("a", 0, 1)}); err == nil {
		t.Error("a closed writer appends")
	}
	writer(t, s)
}

func TestFullAndOldGenerationsBecomeSegments(t *testing.T) {
	s, c := newStore(t, func(o *Options) { o.MaxOpen = 10_000 })
	w := writer(t, s)
	for i := range 40 {
		appendTo(t, w, batch("a", i*50, i*50+50))
	}
	appendTo(t, w, batch("a", 2000, 2001))
	got, pending := all(t, s, Everything())
	if len(got) != 2001 || pending > 1000 {
		t.Errorf("%d records, %d of them pending", len(got), pending)
	}
	c.add(59 * time.Minute)
	if err := w.Tick(ctx); err != nil {
		t.Fatal(err)
	}
	w.mu.Lock()
	w.wait(ctx)
	w.mu.Unlock()
	if _, now := all(t, s, Everything()); now == 0 {
		t.Error("young records are in segments")
	}
	c.add(time.Minute)
	for range 2 {
		if err := w.Tick(ctx); err != nil {
			t.Fatal(err)
		}
		w.mu.Lock()
		w.wait(ctx)
		w.mu.Unlock()
	}
	wantAll(t, s, lines("a", 0, 2001))
	if _, pending := all(t, s, Everything()); pending != 0 {
		t.Errorf("%d records are pending after an hour", pending)
	}
	if r := clean(t, s); r.Seals == 0 {
		t.Error("nothing was sealed")
	}
}

func TestStats(t *testing.T) {
	s, _ := newStore(t, nil)
	w := writer(t, s)
	appendTo(t, w, batch("a", 0, 10), batch("b", 5, 6))
	flushed(t, w)
	appendTo(t, w, batch("a", 10, 20))
	list, err := s.Stats(ctx)
	if err != nil || len(list) != 2 {
		t.Fatal(list, err)
	}
	a := list[0]
	if a.Source != "a" || a.Records != 20 || a.Pending != 10 || a.Segments != 1 || a.Bytes == 0 ||
		a.First != day0.UnixNano() || a.Last != day0.Add(19*time.Second).UnixNano() {
		t.Errorf("%+v", a)
	}
}

func TestWhatDoesNotFitIsRefused(t *testing.T) {
	s, _ := newStore(t, nil)
	w := writer(t, s)
	bad := batch("a", 0, 3)
	bad.Records[1].Raw = make([]byte, segment.MaxRecord+1)
	noKey := batch("a", 0, 1)
	noKey.Key = ""
	for _, b := range []Batch{bad, noKey} {
		if err := w.Append(ctx, []Batch{batch("b", 0, 1), b}); err == nil {
			t.Error("no error")
		}
	}
	wantAll(t, s)
}

func sign(s *Seal) []byte { return ed25519.Sign(key().PrivateKey, s.message()) }
