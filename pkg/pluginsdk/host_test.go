package pluginsdk

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"
)

// patience is how long a test waits for what should happen at once.
const patience = 60 * time.Second

const greeting = `{"method":"hello","params":{"protocol":"mobileops.plugin/v1","host":{"version":"0.1.0","id":"h1"},"plugin":{"name":"sample","version":"1.2.3"},"role":"service"}}` + "\n"

// testHost is the other end, played by the test.
type testHost struct {
	t    *testing.T
	conn *net.UnixConn
	in   *bufio.Reader
	mu   sync.Mutex // held while the function of serve runs
}

// socketpair returns two connected unix sockets.
func socketpair(t testing.TB) (a, b *net.UnixConn) {
	t.Helper()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	conns := make([]*net.UnixConn, 2)
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "pair")
		conn, err := net.FileConn(f)
		f.Close()
		if err != nil {
			t.Fatal(err)
		}
		conns[i] = conn.(*net.UnixConn)
		t.Cleanup(func() { conn.Close() })
	}
	return conns[0], conns[1]
}

// start returns a client and its host, which has said hello.
func start(t *testing.T) (*Client, *testHost) {
	t.Helper()
	ours, theirs := socketpair(t)
	h := &testHost{t: t, conn: theirs, in: bufio.NewReader(theirs)}
	h.send(greeting)
	c, err := NewClient(ours)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c, h
}

// send writes text as it is.
func (h *testHost) send(text string) {
	h.t.Helper()
	if err := h.conn.SetWriteDeadline(time.Now().Add(patience)); err != nil {
		h.t.Fatal(err)
	}
	if _, err := h.conn.Write([]byte(text)); err != nil {
		h.t.Fatal(err)
	}
}

// sendf writes a line.
func (h *testHost) sendf(format string, args ...any) {
	h.t.Helper()
	h.send(fmt.Sprintf(format, args...) + "\n")
}

// sendFDs writes text with descriptors on its first byte.
func (h *testHost) sendFDs(text string, fds ...int) {
	h.t.Helper()
	if _, _, err := h.conn.WriteMsgUnix([]byte(text), syscall.UnixRights(fds...), nil); err != nil {
		h.t.Fatal(err)
	}
}

// heard is a line that the plugin wrote.
type heard struct {
	ID     uint64
	Method string
	Params json.RawMessage
	Result json.RawMessage
	Error  *Error
}

// hear reads a line.
func (h *testHost) hear() heard {
	h.t.Helper()
	if err := h.conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		h.t.Fatal(err)
	}
	line, err := h.in.ReadBytes('\n')
	if err != nil {
		h.t.Fatalf("the plugin wrote nothing: %v", err)
	}
	if len(line) > MaxLine {
		h.t.Errorf("a line of %d bytes", len(line))
	}
	var m heard
	if err := json.Unmarshal(line, &m); err != nil {
		h.t.Fatalf("%v: %.200s", err, line)
	}
	return m
}

// expect reads a line and checks its method.
func (h *testHost) expect(method string) heard {
	h.t.Helper()
	m := h.hear()
	if m.Method != method {
		h.t.Fatalf("heard %q, not %q", m.Method, method)
	}
	return m
}

// serve answers every request in the background until the connection ends,
// with what answer returns: JSON of a result, or an error.
func (h *testHost) serve(answer func(m heard) (string, *Error)) {
	go func() {
		for {
			line, err := h.in.ReadBytes('\n')
			if err != nil {
				return
			}
			var m heard
			if json.Unmarshal(line, &m) != nil || m.ID == 0 {
				continue
			}
			h.mu.Lock()
			result, refused := answer(m)
			h.mu.Unlock()
			reply := fmt.Sprintf(`{"id":%d,"result":%s}`, m.ID, result)
			if refused != nil {
				e, _ := json.Marshal(refused)
				reply = fmt.Sprintf(`{"id":%d,"error":%s}`, m.ID, e)
			}
			if _, err := h.conn.Write([]byte(reply + "\n")); err != nil {
				return
			}
		}
	}()
}

// within returns a context that ends long after the test should have.
func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

// openFDs counts the descriptors of this process.
func openFDs(t testing.TB) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip("no /proc: cannot count descriptors")
	}
	return len(entries)
}

// eventually waits until ok.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}
