package main

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mobileops/mobileops/internal/plugin/manifest"
	"github.com/mobileops/mobileops/internal/plugin/sandbox"
)

// TestInTheSandbox: with the limits of plugin.yaml, and nothing that it does
// not ask for, events arrive over TLS and over HTTP, and it stops in order.
func TestInTheSandbox(t *testing.T) {
	if s := sandbox.Detect(); s.Landlock < 3 || !s.Seccomp || !s.Held {
		t.Skipf("NOT RUN: this host has %+v", s)
	}
	if raced {
		t.Skip("the race detector asks for more memory than the plugin may have")
	}
	data, err := os.ReadFile("plugin.yaml")
	if err != nil {
		t.Fatal(err)
	}
	m, err := manifest.Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	p := newPKI(t)
	r := newRsyslog(t, &p)
	r.start()
	e := &elastic{t: t}
	search := &httpReceiver{t: t, handler: e.life}
	search.start()
	h := newHost(t, settingsOf(
		quick(map[string]any{"name": "logs", "type": "syslog-tls", "address": r.address(), "ca_file": p.ca, "server_name": "logs.example.org"}),
		quick(map[string]any{"name": "search", "type": "bulk", "url": "http://" + search.address}),
	), map[string]string{"destinations[0].client_cert": p.clientCert, "destinations[0].client_key": p.clientKey, "destinations[1].token": "bulk-key"})

	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	theirs, ours := os.NewFile(uintptr(fds[1]), "plugin"), os.NewFile(uintptr(fds[0]), "host")
	conn, err := net.FileConn(ours)
	ours.Close()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	policy := sandbox.Policy{Read: []string{p.ca}, Data: h.data, Limits: sandbox.Limits{
		Memory: uint64(m.Permissions.Memory), Tasks: uint64(m.Permissions.Processes), Files: uint64(m.Permissions.Files), FileBytes: uint64(m.Permissions.FileSize),
	}}
	if os.Geteuid() == 0 {
		policy.Account = &sandbox.Account{UID: 62997, GID: 62997}
		if err := os.Chown(h.data, 62997, 62997); err != nil {
			t.Fatal(err)
		}
		for _, dir := range []string{filepath.Dir(program), filepath.Dir(h.data), filepath.Dir(filepath.Dir(p.ca)), filepath.Dir(p.ca)} {
			if err := os.Chmod(dir, 0o755); err != nil {
				t.Fatal(err)
			}
		}
	}
	out, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	proc, err := sandbox.Start(sandbox.Command{Program: program, Args: []string{"serve"}, Extra: []*os.File{theirs}, Stdout: in, Stderr: in, Group: true,
		Env: []string{"MOBILEOPS_PLUGIN_FD=3", "MOBILEOPS_PLUGIN=siem-integration-plugin", "MOBILEOPS_PLUGIN_DATA=" + h.data, "HOME=" + h.data}}, policy)
	in.Close()
	theirs.Close()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = proc.Signal(unix.SIGKILL) }) // does nothing when it has ended
	ended := make(chan struct{})
	go func() {
		b, _ := io.ReadAll(out)
		if b = bytes.TrimSpace(b); len(b) > 0 {
			t.Logf("the plugin said: %s", b)
		}
		close(ended)
	}()
	go h.speak(conn.(*net.UnixConn), "service", &process{ready: make(chan struct{})})
	late := time.AfterFunc(patience, func() { _ = proc.Signal(unix.SIGQUIT) })
	defer late.Stop()
	h.emit(findings(0, 3000)...)
	eventually(t, func() string { return fmt.Sprintf("%+v", h.status()) }, func() bool {
		select {
		case <-ended:
			t.Fatalf("the plugin ended: %+v", h.status())
		default:
		}
		n, _ := e.docs.count()
		// What the kernel of rsyslogd has counts, and it has still to write that.
		written, _ := r.received().count()
		s := h.status()
		return n == 3000 && written == 3000 && s.Queue.Next == 3001 && s.Queue.Records == 0
	})
	if n, doubles := r.received().count(); n != 3000 || doubles != 0 {
		t.Errorf("rsyslog has %d, %d doubles", n, doubles)
	}
	_ = proc.Signal(unix.SIGTERM)
	exit, err := proc.Wait()
	if err != nil || exit.Status.ExitStatus() != 0 {
		t.Errorf("it ended with %v (%v)", exit.Status, err)
	}
	<-ended
}
