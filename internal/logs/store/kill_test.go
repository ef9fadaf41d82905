package store

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mobileops/mobileops/internal/state"
)

// TestMain lets the test binary be the process that is killed.
func TestMain(m *testing.M) {
	if dir := os.Getenv("STORE_TEST_COLLECT"); dir != "" {
		if err := collectForever(dir, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(3)
		}
		return
	}
	os.Exit(m.Run())
}

func killOptions(o *Options) {
	o.MaxOpen = 20_000
	o.SealEvery = 30 * time.Millisecond
	o.Now = time.Now
}

// retention lets go of the source "junk", and of nothing else.
func retention() Policy { return Policy{Sources: map[string]Limits{"junk": {MaxBytes: 1}}} }

// collectForever appends numbered records of three sources, flushes often,
// merges and removes, and says what was acknowledged.
func collectForever(dir string, out io.Writer) error {
	opts := Options{Dir: dir + "/logs", State: state.New(dir, state.Options{LockTimeout: 5 * time.Minute}), Signer: key(), Host: "test-host"}
	killOptions(&opts)
	s, err := Open(opts)
	if err != nil {
		return err
	}
	w, err := s.Writer(ctx)
	if err != nil {
		return err
	}
	cursors, err := w.Cursors(ctx)
	if err != nil {
		return err
	}
	at := map[string]int{}
	for _, source := range []string{"a", "b"} {
		at[source], _ = strconv.Atoi(string(cursors["file:"+source]))
		fmt.Fprintf(out, "begin %s %d\n", source, at[source])
	}
	rotating := make(chan error, 1)
	go func() {
		for {
			if _, err := s.Rotate(ctx, retention()); err != nil {
				rotating <- fmt.Errorf("rotate: %w", err)
				return
			}
			time.Sleep(time.Duration(rand.IntN(8)) * time.Millisecond)
		}
	}()
	for i := 0; ; i++ {
		select {
		case err := <-rotating:
			return err
		default:
		}
		n, m := rand.IntN(30), rand.IntN(10)
		batches := []Batch{batch("a", at["a"], at["a"]+n), batch("b", at["b"], at["b"]+m), batch("junk", i, i+3)}
		if err := w.Append(ctx, batches); err != nil {
			return err
		}
		at["a"], at["b"] = at["a"]+n, at["b"]+m
		fmt.Fprintf(out, "ack a %d\nack b %d\n", at["a"], at["b"])
		switch rand.IntN(12) {
		case 0:
			err = w.Flush(ctx)
		case 1:
			err = w.Tick(ctx)
		case 2:
			name := strconv.Itoa(rand.IntN(3))
			if err = s.Hold(ctx, Hold{Name: name, Sources: []string{"b"}, Until: rand.Int64N(1 << 40)}); errors.Is(err, ErrHoldExists) {
				err = s.Release(ctx, name, "", "")
			}
		}
		if err != nil {
			return err
		}
	}
}

// TestKillLosesAndDoublesNothing kills a collector, while it appends, flushes,
// merges, removes, seals and holds, more than 200 times.
func TestKillLosesAndDoublesNothing(t *testing.T) {
	kills := 210
	if testing.Short() {
		kills = 20
	}
	dir := t.TempDir()
	s, _ := openStore(t, dir, killOptions)
	acked := map[string]int{}
	for k := range kills {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "STORE_TEST_COLLECT="+dir)
		var stderr strings.Builder
		cmd.Stderr = &stderr
		pipe, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		// Some die while the store is made, or while they recover; most once they
		// are at work, however slow the machine is.
		kill := func() { cmd.Process.Kill() }
		early := k < kills/20 || k%4 == 0
		if early {
			time.AfterFunc(time.Duration(rand.IntN(30_000))*time.Microsecond, kill)
		}
		acks := 2 * rand.IntN(8)
		lines := bufio.NewScanner(pipe)
		for lines.Scan() {
			var what, source string
			var n int
			if _, err := fmt.Sscanf(lines.Text(), "%s %s %d", &what, &source, &n); err != nil {
				continue // its end was not written
			}
			if what == "ack" {
				acks--
			}
			if !early && acks <= 0 {
				early = true
				time.AfterFunc(time.Duration(rand.IntN(20_000))*time.Microsecond, kill)
			}
			if what == "begin" && (n < acked[source] || n > acked[source]+30) {
				t.Fatalf("kill %d: %s goes on at %d, and %d was acknowledged", k, source, n, acked[source])
			}
			acked[source] = n
		}
		cmd.Wait()
		if ws, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || ws.Signal() != syscall.SIGKILL {
			t.Fatalf("kill %d: the collector ended by itself: %v: %s", k, cmd.ProcessState, &stderr)
		}
		if k%10 == 9 && acked["a"] > 0 {
			checkNumbered(t, s, acked)
		}
	}
	w := writer(t, s)
	if d := w.Recovery().Damage; len(d) > 0 {
		t.Errorf("damage: %v", d)
	}
	flushed(t, w)
	checkNumbered(t, s, acked)
	if _, err := s.Rotate(ctx, retention()); err != nil {
		t.Fatal(err)
	}
	checkNumbered(t, s, acked)
	r := clean(t, s)
	t.Logf("%d kills; %v acknowledged; %d segments, %d merged, %d removed, %d seals, %d leaves", kills, acked, r.Segments, r.Merged, r.Removed, r.Seals, r.Leaves)
	// The short run is that of the race detector, which takes its time.
	if acked["a"] < kills || !testing.Short() && (acked["a"] < 20*kills || r.Merged == 0 || r.Removed == 0 || r.Seals < 2) {
		t.Error("too little happened for the kills to prove much")
	}
	names, err := readNames(s.segmentDir())
	if err != nil || int64(len(names)) != r.Segments {
		t.Errorf("%d files for %d segments: %v", len(names), r.Segments, err)
	}
}

// checkNumbered checks that each acknowledged record is there once, and at most
// one batch more.
func checkNumbered(t *testing.T, s *Store, acked map[string]int) {
	t.Helper()
	clean(t, s)
	got, _ := all(t, s, Range{Since: Everything().Since, Until: Everything().Until, Sources: []string{"a", "b"}})
	bySource := map[string][]string{}
	for _, l := range got {
		source, _, _ := strings.Cut(l, "|")
		bySource[source] = append(bySource[source], l)
	}
	for source, n := range acked {
		have := len(bySource[source])
		if have < n || have > n+30 {
			t.Fatalf("%s: %d records are there, %d were acknowledged", source, have, n)
		}
		want := lines(source, 0, have)
		slices.Sort(want)
		if !slices.Equal(bySource[source], want) {
			t.Fatalf("%s: not each of its %d records is there once", source, have)
		}
		acked[source] = have // what was written, and could not be acknowledged, stays
	}
}

// TestReadersSeeEachRecordOnce takes snapshots while another goroutine
// appends, flushes and merges.
func TestReadersSeeEachRecordOnce(t *testing.T) {
	s, _ := newStore(t, func(o *Options) { o.MaxOpen = 5000; o.Now = time.Now })
	w := writer(t, s)
	stop, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	done := make(chan error, 1)
	progress := make(chan int, 100_000)
	go func() {
		defer close(progress)
		n := 0
		for i := 0; stop.Err() == nil; i++ {
			if err := w.Append(ctx, []Batch{batch("a", n, n+20)}); err != nil {
				done <- err
				return
			}
			n += 20
			progress <- n
			if i%20 == 19 {
				if _, err := s.Rotate(ctx, Policy{}); err != nil {
					done <- err
					return
				}
			}
		}
		done <- nil
	}()
	acked, looks := 0, 0
	for stop.Err() == nil {
		for more := true; more; {
			select {
			case n, ok := <-progress:
				if ok {
					acked = n
				}
				more = ok
			default:
				more = false
			}
		}
		got, _ := all(t, s, Everything())
		if len(got) < acked {
			t.Fatalf("%d records, and %d were acknowledged", len(got), acked)
		}
		want := lines("a", 0, len(got))
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Fatal("a record is there twice")
		}
		if looks%20 == 0 {
			clean(t, s)
		}
		looks++
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	t.Logf("%d looks at up to %d records", looks, acked)
	clean(t, s)
}

// TestMergedFilesStayForReaders holds a snapshot while its segments are merged.
func TestMergedFilesStayForReaders(t *testing.T) {
	s, c := newStore(t, nil)
	w := writer(t, s)
	for i := range 4 {
		appendTo(t, w, batch("a", i, i+1))
		flushed(t, w)
	}
	snap, err := s.Snapshot(ctx, Everything())
	if err != nil {
		t.Fatal(err)
	}
	defer snap.Close()
	report, err := s.Rotate(ctx, Policy{})
	if err != nil || len(report.Merged) != 1 || report.Merged[0].Records != 4 {
		t.Fatalf("%+v, %v", report, err)
	}
	for i := range snap.Segments {
		data, err := snap.Segments[i].Open(ctx)
		if err != nil {
			t.Fatal(err)
		}
		data.Close()
	}
	clean(t, s)
	c.add(2 * doomedFor) // a reader that does not end keeps nothing for ever
	if _, err := s.Rotate(ctx, Policy{}); err != nil {
		t.Fatal(err)
	}
	if _, err := snap.Segments[0].Open(ctx); !errors.Is(err, ErrGone) {
		t.Errorf("%v; want ErrGone", err)
	}
	wantAll(t, s, lines("a", 0, 4))
	if names, _ := readNames(s.segmentDir()); len(names) != 1 {
		t.Errorf("files: %q", names)
	}
	if _, err := s.Seal(ctx); err != nil { // without any seal, hours later, it would be none to trust
		t.Fatal(err)
	}
	clean(t, s)
}
