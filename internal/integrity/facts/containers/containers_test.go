package containers

import (
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/mobileops/mobileops/internal/integrity/facts"
)

// TestEngines: docker and podman themselves, commanded by their own tools.
func TestEngines(t *testing.T) {
	for name, start := range map[string]func(testing.TB) *daemon{"docker": docker, "podman": podman} {
		t.Run(name, func(t *testing.T) {
			d := start(t)
			empty := d.collect()
			attributes(t, empty, "runtime/"+name)
			d.do("import", d.archive("one"), "tiny:1")
			tag := name + "/tiny:1"
			if name == "podman" {
				tag = name + "/localhost/tiny:1"
			}
			d.do("create", "--name", "plain", "tiny:1", "/hi")
			d.do("create", "--name", "web", "--privileged", "-v", "/etc:/host:ro", "-v", "/:/all", "--network", "host", "--pid", "host", "tiny:1", "/hi", "--password=hunter2")
			d.do("create", "--name", "tool", "--cap-add", "SYS_PTRACE", "--security-opt", "seccomp=unconfined", "--device", "/dev/null", "--user", "7", "--read-only", "--restart", "always", "tiny:1", "/hi")
			d.do("create", "--rm", "--name", "job", "tiny:1", "/hi")
			d.do("create", "--rm", "--name", "badjob", "-v", "/run:/r", "tiny:1", "/hi")
			now := d.collect()
			expect(t, drift(empty, now), "added medium container/"+name+"/plain", "added high container/"+name+"/web",
				"added high container/"+name+"/tool", "added high container/"+name+"/badjob", "added low image/"+tag)
			attributes(t, now, "container/"+name+"/plain", "privileged=no", "risks=none", "mounts=none", "capabilities=none", "read_only=no")
			attributes(t, now, "container/"+name+"/web", "privileged=yes", "risks=mounts /, network of the host, pid of the host, privileged",
				"mounts=/:/all:rw, /etc:/host:ro", "network=host", "pid=host")
			attributes(t, now, "container/"+name+"/tool", "capabilities=SYS_PTRACE", "risks=capability SYS_PTRACE, device /dev/null, seccomp=unconfined", "user=7", "read_only=yes", "restart=always")
			attributes(t, now, "container/"+name+"/badjob", "risks=mounts the socket of a runtime")
			if f := now.Find("containers:container/" + name + "/web"); strings.Contains(f.Attributes["runs"], "hunter2") || !strings.Contains(f.Attributes["runs"], "/hi") {
				t.Errorf("command %q", f.Attributes["runs"])
			}
			expect(t, drift(now, d.collect()))

			// Made anew as it was, then with more rights, then from another image.
			d.do("rm", "plain")
			d.do("create", "--name", "plain", "tiny:1", "/hi")
			expect(t, drift(now, d.collect()), "changed low container/"+name+"/plain id")
			d.do("rm", "plain")
			d.do("create", "--name", "plain", "--privileged", "tiny:1", "/hi")
			changed := drift(now, d.collect())
			if len(changed) != 1 || !strings.HasPrefix(changed[0], "changed high container/"+name+"/plain ") || !strings.Contains(changed[0], " privileged risks") {
				t.Errorf("%q", changed)
			}
			d.do("rm", "plain")
			d.do("import", d.archive("two"), "tiny:1")
			d.do("create", "--name", "plain", "tiny:1", "/hi")
			changed = drift(now, d.collect())
			if len(changed) != 2 || changed[0] != "changed medium container/"+name+"/plain id image_id" || !strings.HasPrefix(changed[1], "changed medium image/"+tag+" ") {
				t.Errorf("%q", changed)
			}
			d.do("rm", "web")
			if got := drift(now, d.collect()); !strings.Contains(strings.Join(got, "\n"), "removed low container/"+name+"/web") {
				t.Errorf("%q", got)
			}
		})
	}
}

// TestContainerd: containerd itself, commanded by ctr.
func TestContainerd(t *testing.T) {
	d := containerdDaemon(t)
	empty := d.collect()
	attributes(t, empty, "runtime/containerd")
	// An image of one layer, as docker save writes it, needs no registry.
	d.do("--namespace", "ours", "images", "import", ociArchive(t, d.dir))
	create := func(args ...string) {
		d.do(append([]string{"--namespace", "ours", "containers", "create"}, args...)...)
	}
	create("example.org/tiny:1", "plain", "/hi")
	create("--privileged", "--net-host", "--mount", "type=bind,src=/etc,dst=/host,options=rbind:rw", "example.org/tiny:1", "web", "/hi")
	now := d.collect()
	expect(t, drift(empty, now), "added medium container/containerd/ours/plain", "added high container/containerd/ours/web", "added low image/containerd/ours/example.org/tiny:1")
	attributes(t, now, "container/containerd/ours/plain", "privileged=no", "risks=none", "network=own", "pid=own", "image=example.org/tiny:1", "runs=/hi")
	f := now.Find("containers:container/containerd/ours/web")
	if f == nil || f.Attributes["privileged"] != "yes" || !strings.Contains(f.Attributes["mounts"], "/etc:/host:rw") ||
		!strings.Contains(f.Attributes["risks"], "writes /etc") || !strings.Contains(f.Attributes["risks"], "network of the host") {
		t.Errorf("%+v", f)
	}
	expect(t, drift(now, d.collect()))
	d.do("--namespace", "ours", "containers", "rm", "web")
	expect(t, drift(now, d.collect()), "removed low container/containerd/ours/web")
}

// TestRuntimesThatDoNotTell: none of these is taken for one without containers.
func TestRuntimesThatDoNotTell(t *testing.T) {
	dir := shortDir(t)
	stale := filepath.Join(dir, "stale")
	l, err := net.Listen("unix", stale)
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	l.Close()
	serve := func(name string, h http.HandlerFunc) string {
		path := filepath.Join(dir, name)
		l, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		s := &http.Server{Handler: h}
		go s.Serve(l)
		t.Cleanup(func() { s.Close() })
		return path
	}
	endless := serve("endless", func(w http.ResponseWriter, _ *http.Request) {
		w.Write([]byte(`{"Version":"`))
		for b := []byte(strings.Repeat("x", 1<<16)); ; {
			if _, err := w.Write(b); err != nil {
				return
			}
		}
	})
	refusing := serve("refusing", func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", http.StatusForbidden) })
	odd := serve("odd", func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("[1,2]")) })
	sources, list, err := Collector{Endpoints: []Endpoint{
		{"docker", filepath.Join(dir, "none")}, {"podman", stale}, {"docker:a", endless}, {"docker:b", refusing}, {"docker:c", odd}, {"containerd", refusing},
	}}.Collect(t.Context())
	if err != nil || len(list) > 0 {
		t.Fatalf("%v %v", err, list)
	}
	want := []facts.State{facts.OK, facts.Absent, facts.Absent, facts.Failed, facts.Failed, facts.Failed, facts.Failed}
	for i, s := range sources {
		if s.State != want[i] {
			t.Errorf("%s is %s (%s), want %s", s.ID(), s.State, s.Detail, want[i])
		}
	}
}

// TestTooMuchIsNotTold: a user cannot fill the baseline with containers, nor
// keep those of the system out of it.
func TestTooMuchIsNotTold(t *testing.T) {
	dir := shortDir(t)
	serve := func(name string, n int) Endpoint {
		path := filepath.Join(dir, strings.ReplaceAll(name, ":", "-"))
		l, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			switch r.URL.Path {
			case "/version":
				w.Write([]byte("{}"))
			case "/images/json":
				w.Write([]byte("[" + strings.Repeat(`{"Id":"x","RepoTags":["`+strings.Repeat("y", 4000)+`"]},`, n) + "{}]"))
			default:
				w.Write([]byte("[]"))
			}
		})}
		go s.Serve(l)
		t.Cleanup(func() { s.Close() })
		return Endpoint{name, path}
	}
	sources, _, err := Collector{Endpoints: []Endpoint{serve("docker:1", 300), serve("docker", 3000), serve("podman:1", 10), serve("podman", 3000)}}.Collect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	got := ""
	for _, s := range sources[1:] {
		got += s.Name + " " + string(s.State) + ", "
	}
	if want := "docker ok, podman failed, docker:1 failed, podman:1 ok, "; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestEndpoints(t *testing.T) {
	run := shortDir(t)
	for _, dir := range []string{"user/1000/podman", "user/1001"} {
		if err := os.MkdirAll(filepath.Join(run, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	l, err := net.Listen("unix", filepath.Join(run, "user/1000/podman/podman.sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := os.Symlink("/run/docker.sock", filepath.Join(run, "user/1001/docker.sock")); err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range endpoints(run) {
		names = append(names, e.Name)
	}
	if got := strings.Join(names, " "); got != "containerd docker podman podman:1000" {
		t.Errorf("endpoints %q", got)
	}
}

func TestPodName(t *testing.T) {
	for pod, want := range map[string]string{
		"web-5d8f7c9b6d-x2x4z": "web", "proxy-x2x4z": "proxy", "db-0": "db-0", "etcd-node1": "etcd-node1", "a-b-c": "a-b-c", "coredns-7db6d8ff4d-lk2xz": "coredns",
	} {
		if got := podName(pod); got != want {
			t.Errorf("%s: %q, want %q", pod, got, want)
		}
	}
}

// TestSlowRuntime: a check does not hang on a runtime that says nothing.
func TestSlowRuntime(t *testing.T) {
	path := filepath.Join(shortDir(t), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	e := &Endpoint{"docker", path}
	done := make(chan error, 1)
	go func() {
		_, _, err := e.collectWithin(t.Context(), true, 100*time.Millisecond)
		done <- err
	}()
	select {
	case err := <-done:
		if err == nil || !strings.Contains(err.Error(), "no answer within") {
			t.Errorf("%v", err)
		}
	case <-time.After(time.Minute):
		t.Error("it hangs")
	}
}
