package supervise

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mobileops/mobileops/internal/osthread"
	"github.com/mobileops/mobileops/internal/supervise/pipe"
	"golang.org/x/sys/unix"
)

func TestLinesOfALog(t *testing.T) {
	r := begin(t, nil)
	r.add(Service{Name: "one", Restart: Never, Start: shell(`
		printf 'a\033[31m\001\t\377\r\nb\n\n'
		head -c 150000 /dev/zero | tr '\0' x; echo
		printf 'unfinished'`)})
	r.state("one", Stopped)
	r.written("one")
	var got []Line
	for l, err := range r.Tail(t.Context(), "one", 100, false) {
		if err != nil {
			t.Fatal(err)
		}
		if l.Stream == Stdout {
			got = append(got, l)
		}
	}
	want := []string{"a\x1b[31m\x01\t\xff\r", "b", "", strings.Repeat("x", MaxLine), strings.Repeat("x", MaxLine), strings.Repeat("x", 150000-2*MaxLine), "unfinished"}
	if len(got) != len(want) {
		t.Fatalf("%d lines", len(got))
	}
	for i, l := range got {
		if string(l.Text) != want[i] || l.More != (i == 3 || i == 4) || time.Since(l.Time) > time.Hour {
			t.Errorf("line %d: %d bytes %.20q, more %v, %v", i, len(l.Text), l.Text, l.More, l.Time)
		}
	}
	raw, err := os.ReadFile(r.LogPath("one"))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(raw, []byte("Z stdout a\x1b[31m\x01\t\xff\r\n")) || !bytes.Contains(raw, []byte("Z stdout+ xxx")) {
		t.Errorf("the file: %.300q", raw)
	}
	if st, err := os.Stat(r.LogPath("one")); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", st.Mode(), err)
	}
}

// TestSaidInTime reads what a process said before it ended only when nobody is
// waited for any more, and not what goes on without end.
func TestSaidInTime(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	path := filepath.Join(t.TempDir(), "x.log")
	l := newServiceLog(path, 1<<20, 3)
	defer l.close()
	if _, err := w.WriteString("one\ntwo\nthree"); err != nil {
		t.Fatal(err)
	}
	if err := r.SetReadDeadline(time.Now().Add(-time.Second)); err != nil {
		t.Fatal(err)
	}
	l.copyFrom(Stdout, pipe.NewReader(r)) // its other end stays open
	var got []string
	for _, line := range l.last(10) {
		got = append(got, string(line.Text))
	}
	if !slices.Equal(got, []string{"one", "two", "three"}) {
		t.Errorf("%q", got)
	}
}

func TestLineJSON(t *testing.T) {
	now := time.Now().UTC()
	for _, l := range []Line{
		{Time: now, Stream: Stdout, Text: []byte("plain\x00\x1b")},
		{Time: now, Stream: Stderr, More: true, Text: []byte("\xff\xfe")},
		{Text: []byte("foreign")}, {Time: now, Stream: Remark, Text: []byte{}},
	} {
		b, err := json.Marshal(l)
		if err != nil {
			t.Fatal(err)
		}
		var back Line
		if err := json.Unmarshal(b, &back); err != nil || !bytes.Equal(back.Text, l.Text) || !back.Time.Equal(l.Time) || back.Stream != l.Stream || back.More != l.More {
			t.Errorf("%s: %+v, %v", b, back, err)
		}
	}
}

// TestRotation writes much more than is kept, with one who reads all the time
// and loses nothing.
func TestRotation(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.log")
	l := newServiceLog(path, 16<<10, 3)
	ctx, cancel := context.WithTimeout(t.Context(), long)
	defer cancel()
	const lines = 3000
	read := make(chan error, 1)
	next := make(chan int, lines)
	go func() {
		i := 0
		for line, err := range tailLog(ctx, path, lines, true, l.wake) {
			if err != nil {
				read <- err
				return
			}
			if want := fmt.Sprintf("line %06d", i); !strings.HasPrefix(string(line.Text), want) {
				read <- fmt.Errorf("%q where %q should be", line.Text, want)
				return
			}
			i++
			next <- i
			if i == lines {
				read <- nil
				return
			}
		}
		read <- ctx.Err()
	}()
	behind := 0
	for i := range lines {
		l.add(Stdout, fmt.Appendf(nil, "line %06d %s", i, strings.Repeat("x", 50)), false)
		for ; i-behind > 200; behind++ { // less than the files hold
			select {
			case <-next:
			case err := <-read:
				t.Fatal(err)
			}
		}
	}
	if err := <-read; err != nil {
		t.Fatal(err)
	}
	l.close()
	var total int64
	files, _ := filepath.Glob(path + "*")
	for _, f := range files {
		st, err := os.Stat(f)
		if err != nil {
			t.Fatal(err)
		}
		if total += st.Size(); st.Size() > 16<<10 {
			t.Errorf("%s has %d bytes", f, st.Size())
		}
	}
	if len(files) != 3 {
		t.Errorf("files %v", files)
	}
	// The last lines, over the border of files.
	for _, n := range []int{0, 1, 7, 300, 100000} {
		var got []string
		for line, err := range TailLog(ctx, path, n, false) {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, string(line.Text[:11]))
		}
		if n < 1000 && len(got) != n {
			t.Errorf("%d of %d lines", len(got), n)
		}
		for i, g := range got {
			if want := fmt.Sprintf("line %06d", lines-len(got)+i); g != want {
				t.Fatalf("of %d: %q where %q should be", n, g, want)
			}
		}
	}
}

// TestSlowFollower is told that lines are gone.
func TestSlowFollower(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.log")
	l := newServiceLog(path, 4<<10, 2)
	l.add(Stdout, []byte("first"), false)
	eventually(t, "it is written", func() bool { st, err := os.Stat(path); return err == nil && st.Size() > 0 })
	ctx, cancel := context.WithTimeout(t.Context(), long)
	defer cancel()
	var got []string
	for line, err := range TailLog(ctx, path, 10, true) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, string(line.Text))
		if len(got) == 1 {
			for range 1000 {
				l.add(Stdout, []byte(strings.Repeat("y", 100)), false)
			}
			l.add(Stdout, []byte("last"), false)
			l.close()
			<-l.gone
		}
		if string(line.Text) == "last" {
			break
		}
	}
	if !slices.ContainsFunc(got, func(s string) bool { return strings.HasPrefix(s, "lines are missing here") }) {
		t.Errorf("nothing is said of what is missing: %d lines", len(got))
	}
}

// TestFlood has a service print as fast as it can.
func TestFlood(t *testing.T) {
	r := begin(t, func(o *Options) { o.LogSize = 256 << 10 })
	r.add(Service{Name: "one", Start: shell(`yes 'a line that comes again and again'`)})
	r.state("one", Ready)
	u, _ := r.unit("one")
	eventually(t, "files were rotated", func() bool { _, err := os.Stat(logName(u.log.path, 2)); return err == nil })
	c := r.client()
	n := 0
	for _, err := range c.Logs(t.Context(), "one", 10, true) {
		if err != nil {
			t.Fatal(err)
		}
		if n++; n == 1000 {
			break
		}
	}
	if _, err := c.Stop(t.Context(), "one"); err != nil {
		t.Fatal(err)
	}
	r.written("one")
	var total int64
	files, _ := filepath.Glob(u.log.path + "*")
	for _, f := range files {
		st, _ := os.Stat(f)
		total += st.Size()
	}
	if total > 3*256<<10 || n != 1000 {
		t.Errorf("%d bytes in %d files, %d lines followed", total, len(files), n)
	}
}

// TestDiskFull has a log on a file system with next to no room.
func TestDiskFull(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounting a small file system needs root")
	}
	point := t.TempDir()
	var dir int
	// The mount is in a namespace that only this descriptor leads into.
	err := osthread.Run(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_FS); err != nil {
			return err
		}
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			return err
		}
		if err := unix.Mount("tmpfs", point, "tmpfs", 0, "size=64k"); err != nil {
			return err
		}
		var err error
		dir, err = unix.Open(point, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		return err
	})
	if err != nil {
		t.Skipf("no file system can be mounted: %v", err)
	}
	t.Cleanup(func() { unix.Close(dir) }) // after the supervisor, which has its log there
	small := fmt.Sprintf("/proc/self/fd/%d", dir)
	if err := os.WriteFile(small+"/ballast", make([]byte, 48<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	r := begin(t, func(o *Options) { o.LogDir = small })
	flag := filepath.Join(r.dir, "more")
	r.add(Service{Name: "one", Start: shell(`
		i=0; while [ $i -lt 2000 ]; do echo "line $i ------------------------------------------------"; i=$((i+1)); done
		while [ ! -e ` + flag + ` ]; do sleep 0.02; done
		echo after; exec sleep 1000`)})
	eventually(t, "lines are dropped", func() bool { st, _ := r.Status("one"); return st.Dropped > 0 })
	r.state("one", Ready)
	eventually(t, "it printed all of it", func() bool {
		return slices.ContainsFunc(r.text("one"), func(l string) bool { return strings.HasPrefix(l, "stdout: line 1999 ") })
	})
	os.Remove(small + "/ballast")
	if err := os.WriteFile(flag, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	var text []byte
	eventually(t, "it goes on", func() bool {
		text, _ = os.ReadFile(small + "/one.log")
		return bytes.Contains(text, []byte(" stdout after\n"))
	})
	if !bytes.Contains(text, []byte("lines are missing here: no space left on device\n")) {
		t.Errorf("the log does not say that lines are missing: …%s", text[max(0, len(text)-500):])
	}
	in := bufio.NewScanner(bytes.NewReader(text))
	for in.Scan() {
		if l := ParseLine(in.Bytes()); l.Stream == "" {
			t.Errorf("half a line: %q", in.Text())
		}
	}
	st, _ := r.Status("one")
	if st.Dropped == 0 || st.Dropped > 2001 {
		t.Errorf("%d lines dropped", st.Dropped)
	}
}

// TestLogThatCannotBe has a directory in the place of the log.
func TestLogThatCannotBe(t *testing.T) {
	r := begin(t, nil)
	if err := os.MkdirAll(r.LogPath("one"), 0o700); err != nil {
		t.Fatal(err)
	}
	r.add(Service{Name: "one", Restart: Never, Start: shell(`echo hello`)})
	r.state("one", Stopped)
	eventually(t, "lines are counted", func() bool { st, _ := r.Status("one"); return st.Dropped > 0 })
	if !slices.Contains(r.text("one"), "stdout: hello") {
		t.Errorf("in memory: %q", r.text("one"))
	}
}

// TestAfterAPowerCut has a log whose last line has no end.
func TestAfterAPowerCut(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.log")
	if err := os.WriteFile(path, []byte("2026-01-01T00:00:00Z stdout who"), 0o600); err != nil {
		t.Fatal(err)
	}
	l := newServiceLog(path, 1<<20, 3)
	l.add(Stdout, []byte("next"), false)
	l.close()
	<-l.gone // for longer than close waits
	b, _ := os.ReadFile(path)
	if lines := strings.Split(string(b), "\n"); len(lines) != 3 || !strings.HasSuffix(lines[1], " stdout next") {
		t.Errorf("%q", b)
	}
}

// TestStuckDisk has a writer that takes nothing, so that nobody waits for it
// more than once.
func TestStuckDisk(t *testing.T) {
	l := &serviceLog{room: make(chan struct{}), written: make(chan struct{}), work: make(chan struct{}, 1), gone: make(chan struct{})}
	line := bytes.Repeat([]byte("x"), 1<<10)
	begun := time.Now()
	for range 20000 {
		l.add(Stdout, line, false)
	}
	if d := time.Since(begun); d > 2*time.Minute {
		t.Errorf("20000 lines took %v", d)
	}
	if l.droppedLines() < 15000 || len(l.pending) > pendingSize+2*len(line) || l.inRing > ringBytes || len(l.ring) > ringLines {
		t.Errorf("%d dropped, %d bytes pending, %d in memory", l.droppedLines(), len(l.pending), l.inRing)
	}
}

func TestTailWithoutLog(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.log")
	for l, err := range TailLog(t.Context(), path, 10, false) {
		t.Errorf("%+v, %v", l, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() {
		l := newServiceLog(path, 1<<20, 3)
		l.add(Stdout, []byte("hello"), false)
		l.close()
	}()
	for l, err := range TailLog(ctx, path, 10, true) {
		if err != nil || string(l.Text) != "hello" {
			t.Errorf("%+v, %v", l, err)
		}
		cancel()
	}
	if !errors.Is(ctx.Err(), context.Canceled) {
		t.Error(ctx.Err())
	}
}

func FuzzParseLine(f *testing.F) {
	f.Add([]byte("2026-01-01T00:00:00.5Z stdout+ text"))
	f.Add([]byte("x stderr "))
	f.Fuzz(func(t *testing.T, b []byte) {
		if bytes.IndexByte(b, '\n') >= 0 {
			return
		}
		l := ParseLine(b)
		if l.Stream == "" {
			if !bytes.Equal(l.Text, b) {
				t.Errorf("%q became %q", b, l.Text)
			}
			return
		}
		back := ParseLine(bytes.TrimSuffix(l.append(nil), []byte{'\n'}))
		if !back.Time.Equal(l.Time) || back.Stream != l.Stream || back.More != l.More || !bytes.Equal(back.Text, l.Text) {
			t.Errorf("%q: %+v became %+v", b, l, back)
		}
	})
}
