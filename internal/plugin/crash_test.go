package plugin

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/plugin/pack"
	"github.com/mobileops/mobileops/internal/state"
)

// A crash test runs this binary again, which changes plugins until it is killed.
const (
	crashWorld = "MOBILEOPS_TEST_CRASH_WORLD" // directory of the world, which says that this is that process
	crashDo    = "MOBILEOPS_TEST_CRASH_DO"    // a change, or "all" for one after the other
	crashHold  = "MOBILEOPS_TEST_CRASH_HOLD"  // descriptor to send that of the filter on, see steps
)

// crashTime is the date in the worlds of crash tests.
func crashTime() time.Time { return time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC) }

// crashEngine is the engine of a world that another process made.
func crashEngine(dir string) *Engine {
	return New(Options{
		State: state.New(filepath.Join(dir, "state"), state.Options{}), Dir: filepath.Join(dir, "plugins"), ConfigDir: filepath.Join(dir, "config"),
		KeysDir: filepath.Join(dir, "keys"), Product: "1.0.0", HostID: "test", from: accountsOf(dir), Now: crashTime,
	})
}

// crashInstall installs a package of a crash test.
func crashInstall(ctx context.Context, e *Engine, dir, version string, n int) error {
	p, err := pack.Open(filepath.Join(dir, fmt.Sprintf("hello-%s-%d.tar.zst", version, n)))
	if err != nil {
		return err
	}
	plan, err := e.Inspect(ctx, p, Source{Text: "test"})
	if err != nil {
		p.Close()
		return err
	}
	defer plan.Close()
	_, err = e.Install(ctx, plan, Consent{Permissions: true, Downgrade: true})
	return err
}

// changes are all changes there are, by name.
func changes(e *Engine, dir string) map[string]func(context.Context) error {
	return map[string]func(context.Context) error{
		"install":   func(ctx context.Context) error { return crashInstall(ctx, e, dir, "1.0.0", 1) },
		"upgrade":   func(ctx context.Context) error { return crashInstall(ctx, e, dir, "2.0.0", 2) },
		"return":    func(ctx context.Context) error { return crashInstall(ctx, e, dir, "1.0.0", 1) }, // to the one before
		"rollback":  func(ctx context.Context) error { _, err := e.Rollback(ctx, "hello"); return err },
		"disable":   func(ctx context.Context) error { _, err := e.Enable(ctx, "hello", false); return err },
		"uninstall": func(ctx context.Context) error { _, err := e.Uninstall(ctx, "hello", false); return err },
		"purge":     func(ctx context.Context) error { _, err := e.Uninstall(ctx, "hello", true); return err },
	}
}

// TestCrashChild is the process that is killed.
func TestCrashChild(t *testing.T) {
	dir := os.Getenv(crashWorld)
	if dir == "" {
		return // it is run by the crash tests
	}
	if os.Getenv(crashHold) != "" {
		hold(t)
	}
	todo := changes(crashEngine(dir), dir)
	if do := os.Getenv(crashDo); do != "all" {
		if err := todo[do](t.Context()); err != nil {
			t.Fatal(err)
		}
		return
	}
	names := []string{"install", "upgrade", "rollback", "disable", "uninstall", "purge"}
	for alarms := 0; alarms < 5; {
		err := todo[names[rand.IntN(len(names))]](t.Context())
		// Not everything can be done to what is there just now. What others
		// remove and install again twice while it is proved looks damaged.
		switch kind := failure.KindOf(err); {
		case err == nil || kind == failure.No || kind == failure.Busy:
			alarms = 0
		case kind == failure.Untrustworthy:
			alarms++
			t.Log(err)
		default:
			t.Fatal(err)
		}
	}
	t.Fatal("it is damaged, and stays so")
}

// crash is a world in which processes are killed.
type crash struct {
	*world
	todo map[string]func(context.Context) error
}

func newCrash(t *testing.T) *crash {
	w := newWorld(t)
	w.now = crashTime()
	w.pack("hello", "1.0.0", 1, "", "echo 1.0.0")
	w.pack("hello", "2.0.0", 2, "", "echo 2.0.0")
	c := &crash{w, changes(w.Engine, w.dir)}
	w.install(w.pack("keeper", "1.0.0", 1, "", "echo keeper"))
	return c
}

// do makes a change in this process.
func (c *crash) do(names ...string) {
	c.Helper()
	for _, name := range names {
		if err := c.todo[name](c.Context()); err != nil {
			c.Fatalf("%s: %v", name, err)
		}
	}
}

// reset makes what a change begins with.
func (c *crash) reset(change string) {
	c.Helper()
	if _, err := c.Get(c.Context(), "hello"); err == nil {
		c.do("purge")
	}
	switch change {
	case "install":
	case "rollback", "return":
		c.do("install", "upgrade")
	default:
		c.do("install")
	}
	if change == "purge" {
		if err := os.WriteFile(filepath.Join(c.DataDir("hello"), "kept"), nil, 0o600); err != nil {
			c.Fatal(err)
		}
	}
}

// child is this binary, to be killed.
func (c *crash) child(do string, env ...string) *exec.Cmd {
	cmd := exec.Command(os.Args[0], "-test.run=^TestCrashChild$", "-test.count=1")
	cmd.Env = append(append(os.Environ(), crashWorld+"="+c.dir, crashDo+"="+do), env...)
	return cmd
}

// check looks at what a killed process left: what is installed is whole and
// runs, the index says so after the next command, and after the next change
// there is nothing else.
func (c *crash) check(what string) {
	c.Helper()
	r, err := c.Get(c.Context(), "hello")
	if err != nil && !isNone(err) {
		c.Fatalf("%s: %v", what, err)
	}
	if r != nil {
		if _, err := c.Verify(c.Context(), "hello"); err != nil {
			c.Fatalf("%s: %v", what, err)
		}
		if r.Previous != nil {
			if _, err := c.open(c.Context(), "hello", r.Previous); err != nil {
				c.Fatalf("%s: the version before: %v", what, err)
			}
		}
		if r.Enabled {
			if status, out, err := c.run("hello"); err != nil || status != 0 || out != r.Version+"\n" {
				c.Fatalf("%s: %d, %q, %v", what, status, out, err)
			}
		}
	}
	if _, err := c.Reconcile(c.Context()); err != nil { // as plugin list does
		c.Fatalf("%s: %v", what, err)
	}
	c.indexed(what, r)
	keeper, err := c.Get(c.Context(), "keeper")
	if err == nil {
		_, err = c.Enable(c.Context(), "keeper", !keeper.Enabled)
	}
	if err != nil {
		c.Fatalf("%s: %v", what, err)
	}
	c.indexed(what, r)
	c.nothingElse(what, r)
}

func (c *crash) indexed(what string, r *Record) {
	c.Helper()
	x, err := ReadIndex(c.opts.Dir)
	if err != nil {
		c.Fatalf("%s: %v", what, err)
	}
	entry := x.Find("hello")
	if (entry != nil) != (r != nil && r.Enabled) || entry != nil && entry.Version != r.Version {
		c.Fatalf("%s: the index has %+v, and the record is %+v", what, entry, r)
	}
}

func (c *crash) nothingElse(what string, r *Record) {
	c.Helper()
	want := []string{"data", "data/keeper", "index.json", "installed", "installed/keeper", "installed/keeper/1.0.0-1"}
	if r != nil {
		want = append(want, "data/hello", "installed/hello", "installed/hello/"+filepath.Base(c.packageDir("hello", &r.Release)))
		if r.Previous != nil {
			want = append(want, "installed/hello/"+filepath.Base(c.packageDir("hello", r.Previous)))
		}
	}
	var got []string
	for _, pattern := range []string{"*", ".*", "*/*", "*/.*", "installed/*/*", "installed/*/.*"} {
		found, err := filepath.Glob(filepath.Join(c.opts.Dir, pattern))
		if err != nil {
			c.Fatal(err)
		}
		for _, f := range found {
			rel, _ := filepath.Rel(c.opts.Dir, f)
			got = append(got, rel)
		}
	}
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(got, want) {
		c.Fatalf("%s: there is %q, and should be %q", what, got, want)
	}
}

// TestKilledAtRandom kills a process that changes plugins, at any moment.
func TestKilledAtRandom(t *testing.T) {
	c := newCrash(t)
	kills, until := 0, time.Now().Add(8*time.Second)
	for ; kills < 100 && (time.Now().Before(until) || kills < 20); kills++ {
		cmd := c.child("all")
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5*time.Millisecond + rand.N(60*time.Millisecond))
		if err := cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
			t.Fatal(err)
		}
		if err := cmd.Wait(); err == nil || !strings.Contains(err.Error(), "killed") {
			t.Fatalf("it ended by itself: %v: %s", err, &out)
		}
		c.check(fmt.Sprintf("kill %d", kills))
	}
	t.Logf("killed %d times", kills)
}

// TestKilledAtEveryStep kills a change before each of its system calls that
// leave something on the disk. A slow machine does some of them, others each
// time.
func TestKilledAtEveryStep(t *testing.T) {
	c := newCrash(t)
	for _, change := range []string{"install", "upgrade", "return", "rollback", "uninstall", "purge"} {
		c.reset(change)
		steps, _ := c.killAt(change, 0)
		c.check(change)
		done, until := 0, time.Now().Add(2*time.Second)
		for _, n := range rand.Perm(steps) {
			if done++; done > 5 && time.Now().After(until) {
				break
			}
			c.reset(change)
			_, call := c.killAt(change, n+1)
			c.check(fmt.Sprintf("%s, step %d (%s)", change, n+1, call))
		}
		t.Logf("%s: %d of %d steps", change, done, steps)
	}
}

// TestManyAtOnce has several processes change plugins at the same time, while
// others run them: nothing runs but what was signed, whole.
func TestManyAtOnce(t *testing.T) {
	c := newCrash(t)
	var cmds []*exec.Cmd
	outs := make([]bytes.Buffer, 3)
	for i := range outs {
		cmd := c.child("all")
		cmd.Stdout, cmd.Stderr = &outs[i], &outs[i]
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		cmds = append(cmds, cmd)
	}
	ran, not := 0, 0
	for until := time.Now().Add(2 * time.Second); time.Now().Before(until); {
		status, out, err := c.run("hello")
		switch {
		case err == nil && status == 0 && (out == "1.0.0\n" || out == "2.0.0\n"):
			ran++
		case err != nil, strings.Contains(out, "No such file"): // removed, changed, disabled
			not++
		case status != 0 && strings.Contains(out, "mobileops-hello: Permission denied"):
			// Installed again after its shell had begun, which may read what was
			// there when it was started, and nothing else.
			not++
		default:
			t.Errorf("%d, %q", status, out)
		}
	}
	for i, cmd := range cmds {
		cmd.Process.Kill()
		if err := cmd.Wait(); err == nil || !strings.Contains(err.Error(), "killed") {
			t.Errorf("it ended by itself: %v: %s", err, &outs[i])
		}
	}
	c.check("after all")
	t.Logf("ran %d times, and %d times not", ran, not)
}
