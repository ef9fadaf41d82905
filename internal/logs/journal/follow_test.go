package journal

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mobileops/mobileops/internal/logs/match"
)

// live is a systemd-journal-remote that writes what it is given.
type live struct {
	t   *testing.T
	in  io.WriteCloser
	cmd *exec.Cmd
}

func startLive(t *testing.T, path string) *live {
	t.Helper()
	l := &live{t: t, cmd: exec.Command(remotePath, "-o", path, "-")}
	var err error
	if l.in, err = l.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := l.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.end)
	return l
}

func (l *live) write(data []byte) {
	if _, err := l.in.Write(data); err != nil {
		l.t.Error(err)
	}
}

func (l *live) end() {
	if l.cmd != nil {
		l.in.Close()
		l.cmd.Wait()
		l.cmd = nil
	}
}

// numbered returns entries with a number each.
func numbered(from, to int) []byte {
	var b bytes.Buffer
	for i := from; i < to; i++ {
		fmt.Fprintf(&b, "__REALTIME_TIMESTAMP=%d\n__MONOTONIC_TIMESTAMP=%d\n_BOOT_ID=%s\n_HOSTNAME=h\nMESSAGE=number %d\n\n", 1_780_000_000_000_000+uint64(i)*1000, 1000+i, boots[0], i)
	}
	return b.Bytes()
}

// wait gives up loudly when what is waited for does not happen.
func patience(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// readNumbers reads the numbers of entries until there are n in all.
func readNumbers(t *testing.T, ctx context.Context, s *Set, n int) (got []string) {
	t.Helper()
	for len(got) < n {
		e, err := s.Next()
		if err == io.EOF {
			if err := s.Wait(ctx); err != nil {
				t.Fatalf("%d entries of %d, then %v", len(got), n, err)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		m, ok := e.Get("MESSAGE")
		if !ok {
			t.Fatal("an entry that is not complete was handed out")
		}
		got = append(got, string(m))
	}
	return got
}

// eachOnce fails unless got are the numbers from and to and all between, once.
func eachOnce(t *testing.T, got []string, from, to int) {
	t.Helper()
	have := map[string]int{}
	for _, g := range got {
		have[g]++
	}
	for i := from; i < to; i++ {
		if n := have[fmt.Sprintf("number %d", i)]; n != 1 {
			t.Fatalf("number %d was read %d times", i, n)
		}
	}
	if len(got) != to-from {
		t.Fatalf("%d entries of %d", len(got), to-from)
	}
}

func TestFollowWhileItIsWritten(t *testing.T) {
	needSystemd(t)
	path := filepath.Join(t.TempDir(), "a.journal")
	l := startLive(t, path)
	l.write(numbered(0, 1))
	ctx := patience(t)
	for { // until there is a file
		if st, err := os.Stat(path); err == nil && st.Size() > 4096 {
			break
		}
		time.Sleep(time.Millisecond)
	}
	s := open(t, Options{}, path)
	const n = 20000
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := 1; i < n; i += 100 {
			l.write(numbered(i, min(i+100, n)))
			time.Sleep(time.Millisecond)
		}
	}()
	eachOnce(t, readNumbers(t, ctx, s, n), 0, n)
	<-done
	l.end()
	if _, err := s.Next(); err != io.EOF {
		t.Errorf("after the last entry: %v", err)
	}
}

// rotate does to a file what journald does: it gets another name, and a new
// file takes its place.
func rotate(t *testing.T, dir string, k int) {
	t.Helper()
	if err := os.Rename(filepath.Join(dir, "system.journal"), filepath.Join(dir, fmt.Sprintf("system@%d.journal", k))); err != nil {
		t.Fatal(err)
	}
}

func TestFollowAcrossRotation(t *testing.T) {
	needSystemd(t)
	root := t.TempDir()
	dir := filepath.Join(root, "aaaabbbbccccddddeeeeffff00001111")
	s := open(t, Options{KeepAll: true}, root)
	ctx := patience(t)
	if _, err := s.Next(); err != io.EOF {
		t.Fatal(err)
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	var read atomic.Int64
	go func() {
		defer close(done)
		for k := range 10 {
			l := startLive(t, filepath.Join(dir, "system.journal"))
			l.write(numbered(k*100, k*100+100))
			l.end()
			rotate(t, dir, k)
			if k >= 4 { // vacuumed, once it was read
				for read.Load() < int64(k-3)*100 && ctx.Err() == nil {
					time.Sleep(time.Millisecond)
				}
				os.Remove(filepath.Join(dir, fmt.Sprintf("system@%d.journal", k-4)))
			}
		}
	}()
	var got []string
	for range 10 {
		got = append(got, readNumbers(t, ctx, s, 100)...)
		read.Add(100)
	}
	eachOnce(t, got, 0, 1000)
	<-done
	s.rescan(&s.walk)
	if n := len(s.Files()); n > 4 {
		t.Errorf("%d files are open; those that were removed should not be", n)
	}
}

func TestPositionGoesOnExactly(t *testing.T) {
	needSystemd(t)
	dir := t.TempDir()
	write := func(from, to int) {
		l := startLive(t, filepath.Join(dir, "system.journal"))
		l.write(numbered(from, to))
		l.end()
	}
	var got []string
	position := ""
	read := func(limit int) {
		s := open(t, Options{KeepAll: true}, dir)
		if position != "" {
			if err := s.Restore(position); err != nil {
				t.Fatal(err)
			}
		}
		for range limit {
			e, err := s.Next()
			if err == io.EOF {
				break
			}
			m, _ := e.Get("MESSAGE")
			got = append(got, string(m))
		}
		position = s.Position()
	}
	read(5)
	write(0, 100)
	read(30)
	read(0)
	write(100, 200)
	read(80)
	rotate(t, dir, 1)
	write(200, 300)
	read(1)
	write(300, 400)
	rotate(t, dir, 2)
	write(400, 450)
	read(1000)
	read(1000)
	eachOnce(t, got, 0, 450)
	// journalctl takes it for a cursor.
	after := journalctl(t, "--directory", dir, "-o", "cat", "--cursor", position)
	if !bytes.HasPrefix(after, []byte("number 449")) {
		t.Errorf("journalctl --cursor POSITION begins with %.40q", after)
	}
}

func TestSeekTimeAndCursorEqualJournalctl(t *testing.T) {
	needSystemd(t)
	dir := t.TempDir()
	for i := range 3 { // one after the other, in boots of their own
		remote(t, filepath.Join(dir, fmt.Sprintf("f%d.journal", i)), generate(spec{seed: uint64(i), n: 300, boot: boots[i], start: 1_780_000_000_000_000 + uint64(i)*1_000_000_000}), realFormats[i].env)
	}
	v := variant(t)
	s := open(t, Options{}, dir)
	all := bytes.SplitAfter(exportAll(t, s, v), []byte("\n\n"))
	all = all[:len(all)-1]
	for _, i := range []int{0, 1, 299, 300, 301, 450, 599, 600, 899} {
		cursor, _, _ := bytes.Cut(bytes.TrimPrefix(all[i], []byte("__CURSOR=")), []byte("\n"))
		if err := s.SeekCursor(string(cursor)); err != nil {
			t.Fatal(err)
		}
		sameExport(t, exportAll(t, s, v), bytes.Join(all[i:], nil))
		if i < 300 { // with boots that it does not find, journalctl before 254 leaves out whole files
			continue
		}
		e, _ := firstAfter(t, s, func() { s.SeekCursor(string(cursor)) })
		for _, at := range []uint64{e.Realtime, e.Realtime - 1, e.Realtime + 1} {
			s.SeekTime(at)
			got := exportAll(t, s, v)
			want := journalctl(t, "-o", "export", "--directory", dir, "--since", fmt.Sprintf("@%d.%06d", at/1e6, at%1e6))
			sameExport(t, got, want)
		}
	}
	for _, bad := range []string{"", "x", "s=1", "i=5", "t=zz", "s=0a;i=1", "f=1:2"} {
		if s.SeekCursor(bad) == nil || s.Restore(bad) == nil {
			t.Errorf("cursor %q was taken", bad)
		}
	}
}

func firstAfter(t *testing.T, s *Set, seek func()) (Entry, bool) {
	t.Helper()
	seek()
	e, err := s.Next()
	if err != nil {
		t.Fatal(err)
	}
	return *e, true
}

// TestSearchWhileItIsWritten looks for what every entry has, again and again:
// what is found must be the first entries without any missing.
func TestSearchWhileItIsWritten(t *testing.T) {
	needSystemd(t)
	path := filepath.Join(t.TempDir(), "a.journal")
	const n = 30000
	l := startLive(t, path)
	l.write(numbered(0, 1))
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := 1; i < n; i += 50 {
			l.write(numbered(i, min(i+50, n)))
		}
		l.end()
	}()
	ctx := patience(t)
	for {
		if st, err := os.Stat(path); err == nil && st.Size() > 4096 {
			break
		}
		time.Sleep(time.Millisecond)
	}
	s := open(t, Options{}, path)
	searches := 0
	for found := 0; found < n; searches++ {
		o := SearchOptions{Need: match.Need{Clauses: []match.Clause{{{Text: []byte("=number")}}}}}
		if searches%2 == 1 {
			o = SearchOptions{Matches: []FieldMatch{{"_HOSTNAME", []byte("h")}}}
		}
		next := 0
		if err := s.Search(ctx, o, func(e *Entry) error {
			if m, _ := e.Get("MESSAGE"); string(m) != fmt.Sprintf("number %d", next) {
				return fmt.Errorf("search %d: %q where there should be number %d", searches, m, next)
			}
			next++
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		if next < found {
			t.Fatalf("%d entries, and %d before", next, found)
		}
		found = next
	}
	<-done
	if searches < 5 {
		t.Logf("only %d searches while it was written", searches)
	}
}

func TestSearchFollows(t *testing.T) {
	needSystemd(t)
	dir := t.TempDir()
	l := startLive(t, filepath.Join(dir, "system.journal"))
	l.write(numbered(0, 500))
	l.end()
	s := open(t, Options{}, dir)
	done := make(chan struct{})
	defer func() { <-done }()
	go func() {
		defer close(done)
		for k := range 5 {
			rotate(t, dir, k)
			l := startLive(t, filepath.Join(dir, "system.journal"))
			l.write(numbered(500+k*100, 600+k*100))
			l.end()
		}
	}()
	var got []string
	stop := errors.New("stop")
	o := SearchOptions{Follow: true, Need: match.Need{Clauses: []match.Clause{{{Text: []byte("NUMBER"), Fold: true}}, {{Text: []byte("9")}, {Text: []byte("8")}}}}}
	o.Need.Clauses[0][0].Text = []byte("number")
	err := s.Search(patience(t), o, func(e *Entry) error {
		m, _ := e.Get("MESSAGE")
		if got = append(got, string(m)); string(m) == "number 999" {
			return stop
		}
		return nil
	})
	if err != stop {
		t.Fatal(err)
	}
	var want []string
	for i := range 1000 {
		if text := fmt.Sprintf("number %d", i); bytes.ContainsAny([]byte(text), "89") {
			want = append(want, text)
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("%d entries, want %d", len(got), len(want))
	}
}
