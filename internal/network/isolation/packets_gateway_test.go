package isolation_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mobileops/mobileops/internal/network/lab"
	"golang.org/x/sys/unix"
)

// TestThroughTheGateway allows a peer behind a router: the router itself is
// asked for its link-layer address and what it says about the size of packets
// is heard, and that is all.
func TestThroughTheGateway(t *testing.T) {
	t.Parallel()
	s := stage(t)
	far := s.Switch()
	router := s.Router("router", s.lan, far)
	mgmt, attacker := far.Host("far-mgmt"), far.Host("far-attacker")
	for _, h := range []*lab.Host{s.host, s.attacker, mgmt, attacker} {
		h.Via(router)
	}
	for _, name := range []string{"net/ipv4/conf/all/send_redirects", "net/ipv4/conf/eth0/send_redirects"} {
		router.Sysctl(name, "0")
	}
	friends := lab.Talk(s.host, mgmt)
	foes := append(lab.Talk(s.host, attacker), lab.Talk(s.host, s.attacker)...)
	foes = append(foes, lab.Talk(s.host, router)...)
	near, routed := advertises(s.host.NIC(0), router.NIC(0), 255), advertises(s.host.NIC(0), router.NIC(0), 254)
	lab.Open(t, near, routed)
	kept, cut := s.host.Stream(mgmt, mgmt.IPv4(), 9001), attacker.Stream(s.host, s.host.IPv6(), 9002)
	lab.Open(t, friends...)
	lab.Open(t, foes...)
	lab.Flowing(t, kept, cut)
	// From now on the way behind the router is narrow, and nobody knows.
	router.IP("link set eth1 mtu 1300")
	// Those behind it send nothing larger by themselves: a link drops that without
	// a word, unless the packet is still to be cut into segments, which depends on
	// how busy the machine is. They announce what they take as before.
	for _, hop := range []netip.Addr{router.NIC(1).IPv4, router.NIC(1).IPv6} {
		mgmt.IP(fmt.Sprintf("route replace default via %s dev eth0 mtu 1300 advmss 1440", hop))
	}

	s.isolate(t, allow(mgmt)...)
	cut.Server.Dies(t)
	lab.Blocked(t, foes...)
	for _, h := range []*lab.Host{s.host, router} {
		h.Run("ip", "neigh", "flush", "all").Is(t, 0)
	}
	lab.Open(t, friends...)
	lab.Open(t, near)
	lab.Blocked(t, routed)
	lab.Flowing(t, kept)
	lab.Stalled(t, cut)
	for _, a := range []netip.Addr{mgmt.IPv4(), mgmt.IPv6()} {
		upload(t, s.host, a)
		if route := s.host.Run("ip", "route", "get", a.String()).Is(t, 0).Stdout; !strings.Contains(route, "mtu 1300") {
			t.Errorf("what the router says about the size of packets has not been heard: %s", route)
		}
	}
	// A neighbour that takes the way through the gateway is nobody else.
	s.attacker.IP("route add "+s.host.IPv4().String()+"/32 via "+router.IPv4().String(), "route add "+s.host.IPv6().String()+"/128 via "+router.IPv6().String())
	s.host.IP("route add "+s.attacker.IPv4().String()+"/32 via "+router.IPv4().String(), "route add "+s.attacker.IPv6().String()+"/128 via "+router.IPv6().String())
	lab.Blocked(t, foes...)
	s.restore(t)
	lab.Open(t, foes...)
}

// advertises is neighbour discovery (RFC 4861): only what has a hop limit of
// 255 has come through no router.
func advertises(from, to *lab.NIC, limit byte) *lab.Probe {
	sniffer := to.Sniff()
	return &lab.Probe{Name: fmt.Sprintf("advertisement of hop limit %d", limit), Try: func(ctx context.Context) error {
		var reserved [3]byte // nobody looks at them
		rand.Read(reserved[:])
		body := slices.Concat([]byte{lab.NeighborAdvertisement, 0, 0, 0, 0x20}, reserved[:], from.IPv6.AsSlice(), []byte{2, 1}, from.MAC)
		frame := lab.Ethernet(to.MAC, from.MAC, unix.ETH_P_IPV6, lab.Packet(from.IPv6, to.IPv6, unix.IPPROTO_ICMPV6, limit, body))
		return exchange(ctx, from, sniffer, frame, func(f []byte) bool { return bytes.Equal(f, frame) })
	}}
}

// upload sends more to the echo server than fits into a packet, and has it
// back.
func upload(t *testing.T, from *lab.Host, to netip.Addr) {
	t.Helper()
	conn, err := from.Dial(t.Context(), "tcp", netip.AddrPortFrom(to, lab.EchoPort).String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(time.Minute))
	const size = 200_000
	sent := make(chan error, 1)
	go func() {
		_, err := conn.Write(make([]byte, size))
		sent <- err
	}()
	if n, err := io.ReadFull(conn, make([]byte, size)); err != nil {
		t.Errorf("%s: %d of %d bytes came back: %v", to, n, size, err)
	}
	if err := <-sent; err != nil {
		t.Error(err)
	}
}

// TestWorkloadsAreCutOffWithTheirHost has a host carry a container behind network address
// translation and a VM that is bridged to the outside.
func TestWorkloadsAreCutOffWithTheirHost(t *testing.T) {
	t.Parallel()
	s := stage(t)
	s.host.Forward()
	s.host.IP("link add docker0 type bridge", "addr add 172.30.0.1/24 dev docker0", "addr add fd30::1/64 dev docker0 nodad", "link set docker0 up")
	container := s.host.Guest("container", "vethc", "172.30.0.2/24", "fd30::2/64")
	s.host.IP("link set vethc master docker0")
	container.IP("route add default via 172.30.0.1", "route add default via fd30::1")
	s.attacker.IP("route add fd30::/64 via " + s.host.IPv6().String())
	s.host.Run("nft", `
table ip docker {
	chain pre { type nat hook prerouting priority dstnat; iifname != "docker0" tcp dport 8080 dnat to 172.30.0.2:8080; iifname != "docker0" udp dport 8080 dnat to 172.30.0.2:8080; }
	chain out { type nat hook output priority -100; tcp dport 8080 dnat to 172.30.0.2:8080; }
	chain post { type nat hook postrouting priority srcnat; ip saddr 172.30.0.0/24 oifname != "docker0" masquerade; }
	chain passing { type filter hook forward priority filter; policy accept; }
}`).Is(t, 0)
	outside := s.host.AddNIC(s.lan, lab.Bare)
	s.host.IP("link add vmbr type bridge", "link set "+outside.Name+" master vmbr", "link set vmbr up")
	vm := s.host.Guest("vm", "vnet0", "10.9.1.200/24", "fd09:0:0:1::200/64")
	s.host.IP("link set vnet0 master vmbr")

	// Not even with those who may talk with the host itself.
	probes := append(lab.Talk(vm, s.attacker), lab.Talk(vm, s.mgmt)...)
	probes = append(probes,
		s.attacker.TCP(container, s.host.IPv4(), 8080), s.attacker.UDP(container, s.host.IPv4(), 8080),
		s.mgmt.TCP(container, s.host.IPv4(), 8080), container.TCP(s.mgmt, s.mgmt.IPv4(), 7), container.UDP(s.mgmt, s.mgmt.IPv4(), 7),
		container.Ping(s.attacker.IPv4()), container.TCP(s.attacker, s.attacker.IPv4(), 7), container.UDP(s.attacker, s.attacker.IPv4(), 7),
		container.Ping(s.attacker.IPv6()), container.TCP(s.attacker, s.attacker.IPv6(), 7), container.UDP(s.attacker, s.attacker.IPv6(), 7),
		s.attacker.TCP(container, netip.MustParseAddr("fd30::2"), 7), s.attacker.Ping(netip.MustParseAddr("fd30::2")))
	lab.Open(t, probes...)
	out := container.Stream(s.attacker, s.attacker.IPv4(), 9001)
	bridged := vm.Stream(s.attacker, s.attacker.IPv6(), 9002)
	lab.Flowing(t, out, bridged)
	s.isolate(t)
	lab.Blocked(t, probes...)
	lab.Stalled(t, out, bridged)
	lab.Open(t, s.friends()...)
	s.restore(t)
	lab.Open(t, probes...)
}

// TestAGatewayByItsNumber has routes that name their gateway as an object of the
// kernel, as routing daemons make them, and a kernel that does not spell it out.
func TestAGatewayByItsNumber(t *testing.T) {
	t.Parallel()
	s := stage(t)
	far := s.Switch()
	router := s.Router("router", s.lan, far)
	mgmt := far.Host("far-mgmt")
	mgmt.Via(router)
	s.host.Sysctl("net/ipv4/nexthop_compat_mode", "0")
	s.host.IP(
		fmt.Sprintf("nexthop add id 4 via %s dev eth0", router.IPv4()), "route add default nhid 4",
		fmt.Sprintf("nexthop add id 6 via %s dev eth0", router.IPv6()), "route add ::/0 nhid 6",
	)
	friends := lab.Talk(s.host, mgmt)
	lab.Open(t, friends...)
	s.isolate(t, allow(mgmt)...)
	for _, h := range []*lab.Host{s.host, router} {
		h.Run("ip", "neigh", "flush", "all").Is(t, 0)
	}
	lab.Open(t, friends...)
	s.restore(t)
}

// TestAGatewayThatCameLater is about a lease or a failover that brings another
// gateway while the host is isolated: it is told, and let in when that is asked.
func TestAGatewayThatCameLater(t *testing.T) {
	t.Parallel()
	s := stage(t)
	far := s.Switch()
	first, second := s.Router("first", s.lan, far), s.Router("second", s.lan, far)
	mgmt := far.Host("far-mgmt")
	s.host.Via(first)
	mgmt.Via(second)
	s.host.Run("ip", "route", "replace", "default", "via", first.IPv4().String()).Is(t, 0)
	s.isolate(t, allow(mgmt)...)
	s.host.Mobileops("network", "status").Is(t, 0)

	s.host.Run("ip", "route", "replace", "default", "via", second.IPv4().String()).Is(t, 0)
	probe := s.host.Ping(mgmt.IPv4())
	if told := s.host.Mobileops("network", "status").Is(t, 5).Stdout; !strings.Contains(told, "gateway "+second.IPv4().String()+" is new") {
		t.Errorf("network status says %q", told)
	}
	s.host.Mobileops("network", "reconcile").Is(t, 0)
	s.host.Mobileops("network", "status").Is(t, 0)
	lab.Open(t, probe)
	s.before = ""
	s.restore(t)
}
