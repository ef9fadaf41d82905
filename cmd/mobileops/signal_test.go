package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os/exec"
	"syscall"
	"testing"
	"time"
)

// stubborn is a program that is told to stop and does not.
func stubborn() {
	ctx := interruptible(context.Background())
	fmt.Println("ready")
	<-ctx.Done()
	fmt.Println("cancelled")
	time.Sleep(time.Minute)
}

// startStubborn runs it below a shell command, and waits until it is ready.
func startStubborn(t *testing.T, shell string) (*exec.Cmd, *bufio.Reader) {
	t.Helper()
	cmd := exec.Command("sh", "-c", shell)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	lines := bufio.NewReader(out)
	expectLine(t, lines, "ready\n")
	return cmd, lines
}

func expectLine(t *testing.T, r *bufio.Reader, want string) {
	t.Helper()
	got := make(chan string, 1)
	go func() {
		line, err := r.ReadString('\n')
		if err != nil && err != io.EOF {
			line = err.Error()
		}
		got <- line
	}()
	select {
	case line := <-got:
		if line != want {
			t.Fatalf("said %q, want %q", line, want)
		}
	case <-time.After(time.Minute):
		t.Fatalf("nothing said, want %q", want)
	}
}

func TestFirstSignalCancelsSecondEnds(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP} {
		cmd, lines := startStubborn(t, "exec stubborn")
		cmd.Process.Signal(sig)
		expectLine(t, lines, "cancelled\n")
		began := time.Now()
		cmd.Process.Signal(sig)
		cmd.Wait()
		if status := cmd.ProcessState.ExitCode(); status != 130 || time.Since(began) > 45*time.Second {
			t.Errorf("%v twice: status %d after %v", sig, status, time.Since(began))
		}
	}
}

func TestNohupHolds(t *testing.T) {
	cmd, lines := startStubborn(t, "trap '' HUP; exec stubborn")
	cmd.Process.Signal(syscall.SIGHUP)
	cmd.Process.Signal(syscall.SIGHUP)
	time.Sleep(100 * time.Millisecond)
	if err := cmd.Process.Signal(syscall.Signal(0)); err != nil {
		t.Fatalf("it ended: %v", err)
	}
	cmd.Process.Signal(syscall.SIGTERM)
	expectLine(t, lines, "cancelled\n")
}
