package policy

import (
	"testing"

	"github.com/mobileops/mobileops/internal/failure"
)

func TestConnectionsAreTried(t *testing.T) {
	t.Parallel()
	l := arrange(t, office+`  - {from: app=web, to: app=db, port: [5432/tcp, 53/udp, icmp]}
  - {from: host, to: app=web, port: 22/tcp}
  - {from: app=db, to: host, port: 123/udp}
  - {from: app=web, to: 0.0.0.0/0}
  - {from: app=web, to: "::/0"}
`)
	s := build(t, l)
	for i := range l.Ports {
		l.Ports[i].Attach.Namespace = s.machines[l.Ports[i].Name].NetNS()
	}
	s.apply(l)
	try := func(from, to string) (list []Reality, last error) {
		t.Helper()
		p, err := Compile(l)
		if err != nil {
			t.Fatal(err)
		}
		name, traffic, err := ParseTarget(to)
		if err != nil {
			t.Fatal(err)
		}
		answers, err := p.Ask(from, name, traffic)
		if err != nil {
			t.Fatal(err)
		}
		for i := range answers {
			var r Reality
			if err := s.host.Do(func() (err error) { r, err = Connect(t.Context(), &answers[i]); return err }); err != nil {
				last = err
				continue
			}
			list = append(list, r)
			// Who has no flow in common with somebody does not even find him.
			if r.Passed == answers[i].Decision.Allowed && !r.Counted && from != "eve" {
				t.Errorf("%s to %s: %+v, but the rule %+v has counted nothing", from, to, r, answers[i].Decision)
			}
		}
		return list, last
	}
	for _, c := range []struct {
		from, to string
		passes   bool
	}{
		{"web", "db:5432", true}, {"web", "db:53/udp", true}, {"web", "db:icmp", true}, {"host", "web:22", true}, {"db", "host:123/udp", true}, {"web", "host:icmp", true},
		{"db", "web:5432", false}, {"web", "db:54/udp", false}, {"db", "web:icmp", false}, {"host", "web:23", false}, {"eve", "host:22", false}, {"eve", "db:5432", false}, {"eve", "web:icmp", false},
	} {
		list, err := try(c.from, c.to)
		if err != nil || len(list) != 2 {
			t.Errorf("%s to %s: %v, %v", c.from, c.to, list, err)
		}
		for _, r := range list {
			if r.Passed != c.passes {
				t.Errorf("%s to %s: %+v", c.from, c.to, r)
			}
		}
	}
	// The other addresses of this host are host, too.
	p, err := Compile(l)
	if err == nil {
		err = s.host.Do(p.Here)
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		from, to string
		passes   bool
	}{
		{"web", s.host.IPv4().String() + ":80", false}, {"web", "[" + s.host.IPv6().String() + "]:80", false}, {"db", s.host.IPv4().String() + ":123/udp", true},
		{s.host.IPv4().String(), "web:22", true}, {s.host.IPv4().String(), "web:23", false},
	} {
		name, traffic, err := ParseTarget(c.to)
		if err != nil {
			t.Fatal(err)
		}
		answers, err := p.Ask(c.from, name, traffic)
		if err != nil || len(answers) != 1 || answers[0].Decision.Allowed != c.passes {
			t.Errorf("%s to %s: %+v, %v", c.from, c.to, answers, err)
			continue
		}
		var r Reality
		if err := s.host.Do(func() (err error) { r, err = Connect(t.Context(), &answers[0]); return err }); err != nil || r.Passed != c.passes {
			t.Errorf("%s to %s: %+v, %v", c.from, c.to, r, err)
		}
	}
	if _, err := try("internet", "web:80"); failure.KindOf(err) != failure.NotReady {
		t.Errorf("from the internet: %v", err)
	}
	// Somebody listens already: he is connected to.
	s.machines["db"].Serve(5432)
	if list, err := try("web", "db:5432"); err != nil || len(list) != 2 || !list[0].Passed {
		t.Errorf("with a server: %v, %v", list, err)
	}
	// What somebody else has added to the rules is seen.
	s.nft("insert", "rule", "inet", "mobileops_segments", "forwarding", "accept")
	if list, err := try("db", "web:5433"); err != nil || len(list) != 2 || !list[0].Passed {
		t.Errorf("with a rule of somebody else: %v, %v", list, err)
	}
	s.nft("insert", "rule", "inet", "mobileops_segments", "forwarding", "drop")
	if list, err := try("web", "db:5432"); err != nil || len(list) != 2 || list[0].Passed {
		t.Errorf("with a drop of somebody else: %v, %v", list, err)
	}
}
