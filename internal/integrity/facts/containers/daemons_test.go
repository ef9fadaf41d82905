package containers

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mobileops/mobileops/internal/integrity/facts"
)

// daemon is a real runtime of a test's own.
type daemon struct {
	testing.TB
	dir      string
	socket   string
	endpoint string
	tool     []string // what commands it
	env      []string
}

// shortDir is a directory whose name leaves room for that of a socket.
func shortDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "mo-ct-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func needs(t testing.TB, tools ...string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("NOT RUN: needs root to run a container runtime")
	}
	for _, tool := range tools {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("NOT RUN: %s is not installed (see .ci/test-tools)", tool)
		}
	}
}

// start runs a daemon in a session of its own until the test ends.
func (d *daemon) start(args ...string) {
	d.Helper()
	log, err := os.Create(filepath.Join(d.dir, "log"))
	if err != nil {
		d.Fatal(err)
	}
	defer log.Close()
	c := exec.Command(args[0], args[1:]...)
	c.Stdout, c.Stderr, c.SysProcAttr = log, log, &syscall.SysProcAttr{Setsid: true}
	c.Env = append(os.Environ(), d.env...)
	if err := c.Start(); err != nil {
		d.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- c.Wait() }()
	d.Cleanup(func() {
		c.Process.Signal(syscall.SIGTERM)
		select {
		case <-ended:
		case <-time.After(10 * time.Second):
			syscall.Kill(-c.Process.Pid, syscall.SIGKILL) // its session, which nothing else is in
			<-ended
		}
	})
	for range 2400 {
		select {
		case err := <-ended:
			ended <- err
			text, _ := os.ReadFile(log.Name())
			d.Skipf("NOT RUN: %s does not run here: %v\n%s", args[0], err, text)
		case <-time.After(50 * time.Millisecond):
		}
		sources, _, err := Collector{Endpoints: []Endpoint{{d.endpoint, d.socket}}}.Collect(d.Context())
		if err == nil && sources[1].State == facts.OK {
			return
		}
	}
	text, _ := os.ReadFile(log.Name())
	d.Fatalf("%s does not answer\n%s", args[0], text)
}

// do runs the tool that commands the daemon.
func (d *daemon) do(args ...string) {
	d.Helper()
	c := exec.Command(d.tool[0], append(slices.Clone(d.tool[1:]), args...)...)
	c.Env = append(os.Environ(), d.env...)
	if out, err := c.CombinedOutput(); err != nil {
		d.Fatalf("%q: %v: %s", c.Args, err, out)
	}
}

// archive writes a tar file that can be imported as an image.
func (d *daemon) archive(content string) string {
	d.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	err := errors.Join(w.WriteHeader(&tar.Header{Name: "hi", Mode: 0o755, Size: int64(len(content))}))
	_, err2 := w.Write([]byte(content))
	path := filepath.Join(d.dir, fmt.Sprintf("image-%x.tar", content))
	if err := errors.Join(err, err2, w.Close(), os.WriteFile(path, b.Bytes(), 0o644)); err != nil {
		d.Fatal(err)
	}
	return path
}

func (d *daemon) collect() *facts.Snapshot {
	d.Helper()
	sources, list, err := Collector{Endpoints: []Endpoint{{d.endpoint, d.socket}}}.Collect(d.Context())
	if err != nil {
		d.Fatal(err)
	}
	for _, s := range sources {
		if s.State != facts.OK {
			d.Fatalf("source %s is %s: %s", s.ID(), s.State, s.Detail)
		}
	}
	return facts.New(time.Now(), []string{facts.Containers}, sources, list)
}

func podman(t testing.TB) *daemon {
	t.Helper()
	needs(t, "podman", "crun")
	dir := shortDir(t)
	d := &daemon{TB: t, dir: dir, socket: filepath.Join(dir, "s"), endpoint: "podman"}
	conf := filepath.Join(dir, "storage.conf")
	if err := os.WriteFile(conf, fmt.Appendf(nil, "[storage]\ndriver=\"vfs\"\nrunroot=%q\ngraphroot=%q\n", dir+"/run", dir+"/root"), 0o644); err != nil {
		t.Fatal(err)
	}
	d.env = []string{"CONTAINERS_STORAGE_CONF=" + conf, "HOME=" + dir}
	d.tool = []string{"podman", "--root", dir + "/root", "--runroot", dir + "/run", "--storage-driver", "vfs",
		"--cgroup-manager=cgroupfs", "--events-backend=file", "--tmpdir", dir + "/tmp"}
	d.start(append(slices.Clone(d.tool), "system", "service", "--time", "0", "unix://"+d.socket)...)
	return d
}

func containerdDaemon(t testing.TB) *daemon {
	t.Helper()
	needs(t, "containerd", "ctr")
	dir := shortDir(t)
	d := &daemon{TB: t, dir: dir, socket: filepath.Join(dir, "s"), endpoint: "containerd"}
	conf := filepath.Join(dir, "config.toml")
	if err := os.WriteFile(conf, fmt.Appendf(nil, "version = 2\nroot = %q\nstate = %q\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n[grpc]\naddress = %q\n",
		dir+"/root", dir+"/state", d.socket), 0o644); err != nil {
		t.Fatal(err)
	}
	d.tool = []string{"ctr", "--address", d.socket}
	d.start("containerd", "--config", conf)
	return d
}

func docker(t testing.TB) *daemon {
	t.Helper()
	needs(t, "dockerd", "docker", "iptables")
	below := containerdDaemon(t)
	dir := shortDir(t)
	d := &daemon{TB: t, dir: dir, socket: filepath.Join(dir, "s"), endpoint: "docker"}
	d.tool = []string{"docker", "--host", "unix://" + d.socket}
	d.env = []string{"HOME=" + dir, "DOCKER_CONFIG=" + dir}
	if err := os.WriteFile(dir+"/none.json", []byte("{}"), 0o644); err != nil {
		t.Fatal(err)
	}
	d.start("dockerd", "--iptables=false", "--ip6tables=false", "--bridge=none", "--storage-driver=vfs", "--data-root", dir+"/data", "--exec-root", dir+"/exec",
		"--pidfile", dir+"/pid", "--config-file", dir+"/none.json", "--host", "unix://"+d.socket, "--containerd", below.socket)
	return d
}

// drift are the changes from one snapshot to the other, a line each.
func drift(old, now *facts.Snapshot) []string {
	changes, _ := facts.Diff(old, now)
	out := []string{}
	for _, c := range changes {
		s := string(c.Kind) + " " + c.Severity.String() + " " + strings.TrimPrefix(c.ID(), "containers:")
		for _, a := range c.Attributes {
			s += " " + a.Name
		}
		out = append(out, s)
	}
	slices.Sort(out)
	return out
}

func expect(t testing.TB, got []string, want ...string) {
	t.Helper()
	slices.Sort(want)
	if !slices.Equal(got, append([]string{}, want...)) {
		t.Errorf("drift\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// attributes fails the test when a fact does not have these attributes.
func attributes(t testing.TB, s *facts.Snapshot, id string, want ...string) {
	t.Helper()
	f := s.Find("containers:" + id)
	if f == nil {
		t.Errorf("no %s", id)
		return
	}
	for _, w := range want {
		name, v, _ := strings.Cut(w, "=")
		if got := f.Attributes[name]; got != v {
			t.Errorf("%s: %s is %q, want %q", id, name, got, v)
		}
	}
}
