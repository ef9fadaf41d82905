package source

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestFollow(t *testing.T) {
	h := newHost(t, "**/*.log")
	h.write("a/app.log", numbered(0, 10))
	c, stop := h.follow()
	h.eventually(10)
	h.append("a/app.log", numbered(10, 20))
	h.eventually(20)
	h.rename("a/app.log", "a/app.log.1") // the writer has it open yet
	h.append("a/app.log.1", numbered(20, 25))
	h.write("a/app.log", numbered(25, 30))
	h.eventually(30)
	h.write("b/c/later.log", numbered(30, 40))
	h.eventually(40)
	h.copyTruncate("a/app.log", "a/app.log.2")
	h.append("a/app.log", numbered(40, 50))
	h.eventually(50)
	h.write("empty.log", "")
	time.Sleep(200 * time.Millisecond)
	h.append("empty.log", numbered(50, 60))
	h.eventually(60)
	h.await(func() string {
		for _, s := range c.Status() {
			if s.LagBytes != 0 || s.Error != "" || s.GapCount != 0 {
				return fmt.Sprintf("status %+v", s)
			}
		}
		return ""
	})
	stop()
	h.append("a/app.log", numbered(60, 70))
	h.follow()
	h.eventually(70)
}

// Without inotify everything is found by looking.
func TestFollowByPolling(t *testing.T) {
	h := newHost(t, "**/*.log")
	h.write("app.log", numbered(0, 10))
	c := h.collector()
	c.deaf = true
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- c.Follow(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	h.eventually(10)
	h.append("app.log", numbered(10, 20))
	h.eventually(20)
	h.rename("app.log", "app.log.1")
	h.write("app.log", numbered(20, 30))
	h.write("new/app.log", numbered(30, 40))
	h.eventually(40)
}

func TestDeletedWhileOpen(t *testing.T) {
	h := newHost(t)
	h.write("app.log", numbered(0, 10))
	writer, err := os.OpenFile(h.path("app.log"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer writer.Close()
	h.follow()
	h.eventually(10)
	h.remove("app.log")
	writer.WriteString(numbered(10, 20))
	h.eventually(20)
	h.write("app.log", numbered(20, 30))
	h.eventually(30)
}

func TestLastLineWithoutNewline(t *testing.T) {
	h := newHost(t)
	var later atomic.Int64 // how far the collector's clock is ahead
	h.opts.Idle = time.Hour
	h.opts.Now = func() time.Time { return time.Now().Add(time.Duration(later.Load())) }
	h.spec[0].Format = "plain" // others wait for lines that continue a record
	h.write("app.log", "2026-11-22T06:00:00Z a: first\n2026-11-22T06:00:01Z a: sec")
	h.follow()
	wait := func(want string) {
		t.Helper()
		h.await(func() string {
			if got := h.sink.lines(); strings.Join(got, "|") != want {
				return fmt.Sprintf("read %q, not %q", got, want)
			}
			return ""
		})
	}
	wait("2026-11-22T06:00:00Z a: first")
	h.append("app.log", "ond\n2026-11-22T06:00:02Z a: thi") // in time
	wait("2026-11-22T06:00:00Z a: first|2026-11-22T06:00:01Z a: second")
	later.Store(int64(2 * h.opts.Idle))
	wait("2026-11-22T06:00:00Z a: first|2026-11-22T06:00:01Z a: second|2026-11-22T06:00:02Z a: thi")
	h.append("app.log", "rd") // too late: a record of its own
	wait("2026-11-22T06:00:00Z a: first|2026-11-22T06:00:01Z a: second|2026-11-22T06:00:02Z a: thi|rd")
	h.append("app.log", "\n2026-11-22T06:00:03Z a: fourth\n")
	wait("2026-11-22T06:00:00Z a: first|2026-11-22T06:00:01Z a: second|2026-11-22T06:00:02Z a: thi|rd|2026-11-22T06:00:03Z a: fourth")
}

func TestLastLineOnce(t *testing.T) {
	h := newHost(t)
	h.write("app.log", "one\ntwo")
	h.once()
	h.append("app.log", "\nthree\n")
	h.once()
	if got := strings.Join(h.sink.lines(), "|"); got != "one|two|three" {
		t.Errorf("read %q", got)
	}
}

func TestHoles(t *testing.T) {
	h := newHost(t)
	f, err := os.Create(h.path("app.log")) // without O_APPEND
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	f.WriteString(numbered(0, 2000))
	h.once()
	h.copyTruncate("app.log", "app.log.1")
	f.WriteString(numbered(2000, 2010)) // at its old offset
	h.once()
	h.expect(2010)
	// Space that is given out beforehand is not there yet.
	size, _ := f.Seek(0, 1)
	if err := f.Truncate(size + 10<<20); err != nil {
		t.Fatal(err)
	}
	h.once()
	f.WriteString(numbered(2010, 2020))
	h.once()
	h.expect(2020)
}

func TestTruncatedWhileReading(t *testing.T) {
	h := newHost(t)
	h.write("app.log", numbered(0, 20_000))
	slow := 0
	h.sink.fail = func() error {
		if slow++; slow == 1 {
			// Some batches are on their way; the file is begun anew.
			h.write("app.log", numbered(20_000, 20_100))
		}
		return nil
	}
	h.once()
	h.once()
	seen := map[string]int{}
	for _, l := range h.sink.lines() {
		seen[l]++
	}
	for l := range strings.Lines(numbered(20_000, 20_100)) {
		if seen[strings.TrimSuffix(l, "\n")] != 1 {
			t.Fatalf("%q is there %d times", l, seen[strings.TrimSuffix(l, "\n")])
		}
	}
	for l, n := range seen {
		if n != 1 || !strings.Contains(l, "line number") || !strings.HasSuffix(l, "of the test") {
			t.Fatalf("%q is there %d times", l, n)
		}
	}
}

// What was truncated before it was read, without a copy, is a gap.
func TestLostRest(t *testing.T) {
	h := newHost(t)
	now := time.Now()
	h.opts.Now = func() time.Time { return now }
	h.write("app.log", numbered(0, 100)+"2026-11-22T06:00:00Z a: not finished")
	h.opts.Idle = time.Hour
	h.spec[0].Format = "plain"
	c := h.collector()
	if err := c.run(t.Context(), false, func(ctx context.Context) error {
		c.look()
		return errors.Join(c.queue.drained(ctx), c.out.flushed())
	}); err != nil {
		t.Fatal(err)
	}
	h.expect(100)
	h.remove("app.log")
	h.opts.Idle = 50 * time.Millisecond
	if r := h.once(); len(r.Gaps) != 0 {
		t.Errorf("gaps %+v at once: it may turn up compressed", r.Gaps)
	}
	now = now.Add(2 * lostAfter)
	r := h.once()
	if len(r.Gaps) != 1 || r.Gaps[0].Bytes != int64(len("2026-11-22T06:00:00Z a: not finished")) || !r.Incomplete() {
		t.Errorf("gaps %+v", r.Gaps)
	}
	if r := h.once(); len(r.Gaps) != 0 {
		t.Errorf("the gap is told twice: %+v", r.Gaps)
	}
	now = now.Add(2 * forgetAfter)
	h.once()
	if len(h.sink.cursors) != 0 {
		t.Errorf("after a month there are cursors left: %q", h.sink.cursors)
	}
}

func TestFullSink(t *testing.T) {
	h := newHost(t)
	h.write("app.log", numbered(0, 10_000))
	full := true
	h.sink.fail = func() error {
		if full {
			return ErrFull
		}
		return nil
	}
	if _, err := h.collector().Once(t.Context()); !errors.Is(err, ErrFull) {
		t.Errorf("once: %v", err)
	}
	c, _ := h.follow()
	h.await(func() string {
		if s := c.Status(); len(s) != 1 || !strings.Contains(s[0].Error, "no room") {
			return fmt.Sprintf("status %+v", s)
		}
		return ""
	})
	h.sink.mu.Lock()
	full = false
	h.sink.mu.Unlock()
	h.eventually(10_000)
}

func TestFailingSink(t *testing.T) {
	h := newHost(t)
	h.write("app.log", numbered(0, 50_000))
	n := 0
	broken := errors.New("broken")
	h.sink.fail = func() error {
		if n++; n%3 == 0 {
			return broken
		}
		return nil
	}
	for range 100 {
		if _, err := h.collector().Once(t.Context()); err == nil {
			break
		} else if !errors.Is(err, broken) {
			t.Fatal(err)
		}
	}
	h.expect(50_000)
}

func TestNotRead(t *testing.T) {
	h := newHost(t, "*.log", "named.log", "pipe.log", "dir")
	h.write("app.log", numbered(0, 10))
	h.write("binary.log", "\x7fELF\x00\x01\x02"+strings.Repeat("\x00\x01", 100))
	if err := unix.Mkfifo(h.path("pipe.log"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/dev/null", h.path("null.log")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("app.log", h.path("link.log")); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(h.path("app.log"), h.path("hard.log")); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(h.path("directory.log"), 0o755); err != nil {
		t.Fatal(err)
	}
	h.write("dir/sub/below", numbered(10, 20))
	r := h.once()
	h.expect(20)
	reasons := map[string]string{}
	for _, p := range r.Problems {
		reasons[strings.TrimPrefix(p.Path, h.dir+"/")] = p.Reason
		if !p.Skipped {
			t.Errorf("%s is a failure: %s", p.Path, p.Reason)
		}
	}
	if len(reasons) != 3 || reasons["pipe.log"] != "it is a named pipe" || reasons["null.log"] != "it is a device" || !strings.HasPrefix(reasons["binary.log"], "it is no text") {
		t.Errorf("problems %q", reasons)
	}
	h.spec[0].Include = append(h.spec[0].Include, h.path("binary.log"))
	h.once()
	if n := len(h.sink.lines()); n != 21 {
		t.Errorf("%d records after the binary file was named", n)
	}
}

func TestForeignLink(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can make the links of another user")
	}
	h := newHost(t, "*.log")
	h.write("secret", numbered(0, 10))
	if err := os.Symlink("secret", h.path("app.log")); err != nil {
		t.Fatal(err)
	}
	if err := os.Lchown(h.path("app.log"), 65534, 65534); err != nil {
		t.Fatal(err)
	}
	r := h.once()
	h.expect(0)
	if len(r.Problems) != 1 || !strings.Contains(r.Problems[0].Reason, "neither to root nor") {
		t.Errorf("problems %+v", r.Problems)
	}
}

func TestSince(t *testing.T) {
	h := newHost(t, "*.log")
	h.opts.Since = time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC)
	h.write("app.log", "2026-11-21T23:59:59Z host a: old\n2026-11-22T00:00:01Z host a: new\n")
	h.write("old.log", "2026-11-20T23:59:59Z host a: older\n")
	old := h.opts.Since.Add(-time.Hour)
	if err := os.Chtimes(h.path("old.log"), old, old); err != nil {
		t.Fatal(err)
	}
	future := h.opts.Since.Add(time.Hour)
	if err := os.Chtimes(h.path("app.log"), future, future); err != nil {
		t.Fatal(err)
	}
	h.once()
	h.append("app.log", "2026-11-21T23:59:58Z host a: late\n")
	h.append("old.log", "2026-11-21T23:59:57Z host a: late too\n")
	h.opts.Since = time.Time{}
	h.once()
	got := strings.Join(h.sink.lines(), "|")
	if got != "2026-11-22T00:00:01Z host a: new|2026-11-21T23:59:58Z host a: late|2026-11-21T23:59:57Z host a: late too" &&
		got != "2026-11-22T00:00:01Z host a: new|2026-11-21T23:59:57Z host a: late too|2026-11-21T23:59:58Z host a: late" {
		t.Errorf("read %q", got)
	}
}

func TestUnreadable(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can look as another user")
	}
	h := newHost(t, "*.log")
	h.write("app.log", numbered(0, 10))
	h.write("secret.log", numbered(10, 20))
	for name, mode := range map[string]os.FileMode{"..": 0o755, ".": 0o755, "secret.log": 0o600} {
		if err := os.Chmod(h.path(name), mode); err != nil {
			t.Fatal(err)
		}
	}
	kept := filepath.Join(t.TempDir(), "kept")
	cmd := exec.Command("/proc/self/exe", kept)
	cmd.Env = append(os.Environ(), childEnv+"=problems:"+h.path("*.log"))
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if want := "10 " + h.path("secret.log") + " permission denied\n"; string(out) != want {
		t.Errorf("%q, not %q", out, want)
	}
}

// A compressed file that becomes a thousandfold of what a log does is not read
// to its end.
func TestExpandingFile(t *testing.T) {
	h := newHost(t)
	h.write("app.log.1", strings.Repeat("a", 100<<20))
	run(t, "zstd --rm -q "+h.path("app.log.1"))
	r := h.once()
	if len(r.Problems) != 1 || !strings.Contains(r.Problems[0].Reason, "beyond all measure") {
		t.Errorf("problems %+v", r.Problems)
	}
	for _, l := range h.sink.lines() {
		if len(l) > maxRecord {
			t.Fatalf("a record of %d bytes", len(l))
		}
	}
}

func TestLongLines(t *testing.T) {
	h := newHost(t)
	long := strings.Repeat("0123456789abcde ", 3<<20/16)
	h.write("app.log", "short\n"+long+"\nshort\n"+long)
	h.write("app.log.1", "SHORT\n"+long+"\nSHORT\n")
	run(t, "gzip "+h.path("app.log.1"))
	h.once()
	total := 0
	for _, l := range h.sink.lines() {
		if len(l) > maxRecord {
			t.Errorf("a record of %d bytes", len(l))
		}
		total += len(l)
	}
	if want := 3*len(long) + 4*5; total != want {
		t.Errorf("%d bytes, not %d", total, want)
	}
}

// Many files are read fairly, with few of them open.
func TestManyFiles(t *testing.T) {
	h := newHost(t, "**/*.log")
	n := 0
	for i := range 1500 {
		h.write(fmt.Sprintf("d%d/f%d.log", i%7, i), numbered(n, n+3))
		n += 3
	}
	c := h.collector()
	if _, err := c.Once(t.Context()); err != nil {
		t.Fatal(err)
	}
	h.expect(n)
	if open := c.open.Load(); open != 0 {
		t.Errorf("%d files are open", open)
	}
	h.once()
	h.expect(n)
}
