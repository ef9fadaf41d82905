package segment

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/network/lab"
)

func TestVXLANCarriesAZoneBetweenHosts(t *testing.T) {
	for _, tc := range []struct{ name, family, vxlan string }{
		{"remotes of IPv4", "4", "{id: 100, remotes: [REMOTE]}"},
		{"remotes of IPv6", "6", "{id: 100, remotes: [REMOTE], local: LOCAL}"},
		{"remotes of IPv6 without a source", "6", "{id: 100, remotes: [REMOTE]}"},
		{"a group", "4", "{id: 100, group: 239.1.1.1, device: eth0, port: 8472}"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			l := lab.New(t)
			lan := l.Switch()
			a, b := newMachine(t, lan.Host("a")), newMachine(t, lan.Host("b"))
			far := []string{a.IPv4().String(), b.IPv4().String()}
			mtu := 1450
			if tc.family == "6" {
				far, mtu = []string{a.IPv6().String(), b.IPv6().String()}, 1430
			}
			var guests []*lab.Host
			var before []string
			for i, m := range []*machine{a, b} {
				guest := l.Host(fmt.Sprintf("guest%d", i+1))
				guests = append(guests, guest)
				before = append(before, everythingOf(t, m.Host))
				vxlan := strings.NewReplacer("REMOTE", far[1-i], "LOCAL", far[i]).Replace(tc.vxlan)
				m.apply(parse(t, "lab", fmt.Sprintf(`
version: 1
zones:
  dev: {subnets: [10.60.0.0/24], gateways: [10.60.0.%d], vxlan: %s}
workloads:
  guest%d: {zone: dev, namespace: %s, addresses: [10.60.0.1%d]}
`, i+1, vxlan, i+1, guest.NetNS(), i+1)))
				if got := m.sh("ip link show mo-dev; ip link show mo-vx100"); strings.Count(got, fmt.Sprintf("mtu %d ", mtu)) != 2 {
					t.Errorf("the mtu should be %d: %s", mtu, got)
				}
				if list := m.apply(m.documents()...); len(list) > 0 {
					t.Errorf("the second apply changed %q", list)
				}
			}
			ping(t, guests[0], "10.60.0.12")
			lab.Open(t, guests[0].TCP(guests[1], netip.MustParseAddr("10.60.0.12"), lab.EchoPort))
			// The largest packet fits, and one more byte does not.
			sh(t, guests[0], fmt.Sprintf("ping -c 1 -w 5 -M do -s %d 10.60.0.12", mtu-28))
			if r := guests[0].Run("ping", "-c", "1", "-w", "1", "-M", "do", "-s", fmt.Sprint(mtu-27), "10.60.0.12"); r.Status == 0 {
				t.Error("a packet larger than the mtu has passed")
			}
			for i, m := range []*machine{a, b} {
				m.apply()
				same(t, m.Host.Name, before[i], everythingOf(t, m.Host))
			}
		})
	}
}

func TestRemotesOfATunnelFollowTheDocument(t *testing.T) {
	l := lab.New(t)
	m := newMachine(t, l.Switch().Host("host"))
	zone := "version: 1\nzones:\n  dev: {vxlan: {id: 5, remotes: [%s]}}\n"
	m.apply(parse(t, "lab", fmt.Sprintf(zone, "192.0.2.1, 192.0.2.2")))
	list := m.apply(parse(t, "lab", fmt.Sprintf(zone, "192.0.2.2, 192.0.2.3")))
	if got := strings.Join(list, "\n"); got != "- remote 192.0.2.1 of mo-vx5\n+ remote 192.0.2.3 of mo-vx5" {
		t.Errorf("the changes are\n%s", got)
	}
	if got := m.sh("bridge fdb show dev mo-vx5"); strings.Contains(got, "192.0.2.1 ") || !strings.Contains(got, "192.0.2.3") {
		t.Errorf("the entries are %s", got)
	}
	// Another identifier needs another tunnel; the same name of a zone keeps its bridge.
	list = m.apply(parse(t, "lab", "version: 1\nzones:\n  dev: {vxlan: {id: 5, port: 8472, remotes: [192.0.2.2]}}\n"))
	if got := strings.Join(list, "\n"); got != "- VXLAN mo-vx5\n+ VXLAN 5 as mo-vx5, UDP port 8472\n+ remote 192.0.2.2 of mo-vx5" {
		t.Errorf("the changes are\n%s", got)
	}
}

func TestWhatIsInTheWayIsRefused(t *testing.T) {
	l := lab.New(t)
	m := newMachine(t, l.Switch().Host("host"))
	m.IP("route add 10.0.0.0/8 dev eth0", "tuntap add tap7 mode tap", "link add br0 type bridge", "link set tap7 master br0", "tuntap add tap8 mode tap", "addr add 192.0.2.1/24 dev tap8")
	shared := newMachine(t, l.Host("shared"))
	for _, tc := range []struct {
		zone, workload string
		kind           failure.Kind
		text           string
	}{
		{"{subnets: [10.60.0.0/24]}", "", failure.Busy, "overlaps with the route to 10.0.0.0/8 by eth0"},
		{"{subnets: [fd09::/32]}", "", failure.Busy, "overlaps with the address fd09:0:0:1::1/64 of eth0"},
		{"", "{zone: dev, interface: tap7}", failure.Busy, "tap7 belongs to br0 already"},
		{"", "{zone: dev, interface: br0}", failure.Usage, "br0 is a bridge"},
		{"", "{zone: dev, interface: tap8}", failure.Busy, "tap8 has the address 192.0.2.1/24"},
		{"", "{zone: dev, tap: true, owner: nobody-here}", failure.NotReady, `no user "nobody-here"`},
		{"", "{zone: dev, namespace: /etc/passwd}", failure.Usage, "/etc/passwd is no network namespace"},
		{"", "{zone: dev, namespace: " + m.NetNS() + "}", failure.Usage, "has the network of this host"},
	} {
		before := everythingOf(t, m.Host)
		text := "version: 1\nzones:\n  dev: " + tc.zone + "\n"
		if tc.workload != "" {
			text += "workloads:\n  web: " + tc.workload + "\n"
		}
		_, err := m.tryApply(Request{Put: []*Document{parse(t, "lab", text)}})
		if failure.KindOf(err) != tc.kind || !strings.Contains(fmt.Sprint(err), tc.text) {
			t.Errorf("%s%s: %v", tc.zone, tc.workload, err)
		}
		same(t, "host", before, everythingOf(t, m.Host))
	}
	// State that speaks of another namespace is not taken for this one's.
	m.apply(parse(t, "lab", "version: 1\nzones:\n  dev:\n"))
	shared.Store = m.Store
	if _, err := shared.tryApply(Request{}); failure.KindOf(err) != failure.Busy {
		t.Errorf("an apply with the state of another namespace: %v", err)
	}
}

func TestWorkloadThatIsNotThereYet(t *testing.T) {
	l := lab.New(t)
	m := newMachine(t, l.Host("host"))
	doc := parse(t, "lab", "version: 1\nzones:\n  dev: {subnets: [10.60.0.0/24]}\nworkloads:\n  a: {zone: dev, namespace: mobileops-nowhere}\n  b: {zone: dev, interface: tap9}\n")
	list := m.apply(doc)
	for _, want := range []string{"a: the network namespace mobileops-nowhere: it is not there yet", "b: the interface tap9: it is not there yet", "+ bridge mo-dev for the zone dev, mtu 1500"} {
		if !strings.Contains(strings.Join(list, "\n"), want) {
			t.Errorf("not said: %q in %q", want, list)
		}
	}
	m.IP("tuntap add tap9 mode tap")
	before := everythingOf(t, m.Host)
	if list := m.apply(doc); !strings.Contains(strings.Join(list, "\n"), "+ tap9 as a port of mo-dev") {
		t.Errorf("the changes are %q", list)
	}
	if list := m.apply(parse(t, "lab", "version: 1\nzones:\n  dev: {subnets: [10.60.0.0/24]}\n")); !strings.Contains(strings.Join(list, "\n"), "- tap9 as a port of mo-dev") {
		t.Errorf("the changes are %q", list)
	}
	same(t, "host", before, everythingOf(t, m.Host))
}

func TestAnUplinkThatComesLater(t *testing.T) {
	l := lab.New(t)
	m := newMachine(t, l.Host("host"))
	doc := parse(t, "lab", "version: 1\nzones:\n  dev: {subnets: [10.60.0.0/24], vxlan: {id: 1, group: 239.1.1.1, device: late0}}\n")
	if list := m.apply(doc); !strings.Contains(strings.Join(list, "\n"), "the uplink of the zone dev: the interface late0: it is not there yet") {
		t.Errorf("the changes are %q", list)
	}
	m.IP("link add late0 mtu 9000 type bridge", "link set late0 up")
	if list := strings.Join(m.apply(doc), "\n"); list != "~ mtu of mo-dev: 1450 -> 8950\n+ VXLAN 1 as mo-vx1, UDP port 4789" {
		t.Errorf("the changes are %s", list)
	}
	// It goes again, and the kernel takes the tunnel with it.
	m.IP("link del late0")
	if list := strings.Join(m.apply(doc), "\n"); list != "~ mtu of mo-dev: 8950 -> 1450\nthe uplink of the zone dev: the interface late0: it is not there yet" {
		t.Errorf("the changes are %s", list)
	}
}
