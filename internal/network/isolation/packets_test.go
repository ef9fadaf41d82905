package isolation_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mobileops/mobileops/internal/network/lab"
)

func TestMain(m *testing.M) { lab.Main(m) }

// scene is a switch with the host that is to be isolated, and two others.
type scene struct {
	*lab.Lab
	lan                  *lab.Switch
	host, mgmt, attacker *lab.Host

	before string // the ruleset when it was last isolated; "" when others have changed it since
}

func stage(t *testing.T) *scene {
	t.Helper()
	l := lab.New(t)
	lab.Binary(t)
	lan := l.Switch()
	return &scene{Lab: l, lan: lan, host: lan.Host("host"), mgmt: lan.Host("mgmt"), attacker: lan.Host("attacker")}
}

// friends and foes are every way to talk with management and the attacker.
func (s *scene) friends() []*lab.Probe { return lab.Talk(s.host, s.mgmt) }
func (s *scene) foes() []*lab.Probe    { return lab.Talk(s.host, s.attacker) }

// allow names hosts as those that stay reachable, by all their addresses.
func allow(hosts ...*lab.Host) (flags []string) {
	for _, h := range hosts {
		for _, a := range []netip.Addr{h.IPv4(), h.IPv6()} {
			if a.IsValid() {
				flags = append(flags, "--allow", netip.PrefixFrom(a, a.BitLen()).String())
			}
		}
	}
	return flags
}

// ruleset is what is in force by nf_tables, without counters.
func ruleset(t *testing.T, h *lab.Host) string {
	t.Helper()
	return h.Run("nft", "-s", "list", "ruleset").Is(t, 0).Stdout
}

// isolate isolates the host, of which management alone stays reachable unless
// flags name others.
func (s *scene) isolate(t *testing.T, flags ...string) lab.Result {
	t.Helper()
	s.before = ruleset(t, s.host)
	if !slices.Contains(flags, "--allow") {
		flags = append(allow(s.mgmt), flags...)
	}
	return s.host.Mobileops(append([]string{"network", "isolate"}, flags...)...).Is(t, 0)
}

// restore ends isolation, and sees that nothing is left of it.
func (s *scene) restore(t *testing.T) {
	t.Helper()
	guard := guardOf(t, s.host)
	s.host.Mobileops("network", "restore").Is(t, 0)
	if after := ruleset(t, s.host); s.before == "" && strings.Contains(after, "mobileops") {
		t.Errorf("something is left: %s", after)
	} else if s.before != "" && after != s.before {
		t.Errorf("the ruleset was\n%s\nand is\n%s", s.before, after)
	}
	gone(t, guard)
	s.forget(t)
}

// forget has all neighbours found anew at once: who was asked for in vain is
// asked for again a second later, and not before.
func (s *scene) forget(t *testing.T) {
	t.Helper()
	for _, h := range []*lab.Host{s.host, s.mgmt, s.attacker} {
		h.Run("ip", "neigh", "flush", "all").Is(t, 0)
	}
}

// guardOf is the process that guards the isolation of a host; 0 for none.
func guardOf(t *testing.T, h *lab.Host) int {
	t.Helper()
	var doc struct {
		Guard *struct {
			PID int `json:"pid"`
		} `json:"guard"`
	}
	out := h.Mobileops("network", "status", "--output", "json").Stdout
	if err := json.Unmarshal([]byte(out), &doc); err != nil {
		t.Fatalf("network status: %v: %s", err, out)
	}
	if doc.Guard == nil {
		return 0
	}
	return doc.Guard.PID
}

// gone waits until a process has ended.
func gone(t *testing.T, pid int) {
	t.Helper()
	if pid == 0 {
		return
	}
	// A guard has nobody who waits for it but the first process of the machine,
	// in its own time.
	eventually(t, fmt.Sprintf("process %d ends", pid), func() bool {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		return err != nil || bytes.Contains(stat, []byte(") Z "))
	})
}

// kill ends a process without a word to it, unless it has just ended by itself.
func kill(t *testing.T, pid int) {
	t.Helper()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && err != syscall.ESRCH {
		t.Fatalf("killing %d: %v", pid, err)
	}
	gone(t, pid)
}

// killAll ends all processes of a host, and those that they have started meanwhile.
func killAll(t *testing.T, h *lab.Host) {
	t.Helper()
	eventually(t, "no process runs in "+h.Name, func() bool {
		list := h.Processes()
		for _, pid := range list {
			kill(t, pid)
		}
		return len(list) == 0
	})
}

func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !f(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited for: %s", what)
		}
	}
}

// start starts a command of mobileops in a host, which is on its own then.
func start(t *testing.T, h *lab.Host, args ...string) (ended <-chan struct{}) {
	t.Helper()
	cmd := h.Command(context.Background(), lab.Binary(t), args...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(done)
	}()
	return done
}
