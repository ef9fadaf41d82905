package segment

import (
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/mobileops/mobileops/internal/network/lab"
)

// outside is the world of a host of a lab: a router with addresses that are on
// the internet, and with private ones. It has no way back to the zones, so what
// comes from them arrives only with the host's own address.
type outside struct {
	*lab.Host
	public4, public6 netip.Addr
}

func newOutside(lan *lab.Switch, h *lab.Host) outside {
	o := outside{lan.Host("outside"), netip.MustParseAddr("198.51.100.7"), netip.MustParseAddr("2001:db8:7::7")}
	o.IP("addr add 198.51.100.7/32 dev lo", "addr add 2001:db8:7::7/128 dev lo")
	h.IP("route add default via "+o.IPv4().String(), "route add default via "+o.IPv6().String())
	h.Sysctl("net/ipv4/ip_forward", "0") // a new namespace has that of the machine
	return o
}

func TestContainersReachTheInternetAndNothingElse(t *testing.T) {
	l := lab.New(t)
	lan := l.Switch()
	h := lan.Host("host")
	out := newOutside(lan, h)
	web, db := l.Host("web"), l.Host("db")
	before := everythingOf(t, h)
	setup := []string{"network", "setup-container", "--namespace", "web=" + web.NetNS(), "--namespace", "db=" + db.NetNS()}

	// First everything is allowed, so that what is denied later proves something.
	file := filepath.Join(h.Dir(), "open.yaml")
	open := h.Mobileops(append(setup, "--print")...).Is(t, 0).Stdout + `
flows:
  - {from: zone=containers, to: zone=containers}
  - {from: zone=containers, to: host}
  - {from: host, to: zone=containers}
  - {from: zone=containers, to: 10.9.0.0/16}
  - {from: zone=containers, to: "fd09::/16"}
`
	if err := os.WriteFile(file, []byte(open), 0o600); err != nil {
		t.Fatal(err)
	}
	h.Mobileops("network", "apply", file).Is(t, 0)
	addr := netip.MustParseAddr
	internet := []*lab.Probe{
		web.TCP(out.Host, out.public4, 80), web.TCP(out.Host, out.public6, 80), db.Ping(out.public4), db.Ping(out.public6),
		web.Ping(addr("10.201.0.1")), web.Ping(addr("fd6d:6f62:696c:1::1")), // the gateway answers
	}
	rest := []*lab.Probe{
		web.TCP(db, addr("10.201.0.3"), 5432), web.TCP(db, addr("fd6d:6f62:696c:1::3"), 5432), db.Ping(addr("10.201.0.2")),
		web.TCP(h, addr("10.201.0.1"), 22), web.TCP(h, h.IPv4(), 22), web.TCP(h, addr("fd6d:6f62:696c:1::1"), 22),
		web.TCP(out.Host, out.IPv4(), 443), web.TCP(out.Host, out.IPv6(), 443),
		h.TCP(web, addr("10.201.0.2"), 80),
	}
	lab.Open(t, append(rest, internet...)...)

	// The preset's own document has no flows.
	h.Mobileops(append([]string{"network", "reset"}, "containers")...).Is(t, 0)
	same(t, "host", before, everythingOf(t, h))
	h.Mobileops(setup...).Is(t, 0)
	lab.Open(t, internet...)
	lab.Blocked(t, rest...)

	// Again, it changes nothing, also with rules.
	r := h.Mobileops(append(setup, "--dry-run")...).Is(t, 0)
	if r.Stdout != "Nothing would change.\n" {
		t.Errorf("a second call would do\n%s", r.Stdout)
	}
	// Somebody flushes the rules: that is seen, and repaired.
	h.Run("nft", "flush", "ruleset").Is(t, 0)
	h.Mobileops("network", "segments", "--quiet").Is(t, 1)
	h.Mobileops(setup...).Is(t, 0)
	lab.Open(t, internet...)
	lab.Blocked(t, rest...)
	h.Mobileops("network", "reset").Is(t, 0)
	same(t, "host", before, everythingOf(t, h))
	if got := sh(t, h, "nft list ruleset"); got != "" {
		t.Errorf("rules are left:\n%s", got)
	}
}

func TestMobileDevicesReachTheInternetAlone(t *testing.T) {
	l := lab.New(t)
	lan := l.Switch()
	h := lan.Host("host")
	out := newOutside(lan, h)
	one := h.Guest("one", "wlan0", "10.203.0.50/24", "fd6d:6f62:696c:3::50/64")
	two := h.Guest("two", "wlan1", "10.203.0.51/24", "fd6d:6f62:696c:3::51/64")
	for _, g := range []*lab.Host{one, two} {
		g.IP("route add default via 10.203.0.1", "route add default via fd6d:6f62:696c:3::1")
	}
	addr := netip.MustParseAddr
	out.IP("route add 10.203.0.0/24 via "+h.IPv4().String(), "route add fd6d:6f62:696c:3::/64 via "+h.IPv6().String())
	before := everythingOf(t, h)

	// On a bridge of their own they reach each other.
	h.Mobileops("network", "bridge", "lab", "--subnet", "10.203.0.1/24", "--subnet", "fd6d:6f62:696c:3::1/64", "--port", "wlan0", "--port", "wlan1").Is(t, 0)
	each := []*lab.Probe{
		one.TCP(two, addr("10.203.0.51"), 80), one.Ping(addr("10.203.0.51")), two.TCP(one, addr("fd6d:6f62:696c:3::50"), 80),
	}
	lab.Open(t, each...)
	h.Mobileops("network", "bridge", "lab", "--delete").Is(t, 0)
	same(t, "host", before, everythingOf(t, h))

	h.Mobileops("network", "setup-mobile", "--port", "wlan0", "--port", "wlan1", "--egress", "0.0.0.0/0", "--egress", "::/0", "--no-nat").Is(t, 0)
	private := []*lab.Probe{one.TCP(out.Host, out.IPv4(), 80), one.TCP(out.Host, out.IPv6(), 80)}
	internet := []*lab.Probe{one.TCP(out.Host, out.public4, 443), two.TCP(out.Host, out.public6, 443)}
	lab.Open(t, append(private, internet...)...)
	lab.Blocked(t, each...)

	h.Mobileops("network", "setup-mobile", "--egress", "internet", "--no-nat=false").Is(t, 0)
	lab.Open(t, internet...)
	lab.Blocked(t, append(each, private...)...)

	h.Mobileops("network", "reset").Is(t, 0)
	same(t, "host", before, everythingOf(t, h))
}

// TestPresetsAddUp: a second call adds to what the first one has made, and each
// preset stands for itself.
func TestPresetsAddUp(t *testing.T) {
	l := lab.New(t)
	h := l.Host("host")
	before := everythingOf(t, h)
	h.Mobileops("network", "setup-vm", "--tap", "a=52:54:00:00:00:0a").Is(t, 0)
	h.Mobileops("network", "setup-vm", "--tap", "b", "--owner", "nobody").Is(t, 0)
	h.Mobileops("network", "bridge", "lab").Is(t, 0)
	if got := sh(t, h, "ip -br link show type tun | cut -d' ' -f1 | sort; ip tuntap show | grep -c 'user 65534'"); got != "mo-p-a\nmo-p-b\n1\n" {
		t.Errorf("the taps are %q", got)
	}
	h.Mobileops("network", "setup-vm", "--remove", "a").Is(t, 0)
	h.Mobileops("network", "reset", "bridge-lab").Is(t, 0)
	if got := sh(t, h, "ip -br link show | cut -d' ' -f1 | sort"); got != "lo\nmo-p-b\nmo-vm\n" {
		t.Errorf("the interfaces are %q", got)
	}
	h.Mobileops("network", "setup-vm", "--remove", "nobody").Is(t, 2)
	h.Mobileops("network", "reset").Is(t, 0)
	same(t, "host", before, everythingOf(t, h))
}

// TestAHostBecomesNoRouter: what comes back to a zone is passed on, and nothing
// else is, though forwarding is on at the interface by which it comes.
func TestAHostBecomesNoRouter(t *testing.T) {
	l := lab.New(t)
	lan, other := l.Switch(), l.Switch()
	h := lan.Host("host")
	second := h.AddNIC(other)
	out := newOutside(lan, h)
	inner := other.Host("inner")
	web := l.Host("web")
	// The network behind the second interface is known outside, and the way
	// there goes through the host.
	out.IP("route add 10.9.2.0/24 via "+h.IPv4().String(), "route add fd09:0:0:2::/64 via "+h.IPv6().String())
	inner.IP("route add default via "+second.IPv4.String(), "route add default via "+second.IPv6.String())
	through := []*lab.Probe{out.TCP(inner, inner.IPv4(), 22), out.TCP(inner, inner.IPv6(), 22), out.Ping(inner.IPv4())}
	before := everythingOf(t, h)
	h.Forward()
	lab.Open(t, through...)
	h.Sysctl("net/ipv4/ip_forward", "0")
	h.Sysctl("net/ipv6/conf/all/forwarding", "0")
	lab.Blocked(t, through...)
	same(t, "host", before, everythingOf(t, h))

	h.Mobileops("network", "setup-container", "--namespace", "web="+web.NetNS()).Is(t, 0)
	lab.Open(t, web.TCP(out.Host, out.public4, 80), web.TCP(out.Host, out.public6, 80))
	if got := sh(t, h, "cat /proc/sys/net/ipv4/conf/eth0/forwarding /proc/sys/net/ipv6/conf/eth0/force_forwarding"); got != "1\n1\n" {
		t.Fatalf("forwarding is not on: %q; this proves nothing", got)
	}
	lab.Blocked(t, through...)
	if r := h.Mobileops("network", "segments", "--quiet"); r.Status != 0 {
		t.Errorf("drift: %s", r.Stdout)
	}

	// Somebody makes a router of the host: that is not undone.
	h.Forward()
	h.Mobileops("network", "setup-container", "--namespace", "web="+web.NetNS()).Is(t, 0)
	lab.Open(t, append(through, web.TCP(out.Host, out.public4, 80))...)
	h.Mobileops("network", "reset").Is(t, 0)
	lab.Open(t, through[:1]...)
}
