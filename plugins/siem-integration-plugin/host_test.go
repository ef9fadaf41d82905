package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mobileops/mobileops/pkg/pluginsdk"
)

// patience is how long tests wait for what should happen soon.
const patience = 120 * time.Second

var program string // the plugin, built

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "siem-plugin-")
	if err != nil {
		panic(err)
	}
	program = filepath.Join(dir, "mobileops-siem-integration-plugin")
	build := exec.Command("go", "build", "-o", program, fmt.Sprintf("-race=%t", raced), ".")
	build.Stderr = os.Stderr
	if err := build.Run(); err != nil {
		panic(err)
	}
	status := m.Run()
	os.RemoveAll(dir)
	os.Exit(status)
}

// testHost is what the plugin talks to: the protocol's other end, with a log
// of events and the cursor that was acknowledged. It outlives the processes of
// the plugin.
type testHost struct {
	t    *testing.T
	data string // of the plugin

	mu      sync.Mutex
	config  map[string]any
	secrets map[string]string
	events  []json.RawMessage
	more    chan struct{}
	acked   int // events that the plugin has
	health  pluginsdk.Health
	sent    int // events sent, also again
	noDial  bool
}

func newHost(t *testing.T, config map[string]any, secrets map[string]string) *testHost {
	return &testHost{t: t, data: t.TempDir(), config: config, secrets: secrets, more: make(chan struct{})}
}

// emit adds events to the log.
func (h *testHost) emit(events ...pluginsdk.Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, e := range events {
		b, err := json.Marshal(e)
		if err != nil {
			h.t.Fatal(err)
		}
		h.events = append(h.events, b)
	}
	close(h.more)
	h.more = make(chan struct{})
}

// finding is an event as a sensor brings it about.
func finding(n int) pluginsdk.Event {
	at := time.Date(2026, 5, 6, 7, 8, 9, n*1000, time.UTC)
	return pluginsdk.Event{ID: fmt.Sprintf("f-%06d", n), Type: pluginsdk.TypeFinding, Time: at, Change: pluginsdk.ChangeOpened, Finding: &pluginsdk.Finding{
		Source: "integrity", Rule: "file-changed", Severity: pluginsdk.Severities()[n%5], Title: "A file of a package was changed",
		Subject: fmt.Sprintf("/usr/bin/program-%d", n), Evidence: map[string]string{"digest": "was 4f, is 5e", "package": "coreutils"},
		Remediation: "Reinstall the package", ID: fmt.Sprintf("%010x", n), Fingerprint: fmt.Sprintf("%032x", n), State: pluginsdk.Open,
		FirstSeen: at, LastSeen: at, TimesSeen: 1, Scopes: []string{"default"},
	}}
}

func audit(n int) pluginsdk.Event {
	at := time.Date(2026, 5, 6, 7, 8, 9, n*1000, time.UTC)
	return pluginsdk.Event{ID: fmt.Sprintf("a-%06d", n), Type: pluginsdk.TypeAudit, Time: at, Audit: &pluginsdk.AuditRecord{
		Sequence: uint64(n + 1), Hash: strings.Repeat("ab", 32), Time: at, Actor: pluginsdk.Actor{UID: 0, User: "root", LoginUID: 1000},
		Command: "integrity check", Args: []string{"--quiet"}, Status: 1, Result: "3 changes", Elapsed: time.Second,
	}}
}

func findings(from, n int) []pluginsdk.Event {
	list := make([]pluginsdk.Event, n)
	for i := range list {
		list[i] = finding(from + i)
	}
	return list
}

// starts are of processes that are to end with this one, which Pdeathsig does
// when the thread that started them ends: this one does not, while one that
// sandbox.Start takes for itself does.
var starts = make(chan func())

func init() {
	go func() {
		runtime.LockOSThread()
		for start := range starts {
			start()
		}
	}()
}

// startBound starts a process that ends with this one.
func startBound(cmd *exec.Cmd) error {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}
	started := make(chan error)
	starts <- func() { started <- cmd.Start() }
	return <-started
}

// process is one run of the plugin.
type process struct {
	cmd    *exec.Cmd
	ready  chan struct{}
	exited chan struct{}
	out    bytes.Buffer // after exited
	errs   bytes.Buffer
}

// start starts the plugin with some arguments, connected to the host.
func (h *testHost) start(role string, args ...string) *process {
	h.t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		h.t.Fatal(err)
	}
	theirs := os.NewFile(uintptr(fds[1]), "plugin")
	ours := os.NewFile(uintptr(fds[0]), "host")
	c, err := net.FileConn(ours)
	ours.Close()
	if err != nil {
		h.t.Fatal(err)
	}
	p := &process{cmd: exec.Command(program, args...), ready: make(chan struct{}), exited: make(chan struct{})}
	p.cmd.ExtraFiles = []*os.File{theirs}
	p.cmd.Dir = h.data
	p.cmd.Env = []string{"MOBILEOPS_PLUGIN_FD=3", "MOBILEOPS_PLUGIN=siem-integration-plugin", "MOBILEOPS_PLUGIN_VERSION=1.0.0",
		"MOBILEOPS_PLUGIN_DATA=" + h.data, "MOBILEOPS_PLUGIN_ROLE=" + role, "HOME=" + h.data, "PATH=/usr/bin:/bin", "LANG=C.UTF-8"}
	p.cmd.Stdout, p.cmd.Stderr = &p.out, &p.errs
	if err := startBound(p.cmd); err != nil {
		h.t.Fatal(err)
	}
	theirs.Close()
	go func() {
		_ = p.cmd.Wait()
		close(p.exited)
	}()
	go h.speak(c.(*net.UnixConn), role, p)
	h.t.Cleanup(func() {
		p.kill()
		c.Close()
		if said := p.errs.String(); strings.Contains(said, "DATA RACE") || strings.Contains(said, "panic:") {
			h.t.Errorf("the plugin said: %s", said)
		}
	})
	return p
}

// serve starts the service and waits until it is ready.
func (h *testHost) serve() *process {
	h.t.Helper()
	p := h.start("service", "serve")
	select {
	case <-p.ready:
	case <-p.exited:
		h.t.Fatalf("the plugin ended: %s", &p.errs)
	case <-time.After(patience):
		h.t.Fatal("the plugin is not ready")
	}
	return p
}

func (p *process) kill() {
	_ = p.cmd.Process.Signal(syscall.SIGKILL)
	<-p.exited
}

// stop ends the service as the supervisor does.
func (p *process) stop(t *testing.T) {
	t.Helper()
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.exited:
	case <-time.After(patience):
		t.Fatal("the plugin does not end")
	}
	if s := p.cmd.ProcessState; !s.Success() {
		t.Fatalf("the plugin ended with %s: %s", s, &p.errs)
	}
}

// command runs a command of the plugin to its end.
func (h *testHost) command(args ...string) (out string, status int) {
	h.t.Helper()
	p := h.start("command", args...)
	select {
	case <-p.exited:
	case <-time.After(patience):
		h.t.Fatalf("%q does not end", args)
	}
	return p.out.String() + p.errs.String(), p.cmd.ProcessState.ExitCode()
}

type request struct {
	ID     int             `json:"id"`
	Method string          `json:"method"`
	Params json.RawMessage `json:"params"`
}

// speak is the protocol for one process.
func (h *testHost) speak(conn *net.UnixConn, role string, p *process) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var out sync.Mutex
	say := func(line []byte, rights []byte) {
		out.Lock()
		defer out.Unlock()
		line = append(line, '\n')
		n := 0
		if rights != nil {
			n, _, _ = conn.WriteMsgUnix(line, rights, nil)
		}
		_, _ = conn.Write(line[n:])
	}
	answer := func(id int, result any) {
		b, _ := json.Marshal(map[string]any{"id": id, "result": result})
		say(b, nil)
	}
	refuse := func(id int, code, message string) {
		b, _ := json.Marshal(map[string]any{"id": id, "error": map[string]any{"code": code, "message": message}})
		say(b, nil)
	}
	say([]byte(`{"method":"hello","params":{"protocol":"mobileops.plugin/v1","host":{"version":"0.1.0","id":"h"},"plugin":{"name":"siem-integration-plugin","version":"1.0.0"},"role":"`+role+`"}}`), nil)
	acks := make(chan struct{}, 8)
	in := bufio.NewReaderSize(conn, 1<<20)
	for {
		line, err := in.ReadBytes('\n')
		if err != nil {
			return
		}
		var r request
		if err := json.Unmarshal(line, &r); err != nil {
			h.t.Errorf("the plugin said %q", line)
			return
		}
		switch r.Method {
		case "ready":
			close(p.ready)
		case "health":
			h.mu.Lock()
			_ = json.Unmarshal(r.Params, &h.health)
			h.mu.Unlock()
		case "config.get":
			h.mu.Lock()
			names := []string{}
			for name := range h.secrets {
				names = append(names, name)
			}
			config := h.config
			h.mu.Unlock()
			answer(r.ID, map[string]any{"values": config, "secrets": names})
		case "secret.get":
			var ask struct{ Name string }
			_ = json.Unmarshal(r.Params, &ask)
			answer(r.ID, map[string]any{"value": h.secrets[ask.Name]})
		case "events.subscribe":
			h.mu.Lock()
			from := h.acked
			h.mu.Unlock()
			answer(r.ID, map[string]any{"cursor": strconv.Itoa(from)})
			go h.feed(ctx, from, say, acks)
		case "events.ack":
			var ask struct{ Cursor string }
			_ = json.Unmarshal(r.Params, &ask)
			n, _ := strconv.Atoi(ask.Cursor)
			h.mu.Lock()
			h.acked = max(h.acked, n)
			h.mu.Unlock()
			answer(r.ID, struct{}{})
			acks <- struct{}{}
		case "dial":
			var ask struct{ Network, Address string }
			_ = json.Unmarshal(r.Params, &ask)
			go func() {
				h.mu.Lock()
				no := h.noDial
				h.mu.Unlock()
				if no {
					refuse(r.ID, "denied", "not in the permissions")
					return
				}
				c, err := net.DialTimeout(ask.Network, ask.Address, time.Minute)
				if err != nil {
					refuse(r.ID, "failed", err.Error())
					return
				}
				f, err := c.(interface{ File() (*os.File, error) }).File()
				c.Close()
				if err != nil {
					refuse(r.ID, "failed", err.Error())
					return
				}
				b, _ := json.Marshal(map[string]any{"id": r.ID, "result": struct{}{}})
				say(b, unix.UnixRights(int(f.Fd())))
				f.Close()
			}()
		default:
			refuse(r.ID, "unknown", r.Method)
		}
	}
}

// feed sends events in batches, at most two of which are not acknowledged.
func (h *testHost) feed(ctx context.Context, next int, say func([]byte, []byte), acks chan struct{}) {
	free := 2
	for {
		for free == 0 {
			select {
			case <-acks:
				free++
			case <-ctx.Done():
				return
			}
		}
		h.mu.Lock()
		n := min(len(h.events), next+1+next%97) // batches of many sizes
		list, more := h.events[next:n], h.more
		h.sent += len(list)
		h.mu.Unlock()
		if len(list) == 0 {
			select {
			case <-more:
			case <-acks:
				free++
			case <-ctx.Done():
				return
			}
			continue
		}
		b, _ := json.Marshal(map[string]any{"method": "events", "params": map[string]any{"events": list, "cursor": strconv.Itoa(n)}})
		say(b, nil)
		free--
		next = n
	}
}

// eventually waits until ok says so.
func eventually(t *testing.T, what func() string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("it did not happen: %s", what())
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// settled is the status of a destination from the status file.
func (h *testHost) status() report {
	var r report
	b, _ := os.ReadFile(filepath.Join(h.data, "status.json"))
	_ = json.Unmarshal(b, &r)
	return r
}
