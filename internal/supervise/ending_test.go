package supervise

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestIgnoresTheRequest(t *testing.T) {
	r := begin(t, nil)
	child := filepath.Join(r.dir, "child")
	r.add(Service{Name: "one", StopTimeout: 200 * time.Millisecond, Start: shell(`
		trap '' TERM
		(trap '' TERM; while :; do sleep 0.05; done) & echo $! >` + child + `
		while :; do sleep 0.05; done`)})
	main, err := readProc(r.state("one", Ready).PID)
	if err != nil {
		t.Fatal(err)
	}
	other := number(t, child)
	begun := time.Now()
	if err := r.Stop(t.Context(), "one"); err != nil {
		t.Fatal(err)
	}
	if d := time.Since(begun); d < 200*time.Millisecond {
		t.Errorf("it was given %v to end in", d)
	}
	gone(t, "the main process", main.identity())
	gone(t, "its child", other)
	if st, _ := r.Status("one"); st.Exit == nil || st.Exit.Signal != syscall.SIGKILL {
		t.Errorf("%+v", st)
	}
}

func TestStoppedProcessesEndToo(t *testing.T) {
	r := begin(t, nil)
	r.add(Service{Name: "one", Start: shell(`kill -STOP $$; sleep 1000`)})
	main, err := readProc(r.state("one", Ready).PID)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "it has stopped itself", func() bool { p, _ := readProc(main.pid); return p.state == 'T' })
	if err := r.Stop(t.Context(), "one"); err != nil {
		t.Fatal(err)
	}
	if st, _ := r.Status("one"); st.Exit == nil || st.Exit.Signal != syscall.SIGTERM {
		t.Errorf("%+v", st)
	}
	gone(t, "it", main.identity())
}

// TestGrandchildren has main processes end that leave others behind, which
// hold the pipes of the log.
func TestGrandchildren(t *testing.T) {
	daemon := `sh -c 'echo $$ >%s; while :; do sleep 0.05; done'`
	for name, script := range map[string]string{
		"in the group":                          daemon + ` & sleep 0.1`,
		"in a session of its own":               `setsid ` + daemon + ` & sleep 0.1`,
		"forked twice":                          `(setsid ` + daemon + ` &) ; sleep 0.3`,
		"forked twice, streams closed":          `(setsid ` + daemon + ` >/dev/null 2>&1 </dev/null &) ; sleep 0.3`,
		"ignores the request, forked twice":     `(trap "" TERM; setsid ` + daemon + ` &) ; sleep 0.3`,
		"without environment":                   `setsid env -i PATH=$PATH ` + daemon + ` & sleep 0.3`,
		"stopped, in a session of its own":      `setsid ` + daemon + ` & sleep 0.1; while ! read -r p <%[1]s; do :; done; kill -STOP $p`,
		"of a main process that is killed hard": `setsid ` + daemon + ` & while [ ! -e %[2]s ]; do sleep 0.02; done; kill -KILL $$`,
	} {
		t.Run(name, func(t *testing.T) {
			r := begin(t, nil)
			pid := filepath.Join(r.dir, "pid")
			begun := filepath.Join(r.dir, "begun")
			script := strings.NewReplacer("%[1]s", pid, "%[2]s", begun, "%s", pid).Replace(script)
			r.add(Service{
				Name: "one", Restart: Never, StopTimeout: 300 * time.Millisecond,
				Start: shell(script + "; while [ ! -e " + begun + " ]; do sleep 0.02; done; exit 0"),
			})
			id := number(t, pid)
			r.state("one", Ready) // its supervisor knows the main process
			if name == "without environment" {
				r.lookAround() // as happens every now and then
			}
			if err := os.WriteFile(begun, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			r.until("one", "ended", func(st Status) bool { return st.State == Stopped || st.State == Failed })
			gone(t, "the process", id)
		})
	}
}

// TestUnknownOrphan has a descendant hide as well as it can: from the service
// it gets away, from the end of the supervisor it does not.
func TestUnknownOrphan(t *testing.T) {
	r := begin(t, nil)
	pid := filepath.Join(r.dir, "pid")
	r.add(Service{Name: "one", Restart: Never, Start: shell(`
		(setsid env -i sh -c 'echo $$ >` + pid + `; exec sleep 1000' >/dev/null 2>&1 &)
		while [ ! -s ` + pid + ` ]; do sleep 0.02; done`)})
	id := number(t, pid)
	r.state("one", Stopped)
	eventually(t, "it is a child of ours", func() bool { p, err := readProc(id.pid); return err == nil && p.ppid == os.Getpid() })
	if err := r.end(); err != nil {
		t.Fatal(err)
	}
	gone(t, "the orphan", id)
}

// TestZombies has orphans end while the service runs.
func TestZombies(t *testing.T) {
	r := begin(t, nil)
	pid, seen := filepath.Join(r.dir, "pid"), filepath.Join(r.dir, "seen")
	r.add(Service{Name: "one", Start: shell(`(setsid sh -c 'echo $$ >` + pid + `; while [ ! -e ` + seen + ` ]; do sleep 0.02; done' &); exec sleep 1000`)})
	id := number(t, pid)
	if err := os.WriteFile(seen, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is reaped", func() bool {
		_, err := os.Stat(fmt.Sprintf("/proc/%d", id.pid))
		return errors.Is(err, os.ErrNotExist)
	})
	if st, _ := r.Status("one"); st.State != Ready {
		t.Errorf("%+v", st)
	}
}

// TestReapingTakesNobodysChild runs other commands beside a service that
// leaves zombies, and starts that name their process late.
func TestReapingTakesNobodysChild(t *testing.T) {
	r := begin(t, nil)
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			r.reaper.reap()
		}
	}()
	for i := range 30 {
		if err := exec.Command("true").Run(); err != nil {
			t.Errorf("a command beside: %v", err)
		}
		name := fmt.Sprintf("s%d", i)
		r.add(Service{Name: name, Restart: Never, Start: func(_ context.Context, setup Setup) (Process, error) {
			p, err := shell(`(setsid true &); exit 5`)(nil, setup)
			time.Sleep(20 * time.Millisecond) // it has ended before anybody knows it
			return p, err
		}})
		if st := r.state(name, Failed); st.Exit == nil || st.Exit.Code != 5 {
			t.Errorf("%+v", st)
		}
	}
	stop()
	<-done
}

// TestKilledSupervisor kills a supervisor, and has another one end what it
// left: one that heeds SIGTERM, which the kernel sends, one that does not, and
// one that left its session.
func TestKilledSupervisor(t *testing.T) {
	dir := t.TempDir()
	file := func(name string) string { return filepath.Join(dir, name) }
	services := []shellService{
		{"gentle", `trap 'echo >` + file("drained") + `; exit 0' TERM; echo $$ >` + file("gentle") + `; while :; do sleep 0.05; done`, 5000},
		{"deaf", `trap '' TERM; echo $$ >` + file("deaf") + `; while :; do sleep 0.05; done`, 200},
		{"daemon", `(setsid sh -c 'echo $$ >` + file("daemon") + `; exec sleep 1000' >/dev/null 2>&1 &); exec sleep 1000`, 5000},
	}
	first := supervisorCommand(dir, services...)
	first.Stderr = os.Stderr
	if err := first.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { first.Process.Kill(); first.Wait() }()
	gentle, deaf, daemon := number(t, file("gentle")), number(t, file("deaf")), number(t, file("daemon"))
	if err := first.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	first.Wait()
	eventually(t, "the gentle one ends by itself", func() bool { return !gentle.alive() })
	if _, err := os.Stat(file("drained")); err != nil {
		t.Errorf("it was not asked: %v", err)
	}
	if !deaf.alive() || !daemon.alive() {
		t.Log("those that do not hear ended anyway")
	}

	// The next one must not run a second copy beside the first.
	os.Remove(file("deaf"))
	var said bytes.Buffer
	second := supervisorCommand(dir, shellService{"deaf", `echo $$ >` + file("deaf") + `; ` + fmt.Sprintf(
		`case "$(cut -d' ' -f3,22 /proc/%d/stat)" in Z*) ;; *%d) echo >%s;; esac; exec sleep 1000`, deaf.pid, deaf.start, file("two")), 5000})
	second.Stderr = &said
	if err := second.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { second.Process.Signal(unix.SIGKILL); second.Wait() }()
	again := number(t, file("deaf"))
	gone(t, "the deaf one", deaf)
	gone(t, "the daemon", daemon)
	if _, err := os.Stat(file("two")); err == nil {
		t.Error("two of them ran at the same time")
	}
	c, err := Dial(t.Context(), filepath.Join(dir, "run", "sock"))
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	gone(t, "the second one's", again)
	if err := second.Wait(); err != nil {
		t.Error(err)
	}
	if !strings.Contains(said.String(), "processes of a supervisor that was killed are ended") {
		t.Errorf("it did not say what it ended: %s", said.String())
	}
}

// TestRecordsOfOthers leaves alone whoever has the number of a process by now.
func TestRecordsOfOthers(t *testing.T) {
	dir := t.TempDir()
	cmd := exec.Command("sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { cmd.Process.Kill(); cmd.Wait() }()
	p, err := readProc(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	run := filepath.Join(dir, "run")
	if err := os.Mkdir(run, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, rec := range map[string]record{
		"later": {PID: p.pid, Start: p.start - 1, Boot: bootID(), Mark: newMark()},
		"boot":  {PID: p.pid, Start: p.start, Boot: "another", Mark: newMark()},
		"early": {Boot: bootID(), Mark: newMark()},
	} {
		rec.Name, rec.Since = name, time.Now()
		if err := rec.write(run); err != nil {
			t.Fatal(err)
		}
	}
	broken := filepath.Join(run, "broken"+recordSuffix)
	if err := os.WriteFile(broken, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := New(Options{RunDir: run, LogDir: filepath.Join(dir, "log")})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Run(ctx); err != nil {
		t.Error(err)
	}
	if !p.identity().alive() {
		t.Error("somebody else's process was ended")
	}
	left, _ := filepath.Glob(filepath.Join(run, "*"+recordSuffix))
	if len(left) != 1 || left[0] != broken {
		t.Errorf("records that are left: %v", left)
	}
}

// TestCgroup has a process that leaves everything but its cgroup.
func TestCgroup(t *testing.T) {
	root := cgroupRoot(t)
	dir := filepath.Join(root, fmt.Sprintf("mobileops-supervise-test-%d", os.Getpid()))
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Skipf("a cgroup of version 2 cannot be made: %v", err)
	}
	t.Cleanup(func() {
		// The kernel takes an ended process out of its cgroup a moment later.
		eventually(t, "the cgroup is empty", func() bool { return os.Remove(dir) == nil })
	})
	r := begin(t, func(o *Options) { o.Subreaper = false })
	pid := filepath.Join(r.dir, "pid")
	r.add(Service{Name: "one", StopTimeout: 200 * time.Millisecond, Start: func(_ context.Context, setup Setup) (Process, error) {
		return StartCommand(exec.Command("/bin/sh", "-c", `
			(setsid env -i sh -c 'trap "" TERM; echo $$ >`+pid+`; while :; do sleep 0.05; done' >/dev/null 2>&1 &)
			exec sleep 1000`), setup, dir)
	}})
	id := number(t, pid)
	eventually(t, "its parent is gone", func() bool { p, err := readProc(id.pid); return err == nil && p.sid == p.pid })
	if err := r.Stop(t.Context(), "one"); err != nil {
		t.Fatal(err)
	}
	gone(t, "the one in the cgroup", id)
}

func cgroupRoot(t *testing.T) string {
	t.Helper()
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		if f := strings.Fields(line); len(f) > 2 && f[2] == "cgroup2" {
			return f[1]
		}
	}
	t.Skip("cgroup 2 is mounted nowhere")
	return ""
}

func TestParseStat(t *testing.T) {
	rest := " S 1 2 3 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 777 0 0"
	for _, name := range []string{"sh", "a) S 9 9 (b", "x\ny", ")", "(", ""} {
		p, err := parseStat([]byte("42 (" + name + ")" + rest))
		if err != nil || p != (proc{pid: 42, ppid: 1, pgid: 2, sid: 3, state: 'S', start: 777}) {
			t.Errorf("%q: %+v, %v", name, p, err)
		}
	}
	for _, bad := range []string{"", "42", "42 (sh", "42 (sh)", "x (sh)" + rest, "42 (sh) S 1", "(sh)" + rest} {
		if p, err := parseStat([]byte(bad)); err == nil {
			t.Errorf("%q: %+v", bad, p)
		}
	}
}

func FuzzParseStat(f *testing.F) {
	f.Add([]byte("42 (sh) S 1 2 3 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 777 0 0"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if p, err := parseStat(b); err == nil && p.pid <= 0 {
			t.Errorf("%q: %+v", b, p)
		}
	})
}

func FuzzRecord(f *testing.F) {
	b, _ := json.Marshal(record{Schema: recordSchema, Name: "x", PID: 2, Boot: "b", Mark: markName + "=1"})
	f.Add(b)
	path := filepath.Join(f.TempDir(), "r")
	f.Fuzz(func(t *testing.T, b []byte) {
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		if r, err := readRecord(path); err == nil && (r.PID < 0 || r.PID == 1 || checkName(r.Name) != nil) {
			t.Errorf("%q: %+v", b, r)
		}
	})
}
