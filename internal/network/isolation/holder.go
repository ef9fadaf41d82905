package isolation

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/network/nft"
	"github.com/mobileops/mobileops/internal/state"
	"golang.org/x/sys/unix"
)

// GuardHolder returns who guards, and whether anybody does. Its time is zero when
// only the tables tell, and its PID when nothing does.
func (e *Engine) GuardHolder() (state.Holder, bool) {
	h, held := e.Store.Holder(GuardLock)
	if held && isGuard(h.PID) {
		return h, true
	}
	// On a full disk, whoever has the lock could not write its number down, and that
	// of the one before stands there, which may be anybody's by now.
	pid, ok := guardOfTables()
	if !ok {
		pid = 0
	}
	return state.Holder{PID: pid, Doing: "network guard"}, ok || held
}

func (e *Engine) guarded() bool { _, ok := e.GuardHolder(); return ok }

// How long a guard may take to come and to go.
const (
	guardPatience = 5 * time.Second
	guardManners  = time.Second // to go by itself; the time to confirm runs on
	guardPoll     = 2 * time.Millisecond
)

// startGuard starts a guard and waits until it owns the tables.
func (e *Engine) startGuard(ctx context.Context) (state.Holder, error) {
	if e.StartGuard == nil {
		return state.Holder{}, nil
	}
	if h, ok := e.GuardHolder(); ok {
		return h, nil
	}
	ended, err := e.StartGuard()
	if err != nil {
		return state.Holder{}, fmt.Errorf("start the guard: %w", err)
	}
	r, err := nft.OpenReader()
	if err != nil {
		return state.Holder{}, err
	}
	defer r.Close()
	for end := time.Now().Add(guardPatience); time.Now().Before(end) && ctx.Err() == nil; time.Sleep(guardPoll) {
		select {
		case err := <-ended:
			return state.Holder{}, fmt.Errorf("the guard ended: %v (see why: mobileops network guard)", err)
		default:
		}
		h, ok := e.GuardHolder()
		if !ok {
			continue
		}
		if info, _, err := r.Table(netdev); err == nil && (info.Owner != 0 || info.Flags&nft.Persist == 0) {
			return h, nil
		}
	}
	return state.Holder{}, fmt.Errorf("the guard did not come up within %v", guardPatience)
}

// guardAgain starts the guard anew after it made way for something that failed:
// what is in force still needs one.
func (e *Engine) guardAgain(ctx context.Context) {
	if now, err := Read(); err != nil || !now.InForce {
		return
	}
	if _, err := e.startGuard(context.WithoutCancel(ctx)); err != nil {
		e.Warn("isolation is in force, and the guard did not start again: %v", err)
	}
}

// pauseGuard makes a guard that runs let go of the tables, and tells whether
// there was one.
func (e *Engine) pauseGuard() (bool, error) {
	h, ok := e.GuardHolder()
	// One that is just ending has no name any more, and still has the lock.
	for end := time.Now().Add(guardManners); ok && h.PID <= 0 && time.Now().Before(end); time.Sleep(guardPoll) {
		h, ok = e.GuardHolder()
	}
	if !ok {
		return false, nil
	}
	if h.PID <= 0 {
		return true, failure.Errorf(failure.Busy, "a guard runs, and it cannot be told which process it is")
	}
	// A guard is not ended by whoever could not do anything about its tables.
	if _, err := Read(); err != nil {
		return true, err
	}
	p, err := os.FindProcess(h.PID)
	if err != nil {
		return true, err
	}
	for _, s := range []struct {
		signal unix.Signal
		wait   time.Duration
	}{{unix.SIGTERM, guardManners}, {unix.SIGKILL, guardPatience}} {
		if !isGuard(h.PID) {
			break
		}
		if err := p.Signal(s.signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
			return true, fmt.Errorf("stop the guard (pid %d): %w", h.PID, err)
		}
		for end := time.Now().Add(s.wait); time.Now().Before(end); time.Sleep(guardPoll) {
			if !e.guarded() {
				return true, nil
			}
		}
	}
	return true, failure.Hint(failure.Errorf(failure.Busy, "the guard (pid %d) does not end", h.PID),
		fmt.Sprintf("kill -9 %d leaves the rules in force", h.PID))
}

// isGuard reports whether a process was called as a guard is: no other one is
// signalled. One that is stopped, or hangs, is killed: it must not decide how long
// a host is cut off.
func isGuard(pid int) bool {
	line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	return err == nil && bytes.Contains(line, []byte("\x00guard\x00"))
}

func (e *Engine) stopGuard() error {
	_, err := e.pauseGuard()
	return err
}
