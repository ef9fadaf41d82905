package source

import (
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mobileops/mobileops/internal/logs/event"
)

// memorySink keeps everything in memory, or nothing when it is told to fail.
type memorySink struct {
	mu      sync.Mutex
	cursors map[string][]byte
	batches []Batch
	fail    func() error // asked before anything is kept
	appends int
}

func (s *memorySink) Cursors(context.Context) (map[string][]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.cursors), nil
}

func (s *memorySink) Append(_ context.Context, batches []Batch) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.appends++
	if s.fail != nil {
		if err := s.fail(); err != nil {
			return err
		}
	}
	if s.cursors == nil {
		s.cursors = map[string][]byte{}
	}
	for _, b := range batches {
		if b.Cursor == nil {
			delete(s.cursors, b.Key)
		} else {
			s.cursors[b.Key] = slices.Clone(b.Cursor)
		}
		c := b
		c.Records = nil
		for _, r := range b.Records {
			r.Raw = slices.Clone(r.Raw)
			c.Records = append(c.Records, r)
		}
		s.batches = append(s.batches, c)
	}
	return nil
}

// records returns every record kept.
func (s *memorySink) records() []event.Record {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []event.Record
	for _, b := range s.batches {
		out = append(out, b.Records...)
	}
	return out
}

// lines returns the bytes of every record kept, in the order of their keeping.
func (s *memorySink) lines() []string {
	var out []string
	for _, r := range s.records() {
		out = append(out, string(r.Raw))
	}
	return out
}

// tell logs what was kept, for whoever looks for what went wrong.
func (s *memorySink) tell(t *testing.T) {
	for _, b := range s.batches {
		first := ""
		if len(b.Records) > 0 {
			first = string(b.Records[0].Raw)
		}
		t.Logf("%s %d records from %.80q %s", b.Key, len(b.Records), first, b.Cursor)
	}
}

// sources returns the names of sources, once each.
func (s *memorySink) sources() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	names := map[string]bool{}
	for _, b := range s.batches {
		if len(b.Records) > 0 {
			names[b.Origin.Source] = true
		}
	}
	return slices.Sorted(maps.Keys(names))
}

// host is a directory with logs and a sink, looked at by one collector after
// the other, as cron or a restarted daemon would.
type host struct {
	t    *testing.T
	dir  string
	sink *memorySink
	opts Options
	spec []Spec
}

func newHost(t *testing.T, include ...string) *host {
	t.Helper()
	h := &host{t: t, dir: t.TempDir(), sink: &memorySink{}}
	h.opts = Options{Host: "here", Idle: 50 * time.Millisecond, Poll: 50 * time.Millisecond, Flush: 10 * time.Millisecond}
	if len(include) == 0 {
		include = []string{"app.log"}
	}
	s := Spec{Name: "test", Kind: Files}
	for _, name := range include {
		s.Include = append(s.Include, h.path(name))
	}
	h.spec = []Spec{s}
	return h
}

func (h *host) path(name string) string { return filepath.Join(h.dir, name) }

func (h *host) collector() *Collector {
	h.t.Helper()
	c, err := New(h.spec, nil, h.sink, h.opts)
	if err != nil {
		h.t.Fatal(err)
	}
	return c
}

func (h *host) once() Report {
	h.t.Helper()
	r, err := h.collector().Once(context.Background())
	if err != nil {
		h.t.Fatal(err)
	}
	return r
}

// follow collects until stop is called.
func (h *host) follow() (c *Collector, stop func()) {
	h.t.Helper()
	c = h.collector()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.Follow(ctx) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				h.t.Error(err)
			}
		})
	}
	h.t.Cleanup(stop)
	return c, stop
}

func (h *host) write(name, text string) {
	h.t.Helper()
	p := h.path(name)
	if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
		h.t.Fatal(err)
	}
	if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
		h.t.Fatal(err)
	}
}

func (h *host) append(name, text string) {
	h.t.Helper()
	f, err := os.OpenFile(h.path(name), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err == nil {
		_, err = io.WriteString(f, text)
		f.Close()
	}
	if err != nil {
		h.t.Fatal(err)
	}
}

func (h *host) rename(from, to string) {
	h.t.Helper()
	if err := os.Rename(h.path(from), h.path(to)); err != nil {
		h.t.Fatal(err)
	}
}

func (h *host) remove(name string) {
	h.t.Helper()
	if err := os.Remove(h.path(name)); err != nil {
		h.t.Fatal(err)
	}
}

// copyTruncate does what logrotate's copytruncate does, while nobody writes.
func (h *host) copyTruncate(from, to string) {
	h.t.Helper()
	b, err := os.ReadFile(h.path(from))
	if err != nil {
		h.t.Fatal(err)
	}
	h.write(to, string(b))
	if err := os.Truncate(h.path(from), 0); err != nil {
		h.t.Fatal(err)
	}
}

// numbered returns lines that look like those of a log, with their numbers.
func numbered(from, to int) string {
	var b strings.Builder
	for i := from; i < to; i++ {
		fmt.Fprintf(&b, "2026-11-22T06:%02d:%02d.%03dZ app[77]: line number %d of the test\n", i/60000%60, i/1000%60, i%1000, i)
	}
	return b.String()
}

// once each of the numbers below n, or it says which are missing or double.
func (h *host) expect(n int) {
	h.t.Helper()
	if msg := checkNumbers(h.sink.lines(), n); msg != "" {
		h.t.Fatal(msg)
	}
}

// eventually waits for the numbers below n.
func (h *host) eventually(n int) {
	h.t.Helper()
	h.await(func() string { return checkNumbers(h.sink.lines(), n) })
}

// await waits until there is nothing wrong any more, as long as the busiest
// machine may take.
func (h *host) await(wrong func() string) {
	h.t.Helper()
	for end := time.Now().Add(3 * time.Minute); ; time.Sleep(10 * time.Millisecond) {
		switch msg := wrong(); {
		case msg == "":
			return
		case time.Now().After(end):
			h.t.Fatal(msg)
		}
	}
}

func checkNumbers(lines []string, n int) string {
	seen := make([]int, n)
	var odd []string
	for _, l := range lines {
		var date, tag string
		var i int
		if _, err := fmt.Sscanf(l, "%s %s line number %d of the test", &date, &tag, &i); err != nil || i < 0 || i >= n {
			odd = append(odd, l)
			continue
		}
		seen[i]++
	}
	var missing, double []int
	for i, k := range seen {
		if k == 0 {
			missing = append(missing, i)
		} else if k > 1 {
			double = append(double, i)
		}
	}
	if len(missing)+len(double)+len(odd) == 0 {
		return ""
	}
	return fmt.Sprintf("of %d lines %d are missing (%v), %d double (%v), %d odd (%.300q)",
		n, len(missing), missing[:min(10, len(missing))], len(double), double[:min(10, len(double))], len(odd), odd[:min(3, len(odd))])
}
