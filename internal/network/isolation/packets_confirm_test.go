package isolation_test

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/mobileops/mobileops/internal/network/isolation"
	"github.com/mobileops/mobileops/internal/network/lab"
	"github.com/mobileops/mobileops/internal/state"
)

// window is how long isolation waits to be confirmed where a test does several
// things in that time, of which a busy machine takes a second for each.
const window = 15 * time.Second

func TestConnectivityComesBackByItself(t *testing.T) {
	t.Parallel()
	s := stage(t)
	foes := s.foes()
	lab.Open(t, foes...)
	s.isolate(t, "--confirm", window.String())
	guard := guardOf(t, s.host)
	lab.Blocked(t, foes...)
	if guard != 0 {
		kill(t, guard)
	}
	if left := s.host.Processes(); len(left) > 0 {
		t.Fatalf("processes %v are alive: who opens the host again could be one of them", left)
	}
	lab.Open(t, foes...)
	s.host.Mobileops("network", "confirm").Is(t, 1)
	lab.Open(t, foes...)
}

func TestIsolateIsKilled(t *testing.T) {
	t.Parallel()
	s := stage(t)
	foes := s.foes()
	lab.Open(t, foes...)
	ping := s.host.Ping(s.attacker.IPv4())
	start(t, s.host, append([]string{"network", "isolate", "--confirm", window.String()}, allow(s.mgmt)...)...)
	eventually(t, "no echo comes back", func() bool { return !ping.Passes() })
	killAll(t, s.host)
	lab.Blocked(t, foes...)
	lab.Open(t, foes...)
	// And whoever comes then finds nothing in the way.
	s.isolate(t)
	s.before = "" // that had tables in it that cut nothing any more
	lab.Blocked(t, foes...)
	s.restore(t)
	lab.Open(t, foes...)
}

func TestConfirmedIsolationStays(t *testing.T) {
	t.Parallel()
	s := stage(t)
	friends, foes := s.friends(), s.foes()
	lab.Open(t, friends...)
	lab.Open(t, foes...)
	s.isolate(t, "--confirm", window.String())
	over := time.After(window + time.Second)
	s.host.Mobileops("network", "confirm").Is(t, 0)
	lab.Blocked(t, foes...)
	<-over
	lab.Blocked(t, foes...)
	lab.Open(t, friends...)
	s.restore(t)
	lab.Open(t, foes...)
}

// TestConfirmRacesWithTheEnd confirms shortly before and shortly after the
// window closes, on several hosts at once: what confirm says is what holds.
func TestConfirmRacesWithTheEnd(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	lab.Binary(t)
	lan := l.Switch()
	attacker := lan.Host("attacker")
	const hosts, rounds, window = 4, 6, 2 * time.Second
	var mu sync.Mutex
	var yes, no int
	both := func() bool {
		mu.Lock()
		defer mu.Unlock()
		return yes > 0 && no > 0
	}
	var wg sync.WaitGroup
	for i := range hosts {
		host := lan.Host(fmt.Sprintf("host%d", i))
		ping := host.Ping(attacker.IPv4())
		lab.Open(t, ping)
		wg.Go(func() {
			// Where the end is, as this machine is loaded now, is narrowed
			// down from both sides, until both have been seen.
			early, late := time.Duration(0), 2*window
			for round := 0; round < rounds || round < 4*rounds && !both(); round++ {
				if r := host.Mobileops("network", "isolate", "--allow", "10.99.0.0/16", "--confirm", window.String(), "--no-guard"); r.Status != 0 {
					t.Errorf("isolate: %+v", r)
					return
				}
				armed := time.Now() // at the latest
				at := (early + late) / 2
				time.Sleep(at)
				r := host.Mobileops("network", "confirm")
				mu.Lock()
				if r.Status == 0 {
					yes++
					early = at
				} else {
					no++
					late = at
				}
				mu.Unlock()
				time.Sleep(window + window/10 - time.Since(armed))
				switch r.Status {
				case 0:
					lab.Blocked(t, ping)
					if r := host.Mobileops("network", "restore"); r.Status != 0 {
						t.Errorf("restore: %+v", r)
					}
				case 1:
					lab.Open(t, ping)
				default:
					t.Errorf("confirm: %+v", r)
				}
				lab.Open(t, ping)
				if t.Failed() {
					return
				}
			}
		})
	}
	wg.Wait()
	t.Logf("confirmed %d times, refused %d times", yes, no)
	if yes == 0 || no == 0 {
		t.Errorf("confirmed %d times and refused %d times: this was no race", yes, no)
	}
}

func TestWhoIsNotReachedUndoesIsolation(t *testing.T) {
	t.Parallel()
	s := stage(t)
	foes := s.foes()
	lab.Open(t, foes...)
	lab.Open(t, s.friends()...)
	s.before = ruleset(t, s.host)
	for _, probe := range []string{
		fmt.Sprintf("%s:9", s.mgmt.IPv4()), // nothing listens
		fmt.Sprintf("[%s]:9", s.attacker.IPv6()),
		"10.9.1.99:7", // nobody is there
	} {
		s.host.Mobileops(append([]string{"network", "isolate", "--probe", probe}, allow(s.mgmt)...)...).Is(t, 3)
		lab.Open(t, foes...)
		if after := ruleset(t, s.host); after != s.before {
			t.Errorf("the ruleset is %s", after)
		}
		s.host.Mobileops("network", "restore").Is(t, 1)
	}
	for _, probe := range []string{fmt.Sprintf("%s:7", s.mgmt.IPv4()), fmt.Sprintf("[%s]:7", s.mgmt.IPv6())} {
		s.isolate(t, "--probe", probe)
		lab.Blocked(t, foes...)
		s.restore(t)
	}
	lab.Open(t, foes...)
	// A change that is undone does not open a host that was isolated for good.
	s.isolate(t)
	s.host.Mobileops("network", "isolate", "--replace", "--allow", "10.9.1.98", "--probe", "10.9.1.98:7").Is(t, 3)
	lab.Blocked(t, foes...)
	lab.Open(t, s.friends()...)
	s.host.Mobileops("network", "status").Is(t, 0)
	if guardOf(t, s.host) == 0 {
		t.Error("nobody guards it")
	}
	// Nor where nothing is remembered of it, as after a full disk.
	store := state.New(filepath.Join(s.host.Dir(), "state"), state.Options{})
	if err := isolation.Save(t.Context(), store, &isolation.Record{Since: time.Now(), Ended: time.Now()}); err != nil {
		t.Fatal(err)
	}
	s.host.Mobileops("network", "isolate", "--replace", "--allow", "10.9.1.98", "--probe", "10.9.1.98:7").Is(t, 6)
	lab.Blocked(t, foes...)
	if guardOf(t, s.host) == 0 {
		t.Error("nobody guards it")
	}
	s.restore(t)
}

func TestADryRunChangesNothing(t *testing.T) {
	t.Parallel()
	s := stage(t)
	foes := s.foes()
	lab.Open(t, foes...)
	before := ruleset(t, s.host)
	planned := s.host.Mobileops(append([]string{"network", "isolate", "--dry-run"}, allow(s.mgmt)...)...).Is(t, 1)
	if after := ruleset(t, s.host); after != before {
		t.Errorf("the ruleset is %s", after)
	}
	if left := s.host.Processes(); len(left) > 0 {
		t.Errorf("processes %v run", left)
	}
	lab.Open(t, foes...)
	s.host.Mobileops("network", "restore").Is(t, 1)
	// What it says is what nft takes, and cuts.
	if err := os.WriteFile(filepath.Join(s.host.Dir(), "planned"), []byte(planned.Stdout), 0o600); err != nil {
		t.Fatal(err)
	}
	s.host.Run("nft", "-f", "planned").Is(t, 0)
	lab.Blocked(t, foes...)
	lab.Open(t, s.friends()...)
}
