package isolation_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mobileops/mobileops/internal/network/lab"
	"golang.org/x/sys/unix"
)

// TestAHostWhoseAddressIsOnABridge is how hosts of virtual machines are set up:
// the interface to the outside has no address, the bridge that it is a port of
// has it.
func TestAHostWhoseAddressIsOnABridge(t *testing.T) {
	t.Parallel()
	s := stage(t)
	nic := s.host.NIC(0)
	s.host.IP("link add br0 type bridge", "link set br0 address "+nic.MAC.String(), "addr flush dev eth0", "link set eth0 master br0", "link set br0 up",
		"addr add "+nic.IPv4.String()+"/24 dev br0", "addr add "+nic.IPv6.String()+"/64 dev br0 nodad")
	vm := s.host.Guest("vm", "vnet0", "10.9.1.200/24", "fd09:0:0:1::200/64")
	s.host.IP("link set vnet0 master br0")
	friends := s.friends()
	foes := slices.Concat(s.foes(), lab.Talk(vm, s.attacker), lab.Talk(vm, s.mgmt), lab.Talk(vm, s.host))
	lab.Open(t, friends...)
	lab.Open(t, foes...)
	s.isolate(t)
	lab.Blocked(t, foes...)
	for _, h := range []*lab.Host{s.host, s.mgmt} {
		h.Run("ip", "neigh", "flush", "all").Is(t, 0)
	}
	lab.Open(t, friends...)
	s.restore(t)
	lab.Open(t, foes...)
}

// TestATunnelToManagement ends where a peer is that may talk with the host, but
// what comes through it is not from that peer.
func TestATunnelToManagement(t *testing.T) {
	t.Parallel()
	s := stage(t)
	for _, end := range []struct{ at, to *lab.Host }{{s.host, s.mgmt}, {s.mgmt, s.host}} {
		last := "1"
		if end.at == s.mgmt {
			last = "2"
		}
		end.at.IP("link add vx0 type vxlan id 5 dstport 4789 local "+end.at.IPv4().String()+" remote "+end.to.IPv4().String(), "link set vx0 up",
			"addr add 10.77.0."+last+"/24 dev vx0", "addr add fd77::"+last+"/64 dev vx0 nodad")
	}
	here, there := netip.MustParseAddr("10.77.0.1"), netip.MustParseAddr("10.77.0.2")
	here6, there6 := netip.MustParseAddr("fd77::1"), netip.MustParseAddr("fd77::2")
	inside := []*lab.Probe{
		s.host.TCP(s.mgmt, there, 7), s.mgmt.TCP(s.host, here, 7), s.host.UDP(s.mgmt, there6, 7), s.mgmt.UDP(s.host, here6, 7),
		s.host.Ping(there), s.mgmt.Ping(here), s.host.Ping(there6), s.mgmt.Ping(here6),
	}
	lab.Open(t, inside...)
	s.isolate(t)
	lab.Blocked(t, inside...)
	lab.Open(t, s.friends()...)
	// Those at its other end can be allowed like anybody else.
	s.host.Mobileops(append([]string{"network", "isolate", "--replace", "--allow", "10.77.0.2", "--allow", "fd77::2"}, allow(s.mgmt)...)...).Is(t, 0)
	lab.Open(t, inside...)
	s.restore(t)
}

// TestALinkWithoutEthernet is that of a VPN: packets, without frames around.
func TestALinkWithoutEthernet(t *testing.T) {
	t.Parallel()
	s := stage(t)
	var vpn *os.File
	if err := s.host.Do(func() (err error) {
		vpn, err = tun("vpn0")
		return err
	}); err != nil {
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENODEV) {
			t.Skipf("NOT RUN: what goes by a link without Ethernet: %v", err)
		}
		t.Fatal(err)
	}
	defer vpn.Close()
	s.host.IP("link set vpn0 up", "addr add 10.88.0.1/24 dev vpn0", "addr add fd88::1/64 dev vpn0 nodad")
	sends := func(to string) *lab.Probe {
		return &lab.Probe{Name: "by the VPN to " + to, Try: func(ctx context.Context) error {
			conn, err := s.host.Dial(ctx, "udp", netip.AddrPortFrom(netip.MustParseAddr(to), 9).String())
			if err != nil {
				return err
			}
			defer conn.Close()
			token := []byte(rand.Text())
			if _, err := conn.Write(token); err != nil {
				return err
			}
			end, _ := ctx.Deadline()
			vpn.SetReadDeadline(end)
			for b := make([]byte, 2048); ; {
				n, err := vpn.Read(b)
				if err != nil {
					return err
				}
				if bytes.Contains(b[:n], token) {
					return nil
				}
			}
		}}
	}
	receives := func(from, to string) *lab.Probe {
		return &lab.Probe{Name: "by the VPN from " + from, Try: func(ctx context.Context) error {
			var conn interface {
				SetReadDeadline(time.Time) error
				Read([]byte) (int, error)
				Close() error
			}
			local := netip.AddrPortFrom(netip.MustParseAddr(to), 5555)
			err := s.host.Do(func() (err error) {
				conn, err = listenUDP(local)
				return err
			})
			if err != nil {
				return err
			}
			defer conn.Close()
			token := []byte(rand.Text())
			if _, err := vpn.Write(lab.Datagram(netip.AddrPortFrom(netip.MustParseAddr(from), 9), local, token)); err != nil {
				return err
			}
			end, _ := ctx.Deadline()
			conn.SetReadDeadline(end)
			b := make([]byte, 100)
			n, err := conn.Read(b)
			if err == nil && !bytes.Equal(b[:n], token) {
				err = errors.New("something else came")
			}
			return err
		}}
	}
	// One after the other: there is one reader.
	friends := []*lab.Probe{sends("10.88.0.2"), receives("10.88.0.2", "10.88.0.1"), sends("fd88::2"), receives("fd88::2", "fd88::1")}
	foes := []*lab.Probe{sends("10.88.0.3"), receives("10.88.0.3", "10.88.0.1"), sends("fd88::3"), receives("fd88::3", "fd88::1")}
	each := func(check func(testing.TB, ...*lab.Probe), probes []*lab.Probe) {
		t.Helper()
		for _, p := range probes {
			check(t, p)
		}
	}
	each(lab.Open, append(friends, foes...))
	s.isolate(t, "--allow", "10.88.0.2", "--allow", "fd88::2")
	each(lab.Blocked, foes)
	each(lab.Open, friends)
	s.restore(t)
	each(lab.Open, foes)
}

// TestAnyNumberOfLinksOfAnyName isolates a host with many interfaces, some with
// names that shells and rules take for something else.
func TestAnyNumberOfLinksOfAnyName(t *testing.T) {
	t.Parallel()
	s := stage(t)
	foes := s.foes()
	for i, name := range []string{"eth*", "a-b.c@d", "$(reboot)", `"`, "0", "lo0", "fifteen-bytes-x", "\u00e9\u00e9", "{a,b}", "#1"} {
		s.host.IP(fmt.Sprintf("link add v%d type veth peer name w%d", i, i))
		s.host.Run("ip", "link", "set", "dev", fmt.Sprintf("v%d", i), "name", name).Is(t, 0)
		s.host.Run("ip", "link", "set", "dev", name, "up").Is(t, 0)
	}
	var plan []string
	for i := range 150 {
		plan = append(plan, fmt.Sprintf("link add m%d type veth peer name n%d", i, i))
	}
	s.host.IP(plan...)
	lab.Open(t, foes...)
	s.isolate(t)
	lab.Blocked(t, foes...)
	lab.Open(t, s.friends()...)
	s.restore(t)
	lab.Open(t, foes...)
}

// TestLinksComeAndGoMeanwhile isolates a host on which containers are started
// and stopped all the time, and on which others change their rules.
func TestLinksComeAndGoMeanwhile(t *testing.T) {
	t.Parallel()
	s := stage(t)
	foes := s.foes()
	lab.Open(t, foes...)
	stop := make(chan struct{})
	stopped := make(chan error, 1)
	go func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				stopped <- nil
				return
			default:
			}
			r := s.host.Run("sh", "-c", fmt.Sprintf("ip link add c%d type veth peer name d%d && ip link set c%d up && nft add table inet other && nft delete table inet other && ip link del c%d", i, i, i, i))
			if r.Status != 0 {
				stopped <- fmt.Errorf("%+v", r)
				return
			}
		}
	}()
	for range 8 {
		s.host.Mobileops(append([]string{"network", "isolate"}, allow(s.mgmt)...)...).Is(t, 0)
		lab.Blocked(t, foes[0])
		s.host.Mobileops("network", "restore").Is(t, 0)
	}
	close(stop)
	if err := <-stopped; err != nil {
		t.Error(err)
	}
	lab.Open(t, foes...)
}

// TestChainsGoWithTheirLinks has a guard see many interfaces come and go: what it
// made for those that are gone must not pile up in the kernel.
func TestChainsGoWithTheirLinks(t *testing.T) {
	t.Parallel()
	s := stage(t)
	s.isolate(t)
	var plan []string
	for i := range 20 {
		plan = append(plan, fmt.Sprintf("link add c%d type veth peer name d%d", i, i))
	}
	s.host.IP(plan...)
	chains := func() int {
		return strings.Count(s.host.Run("nft", "list", "table", "netdev", "mobileops_isolation").Is(t, 0).Stdout, "type filter hook ")
	}
	const each = 2
	eventually(t, "all interfaces are sealed", func() bool { return chains() == each*41 })
	for i := range plan {
		plan[i] = fmt.Sprintf("link del c%d", i)
	}
	s.host.IP(plan...)
	eventually(t, "nothing is left of those that are gone", func() bool { return chains() == each })
	s.restore(t)
}
