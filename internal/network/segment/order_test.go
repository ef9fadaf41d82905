package segment

import (
	"context"
	"errors"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/network/lab"
)

// recorder is a firewall that looks at what is there when it is called.
type recorder struct {
	calls   []string
	digest  string
	applied *Layout
	fail    string // the call that fails
}

func (r *recorder) call(what string) error {
	out, err := exec.Command("ip", "-br", "link").Output() // in the namespace of the thread that asks
	if err != nil {
		return err
	}
	var links []string
	for line := range strings.Lines(string(out)) {
		if name, _, _ := strings.Cut(strings.Fields(line)[0], "@"); strings.HasPrefix(name, prefix) {
			links = append(links, name)
		}
	}
	r.calls = append(r.calls, strings.Join(append([]string{what}, links...), " "))
	if what == r.fail {
		return errors.New("the firewall fails")
	}
	return nil
}

func (r *recorder) Plan(_ context.Context, l *Layout) ([]Change, error) {
	if r.applied != nil && sameJSON(l, r.applied) {
		return nil, nil
	}
	return []Change{{'~', "rules"}}, nil
}

func (r *recorder) Apply(_ context.Context, l *Layout) error {
	r.digest, r.applied = "some", l
	return r.call("apply")
}

func (r *recorder) Remove(context.Context) error {
	if err := r.call("remove"); err != nil {
		return err
	}
	r.digest, r.applied = "", nil
	return nil
}

func (r *recorder) Digest(context.Context) (string, error) { return r.digest, nil }

func TestRulesComeBeforeLinksAndGoAfterThem(t *testing.T) {
	l := lab.New(t)
	m := newMachine(t, l.Host("host"))
	fw := &recorder{}
	m.Firewall = fw
	zones := func(names ...string) *Document {
		text := "version: 1\nzones:\n"
		for _, n := range names {
			text += "  " + n + ": {subnets: [10.60." + string(n[0]-'a'+'0') + ".0/24]}\n"
		}
		return parse(t, "lab", text)
	}
	m.apply(zones("a", "b"))
	m.apply(zones("b", "c"))
	m.apply(zones("b", "c"))
	m.apply()
	m.apply()
	want := []string{"apply", "apply mo-b", "remove"}
	if !slices.Equal(fw.calls, want) {
		t.Errorf("the firewall was called when these links were there: %q, want %q", fw.calls, want)
	}
}

func TestErrorsOfTheKernelAreTakenBack(t *testing.T) {
	l := lab.New(t)
	m := newMachine(t, l.Host("host"))
	web := l.Host("web")
	fw := &recorder{}
	m.Firewall = fw
	doc := parse(t, "lab", workloads(devZone, web))
	// Somebody takes the name of the port in the last moment.
	taken := false
	m.Engine.before = func(c Change) {
		if strings.Contains(c.Text, "port mo-p-web") && !taken {
			taken = true
			if err := exec.Command("ip", "link", "add", "mo-p-web", "type", "bridge").Run(); err != nil {
				t.Error(err)
			}
		}
	}
	_, err := m.tryApply(Request{Put: []*Document{doc}})
	if failure.KindOf(err) != failure.Failed || !strings.Contains(err.Error(), "port mo-p-web") || !strings.Contains(err.Error(), "everything is as it was before") {
		t.Errorf("apply: %v", err)
	}
	if got := m.sh("ip -br link | cut -d' ' -f1 | sort"); got != "lo\nmo-p-web\n" || fw.digest != "" {
		t.Errorf("left: %q, rules %q", got, fw.digest)
	}
	m.IP("link del mo-p-web")

	// What cannot be taken back is said.
	taken = false
	fw.fail = "remove"
	_, err = m.tryApply(Request{Put: []*Document{doc}})
	if failure.KindOf(err) != failure.Failed || !strings.Contains(err.Error(), "this is still to do: - rules of the segments") {
		t.Errorf("apply: %v", err)
	}
	m.IP("link del mo-p-web")
	fw.fail, m.Engine.before = "", nil
	if err := m.Do(func() error { _, err := m.Reconcile(context.Background()); return err }); err != nil {
		t.Error(err)
	}
	if got := m.sh("ip -br link | cut -d' ' -f1 | sort"); got != "lo\n" || fw.digest != "" {
		t.Errorf("left: %q, rules %q", got, fw.digest)
	}
}

func TestOneApplyAtATime(t *testing.T) {
	l := lab.New(t)
	m := newMachine(t, l.Host("host"))
	lock, err := m.Store.Lock("network-segments", "network apply")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.tryApply(Request{}); failure.KindOf(err) != failure.Busy {
		t.Errorf("a second apply at once: %v", err)
	}
	lock.Release()
	m.apply()
}

// TestKernelThatForwardsEverywhereOrNowhere plans as for a kernel before 6.17.
func TestKernelThatForwardsEverywhereOrNowhere(t *testing.T) {
	l := lab.New(t)
	lan := l.Switch()
	m := newMachine(t, lan.Host("host"))
	peer := lan.Host("peer")
	m.Engine.old = true
	m.IP("route add default via "+peer.IPv6().String(), "link add ra0 type bridge", "link add fw0 type bridge", "link add off0 type bridge")
	m.Sysctl("net/ipv6/conf/ra0/accept_ra", "1")
	m.Sysctl("net/ipv6/conf/off0/accept_ra", "0")
	m.Sysctl("net/ipv6/conf/fw0/forwarding", "1")
	web := l.Host("web")
	before := everythingOf(t, m.Host)
	doc := parse(t, "lab", `
version: 1
zones:
  dev: {subnets: [fd00:60::/64], egress: ["fd09::/16"]}
  quiet: {subnets: [fd00:61::/64]}
workloads:
  web: {zone: dev, namespace: `+web.NetNS()+`}
`)
	m.apply(doc)
	if list := m.apply(doc); len(list) > 0 {
		t.Errorf("the second apply changed %q", list)
	}
	peer.IP("route add fd00:60::/64 via " + m.IPv6().String())
	ping(t, web, peer.IPv6().String())
	if got := m.sh("cd /proc/sys/net/ipv6/conf; cat all/forwarding ra0/accept_ra off0/accept_ra mo-dev/forwarding mo-quiet/forwarding"); got != "1\n2\n0\n1\n0\n" {
		t.Errorf("the switches are %q", got)
	}
	m.apply()
	same(t, "host", before, everythingOf(t, m.Host))
}

func TestWayOfPackets(t *testing.T) {
	p := &planner{host: &host{byName: map[string]*link{}}}
	for i, name := range []string{"lan0", "vpn0", "wan0", "wan1"} {
		l := &link{index: i + 1, name: name}
		p.host.links = append(p.host.links, l)
		p.host.byName[name] = l
	}
	p.host.routes = []route{
		{to: netip.MustParsePrefix("10.0.0.0/8"), index: 1, unicast: true},
		{to: netip.MustParsePrefix("10.7.0.0/16"), index: 2, unicast: true},
		{to: netip.MustParsePrefix("10.8.0.0/16"), index: 2}, // a black hole
		{to: netip.MustParsePrefix("0.0.0.0/0"), index: 3, metric: 200, unicast: true},
		{to: netip.MustParsePrefix("0.0.0.0/0"), index: 4, metric: 100, unicast: true},
	}
	for to, want := range map[string]string{
		"10.7.1.0/24": "vpn0", "10.9.0.0/16": "lan0", "10.8.0.0/24": "lan0", "192.0.2.0/24": "wan1", "0.0.0.0/0": "wan1", "::/0": "",
	} {
		if got := p.way(netip.MustParsePrefix(to)); got != want {
			t.Errorf("%s leaves by %q, not %q", to, got, want)
		}
	}
}
