package memo

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/zeebo/blake3"
	"golang.org/x/sys/unix"
)

// key is the n-th key of a test.
func key(n int) Key {
	return Key{Content: blake3.Sum256(fmt.Appendf(nil, "content %d", n)), Ruleset: blake3.Sum256([]byte("rules"))}
}

// value is the result under the n-th key: most are empty, as in life.
func value(n int) []byte {
	if n%5 != 0 {
		return nil
	}
	return bytes.Repeat(fmt.Appendf(nil, "result %d ", n), 1+n%7)
}

func mustOpen(t testing.TB, path string, limit int64) *Memo {
	t.Helper()
	m, err := Open(path, limit)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func fill(t testing.TB, path string, limit int64, from, to int) {
	t.Helper()
	m := mustOpen(t, path, limit)
	for n := from; n < to; n++ {
		m.Put(key(n), value(n))
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
}

// count returns how many of the keys are remembered, and fails when a result is
// another one than was put.
func count(t testing.TB, path string, from, to int) int {
	t.Helper()
	m := mustOpen(t, path, 0)
	defer m.Close()
	found := 0
	for n := from; n < to; n++ {
		v, ok := m.Get(key(n))
		if !ok {
			continue
		}
		found++
		if !bytes.Equal(v, value(n)) {
			t.Fatalf("key %d: %q is remembered instead of %q", n, v, value(n))
		}
	}
	return found
}

func TestRemembers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "memo")
	if n := count(t, path, 0, 10); n != 0 {
		t.Fatalf("a memo that isn't there remembers %d results", n)
	}
	if _, err := os.Stat(path); err == nil {
		t.Fatal("a memo without news was written")
	}
	// The first makes a table, the next append frames, and the large one a table again.
	for i, step := range []int{100, 300, 301, 900, 200_000, 200_010} {
		from := []int{0, 100, 300, 301, 900, 200_000}[i]
		fill(t, path, 0, from, step)
		if n := count(t, path, 0, step+100); n != step {
			t.Fatalf("%d of %d results are remembered", n, step)
		}
	}
	m := mustOpen(t, path, 0)
	defer m.Close()
	if m.tail == nil || len(m.tail.entries) != 10 || m.table.records != 200_000 {
		t.Fatalf("table of %d entries, frames %+v: the case isn't covered", m.table.records, m.tail)
	}
	other := key(1)
	other.Ruleset[0] ^= 1
	if _, ok := m.Get(other); ok {
		t.Fatal("a result of other rules is returned")
	}
	m.Put(key(1), []byte("replaced"))
	if v, ok := m.Get(key(1)); !ok || string(v) != "replaced" {
		t.Fatalf("%q %v: what was put isn't what is got", v, ok)
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	if _, ok := m.Get(key(1)); ok {
		t.Fatal("a closed memo answers")
	}
	m = mustOpen(t, path, 0)
	defer m.Close()
	if v, _ := m.Get(key(1)); string(v) != "replaced" {
		t.Fatalf("%q: the later result must win", v)
	}
	if s := m.Stats(); s.Hits != 1 || s.Misses != 0 || s.Bytes < 200_000*recordBytes || s.Note != "" {
		t.Fatalf("%+v", s)
	}
}

func TestRefusesWhatSomebodyElseCouldHaveWritten(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "memo")
	fill(t, path, 0, 0, 10)
	link := filepath.Join(dir, "link")
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	fifo := filepath.Join(dir, "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	wide := filepath.Join(dir, "wide")
	fill(t, wide, 0, 0, 10)
	if err := os.Chmod(wide, 0o666); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{link, fifo, wide} {
		if _, err := Open(p, 0); failure.KindOf(err) != failure.Untrustworthy {
			t.Errorf("%s: %v", p, err)
		}
	}
}

func TestConcurrentUse(t *testing.T) {
	path := filepath.Join(t.TempDir(), "memo")
	fill(t, path, 0, 0, 500)
	m := mustOpen(t, path, 0)
	m.now = func() time.Time { return time.Now().Add(30 * 24 * time.Hour) } // every use is written down
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 1000 {
				n := (g*31 + i) % 1000
				if v, ok := m.Get(key(n)); ok && !bytes.Equal(v, value(n)) {
					t.Errorf("key %d: %q", n, v)
				}
				m.Put(key(n), value(n))
				m.Stats()
			}
		})
	}
	wg.Wait()
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	if n := count(t, path, 0, 1000); n != 1000 {
		t.Fatalf("%d of 1000", n)
	}
}

// TestMain lets the test binary be a process that closes a memo.
func TestMain(m *testing.M) {
	if path := os.Getenv("MEMO_TEST_PATH"); path != "" {
		from, _ := strconv.Atoi(os.Getenv("MEMO_TEST_FROM"))
		to, _ := strconv.Atoi(os.Getenv("MEMO_TEST_TO"))
		for {
			mm, err := Open(path, 0)
			if err == nil {
				for n := from; n < to; n++ {
					mm.Put(key(n), value(n))
				}
				err = mm.Close()
			}
			if err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(1)
			}
			if os.Getenv("MEMO_TEST_FOREVER") == "" {
				os.Exit(0)
			}
			from, to = from+(to-from), to+(to-from)
			fmt.Println(to)
		}
	}
	os.Exit(m.Run())
}

func process(path string, from, to int, more ...string) *exec.Cmd {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "MEMO_TEST_PATH="+path, fmt.Sprint("MEMO_TEST_FROM=", from), fmt.Sprint("MEMO_TEST_TO=", to))
	cmd.Env = append(cmd.Env, more...)
	return cmd
}

// TestProcessesThatCloseTogether: nothing of anybody is lost, whether they append or
// write new tables.
func TestProcessesThatCloseTogether(t *testing.T) {
	for _, each := range []int{50, 30_000} {
		t.Run(fmt.Sprint(each), func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "memo")
			var wg sync.WaitGroup
			for p := range 8 {
				wg.Go(func() {
					// Every process brings half of what its neighbour brings too.
					if out, err := process(path, p*each, p*each+each+each/2).CombinedOutput(); err != nil {
						t.Errorf("%v: %s", err, out)
					}
				})
			}
			wg.Wait()
			if n, want := count(t, path, 0, 9*each), 8*each+each/2; n != want {
				t.Fatalf("%d of %d results are remembered", n, want)
			}
			left, _ := filepath.Glob(filepath.Join(filepath.Dir(path), ".*"))
			if len(left) != 0 {
				t.Fatalf("left behind: %v", left)
			}
		})
	}
}

// TestKilledWhileWriting: whatever a killed process leaves, what is remembered is right.
func TestKilledWhileWriting(t *testing.T) {
	path := filepath.Join(t.TempDir(), "memo")
	fill(t, path, 0, 0, 100)
	for round := range 25 {
		cmd := process(path, 1000*(round+1), 1000*(round+1)+4000, "MEMO_TEST_FOREVER=1")
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if _, err := out.Read(make([]byte, 1)); err != nil { // it has closed once
			t.Fatal(err)
		}
		time.Sleep(time.Duration(rand.IntN(20)) * time.Millisecond)
		if err := cmd.Process.Signal(unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait()
		if n := count(t, path, 0, 100); n != 100 {
			t.Fatalf("round %d: %d of the 100 first results are left", round, n)
		}
	}
	fill(t, path, 0, 5_000_000, 5_000_010) // and it goes on
	if n := count(t, path, 5_000_000, 5_000_010); n != 10 {
		t.Fatalf("%d of 10", n)
	}
}

// TestDamage flips every byte and cuts at every length: results are right or not
// there, and the memo goes on.
func TestDamage(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "memo")
	fill(t, path, 0, 0, 60)
	fill(t, path, 0, 60, 90)
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	table, _, _, err := loadFile(path)
	if err != nil || table == nil {
		t.Fatal(err)
	}
	tableEnd := len(table.raw)
	table.close()
	try := func(what string, b []byte, least int) {
		t.Helper()
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		if n := count(t, path, 0, 90); n < least {
			t.Errorf("%s: %d results left", what, n)
		}
		fill(t, path, 0, 90, 95)
		if n := count(t, path, 90, 95); n != 5 {
			t.Errorf("%s: only %d of 5 new results are remembered", what, n)
		}
	}
	for i := 0; i < len(good); i += 3 {
		b := bytes.Clone(good)
		b[i] ^= 1 << (i % 8)
		least := 0
		if i >= tableEnd {
			least = 60
		} else if i >= headerBytes+int(fanoutBytes(table.bits)) {
			least = 80 // one entry, or those beside it that are sought by it
		}
		try(fmt.Sprint("bit flipped in byte ", i), b, min(least, 58))
	}
	for i := 0; i < len(good); i += 7 {
		try(fmt.Sprint("cut at ", i), good[:i], 0)
	}
	try("not a memo", []byte(strings.Repeat("x", 5000)), 0)
	// A note says so.
	if err := os.WriteFile(path, []byte(strings.Repeat("x", 5000)), 0o600); err != nil {
		t.Fatal(err)
	}
	m := mustOpen(t, path, 0)
	defer m.Close()
	if m.Stats().Note == "" {
		t.Error("nothing is said about a memo that is begun again")
	}
}

func loadFile(path string) (*table, *tail, string, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, "", err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, nil, "", err
	}
	return load(f, st.Size())
}

// TestTruncatedWhileOpen: mapped pages that go away are damage and not a crash.
func TestTruncatedWhileOpen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "memo")
	fill(t, path, 0, 0, 20_000)
	m := mustOpen(t, path, 0)
	if err := os.Truncate(path, 4096); err != nil {
		t.Fatal(err)
	}
	for n := range 20_000 {
		if v, ok := m.Get(key(n)); ok && !bytes.Equal(v, value(n)) {
			t.Fatalf("key %d: %q", n, v)
		}
	}
	if m.Stats().Damaged == 0 {
		t.Fatal("the file was truncated and nothing was noticed: the case isn't covered")
	}
	m.Put(key(1), value(1))
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	if n := count(t, path, 0, 2); n != 1 {
		t.Fatalf("%d", n)
	}
}

func TestFullDisk(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to mount a small tmpfs")
	}
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"); err != nil {
		t.Skipf("a tmpfs cannot be mounted here: %v", err)
	}
	defer unix.Unmount(dir, unix.MNT_DETACH)
	path := filepath.Join(dir, "memo")
	fill(t, path, 0, 0, 5000)
	for _, add := range []int{15_000, 60_000} { // more than the disk has as frames, and as a table
		m := mustOpen(t, path, 0)
		for n := range add {
			m.Put(key(1_000_000+n), []byte("some result that takes room on the disk"))
		}
		err := m.Close()
		if !errors.Is(err, unix.ENOSPC) {
			t.Fatalf("%d entries: %v", add, err)
		}
		if n := count(t, path, 0, 5000); n != 5000 {
			t.Fatalf("after a full disk %d of 5000 results are remembered", n)
		}
		fill(t, path, 0, 5000+add, 5010+add)
		if n := count(t, path, 5000+add, 5010+add); n != 10 {
			t.Fatalf("after a full disk %d of 10 new results are remembered", n)
		}
	}
}

// TestEviction: the file stays below its limit, and what was used lately stays.
func TestEviction(t *testing.T) {
	const limit = 1 << 20
	path := filepath.Join(t.TempDir(), "memo")
	start := time.Now()
	at := func(day int) func() time.Time {
		return func() time.Time { return start.Add(time.Duration(day) * 24 * time.Hour) }
	}
	session := func(day int, use func(m *Memo)) {
		t.Helper()
		m, err := open(path, limit, at(day))
		if err != nil {
			t.Fatal(err)
		}
		use(m)
		if err := m.Close(); err != nil {
			t.Fatal(err)
		}
		st, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if st.Size() > limit {
			t.Fatalf("day %d: the file has %d bytes", day, st.Size())
		}
	}
	for day := range 60 {
		session(day, func(m *Memo) {
			for n := range 1000 {
				m.Put(key(day*1000+n), value(n*5))
			}
			for n := range 1000 { // those of the first day are used every day
				if _, ok := m.Get(key(n)); !ok {
					t.Fatalf("day %d: what is used every day was forgotten", day)
				}
			}
		})
	}
	left := func(day int) (n int) {
		m := mustOpen(t, path, limit)
		defer m.Close()
		for i := range 1000 {
			if _, ok := m.Get(key(day*1000 + i)); ok {
				n++
			}
		}
		return n
	}
	if n := left(59); n != 1000 {
		t.Errorf("%d of the results of the last day are left", n)
	}
	if n := left(1); n != 0 {
		t.Errorf("%d of the results of the second day are left, which nobody used since", n)
	}
	// More than there is room for, all of the same hour.
	session(61, func(m *Memo) {
		for n := range 40_000 {
			m.Put(key(1_000_000+n), nil)
		}
	})
	if n := left(1000); n == 0 {
		t.Error("nothing of a large scan is left")
	}
}

func TestLargeResultsAreNotKept(t *testing.T) {
	path := filepath.Join(t.TempDir(), "memo")
	m := mustOpen(t, path, 0)
	m.Put(key(1), make([]byte, MaxResult+1))
	m.Put(key(2), make([]byte, MaxResult))
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	m = mustOpen(t, path, 0)
	defer m.Close()
	if _, ok := m.Get(key(1)); ok {
		t.Error("a result above the limit is kept")
	}
	if v, ok := m.Get(key(2)); !ok || len(v) != MaxResult {
		t.Error("a result of just the limit isn't kept")
	}
}

func TestOpensFast(t *testing.T) {
	path := filepath.Join(t.TempDir(), "memo")
	fill(t, path, 0, 0, 400_000)
	fill(t, path, 0, 400_000, 460_000)
	fill(t, path, 0, 460_000, 500_000)
	// What else runs on the machine makes it no slower: the processor's time counts,
	// and of it the best of several tries.
	const limit = 50 * time.Millisecond
	best := time.Hour
	for try := 0; try < 5 || best > limit && try < 20; try++ {
		start := processorTime(t)
		m := mustOpen(t, path, 0)
		best = min(best, processorTime(t)-start)
		if s := m.Stats(); s.Entries != 500_000 {
			t.Fatalf("%+v", s)
		}
		m.Close()
	}
	t.Log(best)
	if best > limit && !raceEnabled {
		t.Errorf("opening a memo of 500,000 entries takes %v", best)
	}
}

// processorTime is what this process has used of the processor.
func processorTime(t *testing.T) time.Duration {
	t.Helper()
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// FuzzFile: whatever a file holds, reading it neither crashes nor takes long, and
// what comes out of it can be written and read again.
func FuzzFile(f *testing.F) {
	path := filepath.Join(f.TempDir(), "memo")
	for _, n := range []int{0, 1, 20, 40} {
		fill(f, path, 0, n, n+10)
		b, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add(appendHeader(nil, 0, 0, 0))
	f.Add(appendHeader(nil, maxFanout, 1<<20, 1<<30))
	f.Add(binary.LittleEndian.AppendUint32(appendFrames(nil, []entry{{value: []byte("x")}}), frameMagic))
	f.Fuzz(func(t *testing.T, b []byte) {
		parseTail(b)
		tb, err := newTable(b)
		if err != nil {
			return
		}
		tail, used := parseTail(b[len(tb.raw):])
		if used > len(b) {
			t.Fatal("more was used than there is")
		}
		for n := range 50 {
			k := key(n)
			tb.find(k.fingerprint())
			tail.find(k.fingerprint())
		}
		s := &source{table: tb, tail: tail}
		s.add(nil)
		var out bytes.Buffer
		if err := s.writeTable(&out, DefaultLimit); err != nil {
			t.Fatal(err)
		}
		again, err := newTable(out.Bytes())
		if err != nil || len(again.raw) != out.Len() {
			t.Fatalf("%v: what was written cannot be read", err)
		}
		for i := range again.records {
			e, ok := again.entry(i)
			if !ok {
				t.Fatalf("record %d is damaged", i)
			}
			if got, ok, _ := again.find(e.print); !ok || !bytes.Equal(got.value, e.value) {
				t.Fatalf("record %d isn't found", i)
			}
		}
	})
}

func BenchmarkGet(b *testing.B) {
	path := filepath.Join(b.TempDir(), "memo")
	fill(b, path, 0, 0, 500_000)
	m := mustOpen(b, path, 0)
	defer m.Close()
	keys := make([]Key, 4096)
	for i := range keys {
		keys[i] = key(i * 200) // four of five are there
	}
	for i := 0; b.Loop(); i++ {
		m.Get(keys[i%len(keys)])
	}
}

func BenchmarkOpen(b *testing.B) {
	path := filepath.Join(b.TempDir(), "memo")
	fill(b, path, 0, 0, 460_000)
	fill(b, path, 0, 460_000, 500_000)
	for b.Loop() {
		mustOpen(b, path, 0).Close()
	}
}
