package queue

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func open(t *testing.T, dir string, size int64, names ...string) *Queue {
	t.Helper()
	q, err := Open(dir, size, names)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { q.Close() })
	return q
}

func records(from, n, size int) []Record {
	list := make([]Record, n)
	for i := range list {
		id := fmt.Sprintf("id-%d", from+i)
		list[i] = Record{ID: id, Raw: []byte(id + ":" + strings.Repeat("x", size))}
	}
	return list
}

func add(t *testing.T, q *Queue, from, n, size int) {
	t.Helper()
	if got, err := q.Append(records(from, n, size)); err != nil || got != n {
		t.Fatalf("%d of %d added: %v", got, n, err)
	}
}

// drain reads what there is and checks each record against its id.
func drain(t *testing.T, c *Cursor, commit bool) (ids []string) {
	t.Helper()
	for {
		got, err := c.TryRead(nil, 100)
		if err != nil {
			t.Fatal(err)
		}
		if len(got) == 0 {
			return ids
		}
		for _, e := range got {
			if !strings.HasPrefix(string(e.Raw), string(e.ID)+":") {
				t.Fatalf("record %d: id %q, content %.30q", e.Seq, e.ID, e.Raw)
			}
			ids = append(ids, string(e.ID))
		}
		if commit {
			if err := c.Commit(got[len(got)-1].Next); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func wantIDs(t *testing.T, got []string, from, n int) {
	t.Helper()
	if len(got) != n {
		t.Fatalf("%d records, want %d: %.200q", len(got), n, got)
	}
	for i, id := range got {
		if id != fmt.Sprintf("id-%d", from+i) {
			t.Fatalf("record %d is %s, want id-%d", i, id, from+i)
		}
	}
}

func TestEveryDestinationReadsAtItsOwnSpeed(t *testing.T) {
	dir := t.TempDir()
	q := open(t, dir, 1<<20, "a", "b")
	add(t, q, 0, 300, 100)
	wantIDs(t, drain(t, q.Cursor("a"), true), 0, 300)
	add(t, q, 300, 10, 0)
	wantIDs(t, drain(t, q.Cursor("a"), true), 300, 10)
	if s := q.Status(); s.Behind["a"] != 0 || s.Behind["b"] != 310 || s.Records != 310 {
		t.Errorf("%+v", s)
	}
	if err := q.Close(); err != nil {
		t.Fatal(err)
	}
	q = open(t, dir, 1<<20, "a", "b", "late")
	if ids := drain(t, q.Cursor("a"), true); len(ids) != 0 {
		t.Errorf("a gets %q again", ids)
	}
	if ids := drain(t, q.Cursor("late"), true); len(ids) != 0 {
		t.Errorf("a new destination gets what is old: %q", ids)
	}
	wantIDs(t, drain(t, q.Cursor("b"), false), 0, 310)
	q.Cursor("b").Rewind()
	wantIDs(t, drain(t, q.Cursor("b"), true), 0, 310)
}

func TestSegmentsGoWhenAllHavePassed(t *testing.T) {
	dir := t.TempDir()
	q := open(t, dir, 1<<20, "a", "b")
	for i := range 20 {
		add(t, q, i*20, 20, 1000)
	}
	files := func() int { m, _ := filepath.Glob(filepath.Join(dir, "*.seg")); return len(m) }
	before := files()
	drain(t, q.Cursor("a"), true)
	if before < 3 || files() != before {
		t.Fatalf("%d segments, %d after one of two had read them", before, files())
	}
	wantIDs(t, drain(t, q.Cursor("b"), true), 0, 400)
	if n := files(); n != 1 {
		t.Errorf("%d segments are left", n)
	}
	// What is gone is still known.
	if n, err := q.Append(records(0, 401, 10)); n != 1 || err != nil {
		t.Errorf("%d added (%v), only one is new", n, err)
	}
	q.Close()
	q = open(t, dir, 1<<20, "a", "b")
	if n, err := q.Append(records(0, 401, 10)); n != 0 || err != nil {
		t.Errorf("after a restart %d added again (%v)", n, err)
	}
	wantIDs(t, drain(t, q.Cursor("a"), true), 400, 1)
}

func TestFull(t *testing.T) {
	q := open(t, t.TempDir(), 256<<10, "a")
	n := 0
	for {
		_, err := q.Append(records(n, 10, 1000))
		if errors.Is(err, ErrFull) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		n += 10
	}
	if n < 200 || n > 260 {
		t.Errorf("%d records of 1 KB in 256 KB", n)
	}
	done := make(chan error)
	go func() {
		for {
			changed := q.Changed()
			if _, err := q.Append(records(n, 10, 1000)); !errors.Is(err, ErrFull) {
				done <- err
				return
			}
			<-changed
		}
	}()
	wantIDs(t, drain(t, q.Cursor("a"), true)[:n], 0, n)
	select {
	case err := <-done:
		if err != nil {
			t.Fatal(err)
		}
	case <-time.After(time.Minute):
		t.Fatal("nobody said that there is room")
	}
}

// Whatever the end of the last segment looks like, the records before it are
// there, and new ones follow them.
func TestTornEnd(t *testing.T) {
	for _, tail := range []string{"M", "MOr\x01", "MOr\x01aaaabbbbccccccccdd", strings.Repeat("\x00", 4096), "half a record"} {
		dir := t.TempDir()
		q := open(t, dir, 1<<20, "a")
		add(t, q, 0, 50, 10)
		q.Close()
		path := segmentPath(dir, 1)
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if tail == "half a record" {
			full := appendRecord(nil, 51, "id-50", []byte("id-50:"))
			tail = string(full[:len(full)-1])
		}
		if err := os.WriteFile(path, append(b, tail...), 0o600); err != nil {
			t.Fatal(err)
		}
		q = open(t, dir, 1<<20, "a")
		if s := q.Status(); s.Cut != int64(len(tail)) {
			t.Errorf("%.20q: %d bytes cut off, want %d", tail, s.Cut, len(tail))
		}
		add(t, q, 50, 5, 10)
		wantIDs(t, drain(t, q.Cursor("a"), true), 0, 55)
		q.Close()
	}
}

func TestDamagedRecordsAreSkippedAndCounted(t *testing.T) {
	dir := t.TempDir()
	q := open(t, dir, 4<<20, "a")
	for i := range 30 {
		add(t, q, i*100, 100, 300)
	}
	q.Close()
	path := segmentPath(dir, 1)
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	// A flipped bit in a content, a length of nonsense, a page of zeros.
	b[5000] ^= 1
	copy(b[20000:], strings.Repeat("\xff", 40))
	copy(b[60000:], make([]byte, 4096))
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	q = open(t, dir, 4<<20, "a")
	ids := drain(t, q.Cursor("a"), true)
	lost := 3000 - len(ids)
	if s := q.Status(); lost < 3 || lost > 30 || s.Corrupt != uint64(lost) || s.Behind["a"] != 0 {
		t.Errorf("%d of 3000 lost, counted: %+v", lost, s)
	}
	for i := 1; i < len(ids); i++ {
		var x, y int
		fmt.Sscanf(ids[i-1], "id-%d", &x)
		fmt.Sscanf(ids[i], "id-%d", &y)
		if y <= x {
			t.Fatalf("%s comes after %s", ids[i], ids[i-1])
		}
	}
}

func TestDamagedCursorStartsAtTheBeginning(t *testing.T) {
	dir := t.TempDir()
	q := open(t, dir, 1<<20, "a")
	add(t, q, 0, 10, 10)
	drain(t, q.Cursor("a"), true)
	q.Close()
	path := filepath.Join(dir, "cursors", "a")
	b, _ := os.ReadFile(path)
	// One slot damaged: the other one, which is older, counts.
	for i, half := range []int{0, slotSize} {
		c := append([]byte(nil), b...)
		c[half+20] ^= 1
		if err := os.WriteFile(path, c, 0o600); err != nil {
			t.Fatal(err)
		}
		q = open(t, dir, 1<<20, "a")
		if n := len(drain(t, q.Cursor("a"), false)); n != 0 && n != 10 {
			t.Errorf("slot %d: %d records", i, n)
		}
		q.Close()
	}
	if err := os.WriteFile(path, []byte("nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	q = open(t, dir, 1<<20, "a")
	wantIDs(t, drain(t, q.Cursor("a"), true), 0, 10)
}

// The last segment is damaged from its first byte: what came before it is not
// delivered again, and what comes is.
func TestLostSegment(t *testing.T) {
	dir := t.TempDir()
	q := open(t, dir, 1<<20, "a", "slow")
	for i := range 20 {
		add(t, q, i*20, 20, 1000)
	}
	drain(t, q.Cursor("a"), true)
	q.Close()
	files, _ := filepath.Glob(filepath.Join(dir, "*.seg"))
	if len(files) < 3 {
		t.Fatalf("%d segments", len(files))
	}
	for _, damaged := range []string{files[1], files[len(files)-1]} {
		if err := os.WriteFile(damaged, []byte("nonsense"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	q = open(t, dir, 1<<20, "a", "slow")
	if ids := drain(t, q.Cursor("a"), true); len(ids) > 0 {
		t.Errorf("%d are delivered again", len(ids))
	}
	if ids := drain(t, q.Cursor("slow"), true); len(ids) == 0 || len(ids) >= 400 || q.Status().Corrupt == 0 {
		t.Errorf("%d of 400, %+v", len(ids), q.Status())
	}
	add(t, q, 1000, 3, 10)
	wantIDs(t, drain(t, q.Cursor("a"), true), 1000, 3)
	wantIDs(t, drain(t, q.Cursor("slow"), true), 1000, 3)
}

func TestOneProcessAtATime(t *testing.T) {
	dir := t.TempDir()
	open(t, dir, 1<<20, "a")
	if _, err := Open(dir, 1<<20, []string{"a"}); !errors.Is(err, ErrBusy) {
		t.Errorf("got %v", err)
	}
}

func TestReadWaits(t *testing.T) {
	q := open(t, t.TempDir(), 1<<20, "a")
	got := make(chan int)
	go func() {
		list, _ := q.Cursor("a").Read(context.Background(), nil, 10)
		got <- len(list)
	}()
	add(t, q, 0, 3, 1)
	if n := <-got; n != 3 {
		t.Errorf("%d records", n)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := q.Cursor("a").Read(ctx, nil, 10); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// A machine that stops at any moment leaves some prefix of the last segment.
func TestEveryPrefixOpens(t *testing.T) {
	dir := t.TempDir()
	q := open(t, dir, 1<<20, "a")
	add(t, q, 0, 20, 5)
	q.Close()
	b, err := os.ReadFile(segmentPath(dir, 1))
	if err != nil {
		t.Fatal(err)
	}
	whole := 0
	for n := len(b); n > 0; n -= 1 + rand.IntN(9) {
		sub := t.TempDir()
		if err := os.WriteFile(segmentPath(sub, 1), b[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		os.Mkdir(filepath.Join(sub, "cursors"), 0o700)
		os.WriteFile(filepath.Join(sub, "cursors", "a"), nil, 0o600)
		q := open(t, sub, 1<<20, "a")
		ids := drain(t, q.Cursor("a"), true)
		wantIDs(t, ids, 0, len(ids))
		whole = max(whole, len(ids))
		add(t, q, 1000, 1, 1)
		wantIDs(t, drain(t, q.Cursor("a"), true), 1000, 1)
		q.Close()
	}
	if whole != 20 {
		t.Errorf("at most %d of 20 were found", whole)
	}
}

func FuzzSegment(f *testing.F) {
	f.Add(appendRecord(appendRecord(nil, 1, "a", []byte("x")), 2, "b", []byte("yy")))
	f.Add([]byte("MOr\x01"))
	f.Fuzz(func(t *testing.T, b []byte) {
		dir := t.TempDir()
		head := append([]byte(segmentMagic), 1, 0, 0, 0, 0, 0, 0, 0)
		os.WriteFile(segmentPath(dir, 1), append(head, b...), 0o600)
		os.Mkdir(filepath.Join(dir, "cursors"), 0o700)
		os.WriteFile(filepath.Join(dir, "cursors", "a"), nil, 0o600)
		q, err := Open(dir, 1<<20, []string{"a"})
		if err != nil {
			return
		}
		defer q.Close()
		for {
			got, err := q.Cursor("a").TryRead(nil, 10)
			if err != nil {
				t.Fatal(err)
			}
			if len(got) == 0 {
				break
			}
		}
		if _, err := q.Append([]Record{{ID: "new one", Raw: []byte("z")}}); err != nil {
			t.Fatal(err)
		}
		if got, err := q.Cursor("a").TryRead(nil, 10); err != nil || len(got) != 1 {
			t.Fatalf("%d records: %v", len(got), err)
		}
	})
}

func BenchmarkAppend(b *testing.B) {
	q, err := Open(b.TempDir(), 64<<30, []string{"a"})
	if err != nil {
		b.Fatal(err)
	}
	defer q.Close()
	list := records(0, 1000, 400)
	n := 0
	for b.Loop() {
		for i := range list {
			list[i].ID = fmt.Sprintf("id-%d", n)
			n++
		}
		if _, err := q.Append(list); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "events/s")
}
