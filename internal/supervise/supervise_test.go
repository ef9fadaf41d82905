package supervise

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
)

func TestReadyAndStopped(t *testing.T) {
	r := begin(t, nil)
	flag, let := filepath.Join(r.dir, "ready"), filepath.Join(r.dir, "let")
	r.add(Service{Name: "one", Ready: isReady(flag), Start: shell(`
		trap 'echo drained; exit 0' TERM
		echo begun; echo trouble >&2
		while [ ! -e ` + let + ` ]; do sleep 0.02; done; : >` + flag + `
		while :; do sleep 0.05; done`)})
	r.prints("one", "stdout: begun")
	if st, _ := r.Status("one"); st.State == Ready {
		t.Errorf("ready before it said so: %+v", st)
	}
	if err := os.WriteFile(let, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	st, err := r.Await(t.Context(), "one")
	if err != nil || st.PID == 0 || st.Started == nil || st.Restarts != 0 {
		t.Fatalf("%+v, %v", st, err)
	}
	if err := r.Start(t.Context(), "one"); !errors.Is(err, ErrRunning) || failure.KindOf(err) != failure.Busy {
		t.Errorf("a second start: %v", err)
	}
	if err := r.SetHealth("one", Health{Status: "degraded", Message: "slow", Metrics: map[string]float64{"queued": 3}}); err != nil {
		t.Fatal(err)
	}
	if st, _ := r.Status("one"); st.Health == nil || st.Health.Metrics["queued"] != 3 {
		t.Errorf("health: %+v", st)
	}
	main, err := readProc(st.PID)
	if err != nil || main.pgid != main.pid || main.sid != main.pid {
		t.Errorf("not in a session and group of its own: %+v, %v", main, err)
	}
	if err := r.Stop(t.Context(), "one"); err != nil {
		t.Fatal(err)
	}
	st, _ = r.Status("one")
	if st.State != Stopped || st.PID != 0 || st.Exit == nil || !st.Exit.Clean() || st.Health != nil {
		t.Errorf("after the stop: %+v", st)
	}
	gone(t, "the main process", main.identity())
	text := r.text("one")
	for _, want := range []string{"stdout: begun", "stderr: trouble", "stdout: drained", "supervisor: exit status 0"} {
		if !slices.Contains(text, want) {
			t.Errorf("%q is not in the log %q", want, text)
		}
	}
	if err := r.Stop(t.Context(), "one"); !errors.Is(err, ErrStopped) {
		t.Errorf("a second stop: %v", err)
	}
	if err := r.Restart(t.Context(), "one"); err != nil {
		t.Fatal(err)
	}
	r.state("one", Ready)
	if err := r.Stop(t.Context(), "none"); !errors.Is(err, ErrUnknown) {
		t.Errorf("a service that is not there: %v", err)
	}
}

func TestCrashLoop(t *testing.T) {
	r := begin(t, nil)
	count := filepath.Join(r.dir, "count")
	r.add(Service{
		Name: "one", Start: shell(`echo x >>` + count + `; echo broken >&2; exit 7`),
		Backoff: Backoff{Start: time.Millisecond, Max: 8 * time.Millisecond}, Limit: Limit{Count: 4, Window: time.Hour},
	})
	st := r.state("one", Failed)
	if st.Restarts != 4 || st.Exit == nil || st.Exit.Code != 7 || !strings.Contains(st.Message, "exit status 7; given up after 4 restarts") {
		t.Errorf("%+v", st)
	}
	if !slices.ContainsFunc(st.Last, func(l Line) bool { return l.Stream == Stderr && string(l.Text) == "broken" }) {
		t.Errorf("its last lines: %+v", st.Last)
	}
	if b, _ := os.ReadFile(count); len(b) != 2*5 {
		t.Errorf("it was started %d times", len(b)/2)
	}
	if err := r.Stop(t.Context(), "one"); err != nil {
		t.Errorf("stopping a failed one: %v", err)
	}
	if st, _ := r.Status("one"); st.State != Stopped {
		t.Errorf("%+v", st)
	}
}

// TestBackoff reads the waits from what is announced.
func TestBackoff(t *testing.T) {
	r := begin(t, nil)
	changes, err := r.Watch(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	r.add(Service{
		Name: "one", Start: shell(`exit 1`),
		Backoff: Backoff{Start: 20 * time.Millisecond, Max: 60 * time.Millisecond}, Limit: Limit{Count: 4},
	})
	var waits []time.Duration
	for st := range changes {
		if st.State == BackingOff {
			waits = append(waits, st.Next.Sub(st.Since))
		}
		if st.State == Failed {
			break
		}
	}
	want := []time.Duration{20 * time.Millisecond, 40 * time.Millisecond, 60 * time.Millisecond, 60 * time.Millisecond}
	if len(waits) != len(want) {
		t.Fatalf("waits %v", waits)
	}
	for i, w := range want {
		if waits[i] < w || waits[i] > w+w/8+1 {
			t.Errorf("wait %d is %v, want %v and a little", i, waits[i], w)
		}
	}
}

func TestStopWhileBackingOff(t *testing.T) {
	r := begin(t, nil)
	r.add(Service{Name: "one", Start: shell(`exit 1`), Backoff: Backoff{Start: time.Hour, Max: time.Hour}, Ready: isReady("/nonexistent")})
	st, err := r.Await(t.Context(), "one")
	if err == nil || st.State != BackingOff || !strings.Contains(err.Error(), "exit status 1") {
		t.Errorf("%+v, %v", st, err)
	}
	if err := r.Stop(t.Context(), "one"); err != nil {
		t.Fatal(err)
	}
	if st, _ := r.Status("one"); st.State != Stopped || st.Next != nil {
		t.Errorf("%+v", st)
	}
}

func TestRestartPolicies(t *testing.T) {
	r := begin(t, nil)
	for i, tc := range []struct {
		restart Restart
		script  string
		state   State
	}{
		{Never, "exit 0", Stopped}, {Never, "exit 1", Failed}, {Never, "kill -KILL $$", Failed},
		{OnFailure, "exit 0", Stopped}, {OnFailure, "exit 1", BackingOff}, {OnFailure, "kill -TERM $$", BackingOff},
		{Always, "exit 0", BackingOff}, {Always, "exit 1", BackingOff},
	} {
		name := fmt.Sprintf("s%d", i)
		r.add(Service{Name: name, Start: shell(tc.script), Restart: tc.restart, Backoff: Backoff{Start: time.Hour}})
		r.until(name, fmt.Sprintf("%s after %q with %s", tc.state, tc.script, tc.restart), func(st Status) bool {
			return st.State == tc.state && st.Exit != nil
		})
	}
}

func TestNeverReady(t *testing.T) {
	r := begin(t, nil)
	svc := Service{
		Name: "slow", Start: shell(`exec sleep 1000`), Restart: Never, ReadyTimeout: 200 * time.Millisecond,
		Ready: func(ctx context.Context, _ Process) error { <-ctx.Done(); return ctx.Err() },
	}
	r.add(svc)
	if st := r.state("slow", Failed); !strings.Contains(st.Message, "not ready within 200ms") {
		t.Errorf("%+v", st)
	}
	svc.Name, svc.Ready = "deaf", func(context.Context, Process) error { select {} }
	r.add(svc)
	if st := r.state("deaf", Failed); !strings.Contains(st.Message, "not ready within 200ms") {
		t.Errorf("%+v", st)
	}
	svc.ReadyTimeout = long
	svc.Name, svc.Ready = "wrong", func(context.Context, Process) error { return errors.New("port is taken") }
	r.add(svc)
	if st := r.state("wrong", Failed); !strings.Contains(st.Message, "port is taken") {
		t.Errorf("%+v", st)
	}
	svc.Name, svc.Start = "dies", shell(`exit 3`)
	svc.Ready = func(ctx context.Context, _ Process) error { <-ctx.Done(); return ctx.Err() }
	r.add(svc)
	if st := r.state("dies", Failed); !strings.Contains(st.Message, "ended before it was ready: exit status 3") {
		t.Errorf("%+v", st)
	}
	svc.Name, svc.Start = "absent", Program(func() *exec.Cmd { return exec.Command("/nonexistent/program") })
	r.add(svc)
	if st := r.state("absent", Failed); !strings.Contains(st.Message, "no such file") {
		t.Errorf("%+v", st)
	}
}

// TestStartThatHangs stops a service whose Start does not come back, and sees
// that what it comes back with later is ended.
func TestStartThatHangs(t *testing.T) {
	r := begin(t, nil)
	begun, let := make(chan struct{}), make(chan struct{})
	var late atomic.Int64
	r.add(Service{
		Name: "one", StopTimeout: 50 * time.Millisecond, Restart: Never,
		Start: func(ctx context.Context, setup Setup) (Process, error) {
			cmd := exec.Command("sleep", "1000")
			close(begun)
			<-let
			p, err := StartCommand(cmd, Setup{Mark: setup.Mark}, "")
			if err == nil {
				late.Store(int64(p.PID()))
			}
			return p, err
		},
	})
	<-begun
	if err := r.Stop(t.Context(), "one"); err != nil {
		t.Fatal(err)
	}
	close(let)
	eventually(t, "it was started", func() bool { return late.Load() != 0 })
	eventually(t, "it was ended", func() bool {
		_, err := os.Stat(fmt.Sprintf("/proc/%d", late.Load()))
		return errors.Is(err, os.ErrNotExist)
	})
}

func TestPanicsStayAtHome(t *testing.T) {
	r := begin(t, nil)
	r.add(Service{Name: "good", Start: shell(`exec sleep 1000`)})
	pid := r.state("good", Ready).PID
	boom := func(context.Context, Process) error { panic("boom") }
	for name, svc := range map[string]Service{
		"start": {Start: func(context.Context, Setup) (Process, error) { panic("boom") }},
		"ready": {Start: shell(`exec sleep 1000`), Ready: boom},
		"check": {Start: shell(`exec sleep 1000`), Check: boom, CheckInterval: 2 * time.Second},
	} {
		svc.Name, svc.Restart = name, Never
		r.add(svc)
		st := r.state(name, Failed)
		if !strings.Contains(st.Message, "panic: boom") {
			t.Errorf("%s: %+v", name, st)
		}
		if text := strings.Join(r.text(name), "\n"); !strings.Contains(text, "goroutine") {
			t.Errorf("%s: the log does not say where: %s", name, text)
		}
	}
	if st, _ := r.Status("good"); st.State != Ready || st.PID != pid || st.Restarts != 0 {
		t.Errorf("the other one: %+v", st)
	}
}

// TestPanicInTheSupervision has suture catch what is a mistake of the package
// itself: here a wait that is not possible.
func TestPanicInTheSupervision(t *testing.T) {
	r := begin(t, nil)
	r.add(Service{Name: "good", Start: shell(`exec sleep 1000`)})
	good := r.state("good", Ready).PID
	// Each panic counts as a restart, and nobody knows how many there are until
	// the service is replaced.
	svc := Service{Name: "one", Start: shell(`exec sleep 1000`), Backoff: Backoff{Start: time.Hour}, Limit: Limit{Count: -1}}
	r.add(svc)
	main := r.state("one", Ready).PID
	u, _ := r.unit("one")
	u.mu.Lock()
	u.service.Backoff.Start = -1000
	u.mu.Unlock()
	if err := syscall.Kill(main, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it panics", func() bool {
		return slices.ContainsFunc(r.text("one"), func(l string) bool { return strings.HasPrefix(l, "supervisor: panic:") })
	})
	if err := r.Replace(svc); err != nil {
		t.Fatal(err)
	}
	st := r.until("one", "seen to", func(st Status) bool { return strings.Contains(st.Message, "panicked") })
	if st.State != BackingOff {
		t.Errorf("%+v", st)
	}
	if st, _ := r.Status("good"); st.State != Ready || st.PID != good {
		t.Errorf("the other one: %+v", st)
	}
}

func TestWatchdog(t *testing.T) {
	r := begin(t, nil)
	var hang atomic.Bool
	r.add(Service{
		Name: "one", Start: shell(`exec sleep 1000`), CheckInterval: 2 * time.Second,
		Backoff: Backoff{Start: time.Hour},
		Check: func(ctx context.Context, p Process) error {
			if p.PID() <= 0 {
				return errors.New("no process")
			}
			if hang.Load() {
				select {}
			}
			return nil
		},
	})
	st := r.state("one", Ready)
	main, err := readProc(st.PID)
	if err != nil {
		t.Fatal(err)
	}
	hang.Store(true)
	if st := r.state("one", BackingOff); !strings.Contains(st.Message, "no answer to a check within 2s") {
		t.Errorf("%+v", st)
	}
	gone(t, "one that hangs", main.identity())
}

// TestOrder starts what others come after first, and stops it last.
func TestOrder(t *testing.T) {
	r := begin(t, nil)
	flag := filepath.Join(r.dir, "ready")
	order := filepath.Join(r.dir, "order")
	script := func(name string) string {
		return fmt.Sprintf(`trap 'sleep 0.1; echo -%[1]s >>%[2]s; exit 0' TERM; echo +%[1]s >>%[2]s; while :; do sleep 0.02; done`, name, order)
	}
	r.add(Service{Name: "base", StopTimeout: long, Start: shell(script("base")), Ready: isReady(flag), ReadyTimeout: long})
	r.add(Service{Name: "mid", StopTimeout: long, ReadyTimeout: long, After: []string{"base", "unheard-of"}, Start: shell(script("mid")), Ready: func(ctx context.Context, _ Process) error {
		for ctx.Err() == nil {
			if b, _ := os.ReadFile(order); strings.Contains(string(b), "+mid") {
				return nil
			}
			time.Sleep(time.Millisecond)
		}
		return ctx.Err()
	}})
	r.add(Service{Name: "top", StopTimeout: long, After: []string{"mid"}, Start: shell(script("top"))})
	r.until("mid", "waiting", func(st Status) bool { return st.State == Starting && st.Message == "waits for base" })
	eventually(t, "the first one has begun", func() bool {
		b, _ := os.ReadFile(order)
		return string(b) == "+base\n"
	})
	if err := os.WriteFile(flag, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	r.state("top", Ready)
	eventually(t, "all have begun", func() bool {
		b, _ := os.ReadFile(order)
		return strings.Count(string(b), "\n") == 3
	})
	if err := r.Replace(Service{Name: "base", After: []string{"top"}, Start: shell("")}); failure.KindOf(err) != failure.Usage {
		t.Errorf("a circle: %v", err)
	}
	if err := r.end(); err != nil {
		t.Fatal(err)
	}
	b, _ := os.ReadFile(order)
	if got := strings.Fields(string(b)); !slices.Equal(got, []string{"+base", "+mid", "+top", "-top", "-mid", "-base"}) {
		t.Errorf("order %v", got)
	}
}

// TestFifty starts and stops many at once.
func TestFifty(t *testing.T) {
	r := begin(t, nil)
	c := r.client()
	var all sync.WaitGroup
	begun := time.Now()
	for i := range 50 {
		name := fmt.Sprintf("s%02d", i)
		if err := r.Add(Service{Name: name, ReadyTimeout: long, Start: shell(`echo hello; sleep 1000 & exec sleep 1000`)}); err != nil {
			t.Fatal(err)
		}
		all.Go(func() {
			if st, err := c.Start(t.Context(), name, true); err != nil || st.State != Ready {
				t.Errorf("%+v, %v", st, err)
			}
		})
	}
	all.Wait()
	t.Logf("50 started in %v", time.Since(begun))
	list, err := c.List(t.Context())
	if err != nil || len(list) != 50 {
		t.Fatalf("%d services, %v", len(list), err)
	}
	var ids []identity
	for _, st := range list {
		p, err := readProc(st.PID)
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, p.identity())
	}
	begun = time.Now()
	if err := r.end(); err != nil {
		t.Fatal(err)
	}
	t.Logf("50 stopped in %v", time.Since(begun))
	for _, id := range ids {
		gone(t, "a service", id)
	}
	if left, _ := filepath.Glob(filepath.Join(r.options.RunDir, "*"+recordSuffix)); len(left) > 0 {
		t.Errorf("records are left: %v", left)
	}
}

func TestWhatIsNoService(t *testing.T) {
	r := begin(t, nil)
	for _, svc := range []Service{
		{Name: "", Start: shell("")}, {Name: "../x", Start: shell("")}, {Name: "-x", Start: shell("")}, {Name: strings.Repeat("x", 65), Start: shell("")},
		{Name: "x"}, {Name: "x", Start: shell(""), Restart: "sometimes"}, {Name: "x", Start: shell(""), After: []string{"x"}},
	} {
		if err := r.Add(svc); failure.KindOf(err) != failure.Usage {
			t.Errorf("%+v: %v", svc, err)
		}
	}
	if err := r.Add(Service{Name: "x", Start: shell("")}); err != nil {
		t.Fatal(err)
	}
	if err := r.Add(Service{Name: "x", Start: shell("")}); failure.KindOf(err) != failure.Usage {
		t.Errorf("twice: %v", err)
	}
	for _, h := range []Health{{}, {Status: "fine"}, {Status: "ok", Message: strings.Repeat("x", 2000)}, {Status: "ok", Metrics: map[string]float64{"": 1}}} {
		if err := r.SetHealth("x", h); failure.KindOf(err) != failure.Usage {
			t.Errorf("health %+v: %v", h, err)
		}
	}
	if err := r.Remove(t.Context(), "x"); err != nil {
		t.Error(err)
	}
	if err := r.Remove(t.Context(), "x"); !errors.Is(err, ErrUnknown) {
		t.Error(err)
	}
}
