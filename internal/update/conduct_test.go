package update_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mobileops/mobileops/internal/state"
	"github.com/mobileops/mobileops/internal/update"
)

// awaits waits until something is so.
func (s *site) awaits(what string, is func() bool) {
	s.Helper()
	for end := time.Now().Add(2 * time.Minute); !is(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			s.Fatalf("never came: %s", what)
		}
	}
}

// begun starts a child, which is killed at the end of the test if it is still
// there.
func (s *site) begun(op string) (*exec.Cmd, func() string) {
	s.Helper()
	cmd, out := s.process(op, "")
	cmd.WaitDelay = time.Minute
	if err := cmd.Start(); err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	return cmd, out.String
}

func (s *site) there(name string) func() bool {
	return func() bool { _, err := os.Stat(s.dir + "/" + name); return err == nil }
}

// last returns the latest event.
func (s *site) last() update.Event {
	s.Helper()
	list, err := s.engine().History(context.Background(), 1)
	if err != nil || len(list) == 0 {
		s.Fatalf("%v, %v", list, err)
	}
	return list[0]
}

// holding is a package whose health check goes on until it is ended.
func (s *site) holding(sequence uint64) string {
	return s.pack(sequence, "health: {command: [check], deadline: 5m}\n", files{"a": "hold", "check 755": "#!/bin/sh\n: >'" + s.dir + "/trial'\nexec sleep 600\n"})
}

// TestRollbackEndsALiveTrial: whoever is in the check is asked to end it, and one
// step back is one step.
func TestRollbackEndsALiveTrial(t *testing.T) {
	for name, to := range map[string]int{"to what was before": 0, "to the same by its number": 2, "further": 1} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			s.apply(s.pack(1, "", files{"a": "1"}))
			s.apply(s.pack(2, "", files{"a": "2"}))
			cmd, out := s.begun("apply " + s.holding(3))
			s.awaits("the trial", s.there("trial"))
			r, err := s.engine().Rollback(context.Background(), to, nil)
			if err != nil || !r.Live {
				t.Fatalf("%+v, %v", r, err)
			}
			if err := cmd.Wait(); err == nil || !strings.Contains(out(), "generation 2 is current again") {
				t.Errorf("who conducted it: %v: %s", err, out())
			}
			if to == 1 {
				if ev := s.last(); r.Generation.Number != 1 || r.From != 2 || ev.Kind != update.EventRollback || ev.To != 1 {
					t.Errorf("%+v, %+v", r, ev)
				}
				s.is(files{"a": "1"})
			} else {
				if ev := s.last(); r.Generation.Number != 2 || r.From != 3 || ev.Kind != update.EventUndone || ev.From != 3 || ev.To != 2 {
					t.Errorf("%+v, %+v", r, ev)
				}
				s.is(files{"a": "2"})
			}
			if p, err := s.engine().Pending(); p != nil || err != nil {
				t.Errorf("still on trial: %v, %v", p, err)
			}
			s.verified()
		})
	}
}

// TestRollbackDisturbsNobodyElse: without a trial, whoever is at work goes on.
func TestRollbackDisturbsNobodyElse(t *testing.T) {
	s := newSite(t)
	s.apply(s.pack(1, "", files{"a": "1"}))
	s.apply(s.pack(2, "", files{"a": "2"}))
	cmd, out := s.begun("hold")
	lock := state.New(s.dir+"/app.store", state.Options{})
	s.awaits("the lock", func() bool { h, held := lock.Holder("update"); return held && h.PID == cmd.Process.Pid })
	var held *state.HeldError
	if _, err := s.engine().Rollback(context.Background(), 0, nil); !errors.As(err, &held) {
		t.Errorf("%v", err)
	}
	if h, busy := lock.Holder("update"); !busy || h.PID != cmd.Process.Pid {
		t.Errorf("it was ended: %s", out())
	}
	s.is(files{"a": "2"})
}

// TestCutOffWhileGoingBack: the link is switched back, and nobody was told yet.
func TestCutOffWhileGoingBack(t *testing.T) {
	for name, next := range map[string]func(*update.Engine) (bool, error){
		"resolve": func(e *update.Engine) (bool, error) {
			_, r, err := e.Resolve(context.Background(), new(update.Notice))
			return r != nil && r.Undone != "" && r.From == 2, err
		},
		"rollback": func(e *update.Engine) (bool, error) {
			r, err := e.Rollback(context.Background(), 0, nil)
			return err == nil && r.From == 3 && r.Generation.Number == 2, err
		},
		"prune": func(e *update.Engine) (bool, error) {
			_, err := e.Prune(context.Background(), 9, new(update.Notice))
			return true, err
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			s.apply(s.pack(1, "", files{"a": "1"}))
			s.apply(s.pack(2, "", files{"a": "2"}))
			s.touch("sick")
			if cmd, out := s.process("apply "+s.hooked(3, "3"), "switched:2"); cmd.Run() == nil {
				t.Fatalf("it was not killed: %s", out)
			}
			s.is(files{"a": "2"})
			s.log()
			if ok, err := next(s.engine()); !ok || err != nil {
				t.Errorf("%v, %v", ok, err)
			}
			if got := s.log(); got != "rollback 3 2\n" {
				t.Errorf("hooks: %q", got)
			}
			if ev := s.last(); ev.Kind != update.EventUndone || ev.From != 3 || ev.To != 2 {
				t.Errorf("%+v", ev)
			}
			s.is(files{"a": "2"})
			if p, r, err := s.engine().Resolve(context.Background(), new(update.Notice)); p != nil || err != nil || s.log() != "" {
				t.Errorf("again: %+v, %+v, %v", p, r, err)
			}
		})
	}
}

// TestCutOffBeforeTheSwitch: what was never current was not undone.
func TestCutOffBeforeTheSwitch(t *testing.T) {
	s := newSite(t)
	s.apply(s.pack(1, "", files{"a": "1"}))
	if cmd, out := s.process("apply "+s.hooked(2, "2"), "switch"); cmd.Run() == nil {
		t.Fatalf("it was not killed: %s", out)
	}
	s.log()
	if p, r, err := s.engine().Resolve(context.Background(), new(update.Notice)); p == nil || r != nil || err != nil {
		t.Errorf("%+v, %+v, %v", p, r, err)
	}
	if got, ev := s.log(), s.last(); got != "" || ev.Kind != update.EventApply {
		t.Errorf("%q, %+v", got, ev)
	}
}

// TestOrphans: a hook that a killed process left running has ended before anything
// is run again, with what it had started.
func TestOrphans(t *testing.T) {
	const script = `#!/bin/sh
cd '%s'
running() { tr '\0' ' ' <"/proc/$1/cmdline" 2>/dev/null | grep -q sleep; }
if [ -e first ]; then
	for pid in $(cat first); do ! running "$pid" || echo "$pid still runs"; done >>hooks.log
	exit 0
fi
sleep 600 &
echo $! $$ >first.new
mv first.new first
: >trial
exec sleep 600
`
	for name, manifest := range map[string]string{
		"before": "hooks: {before: {command: [h], timeout: 60s}}\n",
		"after":  "hooks: {after: {command: [h], timeout: 60s}}\n",
		"health": "health: {command: [h], deadline: 60s}\n",
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			s.apply(s.pack(1, "", files{"a": "1"}))
			path := s.pack(2, manifest, files{"a": "2", "h 755": strings.ReplaceAll(script, "%s", s.dir)})
			cmd, _ := s.begun("apply " + path)
			s.awaits("the hook", s.there("trial"))
			s.awaits("the note about it", func() bool {
				data, _ := os.ReadFile(s.dir + "/app.store/hook")
				return strings.HasSuffix(string(data), "\n")
			})
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
			data, err := os.ReadFile(s.dir + "/first")
			if err != nil || len(strings.Fields(string(data))) != 2 {
				t.Fatalf("%q, %v", data, err)
			}
			if name == "before" {
				s.apply(path)
			} else if _, r, err := s.engine().Resolve(context.Background(), new(update.Notice)); err != nil || !r.Live {
				t.Fatalf("%+v, %v", r, err)
			}
			if got := s.log(); got != "" {
				t.Error(got)
			}
			if _, err := os.Stat(s.dir + "/app.store/hook"); err == nil {
				t.Error("a note about a hook is left")
			}
		})
	}
}

// TestOrphanIsKnown: a process that has the number of a hook by now, and is
// another one, is left alone; so is a note that cannot be read.
func TestOrphanIsKnown(t *testing.T) {
	s := newSite(t)
	s.apply(s.pack(1, "", files{"a": "1"}))
	cmd := exec.Command("sleep", "600")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	s.must(cmd.Start())
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	defer func() { _ = cmd.Process.Kill(); <-ended }()
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	s.must(err)
	for _, note := range []string{
		fmt.Sprintf(`{"pid":%d,"start":1,"boot":"%s"}`, cmd.Process.Pid, strings.TrimSpace(string(boot))),
		fmt.Sprintf(`{"pid":%d,"start":%d,"boot":"other"}`, cmd.Process.Pid, startOf(t, cmd.Process.Pid)),
		`{"pid":-1,"start":0}`, `{"pid":`, "",
	} {
		s.must(os.WriteFile(s.dir+"/app.store/hook", []byte(note), 0o644))
		_, err := s.engine().Prune(context.Background(), 9, new(update.Notice))
		s.must(err)
		if err := cmd.Process.Signal(syscall.Signal(0)); err != nil {
			t.Fatalf("%s ended it: %v", note, err)
		}
	}
	// And the one that is meant is ended.
	s.must(os.WriteFile(s.dir+"/app.store/hook", fmt.Appendf(nil, `{"pid":%d,"start":%d,"boot":"%s"}`, cmd.Process.Pid, startOf(t, cmd.Process.Pid), strings.TrimSpace(string(boot))), 0o644))
	_, err = s.engine().Prune(context.Background(), 9, new(update.Notice))
	s.must(err)
	if err := <-ended; err == nil {
		t.Error("it ended by itself")
	}
	ended <- nil
}

// startOf is field 22 of /proc/PID/stat, of a process whose name has no space.
func startOf(t *testing.T, pid int) (start uint64) {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err == nil {
		_, err = fmt.Sscan(strings.Fields(string(data))[21], &start)
	}
	if err != nil {
		t.Fatal(err)
	}
	return start
}
