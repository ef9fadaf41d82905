package deliver

import (
	"crypto/tls"
	"fmt"
	"net"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// wire is the connection below TLS. It counts what was written to it, so that
// what the peer's kernel has acknowledged can be told: everything written but
// what SIOCOUTQ says is still in our send buffer.
type wire struct {
	net.Conn
	raw     syscall.RawConn // nil: not a socket
	written atomic.Int64    // TLS writes from two goroutines
}

func newWire(conn net.Conn) *wire {
	w := &wire{Conn: conn}
	if sc, ok := conn.(syscall.Conn); ok {
		if raw, err := sc.SyscallConn(); err == nil {
			w.raw = raw
		}
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		// A peer that is gone without a word is noticed after a minute.
		_ = tcp.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: 20 * time.Second, Interval: 10 * time.Second, Count: 4})
		if w.raw != nil {
			_ = w.raw.Control(func(fd uintptr) {
				_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(time.Minute/time.Millisecond))
			})
		}
	}
	return w
}

func (w *wire) Write(b []byte) (int, error) {
	n, err := w.Conn.Write(b)
	w.written.Add(int64(n))
	return n, err
}

// acknowledged returns how many of the written bytes the peer's kernel has
// acknowledged. It also tells the truth after the connection broke, until the
// socket is closed.
func (w *wire) acknowledged() (int64, error) {
	if w.raw == nil {
		return w.written.Load(), nil
	}
	var queued int
	var err error
	if cerr := w.raw.Control(func(fd uintptr) { queued, err = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ) }); cerr != nil {
		return 0, cerr
	}
	if err != nil {
		return 0, fmt.Errorf("SIOCOUTQ: %w", err)
	}
	// Our FIN counts as a byte in it; it never makes less than nothing.
	return max(0, w.written.Load()-int64(queued)), nil
}

// abandon closes the connection at once: what is still in the send buffer is
// thrown away rather than sent behind our back, since it will be sent again.
func (w *wire) abandon() {
	if tcp, ok := w.Conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	w.Conn.Close()
}

// closeWrite ends our half: with a close_notify where there is TLS, and a FIN.
func closeWrite(conn net.Conn, w *wire) error {
	if t, ok := conn.(*tls.Conn); ok {
		if err := t.CloseWrite(); err != nil {
			return err
		}
	}
	if tcp, ok := w.Conn.(*net.TCPConn); ok {
		return tcp.CloseWrite()
	}
	return nil
}
