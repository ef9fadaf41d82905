package policy

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/network/segment"
	"golang.org/x/sys/unix"
)

// Reality is how a connection went.
type Reality struct {
	Passed bool `json:"passed"`

	// How says what was seen: "connected", "no answer within 1s".
	How string `json:"how"`

	// Counted is whether the rule that decides, by the simulation, has counted
	// packets meanwhile.
	Counted bool `json:"counted"`
}

// patience is how long a packet that nothing stops may take.
const (
	patience      = 5 * time.Second // of which a busy machine takes more than one
	patienceDeny  = time.Second     // what is denied is waited for in full
	attemptOfEcho = 250 * time.Millisecond
)

// Connect makes a real connection as a question asks for: from the namespace of
// the one workload, or from this host, to a listener in that of the other, which
// is there for the test alone. Where something listens already, that is
// connected to; nothing is sent to it. An error of kind failure.NotReady says why
// it could not be tried.
func Connect(ctx context.Context, a *Answer) (r Reality, err error) {
	before, err := counted(&a.Decision)
	if err != nil {
		return r, err
	}
	wait := patience
	if !a.Decision.Allowed {
		wait = patienceDeny
	}
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	switch {
	case a.From.machine == nil && !a.From.Place.Host:
		return r, failure.Errorf(failure.NotReady, "%s is not on this host: a connection can't be tried from there", a.From.Name)
	case a.To.machine == nil && !a.To.Place.Host && a.To.Name == "internet":
		return r, failure.New(failure.NotReady, "the internet has no address that a connection could be tried to: name one")
	}
	switch a.Traffic.Protocol {
	case segment.ProtocolTCP:
		r, err = a.tcp(ctx)
	case segment.ProtocolUDP:
		r, err = a.udp(ctx)
	case segment.ProtocolICMP:
		r, err = a.echo(ctx)
	default:
		return r, failure.Errorf(failure.NotReady, "connections by %s can't be tried", a.Traffic.Protocol)
	}
	if err != nil {
		return r, err
	}
	after, err := counted(&a.Decision)
	r.Counted = after > before
	return r, err
}

// counted is what the rule that decides has counted.
func counted(d *Decision) (uint64, error) {
	have, err := readCounters()
	return have.sum(d.Chain, d.Comment).Packets, err
}

// within runs f where a party is.
func (p *Party) within(f func() error) error {
	if p.machine == nil {
		return f()
	}
	if err := p.machine.Attach.Enter(f); err != nil {
		var op *net.OpError
		if errors.As(err, &op) {
			return err
		}
		return fmt.Errorf("%s: %w", p.Name, err)
	}
	return nil
}

// listens reports whether something can be made to listen at a party.
func (p *Party) listens() bool {
	return p.Place.Host || p.machine != nil && p.machine.Attach.Namespaced()
}

func (a *Answer) target() string {
	return netip.AddrPortFrom(a.To.Place.Address, a.Traffic.First).String()
}

// source is the local address of a dialler; the kernel chooses that of this host.
func (a *Answer) source() netip.AddrPort {
	if a.From.machine == nil {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(a.From.Place.Address, 0)
}

func (a *Answer) tcp(ctx context.Context) (r Reality, err error) {
	if a.To.listens() {
		var l net.Listener
		err := a.To.within(func() (err error) {
			l, err = (&net.ListenConfig{}).Listen(ctx, "tcp", a.target())
			return err
		})
		if err != nil && !errors.Is(err, unix.EADDRINUSE) {
			return r, err
		}
		if err == nil {
			defer l.Close()
			go func() {
				for {
					conn, err := l.Accept()
					if err != nil {
						return
					}
					conn.Close()
				}
			}()
		}
	}
	d := net.Dialer{}
	if s := a.source(); s.IsValid() {
		d.LocalAddr = net.TCPAddrFromAddrPort(s)
	}
	err = a.From.within(func() error {
		conn, err := d.DialContext(ctx, "tcp", a.target())
		if err == nil {
			conn.Close()
		}
		return err
	})
	switch {
	case err == nil:
		return Reality{Passed: true, How: "connected"}, nil
	case errors.Is(err, unix.ECONNREFUSED) && !a.To.listens():
		return Reality{Passed: true, How: "refused by the other side"}, nil
	}
	return a.unanswered(ctx, err)
}

// unanswered makes of an error that nothing came back, or that it could not be
// tried.
func (a *Answer) unanswered(ctx context.Context, err error) (Reality, error) {
	var timeout net.Error
	switch {
	case errors.As(err, &timeout) && timeout.Timeout(), ctx.Err() == context.DeadlineExceeded, errors.Is(err, unix.EHOSTUNREACH):
		if a.Decision.Allowed && !a.To.listens() {
			return Reality{}, failure.Errorf(failure.NotReady, "%s does not answer, and mobileops can't listen there: whether it was reached is not known", a.To.Name)
		}
		return Reality{How: "no answer"}, nil
	case errors.Is(err, unix.ECONNREFUSED):
		return Reality{How: "refused, though something listened"}, nil
	case errors.Is(err, unix.EPERM):
		return Reality{How: "not let out: operation not permitted"}, nil // by our rules at output
	}
	return Reality{}, err
}

func (a *Answer) udp(ctx context.Context) (r Reality, err error) {
	if !a.To.listens() {
		return r, failure.Errorf(failure.NotReady, "mobileops can't listen at %s: whether a datagram arrives is not known", a.To.Name)
	}
	var l net.PacketConn
	err = a.To.within(func() (err error) {
		l, err = (&net.ListenConfig{}).ListenPacket(ctx, "udp", a.target())
		return err
	})
	if errors.Is(err, unix.EADDRINUSE) {
		return r, failure.Errorf(failure.NotReady, "another program uses %s at %s: a datagram for the test would be one for it", a.Traffic, a.To.Name)
	}
	if err != nil {
		return r, err
	}
	defer l.Close()
	go func() {
		b := make([]byte, 256)
		for {
			n, from, err := l.ReadFrom(b)
			if err != nil {
				return
			}
			l.WriteTo(b[:n], from) // one that is lost is sent again
		}
	}()
	d := net.Dialer{}
	if s := a.source(); s.IsValid() {
		d.LocalAddr = net.UDPAddrFromAddrPort(s)
	}
	var conn net.Conn
	if err := a.From.within(func() (err error) {
		conn, err = d.DialContext(ctx, "udp", a.target())
		return err
	}); err != nil {
		return r, err
	}
	defer conn.Close()
	token := []byte("mobileops network policy test " + rand.Text())
	return a.exchange(ctx, conn, token, token)
}

// exchange sends a datagram until an answer that ends with some bytes comes.
func (a *Answer) exchange(ctx context.Context, conn net.Conn, send, want []byte) (Reality, error) {
	buf := make([]byte, 2048)
	for ctx.Err() == nil {
		if _, err := conn.Write(send); err != nil {
			if errors.Is(err, unix.EHOSTUNREACH) || errors.Is(err, unix.ECONNREFUSED) {
				time.Sleep(attemptOfEcho / 5)
				continue // it is what came back to the packet before
			}
			return a.unanswered(ctx, err)
		}
		for end := time.Now().Add(attemptOfEcho); ; {
			conn.SetReadDeadline(end)
			n, err := conn.Read(buf)
			if err != nil {
				break
			}
			if bytes.HasSuffix(buf[:n], want) {
				return Reality{Passed: true, How: "answered"}, nil
			}
		}
	}
	if err := context.Cause(ctx); !errors.Is(err, context.DeadlineExceeded) {
		return Reality{}, err
	}
	return a.unanswered(ctx, context.DeadlineExceeded)
}

// echo sends echo requests (RFC 792, RFC 4443).
func (a *Answer) echo(ctx context.Context) (r Reality, err error) {
	network, request := "ip4:icmp", byte(echoRequest)
	if a.To.Place.Address.Is6() {
		network, request = "ip6:ipv6-icmp", echoRequest6
	}
	d := net.Dialer{}
	if s := a.source(); s.IsValid() {
		d.LocalAddr = &net.IPAddr{IP: s.Addr().AsSlice()}
	}
	var conn net.Conn
	if err := a.From.within(func() (err error) {
		conn, err = d.DialContext(ctx, network, a.To.Place.Address.String())
		return err
	}); err != nil {
		return r, err
	}
	defer conn.Close()
	token := []byte(rand.Text())
	// Connection tracking tells echoes apart by two bytes: they are random.
	message := append([]byte{request, 0, 0, 0, token[0], token[1], token[2], token[3]}, token...)
	if a.To.Place.Address.Is4() { // that of IPv6 the kernel makes
		binary.BigEndian.PutUint16(message[2:], checksum(message))
	}
	reply := byte(0)
	if request == echoRequest6 {
		reply = echoRequest6 + 1
	}
	return a.exchange(ctx, &replies{conn, reply}, message, token)
}

// replies is a connection of ICMP that gives out packets of one type alone.
type replies struct {
	net.Conn
	typ byte
}

// Read reads the next packet of the type, without a header of IP.
func (r *replies) Read(b []byte) (int, error) {
	for {
		n, _, err := r.Conn.(*net.IPConn).ReadFrom(b)
		if err != nil || n > 0 && b[0] == r.typ {
			return n, err
		}
	}
}

// checksum is that of the Internet protocols (RFC 1071).
func checksum(b []byte) uint16 {
	var sum uint32
	for i, c := range b {
		sum += uint32(c) << (8 * (1 - i%2))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
