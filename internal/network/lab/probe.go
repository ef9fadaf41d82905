package lab

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"testing"
	"time"
)

// Probe is one way by which packets could go. What it needs at the other end
// is there.
type Probe struct {
	// Name says what goes where: "tcp 10.9.1.2 → 10.9.1.1:7".
	Name string
	// Try sends something new and returns nil when it has arrived, or the
	// answer to it has; it gives up when ctx is over.
	Try func(ctx context.Context) error

	mu     sync.Mutex
	passed bool
}

const (
	// patience is for what is to happen at some time. It is only ever waited
	// for in full by a test that fails.
	patience = time.Minute
	// attempt is for a packet and its answer within one machine, which take a
	// thousandth of that when it has nothing else to do.
	attempt = 200 * time.Millisecond
	// attempts are made before a way counts as blocked.
	attempts = 3
	// leisurely is for a packet and its answer that are to arrive.
	leisurely = time.Second
)

// Open reports an error for each probe that does not come through, each tried
// for seconds and all at once.
func Open(t testing.TB, probes ...*Probe) {
	t.Helper()
	for i, err := range each(probes, func(p *Probe) (err error) {
		for end := time.Now().Add(patience); time.Now().Before(end); {
			if err = p.once(leisurely); err == nil {
				return nil
			}
		}
		return err
	}) {
		if err != nil {
			t.Errorf("%s: does not come through: %v", probes[i].Name, err)
		}
	}
}

// Blocked reports an error for each probe that comes through, in several
// attempts and all at once. A probe that has never come through before ends
// the test: that it fails would prove nothing.
func Blocked(t testing.TB, probes ...*Probe) {
	t.Helper()
	for _, p := range probes {
		p.mu.Lock()
		passed := p.passed
		p.mu.Unlock()
		if !passed {
			t.Fatalf("%s: call Open before Blocked: a way that was never open cannot be seen to be closed", p.Name)
		}
	}
	for i, err := range each(probes, func(p *Probe) error {
		if p.Passes() {
			return errors.New("comes through")
		}
		return nil
	}) {
		if err != nil {
			t.Errorf("%s: %v, and should be blocked", probes[i].Name, err)
		}
	}
}

// Passes says whether the probe comes through now, in as many attempts as Blocked
// makes: a busy machine misses one.
func (p *Probe) Passes() bool {
	for range attempts {
		if p.once(attempt) == nil {
			return true
		}
	}
	return false
}

func (p *Probe) once(longest time.Duration) error {
	start := time.Now()
	ctx, cancel := context.WithTimeout(context.Background(), longest)
	defer cancel()
	err := p.Try(ctx)
	if err == nil {
		p.mu.Lock()
		p.passed = true
		p.mu.Unlock()
		return nil
	}
	// What fails at once, as a refusal does, is not tried in a hot loop.
	time.Sleep(attempt/5 - time.Since(start))
	return err
}

func each(probes []*Probe, f func(*Probe) error) []error {
	errs := make([]error, len(probes))
	var wg sync.WaitGroup
	for i, p := range probes {
		wg.Go(func() { errs[i] = f(p) })
	}
	wg.Wait()
	return errs
}

// EchoPort is where every host answers that a probe of Talk goes to.
const EchoPort = 7

// Talk is everything by which two hosts can talk, in both directions and by
// all addresses of their eth0: echo requests, TCP and UDP.
func Talk(a, b *Host) (probes []*Probe) {
	for _, pair := range [][2]*Host{{a, b}, {b, a}} {
		from, to := pair[0], pair[1]
		if from.IPv4().IsValid() && to.IPv4().IsValid() {
			probes = append(probes, from.Ping(to.IPv4()), from.TCP(to, to.IPv4(), EchoPort), from.UDP(to, to.IPv4(), EchoPort))
		}
		if from.IPv6().IsValid() && to.IPv6().IsValid() {
			probes = append(probes, from.Ping(to.IPv6()), from.TCP(to, to.IPv6(), EchoPort), from.UDP(to, to.IPv6(), EchoPort))
		}
	}
	return probes
}

// TCP is a probe that makes a connection from the host, by which a few bytes
// go to another host and back. That one's server, which is started when there
// is none yet, may be reached by an address that is not its own.
func (h *Host) TCP(to *Host, address netip.Addr, port uint16) *Probe {
	return h.echo("tcp", to, address, port)
}

// UDP is a probe that sends a datagram and waits for it to come back.
func (h *Host) UDP(to *Host, address netip.Addr, port uint16) *Probe {
	return h.echo("udp", to, address, port)
}

func (h *Host) echo(network string, to *Host, address netip.Addr, port uint16) *Probe {
	h.lab.t.Helper()
	to.Serve(port)
	target := netip.AddrPortFrom(address, port).String()
	return &Probe{Name: fmt.Sprintf("%s %s → %s %s", network, h.Name, to.Name, target), Try: func(ctx context.Context) error {
		conn, err := h.Dial(ctx, network, target)
		if err != nil {
			return err
		}
		defer conn.Close()
		end, _ := ctx.Deadline()
		conn.SetDeadline(end)
		token := rand.Text()
		if _, err := conn.Write([]byte(token)); err != nil {
			return err
		}
		got := make([]byte, len(token))
		for n := 0; n < len(got); {
			m, err := conn.Read(got[n:])
			if err != nil {
				return err
			}
			n += m
		}
		if string(got) != token {
			return fmt.Errorf("sent %q, and %q came back", token, got)
		}
		return nil
	}}
}

// Dial connects from the host to an IP address and port.
func (h *Host) Dial(ctx context.Context, network, address string) (conn net.Conn, err error) {
	err = h.Do(func() error {
		conn, err = (&net.Dialer{}).DialContext(ctx, network, address)
		return err
	})
	return conn, err
}

// Listen listens in the host until the end of the test.
func (h *Host) Listen(network, address string) (l net.Listener) {
	h.lab.t.Helper()
	h.lab.must(h.Do(func() (err error) {
		l, err = net.Listen(network, address)
		return err
	}))
	h.lab.t.Cleanup(func() { l.Close() })
	return l
}

// ListenPacket listens for datagrams in the host until the end of the test.
func (h *Host) ListenPacket(network, address string) (c net.PacketConn) {
	h.lab.t.Helper()
	h.lab.must(h.Do(func() (err error) {
		c, err = net.ListenPacket(network, address)
		return err
	}))
	h.lab.t.Cleanup(func() { c.Close() })
	return c
}

// Serve has a server send back what it is sent, over TCP and UDP, until the
// end of the test.
func (h *Host) Serve(port uint16) {
	h.lab.t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.servers[port] {
		return
	}
	h.servers[port] = true
	address := ":" + strconv.Itoa(int(port))
	tcp, udp := h.Listen("tcp", address), h.ListenPacket("udp", address)
	go func() {
		for {
			conn, err := tcp.Accept()
			if err != nil {
				return
			}
			h.visitors.Add(1)
			go func() {
				defer h.visitors.Add(-1)
				defer conn.Close()
				b := make([]byte, 4096)
				for {
					conn.SetDeadline(time.Now().Add(leisurely)) // who is cut off says no goodbye
					n, err := conn.Read(b)
					if err != nil {
						return
					}
					if _, err := conn.Write(b[:n]); err != nil {
						return
					}
				}
			}()
		}
	}()
	go func() {
		b := make([]byte, 65536)
		for {
			n, from, err := udp.ReadFrom(b)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err == nil {
				udp.WriteTo(b[:n], from) // an answer that is refused is one that does not arrive
			}
		}
	}()
}
