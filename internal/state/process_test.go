package state

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
)

// patience is how long is waited for a lease that many want, on the busiest machine.
const patience = 5 * time.Minute

// child is what the test binary does when a test starts it as another process.
func child(role string) int {
	s := New(os.Getenv("STATE_TEST_DIR"), Options{Doing: "child " + role, LockTimeout: patience})
	fail := func(err error) int {
		fmt.Fprintln(os.Stderr, role, os.Getpid(), err)
		return failure.KindOf(err).Status()
	}
	switch role {
	case "count": // 25 increments, each followed by a read
		for i := range 25 {
			if err := s.Update(ctx, increment); err != nil {
				return fail(err)
			}
			err := s.View(ctx, func(tx *Tx) error {
				if n := counter(tx); n < uint64(i+1) {
					return fmt.Errorf("read %d after %d own increments", n, i+1)
				}
				return nil
			})
			if err != nil {
				return fail(err)
			}
		}
	case "forever": // acknowledge each increment on stdout
		for {
			var n uint64
			err := s.Update(ctx, func(tx *Tx) error {
				if err := increment(tx); err != nil {
					return err
				}
				n = counter(tx)
				return putter(fmt.Sprint("pad", n%50), strings.Repeat("p", int(n%9000)))(tx)
			})
			if err != nil {
				return fail(err)
			}
			fmt.Println(n)
		}
	case "hold-write", "hold-read":
		wait := func(*Tx) error {
			fmt.Println("held")
			time.Sleep(time.Hour)
			return nil
		}
		if role == "hold-read" {
			return fail(s.View(ctx, wait))
		}
		return fail(s.Update(ctx, wait))
	case "lock":
		if _, err := s.Lock("integrity-default", "integrity baseline"); err != nil {
			return fail(err)
		}
		fmt.Println("held")
		time.Sleep(time.Hour)
	}
	return 0
}

func counter(tx *Tx) uint64 {
	b := tx.Bucket([]byte("count"))
	if b == nil {
		return 0
	}
	v := b.Get([]byte("n"))
	if v == nil {
		return 0
	}
	return binary.BigEndian.Uint64(v)
}

func increment(tx *Tx) error {
	b, err := tx.CreateBucketIfNotExists([]byte("count"))
	if err != nil {
		return err
	}
	return b.Put([]byte("n"), binary.BigEndian.AppendUint64(nil, counter(tx)+1))
}

func start(t *testing.T, dir, role string) (*exec.Cmd, *bufio.Reader) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), "STATE_TEST_ROLE="+role, "STATE_TEST_DIR="+dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	return cmd, bufio.NewReader(out)
}

func held(t *testing.T, out *bufio.Reader) {
	t.Helper()
	if line, err := out.ReadString('\n'); line != "held\n" {
		t.Fatalf("the child said %q, %v", line, err)
	}
}

func TestManyProcesses(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state") // not there yet: they also race to create it
	const n = 32
	var cmds []*exec.Cmd
	begin := time.Now()
	for range n {
		cmd, _ := start(t, dir, "count")
		cmds = append(cmds, cmd)
	}
	for _, cmd := range cmds {
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	}
	s := New(dir, Options{})
	if err := s.View(ctx, func(tx *Tx) error {
		if got := counter(tx); got != n*25 {
			t.Errorf("%d increments arrived; want %d", got, n*25)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if r, err := s.Check(ctx); err != nil || !r.Sealed {
		t.Errorf("Check: %+v, %v", r, err)
	}
	took := time.Since(begin)
	t.Logf("%d processes, %d writes and %d reads in %v", n, n*25, n*25, took.Round(time.Millisecond))
}

func TestKillDuringWrites(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	s := New(dir, Options{})
	var acknowledged uint64
	const kills = 60
	for i := range kills {
		cmd, out := start(t, dir, "forever")
		// The first kills hit the creation of the file. Every other one comes when
		// some writes were acknowledged, however long that takes.
		kill := func(within int) {
			time.AfterFunc(time.Duration(rand.IntN(within))*time.Millisecond, func() { cmd.Process.Kill() })
		}
		writes := 1 << 30
		if i%2 == 0 {
			kill(4 + 2*i)
		} else {
			writes = 2 + rand.IntN(9)
		}
		for ; ; writes-- {
			if writes == 0 {
				kill(8)
			}
			line, err := out.ReadString('\n')
			if err != nil {
				break // a line without its end was not acknowledged
			}
			if acknowledged, err = strconv.ParseUint(strings.TrimSpace(line), 10, 64); err != nil {
				t.Fatal(err)
			}
		}
		cmd.Wait()
		if ws, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || ws.Signal() != syscall.SIGKILL {
			t.Fatalf("the child ended by itself: %v", cmd.ProcessState)
		}
		if _, err := s.Check(ctx); err != nil {
			t.Fatalf("kill %d: Check: %v", i, err)
		}
		err := s.View(ctx, func(tx *Tx) error {
			// One more may have become durable before it could say so.
			if got := counter(tx); got != acknowledged && got != acknowledged+1 {
				return fmt.Errorf("%d increments are there, %d were acknowledged", got, acknowledged)
			} else {
				acknowledged = got
			}
			return nil
		})
		if err != nil {
			t.Fatalf("kill %d: %v", i, err)
		}
	}
	t.Logf("%d kills, %d acknowledged writes", kills, acknowledged)
	if acknowledged < kills {
		t.Errorf("only %d writes were acknowledged, so the kills proved little", acknowledged)
	}
}

func TestWaitSaysForWhomAndGivesUp(t *testing.T) {
	const limit = 12 * time.Second // more than the usual ten
	for _, role := range []string{"hold-write", "hold-read"} {
		t.Run(role, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			put(t, New(dir, Options{}), "a", "1")
			cmd, out := start(t, dir, role)
			held(t, out)
			var said []string
			s := New(dir, Options{LockTimeout: limit, OnWait: func(h string) { said = append(said, h) }})
			who := fmt.Sprintf("child %s (pid %d, user ", role, cmd.Process.Pid)
			begin := time.Now()
			err := s.Update(ctx, putter("a", "2"))
			took := time.Since(begin)
			if !errors.Is(err, ErrBusy) || failure.KindOf(err) != failure.Busy || !strings.Contains(err.Error(), who) || !strings.Contains(err.Error(), "--lock-timeout") {
				t.Errorf("%v; want ErrBusy that names %q", err, who)
			}
			if len(said) != 1 || !strings.HasPrefix(said[0], who) {
				t.Errorf("OnWait was told %q; want once %q", said, who)
			}
			if took < limit || took > 10*limit {
				t.Errorf("gave up after %v", took)
			}
			_, err = get(New(dir, Options{LockTimeout: 100 * time.Millisecond}), "a")
			if role == "hold-read" && err != nil {
				t.Errorf("readers exclude each other: %v", err)
			}
			if role == "hold-write" && !errors.Is(err, ErrBusy) {
				t.Errorf("a reader beside a writer: %v; want ErrBusy", err)
			}
			waiting, cancel := context.WithTimeoutCause(ctx, time.Hour, nil)
			time.AfterFunc(50*time.Millisecond, cancel)
			begin = time.Now()
			if err := s.Update(waiting, putter("a", "2")); failure.KindOf(err) != failure.Interrupted || time.Since(begin) > time.Minute {
				t.Errorf("cancelled: %v after %v", err, time.Since(begin))
			}
			cmd.Process.Kill()
			cmd.Wait()
			put(t, s, "a", "3") // the kernel gave the lease back
		})
	}
}

// A process that leases in a tight loop must not keep others from theirs.
func TestNobodyStarves(t *testing.T) {
	dir := t.TempDir()
	s := New(dir, Options{LockTimeout: patience})
	put(t, s, "a", "1")
	for range 3 {
		_, out := start(t, dir, "forever")
		go out.WriteTo(io.Discard)
	}
	var before, worst uint64
	for i := range 60 {
		err := s.Update(ctx, func(tx *Tx) error {
			if i > 0 {
				worst = max(worst, counter(tx)-before)
			}
			before = counter(tx)
			return putter("a", "2")(tx)
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("three busy writers came first %d times at most", worst)
	if before == 0 || worst > 300 {
		t.Errorf("of %d writes of others, a write had to wait for %d", before, worst)
	}
}

func TestLockNamesItsHolder(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	s := New(dir, Options{})
	cmd, out := start(t, dir, "lock")
	held(t, out)
	_, err := s.Lock("integrity-default", "integrity baseline")
	var h *HeldError
	if !errors.As(err, &h) || !errors.Is(err, ErrBusy) || failure.KindOf(err) != failure.Busy {
		t.Fatalf("%v; want a HeldError", err)
	}
	if h.Holder.PID != cmd.Process.Pid || h.Holder.UID != os.Getuid() || time.Since(h.Holder.Since) > time.Minute {
		t.Errorf("holder: %+v", h.Holder)
	}
	if want := fmt.Sprintf("integrity baseline is under way (pid %d, user ", cmd.Process.Pid); !strings.HasPrefix(err.Error(), want) {
		t.Errorf("%q; want %q…", err, want)
	}
	other, err := s.Lock("integrity-../other\n", "x")
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Release(); err != nil {
		t.Error(err)
	}
	cmd.Process.Kill()
	cmd.Wait()
	for range 2 {
		l, err := s.Lock("integrity-default", "integrity baseline")
		if err != nil {
			t.Fatal(err)
		}
		if err := l.Release(); err != nil {
			t.Error(err)
		}
	}
	entries, err := os.ReadDir(filepath.Join(dir, "locks"))
	if err != nil || len(entries) != 2 {
		t.Errorf("%v, %v; want two files, all in locks/", entries, err)
	}
	if _, err := os.Stat(s.Path()); err == nil {
		t.Error("a lock created state.db")
	}
}

func TestDiskFull(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("mounting a small tmpfs needs root")
	}
	dir := t.TempDir()
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", dir).CombinedOutput(); err != nil {
		t.Skipf("cannot mount a tmpfs here: %v: %s", err, bytes.TrimSpace(out))
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", dir).CombinedOutput(); err != nil {
			t.Errorf("umount: %v: %s", err, out)
		}
	})
	s := New(dir, Options{})
	put(t, s, "a", "1")
	var err error
	n := 0
	for ; n < 100 && err == nil; n++ {
		err = s.Update(ctx, putter(fmt.Sprint("big", n), strings.Repeat("x", 50_000)))
	}
	if failure.KindOf(err) != failure.Failed || !strings.Contains(err.Error(), "no space left") || !strings.Contains(err.Error(), "nothing was changed") {
		t.Fatalf("%v; want a plain word about the full disk", err)
	}
	if err := s.Backup(ctx, filepath.Join(dir, "backup"), false); failure.KindOf(err) != failure.Failed {
		t.Errorf("Backup: %v; want Failed", err)
	}
	if _, err := s.Check(ctx); err != nil {
		t.Errorf("Check: %v", err)
	}
	if v, err := get(s, fmt.Sprint("big", n-2)); err != nil || len(v) != 50_000 {
		t.Errorf("the last good write: %d bytes, %v", len(v), err)
	}
	if v, err := get(s, fmt.Sprint("big", n-1)); err != nil || v != "" {
		t.Errorf("the failed write: %d bytes, %v", len(v), err)
	}
	if err := s.Update(ctx, func(tx *Tx) error { return tx.Bucket([]byte("test")).Delete([]byte("big0")) }); err != nil {
		t.Errorf("a small write afterwards: %v", err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, ".*tmp-*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}
