package segment

import (
	"context"
	"testing"

	"github.com/mobileops/mobileops/internal/network/lab"
)

// TestReconcileAfterReboot applies on one host and reconciles on another one
// that has its state: a machine that has been started again has none of the
// interfaces, other numbers for those it has, and its switches are as they are
// after a start.
func TestReconcileAfterReboot(t *testing.T) {
	l := lab.New(t)
	lan := l.Switch()
	first := newMachine(t, lan.Host("first"))
	web := l.Host("web")
	doc := parse(t, "lab", workloads(devZone, web))
	first.IP("route add default dev eth0")
	first.Sysctl("net/ipv4/ip_forward", "0") // a new namespace has that of the machine
	first.apply(doc)
	s, err := load(t.Context(), first.Store)
	if err != nil {
		t.Fatal(err)
	}
	if len(s.Record.Sysctls) == 0 {
		t.Fatal("no switch was changed: this proves nothing about them")
	}
	addr := s.Layout.Ports[0].Addr
	s.Record.Boot = "an earlier one"
	if err := s.save(t.Context(), first.Store); err != nil {
		t.Fatal(err)
	}
	// The workload is gone from where it was, as everything is.
	sh(t, web, "ip link del eth0")

	m := newMachine(t, lan.Host("again"))
	m.IP("route add default dev eth0")
	m.Sysctl("net/ipv4/ip_forward", "0")
	m.Store = first.Store
	before := everythingOf(t, m.Host)
	if err := m.Do(func() error { _, err := m.Reconcile(context.Background()); return err }); err != nil {
		t.Fatal(err)
	}
	if list, err := m.plan(Request{}); err != nil || len(list) > 0 {
		t.Errorf("still to do: %v %v", list, err)
	}
	ping(t, web, "10.60.0.1")
	ping(t, web, "fd00:60::1")
	if s, err := load(t.Context(), m.Store); err != nil || s.Layout.Ports[0].Addr[0] != addr[0] {
		t.Errorf("the workload had %v and has another address now (%v)", addr, err)
	}
	m.apply()
	same(t, "host", before, everythingOf(t, m.Host))
}

// TestAllocatedAddressesStay: a workload keeps its address while others come
// and go, and a fixed one of somebody else wins over it.
func TestAllocatedAddressesStay(t *testing.T) {
	text := func(list string) *Document {
		return parse(t, "lab", "version: 1\nzones:\n  dev: {subnets: [10.60.0.0/29, fd00:60::/64]}\nworkloads:\n"+list)
	}
	arrange := func(before *Layout, list string) (*Layout, map[string]string) {
		t.Helper()
		l, err := Arrange([]*Document{text(list)}, Given{Before: before})
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]string{}
		for _, p := range l.Ports {
			got[p.Name] = p.Addr[0].String()
		}
		return l, got
	}
	one, two, three := "  one: {zone: dev, namespace: a}\n", "  two: {zone: dev, namespace: b}\n", "  three: {zone: dev, namespace: c}\n"
	l, got := arrange(nil, one+two)
	if got["one"] != "10.60.0.2" || got["two"] != "10.60.0.3" {
		t.Errorf("at first %v", got)
	}
	l, got = arrange(l, three+two)
	if got["two"] != "10.60.0.3" || got["three"] != "10.60.0.2" {
		t.Errorf("then %v", got)
	}
	l, got = arrange(l, two+three+"  fixed: {zone: dev, namespace: d, addresses: [10.60.0.3]}\n")
	if got["two"] != "10.60.0.4" || got["three"] != "10.60.0.2" || got["fixed"] != "10.60.0.3" {
		t.Errorf("with a fixed one %v", got)
	}
	if _, err := Arrange([]*Document{text(one + two + three + "  d: {zone: dev, namespace: d}\n  e: {zone: dev, namespace: e}\n  f: {zone: dev, namespace: f}\n")}, Given{Before: l}); err == nil {
		t.Error("six workloads got an address of five")
	}
}
