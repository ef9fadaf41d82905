package ui

import (
	"bytes"
	"context"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/creack/pty"
	"github.com/mobileops/mobileops/internal/failure"
)

// A password is not shown while it is typed, and what is typed afterwards is.
func TestPassword(t *testing.T) {
	master, terminal, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer master.Close()
	defer terminal.Close()
	var mu sync.Mutex
	var shown bytes.Buffer
	go func() {
		b := make([]byte, 256)
		for {
			n, err := master.Read(b)
			if err != nil {
				return
			}
			mu.Lock()
			shown.Write(b[:n])
			mu.Unlock()
		}
	}()
	waitFor := func(text string) string {
		t.Helper()
		for end := time.Now().Add(2 * time.Minute); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
			mu.Lock()
			got := shown.String()
			mu.Unlock()
			if strings.Contains(got, text) {
				return got
			}
		}
		t.Fatalf("%q was not shown", text)
		return ""
	}
	s := &Streams{In: terminal, Out: terminal, Err: terminal, InTTY: true, OutTTY: true, ErrTTY: true}
	go func() {
		waitFor("Password:")
		master.WriteString("open sesame\n")
	}()
	word, err := s.Password(t.Context(), "Password:", "--password-file")
	if err != nil || word != "open sesame" {
		t.Errorf("%q %v", word, err)
	}
	master.WriteString("visible")
	if got := waitFor("visible"); strings.Contains(got, "sesame") {
		t.Errorf("shown: %q", got)
	}

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Password(ctx, "Password:", "--password-file"); failure.KindOf(err) != failure.Interrupted {
		t.Errorf("interrupted: %v", err)
	}
	master.WriteString("again")
	waitFor("again")

	pipe, _, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer pipe.Close()
	if _, err := (&Streams{In: pipe, Err: terminal, ErrTTY: true}).Password(t.Context(), "Password:", "--password-file"); failure.KindOf(err) != failure.Usage || !strings.Contains(err.Error(), "--password-file") {
		t.Errorf("without a terminal: %v", err)
	}
}
