package isolation_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/network/isolation"
	"github.com/mobileops/mobileops/internal/network/lab"
	"github.com/mobileops/mobileops/internal/state"
)

// TestWhatCouldNotBeRememberedIsSaid takes the state directory away and gives it
// back between commands.
func TestWhatCouldNotBeRememberedIsSaid(t *testing.T) {
	t.Parallel()
	s := stage(t)
	foes := s.foes()
	lab.Open(t, foes...)
	dir := filepath.Join(t.TempDir(), "state")
	store := state.New(dir, state.Options{})
	e := &isolation.Engine{Store: store, Warn: func(string, ...any) {}}
	// Kept open, a state directory is none; and comes back.
	lose := func() {
		t.Helper()
		if err := os.Rename(dir, dir+".away"); err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		if err := os.WriteFile(dir, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	find := func() {
		t.Helper()
		if err := os.Remove(dir); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(dir+".away", dir); err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
	}
	isolate := func(allow ...*lab.Host) {
		t.Helper()
		q := isolation.Request{Options: isolation.Options{Confirm: time.Hour}, By: "a test"}
		for _, h := range allow {
			p, err := isolation.ParsePeer(h.IPv4().String(), "a test")
			if err != nil {
				t.Fatal(err)
			}
			q.Allow = append(q.Allow, p)
		}
		if err := s.host.Do(func() error { _, err := e.Isolate(t.Context(), q); return err }); err != nil {
			t.Fatal(err)
		}
	}
	confirm := func() error {
		return s.host.Do(func() error { return e.Confirm(t.Context(), time.Now()) })
	}
	lasts := func() bool {
		t.Helper()
		r, err := isolation.Load(t.Context(), store)
		if err != nil {
			t.Fatal(err)
		}
		return r.Lasts()
	}
	restore := func() error {
		return s.host.Do(func() error { _, err := e.Restore(t.Context(), "restored"); return err })
	}

	// Nothing is remembered of it.
	lose()
	isolate()
	find()
	if err := confirm(); failure.KindOf(err) != failure.Incomplete || !strings.Contains(err.Error(), "nothing is remembered") {
		t.Errorf("%v", err)
	}
	if err := restore(); err != nil {
		t.Error(err)
	}
	// What is remembered is of another one, which has lapsed and let somebody in.
	isolate(s.attacker)
	if err := s.host.Do(isolation.Restore); err != nil {
		t.Fatal(err)
	}
	time.Sleep(1100 * time.Millisecond) // tables are told apart by the second
	lose()
	isolate()
	find()
	if err := confirm(); failure.KindOf(err) != failure.Incomplete || lasts() {
		t.Errorf("%v; isolation that has lapsed would be in force after a reboot: %v", err, lasts())
	}
	lab.Blocked(t, foes...)
	if err := restore(); err != nil {
		t.Error(err)
	}
	// What could not be written is, when it is asked for again.
	isolate()
	lose()
	if err := confirm(); failure.KindOf(err) != failure.Incomplete {
		t.Errorf("%v", err)
	}
	find()
	if lasts() {
		t.Error("it was written")
	}
	if err := confirm(); err != nil || !lasts() {
		t.Errorf("%v; it lasts across a reboot: %v", err, lasts())
	}
	if err := confirm(); failure.KindOf(err) != failure.Busy {
		t.Errorf("%v", err)
	}
	// The same with what was taken back.
	lose()
	if err := restore(); err != nil && failure.KindOf(err) != failure.Failed {
		t.Errorf("%v", err)
	} else if err == nil || !strings.Contains(err.Error(), "after a reboot") {
		t.Errorf("%v", err)
	}
	lab.Open(t, foes...)
	find()
	if err := restore(); failure.KindOf(err) != failure.No || lasts() {
		t.Errorf("%v; it would be in force after a reboot: %v", err, lasts())
	}
}
