package isolation_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mobileops/mobileops/internal/network/isolation"
	"github.com/mobileops/mobileops/internal/network/lab"
	"github.com/mobileops/mobileops/internal/state"
)

// hangup is a context that is cancelled as soon as somebody has seen that it is
// not: so does a connection end that isolation has just cut.
type hangup struct {
	context.Context
	seen atomic.Bool
}

func interrupted() *hangup {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return &hangup{Context: ctx}
}

func (h *hangup) Err() error {
	if h.seen.Swap(true) {
		return context.Canceled
	}
	return nil
}

// TestAnInterruptionLeavesNothingHalfDone: what is in force and what is in force
// after a reboot agree, and a guard is there, whenever a command is interrupted.
func TestAnInterruptionLeavesNothingHalfDone(t *testing.T) {
	t.Parallel()
	s := stage(t)
	foes := s.foes()
	lab.Open(t, foes...)
	store := state.New(t.TempDir(), state.Options{})
	guards := 0
	e := &isolation.Engine{Store: store, Warn: t.Errorf, StartGuard: func() (<-chan error, error) {
		guards++
		return nil, context.DeadlineExceeded // there is none: it is enough that one is asked for
	}}
	record := func() *isolation.Record {
		t.Helper()
		r, err := isolation.Load(t.Context(), store)
		if err != nil || r == nil {
			t.Fatalf("%+v, %v", r, err)
		}
		return r
	}
	do := func(f func() error) {
		t.Helper()
		if err := s.host.Do(f); err != nil {
			t.Error(err)
		}
	}
	do(func() error {
		r, err := e.Isolate(interrupted(), isolation.Request{Options: isolation.Options{Confirm: time.Hour}, By: "a test"})
		if err == nil {
			err = r.RecordError
		}
		return err
	})
	lab.Blocked(t, foes...)
	if !record().Open() || record().Before == "" || guards != 1 {
		t.Errorf("%+v, %d guards", record(), guards)
	}
	do(func() error { return e.Confirm(interrupted(), time.Now()) })
	if !record().Lasts() {
		t.Errorf("confirmed isolation does not last: %+v", record())
	}
	do(func() error { _, err := e.Restore(interrupted(), "restored"); return err })
	lab.Open(t, foes...)
	if record().Open() {
		t.Error("the host is open, and would be isolated after a reboot")
	}
	// Before it has begun an interruption is the end of it.
	over, cancel := context.WithCancel(context.Background())
	cancel()
	if err := s.host.Do(func() error { _, err := e.Isolate(over, isolation.Request{By: "a test"}); return err }); err == nil {
		t.Error("isolated although it was interrupted before")
	}
	lab.Open(t, foes...)
}
