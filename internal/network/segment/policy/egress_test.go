package policy

import (
	"context"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/mobileops/mobileops/internal/network/lab"
)

func TestEgressAndNAT(t *testing.T) {
	t.Parallel()
	const document = `
internal: [10.9.1.128/25]
zones:
  none: {subnets: [10.60.0.0/24, "fd00:60::/64"], nat: true}
  some:
    subnets: [10.61.0.0/24, "fd00:61::/64"]
    nat: eth0
    egress: [203.0.113.7:443/tcp, "[2001:db8:7::/48]:443/tcp", 203.0.113.128/25]
  net: {subnets: [10.62.0.0/24, "fd00:62::/64"], nat: true, egress: internet}
  bare: {subnets: [10.63.0.0/24, "fd00:63::/64"], egress: internet}
workloads:
  a: {zone: none, namespace: a}
  b: {zone: some, namespace: b}
  c: {zone: net, namespace: c}
  d: {zone: bare, namespace: d}
flows:
  - {from: workload=a, to: 203.0.113.9, port: 54/tcp}
  - {from: workload=a, to: internet, port: 444/tcp}
`
	l := arrange(t, document)
	s := build(t, l)
	a, b, c, d := s.machines["a"], s.machines["b"], s.machines["c"], s.machines["d"]
	addrs := []string{"203.0.113.7", "203.0.113.9", "203.0.113.200", "2001:db8:7::1", "2001:db8:9::1", "169.254.169.254", "192.168.7.7", "100.64.0.9", "fd77::1", "64:ff9b::c0a8:707", "64:ff9b::a09:1ff", "64:ff9b::cb00:7107"}
	for _, text := range addrs {
		addr := netip.MustParseAddr(text)
		s.outside.IP("addr add " + text + " dev lo")
		via := s.outside.IPv4()
		if addr.Is6() {
			via = s.outside.IPv6()
		}
		s.host.IP("route add " + text + " via " + via.String())
	}
	addr := func(i int) netip.Addr { return netip.MustParseAddr(addrs[i]) }
	out := s.outside
	var allowed, denied []*lab.Probe
	denied = append(denied, a.TCP(out, addr(0), 443), a.Ping(addr(3)), a.TCP(out, addr(1), 53), a.TCP(out, addr(5), 444), a.TCP(out, addr(8), 444))
	allowed = append(allowed, a.TCP(out, addr(1), 54), a.TCP(out, addr(0), 444), a.TCP(out, addr(4), 444))
	allowed = append(allowed, b.TCP(out, addr(0), 443), b.TCP(out, addr(3), 443), b.TCP(out, addr(2), 9), b.Ping(addr(2)))
	denied = append(denied, b.TCP(out, addr(0), 80), b.TCP(out, addr(0), 444), b.TCP(out, addr(1), 443), b.TCP(out, addr(4), 443), b.Ping(addr(3)), b.TCP(out, addr(5), 80))
	allowed = append(allowed, c.TCP(out, addr(0), 80), c.TCP(out, addr(4), 9), c.Ping(addr(1)), d.TCP(out, addr(0), 80), d.TCP(out, addr(3), 80), c.TCP(out, addr(11), 80))
	denied = append(denied, c.TCP(out, addr(5), 80), c.TCP(out, addr(6), 80), c.TCP(out, addr(7), 80), c.TCP(out, addr(8), 80), c.TCP(out, addr(9), 80), c.TCP(out, addr(10), 80), c.TCP(out, out.IPv4(), 80), c.TCP(out, out.IPv6(), 80),
		c.TCP(a, a.IPv4(), 80), c.TCP(b, b.IPv6(), 80), c.TCP(s.host, s.host.IPv4(), 80))
	lab.Open(t, slices.Concat(allowed, denied)...)
	s.apply(l)
	lab.Open(t, allowed...)
	lab.Blocked(t, denied...)

	// Who is it that comes?
	who := func(from *lab.Host, to netip.Addr) netip.Addr {
		t.Helper()
		listener := out.Listen("tcp", netip.AddrPortFrom(to, 4711).String())
		defer listener.Close()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		port := uint16(4711)
		conn, err := from.Dial(ctx, "tcp", netip.AddrPortFrom(to, port).String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		peer, err := listener.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer peer.Close()
		return netip.MustParseAddrPort(peer.RemoteAddr().String()).Addr()
	}
	for _, c := range []struct {
		from *lab.Host
		to   netip.Addr
		want netip.Addr
	}{{c, addr(0), s.host.IPv4()}, {c, addr(4), s.host.IPv6()}, {b, addr(2), s.host.IPv4()}, {d, addr(0), d.IPv4()}, {d, addr(3), d.IPv6()}} {
		if got := who(c.from, c.to); got != c.want {
			t.Errorf("%s to %s comes as %s, not %s", c.from.Name, c.to, got, c.want)
		}
	}
}
