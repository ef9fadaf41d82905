package isolation_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/mobileops/mobileops/internal/network/lab"
	"golang.org/x/sys/unix"
)

// TestLeasesAreRenewed sends what DHCP clients and servers do: where addresses
// run out, that goes on, and where they do not, it ends.
func TestLeasesAreRenewed(t *testing.T) {
	t.Parallel()
	s := stage(t)
	other := s.Switch()
	leased, server := s.host.AddNIC(other), other.Host("server").NIC(0)
	s.host.IP(
		fmt.Sprintf("addr change %s/24 dev eth1 valid_lft 3600 preferred_lft 3600", leased.IPv4),
		fmt.Sprintf("addr del %s/64 dev eth1", leased.IPv6),
		fmt.Sprintf("addr add %s/64 dev eth1 nodad valid_lft 3600 preferred_lft 3600", leased.IPv6))
	open := append(dhcp(t, s.host, leased, server), dhcp6(t, s.host, leased, server)...)
	shut := append(dhcp(t, s.host, s.host.NIC(0), s.attacker.NIC(0)), dhcp6(t, s.host, s.host.NIC(0), s.attacker.NIC(0))...)
	foes := []*lab.Probe{s.host.TCP(server.Host, server.IPv4, 7), s.host.UDP(server.Host, server.IPv6, 7), server.Host.Ping(leased.IPv4), server.Host.TCP(s.host, leased.IPv6, 7)}
	lab.Open(t, foes...)
	lab.Open(t, open...)
	lab.Open(t, shut...)
	s.isolate(t)
	lab.Open(t, open...)
	lab.Blocked(t, shut...)
	lab.Blocked(t, foes...)
	s.restore(t)
	lab.Open(t, shut...)
	lab.Open(t, foes...)
}

// TestLeasesOfABridge has the address run out on a bridge: what renews it goes by
// the interface to the outside, which has none.
func TestLeasesOfABridge(t *testing.T) {
	t.Parallel()
	s := stage(t)
	nic, server := s.host.NIC(0), s.attacker.NIC(0)
	s.host.IP("link add br0 type bridge", "link set br0 address "+nic.MAC.String(), "addr flush dev eth0", "link set eth0 master br0", "link set br0 up",
		fmt.Sprintf("addr add %s/24 dev br0 valid_lft 3600 preferred_lft 3600", nic.IPv4), fmt.Sprintf("addr add %s/64 dev br0 nodad valid_lft 3600 preferred_lft 3600", nic.IPv6))
	onBridge := &lab.NIC{Host: s.host, Name: "br0", MAC: nic.MAC, IPv4: nic.IPv4, IPv6: nic.IPv6}
	open := append(dhcp(t, s.host, onBridge, server), dhcp6(t, s.host, onBridge, server)...)
	foes := s.foes()
	lab.Open(t, open...)
	lab.Open(t, foes...)
	s.isolate(t)
	lab.Open(t, open...)
	lab.Blocked(t, foes...)
	s.host.Mobileops(append([]string{"network", "isolate", "--replace", "--strict"}, allow(s.mgmt)...)...).Is(t, 0)
	lab.Blocked(t, open...)
	s.restore(t)
	lab.Open(t, open...)
}

// dhcp are a broadcast of a client of the host, and an answer by broadcast that
// a program on the host reads.
func dhcp(t *testing.T, h *lab.Host, nic, server *lab.NIC) []*lab.Probe {
	t.Helper()
	all := netip.MustParseAddr("255.255.255.255")
	return []*lab.Probe{
		nic.Frames("DHCP request by "+nic.Name, server, lab.Raw{}, func(token []byte) []byte {
			return lab.Ethernet(lab.Broadcast, nic.MAC, unix.ETH_P_IP, lab.Datagram(netip.AddrPortFrom(netip.IPv4Unspecified(), 68), netip.AddrPortFrom(all, 67), token))
		}),
		hears(h, "DHCP answer by "+nic.Name, server, lab.Broadcast, netip.AddrPortFrom(server.IPv4, 67), netip.AddrPortFrom(all, 68), nic),
	}
}

// dhcp6 is the same by RFC 8415.
func dhcp6(t *testing.T, h *lab.Host, nic, server *lab.NIC) []*lab.Probe {
	t.Helper()
	client := lab.LinkLocal(nic.MAC)
	return []*lab.Probe{
		nic.Frames("DHCPv6 request by "+nic.Name, server, lab.Raw{}, func(token []byte) []byte {
			return lab.Ethernet([]byte{0x33, 0x33, 0, 1, 0, 2}, nic.MAC, unix.ETH_P_IPV6, lab.Datagram(netip.AddrPortFrom(client, 546), netip.AddrPortFrom(netip.MustParseAddr("ff02::1:2"), 547), token))
		}),
		hears(h, "DHCPv6 answer by "+nic.Name, server, nic.MAC, netip.AddrPortFrom(lab.LinkLocal(server.MAC), 547), netip.AddrPortFrom(client, 546), nic),
	}
}

// hears is a probe by which a datagram reaches a program on the host.
func hears(h *lab.Host, name string, server *lab.NIC, mac net.HardwareAddr, from, to netip.AddrPort, nic *lab.NIC) *lab.Probe {
	family, every := "udp4", "0.0.0.0"
	if to.Addr().Is6() {
		family, every = "udp6", "::"
	}
	return &lab.Probe{Name: name, Try: func(ctx context.Context) error {
		var conn net.PacketConn
		err := h.Do(func() (err error) {
			listen := net.ListenConfig{Control: onInterface(nic.Name)}
			conn, err = listen.ListenPacket(ctx, family, net.JoinHostPort(every, fmt.Sprint(to.Port())))
			return err
		})
		if err != nil {
			return err
		}
		defer conn.Close()
		token := []byte(rand.Text())
		protocol := uint16(unix.ETH_P_IP)
		if to.Addr().Is6() {
			protocol = unix.ETH_P_IPV6
		}
		if err := server.Send(lab.Ethernet(mac, server.MAC, protocol, lab.Datagram(from, to, token)), lab.Raw{}); err != nil {
			return err
		}
		end, ok := ctx.Deadline()
		if !ok {
			end = time.Now().Add(time.Second)
		}
		conn.SetReadDeadline(end)
		got := make([]byte, 100)
		n, _, err := conn.ReadFrom(got)
		if err == nil && !bytes.Equal(got[:n], token) {
			err = errors.New("something else came")
		}
		return err
	}}
}

// onInterface binds a socket to an interface, as a DHCP client does.
func onInterface(name string) func(string, string, syscall.RawConn) error {
	return func(_, _ string, c syscall.RawConn) error {
		var failed error
		err := c.Control(func(fd uintptr) { failed = unix.BindToDevice(int(fd), name) })
		return errors.Join(err, failed)
	}
}
