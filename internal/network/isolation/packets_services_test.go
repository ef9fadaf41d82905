package isolation_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"testing"

	"github.com/mobileops/mobileops/internal/network/lab"
	"golang.org/x/sys/unix"
)

// TestNameServersAreAskedByWish lets the host resolve names, of those who
// resolv.conf names, and nothing else of them.
func TestNameServersAreAskedByWish(t *testing.T) {
	t.Parallel()
	s := stage(t)
	conf := s.host.Private("/etc/resolv.conf")
	if err := os.WriteFile(conf, fmt.Appendf(nil, "nameserver %s\nnameserver %s\n", s.attacker.IPv4(), s.attacker.IPv6()), 0o644); err != nil {
		t.Fatal(err)
	}
	var names []*lab.Probe
	for _, a := range []netip.Addr{s.attacker.IPv4(), s.attacker.IPv6()} {
		names = append(names, s.host.UDP(s.attacker, a, 53), s.host.TCP(s.attacker, a, 53))
	}
	foes := s.foes()
	other := s.host.UDP(s.mgmt, s.mgmt.IPv4(), 53)
	lab.Open(t, names...)
	lab.Open(t, append(foes, other)...)
	s.isolate(t, "--dns", "--allow", "10.99.0.1")
	lab.Open(t, names...)
	lab.Blocked(t, append(foes, other)...)
	s.restore(t)
	s.isolate(t, "--allow", "10.99.0.1")
	lab.Blocked(t, names...)
	s.restore(t)
	lab.Open(t, names...)
}

// TestFragments sends datagrams that no frame holds: only the first fragment
// says which port it is for.
func TestFragments(t *testing.T) {
	t.Parallel()
	s := stage(t)
	const service, other = 8443, 8444
	large := func(from, to *lab.Host, address netip.Addr, port uint16) *lab.Probe {
		to.Serve(port)
		target := netip.AddrPortFrom(address, port)
		return &lab.Probe{Name: fmt.Sprintf("large datagrams %s → %s %s", from.Name, to.Name, target), Try: func(ctx context.Context) error {
			conn, err := from.Dial(ctx, "udp", target.String())
			if err != nil {
				return err
			}
			defer conn.Close()
			end, _ := ctx.Deadline()
			conn.SetDeadline(end)
			sent, got := make([]byte, 6000), make([]byte, 9000)
			rand.Read(sent)
			if _, err := conn.Write(sent); err != nil {
				return err
			}
			n, err := conn.Read(got)
			if err == nil && string(got[:n]) != string(sent) {
				err = errors.New("something else came back")
			}
			return err
		}}
	}
	var open, shut []*lab.Probe
	for _, pair := range [][2]*lab.Host{{s.host, s.mgmt}, {s.mgmt, s.host}} {
		for _, a := range []netip.Addr{pair[1].IPv4(), pair[1].IPv6()} {
			open = append(open, large(pair[0], pair[1], a, service))
			shut = append(shut, large(pair[0], pair[1], a, other))
		}
	}
	shut = append(shut, large(s.host, s.attacker, s.attacker.IPv4(), service), large(s.attacker, s.host, s.host.IPv6(), service))
	lab.Open(t, open...)
	lab.Open(t, shut...)
	s.isolate(t, "--allow", s.mgmt.IPv4().String()+":8443/udp", "--allow", "["+s.mgmt.IPv6().String()+"]:8443/udp")
	lab.Open(t, open...)
	lab.Blocked(t, shut...)
	s.host.Mobileops(append([]string{"network", "isolate", "--replace"}, allow(s.mgmt)...)...).Is(t, 0)
	lab.Open(t, open...)
	lab.Blocked(t, shut[len(shut)-2:]...)
	s.restore(t)
	lab.Open(t, shut...)
}

// TestProgramsAreTold has programs that wait for datagrams of a peer, and that
// send some, hear that there is no peer any more.
func TestProgramsAreTold(t *testing.T) {
	t.Parallel()
	s := stage(t)
	foes := s.foes()
	lab.Open(t, foes...)
	for _, a := range []netip.Addr{s.attacker.IPv4(), s.attacker.IPv6()} {
		conn, err := s.host.Dial(t.Context(), "udp", netip.AddrPortFrom(a, 9).String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		told := make(chan error, 1)
		go func() {
			_, err := conn.Read(make([]byte, 1))
			told <- err
		}()
		defer func() {
			if err := <-told; !errors.Is(err, unix.ECONNABORTED) {
				t.Errorf("who waits for datagrams of %s is told: %v", a, err)
			}
		}()
	}
	s.isolate(t)
	for _, a := range []netip.Addr{s.attacker.IPv4(), s.attacker.IPv6()} {
		conn, err := s.host.Dial(t.Context(), "udp", netip.AddrPortFrom(a, 9).String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := conn.Write([]byte("hello?")); !errors.Is(err, unix.EPERM) {
			t.Errorf("who sends datagrams to %s is told: %v", a, err)
		}
	}
	lab.Blocked(t, foes...)
	s.restore(t)
}

// TestThePortOfTheSenderOpensNothing has a peer of which one service is allowed
// send from the port of that service, as if all it sends were answers.
func TestThePortOfTheSenderOpensNothing(t *testing.T) {
	t.Parallel()
	s := stage(t)
	const service, other = 8443, 8444
	from := func(sender, to *lab.Host, network string, local, remote netip.Addr) *lab.Probe {
		to.Serve(other)
		target := netip.AddrPortFrom(remote, other)
		return &lab.Probe{Name: fmt.Sprintf("%s from port %d of %s to %s", network, service, sender.Name, target), Try: func(ctx context.Context) error {
			dialer := net.Dialer{LocalAddr: net.UDPAddrFromAddrPort(netip.AddrPortFrom(local, service))}
			if network == "tcp" {
				dialer.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(local, service))
			}
			var conn net.Conn
			err := sender.Do(func() (err error) {
				conn, err = dialer.DialContext(ctx, network, target.String())
				return err
			})
			if err != nil {
				return err
			}
			defer conn.Close()
			if c, ok := conn.(*net.TCPConn); ok {
				c.SetLinger(0) // the port is needed again
			}
			end, _ := ctx.Deadline()
			conn.SetDeadline(end)
			if _, err := conn.Write([]byte("hello")); err != nil {
				return err
			}
			_, err = conn.Read(make([]byte, 5))
			return err
		}}
	}
	var shut []*lab.Probe
	for _, network := range []string{"tcp", "udp"} {
		shut = append(shut, from(s.mgmt, s.host, network, s.mgmt.IPv4(), s.host.IPv4()), from(s.mgmt, s.host, network, s.mgmt.IPv6(), s.host.IPv6()))
	}
	lab.Open(t, shut...)
	var flags []string
	for _, proto := range []string{"tcp", "udp"} {
		flags = append(flags, "--allow", s.mgmt.IPv4().String()+":8443/"+proto, "--allow", "["+s.mgmt.IPv6().String()+"]:8443/"+proto)
	}
	s.isolate(t, flags...)
	lab.Blocked(t, shut...)
	s.restore(t)
	lab.Open(t, shut...)
}
