package supervise

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// patience of a test with a loaded machine.
const long = 60 * time.Second

const roleVariable = "SUPERVISE_TEST_ROLE"

// TestMain is also the supervisor that is killed, and the daemon that is
// detached.
func TestMain(m *testing.M) {
	switch role := os.Getenv(roleVariable); role {
	case "":
		os.Exit(m.Run())
	case "supervisor":
		if err := beSupervisor(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(3)
		}
	default:
		fmt.Fprintln(os.Stderr, "no such role:", role)
		os.Exit(2)
	}
}

// shellService is a service of another process, as it is told in JSON.
type shellService struct {
	Name   string
	Script string
	StopMS int
}

// beSupervisor runs a supervisor in a process of its own.
func beSupervisor() error {
	dir := os.Getenv("SUPERVISE_TEST_DIR")
	var services []shellService
	if err := json.Unmarshal([]byte(os.Getenv("SUPERVISE_TEST_SERVICES")), &services); err != nil {
		return err
	}
	s, err := New(Options{
		RunDir: filepath.Join(dir, "run"), LogDir: filepath.Join(dir, "log"), Socket: filepath.Join(dir, "run", "sock"),
		Subreaper: true, Version: "test",
		Warn: func(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) },
	})
	if err != nil {
		return err
	}
	for _, svc := range services {
		if err := s.Add(Service{Name: svc.Name, Start: shell(svc.Script), StopTimeout: time.Duration(svc.StopMS) * time.Millisecond}); err != nil {
			return err
		}
		if err := s.Start(context.Background(), svc.Name); err != nil {
			return err
		}
	}
	return s.Run(context.Background())
}

// supervisorCommand is the test binary as a supervisor.
func supervisorCommand(dir string, services ...shellService) *exec.Cmd {
	b, _ := json.Marshal(services)
	self, err := os.Executable()
	if err != nil {
		panic(err)
	}
	cmd := exec.Command(self)
	cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"), roleVariable + "=supervisor",
		"SUPERVISE_TEST_DIR=" + dir, "SUPERVISE_TEST_SERVICES=" + string(b),
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	return cmd
}

// shell is a Start that runs a script.
func shell(script string) func(context.Context, Setup) (Process, error) {
	return Program(func() *exec.Cmd {
		cmd := exec.Command("/bin/sh", "-c", script)
		cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}
		return cmd
	})
}

// running is a supervisor that works as long as its test.
type running struct {
	*Supervisor
	t   *testing.T
	dir string
	end func() error
}

// begin runs a supervisor.
func begin(t *testing.T, change func(*Options)) *running {
	t.Helper()
	dir := t.TempDir()
	o := Options{RunDir: filepath.Join(dir, "run"), LogDir: filepath.Join(dir, "log"), Socket: filepath.Join(dir, "run", "sock"), Subreaper: true,
		Warn: func(format string, args ...any) { t.Logf("warning: "+format, args...) }}
	if change != nil {
		change(&o)
	}
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	result := make(chan error, 1)
	go func() { result <- s.Run(ctx) }()
	over := false
	r := &running{Supervisor: s, t: t, dir: dir}
	r.end = func() error {
		if over {
			return nil
		}
		over = true
		cancel()
		return <-result
	}
	t.Cleanup(func() {
		if err := r.end(); err != nil {
			t.Errorf("the supervisor ended with %v", err)
		}
	})
	return r
}

// client asks the supervisor.
func (r *running) client() *Client {
	r.t.Helper()
	c, err := Dial(r.t.Context(), r.options.Socket)
	if err != nil {
		r.t.Fatal(err)
	}
	return c
}

// add adds a service and starts it.
func (r *running) add(svc Service) {
	r.t.Helper()
	if err := r.Add(svc); err != nil {
		r.t.Fatal(err)
	}
	if err := r.Start(r.t.Context(), svc.Name); err != nil {
		r.t.Fatal(err)
	}
}

// until waits until a service is as it should be.
func (r *running) until(name, what string, good func(Status) bool) Status {
	r.t.Helper()
	limit := time.After(long)
	for {
		changed := r.changes()
		st, err := r.Status(name)
		if err != nil {
			r.t.Fatal(err)
		}
		if good(st) {
			return st
		}
		select {
		case <-changed:
		case <-limit:
			r.t.Fatalf("%s does not become %s; it is %+v; its log: %q", name, what, st, r.text(name))
		}
	}
}

func (r *running) state(name string, state State) Status {
	r.t.Helper()
	return r.until(name, string(state), func(st Status) bool { return st.State == state })
}

// text is what a service printed, as far as it is in memory.
func (r *running) text(name string) []string {
	u, err := r.unit(name)
	if err != nil {
		r.t.Fatal(err)
	}
	var list []string
	for _, l := range u.log.last(ringLines) {
		list = append(list, l.Stream+": "+string(l.Text))
	}
	return list
}

// prints waits until a service has printed a line.
func (r *running) prints(name, line string) {
	r.t.Helper()
	eventually(r.t, name+" prints "+line, func() bool { return slices.Contains(r.text(name), line) })
}

// written waits until the log of a service is in its files, for which the
// supervisor itself waits only a moment.
func (r *running) written(name string) {
	r.t.Helper()
	u, err := r.unit(name)
	if err != nil {
		r.t.Fatal(err)
	}
	eventually(r.t, "the log of "+name+" is written", func() bool {
		u.log.mu.Lock()
		defer u.log.mu.Unlock()
		return len(u.log.pending) == 0 && !u.log.busy
	})
}

// eventually waits until something is true.
func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(long); !f(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}

// number waits for a file with the number of a process.
func number(t *testing.T, path string) identity {
	t.Helper()
	var id identity
	eventually(t, path+" names a process", func() bool {
		b, err := os.ReadFile(path)
		if err != nil || !strings.HasSuffix(string(b), "\n") {
			return false
		}
		pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
		if err != nil {
			return false
		}
		p, err := readProc(pid)
		if err != nil {
			return false
		}
		id = p.identity()
		return true
	})
	return id
}

// gone fails when a process still runs after its service has ended.
func gone(t *testing.T, what string, id identity) {
	t.Helper()
	if id.alive() {
		_ = id.signal(syscall.SIGKILL)
		t.Errorf("%s, process %d, still runs", what, id.pid)
	}
}

// isReady is a Ready that waits for a file.
func isReady(path string) func(context.Context, Process) error {
	return func(ctx context.Context, _ Process) error {
		for {
			if _, err := os.Stat(path); err == nil {
				return nil
			} else if !errors.Is(err, os.ErrNotExist) {
				return err
			}
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(5 * time.Millisecond):
			}
		}
	}
}

// alive reports whether the process of that identity has not ended.
func (id identity) alive() bool {
	p, err := readProc(id.pid)
	return err == nil && p.start == id.start && !p.dead()
}
