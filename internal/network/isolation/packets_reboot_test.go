package isolation_test

import (
	"sync"
	"testing"

	"github.com/mobileops/mobileops/internal/network/lab"
)

// reboot takes away what does not survive one: processes, rules, addresses,
// routes. Interfaces come back with nothing but their names.
func (s *scene) reboot(t *testing.T) {
	t.Helper()
	killAll(t, s.host)
	s.host.Run("nft", "flush", "ruleset").Is(t, 0)
	s.host.IP("link set eth0 down", "addr flush dev eth0")
}

// configure does what ifupdown or networkd does after network-pre.target.
func (s *scene) configure(router *lab.Host) {
	s.host.IP("link set eth0 up", "addr add "+s.host.IPv4().String()+"/24 dev eth0", "addr add "+s.host.IPv6().String()+"/64 dev eth0 nodad")
	s.gateway(router)
}

// gateway sends what is for other networks to a router, by the address of IPv6
// that routers have on every link.
func (s *scene) gateway(router *lab.Host) {
	s.host.Via(router)
	s.host.IP("route replace default via " + lab.LinkLocal(router.NIC(0).MAC).String() + " dev eth0")
}

func TestIsolationSurvivesAReboot(t *testing.T) {
	t.Parallel()
	s := stage(t)
	far := s.Switch()
	router, mgmt := s.Router("router", s.lan, far), far.Host("far-mgmt")
	s.gateway(router)
	mgmt.Via(router)
	friends, foes := append(lab.Talk(s.host, mgmt), s.friends()...), append(s.foes(), lab.Talk(s.host, router)...)
	lab.Open(t, friends...)
	lab.Open(t, foes...)
	s.isolate(t, append(allow(mgmt, s.mgmt), "--confirm", "60s")...)
	s.host.Mobileops("network", "confirm").Is(t, 0)
	s.reboot(t)
	// The unit runs before there are addresses.
	s.host.Mobileops("network", "reconcile").Is(t, 0)
	s.configure(router)
	lab.Blocked(t, foes...)
	lab.Open(t, friends...)
	s.restore(t)
	s.reboot(t)
	s.host.Mobileops("network", "reconcile").Is(t, 0)
	s.configure(router)
	lab.Open(t, foes...)
}

func TestWhatNobodyConfirmedDoesNotSurviveAReboot(t *testing.T) {
	t.Parallel()
	s := stage(t)
	foes := s.foes()
	lab.Open(t, foes...)
	s.isolate(t, "--confirm", "10m")
	lab.Blocked(t, foes...)
	s.reboot(t)
	s.host.Mobileops("network", "reconcile").Is(t, 0)
	s.configure(s.mgmt)
	lab.Open(t, foes...)
	s.host.Mobileops("network", "restore").Is(t, 1)
}

// TestManyIsolateAtOnce has several people react to the same alarm.
func TestManyIsolateAtOnce(t *testing.T) {
	t.Parallel()
	s := stage(t)
	friends, foes := s.friends(), s.foes()
	lab.Open(t, foes...)
	lab.Open(t, friends...)
	s.before = ruleset(t, s.host)
	statuses := func(args ...string) (got map[int]int) {
		got = map[int]int{}
		var mu sync.Mutex
		var wg sync.WaitGroup
		for range 6 {
			wg.Go(func() {
				r := s.host.Mobileops(args...)
				mu.Lock()
				defer mu.Unlock()
				got[r.Status]++
				if r.Status != 0 && r.Status != 1 && r.Status != 8 {
					t.Errorf("%+v", r)
				}
			})
		}
		wg.Wait()
		return got
	}
	isolate := append([]string{"network", "isolate"}, allow(s.mgmt)...)
	if got := statuses(isolate...); got[0] != 1 || got[8] != 5 {
		t.Errorf("isolate ended with statuses %v, want one 0", got)
	}
	lab.Blocked(t, foes...)
	lab.Open(t, friends...)
	if got := statuses(append(isolate, "--replace")...); got[0] == 0 || got[0]+got[8] != 6 {
		t.Errorf("isolate --replace ended with statuses %v, want 0, or 8 for who came while another was at it", got)
	}
	lab.Blocked(t, foes...)
	guard := guardOf(t, s.host)
	if got := statuses("network", "restore"); got[0] != 1 || got[1]+got[8] != 5 {
		t.Errorf("restore ended with statuses %v, want one 0, and for the others 1, or 8 while that one was at it", got)
	}
	gone(t, guard)
	if left := s.host.Processes(); len(left) > 0 {
		t.Errorf("processes %v are left", left)
	}
	if after := ruleset(t, s.host); after != s.before {
		t.Errorf("the ruleset is %s", after)
	}
	lab.Open(t, foes...)
}
