package policy

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/mobileops/mobileops/internal/network/lab"
)

// mixed has something of everything.
const mixed = `
internal: [203.0.113.0/24]
zones:
  dev:
    subnets: [10.60.0.0/24, "fd00:60::/64"]
    nat: true
    egress: internet
    dhcp: true
    dns: {domain: dev.internal}
  test:
    subnets: [10.61.0.0/24, "fd00:61::/64"]
    nat: eth0
    egress: [192.0.2.0/24:443/tcp, 192.0.2.128/25:443/tcp, "[2001:db8::/32]:53/udp", 198.51.100.0/24]
  lab: {}
  far:
    subnets: [10.62.0.0/24]
    gateways: none
    vxlan: {id: 100, remotes: [192.0.2.9]}
workloads:
  web: {zone: dev, labels: {app: web}, namespace: web}
  db: {zone: dev, labels: {app: db}, namespace: db}
  vm: {zone: dev, tap: true, mac: "52:54:00:00:00:01", addresses: [10.60.0.9, "fd00:60::9"]}
  wild: {zone: dev, tap: true}
  job: {zone: test, labels: {app: job}, namespace: job}
  nic: {zone: lab, interface: eth9}
flows:
  - {from: app=web, to: app=db, port: [5432/tcp, 8000-8010/tcp], log: true}
  - {from: zone=test, to: app=web, port: [443/tcp, 53/udp]}
  - {from: app=job, to: host, port: 123/udp}
  - {from: host, to: zone=dev, port: 22/tcp}
  - {from: internet, to: app=web, port: 443/tcp}
  - {from: 192.0.2.0/24, to: app=web}
  - {from: 10.61.0.8/29, to: 10.60.0.0/28, port: icmp} 
  - {from: app=web, to: 0.0.0.0/0, port: 25/tcp}
  - {from: zone=lab, to: zone=lab}
  - {from: zone=far, to: zone=far}
` + manyFlows

// manyFlows begin at one end, so that maps lead to them.
const manyFlows = `
  - {from: app=db, to: app=web, port: 1/tcp}
  - {from: app=db, to: app=web, port: [2/tcp, 1/tcp]}
  - {from: app=db, to: app=job, port: 3/tcp}
  - {from: app=db, to: zone=test, port: 4/udp}
  - {from: app=db, to: zone=dev, port: 5/sctp}
  - {from: app=db, to: app=job, port: 6-7/tcp}
  - {from: app=db, to: internet, port: 8/tcp}
  - {from: app=db, to: workload=vm, port: 9/tcp}
  - {from: app=db, to: workload=vm, port: 10/tcp}
`

func TestMixedDocumentLoadsAndRoundTrips(t *testing.T) {
	t.Parallel()
	needs(t, "nft")
	l := arrange(t, strings.Replace(mixed, "  - {from: 10.61.0.8/29, to: 10.60.0.0/28, port: icmp} \n", "  - {from: 10.61.0.8/29, to: app=web, port: icmp}\n", 1))
	h := lab.New(t).Host("host")
	s := &site{t: t, host: h}
	s.apply(l)
	ours := s.nft("-s", "list", "ruleset")
	again := h.Command(t.Context(), "nft", "-f", "-")
	again.Stdin = strings.NewReader("flush ruleset\n" + ours)
	if out, err := again.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s\n%s", err, out, ours)
	}
	if loaded := s.nft("-s", "list", "ruleset"); loaded != ours {
		t.Errorf("listed and loaded again:\n%s\nwas\n%s", loaded, ours)
	}
	p, err := Compile(l)
	if err != nil {
		t.Fatal(err)
	}
	text := h.Command(t.Context(), "nft", "-f", "-")
	text.Stdin = strings.NewReader("flush ruleset\n" + p.Text())
	if out, err := text.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s\n%s", err, out, p.Text())
	}
	if loaded := s.nft("-s", "list", "ruleset"); loaded != ours {
		t.Errorf("by nft of the text:\n%s\nwas\n%s", loaded, ours)
	}
}

func TestPlanSaysWhatChanges(t *testing.T) {
	t.Parallel()
	l := arrange(t, strings.Replace(mixed, "  - {from: 10.61.0.8/29, to: 10.60.0.0/28, port: icmp} \n", "", 1))
	s := &site{t: t, host: lab.New(t).Host("host")}
	plan := func() (list []string) {
		t.Helper()
		if err := s.host.Do(func() error {
			changes, err := Firewall{}.Plan(context.Background(), l)
			for _, c := range changes {
				list = append(list, string(c.Sign)+" "+c.Text)
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
		return list
	}
	if got := plan(); len(got) != 1 || !strings.HasPrefix(got[0], "+ rules for 4 zones, 6 workloads and 18 flows") {
		t.Errorf("nothing in force: %q", got)
	}
	s.apply(l)
	if got := plan(); len(got) != 0 {
		t.Errorf("in force: %q", got)
	}
	l.Flows[0].Line, l.Flows = 99, slices.Delete(slices.Clone(l.Flows), 6, 9)
	if got := strings.Join(plan(), "\n"); got != "- flow app=web -> 0.0.0.0/0 25/tcp\n- flow zone=far -> zone=far any\n- flow zone=lab -> zone=lab any" {
		t.Errorf("flows gone:\n%s", got)
	}
	s.apply(l)
	s.nft("add", "rule", "inet", "mobileops_segments", "forwarding", "accept")
	if got := plan(); len(got) != 1 || got[0] != "~ rules of the segments" {
		t.Errorf("somebody has added a rule: %q", got)
	}
	if err := s.host.Do(func() error { return Firewall{}.Remove(context.Background()) }); err != nil {
		t.Fatal(err)
	}
	if got := s.nft("list", "ruleset"); got != "" {
		t.Errorf("left: %s", got)
	}
}
