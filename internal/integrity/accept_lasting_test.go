package integrity

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/state"
	"golang.org/x/sys/unix"
)

// TestKilledWhileAccepting: whenever the process dies, all reported changes
// are in the baseline or none, and the history agrees with it.
func TestKilledWhileAccepting(t *testing.T) {
	b := newBench(t, plainPolicy)
	for i := range 1500 {
		b.put(fmt.Sprintf("etc/d%d/f%d", i%30, i), "old")
	}
	b.take()
	accepted, whole := 0, 100*time.Millisecond
	const rounds = 16
	for i := range rounds {
		for n := range 500 {
			b.put(fmt.Sprintf("etc/d%d/f%d", n%30, n), fmt.Sprintf("round %d", i))
		}
		if r := b.compare(CompareOptions{}); len(r.Changes) < 500 {
			t.Fatalf("%d changes", len(r.Changes))
		}
		c := childCommand("accept", b.Store.Dir(), b.tree)
		var stderr bytes.Buffer
		c.Stderr = &stderr
		start := time.Now()
		b.must(c.Start())
		if i > 0 {
			time.Sleep(whole * time.Duration(i) / (rounds - 2))
			c.Process.Kill()
		}
		if c.Wait() == nil {
			whole = time.Since(start) // it depends on what else the machine does
		}
		if stderr.Len() > 0 {
			t.Errorf("kill %d: %s", i, stderr.String())
		}
		r := b.compare(CompareOptions{Verify: true})
		switch len(r.Changes) {
		case 0:
			accepted++
		case 500:
			b.accept(AcceptOptions{All: true})
		default:
			t.Fatalf("after kill %d there are %d changes", i, len(r.Changes))
		}
		if trust, err := b.Trust(t.Context()); err != nil || len(trust.Problems) > 0 {
			t.Fatalf("after kill %d: %+v, %v", i, trust, err)
		}
		b.onlyCatalogued()
	}
	if accepted == 0 || accepted == rounds {
		t.Errorf("%d of %d came through: nothing was killed in the middle", accepted, rounds)
	}
}

// TestDiskFullWhileAccepting: nothing was accepted then, and nothing is left.
func TestDiskFullWhileAccepting(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("NOT RUN: needs root to mount a small tmpfs")
	}
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=24m"); err != nil {
		t.Skipf("NOT RUN: cannot mount a tmpfs here: %v", err)
	}
	defer unix.Unmount(dir, unix.MNT_DETACH)
	b := newBench(t, plainPolicy)
	b.Store = state.New(dir, state.Options{})
	for i := range 3000 {
		b.put(fmt.Sprintf("etc/%d", i), strings.Repeat(fmt.Sprint(i), 50))
	}
	b.take()
	for i := range 3000 {
		b.put(fmt.Sprintf("etc/%d", i), strings.Repeat(fmt.Sprint(i), 51))
	}
	b.compare(CompareOptions{})
	old, err := b.Find(t.Context(), "default")
	b.must(err)
	failed := 0
	for room := 0; room < 4<<20; room += 128 << 10 {
		filler := filepath.Join(dir, "filler")
		b.must(os.WriteFile(filler, nil, 0o600))
		var fs unix.Statfs_t
		b.must(unix.Statfs(dir, &fs))
		if n := int64(fs.Bavail)*fs.Bsize - int64(room); n > 0 {
			b.must(os.WriteFile(filler, make([]byte, n), 0o600))
		}
		a, err := b.Accept(t.Context(), AcceptOptions{Name: "default", All: true, KeepContent: KeepPublic})
		b.must(os.Remove(filler))
		if a != nil { // what is left to do then the next check does
			break
		}
		failed++
		if failure.KindOf(err) != failure.Failed || !errors.Is(err, unix.ENOSPC) {
			t.Errorf("%d bytes left: %v", room, err)
		}
		b.onlyCatalogued()
		if c, err := b.Find(t.Context(), "default"); err != nil || c.ID != old.ID {
			t.Errorf("%d bytes left: the baseline is %s, was %s: %v", room, c.ID, old.ID, err)
		}
	}
	if failed == 0 {
		t.Error("the disk was never full")
	}
	if trust, err := b.Trust(t.Context()); err != nil || len(trust.Problems) > 0 {
		t.Errorf("%+v, %v", trust, err)
	}
	if r := b.compare(CompareOptions{Verify: true}); len(r.Changes) > 0 {
		t.Errorf("with room for it, %d changes were not accepted", len(r.Changes))
	}
}
