package ui

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"
	"github.com/mobileops/mobileops/internal/failure"
)

func env(vars map[string]string) func(string) string {
	return func(name string) string { return vars[name] }
}

func TestWantColor(t *testing.T) {
	for _, tc := range []struct {
		vars    map[string]string
		capable bool
		want    bool
	}{
		{nil, true, true},
		{nil, false, false},
		{map[string]string{"NO_COLOR": "1"}, true, false},
		{map[string]string{"NO_COLOR": ""}, true, true},
		{map[string]string{"CLICOLOR": "0"}, true, false},
		{map[string]string{"CLICOLOR_FORCE": "1"}, false, true},
		{map[string]string{"CLICOLOR_FORCE": "0"}, false, false},
		{map[string]string{"CLICOLOR_FORCE": "1", "CLICOLOR": "0"}, false, true},
		{map[string]string{"CLICOLOR_FORCE": "1", "NO_COLOR": "1"}, true, false},
	} {
		if got := wantColor(env(tc.vars), tc.capable); got != tc.want {
			t.Errorf("%v, capable %v: %v", tc.vars, tc.capable, got)
		}
	}
}

// onTerminal gives the process a terminal as standard output and error while
// fn runs, and returns what was written to it.
func onTerminal(t *testing.T, columns uint16, fn func()) string {
	t.Helper()
	master, slave, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer master.Close()
	if err := pty.Setsize(slave, &pty.Winsize{Rows: 24, Cols: columns}); err != nil {
		t.Fatal(err)
	}
	var got bytes.Buffer
	var wg sync.WaitGroup
	wg.Go(func() { io.Copy(&got, master) })
	in, out, errs := os.Stdin, os.Stdout, os.Stderr
	os.Stdin, os.Stdout, os.Stderr = slave, slave, slave
	defer func() { os.Stdin, os.Stdout, os.Stderr = in, out, errs }()
	fn()
	slave.Close()
	wg.Wait()
	return got.String()
}

func TestSystemOnATerminal(t *testing.T) {
	var s, columns, dumb, plain *Streams
	onTerminal(t, 97, func() {
		s = System(env(map[string]string{"TERM": "xterm"}))
		columns = System(env(map[string]string{"TERM": "xterm", "COLUMNS": "33"}))
		dumb = System(env(map[string]string{"TERM": "dumb"}))
		plain = System(env(map[string]string{"TERM": "xterm", "NO_COLOR": "1"}))
	})
	if !s.InTTY || !s.OutTTY || !s.ErrTTY || s.Width != 97 || !s.Color || !s.ErrColor || s.Dumb {
		t.Errorf("%+v", s)
	}
	if columns.Width != 33 {
		t.Errorf("COLUMNS: width %d", columns.Width)
	}
	if dumb.Color || dumb.ErrColor || !dumb.Dumb {
		t.Error("TERM=dumb has colour or can redraw")
	}
	if plain.Color || plain.ErrColor || plain.Dumb {
		t.Error("NO_COLOR has colour")
	}
}

func TestColorIsDecidedForEachStream(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	onTerminal(t, 80, func() {
		os.Stdout = w
		s := System(env(map[string]string{"TERM": "xterm"}))
		if s.OutTTY || s.Color || !s.ErrTTY || !s.ErrColor || s.Width != 80 {
			t.Errorf("%+v", s)
		}
	})
}

// A terminal that is asked for its colours answers into the input of whatever
// reads next, which is the shell.
func TestTheTerminalIsNeverAsked(t *testing.T) {
	got := onTerminal(t, 80, func() {
		s := System(env(map[string]string{"TERM": "xterm-256color", "COLORTERM": "truecolor"}))
		theme := s.Theme()
		io.WriteString(s.Out, theme.Heading("h")+theme.Faint("f")+theme.Good("g")+theme.Severity(4, "c"))
		table := s.NewTable(Column{Title: "A"})
		table.Row("x")
		table.Print()
		reads, drawn := 0, make(chan struct{})
		p := s.progress("working", func() Counters {
			if reads++; reads == 2 {
				close(drawn) // what was read first
			}
			return Counters{Files: 3, TotalFiles: 9, Current: "/etc/passwd"}
		}, 0, time.Millisecond)
		<-drawn
		p.Stop()
	})
	for _, query := range []string{"\x1b]", "\x1bP", "\x1b_", "\x05", "\x1b[c", "\x1b[>", "\x1b[?", "\x1b[=", "n\x1b", "6n", "5n"} {
		if strings.Contains(got, query) {
			t.Errorf("%q asks the terminal with %q", got, query)
		}
	}
	if !strings.Contains(got, "\x1b[1mh\x1b[0m") || !strings.Contains(got, "working  3 of 9 files") {
		t.Errorf("%q", got)
	}
	if !strings.HasSuffix(got, eraseLine) {
		t.Errorf("the progress was not removed: %q", got)
	}
}

func TestProgressOnlyWhereItCanBeSeen(t *testing.T) {
	read := func() Counters { t.Error("read"); return Counters{} }
	s, _, errs := Test(nil)
	p := s.progress("x", read, 0, time.Millisecond)
	time.Sleep(5 * time.Millisecond)
	p.Stop()
	p.Stop()
	s.ErrTTY, s.Quiet = true, true
	s.progress("x", read, 0, time.Millisecond).Stop()
	s.Quiet, s.Dumb = false, true
	s.progress("x", read, 0, time.Millisecond).Stop()
	s.Dumb = false
	s.Progress("x", read).Stop() // ends before the second is over
	if errs.Len() != 0 {
		t.Errorf("%q", errs)
	}
}

func TestProgressLine(t *testing.T) {
	s, _, _ := Test(nil)
	start := time.Now()
	p := &Progress{s: s, label: "hashing", last: start}
	c := Counters{Bytes: 500e6, TotalBytes: 2e9, Files: 1200, TotalFiles: 4000, Current: "/usr/lib/a\nb"}
	got := p.draw(c, start.Add(time.Second), 120)
	if want := `hashing  1,200 of 4,000 files  500 MB of 2.00 GB  500 MB/s  3.0 s left  /usr/lib/a\nb`; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	for width := 1; width < 100; width++ {
		if got := p.draw(c, start.Add(2*time.Second), width); columns(got) >= max(width, 2) {
			t.Errorf("width %d: %d columns", width, columns(got))
		}
	}
	if got := (&Progress{s: s, label: "walking", last: start}).draw(Counters{Files: 10}, start.Add(time.Second), 80); got != "walking  10 files" {
		t.Errorf("%q", got)
	}
}

func TestNoticeStandsAboveTheProgress(t *testing.T) {
	s, _, errs := Test(nil)
	s.Notice("alone %s", "\x1b")
	s.line.set(s.Err, "line")
	s.Notice("news")
	if got, want := errs.String(), "alone \\x1b\n"+eraseLine+"line"+eraseLine+"news\nline"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestConfirm(t *testing.T) {
	s, _, errs := Test(strings.NewReader("yes\nrest"))
	if _, err := s.Confirm(context.Background(), "remove it?", "--yes"); failure.KindOf(err) != failure.Usage || !strings.Contains(err.Error(), "--yes") {
		t.Errorf("without a terminal: %v", err)
	}
	if errs.Len() != 0 {
		t.Errorf("asked all the same: %q", errs)
	}
	s.InTTY, s.ErrTTY = true, true
	if ok, err := s.Confirm(context.Background(), "remove it?", "--yes"); !ok || err != nil {
		t.Errorf("yes: %v, %v", ok, err)
	}
	if rest, _ := io.ReadAll(s.In); string(rest) != "rest" {
		t.Errorf("%q is left for whoever reads next", rest)
	}
	for _, no := range []string{"", "\n", "n\n", "yesterday\n", strings.Repeat("y", 5000)} {
		s.In = strings.NewReader(no)
		if ok, err := s.Confirm(context.Background(), "remove it?", "--yes"); ok || err != nil {
			t.Errorf("%.10q: %v, %v", no, ok, err)
		}
	}
	r, w := io.Pipe()
	defer w.Close()
	s.In = r
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := s.Confirm(ctx, "remove it?", "--yes"); failure.KindOf(err) != failure.Interrupted {
		t.Errorf("interrupted: %v", err)
	}
}

type brokenWriter struct{ err error }

func (b brokenWriter) Write([]byte) (int, error) { return 0, b.err }

func TestWriteErrorsSurface(t *testing.T) {
	s, _, _ := Test(nil)
	s.Out = &checkedWriter{w: brokenWriter{syscall.ENOSPC}}
	if err := s.Document(map[string]int{"a": 1}); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("Document: %v", err)
	}
	lines := s.Lines()
	lines.Print(1)
	if err := lines.Flush(); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("Lines: %v", err)
	}
	table := s.NewTable(Column{Title: "A"})
	table.Row("x")
	if err := table.Print(); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("Table: %v", err)
	}
	if !errors.Is(s.WriteError(), syscall.ENOSPC) || IsClosedPipe(s.WriteError()) || !IsClosedPipe(syscall.EPIPE) {
		t.Errorf("WriteError: %v", s.WriteError())
	}
}

func TestJSON(t *testing.T) {
	s, out, _ := Test(nil)
	name := "<a>&ä🌍\u202e\u009b31m\x7f\U000e0001."
	s.Document(map[string]string{"schema": "x/v1", "path": name})
	if want := "{\n  \"path\": \"<a>&ä🌍" + `\u202e\u009b31m\u007f\udb40\udc01.` + "\",\n  \"schema\": \"x/v1\"\n}\n"; out.String() != want {
		t.Errorf("%s", out)
	}
	var back struct{ Path string }
	if err := json.Unmarshal(out.Bytes(), &back); err != nil || back.Path != name {
		t.Errorf("read back %q, %v; want %q", back.Path, err, name)
	}
	out.Reset()
	s.Format = JSONL
	s.Document(map[string]int{"a": 1})
	lines := s.Lines()
	lines.Print("<b>")
	lines.Flush()
	if want := "{\"a\":1}\n\"<b>\"\n"; out.String() != want {
		t.Errorf("%s", out)
	}
}
