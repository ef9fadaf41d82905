package store

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/logs/event"
	"github.com/mobileops/mobileops/internal/seal"
	"github.com/mobileops/mobileops/internal/state"
	"golang.org/x/sys/unix"
)

// onlyProblem verifies a store in which one thing was changed.
func onlyProblem(t *testing.T, s *Store, what, detail string) {
	t.Helper()
	r, err := s.Verify(ctx, VerifyOptions{Key: key().public()})
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Problems) != 1 || r.Problems[0].What != what || !strings.Contains(r.Problems[0].Detail, detail) || r.Kind() != failure.Untrustworthy {
		t.Errorf("%+v; want %s: %s", r.Problems, what, detail)
	}
}

// A removal that looks like one of retention shows when a hold forbade it.
func TestHeldSegmentRemovedBehindTheHold(t *testing.T) {
	s := sealedStore(t)
	err := s.change(ctx, "test", func(c *change) error {
		gone := &Record{Kind: KindRemoved, Time: c.now.UnixNano(), ID: 1, Reason: "older than 90d"}
		return c.commit(ctx, &operation{records: []*Record{gone}})
	})
	if err != nil {
		t.Fatal(err)
	}
	onlyProblem(t, s, Missing, `which the hold "case 7" keeps`)
}

// A log without its seals is no store of a host that signs.
func TestSealsTakenAway(t *testing.T) {
	s, c := newStore(t, nil)
	w := writer(t, s)
	appendTo(t, w, batch("a", 0, 10))
	flushed(t, w)
	c.add(time.Minute)
	if r, err := s.Verify(ctx, VerifyOptions{Key: key().public()}); err != nil || len(r.Problems) > 0 {
		t.Fatal(r, err) // a collector may just have begun
	}
	c.add(time.Hour)
	onlyProblem(t, s, Unsigned, "there is no seal")
	if _, err := s.Seal(ctx); err != nil {
		t.Fatal(err)
	}
	clean(t, s)
}

// What a rewrap may change is looked at too: without it nobody can decrypt.
func TestHeadersOfSealedSegmentsDestroyed(t *testing.T) {
	k, err := seal.GenerateKeyFile(filepath.Join(t.TempDir(), "key"))
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		ids    []seal.Identity
		damage func(b []byte)
		seen   bool
	}{
		"one copy":                {nil, func(b []byte) { b[4096+100] ^= 1 }, true},
		"both copies zero":        {nil, func(b []byte) { clear(b[4096:12288]) }, true},
		"both copies, with a key": {[]seal.Identity{k}, func(b []byte) { b[4096+60] ^= 1; b[8192+60] ^= 1 }, true},
		"nothing":                 {nil, func([]byte) {}, false},
		"nothing, with a key":     {[]seal.Identity{k}, func([]byte) {}, false},
	} {
		t.Run(name, func(t *testing.T) {
			s, _ := newStore(t, func(o *Options) { o.Recipients, o.Identities = []seal.Recipient{k}, tc.ids })
			w := writer(t, s)
			appendTo(t, w, batch("a", 0, 10))
			flushed(t, w)
			if _, err := s.Seal(ctx); err != nil {
				t.Fatal(err)
			}
			b, err := os.ReadFile(s.segmentPath(1))
			if err != nil {
				t.Fatal(err)
			}
			tc.damage(b)
			if err := os.WriteFile(s.segmentPath(1), b, 0o600); err != nil {
				t.Fatal(err)
			}
			if tc.seen {
				onlyProblem(t, s, Altered, "nobody can decrypt it any more")
			} else {
				clean(t, s)
			}
		})
	}
}

// Another kind of file in the place of one of the store is tampering, and
// nobody waits for the other end of a FIFO.
func TestFilesReplacedByOtherKinds(t *testing.T) {
	for name, replace := range map[string]func(path string) error{
		"fifo": func(path string) error { return unix.Mkfifo(path, 0o600) },
		"link": func(path string) error { return os.Symlink(path+".real", path) },
		"dir":  func(path string) error { return os.Mkdir(path, 0o700) },
	} {
		t.Run(name, func(t *testing.T) {
			s := sealedStore(t)
			path := s.segmentPath(1)
			elsewhere := filepath.Join(t.TempDir(), "segment")
			if err := os.Rename(path, elsewhere); err != nil {
				t.Fatal(err)
			}
			if err := replace(path); err != nil {
				t.Fatal(err)
			}
			onlyProblem(t, s, Altered, "not a regular file")
			os.Remove(path)
			if err := os.Rename(elsewhere, path); err != nil {
				t.Fatal(err)
			}
			os.Remove(s.merklePath())
			if err := replace(s.merklePath()); err != nil {
				t.Fatal(err)
			}
			if r, err := s.Verify(ctx, VerifyOptions{}); failure.KindOf(err) != failure.Untrustworthy && (r == nil || r.Kind() != failure.Untrustworthy) {
				t.Errorf("the Merkle log: %+v, %v", r, err)
			}
		})
	}
}

// With state.db gone the store is not one that never was.
func TestEmptyIsNotForgotten(t *testing.T) {
	s, _ := newStore(t, nil)
	if empty, err := s.Empty(ctx); !empty || err != nil {
		t.Fatal(empty, err)
	}
	w := writer(t, s)
	if empty, err := s.Empty(ctx); empty || err != nil {
		t.Fatal(empty, err)
	}
	appendTo(t, w, batch("a", 0, 10))
	flushed(t, w)
	w.Close()
	err := s.opts.State.Update(ctx, func(tx *state.Tx) error { return tx.DeleteBucket([]byte(storeBucket)) })
	if err != nil {
		t.Fatal(err)
	}
	if empty, err := s.Empty(ctx); empty || !errors.Is(err, ErrTampered) {
		t.Fatal(empty, err)
	}
}

// A seal from outside says nothing about what retention or a merge put in the
// place of what it speaks of, and that is said.
func TestSealsFromOutsideAndWhatWentSince(t *testing.T) {
	s := sealedStore(t)
	newest, _, err := s.Head(ctx)
	if err != nil {
		t.Fatal(err)
	}
	notes := func() string {
		t.Helper()
		r, err := s.Verify(ctx, VerifyOptions{Key: key().public(), Outside: []*Seal{newest}})
		if err != nil || len(r.Problems) > 0 {
			t.Fatal(r, err)
		}
		return strings.Join(r.Notes, "\n")
	}
	if n := notes(); strings.Contains(n, "seal from outside") {
		t.Error(n)
	}
	if _, err := s.Rotate(ctx, Policy{}); err != nil { // merges those of b
		t.Fatal(err)
	}
	if n := notes(); !strings.Contains(n, "1 segments that the last seal from outside speaks of were merged or removed since") {
		t.Error(n)
	}
}

// Holds cover what a person takes them to cover: a * goes over slashes, and
// without a time all times are meant, also those before 1970.
func TestHoldsCover(t *testing.T) {
	at := func(source string, year int) *SegmentRecord {
		ns := time.Date(year, 1, 1, 0, 0, 0, 0, time.UTC).UnixNano()
		return &SegmentRecord{Origin: event.Origin{Source: source}, MinTime: ns, MaxTime: ns}
	}
	for _, tc := range []struct {
		hold Hold
		rec  *SegmentRecord
		want bool
	}{
		{Hold{}, at("/var/log/a.log", 2026), true},
		{Hold{}, at("/var/log/a.log", 1965), true},
		{Hold{Until: 1}, at("/var/log/a.log", 1965), true},
		{Hold{Since: 1}, at("/var/log/a.log", 1965), false},
		{Hold{Sources: []string{"*"}}, at("/var/log/a.log", 2026), true},
		{Hold{Sources: []string{"/srv/*"}}, at("/srv/shop/log/a.log", 2026), true},
		{Hold{Sources: []string{"/srv/*.log"}}, at("/srv/shop/log/a.log", 2026), true},
		{Hold{Sources: []string{"/srv/?/a.log"}}, at("/srv/x/a.log", 2026), true},
		{Hold{Sources: []string{"/srv/*"}}, at("/var/log/a.log", 2026), false},
		{Hold{Sources: []string{"journal"}}, at("journal", 2026), true},
	} {
		if got := tc.hold.covers(tc.rec); got != tc.want {
			t.Errorf("%+v covers %s at %d: %v", tc.hold, tc.rec.Origin.Source, tc.rec.MinTime, got)
		}
	}
}

// Records without text, and many small sources, fill a generation too.
func TestGenerationsOfSmallThings(t *testing.T) {
	s, _ := newStore(t, func(o *Options) { o.MaxOpen = 1 << 18 })
	w := writer(t, s)
	empty := batch("a", 0, 0)
	for range 1000 {
		empty.Records = append(empty.Records, event.Record{Time: day0.UnixNano(), Raw: []byte{}})
	}
	for range 50 { // 50,000 records of 16
		appendTo(t, w, empty)
	}
	flushed(t, w)
	if n := w.open.generation; n < 4 {
		t.Errorf("empty lines filled %d generations", n-1)
	}
	from := w.open.generation
	for i := range 600 {
		b := batch(fmt.Sprintf("f%d", i), 0, 1)
		b.Cursor = bytes.Repeat([]byte("c"), 400)
		appendTo(t, w, b)
	}
	flushed(t, w)
	if n := w.open.generation - from; n < 2 {
		t.Errorf("600 sources filled %d generations", n)
	}
	clean(t, s)
}

// A change of more segments than a process may have open files.
func TestMoreSegmentsThanFiles(t *testing.T) {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	s, _ := newStore(t, nil)
	w := writer(t, s)
	for i := range 300 {
		appendTo(t, w, batch("source "+strings.Repeat("x", i), 0, 1))
	}
	low := limit
	low.Cur = 128
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &low); err != nil {
		t.Fatal(err)
	}
	defer unix.Setrlimit(unix.RLIMIT_NOFILE, &limit)
	flushed(t, w)
	clean(t, s)
}
