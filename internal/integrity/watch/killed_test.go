package watch

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/mobileops/mobileops/internal/integrity"
	"github.com/mobileops/mobileops/internal/state"
)

// child is this test program once more, as a watch that can be killed.
type child struct {
	*exec.Cmd
	t    *testing.T
	said chan string
}

// child starts it and waits until it sees everything.
func (h *host) child(enforce bool) *child {
	h.t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestWatchInAChild$")
	cmd.Env = append(os.Environ(), "WATCH_TEST_STATE="+h.e.Store.Dir(), fmt.Sprintf("WATCH_TEST_ENFORCE=%t", enforce))
	out, err := cmd.StdoutPipe()
	if err != nil {
		h.t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	c := &child{cmd, h.t, make(chan string, 100)}
	go func() {
		for s := bufio.NewScanner(out); s.Scan(); {
			c.said <- s.Text()
		}
	}()
	c.await("ready")
	return c
}

// await waits until the child says something.
func (c *child) await(word string) {
	c.t.Helper()
	for deadline := time.After(patience); ; {
		select {
		case said := <-c.said:
			if said == word {
				return
			}
		case <-deadline:
			c.t.Fatalf("the child does not say that it is %s", word)
		}
	}
}

func TestWatchInAChild(t *testing.T) {
	dir := os.Getenv("WATCH_TEST_STATE")
	if dir == "" {
		return // it is a part of the tests below
	}
	o := Options{Name: "default", Beat: 200 * time.Millisecond, Report: func(*Record) error { return nil }, first: func() { fmt.Println("ready") }}
	if os.Getenv("WATCH_TEST_ENFORCE") == "true" {
		o.Enforce = &Enforce{Timeout: time.Hour, logins: []string{}, slow: func(path string) {
			if strings.HasSuffix(path, "/tool") {
				fmt.Println("asked")
				time.Sleep(time.Hour)
			}
		}}
	}
	_, err := Run(context.Background(), &integrity.Engine{Store: state.New(dir, state.Options{})}, o)
	t.Fatal(err)
}

func TestKilledAndStartedAgain(t *testing.T) {
	h := newHost(t)
	begun := time.Now()
	cmd := h.child(false)
	beaten := h.heartbeat(begun)
	beaten = h.heartbeat(beaten) // not only when it began
	killed := time.Now()
	cmd.Process.Kill()
	cmd.Wait()
	h.sh(`echo while nobody watched >etc/a`)
	w := h.watch()
	g := w.await("the gap", func(r *Record) bool { return r.Kind == GapRecord })
	if g.Clean || g.Found != 1 || g.Severity.String() != "medium" {
		t.Errorf("%+v", g)
	}
	// The span begins at the last heartbeat, not after the death.
	if g.Since.After(killed) || g.Since.Before(beaten) || g.Until.Before(killed) {
		t.Errorf("from %v to %v, killed %v", g.Since, g.Until, killed)
	}
	w.file("a", Changed)
	h.awaitFindings("watch-changed a")
	found := false
	for k, f := range h.findings() {
		found = found || strings.HasPrefix(k, "watch-gap ") && f.Severity.String() == "medium"
	}
	if !found {
		t.Error("no finding of the gap")
	}
}

// heartbeat waits for the first sign of life after a moment.
func (h *host) heartbeat(after time.Time) time.Time {
	h.t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		b, err := loadHeartbeat(h.t.Context(), h.e.Store, "default")
		if err != nil {
			h.t.Fatal(err)
		}
		if b.Alive.After(after) {
			return b.Alive
		}
		if time.Now().After(deadline) {
			h.t.Fatalf("no heartbeat after %v", after)
		}
	}
}

func TestKilledWhileAProgramWaits(t *testing.T) {
	h := newHost(t)
	h.programs()
	child := h.child(true)
	done := make(chan string, 1)
	go func() {
		cmd := exec.Command("sh", "-c", "exec other/tool --version")
		cmd.Dir = h.mnt
		out, err := cmd.CombinedOutput()
		done <- fmt.Sprintf("%v %.40s", err, out)
	}()
	child.await("asked")
	select {
	case said := <-done:
		t.Fatalf("it does not wait: %s", said)
	case <-time.After(300 * time.Millisecond):
	}
	child.Process.Kill()
	select {
	case said := <-done:
		if !strings.HasPrefix(said, "<nil> env") {
			t.Errorf("%s", said)
		}
	case <-time.After(patience):
		t.Fatal("it still waits although nobody is there to answer")
	}
}
