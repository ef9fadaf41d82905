package supervise

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
	"golang.org/x/sys/unix"
)

func TestClient(t *testing.T) {
	var reloads atomic.Int32
	r := begin(t, func(o *Options) {
		o.Version = "1.2.3"
		o.Reload = func(context.Context) error {
			if reloads.Add(1) > 1 {
				return failure.New(failure.Untrustworthy, "not signed")
			}
			return nil
		}
		o.Methods = map[string]Method{"add": func(_ context.Context, p json.RawMessage) (any, error) {
			var n []int
			if err := json.Unmarshal(p, &n); err != nil {
				return nil, err
			}
			return n[0] + n[1], nil // panics with fewer
		}}
	})
	ctx := t.Context()
	c := r.client()
	if c.PID != os.Getpid() || c.Version != "1.2.3" {
		t.Errorf("%+v", c)
	}
	if err := r.Add(Service{Name: "one", Start: shell(`echo hello; exec sleep 1000`)}); err != nil {
		t.Fatal(err)
	}
	if err := r.Add(Service{Name: "bad", Start: shell(`echo broken; exit 4`), Restart: Never, Ready: isReady("/nonexistent")}); err != nil {
		t.Fatal(err)
	}

	watch, stopWatching := context.WithCancel(ctx)
	defer stopWatching()
	var states []State
	watched := make(chan error, 1)
	begun := make(chan struct{})
	go func() {
		for st, err := range c.Watch(watch, "one") {
			if err != nil {
				watched <- err
				return
			}
			if states = append(states, st.State); len(states) == 1 {
				close(begun)
			}
			if st.State == Stopped && len(states) > 1 {
				break
			}
		}
		watched <- nil
	}()
	<-begun

	st, err := c.Start(ctx, "one", true)
	if err != nil || st.State != Ready || st.PID == 0 {
		t.Fatalf("%+v, %v", st, err)
	}
	if _, err := c.Start(ctx, "one", true); !errors.Is(err, ErrRunning) || failure.KindOf(err) != failure.Busy {
		t.Errorf("a second start: %v, kind %v", err, failure.KindOf(err))
	}
	if _, err := c.Start(ctx, "bad", true); failure.KindOf(err) != failure.Failed || !strings.Contains(err.Error(), "ended before it was ready: exit status 4") {
		t.Errorf("one that fails: %v", err)
	}
	if st, err := c.Status(ctx, "bad"); err != nil || st.State != Failed || !slices.ContainsFunc(st.Last, func(l Line) bool { return string(l.Text) == "broken" }) {
		t.Errorf("%+v, %v", st, err)
	}
	if _, err := c.Status(ctx, "none"); !errors.Is(err, ErrUnknown) {
		t.Errorf("one that is not there: %v", err)
	}
	list, err := c.List(ctx)
	if err != nil || len(list) != 2 || list[0].Name != "bad" || list[1].State != Ready || list[0].Last != nil {
		t.Errorf("%+v, %v", list, err)
	}
	r.prints("one", "stdout: hello") // before the restart ends it
	again, err := c.Restart(ctx, "one", true)
	if err != nil || again.PID == st.PID || again.State != Ready {
		t.Errorf("%+v, %v", again, err)
	}
	n := 0
	for l, err := range c.Logs(ctx, "one", 100, true) {
		if err != nil {
			t.Fatal(err)
		}
		if l.Stream == Stdout && string(l.Text) == "hello" {
			if n++; n == 2 {
				break
			}
		}
	}
	if err := c.Reload(ctx); err != nil {
		t.Error(err)
	}
	if err := c.Reload(ctx); failure.KindOf(err) != failure.Untrustworthy || err.Error() != "not signed" {
		t.Error(err)
	}
	var sum int
	if err := c.Call(ctx, "add", []int{2, 3}, &sum); err != nil || sum != 5 {
		t.Errorf("%d, %v", sum, err)
	}
	if err := c.Call(ctx, "add", []int{2}, &sum); err == nil || !strings.Contains(err.Error(), "panic: ") {
		t.Error(err)
	}
	if err := c.Call(ctx, "dance", nil, nil); failure.KindOf(err) != failure.Usage {
		t.Error(err)
	}
	if st, err := c.Stop(ctx, "one"); err != nil || st.State != Stopped {
		t.Errorf("%+v, %v", st, err)
	}
	if _, err := c.Stop(ctx, "one"); !errors.Is(err, ErrStopped) {
		t.Error(err)
	}
	if err := <-watched; err != nil {
		t.Error(err)
	}
	if !slices.Equal(slices.Compact(states), []State{Stopped, Starting, Ready, Stopping, Stopped}) &&
		!slices.Equal(slices.Compact(states), []State{Stopped, Starting, Ready, Stopping, Stopped, Starting, Ready, Stopping, Stopped}) {
		t.Errorf("states %v", states)
	}
}

func TestShutdown(t *testing.T) {
	dir := t.TempDir()
	cmd := supervisorCommand(dir, shellService{"one", "exec sleep 1000", 5000})
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { cmd.Process.Kill(); cmd.Wait() }()
	path := filepath.Join(dir, "run", "sock")
	var c *Client
	eventually(t, "it answers", func() bool {
		var err error
		c, err = Dial(t.Context(), path)
		return err == nil
	})
	if _, err := New(Options{RunDir: filepath.Join(dir, "run"), LogDir: filepath.Join(dir, "log2")}); !errors.Is(err, ErrHeld) {
		t.Errorf("a second one in its directory: %v", err)
	}
	if _, err := New(Options{RunDir: filepath.Join(dir, "run2"), LogDir: filepath.Join(dir, "log2"), Socket: path}); !errors.Is(err, ErrHeld) || failure.KindOf(err) != failure.Busy {
		t.Errorf("a second one on its socket: %v", err)
	}
	if err := c.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	// What it held is free at once.
	s, err := New(Options{RunDir: filepath.Join(dir, "run"), LogDir: filepath.Join(dir, "log"), Socket: path})
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	if _, err := Dial(t.Context(), path); failure.KindOf(err) != failure.NotReady {
		t.Errorf("nobody is there: %v", err)
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is left: %v", err)
	}
}

func TestSocket(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "deep", strings.Repeat("long", 30), "sock") // longer than an address can be
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	stale := func(path string) {
		t.Helper()
		name, done, err := shortName(path)
		if err != nil {
			t.Fatal(err)
		}
		defer done()
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: name, Net: "unix"})
		if err != nil {
			t.Fatal(err)
		}
		l.SetUnlinkOnClose(false)
		l.Close()
	}
	stale(path) // of one that was killed
	old := syscall.Umask(0)
	s, err := listen(path)
	syscall.Umask(old)
	if err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", st.Mode(), err)
	}
	conn, err := dialSocket(path, long)
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	s.close()

	// Somebody else's, who answers.
	other := filepath.Join(dir, "other")
	l, err := net.Listen("unix", other)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if _, err := listen(other); !errors.Is(err, ErrHeld) {
		t.Errorf("a socket where somebody answers: %v", err)
	}
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := listen(file); err == nil {
		t.Error("a file was replaced")
	}
	open := filepath.Join(dir, "open")
	if err := os.Mkdir(open, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(open, 0o777); err != nil {
		t.Fatal(err)
	}
	if _, err := listen(filepath.Join(open, "sock")); failure.KindOf(err) != failure.Untrustworthy {
		t.Errorf("a directory that all can write to: %v", err)
	}
	if _, err := listen("relative"); failure.KindOf(err) != failure.Usage {
		t.Error(err)
	}
}

// raw is a connection that says what it likes.
func raw(t *testing.T, r *running) (*net.UnixConn, *bufio.Reader) {
	t.Helper()
	conn, err := dialSocket(r.options.Socket, long)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(long))
	in := bufio.NewReader(conn)
	line, err := in.ReadString('\n')
	if err != nil || !strings.Contains(line, Protocol) {
		t.Fatalf("%q, %v", line, err)
	}
	return conn, in
}

func TestBadRequests(t *testing.T) {
	r := begin(t, nil)
	if err := r.Add(Service{Name: "one", Start: shell("exec sleep 1000")}); err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{"\n", "hello\n", "[]\n", `{"id":0,"method":"list"}` + "\n", `{"id":1}` + "\n", strings.Repeat("x", maxRequest+1)} {
		conn, in := raw(t, r)
		if _, err := io.WriteString(conn, bad); err != nil && !errors.Is(err, syscall.EPIPE) {
			t.Fatal(err)
		}
		line, _ := in.ReadString('\n')
		if !strings.Contains(line, `"kind":"usage"`) {
			t.Errorf("%.30q: %q", bad, line)
		}
		if _, err := in.ReadByte(); err == nil {
			t.Errorf("%.30q: the connection stays", bad)
		}
	}
	conn, in := raw(t, r)
	for i, req := range []string{
		`{"id":%d,"method":"status","params":{"name":"one","news":1}}`, `{"id":%d,"method":"status","params":[1]}`,
		`{"id":%d,"method":"logs","params":{"name":"one","lines":-1}}`, `{"id":%d,"method":"logs","params":{"name":"none"}}`,
		`{"id":%d,"method":"watch","params":{"name":"none"}}`,
	} {
		if strings.Contains(req, `"logs"`) || strings.Contains(req, `"watch"`) {
			conn, in = raw(t, r) // a stream is the last thing on a connection
		}
		fmt.Fprintf(conn, req+"\n", i+1)
		line, err := in.ReadString('\n')
		if want := fmt.Sprintf(`{"id":%d,`, i+1); err != nil || !strings.HasPrefix(line, want) || strings.Contains(line, `"error"`) != (i > 0) {
			t.Errorf("%s: %q, %v", req, line, err)
		}
	}
}

func TestTooManyClients(t *testing.T) {
	r := begin(t, nil)
	for range maxClients {
		raw(t, r)
	}
	_, err := Dial(t.Context(), r.options.Socket)
	if failure.KindOf(err) != failure.Busy || !strings.Contains(err.Error(), "64 clients already") {
		t.Errorf("one more: %v", err)
	}
}

// TestSlowClient has clients that do not read what a flood brings them; nobody
// waits for them.
func TestSlowClient(t *testing.T) {
	r := begin(t, nil)
	r.add(Service{Name: "one", Start: shell(`exec yes 'a line that comes again and again'`)})
	eventually(t, "there is more than a socket holds", func() bool {
		st, err := os.Stat(r.LogPath("one"))
		return err == nil && st.Size() > 4<<20
	})
	logs, logsIn := raw(t, r)
	fmt.Fprintf(logs, `{"id":1,"method":"logs","params":{"name":"one","lines":%d,"follow":true}}`+"\n", maxTail)
	if _, err := logsIn.ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	slow, err := r.Watch(t.Context(), "one")
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 * (watchQueue + maxServices) {
		if err := r.SetHealth("one", Health{Status: "ok", Message: fmt.Sprint(i)}); err != nil {
			t.Fatal(err)
		}
	}
	n := 0
	for range slow {
		n++
	}
	if n > watchQueue+maxServices {
		t.Errorf("%d changes waited", n)
	}
	if st, err := r.client().Stop(t.Context(), "one"); err != nil || st.State != Stopped {
		t.Errorf("%+v, %v", st, err)
	}
	fd, err := logs.File()
	if err != nil {
		t.Fatal(err)
	}
	defer fd.Close()
	eventually(t, "the connection is closed", func() bool {
		poll := []unix.PollFd{{Fd: int32(fd.Fd()), Events: unix.POLLRDHUP}}
		n, err := unix.Poll(poll, 100)
		return err == nil && n == 1
	})
}

// TestOtherUsers may not ask, even when they reach the socket.
func TestOtherUsers(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("asking as another user needs root")
	}
	if _, err := exec.LookPath("socat"); err != nil {
		t.Skip("socat is not installed")
	}
	dir, err := os.MkdirTemp("", "supervise")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "sock")
	begin(t, func(o *Options) { o.Socket = path })
	for name, mode := range map[string]os.FileMode{dir: 0o755, path: 0o666} {
		if err := os.Chmod(name, mode); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("socat", "-u", "UNIX-CONNECT:"+path, "-")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := cmd.CombinedOutput()
	if !strings.Contains(string(out), `"kind":"not-allowed"`) || strings.Contains(string(out), "hello") {
		t.Errorf("%s, %v", out, err)
	}
}

func FuzzRequest(f *testing.F) {
	f.Add([]byte(`{"id":1,"method":"list"}`))
	f.Add([]byte(`{"id":1,"method":"logs","params":{"name":"one","lines":3}}`))
	f.Add([]byte(`{"id":1,"method":"start","params":{"name":"none","wait":true}}`))
	dir := f.TempDir()
	s, err := New(Options{RunDir: filepath.Join(dir, "run"), LogDir: filepath.Join(dir, "log"), Socket: filepath.Join(dir, "run", "sock")})
	if err != nil {
		f.Fatal(err)
	}
	if err := s.Add(Service{Name: "one", Start: shell("exit 0")}); err != nil {
		f.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	f.Cleanup(func() { cancel(); <-done })
	f.Fuzz(func(t *testing.T, b []byte) {
		if strings.Contains(strings.ToLower(string(b)), "shut") || strings.Contains(string(b), "\\u") || strings.Contains(string(b), "watch") || strings.Contains(string(b), "follow") {
			return // ends the server, or does not end
		}
		conn, err := dialSocket(s.options.Socket, long)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(long))
		conn.Write(append(b, '\n'))
		conn.CloseWrite()
		if _, err := io.Copy(io.Discard, conn); err != nil && !errors.Is(err, syscall.ECONNRESET) {
			t.Error(err)
		}
	})
}
