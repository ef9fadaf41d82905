package integrity

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mobileops/mobileops/internal/integrity/policy"
	"github.com/mobileops/mobileops/internal/state"
)

// childEnv names what a process that a test starts does instead of the tests.
const childEnv = "INTEGRITY_TEST_CHILD"

func TestMain(m *testing.M) {
	if what := os.Getenv(childEnv); what != "" {
		if err := child(what, os.Args[1], os.Args[2]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// child does one thing with the state in dir and the tree.
func child(what, dir, tree string) error {
	p, err := policy.Parse("test.yaml", []byte(plainPolicy))
	if err != nil {
		return err
	}
	e := &Engine{Store: state.New(dir, state.Options{}), Tool: "test"}
	take := func() error {
		_, err := e.Take(context.Background(), TakeOptions{Name: "default", Policy: p, Scan: Scan{Tree: tree}})
		return err
	}
	compare := func() error {
		r, err := e.Compare(context.Background(), CompareOptions{Name: "default", Verify: true})
		if err != nil {
			return err
		}
		fmt.Printf("changes %q\n", changes(r))
		for _, p := range r.Problems {
			fmt.Printf("problem %s %s\n", p.Kind, p.Path)
		}
		return nil
	}
	chmod := func(mode os.FileMode, names ...string) {
		for _, n := range names {
			if err := os.Chmod(filepath.Join(tree, n), mode); err != nil {
				fmt.Println(err)
			}
		}
	}
	switch what {
	case "take":
		return take()
	case "accept":
		_, err := e.Accept(context.Background(), AcceptOptions{Name: "default", All: true, KeepContent: KeepPublic})
		return err
	case "hold":
		l, err := e.lock(context.Background(), "default", "integrity baseline")
		if err != nil {
			return err
		}
		fmt.Println("held")
		io.Copy(io.Discard, os.Stdin)
		return l.Release()
	case "unreadable now":
		if err := take(); err != nil {
			return err
		}
		chmod(0, "a", "b", "d/f")
		err := compare()
		chmod(0o755, "a", "b", "d/f")
		return err
	case "unreadable then":
		chmod(0o444, "a") // names are seen, nothing else
		chmod(0, "d/f")
		if err := take(); err != nil {
			return err
		}
		chmod(0o755, "a")
		chmod(0o644, "d/f")
		return compare()
	case "memory":
		if err := take(); err != nil {
			return err
		}
		if err := compare(); err != nil {
			return err
		}
		status, err := os.ReadFile("/proc/self/status")
		for l := range strings.Lines(string(status)) {
			if strings.HasPrefix(l, "VmHWM:") {
				fmt.Print(l)
			}
		}
		return err
	}
	return fmt.Errorf("no such child: %s", what)
}

func childCommand(what, dir, tree string) *exec.Cmd {
	c := exec.Command("/proc/self/exe", dir, tree)
	c.Env = append(os.Environ(), childEnv+"="+what)
	return c
}

// TestUnreadable runs as somebody who cannot read everything.
func TestUnreadable(t *testing.T) {
	for what, want := range map[string][]string{
		// Two directories in a row: the files of neither are "removed".
		"unreadable now":  {`changes ["changed /a mode" "changed /b mode" "changed /d/f mode,ctime"]`, "problem unreadable /a", "problem unreadable /b", "problem unreadable /d/f"},
		"unreadable then": {`changes ["added /a/sub/x" "changed /d/f mode,ctime" "changed /a mode"]`, "problem unreadable /a/1", "problem unreadable /a/sub", "problem unreadable /d/f"},
	} {
		t.Run(what, func(t *testing.T) {
			dir, err := os.MkdirTemp("", "integrity-test-")
			if err != nil {
				t.Fatal(err)
			}
			defer os.RemoveAll(dir)
			for _, f := range []string{"a/1", "a/sub/x", "b/2", "b/sub/y", "d/f", "e/z"} {
				p := filepath.Join(dir, "tree", f)
				os.MkdirAll(filepath.Dir(p), 0o755)
				if err := os.WriteFile(p, []byte(f), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			c := childCommand(what, filepath.Join(dir, "state"), filepath.Join(dir, "tree"))
			if os.Geteuid() == 0 {
				const nobody = 65534
				filepath.Walk(dir, func(p string, _ os.FileInfo, _ error) error { return os.Chown(p, nobody, nobody) })
				c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
			}
			out, err := c.CombinedOutput()
			if err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			lines := strings.Split(strings.TrimSpace(string(out)), "\n")
			t.Logf("%s", out)
			if what == "unreadable then" {
				// What a later run can read and the baseline does not have is
				// shown as such; nothing is removed, and no type has changed.
				if strings.Contains(string(out), "removed") || strings.Contains(string(out), "type") || !strings.Contains(string(out), "problem unreadable /d/f") {
					t.Errorf("%s", out)
				}
				return
			}
			if strings.Join(lines, "\n") != strings.Join(want, "\n") {
				t.Errorf("got\n%s\nwant\n%s", out, strings.Join(want, "\n"))
			}
		})
	}
}

// TestLock: a second operation is told who holds the lock; a killed holder
// holds nothing.
func TestLock(t *testing.T) {
	b := newBench(t, plainPolicy)
	b.put("f", "x")
	b.take()
	c := childCommand("hold", b.Store.Dir(), b.tree)
	in, err := c.StdinPipe()
	b.must(err)
	defer in.Close()
	out, err := c.StdoutPipe()
	b.must(err)
	b.must(c.Start())
	defer c.Process.Kill()
	if line := make([]byte, 5); true {
		if _, err := io.ReadFull(out, line); err != nil {
			t.Fatal(err)
		}
	}
	_, err = b.Compare(t.Context(), CompareOptions{Name: "default"})
	held, ok := err.(*state.HeldError)
	if !ok || held.Holder.PID != c.Process.Pid || held.Holder.Doing != "integrity baseline" {
		t.Errorf("%v, want the holder %d", err, c.Process.Pid)
	}
	c.Process.Kill()
	c.Wait()
	b.expect(b.compare(CompareOptions{}))
}

// TestKilledWhileTaking: whenever the process dies, the old baseline or the
// new one is there, whole, and the next run leaves nothing else behind.
func TestKilledWhileTaking(t *testing.T) {
	b := newBench(t, plainPolicy)
	for i := range 3000 {
		b.put(fmt.Sprintf("d%d/f%d", i%30, i), strconv.Itoa(i))
	}
	start := time.Now()
	b.take()
	whole := time.Since(start) + 30*time.Millisecond
	for i := range 40 {
		c := childCommand("take", b.Store.Dir(), b.tree)
		var stderr bytes.Buffer
		c.Stderr = &stderr
		b.must(c.Start())
		time.Sleep(whole * time.Duration(i) / 36)
		c.Process.Kill()
		c.Wait()
		if stderr.Len() > 0 {
			t.Errorf("kill %d: %s", i, stderr.String())
		}
		if i%4 == 3 {
			b.expect(b.compare(CompareOptions{Verify: true}))
			b.onlyCatalogued()
		}
	}
	b.take()
	b.onlyCatalogued()
}

// onlyCatalogued fails the test when a file lies beside the baselines that
// none of them knows.
func (b *bench) onlyCatalogued() {
	b.Helper()
	list, err := b.List(context.Background())
	b.must(err)
	known := map[string]bool{}
	for _, c := range list {
		for _, path := range []string{b.file(c), b.readsFile(c), b.ownersFile(c), b.contentsFile(c)} {
			known[filepath.Base(path)] = true
		}
		r, err := b.Open(c)
		if err != nil {
			b.Errorf("%s: %v", c.ID, err)
			continue
		}
		r.Close()
		reports, err := b.Reports(context.Background(), c.Name)
		b.must(err)
		for _, r := range reports {
			known[filepath.Base(b.reportFile(r.Baseline, r.ID))] = true
		}
	}
	files, err := os.ReadDir(b.Engine.path(""))
	b.must(err)
	for _, f := range files {
		if !known[f.Name()] && filepath.Ext(f.Name()) != ".accepted" { // which stay
			b.Errorf("stray file %s", f.Name())
		}
	}
}

// TestMemory: 200,000 files in less than 64 MiB, baseline and verify.
func TestMemory(t *testing.T) {
	if raceEnabled || testing.Short() {
		t.Skip("NOT RUN: the race detector needs memory of its own; or -short")
	}
	tree, err := os.MkdirTemp("/dev/shm", "integrity-test-")
	if err != nil {
		t.Skipf("NOT RUN: no tmpfs: %v", err)
	}
	defer os.RemoveAll(tree)
	for i := range 200000 {
		dir := filepath.Join(tree, fmt.Sprintf("dir%03d", i/400))
		if i%400 == 0 {
			if err := os.Mkdir(dir, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("file-%06d.txt", i)), strconv.AppendInt(nil, int64(i), 10), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(tree, "large"), bytes.Repeat([]byte("x"), 64<<20), 0o644); err != nil {
		t.Fatal(err)
	}
	out, err := childCommand("memory", t.TempDir(), tree).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	_, hwm, _ := strings.Cut(string(out), "VmHWM:")
	kb, err := strconv.Atoi(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(hwm), "kB")))
	if err != nil || kb > 64<<10 || !strings.HasPrefix(string(out), "changes []\n") {
		t.Errorf("%v: %s", err, out)
	}
	t.Logf("%d MiB at most", kb>>10)
}
