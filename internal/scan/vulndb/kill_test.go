package vulndb

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
	"github.com/mobileops/mobileops/internal/scan/vulndb/vulndbtest"
	bolt "go.etcd.io/bbolt"
)

// TestMain is an import that is killed, when the environment says so.
func TestMain(m *testing.M) {
	if step := os.Getenv("VULNDB_TEST_KILL"); step != "" {
		killedImport(step)
	}
	os.Exit(m.Run())
}

func killedImport(step string) {
	die := func(at string) {
		if at == step {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
	}
	s := newStore(nil2{}, os.Getenv("VULNDB_TEST_STATE"), func(o *Options) {
		o.Progress = func(stage string, done, _ int64) {
			if done > 8192 {
				die("in " + stage)
			}
		}
	})
	s.step = die
	var err error
	switch path := os.Getenv("VULNDB_TEST_FILE"); {
	case step == "rollback":
		s.step = func(string) { die("rollback") }
		_, err = s.Rollback(context.Background(), Vulnerabilities, 0)
	case strings.HasSuffix(path, ".csv"):
		_, err = s.ImportEPSS(context.Background(), path, Terms{})
	default:
		_, err = s.Import(context.Background(), path, Terms{})
	}
	fmt.Fprintln(os.Stderr, "was not killed:", err)
	os.Exit(1)
}

// nil2 stands for a test in a process that is none.
type nil2 struct{ testing.TB }

func (nil2) Helper() {}

// killed runs an import in a process of its own, which ends by SIGKILL at a step.
func killed(t *testing.T, stateDir, file, step string) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^$")
	cmd.Env = append(os.Environ(), "VULNDB_TEST_KILL="+step, "VULNDB_TEST_STATE="+stateDir, "VULNDB_TEST_FILE="+file)
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Fatalf("%v: %s", err, out)
	}
}

// TestKilled kills an import at every step. There is a whole database after each:
// the one from before or the new one.
func TestKilled(t *testing.T) {
	first, second, third := written(t, 9, many(300)...), written(t, 8, many(310)...), written(t, 7, many(320)...)
	seen := map[int]bool{}
	for _, step := range []string{"locked", "swept", "staged", "in unpack", "filled", "in check", "sealed", "renamed", "synced", "pointed", "catalogued", "dropped", "pruned", "rollback"} {
		t.Run(step, func(t *testing.T) {
			dir := t.TempDir()
			s := newStore(t, dir)
			imported(t, s, first)
			imported(t, s, second)
			killed(t, dir, third, step)
			l, err := s.Open(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			got := l.Generation.Number
			seen[got] = true
			if want := 300 + 10*(got-1); count(t, l.Dir) != want {
				t.Errorf("generation %d has %d vulnerabilities, not %d", got, count(t, l.Dir), want)
			}
			if _, err := s.Verify(t.Context()); err != nil {
				t.Error(err)
			}
			l.Release()
			if res := imported(t, s, third); res.Advisories != 320 {
				t.Errorf("%+v", res)
			}
			noPartial(t, s)
			agree(t, s)
		})
	}
	if !seen[2] || !seen[3] {
		t.Errorf("not both were seen: %v", seen)
	}
	// The first of all, where there is nothing from before.
	for _, step := range []string{"sealed", "renamed", "pointed"} {
		dir := t.TempDir()
		killed(t, dir, first, step)
		s := newStore(t, dir)
		_, err := s.Open(t.Context())
		wantKind(t, err, failure.NotReady)
		if res := imported(t, s, first); res.Unchanged {
			t.Errorf("%+v", res)
		}
		agree(t, s)
	}
}

func count(t *testing.T, dir string) (n int) {
	t.Helper()
	db, err := bolt.Open(filepath.Join(dir, "trivy.db"), 0o400, &bolt.Options{ReadOnly: true, Timeout: 60 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	_ = db.View(func(tx *bolt.Tx) error {
		n = tx.Bucket([]byte("vulnerability")).Stats().KeyN
		return nil
	})
	return n
}

// agree wants catalogue, directories and link to say the same.
func agree(t *testing.T, s *Store) {
	t.Helper()
	list, err := s.List(t.Context(), Vulnerabilities)
	if err != nil {
		t.Fatal(err)
	}
	var there, known []int
	entries, err := os.ReadDir(s.generations(Vulnerabilities))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		n, _ := numbered(e.Name())
		there = append(there, n)
	}
	for _, g := range list {
		known = append(known, g.Number)
		if to, _ := os.Readlink(filepath.Join(s.Dir(), "current")); g.Current && to != fmt.Sprintf("generations/%d", g.Number) {
			t.Errorf("current leads to %s, and %d is", to, g.Number)
		}
	}
	slices.Sort(there)
	slices.Sort(known)
	if !slices.Equal(there, known) {
		t.Errorf("directories %v, catalogue %v", there, known)
	}
}

// TestSwitches holds eight leases all the time while the database is switched
// twenty times: each always reads a whole one.
func TestSwitches(t *testing.T) {
	dir := t.TempDir()
	s := newStore(t, dir)
	imported(t, s, written(t, 100, many(100)...))
	var files []string
	for i := range 20 {
		files = append(files, written(t, 99-i, many(101+i)...))
	}
	var wg sync.WaitGroup
	var done atomic.Bool
	var leases atomic.Int64
	for range 8 {
		wg.Go(func() {
			mine := newStore(t, dir)
			for !done.Load() || leases.Load() < 30 {
				l, err := mine.Open(context.Background())
				if err != nil {
					t.Errorf("open: %v", err)
					return
				}
				db, err := bolt.Open(filepath.Join(l.Dir, "trivy.db"), 0o400, &bolt.Options{ReadOnly: true, Timeout: 60 * time.Second})
				if err != nil {
					t.Errorf("generation %d: %v", l.Generation.Number, err)
					return
				}
				n := 0
				_ = db.View(func(tx *bolt.Tx) error {
					return tx.Bucket([]byte("vulnerability")).ForEach(func(_, _ []byte) error { n++; return nil })
				})
				if n != 99+l.Generation.Number {
					t.Errorf("generation %d has %d", l.Generation.Number, n)
				}
				db.Close()
				l.Release()
				leases.Add(1)
			}
		})
	}
	for _, f := range files {
		if res, err := s.Import(t.Context(), f, Terms{}); err != nil || res.Unchanged {
			t.Errorf("%+v, %v", res, err)
		}
	}
	done.Store(true)
	wg.Wait()
	list, err := s.List(t.Context(), Vulnerabilities)
	if err != nil || list[0].Number != 21 {
		t.Errorf("%v, %v", list, err)
	}
	t.Logf("%d leases", leases.Load())
}

// TestLeaseOutlivesTheSwitch keeps the files of a lease for another process that
// the lease was passed on to by inheritance, when whoever took it is gone.
func TestLeaseOfAKilledProcess(t *testing.T) {
	s := newStore(t, t.TempDir(), func(o *Options) { o.Keep = 1 })
	imported(t, s, written(t, 9, many(50)...))
	l, err := s.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	// A child with the descriptor holds the lock as long as it lives.
	cmd := exec.Command("sleep", "600")
	cmd.ExtraFiles = l.held
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	l.Release()
	for i := range 3 {
		imported(t, s, written(t, 8-i, many(51+i)...))
	}
	if _, err := os.Stat(s.path(Vulnerabilities, 1)); err != nil {
		t.Errorf("removed while it was open: %v", err)
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	imported(t, s, written(t, 2, many(60)...))
	if _, err := os.Stat(s.path(Vulnerabilities, 1)); !os.IsNotExist(err) {
		t.Errorf("it is still there: %v", err)
	}
}

// TestDiskFull imports where there is no room.
func TestDiskFull(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("not root: no filesystem of a limited size can be mounted, so a full disk is not tried")
	}
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=4m"); err != nil {
		t.Skipf("no tmpfs can be mounted, so a full disk is not tried: %v", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	s := newStore(t, dir)
	imported(t, s, written(t, 9, many(50)...))
	_, err := s.Import(t.Context(), written(t, 8, many(30_000)...), Terms{})
	wantKind(t, err, failure.Failed, "no space left", "make room")
	noPartial(t, s)
	l, err := s.Open(t.Context())
	if err != nil || l.Generation.Number != 1 {
		t.Fatalf("%+v, %v", l, err)
	}
	l.Release()
	agree(t, s)
	imported(t, s, written(t, 7, many(60)...))
}

// TestSize writes a database of some size, so that inspecting it has pages of every
// kind, and holds the counts against bbolt's own.
func TestInspectCounts(t *testing.T) {
	dir := t.TempDir()
	vulndbtest.WriteAt(t, dir, now, many(20_000)...)
	f, err := os.Open(filepath.Join(dir, "trivy.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	st, _ := f.Stat()
	c, err := inspect(t.Context(), f, st.Size(), func(int64) {})
	if err != nil || c.advisories != 20_000 || c.vulnerabilities != count(t, dir) {
		t.Errorf("%+v, %v", c, err)
	}
}
