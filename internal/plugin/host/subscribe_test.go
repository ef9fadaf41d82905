package host

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/mobileops/mobileops/internal/audit"
	"github.com/mobileops/mobileops/internal/finding"
	"github.com/mobileops/mobileops/internal/state"
)

func TestMain(m *testing.M) {
	if os.Getenv("HOST_TEST_CLIENT") != "" {
		clientProcess()
	}
	os.Exit(m.Run())
}

func act(t testing.TB, store *state.Store, command string) {
	t.Helper()
	if _, err := audit.New(store, audit.Options{Host: "test"}).Append(context.Background(), audit.Act{Time: time.Now(), Command: command, Args: []string{"\xff"}}); err != nil {
		t.Fatal(err)
	}
}

func TestEventsOfBothKindsInOneOrder(t *testing.T) {
	store := newStore(t)
	grow(t, store, 0, 2)
	act(t, store, "first act")
	grow(t, store, 2, 1)
	act(t, store, "second act")
	s := serve(t, Options{Store: store, Permissions: readAll()})
	s.hello()
	var began struct{ Cursor string }
	s.granted("events.subscribe", `{"types":["finding","audit"],"from":"oldest","batch":4}`, &began)
	if began.Cursor != "f0.a0" {
		t.Errorf("cursor %s", began.Cursor)
	}
	one, two := s.batch(), s.batch()
	var kinds, ids []string
	for _, e := range append(one.Events, two.Events...) {
		kinds, ids = append(kinds, e.Type), append(ids, e.ID)
	}
	if got := strings.Join(kinds, " "); got != "finding finding audit finding audit" || one.Cursor != "f3.a1" || two.Cursor != "f3.a2" {
		t.Fatalf("%s, cursors %s and %s", got, one.Cursor, two.Cursor)
	}
	f, a := one.Events[3], two.Events[0]
	if f.Change != "opened" || f.Finding.Subject != some(2, 1)[0].Subject || f.Finding.Source != "integrity" || f.Time.IsZero() {
		t.Errorf("finding %+v", f)
	}
	if a.Audit == nil || a.Audit.Command != "second act" || a.Audit.Sequence != 2 || len(a.Audit.Hash) != 64 || string(a.Audit.ArgsB64[0]) != "\xff" {
		t.Errorf("audit %+v", a.Audit)
	}
	s.refused(NotFound, "events.ack", `{"cursor":"f3.a7"}`)
	s.refused(Invalid, "events.ack", `{"cursor":"f03.a1"}`)
	s.ack(one.Cursor)
	s.ack(one.Cursor) // again: nothing happens
	s.close()
	if at := saved(t, store, "probe"); at != (position{3, 1}) {
		t.Errorf("saved %v", at)
	}

	// The next process goes on behind it, and is told of what happens then.
	s = serve(t, Options{Store: store, Permissions: readAll()})
	s.hello()
	s.granted("events.subscribe", `{"types":["finding","audit"],"from":"saved"}`, &began)
	again := s.batch()
	if began.Cursor != one.Cursor || len(again.Events) != 1 || again.Events[0].ID != ids[4] {
		t.Errorf("from %s: %+v", began.Cursor, again)
	}
	s.ack(again.Cursor)
	grow(t, store, 3, 1)
	if b := s.batch(); len(b.Events) != 1 || b.Cursor != "f4.a2" {
		t.Errorf("batch %+v", b)
	}
	// A subscription that takes the place of another one begins where that was
	// acknowledged; a command of the plugin has a cursor of its own.
	s.granted("events.subscribe", `{"types":["finding"]}`, &began)
	if b := s.batch(); began.Cursor != "f3.a2" || b.Cursor != "f4.a2" {
		t.Errorf("began at %s, %+v", began.Cursor, b)
	}
	command := serve(t, Options{Store: store, Permissions: readAll(), Role: RoleCommand})
	command.hello()
	if command.granted("events.subscribe", `{}`, &began); began.Cursor != "f4.a2" {
		t.Errorf("a command begins at %s", began.Cursor)
	}
	command.close()
	command = serve(t, Options{Store: store, Permissions: readAll(), Role: RoleCommand})
	command.hello()
	grow(t, store, 4, 1)
	if command.granted("events.subscribe", `{}`, &began); began.Cursor != "f4.a2" || command.batch().Cursor != "f5.a2" {
		t.Errorf("what happened while nobody ran is behind %s", began.Cursor)
	}
	s.refused(Invalid, "events.subscribe", `{"from":"f1"}`)
	s.refused(Invalid, "events.subscribe", `{"types":["gap"]}`)
}

func TestAtMostTwoBatchesAreOpen(t *testing.T) {
	store := newStore(t)
	grow(t, store, 0, 100)
	s := serve(t, Options{Store: store, Permissions: readAll()})
	s.hello()
	s.granted("events.subscribe", `{"from":"oldest","batch":10}`, nil)
	one, two := s.batch(), s.batch()
	// A third one would come before this answer, or between these.
	for range 20 {
		s.granted("config.get", "{}", nil)
	}
	if len(s.held) != 0 {
		t.Fatalf("a third batch: %s", s.held[0].Params)
	}
	s.ack(two.Cursor) // both
	three, four := s.batch(), s.batch()
	if one.Cursor != "f10.a0" || two.Cursor != "f20.a0" || three.Cursor != "f30.a0" || four.Cursor != "f40.a0" {
		t.Errorf("cursors %s %s %s %s", one.Cursor, two.Cursor, three.Cursor, four.Cursor)
	}
}

func TestLinesOfEventsAreBounded(t *testing.T) {
	store := newStore(t)
	huge := some(0, 40)
	for i := range huge {
		huge[i].Evidence = map[string]string{"a": strings.Repeat("\x01", 4000), "b": strings.Repeat("\xff", 4000)}
		huge[i].References = make([]string, 64)
		for j := range huge[i].References {
			huge[i].References[j] = strings.Repeat("\x02", 2000)
		}
	}
	update(t, store, func(tx *state.Tx) error {
		_, err := finding.Report(tx, "integrity", "", huge, time.Now())
		return err
	})
	s := serve(t, Options{Store: store, Permissions: readAll()})
	s.hello()
	s.granted("events.subscribe", `{"from":"oldest"}`, nil)
	for n := 0; n < len(huge); {
		l, err := s.line("events")
		if err != nil {
			t.Fatal(err)
		}
		var b batch
		if err := json.Unmarshal(l.Params, &b); err != nil || l.size > batchBytes {
			t.Fatalf("line of %d bytes: %v", l.size, err)
		}
		for _, e := range b.Events {
			if !e.Finding.Truncated || e.Finding.Subject == "" || len(e.Finding.References) == 64 {
				t.Errorf("finding %.100q truncated %v", e.Finding.Subject, e.Finding.Truncated)
			}
		}
		n += len(b.Events)
		s.ack(b.Cursor)
	}
}

func TestFilteredEventsMoveTheCursor(t *testing.T) {
	store := newStore(t)
	s := serve(t, Options{Store: store, Permissions: Permissions{ReadFindings: true, FindingsFrom: []string{"threat"}}})
	s.hello()
	s.granted("events.subscribe", `{"from":"oldest"}`, nil)
	grow(t, store, 0, 3000)
	update(t, store, func(tx *state.Tx) error {
		_, err := finding.Report(tx, "threat", "", some(0, 1), time.Now())
		return err
	})
	b := s.batch()
	if len(b.Events) != 1 || b.Events[0].Finding.Source != "threat" || b.Cursor != "f3001.a0" {
		t.Errorf("batch %+v", b)
	}
	s.ack(b.Cursor)
	grow(t, store, 3000, 2000)
	for deadline := time.Now().Add(patience); saved(t, store, "probe").findings < 4001; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("saved %v", saved(t, store, "probe"))
		}
	}
}

func TestGapsAreTold(t *testing.T) {
	store := newStore(t)
	update(t, store, func(tx *state.Tx) error { return saveCursor(tx, "probe", position{}) })
	grow(t, store, 0, 2000)
	var first uint64
	update(t, store, func(tx *state.Tx) (err error) { // as if there were too many
		log := tx.Bucket([]byte("finding_log"))
		for range 20 {
			k, _ := log.Cursor().First()
			err = errors.Join(err, log.Delete(k))
		}
		if err == nil {
			first, _, err = finding.LogRange(tx)
		}
		return err
	})
	s := serve(t, Options{Store: store, Permissions: readAll()})
	s.hello()
	s.granted("events.subscribe", `{}`, nil)
	b := s.batch()
	if g := b.Events[0]; g.Type != TypeGap || g.Lost != first-1 || first < 100 || b.Events[1].Type != TypeFinding {
		t.Errorf("gap %+v", g)
	}
	s.close()
	// A state that was put back ends before the cursor.
	update(t, store, func(tx *state.Tx) error { return saveCursor(tx, "probe", position{5000, 3}) })
	s = serve(t, Options{Store: store, Permissions: readAll()})
	s.hello()
	s.granted("events.subscribe", `{}`, nil)
	b = s.batch()
	if g := b.Events[0]; g.Type != TypeGap || g.Lost != 3003 || b.Cursor != "f2000.a0" {
		t.Errorf("gap %+v, cursor %s", g, b.Cursor)
	}
}

// start runs the test binary as a plugin, which prints what it acknowledged.
func startClient(t *testing.T, store Store) (printed *bufio.Scanner, cmd *exec.Cmd, result chan error) {
	t.Helper()
	ours, theirs := pair(t)
	f, err := theirs.File()
	if err != nil {
		t.Fatal(err)
	}
	cmd = exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "HOST_TEST_CLIENT=x")
	cmd.ExtraFiles = []*os.File{f}
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	f.Close()
	theirs.Close()
	result = make(chan error, 1)
	go func() {
		result <- Serve(context.Background(), ours, Options{Name: "probe", Role: RoleService, Store: store, Permissions: readAll()})
	}()
	return bufio.NewScanner(out), cmd, result
}

// clientProcess is a plugin that prints each event's subject before it
// acknowledges the batch, as one that writes them to a disk.
func clientProcess() {
	f := os.NewFile(3, "host")
	conn, err := net.FileConn(f)
	if err != nil {
		panic(err)
	}
	c := newClient(quiet{}, conn.(*net.UnixConn))
	c.hello()
	c.granted("events.subscribe", `{"from":"saved","batch":100}`, nil)
	out := bufio.NewWriter(os.Stdout)
	for {
		b := c.batch()
		for _, e := range b.Events {
			fmt.Fprintln(out, e.Finding.Subject)
		}
		fmt.Fprintln(out, "acknowledging", b.Cursor)
		out.Flush()
		c.ack(b.Cursor)
	}
}

// quiet is a testing.TB of a process that is no test.
type quiet struct{ testing.TB }

func (quiet) Helper()                           {}
func (quiet) Cleanup(func())                    {}
func (quiet) Fatal(args ...any)                 { fmt.Fprintln(os.Stderr, args...); os.Exit(1) }
func (quiet) Fatalf(format string, args ...any) { fmt.Fprintf(os.Stderr, format, args...); os.Exit(1) }

func TestWhatAKilledPluginHadNotAcknowledgedComesAgain(t *testing.T) {
	store := newStore(t)
	update(t, store, func(tx *state.Tx) error { return saveCursor(tx, "probe", position{}) })
	const total = 20_000
	grow(t, store, 0, total)
	// Events are appended by fingerprint within a report: their order is that
	// of the log.
	var want []string
	if err := store.View(t.Context(), func(tx *state.Tx) error {
		log, _, err := finding.Changes(tx, 0, total, 1<<30)
		for _, e := range log {
			want = append(want, e.Record.Subject)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	at := 0 // what has come in order so far
	for round := 0; at < total; round++ {
		if round > 100 {
			t.Fatal("no end")
		}
		printed, cmd, result := startClient(t, store)
		start := int(saved(t, store, "probe").findings)
		if start > at {
			t.Fatalf("the cursor stands at %d, and %d have come", start, at)
		}
		next, killed := start, false
		for printed.Scan() { // to the end: it goes on until the signal has arrived
			switch text := printed.Text(); {
			case strings.HasPrefix(text, "acknowledging"):
			case next < total && text == want[next]:
				next++
			case killed && (next < total && strings.HasPrefix(want[next], text) || strings.HasPrefix("acknowledging", text)):
				// the end, cut off by the signal
			default:
				t.Fatalf("event %d is %q", next, text)
			}
			if !killed && (next >= start+1550+round*400 || next == total) { // in the middle of a batch
				killed = cmd.Process.Kill() == nil
			}
		}
		cmd.Wait()
		select {
		case err := <-result:
			if err != nil {
				t.Fatal(err)
			}
		case <-time.After(patience):
			t.Fatal("Serve does not end")
		}
		if next <= start {
			t.Fatalf("round %d brought nothing", round)
		}
		at = max(at, next)
	}
}

func TestNothingIsLostOrDoubledAcrossRestartsOfBothSides(t *testing.T) {
	if testing.Short() {
		t.Skip("100,000 events")
	}
	dir := newStore(t).Dir()
	total := 100_000
	if raceDetector {
		total = 20_000 // what it costs is not what is tested
	}
	open := func() *state.Store { return state.New(dir, state.Options{LockTimeout: patience}) }
	update(t, open(), func(tx *state.Tx) error { return saveCursor(tx, "probe", position{}) })
	grown := make(chan bool)
	go func() { // findings come while they are delivered
		defer close(grown)
		store := open()
		for i := 0; i < total; i += 5000 {
			grow(t, store, i, 5000)
		}
	}()
	defer func() { <-grown }()
	next := uint64(1)
	for restart := 0; next <= uint64(total); restart++ {
		s := serve(t, Options{Store: open(), Permissions: readAll(), drain: patience}) // others write all the time
		s.hello()
		s.granted("events.subscribe", `{"types":["finding"],"batch":500}`, nil)
		for range 10 + restart*15 {
			b := s.batch()
			for _, e := range b.Events {
				if !strings.HasPrefix(e.ID, fmt.Sprintf("f%d-", next)) {
					t.Fatalf("restart %d: event %s, want number %d", restart, e.ID, next)
				}
				next++
			}
			s.ack(b.Cursor)
			if next > uint64(total) {
				break
			}
		}
		if restart%2 == 0 {
			s.close() // the plugin goes
		} else { // the host goes
			s.cancel()
			s.end()
		}
	}
}

// BenchmarkDelivery reads a filled log to a client that acknowledges.
func BenchmarkDelivery(b *testing.B) {
	store := newStore(b)
	const total = 100_000
	grow(b, store, 0, total)
	bytes := 0
	for b.Loop() {
		b.StopTimer() // beginning and ending wait for the disk
		s := serve(b, Options{Store: store, Permissions: readAll()})
		s.hello()
		b.StartTimer()
		s.granted("events.subscribe", `{"types":["finding"],"from":"oldest","batch":1000}`, nil)
		last := fmt.Sprintf(`"cursor":"f%d.a0"}}`, total)
		for id := 2; ; id++ {
			raw, err := s.r.ReadBytes('\n')
			if err != nil {
				b.Fatal(err)
			}
			bytes += len(raw)
			line := string(raw)
			at := strings.LastIndex(line, `"cursor":"`)
			if at < 0 {
				continue // the answer to an ack
			}
			cursor := line[at+len(`"cursor":"`) : len(line)-len("\"}}\n")]
			s.write(fmt.Sprintf(`{"id":%d,"method":"events.ack","params":{"cursor":%q}}`+"\n", id, cursor))
			if strings.Contains(line[at:], last) {
				break
			}
		}
		b.StopTimer()
		s.close()
		b.StartTimer()
	}
	b.ReportMetric(float64(total)*float64(b.N)/b.Elapsed().Seconds(), "events/s")
	b.ReportMetric(float64(bytes)/float64(b.N)/total, "bytes/event")
}
