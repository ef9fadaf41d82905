package segment

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/mobileops/mobileops/internal/network/lab"
)

func TestContainersByControlGroup(t *testing.T) {
	const id = "4f1d2c3b4a5968778695a4b3c2d1e0f04f1d2c3b4a5968778695a4b3c2d1e0f0"
	for text, want := range map[string]bool{
		"0::/system.slice/docker-" + id + ".scope\n":                                                     true,
		"12:pids:/docker/" + id + "\n11:cpu:/docker/" + id + "\n":                                        true,
		"0::/kubepods.slice/kubepods-burstable.slice/cri-containerd-" + id + ".scope\n":                  true,
		"0::/machine.slice/libpod-" + id + ".scope/container\n":                                          true,
		"0::/kubepods/besteffort/pod2/" + id + "\n":                                                      true,
		"0::/system.slice/containerd.service/kubepods-besteffort-pod1.slice:cri-containerd:" + id + "\n": true,
		"0::/user.slice/" + id[:12] + "\n":                                                               false, // anybody can call a group so
		"0::/system.slice/docker-" + strings.Replace(id, "4f1d2c3b4a59", "4f1d2c3b4a58", 1) + ".scope\n": false,
		"0::/init.scope\n": false,
		"":                 false,
	} {
		if got := inGroup(text, id[:12]); got != want {
			t.Errorf("%q: %v", text, got)
		}
	}
}

// TestNamespacesByNameAndProcess attaches a namespace of ip-netns(8), and that
// of a process.
func TestNamespacesByNameAndProcess(t *testing.T) {
	l := lab.New(t)
	m := newMachine(t, l.Host("host"))
	name := fmt.Sprintf("mobileops-test-%d-%d", os.Getpid(), time.Now().UnixNano())
	if out, err := exec.Command("ip", "netns", "add", name).CombinedOutput(); err != nil {
		t.Skipf("NOT RUN: ip netns makes no namespaces here: %s", out)
	}
	t.Cleanup(func() { exec.Command("ip", "netns", "del", name).Run() })
	other := l.Host("other")
	sleep := other.Command(t.Context(), "sleep", "600")
	if err := sleep.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { sleep.Process.Kill(); sleep.Wait() }()
	want, err := os.Stat(other.NetNS())
	if err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		if ns, err := os.Stat(fmt.Sprintf("/proc/%d/ns/net", sleep.Process.Pid)); err == nil && os.SameFile(ns, want) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the process has not entered its namespace")
		}
	}
	doc := parse(t, "lab", fmt.Sprintf(`
version: 1
zones:
  dev: {subnets: [10.60.0.0/24]}
workloads:
  named: {zone: dev, namespace: %s, inside: mobile0}
  process: {zone: dev, pid: %d}
`, name, sleep.Process.Pid))
	m.apply(doc)
	ping(t, other, "10.60.0.1")
	out, err := exec.Command("ip", "netns", "exec", name, "ip", "-br", "-4", "addr", "show", "mobile0").CombinedOutput()
	if err != nil || !strings.Contains(string(out), "10.60.0.2/24") {
		t.Errorf("in the named namespace: %v %s", err, out)
	}
	if list := m.apply(doc); len(list) > 0 {
		t.Errorf("the second apply changed %q", list)
	}

	// The namespace goes, and comes back empty: the workload is attached anew.
	exec.Command("ip", "netns", "del", name).Run()
	if list := strings.Join(m.apply(doc), "\n"); !strings.Contains(list, "named: the network namespace "+name+": it is not there yet") {
		t.Errorf("without the namespace: %s", list)
	}
	if out, err := exec.Command("ip", "netns", "add", name).CombinedOutput(); err != nil {
		t.Fatalf("%s", out)
	}
	if list := strings.Join(m.apply(doc), "\n"); !strings.Contains(list, "+ port mo-p-named of mo-dev") {
		t.Errorf("with the namespace again: %s", list)
	}
	m.apply()
}

// TestTheFirstThreadStaysWhereItIs enters namespaces from many goroutines at
// once, some of which the first thread of the process runs.
func TestTheFirstThreadStaysWhereItIs(t *testing.T) {
	l := lab.New(t)
	ns, err := os.Open(l.Host("host").NetNS())
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	before, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", os.Getpid()))
	if err != nil {
		t.Fatal(err)
	}
	there := make(chan string, 400)
	for range cap(there) {
		go func() {
			_ = within(ns, func() error {
				at, _ := os.Readlink("/proc/thread-self/ns/net")
				there <- at
				return nil
			})
		}()
	}
	for range cap(there) {
		if at := <-there; at == before || at == "" {
			t.Fatalf("not in the namespace, but in %q", at)
		}
	}
	if after, _ := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", os.Getpid())); after != before {
		t.Errorf("the process was in %s and is in %s", before, after)
	}
}

// TestManyAddressesOfAWorkload gives a workload addresses from within until
// taking them away one by one would keep everybody else waiting.
func TestManyAddressesOfAWorkload(t *testing.T) {
	t.Parallel()
	n := lab.New(t)
	m := newMachine(t, n.Host("host"))
	web := n.Host("web")
	doc := parse(t, "lab", workloads(`dev: {subnets: [10.60.0.0/24]}`, web))
	m.apply(doc)
	before := sh(t, web, "ip -o addr show dev eth0 | wc -l")
	var batch strings.Builder
	for i := range 300 {
		fmt.Fprintf(&batch, "addr add 10.77.%d.%d/32 dev eth0\n", i/200, 1+i%200)
	}
	file := filepath.Join(t.TempDir(), "batch")
	if err := os.WriteFile(file, []byte(batch.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	sh(t, web, "ip -batch "+file)
	list := m.apply(doc)
	if len(list) != 1 || list[0] != "- 300 addresses of eth0 of web that it was not given" {
		t.Errorf("%q", list)
	}
	if after := sh(t, web, "ip -o addr show dev eth0 | wc -l"); after != before {
		t.Errorf("%s addresses, not %s", after, before)
	}
	if list := m.apply(doc); len(list) > 0 {
		t.Errorf("the second apply changed %q", list)
	}
}
