package policy

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/network/lab"
	"github.com/mobileops/mobileops/internal/network/segment"
	"golang.org/x/sys/unix"
)

func TestZonesWithoutThisHost(t *testing.T) {
	t.Parallel()
	const document = `
zones:
  open: {}
  closed: {subnets: [10.61.0.0/24], gateways: none}
workloads:
  a: {zone: open, interface: pa}
  b: {zone: open, interface: pb}
  c: {zone: closed, namespace: c}
  d: {zone: closed, namespace: d}
flows:
  - {from: zone=open, to: zone=open}
`
	l := arrange(t, document)
	s := build(t, l)
	a, b, c, d := s.machines["a"], s.machines["b"], s.machines["c"], s.machines["d"]
	for i, h := range []*lab.Host{a, b} {
		h.NIC(0).IPv4 = netip.AddrFrom4([4]byte{10, 60, 0, byte(2 + i)})
		h.NIC(0).IPv6 = netip.MustParseAddr([]string{"fd00:60::2", "fd00:60::3"}[i])
		h.IP("addr add "+h.IPv4().String()+"/24 dev eth0", "addr add "+h.IPv6().String()+"/64 dev eth0 nodad")
	}
	tagged := a.NIC(0).Frames("tagged", b.NIC(0), lab.Raw{}, func(token []byte) []byte {
		return lab.VLAN(5, lab.Ethernet(b.NIC(0).MAC, a.NIC(0).MAC, unix.ETH_P_IP, lab.Datagram(netip.AddrPortFrom(a.IPv4(), 7), netip.AddrPortFrom(b.IPv4(), 9), token)))
	})
	allowed, denied := lab.Talk(a, b), append(lab.Talk(c, d), tagged)
	lab.Open(t, slices.Concat(allowed, denied)...)
	s.apply(l)
	lab.Open(t, allowed...)
	lab.Blocked(t, denied...)
	p, err := Compile(l)
	if err != nil {
		t.Fatal(err)
	}
	if d := p.Decide(Packet{From: Place{Zone: "open", Address: a.IPv4()}, To: Place{Zone: "open", Address: b.IPv4()}}); !d.Allowed {
		t.Errorf("open: %+v", d)
	}
	if d := p.Decide(Packet{From: Place{Zone: "closed", Address: c.IPv4()}, To: Place{Zone: "closed", Address: d.IPv4()}}); d.Allowed {
		t.Errorf("closed: %+v", d)
	}
}

func TestFlowsThatCannotBeEnforcedAreRefused(t *testing.T) {
	t.Parallel()
	l := arrange(t, `
zones:
  dev: {subnets: [10.60.0.0/24], gateways: none}
workloads:
  a: {zone: dev, namespace: a}
  b: {zone: dev, namespace: b}
flows:
  - {from: workload=a, to: workload=b, port: 80/tcp}
`)
	_, err := Compile(l)
	if failure.KindOf(err) != failure.Usage || !strings.Contains(err.Error(), "line 9") || !strings.Contains(err.Error(), "gateways") {
		t.Errorf("error: %v", err)
	}
}

func TestIsolatedPorts(t *testing.T) {
	t.Parallel()
	l := arrange(t, `
zones:
  dev: {subnets: [10.60.0.0/24, "fd00:60::/64"], isolate_ports: true}
  test: {subnets: [10.61.0.0/24, "fd00:61::/64"]}
workloads:
  a: {zone: dev, namespace: a}
  b: {zone: dev, namespace: b}
  c: {zone: test, namespace: c}
flows:
  - {from: zone=dev, to: zone=test, port: 80/tcp}
`)
	s := build(t, l)
	a, b, c := s.machines["a"], s.machines["b"], s.machines["c"]
	// By a route through the gateway, isolated ports reach each other.
	for _, pair := range [][2]*lab.Host{{a, b}, {b, a}} {
		// Without our rules the gateway tells them a shorter way, which is none.
		pair[0].Sysctl("net/ipv6/conf/eth0/accept_redirects", "0")
		pair[0].Sysctl("net/ipv4/conf/eth0/accept_redirects", "0")
		pair[0].IP("route add "+pair[1].IPv4().String()+" via 10.60.0.1 dev eth0", "route add "+pair[1].IPv6().String()+" via fd00:60::1 dev eth0")
	}
	denied := lab.Talk(a, b)
	allowed := []*lab.Probe{a.TCP(c, c.IPv4(), 80), b.TCP(c, c.IPv6(), 80)}
	lab.Open(t, slices.Concat(allowed, denied)...)
	s.apply(l)
	lab.Open(t, allowed...)
	lab.Blocked(t, denied...)
}

// TestZoneOnTwoHosts carries a zone by VXLAN; each host routes for its own
// workloads.
func TestZoneOnTwoHosts(t *testing.T) {
	t.Parallel()
	parse := func(remote, gateways, workloads string) *segment.Layout {
		return arrange(t, `
zones:
  far: {subnets: [10.60.0.0/24, "fd00:60::/64"], gateways: `+gateways+`, vxlan: {id: 100, remotes: [`+remote+`]}}
workloads:
`+workloads+`
flows:
  - {from: zone=far, to: zone=far, port: 80/tcp}
`)
	}
	one := parse("10.9.1.3", `[10.60.0.1, "fd00:60::1"]`, `  a: {zone: far, namespace: a, addresses: [10.60.0.10, "fd00:60::10"]}`)
	two := parse("10.9.1.1", `[10.60.0.2, "fd00:60::2"]`, `  b: {zone: far, namespace: b, addresses: [10.60.0.20, "fd00:60::20"]}`)
	two.Zones[0].MAC[5]++
	s := build(t, one)
	h := s.second(two)
	s.host.IP("link add "+one.Zones[0].Uplink+" type vxlan id 100 dstport 4789 remote "+h.host.IPv4().String()+" local "+s.host.IPv4().String(), "link set "+one.Zones[0].Uplink+" master "+one.Zones[0].Bridge+" up")
	h.host.IP("link add "+two.Zones[0].Uplink+" type vxlan id 100 dstport 4789 remote "+s.host.IPv4().String()+" local "+h.host.IPv4().String(), "link set "+two.Zones[0].Uplink+" master "+two.Zones[0].Bridge+" up")
	a, b := s.machines["a"], h.machines["b"]
	allowed := []*lab.Probe{a.TCP(b, b.IPv4(), 80), a.TCP(b, b.IPv6(), 80), b.TCP(a, a.IPv4(), 80), b.TCP(a, a.IPv6(), 80)}
	denied := slices.Concat(pass(a, b, 81), pings(b, a))
	// From the other host, somebody says that he is a workload of this one.
	forged := b.NIC(0).Frames("forged", a.NIC(0), lab.Raw{}, func(token []byte) []byte {
		return lab.Ethernet(a.NIC(0).MAC, b.NIC(0).MAC, unix.ETH_P_IP, lab.Datagram(netip.MustParseAddrPort("10.60.0.1:9"), netip.AddrPortFrom(a.IPv4(), 80), token))
	})
	lab.Open(t, slices.Concat(allowed, denied)...)
	lab.Open(t, forged)
	s.apply(one)
	lab.Blocked(t, forged)
	h.apply(two)
	lab.Open(t, allowed...)
	lab.Blocked(t, denied...)
}

func TestRulesOfOthersStayAsTheyAre(t *testing.T) {
	t.Parallel()
	needs(t, "nft", "iptables-nft", "ip6tables-nft")
	l := arrange(t, office+"  - {from: app=web, to: app=db, port: 5432/tcp}\n")
	s := build(t, l)
	for _, line := range []string{
		"iptables-nft -N DOCKER", "iptables-nft -A FORWARD -o docker0 -j DOCKER", "iptables-nft -A DOCKER -d 172.17.0.2/32 ! -i docker0 -o docker0 -p tcp -m tcp --dport 80 -j ACCEPT",
		"iptables-nft -t nat -A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE", "ip6tables-nft -A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
		"nft add table inet mine", "nft add chain inet mine fwd_a { type filter hook forward priority 0 ; }", "nft add rule inet mine fwd_a counter",
	} {
		words := strings.Fields(line)
		s.host.Run(words[0], words[1:]...).Is(t, 0)
	}
	foreign := func() string {
		t.Helper()
		var list []string
		for _, table := range strings.Split(s.nft("-s", "list", "ruleset"), "\ntable ") {
			if !strings.Contains(strings.SplitN(table, "\n", 2)[0], tableName) {
				list = append(list, strings.TrimPrefix(strings.TrimSpace(table), "table "))
			}
		}
		return strings.Join(list, "\n")
	}
	before := foreign()
	s.apply(l)
	if after := foreign(); after != before {
		t.Errorf("after apply:\n%s\nbefore:\n%s", after, before)
	}
	web, db := s.machines["web"], s.machines["db"]
	lab.Open(t, web.TCP(db, db.IPv4(), 5432))
	s.apply(l)
	if err := s.host.Do(func() error { return Firewall{}.Remove(t.Context()) }); err != nil {
		t.Fatal(err)
	}
	if after := foreign(); after != before || strings.Contains(s.nft("list", "tables"), tableName) {
		t.Errorf("after removal:\n%s\nbefore:\n%s", after, before)
	}
}
