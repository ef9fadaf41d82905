package isolation_test

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mobileops/mobileops/internal/network/isolation"
	"github.com/mobileops/mobileops/internal/network/lab"
	"github.com/mobileops/mobileops/internal/state"
)

// TestTroubleWithTheStateIsNoReason isolates and restores a host whose state directory
// is none.
func TestTroubleWithTheStateIsNoReason(t *testing.T) {
	t.Parallel()
	s := stage(t)
	foes := s.foes()
	lab.Open(t, foes...)
	before := ruleset(t, s.host)
	broken := filepath.Join(s.host.Dir(), "no-directory")
	if err := os.WriteFile(broken, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s.host.Setenv("MOBILEOPS_STATE_DIR", broken)
	r := s.host.Mobileops(append([]string{"network", "isolate"}, allow(s.mgmt)...)...)
	if r.Status != 6 && r.Status != 0 {
		t.Errorf("isolate: %+v", r)
	}
	lab.Blocked(t, foes...)
	lab.Open(t, s.friends()...)
	if out := s.host.Mobileops("network", "status").Stdout; strings.Contains(out, "nobody") {
		t.Errorf("status does not know who is allowed, and says: %s", out)
	}
	s.host.Mobileops("network", "restore").Is(t, 3) // it cannot be audited, and is done
	lab.Open(t, foes...)
	if after := ruleset(t, s.host); after != before {
		t.Errorf("the ruleset is %s", after)
	}
}

// TestKilledAnywhere kills mobileops, and the guard that it may have started, at
// any moment of isolate: what is in force then is all or nothing, and restore
// takes it back.
func TestKilledAnywhere(t *testing.T) {
	t.Parallel()
	s := stage(t)
	friends, foes := s.friends(), s.foes()
	lab.Open(t, foes...)
	lab.Open(t, friends...)
	before := ruleset(t, s.host)
	var open, shut int
	for i := range 8 {
		ended := start(t, s.host, append([]string{"network", "isolate"}, allow(s.mgmt)...)...)
		time.Sleep(time.Duration(2+6*i)*time.Millisecond + rand.N(6*time.Millisecond))
		// On a busy machine it may not have entered the namespace yet.
		for gone := false; !gone; {
			select {
			case <-ended:
				gone = true
			case <-time.After(time.Millisecond):
			}
			killAll(t, s.host)
		}
		if ruleset(t, s.host) == before {
			open++
			lab.Open(t, foes...)
		} else {
			shut++
			lab.Blocked(t, foes...)
			lab.Open(t, friends...)
		}
		r := s.host.Mobileops("network", "restore")
		for end := time.Now().Add(time.Minute); r.Status == 8 && time.Now().Before(end); r = s.host.Mobileops("network", "restore") {
			killAll(t, s.host) // one that was not yet there to be killed
		}
		if r.Status != 0 && r.Status != 1 {
			t.Fatalf("restore: %+v", r)
		}
		if after := ruleset(t, s.host); after != before {
			t.Fatalf("the ruleset is %s", after)
		}
		s.forget(t)
		lab.Open(t, foes...)
	}
	t.Logf("killed %d times before it was in force, %d times after", open, shut)
}

// TestIsolatedAgainAfterItLapsed has the guard of isolation that has lapsed be late:
// it still owns the tables, and must neither keep the host from being isolated
// again nor take that for its own.
func TestIsolatedAgainAfterItLapsed(t *testing.T) {
	t.Parallel()
	s := stage(t)
	foes := s.foes()
	s.isolate(t, "--confirm", window.String())
	late := guardOf(t, s.host)
	if late == 0 {
		t.Fatal("no guard")
	}
	if err := syscall.Kill(late, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	lab.Open(t, foes...)
	s.host.Mobileops(append([]string{"network", "isolate"}, allow(s.mgmt)...)...).Is(t, 0)
	gone(t, late)
	lab.Blocked(t, foes...)
	s.host.Mobileops("network", "status").Is(t, 0)
	if guardOf(t, s.host) == 0 {
		t.Error("nobody guards it")
	}
	s.restore(t)
}

// TestNoOtherProcessIsTakenForTheGuard has the number of another process stand where
// the guard's is looked for.
func TestNoOtherProcessIsTakenForTheGuard(t *testing.T) {
	t.Parallel()
	s := stage(t)
	bystander := s.host.Command(t.Context(), "sleep", "600")
	if err := bystander.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- bystander.Wait() }()
	s.isolate(t, "--no-guard")
	dir := filepath.Join(s.host.Dir(), "state")
	lock, err := state.New(dir, state.Options{}).Lock(isolation.GuardLock, "network guard")
	if err != nil {
		t.Fatal(err)
	}
	record := fmt.Appendf(nil, "{\"pid\":%7d", bystander.Process.Pid)
	f, err := os.OpenFile(filepath.Join(dir, "locks", isolation.GuardLock+".lock"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	whole, err := io.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := bytes.Cut(whole, []byte(","))
	if _, err := f.WriteAt(slices.Concat(record, []byte(","), bytes.TrimRight(rest, " \n")), 0); err != nil {
		t.Fatal(err)
	}
	s.host.Mobileops("network", "restore").Is(t, 8)
	select {
	case err := <-ended:
		t.Errorf("a process that is no guard was ended: %v", err)
	default:
	}
	if err := lock.Release(); err != nil {
		t.Fatal(err)
	}
	s.restore(t)
}
