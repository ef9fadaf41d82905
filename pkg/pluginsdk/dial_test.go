package pluginsdk

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

func dup(t testing.TB, fd int) int {
	t.Helper()
	copied, _, errno := syscall.Syscall(syscall.SYS_FCNTL, uintptr(fd), syscall.F_DUPFD_CLOEXEC, 0)
	if errno != 0 {
		t.Fatal(errno)
	}
	return int(copied)
}

// echo is a server on loopback. It returns its address and a function that
// connects to it, and returns the descriptor.
func echo(t *testing.T) (address string, connect func() int) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				io.Copy(conn, conn)
			}()
		}
	}()
	return listener.Addr().String(), func() int {
		conn, err := net.Dial("tcp", listener.Addr().String())
		if err != nil {
			t.Error(err)
			return -1
		}
		defer conn.Close()
		file, err := conn.(*net.TCPConn).File()
		if err != nil {
			t.Error(err)
			return -1
		}
		defer file.Close()
		// Wait for its answer: the other end is a descriptor of this process too,
		// which tests that count them must not see appear later.
		var answer [1]byte
		if _, err := conn.Write([]byte("?")); err != nil {
			t.Error(err)
			return -1
		}
		if _, err := io.ReadFull(conn, answer[:]); err != nil {
			t.Error(err)
			return -1
		}
		return dup(t, int(file.Fd()))
	}
}

func TestDial(t *testing.T) {
	c, h := start(t)
	address, connect := echo(t)
	go func() {
		m := h.expect("dial")
		fd := connect()
		h.sendFDs(fmt.Sprintf(`{"id":%d,"result":{}}`+"\n", m.ID), fd)
		syscall.Close(fd)
	}()
	conn, err := c.Dial(within(t), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, ok := conn.(*net.TCPConn); !ok || conn.RemoteAddr().String() != address {
		t.Errorf("%T to %s", conn, conn.RemoteAddr())
	}
	if raw, err := conn.(*net.TCPConn).SyscallConn(); err == nil {
		raw.Control(func(fd uintptr) {
			if flags, _, _ := syscall.Syscall(syscall.SYS_FCNTL, fd, syscall.F_GETFD, 0); flags&syscall.FD_CLOEXEC == 0 {
				t.Error("children of the plugin inherit the connection")
			}
		})
	}
	conn.SetDeadline(time.Now().Add(patience))
	if _, err := conn.Write([]byte("hi")); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 2)
	if _, err := io.ReadFull(conn, got); err != nil || string(got) != "hi" {
		t.Errorf("%q, %v", got, err)
	}
}

// Descriptors reach the answer that they belong to however the host cuts and
// joins what it writes.
func TestDescriptorsOfJoinedLines(t *testing.T) {
	files := make([]*os.File, 3)
	for i := range files {
		a, b := socketpair(t)
		b.Write(fmt.Appendf(nil, "%d", i+1))
		f, err := a.File()
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		files[i] = f
	}
	fd := func(i int) int { return int(files[i-1].Fd()) }
	noise := `{"method":"noise"}` + "\n"
	line := func(id uint64) string { return fmt.Sprintf(`{"id":%d,"result":{}}`+"\n", id) }
	for name, answer := range map[string]func(h *testHost, id [3]uint64){
		"one line each": func(h *testHost, id [3]uint64) {
			for i := range 3 {
				h.sendFDs(line(id[i]), fd(i+1))
			}
		},
		"other lines before and behind": func(h *testHost, id [3]uint64) {
			for i := range 3 {
				h.send(noise + noise)
				h.sendFDs(line(id[i])+noise, fd(i+1))
				h.send(noise)
			}
		},
		"the first byte alone": func(h *testHost, id [3]uint64) {
			for i := range 3 {
				l := line(id[i])
				h.sendFDs(l[:1], fd(i+1))
				h.send(l[1:4])
				h.send(l[4:] + noise)
			}
		},
		"all in one message": func(h *testHost, id [3]uint64) {
			h.sendFDs(line(id[0])+line(id[1])+line(id[2]), fd(1), fd(2), fd(3))
		},
		"a refusal between": func(h *testHost, id [3]uint64) {
			h.sendFDs(line(id[0]), fd(1))
			h.sendFDs(line(99999)+line(id[1])+`{"id":9`, fd(2))
			h.sendFDs("8,\"result\":{}}\n"+line(id[2]), fd(3))
		},
		"too many": func(h *testHost, id [3]uint64) {
			h.sendFDs(noise, fd(1), fd(2), fd(3))
			h.sendFDs(line(id[0]), fd(1), fd(3), fd(3))
			h.sendFDs(line(id[1]), fd(2), fd(1))
			h.sendFDs(line(id[2]), fd(3), fd(1), fd(1), fd(1), fd(1), fd(1), fd(1), fd(1), fd(1), fd(1), fd(1))
		},
		"in the middle of lines": func(h *testHost, id [3]uint64) {
			h.send(`{"id":98,`)
			h.sendFDs(`"res`, fd(3))
			h.sendFDs("ult\":{}}\n", fd(3))
			for i := range 3 {
				h.sendFDs(line(id[i]), fd(i+1))
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			c, h := start(t)
			before := openFDs(t)
			var (
				wg    sync.WaitGroup
				conns [3]net.Conn
				ids   [3]uint64
			)
			for i := range 3 {
				wg.Go(func() {
					conn, err := c.Dial(within(t), "unix", fmt.Sprintf("/%d", i))
					if err != nil {
						t.Error(err)
						return
					}
					conns[i] = conn
				})
				ids[i] = h.expect("dial").ID
			}
			answer(h, ids)
			wg.Wait()
			for i, conn := range conns {
				if conn == nil {
					continue
				}
				raw, err := conn.(*net.UnixConn).SyscallConn()
				if err != nil {
					t.Fatal(err)
				}
				var got syscall.Stat_t
				var want syscall.Stat_t
				raw.Control(func(fd uintptr) { err = syscall.Fstat(int(fd), &got) })
				if err2 := syscall.Fstat(fd(i+1), &want); err != nil || err2 != nil || got.Ino != want.Ino {
					t.Errorf("dial %d got another descriptor (%v, %v)", i+1, err, err2)
				}
				conn.Close()
			}
			eventually(t, "descriptors that nobody took are closed", func() bool { return openFDs(t) <= before })
		})
	}
}

// A descriptor for a Dial that gave up is closed, without a further line from
// the host.
func TestLateDescriptorIsClosed(t *testing.T) {
	c, h := start(t)
	_, connect := echo(t)
	fd := connect()
	defer syscall.Close(fd)
	before := openFDs(t)
	ctx, cancel := context.WithCancel(context.Background())
	result := make(chan error, 1)
	go func() { _, err := c.Dial(ctx, "tcp", "x:1"); result <- err }()
	m := h.expect("dial")
	cancel()
	if err := <-result; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	h.sendFDs(fmt.Sprintf(`{"id":%d,"result":{}}`+"\n", m.ID), fd)
	h.sendf(`{"id":1,"method":"ping"}`)
	h.hear() // so it was read
	eventually(t, "the descriptor is closed", func() bool { return openFDs(t) <= before })
}

// Answers and cancellations that race leave nothing open.
func TestRacingDialsLeakNothing(t *testing.T) {
	c, h := start(t)
	a, b := socketpair(t)
	defer b.Close()
	file, err := a.File()
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	before := openFDs(t)
	const n = 500
	fd := int(file.Fd())
	go func() { // not every dial gets as far as the host
		for {
			line, err := h.in.ReadBytes('\n')
			if err != nil {
				return
			}
			var m heard
			json.Unmarshal(line, &m)
			h.conn.WriteMsgUnix(fmt.Appendf(nil, `{"id":%d,"result":{}}`+"\n", m.ID), syscall.UnixRights(fd), nil)
		}
	}()
	connected := 0
	for i := range n {
		ctx, cancel := context.WithCancel(context.Background())
		time.AfterFunc(time.Duration(i)*time.Microsecond, cancel)
		conn, err := c.Dial(ctx, "unix", "/x")
		if err == nil {
			connected++
			conn.Close()
		} else if !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		cancel()
	}
	t.Logf("%d of %d connected", connected, n)
	eventually(t, "all descriptors are closed", func() bool { return openFDs(t) <= before })
}

func TestDialRefusals(t *testing.T) {
	c, h := start(t)
	go func() {
		m := h.expect("dial")
		if want := `"timeout_ms":10000`; !strings.Contains(string(m.Params), want) {
			t.Errorf("%s has no %s", m.Params, want)
		}
		h.sendf(`{"id":%d,"error":{"code":"denied","message":"evil.example:1 is not listed"}}`, m.ID)
		m = h.expect("dial")
		h.sendf(`{"id":%d,"result":{}}`, m.ID)
	}()
	if _, err := c.Dial(context.Background(), "tcp", "evil.example:1"); !errors.Is(err, &Error{Code: CodeDenied}) {
		t.Errorf("%v", err)
	}
	if _, err := c.Dial(context.Background(), "tcp", "x:1"); !errors.Is(err, &Error{Code: CodeFailed}) {
		t.Errorf("an answer without a descriptor: %v", err)
	}
}
