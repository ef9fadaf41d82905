package isolation

import (
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestASessionOfMosh has this process pass for the server of mosh(1), which holds a
// socket of UDP and no connection.
func TestASessionOfMosh(t *testing.T) {
	const self = "/proc/self/comm"
	before, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(self, []byte("mosh-server"), 0); err != nil {
		t.Skipf("NOT RUN: whether a session of mosh is found: %v", err)
	}
	defer os.WriteFile(self, before, 0)
	conn, err := net.ListenUDP("udp4", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	port := uint16(conn.LocalAddr().(*net.UDPAddr).Port)
	s := FindSession("192.0.2.5 50000 192.0.2.1 22")
	if s == nil || s.Peer.String() != "192.0.2.5" || s.Port != 22 || s.Mosh != port {
		t.Fatalf("%+v, want port %d", s, port)
	}
	p, err := Prepare(Options{Session: func() *Session { return s }}, "a test")
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(p.Allowed(), func(peer Peer) bool {
		return peer.Prefix.Contains(s.Peer) && peer.Proto == unix.IPPROTO_UDP && peer.First == port && peer.Last == port
	}) {
		t.Errorf("allowed: %v", p.Allowed())
	}
}

func TestVariablesOfAnotherProcess(t *testing.T) {
	cmd := exec.Command("cat")
	cmd.Env = []string{"SSH_CONNECTION_OLD=x", "SSH_CONNECTION=192.0.2.5 50000 192.0.2.1 22"}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer in.Close()
	// Start returns before the kernel has given the process what it runs with; once it
	// answers, it has.
	if _, err := io.WriteString(in, "x"); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(out, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	if got := environment(cmd.Process.Pid, "SSH_CONNECTION"); got != "192.0.2.5 50000 192.0.2.1 22" {
		t.Errorf("%q", got)
	}
	if got := environment(cmd.Process.Pid, "SSH"); got != "" {
		t.Errorf("%q", got)
	}
}

// TestNameAndParentOfAProcess reads the name of a process that looks like what comes
// after it, and whose child it is.
func TestNameAndParentOfAProcess(t *testing.T) {
	const name = "x) S 1 (y"
	program := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(program, []byte("#!/bin/sh\nread line\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program)
	end, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer end.Close()
	got := nameOf(cmd.Process.Pid)
	for limit := time.Now().Add(time.Minute); got != name && time.Now().Before(limit); time.Sleep(time.Millisecond) {
		got = nameOf(cmd.Process.Pid) // it gets its name a moment after it has begun
	}
	if parent := parent(cmd.Process.Pid); got != name || parent != os.Getpid() {
		t.Errorf("%q, child of %d; want %q, child of %d", got, parent, name, os.Getpid())
	}
	const nobody = 1 << 30 // more than there can be
	if name, parent := nameOf(nobody), parent(nobody); name != "" || parent != 0 {
		t.Errorf("a process that does not exist: %q, child of %d", name, parent)
	}
}

// TestSocketsOfAProcess finds a socket between other descriptors.
func TestSocketsOfAProcess(t *testing.T) {
	before := socketsOf(os.Getpid())
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if slices.Contains(before, fd) || !slices.Contains(socketsOf(os.Getpid()), fd) {
		t.Errorf("%d is among %v, and then not among %v", fd, before, socketsOf(os.Getpid()))
	}
}
