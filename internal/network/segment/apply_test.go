package segment

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/network/lab"
)

const devZone = `dev: {subnets: [10.60.0.0/24, fd00:60::/64], egress: internet, nat: true}`

func TestApplyConnectsAndRemovesExactly(t *testing.T) {
	l := lab.New(t)
	lan := l.Switch()
	m := newMachine(t, lan.Host("host"))
	peer := lan.Host("peer")
	m.IP("route add default via "+peer.IPv4().String(), "route add default via "+peer.IPv6().String())
	m.Sysctl("net/ipv4/ip_forward", "0") // a new namespace has that of the machine
	web, db := l.Host("web"), l.Host("db")
	before, inside := everythingOf(t, m.Host), everythingOf(t, web)

	doc := parse(t, "lab", workloads(devZone, web, db))
	if list := m.apply(doc); !slices.Contains(list, "+ bridge mo-dev for the zone dev, mtu 1500") {
		t.Errorf("the changes are\n%s", strings.Join(list, "\n"))
	}
	for _, h := range []*lab.Host{web, db} {
		ping(t, h, "10.60.0.1")
		ping(t, h, "fd00:60::1")
	}
	ping(t, web, "10.60.0.3")
	ping(t, db, "fd00:60::2")

	// What leaves comes back: forwarding is on where it is needed, and there alone.
	peer.IP("route add 10.60.0.0/24 via "+m.IPv4().String(), "route add fd00:60::/64 via "+m.IPv6().String())
	ping(t, web, peer.IPv4().String())
	ping(t, web, peer.IPv6().String())
	if got := m.sh("cat /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv6/conf/all/forwarding"); got != "0\n0\n" {
		t.Errorf("the whole host forwards: %q", got)
	}
	if got := m.sh("ip -o -6 addr show dev mo-p-web; ip -o -6 addr show dev mo-p-db"); got != "" {
		t.Errorf("ports have addresses: %s", got)
	}

	m.apply()
	same(t, "host", before, everythingOf(t, m.Host))
	same(t, "web", inside, everythingOf(t, web))
}

func TestApplyAgainSendsNothing(t *testing.T) {
	l := lab.New(t)
	lan := l.Switch()
	m := newMachine(t, lan.Host("host"))
	web := l.Host("web")
	m.IP("tuntap add tap7 mode tap", "route add default dev eth0")
	doc := parse(t, "lab", workloads(devZone, web)+`
  vm: {zone: dev, tap: true, addresses: [10.60.0.9], mac: "52:54:00:00:00:09"}
  old: {zone: dev, interface: tap7}
`)
	m.apply(doc)
	// What the kernel says by itself a moment later is nothing that was sent.
	for deadline := time.Now().Add(time.Minute); sh(t, m.Host, "ip -6 -o addr show tentative")+sh(t, web, "ip -6 -o addr show tentative") != ""; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("addresses stay tentative")
		}
	}

	var seen []string
	for _, h := range []*lab.Host{m.Host, web} {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		monitor := h.Command(ctx, "ip", "-o", "monitor", "all")
		out, err := monitor.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := monitor.Start(); err != nil {
			t.Fatal(err)
		}
		lines := make(chan string, 1000)
		go func() {
			defer close(lines)
			buf := make([]byte, 1<<16)
			for {
				n, err := out.Read(buf)
				if err != nil {
					return
				}
				lines <- string(buf[:n])
			}
		}()
		// The mark is repeated until the monitor, which may still be starting,
		// sees it.
		mark := func(address string) (before string) {
			for deadline := time.Now().Add(2 * time.Minute); time.Now().Before(deadline); {
				h.IP("addr add "+address+"/32 dev lo", "addr del "+address+"/32 dev lo")
				for {
					select {
					case s := <-lines:
						before += s
						if strings.Contains(before, "Deleted") && strings.Contains(before, address) {
							return before
						}
						continue
					case <-time.After(100 * time.Millisecond):
					}
					break
				}
			}
			t.Fatalf("%s: the monitor has not seen the mark", h.Name)
			return ""
		}
		mark("192.0.2.1")
		for len(lines) > 0 {
			<-lines
		}
		if list := m.apply(doc); len(list) != 0 {
			t.Errorf("the second apply changed\n%s", strings.Join(list, "\n"))
		}
		for line := range strings.Lines(mark("192.0.2.2")) {
			if !strings.Contains(line, "192.0.2.") && !strings.Contains(line, "NEIGH") {
				seen = append(seen, h.Name+": "+line)
			}
		}
		cancel()
		monitor.Wait()
	}
	for _, s := range seen {
		t.Errorf("the second apply was seen: %s", s)
	}
}

func TestForeignInterfaceSurvives(t *testing.T) {
	l := lab.New(t)
	m := newMachine(t, l.Host("host"))
	web := l.Host("web")
	doc := parse(t, "lab", workloads(devZone, web))
	for _, name := range []string{"mo-dev", "mo-p-web"} {
		m.IP("link add " + name + " type bridge")
		before := everythingOf(t, m.Host)
		if _, err := m.tryApply(Request{Put: []*Document{doc}}); failure.KindOf(err) != failure.Busy || !strings.Contains(err.Error(), name) {
			t.Errorf("apply with a foreign %s: %v", name, err)
		}
		same(t, "host", before, everythingOf(t, m.Host))
		m.IP("link del " + name)
	}
	// One that took the place of ours is not taken away either.
	m.apply(doc)
	m.IP("link del mo-dev", "link add mo-dev type bridge")
	if _, err := m.tryApply(Request{Put: []*Document{doc}}); failure.KindOf(err) != failure.Busy {
		t.Errorf("apply over a foreign bridge: %v", err)
	}
	m.apply()
	if got := m.sh("ip -br link show type bridge"); !strings.HasPrefix(got, "mo-dev ") {
		t.Errorf("the foreign bridge is gone: %q", got)
	}
	if got := m.sh("ip -br link show type veth"); got != "" {
		t.Errorf("left: %q", got)
	}
}

func TestDriftIsShownAndRepaired(t *testing.T) {
	l := lab.New(t)
	m := newMachine(t, l.Host("host"))
	web := l.Host("web")
	doc := parse(t, "lab", workloads(`dev: {subnets: [10.60.0.0/24, fd00:60::/64], isolate_ports: true}`, web))
	m.apply(doc)
	for _, tc := range []struct {
		host   *lab.Host
		damage string
		drift  string
	}{
		{m.Host, "ip addr del 10.60.0.1/24 dev mo-dev", "+ address 10.60.0.1/24 on mo-dev"},
		{m.Host, "ip link set mo-dev down", "~ mo-dev up"},
		{m.Host, "ip link set mo-p-web nomaster", "+ mo-p-web as a port of mo-dev"},
		{m.Host, "bridge link set dev mo-p-web isolated off hairpin on", "~ options of the port mo-p-web: isolated false, hairpin true, learning true, guard false -> isolated true, hairpin false, learning true, guard false"},
		{m.Host, "ip link set mo-dev type bridge stp_state 1", "~ options of the bridge mo-dev: stp 1, vlan_filtering false, mcast_snooping false, group_fwd_mask 0x0, linklocal_learn false -> stp 0, vlan_filtering false, mcast_snooping false, group_fwd_mask 0x0, linklocal_learn false"},
		{m.Host, "ip link set mo-p-web mtu 1400", "~ mtu of mo-p-web: 1400 -> 1500"},
		{m.Host, "ip link del mo-p-web", "+ port mo-p-web of mo-dev for the workload web, its eth0 is in the namespace " + web.NetNS()},
		{m.Host, "ip link del mo-dev", "+ bridge mo-dev for the zone dev, mtu 1500"},
		{m.Host, "echo 1 > /proc/sys/net/ipv4/conf/mo-dev/proxy_arp", "~ net/ipv4/conf/mo-dev/proxy_arp: 1 -> 0"},
		{web, "ip addr add 10.60.0.77/24 dev eth0", "- address 10.60.0.77/24 of eth0 of web"},
		{web, "ip addr del 10.60.0.2/24 dev eth0", "+ address 10.60.0.2/24 on eth0 of web"},
		{web, "ip route del default", "+ default route of web by 10.60.0.1"},
		{web, "ip link del eth0", "+ port mo-p-web of mo-dev for the workload web, its eth0 is in the namespace " + web.NetNS()},
	} {
		sh(t, tc.host, tc.damage)
		list, err := m.plan(Request{})
		if err != nil || !slices.Contains(list, tc.drift) {
			t.Errorf("%s: drift is %v\n%s\nwant\n%s", tc.damage, err, strings.Join(list, "\n"), tc.drift)
		}
		if err := m.Do(func() error { _, err := m.Reconcile(context.Background()); return err }); err != nil {
			t.Errorf("%s: %v", tc.damage, err)
		}
		if list, err := m.plan(Request{}); err != nil || len(list) > 0 {
			t.Errorf("%s: not repaired: %v %v", tc.damage, list, err)
		}
		ping(t, web, "10.60.0.1")
		ping(t, web, "fd00:60::1")
	}
}

func TestMissingKernelFeatureIsNamedFirst(t *testing.T) {
	l := lab.New(t)
	m := newMachine(t, l.Switch().Host("host"))
	if err := m.Do(func() error { return missingKind([]string{"vlan"}) }); err == nil {
		t.Skip("NOT RUN: this kernel has 8021q")
	}
	before := everythingOf(t, m.Host)
	doc := parse(t, "lab", "version: 1\nzones:\n  dev: {subnets: [10.60.0.0/24]}\n  prod: {vlan: {id: 20, parent: eth0}}\n")
	_, err := m.tryApply(Request{Put: []*Document{doc}})
	if failure.KindOf(err) != failure.NotReady || !strings.Contains(err.Error(), "kernel feature 8021q (CONFIG_VLAN_8021Q)") {
		t.Errorf("apply: %v", err)
	}
	same(t, "host", before, everythingOf(t, m.Host))
	for kind, feature := range features {
		if err := m.Do(func() error { return missingKind([]string{kind}) }); kind != "vlan" && err != nil {
			t.Errorf("%s: %v", feature, err)
		}
	}
	if err := m.Do(func() error { return missingKind([]string{"nonsense"}) }); failure.KindOf(err) != failure.NotReady {
		t.Errorf("a kind that no kernel has: %v", err)
	}
}

func TestFailureInTheMiddleIsRolledBack(t *testing.T) {
	l := lab.New(t)
	m := newMachine(t, l.Switch().Host("host"))
	web, db := l.Host("web"), l.Host("db")
	first := parse(t, "lab", workloads(devZone, web))
	second := parse(t, "lab", workloads(`dev: {subnets: [10.61.0.0/24], isolate_ports: true, mtu: 1400}`, web, db))
	untouched := everythingOf(t, m.Host)
	steps := 0
	for _, before := range []*Document{nil, first} {
		if before != nil {
			m.apply(before)
		}
		state := everythingOf(t, m.Host)
		for n := 0; ; n++ {
			ctx, cancel := context.WithCancel(t.Context())
			count := 0
			m.Engine.before = func(Change) {
				if count == n {
					cancel()
				}
				count++
			}
			err := m.Do(func() error {
				_, err := m.Engine.Apply(ctx, Request{Put: []*Document{second}, Only: true})
				return err
			})
			m.Engine.before = nil
			cancel()
			if err == nil {
				break
			}
			steps++
			if !errors.Is(err, context.Canceled) || failure.KindOf(err) != failure.Interrupted || !strings.Contains(err.Error(), "as it was before") {
				t.Fatalf("step %d: %v", n, err)
			}
			if now := everythingOf(t, m.Host); before == nil {
				same(t, "host", state, now)
			}
			if list, err := m.plan(Request{}); err != nil || len(list) > 0 {
				t.Fatalf("step %d: left: %v %v", n, list, err)
			}
			if t.Failed() {
				t.Fatalf("step %d", n)
			}
		}
		ping(t, db, "10.61.0.1")
		m.apply()
		same(t, "host", untouched, everythingOf(t, m.Host))
	}
	if steps < 60 {
		t.Errorf("only %d steps were tried", steps)
	}
}

// TestAWorkloadMoves from one zone to another, which have the same devices
// before and after.
func TestAWorkloadMoves(t *testing.T) {
	l := lab.New(t)
	m := newMachine(t, l.Host("host"))
	web := l.Host("web")
	before := everythingOf(t, m.Host)
	text := "version: 1\nzones:\n  dev: {subnets: [10.60.0.0/24, fd00:60::/64]}\n  prod: {subnets: [10.61.0.0/24, fd00:61::/64], isolate_ports: true, mtu: 1400}\nworkloads:\n  web: {zone: %, namespace: " + web.NetNS() + "}\n"
	for _, zone := range []string{"dev", "prod", "dev"} {
		doc := parse(t, "lab", strings.ReplaceAll(text, "%", zone))
		m.apply(doc)
		subnet := map[string]string{"dev": "60", "prod": "61"}[zone]
		ping(t, web, "10."+subnet+".0.1")
		ping(t, web, "fd00:"+subnet+"::1")
		if got := sh(t, web, "ip -o addr show dev eth0 scope global | wc -l; ip route show default | wc -l; ip -6 route show default | wc -l"); got != "2\n1\n1\n" {
			t.Errorf("in %s: %q: %s", zone, got, sh(t, web, "ip addr; ip route; ip -6 route"))
		}
		if list := m.apply(doc); len(list) > 0 {
			t.Errorf("in %s the second apply changed %q", zone, list)
		}
	}
	m.apply()
	same(t, "host", before, everythingOf(t, m.Host))
}

// TestANamespaceInWhichIPv6IsOff is what container runtimes leave.
func TestANamespaceInWhichIPv6IsOff(t *testing.T) {
	l := lab.New(t)
	m := newMachine(t, l.Host("host"))
	web := l.Host("web")
	web.Sysctl("net/ipv6/conf/all/disable_ipv6", "1")
	web.Sysctl("net/ipv6/conf/default/disable_ipv6", "1")
	doc := parse(t, "lab", workloads(devZone, web))
	m.apply(doc)
	ping(t, web, "fd00:60::1")
	ping(t, web, "10.60.0.1")
	sh(t, web, "echo 1 > /proc/sys/net/ipv6/conf/eth0/disable_ipv6")
	m.apply(doc)
	ping(t, web, "fd00:60::1")
	if list := m.apply(doc); len(list) > 0 {
		t.Errorf("the third apply changed %q", list)
	}
}
