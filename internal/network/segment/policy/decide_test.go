package policy

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/mobileops/mobileops/internal/network/lab"
	"github.com/mobileops/mobileops/internal/network/segment"
)

// plain are zones and workloads for which flows are made at random.
const plain = `
zones:
  dev: {subnets: [10.60.0.0/24, "fd00:60::/64"], egress: EGRESS}
  test: {subnets: [10.61.0.0/24, "fd00:61::/64"], egress: EGRESS}
workloads:
  a: {zone: dev, namespace: a, labels: {app: x, tier: one}}
  b: {zone: dev, namespace: b, labels: {app: y, tier: one}}
  c: {zone: test, namespace: c, labels: {app: x}}
  d: {zone: test, namespace: d, labels: {app: y}}
flows:
`

// TestDecisionsAreThoseOfTheKernel makes flows at random, and holds what Decide
// says against what real packets do.
func TestDecisionsAreThoseOfTheKernel(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	random := rand.New(rand.NewPCG(seed, 0))
	t.Logf("seed %d", seed)
	pick := func(list ...string) string { return list[random.IntN(len(list))] }
	selector := func() string {
		return pick("app=x", "app=y", "zone=dev", "zone=test", "workload=a", "workload=c", "zone=dev,tier=one", "zone=test,app=y", "tier=one")
	}
	other := func() string {
		return pick("host", "internet", "203.0.113.7", "2001:db8::7", "0.0.0.0/0", "10.9.1.0/24", "10.60.0.0/30", "fd00:61::/64", selector(), selector(), selector(), selector())
	}
	document := func() string {
		text := plain
		for range 2 {
			text = strings.Replace(text, "EGRESS", pick("none", "internet", "[203.0.113.0/24:80/tcp]", `["2001:db8::/32"]`, "[203.0.113.7:icmp, 10.9.1.2]"), 1)
		}
		same := ""
		if random.IntN(2) == 0 {
			same = selector() // with so many flows that they are found by maps
		}
		for i := range 1 + random.IntN(6) + 2*fewFlows*min(1, len(same)) {
			from, to := selector(), other()
			if same != "" && i > 3 {
				text += fmt.Sprintf("  - {from: %q, to: %q, port: [%s]}\n", same, selector(), pick("80/tcp", "81/tcp, 80/udp", "81/udp", "9/tcp", "80-81/udp"))
				continue
			}
			if random.IntN(3) == 0 {
				from, to = to, from
			}
			text += fmt.Sprintf("  - {from: %q, to: %q%s}\n", from, to, pick("", ", port: 80/tcp", ", port: [80/udp, 81/tcp]", ", port: icmp", ", port: 79-81/tcp", ", port: udp"))
		}
		return text
	}
	s := build(t, arrange(t, document()))
	for _, a := range []string{"203.0.113.7/32", "2001:db8::7/128"} {
		s.outside.IP("addr add " + a + " dev lo")
		via := s.outside.IPv4()
		if strings.Contains(a, ":") {
			via = s.outside.IPv6()
		}
		s.host.IP("route add " + a + " via " + via.String())
	}
	type probe struct {
		*lab.Probe
		q Packet
	}
	var probes []probe
	p, err := Compile(s.layout)
	if err != nil {
		t.Fatal(err)
	}
	place := func(h *lab.Host, a netip.Addr) Place {
		if h == s.host {
			return Place{Host: true, Address: a}
		}
		return p.Locate(a)
	}
	add := func(from, to *lab.Host, src, dst netip.Addr, udp bool) {
		for _, port := range []uint16{80, 81} {
			tcp := segment.Traffic{Protocol: segment.ProtocolTCP, First: port, Last: port}
			probes = append(probes, probe{from.TCP(to, dst, port), Packet{place(from, src), place(to, dst), tcp}})
			if udp {
				tcp.Protocol = segment.ProtocolUDP
				probes = append(probes, probe{from.UDP(to, dst, port), Packet{place(from, src), place(to, dst), tcp}})
			}
		}
		probes = append(probes, probe{from.Ping(dst), Packet{place(from, src), place(to, dst), segment.Traffic{Protocol: segment.ProtocolICMP}}})
	}
	for _, from := range s.machines {
		for _, to := range s.machines {
			if from != to {
				add(from, to, from.IPv4(), to.IPv4(), true)
				add(from, to, from.IPv6(), to.IPv6(), true)
			}
		}
		z := p.zone(p.Locate(from.IPv4()).Zone)
		for _, own := range []netip.Addr{from.IPv4(), from.IPv6()} {
			for _, g := range z.gateways {
				if g.Is4() == own.Is4() {
					add(from, s.host, own, g, true)
					add(s.host, from, g, own, true)
				}
			}
			for _, a := range []netip.Addr{s.outside.IPv4(), s.outside.IPv6(), netip.MustParseAddr("203.0.113.7"), netip.MustParseAddr("2001:db8::7")} {
				if a.Is4() == own.Is4() {
					add(from, s.outside, own, a, a == s.outside.IPv4() || a == s.outside.IPv6())
				}
			}
		}
		add(s.outside, from, s.outside.IPv4(), from.IPv4(), true)
		add(s.outside, from, s.outside.IPv6(), from.IPv6(), true)
	}
	all := make([]*lab.Probe, len(probes))
	for i := range probes {
		all[i] = probes[i].Probe
	}
	lab.Open(t, all...)
	const documents = 5
	for n := range documents {
		text := document()
		if n == 0 {
			text = plain[:strings.Index(plain, "flows:")]
			text = strings.ReplaceAll(text, "EGRESS", "none")
		}
		// Kernels whose bridges filter by the rules of IP do the same.
		filter := pick("0", "1")
		if err := s.host.Do(func() error { return setSwitch("net/bridge/bridge-nf-call-iptables", filter) }); err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		l := arrange(t, text)
		s.apply(l)
		if p, err = Compile(l); err != nil {
			t.Fatal(err)
		}
		var allowed, denied []*lab.Probe
		why := map[*lab.Probe]Decision{}
		for i := range probes {
			d := p.Decide(probes[i].q)
			why[all[i]] = d
			if d.Allowed {
				allowed = append(allowed, all[i])
			} else {
				denied = append(denied, all[i])
			}
		}
		t.Logf("document %d: %d of %d allowed", n, len(allowed), len(probes))
		lab.Open(t, allowed...)
		lab.Blocked(t, denied...)
		if t.Failed() {
			t.Fatalf("%s", text)
		}
	}
}

func TestAnswersNameTheLine(t *testing.T) {
	t.Parallel()
	l := arrange(t, office+`  - {from: app=web, to: app=db, port: 5432/tcp}
  - {from: zone=test, to: internet, port: 443/tcp}
`)
	p, err := Compile(l)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		from, to string
		allowed  bool
		line     int
		rule     string
	}{
		{"web", "db:5432", true, 14, "the flow app=web -> app=db 5432/tcp"},
		{"app=web", "10.60.0.3:5432", true, 14, "the flow"},
		{"db", "web:5432", false, 0, "default deny"},
		{"web", "db:5432/udp", false, 0, "default deny"},
		{"web", "db:icmp", false, 0, "default deny"},
		{"test", "internet:443", true, 15, ""},
		{"job", "8.8.8.8:443", true, 15, ""},
		{"job", "10.9.9.9:443", false, 0, "default deny"},
		{"web", "internet:443", false, 0, "default deny"},
		{"web", "host:icmp", true, 0, "echo for zone dev"},
		{"host", "web:22", false, 0, "default deny"},
		{"internet", "web:80", false, 0, "default deny"},
		{"zone=dev", "job:80", false, 0, "default deny"},
	} {
		name, traffic, err := ParseTarget(c.to)
		if err != nil {
			t.Error(err)
			continue
		}
		list, err := p.Ask(c.from, name, traffic)
		if err != nil {
			t.Errorf("%s to %s: %v", c.from, c.to, err)
		}
		for _, a := range list {
			// Two addresses of one question can only be of one family.
			if d := a.Decision; d.Allowed != c.allowed || d.Line != c.line || !strings.Contains(d.Rule, c.rule) {
				t.Errorf("%s to %s: %+v", c.from, c.to, d)
			}
		}
	}
	for _, bad := range []string{"db", "db:", "db:x", "db:0", "db:80-90/tcp", "db:any", "fd00::1:80", "[fd00::1]80", "[fd00::1", "db:99999"} {
		if _, _, err := ParseTarget(bad); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
	if _, err := p.Ask("wbe", "db", segment.Traffic{Protocol: segment.ProtocolICMP}); err == nil || !strings.Contains(err.Error(), `did you mean "web"?`) {
		t.Errorf("error: %v", err)
	}
}
