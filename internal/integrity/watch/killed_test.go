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

// child starts this test program once more, as a watch that can be killed.
func (h *host) child(enforce bool) *exec.Cmd {
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
	ready := make(chan bool)
	go func() {
		s := bufio.NewScanner(out)
		for s.Scan() {
			if s.Text() == "ready" {
				ready <- true
			}
		}
	}()
	select {
	case <-ready:
	case <-time.After(20 * time.Second):
		h.t.Fatal("the child is not ready")
	}
	return cmd
}

func TestWatchInAChild(t *testing.T) {
	dir := os.Getenv("WATCH_TEST_STATE")
	if dir == "" {
		return // it is a part of the tests below
	}
	o := Options{Name: "default", Beat: 200 * time.Millisecond, Report: func(*Record) error { return nil }, Ready: func(Mode) {
		time.AfterFunc(300*time.Millisecond, func() { fmt.Println("ready") })
	}}
	if os.Getenv("WATCH_TEST_ENFORCE") == "true" {
		o.Enforce = &Enforce{Timeout: time.Minute, logins: []string{}, slow: func(path string) {
			if strings.HasSuffix(path, "/tool") {
				time.Sleep(time.Minute)
			}
		}}
	}
	_, err := Run(context.Background(), &integrity.Engine{Store: state.New(dir, state.Options{})}, o)
	t.Fatal(err)
}

func TestKilledAndStartedAgain(t *testing.T) {
	h := newHost(t)
	cmd := h.child(false)
	time.Sleep(500 * time.Millisecond)
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
	if g.Since.After(killed) || killed.Sub(g.Since) > 5*time.Second || g.Until.Before(killed) {
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
	select {
	case said := <-done:
		t.Fatalf("it does not wait: %s", said)
	case <-time.After(time.Second):
	}
	child.Process.Kill()
	select {
	case said := <-done:
		if !strings.HasPrefix(said, "<nil> env") {
			t.Errorf("%s", said)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("it still waits although nobody is there to answer")
	}
}
