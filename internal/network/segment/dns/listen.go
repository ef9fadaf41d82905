package dns

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"runtime/debug"
	"sync"
	"syscall"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
	"golang.org/x/sys/unix"
)

const (
	readers     = 2 // of each UDP socket
	maxTCP      = 128
	maxTCPEach  = 16 // of one client
	tcpIdle     = 10 * time.Second
	tcpMessages = 256 // on one connection
)

// control binds a socket to the interface, and to an address that the interface
// may get only later: bridges and their addresses come and go.
func (s *Server) control(network, _ string, c syscall.RawConn) error {
	var serr error
	err := c.Control(func(fd uintptr) {
		if s.cfg.Interface != "" {
			serr = unix.SetsockoptString(int(fd), unix.SOL_SOCKET, unix.SO_BINDTODEVICE, s.cfg.Interface)
		}
		serr = errors.Join(serr, unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1))
		if network[len(network)-1] == '6' {
			serr = errors.Join(serr, unix.SetsockoptInt(int(fd), unix.SOL_IPV6, unix.IPV6_FREEBIND, 1))
		} else {
			serr = errors.Join(serr, unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_FREEBIND, 1))
		}
	})
	return errors.Join(err, serr)
}

// Run answers on all addresses, by UDP and TCP, until the context is done, which
// is no error. Ready is called once everything that can be heard is heard. An
// interface that is not there is an error of kind failure.NotReady.
func (s *Server) Run(ctx context.Context, ready func()) error {
	if s.cfg.Interface != "" {
		if _, err := net.InterfaceByName(s.cfg.Interface); err != nil {
			return failure.Errorf(failure.NotReady, "DNS on %s: %w", s.cfg.Interface, err)
		}
	}
	lc := net.ListenConfig{Control: s.control}
	var loops []func() error
	var closers []io.Closer
	defer func() {
		for _, c := range closers {
			c.Close()
		}
	}()
	tcp := &connections{each: map[netip.Addr]int{}, open: map[net.Conn]bool{}}
	for _, a := range s.cfg.Listen {
		at, family := netip.AddrPortFrom(a, s.cfg.Port).String(), "4"
		if a.Is6() {
			family = "6"
		}
		pc, err := lc.ListenPacket(ctx, "udp"+family, at)
		if err != nil {
			return listenError(at, err)
		}
		closers = append(closers, pc)
		l, err := lc.Listen(ctx, "tcp"+family, at)
		if err != nil {
			return listenError(at, err)
		}
		closers = append(closers, l)
		udp := pc.(*net.UDPConn)
		udp.SetReadBuffer(1 << 20)
		for range readers {
			loops = append(loops, func() error { return s.serveUDP(udp) })
		}
		loops = append(loops, func() error { return s.serveTCP(l, tcp) })
	}
	ended := make(chan error, len(loops))
	for _, loop := range loops {
		go func() { ended <- guarded(loop) }()
	}
	if ready != nil {
		ready()
	}
	var err error
	left := len(loops)
	select {
	case <-ctx.Done():
	case err = <-ended:
		left--
	}
	stopped := ctx.Err() != nil
	for _, c := range closers {
		c.Close()
	}
	tcp.closeAll()
	for ; left > 0; left-- {
		<-ended
	}
	if stopped {
		return nil
	}
	return fmt.Errorf("DNS on %s: %w", s.cfg.Interface, err)
}

// guarded turns a panic into an error: what one message can do to one zone, or
// to one question, it does not do to the others.
func guarded(f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v: %s", p, debug.Stack())
		}
	}()
	return f()
}

func listenError(at string, err error) error {
	switch {
	case errors.Is(err, unix.EADDRINUSE):
		return failure.Errorf(failure.Busy, "%s is taken by another DNS server: %w", at, err)
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		return failure.Errorf(failure.NotAllowed, "%s: %w (it needs root, or CAP_NET_BIND_SERVICE and CAP_NET_RAW)", at, err)
	}
	return fmt.Errorf("%s: %w", at, err)
}

func (s *Server) serveUDP(c *net.UDPConn) error {
	w := new(scratch)
	buf := make([]byte, 4096)
	for {
		n, from, err := c.ReadFromUDPAddrPort(buf)
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return err
			}
			if errors.Is(err, unix.ENETDOWN) {
				time.Sleep(100 * time.Millisecond)
			}
			continue // what an earlier answer met
		}
		if from.Port() == 0 {
			continue
		}
		reply, later := s.answer(buf[:n], from.Addr().Unmap().WithZone(""), false, w)
		if later != nil {
			request := append([]byte{}, buf[:n]...)
			go guarded(func() error {
				_, err := c.WriteToUDPAddrPort(later(request), from)
				return err
			})
			continue
		}
		if len(reply) > 0 {
			c.WriteToUDPAddrPort(reply, from)
		}
	}
}

// connections are those of all clients by TCP.
type connections struct {
	mu   sync.Mutex
	each map[netip.Addr]int
	open map[net.Conn]bool
	done bool
}

func (t *connections) enter(c net.Conn, client netip.Addr) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.done || len(t.open) >= maxTCP || t.each[client] >= maxTCPEach {
		return false
	}
	t.open[c] = true
	t.each[client]++
	return true
}

func (t *connections) leave(c net.Conn, client netip.Addr) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.open, c)
	if t.each[client]--; t.each[client] == 0 {
		delete(t.each, client)
	}
}

func (t *connections) closeAll() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.done = true
	for c := range t.open {
		c.Close()
	}
}

func (s *Server) serveTCP(l net.Listener, t *connections) error {
	for {
		c, err := l.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return err
			}
			time.Sleep(50 * time.Millisecond) // no descriptors are left, perhaps
			continue
		}
		from, ok := c.RemoteAddr().(*net.TCPAddr)
		client := netip.Addr{}
		if ok {
			client = from.AddrPort().Addr().Unmap().WithZone("")
		}
		if !t.enter(c, client) {
			c.Close()
			continue
		}
		go func() {
			defer t.leave(c, client)
			defer c.Close()
			guarded(func() error { s.converse(c, client); return nil })
		}()
	}
}

// converse answers the messages of one connection, one after the other.
func (s *Server) converse(c net.Conn, client netip.Addr) {
	w := new(scratch)
	var size [2]byte
	for range tcpMessages {
		c.SetDeadline(time.Now().Add(tcpIdle))
		if _, err := io.ReadFull(c, size[:]); err != nil {
			return
		}
		n := int(binary.BigEndian.Uint16(size[:]))
		if n < headerSize || n > 4096 {
			return
		}
		request := make([]byte, n)
		if _, err := io.ReadFull(c, request); err != nil {
			return
		}
		reply, later := s.answer(request, client, true, w)
		if later != nil {
			reply = later(request)
		}
		if len(reply) == 0 {
			return
		}
		c.SetDeadline(time.Now().Add(tcpIdle))
		if _, err := c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(reply))), reply...)); err != nil {
			return
		}
	}
}
