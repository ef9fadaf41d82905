package block_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/mobileops/mobileops/internal/network/lab"
)

// worker is a shell in a host that connects, by processes that it starts, whenever
// it is told to.
type worker struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

func startWorker(t *testing.T, h *lab.Host, prefix ...string) *worker {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	words := append(prefix, "bash", "-c", `echo ready; while read host port; do timeout 2 bash -c "exec 3<>/dev/tcp/$host/$port && echo hello >&3 && head -c 5 <&3 >/dev/null" 2>/dev/null; echo $?; done`)
	cmd := h.Command(ctx, words[0], words[1:]...)
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
	t.Cleanup(func() { in.Close(); cancel(); cmd.Wait() })
	w := &worker{cmd, in, bufio.NewReader(out)}
	// It is on its way into the host until then, and its network another one.
	if line, err := w.out.ReadString('\n'); line != "ready\n" {
		t.Fatalf("the worker says %q: %v", line, err)
	}
	return w
}

// to is a probe by the worker.
func (w *worker) to(name string, a netip.Addr, port int) *lab.Probe {
	return &lab.Probe{Name: name, Try: func(context.Context) error {
		fmt.Fprintf(w.in, "%s %d\n", a, port)
		line, err := w.out.ReadString('\n')
		if err == nil && line != "0\n" {
			err = fmt.Errorf("status %s", line)
		}
		return err
	}}
}

func TestUsersAreCutOff(t *testing.T) {
	t.Parallel()
	s := stage(t)
	s.peer.Serve(80)
	s.host.Serve(81)
	nobody := startWorker(t, s.host, "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups").to("nobody", s.peer.IPv4(), 80)
	root := startWorker(t, s.host).to("root", s.peer.IPv6(), 80)
	own := startWorker(t, s.host, "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups").to("nobody to this host", netip.MustParseAddr("127.0.0.1"), 81)
	lab.Open(t, nobody, root, own)
	s.cutOff(t, "--uid", "65534")
	lab.Blocked(t, nobody, own)
	lab.Open(t, root)
	s.lift(t, "uid:65534")
	lab.Open(t, nobody)
}

// cgroups returns where version 2 is mounted.
func cgroups(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if strings.Contains(line, " - cgroup2 ") {
			return strings.Fields(line)[4]
		}
	}
	t.Skip("NOT RUN: control groups of version 2 are not mounted on this machine")
	return ""
}

func TestControlGroupsAreCutOff(t *testing.T) {
	t.Parallel()
	s := stage(t)
	s.peer.Serve(80)
	mount := cgroups(t)
	path := filepath.Join("/", fmt.Sprintf("mobileops-test-%d", os.Getpid()), "deep")
	dir := mount + path
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Remove(dir); os.Remove(filepath.Dir(dir)) })
	inside, outside := startWorker(t, s.host), startWorker(t, s.host)
	t.Cleanup(func() { os.WriteFile(mount+"/cgroup.procs", []byte(strconv.Itoa(inside.cmd.Process.Pid)), 0) })
	if err := os.WriteFile(dir+"/cgroup.procs", []byte(strconv.Itoa(inside.cmd.Process.Pid)), 0); err != nil {
		t.Fatal(err)
	}
	in, out := inside.to("inside", s.peer.IPv4(), 80), outside.to("outside", s.peer.IPv4(), 80)
	lab.Open(t, in, out)
	s.cutOff(t, "--cgroup", path, "--ttl", "1h")
	lab.Blocked(t, in)
	lab.Open(t, out)
	if changed := reconcile(t, s.host); len(changed) > 0 {
		t.Errorf("changed: %v", changed)
	}
	// A control group that is made anew has another inode.
	if err := os.WriteFile(mount+"/cgroup.procs", []byte(strconv.Itoa(inside.cmd.Process.Pid)), 0); err != nil {
		t.Fatal(err)
	}
	lab.Open(t, in)
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	if changed := fmt.Sprint(reconcile(t, s.host)); !strings.Contains(changed, "is gone") {
		t.Errorf("changed: %v", changed)
	}
	if r := s.host.Mobileops("network", "block", "list"); !strings.Contains(r.Stdout, "not covered") {
		t.Errorf("listed: %s", r.Stdout)
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir+"/cgroup.procs", []byte(strconv.Itoa(inside.cmd.Process.Pid)), 0); err != nil {
		t.Fatal(err)
	}
	if changed := fmt.Sprint(reconcile(t, s.host)); !strings.Contains(changed, "found anew") {
		t.Errorf("changed: %v", changed)
	}
	lab.Blocked(t, in)
	s.host.Mobileops("network", "isolate-threat", "--cgroup", "/no/such").Is(t, 2)
	s.host.Mobileops("network", "isolate-threat", "--cgroup", "/").Is(t, 2)
}

func TestProcessesAreCutOffWithWhatTheyStart(t *testing.T) {
	t.Parallel()
	s := stage(t)
	s.peer.Serve(80)
	mount := cgroups(t)
	w, other := startWorker(t, s.host), startWorker(t, s.host)
	pid := w.cmd.Process.Pid
	mine, theirs := w.to("the process", s.peer.IPv4(), 80), other.to("another one", s.peer.IPv4(), 80)
	lab.Open(t, mine, theirs)
	before, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		t.Fatal(err)
	}
	s.cutOff(t, "--pid", strconv.Itoa(pid), "--reason", "case 17")
	lab.Blocked(t, mine)
	lab.Open(t, theirs)
	made, _ := filepath.Glob(mount + fmt.Sprintf("/mobileops-blocked-%d-*", pid))
	if changed := reconcile(t, s.host); len(changed) > 0 {
		t.Errorf("changed: %v", changed)
	}
	s.host.Mobileops("network", "isolate-threat", "--pid", strconv.Itoa(pid)).Is(t, 8)
	s.liftProcess(t)
	lab.Open(t, mine)
	if after, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid)); string(after) != string(before) {
		t.Errorf("it is in\n%s\nand was in\n%s", after, before)
	}
	for _, dir := range made {
		if _, err := os.Stat(dir); err == nil {
			t.Errorf("%s is left", dir)
		}
	}
	// One that ends is forgotten; one that started this command is refused.
	s.cutOff(t, "--pid", strconv.Itoa(pid))
	w.in.Close()
	w.cmd.Wait()
	for deadline := time.Now().Add(time.Minute); !strings.Contains(fmt.Sprint(reconcile(t, s.host)), "has ended"); {
		if time.Now().After(deadline) {
			t.Fatal("a process that has ended stays blocked")
		}
	}
	s.host.Mobileops("network", "isolate-threat", "--pid", strconv.Itoa(os.Getpid())).Is(t, 2)
	s.host.Mobileops("network", "isolate-threat", "--pid", "1").Is(t, 2)
	s.host.Mobileops("network", "isolate-threat", "--pid", "4194304").Is(t, 2)
}

// TestProcessWithSocketsOpen: what cannot be covered is said.
func TestProcessWithSocketsOpen(t *testing.T) {
	t.Parallel()
	s := stage(t)
	cgroups(t)
	if _, err := exec.LookPath("socat"); err != nil {
		t.Skip("NOT RUN: what a process had open before: socat is not installed")
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	cmd := s.host.Command(ctx, "socat", "TCP-LISTEN:7777,fork", "EXEC:cat")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { cancel(); cmd.Wait() }()
	for deadline := time.Now().Add(time.Minute); !strings.Contains(s.host.Run("ss", "-Hltn", "sport = 7777").Stdout, "7777"); {
		if time.Now().After(deadline) {
			t.Fatal("socat does not listen")
		}
	}
	r := s.host.Mobileops("network", "isolate-threat", "--pid", strconv.Itoa(cmd.Process.Pid)).Is(t, 6)
	if !strings.Contains(r.Stderr, "had opened tcp 0.0.0.0:7777 before") {
		t.Error(r.Stderr)
	}
	s.liftProcess(t)
}

// liftProcess lifts the only process that is blocked.
func (s *scene) liftProcess(t *testing.T) {
	t.Helper()
	r := s.host.Mobileops("network", "block", "list", "--output", "json").Is(t, 0)
	_, target, ok := strings.Cut(r.Stdout, `"pid:`)
	if !ok {
		t.Fatalf("no process is blocked: %s", r.Stdout)
	}
	target, _, _ = strings.Cut(target, `"`)
	s.lift(t, "pid:"+target)
}

func TestContainersAreFoundAndCutOff(t *testing.T) {
	t.Parallel()
	s := stage(t)
	s.host.Forward()
	box := s.host.Guest("box", "veth7", "10.88.0.2/24", "fd88::2/64")
	s.host.IP("addr add 10.88.0.1/24 dev veth7", "addr add fd88::1/64 dev veth7 nodad")
	inside, outside := netip.MustParseAddr("10.88.0.1"), netip.MustParseAddr("fd88::2")
	ways := []*lab.Probe{box.Ping(inside), box.TCP(s.host, inside, 81), s.host.TCP(box, outside, 80), s.host.UDP(box, outside, 80)}
	lab.Open(t, ways...)
	w := startWorker(t, box)
	// As podman writes it: the engine's files are the container's identity.
	id := strings.Repeat("ab12", 16)
	storage := filepath.Join(s.host.Empty("/var/lib/containers"), "storage", "overlay-containers")
	run := filepath.Join(s.host.Empty("/run"), "containers", "storage", "overlay-containers", id, "userdata")
	for _, dir := range []string{storage, run} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for path, text := range map[string]string{
		filepath.Join(storage, "containers.json"): fmt.Sprintf(`[{"id":%q,"names":["shop"]},{"id":"ff","names":["other"]}]`, id),
		filepath.Join(run, "pidfile"):             strconv.Itoa(w.cmd.Process.Pid),
	} {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	r := s.cutOff(t, "--container", "shop", "--output", "json")
	for _, want := range []string{`"veth7"`, `"10.88.0.2"`, `"fd88::2"`} {
		if !strings.Contains(r.Stdout, want) {
			t.Errorf("%s is not in %s", want, r.Stdout)
		}
	}
	lab.Blocked(t, ways...)
	s.lift(t, "shop")
	lab.Open(t, ways...)
	s.cutOff(t, "--container", id[:12])
	lab.Blocked(t, ways...)
	s.host.Mobileops("network", "isolate-threat", "--container", "none").Is(t, 2)
	s.host.Mobileops("network", "isolate-threat", "--container", "other").Is(t, 7)
}
