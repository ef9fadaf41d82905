package source

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// TestCopyTruncateUnderLoad truncates a file while its writer goes on. What is
// written between copy and truncation is lost to everybody who did not read it
// in time; but nothing may be double, and everything that is in a file in the
// end must have been read.
func TestCopyTruncateUnderLoad(t *testing.T) {
	h := newHost(t)
	h.waitsForLines()
	h.write("app.log", "")
	f, err := os.OpenFile(h.path("app.log"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var stop atomic.Bool
	wrote := make(chan int)
	go func() {
		n := 0
		for ; !stop.Load(); n += 5 {
			io.WriteString(f, numbered(n, n+5))
			time.Sleep(100 * time.Microsecond)
		}
		wrote <- n
	}()
	_, end := h.follow()
	for i := range 12 {
		time.Sleep(time.Duration(20+i*10) * time.Millisecond)
		in, err := os.Open(h.path("app.log"))
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(in)
		in.Close()
		if err != nil {
			t.Fatal(err)
		}
		to := fmt.Sprintf("app.log.%d", 100+i)
		h.write(to, string(b))
		time.Sleep(60 * time.Millisecond) // the copy of a large file takes its time
		if err := os.Truncate(h.path("app.log"), 0); err != nil {
			t.Fatal(err)
		}
		if i%3 == 2 {
			run(t, "gzip "+h.path(to))
		}
	}
	stop.Store(true)
	n := <-wrote
	time.Sleep(300 * time.Millisecond)
	end()
	h.once()
	seen := map[string]int{}
	for _, l := range h.sink.lines() {
		// A copy, and what is written after a truncation, may have half of a line.
		if seen[l]++; seen[l] > 1 && strings.HasPrefix(l, "2026-") && strings.HasSuffix(l, " of the test") {
			h.sink.tell(t)
			t.Fatalf("%q is double", l)
		}
	}
	files, err := filepath.Glob(h.path("app.log*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		if strings.HasSuffix(name, ".gz") {
			continue
		}
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(b)) {
			// The last line of a copy may be half of one.
			if line, whole := strings.CutSuffix(line, "\n"); whole && seen[line] != 1 {
				t.Fatalf("%q of %s is missing", line, name)
			}
		}
	}
	t.Logf("%d of %d lines were read in time", len(seen), n)
}

// waitsForLines makes the collector wait for the rest of a line: the kernel writes
// a text in parts, and on a busy machine the writer may wait between two of them.
func (h *host) waitsForLines() {
	h.opts.Idle = 20 * time.Second
	h.spec[0].Format = "plain" // others wait for lines that continue a record
}

// TestRenameUnderLoad renames and compresses while the writer goes on, which
// loses nothing.
func TestRenameUnderLoad(t *testing.T) {
	h := newHost(t)
	h.waitsForLines()
	reopen := func() *os.File {
		f, err := os.OpenFile(h.path("app.log"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
		if err != nil {
			t.Error(err)
		}
		return f
	}
	var stop, rotated atomic.Bool
	wrote := make(chan int)
	go func() {
		f, n, written := reopen(), 0, 0
		for ; !stop.Load(); n += 50 {
			if rotated.CompareAndSwap(true, false) { // as after a signal
				f.Close()
				f, written = reopen(), 0
			}
			// Compressing takes as long as the machine likes, and what is
			// written meanwhile must be read in the end.
			if written++; written > 1000 {
				time.Sleep(time.Millisecond)
				n -= 50
				continue
			}
			io.WriteString(f, numbered(n, n+50))
			if n%500 == 0 {
				time.Sleep(time.Millisecond)
			}
		}
		f.Close()
		wrote <- n
	}()
	c, end := h.follow()
	for i := range 15 {
		time.Sleep(time.Duration(10+i*7) * time.Millisecond)
		to := fmt.Sprintf("app.log.%d", 100+i)
		h.rename("app.log", to)
		rotated.Store(true)
		for rotated.Load() || !exists(h.path("app.log")) {
			time.Sleep(time.Millisecond)
		}
		c.Status()
		if i%3 != 0 {
			run(t, "gzip -1 "+h.path(to))
		}
	}
	stop.Store(true)
	n := <-wrote
	h.eventually(n)
	end()
	h.once()
	h.expect(n)
}
